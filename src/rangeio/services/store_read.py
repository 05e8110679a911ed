"""One read of a store and its memory."""

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from rangeio.errors import Error, UnexpectedError
from rangeio.ranges import OPEN

if TYPE_CHECKING:
    from _uring import Buffer, Reactor


class StoreRead:
    """Bytes `start` to `stop` of an object, into one Buffer, or into memory of the caller.

    Threads fill it. After `let_go` none of them writes to it any more, although its call of the store may go on: so a
    read ends at once when its time has passed or its task is cancelled, and the caller may use its memory again.
    """

    def __init__(
        self, reactor: "Reactor", index: int, start: int, stop: int, into: memoryview | None = None
    ) -> None:
        self._reactor = reactor
        self.index = index
        self.start, self.stop = start, min(stop, OPEN)
        self.limit = self.stop - start
        self.settled = False
        """Whether the size of the object is known, so that `stop` is final."""
        self.open = False
        """Whether the object has no size: then only an empty answer tells where it ends."""
        self._filled = 0
        self._kept: list[Any] = []
        self._lock = threading.Lock()
        self._buffer: Buffer | None = None
        self._memory = into
        self._is_ours = into is None
        self._gone = False

    def settle(self, size: int | None) -> None:
        """End the read at the end of the object, and allocate its memory. size: None if the object has none."""
        if self.settled or self.open:
            return
        if size is None:
            self.open = True
            return
        self.stop = max(self.start, min(self.stop, size))
        if self._is_ours:
            buffer = self._reactor.allocate(self.stop - self.start)
            with self._lock:
                if not self._gone:
                    self._buffer, self._memory = buffer, self._reactor.writable(buffer)
        self.settled = True

    def put(self, at: int, data: memoryview) -> None:
        """Copy bytes that belong to the position `at` of the object."""
        if self.open and self._is_ours:
            self._kept.append(data)
        else:
            with self._lock:
                if self._memory is not None:
                    first = at - self.start
                    # numpy copies without the GIL.
                    room = np.frombuffer(self._memory[first : first + data.nbytes], np.uint8)
                    room[:] = np.frombuffer(data, np.uint8)
        with self._lock:
            self._filled += data.nbytes

    def gather(self) -> None:
        """Put the bytes of an object without a size into one Buffer."""
        if not (self.open and self._is_ours):
            return
        buffer = self._reactor.allocate(self._filled)
        memory, at = self._reactor.writable(buffer), 0
        for data in self._kept:
            memory[at : at + data.nbytes] = data
            at += data.nbytes
        self._kept = []
        with self._lock:
            if not self._gone:
                self._buffer = buffer

    def result(self) -> Any:
        """The Buffer, or the number of bytes in the memory of the caller."""
        if self.settled and self._filled != self.stop - self.start:
            raise UnexpectedError(
                f"{self._filled} of {self.stop - self.start} bytes were read, and nothing said that others are"
                " missing: this is a defect of rangeio"
            )
        self._reactor.count(self._filled, self._filled)
        return self._buffer if self._is_ours else self._filled

    def let_go(self) -> None:
        """Nothing is written from here on. Waits at most for the copy of one answer."""
        with self._lock:
            self._gone = True
            self._memory = self._buffer = None
        self._kept = []


def bytes_of(data: object, most: int) -> memoryview:
    """The bytes that a store returned. UnexpectedError if they are more than `most`, or no bytes at all."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]
        view = view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:
        what = type(data).__name__
        hint = "; open the file in binary mode" if isinstance(data, str) else ""
        raise UnexpectedError(f"the store returned {what}, not bytes{hint}") from None
    if view.nbytes > most:
        raise UnexpectedError(f"the store returned {view.nbytes} bytes for {most} that were asked for")
    return view


def first_failure(errors: dict[int, BaseException]) -> BaseException:
    """The failure of the first read in the order they were asked for."""
    index = min(errors)
    error = errors[index]
    if isinstance(error, Error):
        error.index = index
    return error
