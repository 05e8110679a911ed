"""The unit of work of the engine: one read and its memory."""

from typing import TYPE_CHECKING, Any

from rangeio.errors import Error, UnexpectedError
from rangeio.events import LISTENERS, Event, begun, since, tell
from rangeio.http.remote_object import RemoteObject
from rangeio.http.validation import Version
from rangeio.policy import Timeout
from rangeio.ranges import OPEN

if TYPE_CHECKING:
    from _uring import Buffer, Reactor


class RangeRead:
    """Bytes `start` to `stop` of an object (`stop` may lie beyond its end), received into one Buffer, or into `into`.

    Memory is allocated when the size is known, with the first head at the latest. filled: bytes that responses have put
    in place. Each response counts its bytes once, at its end, so that a result with a hole, which would show old
    memory, is never returned.
    """

    __slots__ = (
        "_reactor",
        "began",
        "buffer",
        "done",
        "filled",
        "index",
        "into",
        "left",
        "memory",
        "remote",
        "retries",
        "start",
        "stop",
        "timeout",
        "version",
    )

    def __init__(
        self,
        reactor: "Reactor",
        remote: RemoteObject,
        index: int,
        start: int,
        stop: int,
        into: memoryview | None = None,
        timeout: Timeout | None = None,
    ) -> None:
        """timeout: None for the timeout of the object."""
        self._reactor = reactor
        self.remote = remote
        self.timeout = remote.timeout if timeout is None else timeout
        self.index = index
        self.start, self.stop = start, stop
        self.into = into
        self.buffer: Buffer | None = None
        self.memory: memoryview | None = into
        self.version = remote.version
        self.left = self.filled = self.retries = 0  # left: attempts that are not complete
        self.began = begun()
        self.done = False

    def of_whole(self, stop: int) -> "RangeRead":
        """A read of the whole object, of at most that many bytes, from which other reads are cut."""
        return RangeRead(self._reactor, self.remote, -1, 0, stop)

    def of_status(self) -> "Probe":
        """The request for the status that this read waits for (`RemoteObject.by_status`)."""
        probe = Probe(self._reactor, self.remote, self.timeout)
        probe.index, probe.version = -1, self.version
        return probe

    @property
    def offset(self) -> int | None:
        """Where it starts, for errors; None if it is not for a range, or if that is not known yet."""
        return self.start if self.remote.by_bytes else None

    @property
    def tick_s(self) -> float:
        """The interval between checks of its requests."""
        return self.remote.tick_s(self.timeout)

    def end_at(self, stop: int) -> None:
        """Limit the read to the end of the object."""
        self.stop = max(self.start, min(self.stop, stop))

    def room(self, upto: int) -> memoryview:
        """Memory for the bytes `start` to `upto`; keeps what was received."""
        needed = upto - self.start
        if self.memory is None or len(self.memory) < needed:
            assert self.into is None, "the caller's memory is as large as its read"
            old = self.memory
            self.buffer = self._reactor.allocate(needed)
            self.memory = self._reactor.writable(self.buffer)
            if old is not None:
                self.memory[: len(old)] = old
        return self.memory

    def lands_in(self, buffer: "Buffer") -> None:
        """Use this destination, which already contains a part of the read."""
        self.buffer, self.memory = buffer, self._reactor.writable(buffer)

    def piece(self, at: int, stop: int) -> memoryview:
        """Memory for the bytes `at` to `stop` of a read whose end is known."""
        memory, length = self.memory, self.stop - self.start
        if memory is None or len(memory) < length:
            memory = self.room(self.stop)
        return memory if stop - at == len(memory) else memory[at - self.start : stop - self.start]

    def grown(self, upto: int) -> memoryview:
        """Like `room`, but at least double the size, so that growing byte by byte copies each byte once or twice."""
        have = 0 if self.memory is None else len(self.memory)
        return self.room(min(self.stop, max(upto, self.start + 2 * have, self.start + 65_536)))

    def result(self) -> Any:
        """The Buffer; for the caller's memory the number of bytes. UnexpectedError if bytes are missing."""
        length = self.stop - self.start
        if self.filled != length:
            raise UnexpectedError(
                f"{self.filled} of {length} bytes were received, and nothing said that others are missing: this is a"
                " defect of rangeio"
            )
        if self.remote.by_bytes:  # not a page of a listing
            self._reactor.count(length, length)
            if LISTENERS:
                self._tell(length)
        if self.into is not None:
            return length
        buffer = self.buffer
        if buffer is None or len(buffer) < length:
            self.room(self.stop)
            buffer = self.buffer
        self.memory = None
        assert buffer is not None
        return buffer if len(buffer) == length else buffer[:length]

    def _tell(self, nbytes: int) -> None:
        took_s, attempts = since(self.began), self.retries + 1
        tell(Event("read", self.remote.shown, self.offset, nbytes, 1, seconds=took_s, attempts=attempts))

    def let_go(self) -> None:
        """Release the memory after the end, because a thread that still connects may hold the read."""
        self.memory = self.into = self.buffer = None

    def cut_from(self, whole: "Buffer") -> Any:
        """The result, from an object that is in memory."""
        self.end_at(len(whole))
        if self.into is None:
            return whole[self.start : self.stop]
        self.into[: self.stop - self.start] = memoryview(whole)[self.start : self.stop]
        return self.stop - self.start


class Probe(RangeRead):
    """Requests the size and version only: HEAD, or the first byte if HEAD is refused; or the status of the object."""

    __slots__ = ("size",)

    def __init__(self, reactor: "Reactor", remote: RemoteObject, timeout: Timeout | None = None) -> None:
        super().__init__(reactor, remote, 0, 0, 1, memoryview(bytearray(1)), timeout)
        self.size: int | None = None

    @property
    def offset(self) -> int | None:
        """See `RangeRead`."""
        return None

    def result(self) -> Version:
        """The current version; sets `size`."""
        return self.version


class SuffixRead(RangeRead):
    """The last `count` bytes of an object whose size is not known; the first response tells where they start.

    Its result is None if the server does not send the last bytes on request: then the size must be known first.
    settled: whether `start` and `stop` are known.
    """

    __slots__ = ("count", "settled")

    def __init__(
        self, reactor: "Reactor", remote: RemoteObject, count: int, timeout: Timeout | None = None
    ) -> None:
        super().__init__(reactor, remote, 0, 0, OPEN, None, timeout)
        self.count = count
        self.settled = False

    @property
    def offset(self) -> int | None:
        """See `RangeRead`."""
        return self.start if self.settled else None

    def settle(self, size: int) -> None:
        """Set the range, now that the size of the object is known. A second call does nothing."""
        if not self.settled:
            self.start, self.stop, self.settled = max(0, size - self.count), size, True

    def cut_from(self, whole: "Buffer") -> Any:
        """See `RangeRead`."""
        self.settle(len(whole))
        return super().cut_from(whole)

    def result(self) -> Any:
        """See the class."""
        return super().result() if self.settled else None


def in_order(landed: dict[int, Any], count: int, each: bool = False) -> list[Any]:
    """The results; the first failure in that order is raised. each: an Error is a result."""
    results = [landed.pop(index) for index in range(count)]
    for result in results:
        if isinstance(result, BaseException) and not (each and isinstance(result, Error)):
            results.clear()  # the traceback will hold this frame, which must not hold the Buffers
            try:
                raise result
            finally:
                del result  # nor the error itself
    return results
