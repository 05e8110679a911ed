"""One range as a stream of Buffers, and where such a stream can go: a writer, or a consumer."""

import errno
import inspect
import io
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from _uring import yield_if_due
from rangeio.awaitables import pause, settle
from rangeio.budget import SHARED
from rangeio.errors import Error
from rangeio.in_flight import Flight
from rangeio.ranges import OPEN, certain
from rangeio.service import Options, Source

if TYPE_CHECKING:
    from _uring import Buffer

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called with the bytes done so far, and those in all (None if not known)."""

# Chosen by measurement (bench: stream): smaller ones cost more Python than they save cache, larger ones more cache;
# eight of 1 MiB keep a device busy.
_CHUNK = 1 << 20
_PREFETCH = 8 << 20
# Chunks that are planned at once: arrays of a long stream would be as long as it is.
_SEGMENT = 65_536
_LONGEST_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Course:
    """How a stream reads: pieces of `chunk` bytes, at most `prefetch` bytes of them ahead of the one handed out."""

    chunk: int
    prefetch: int

    @classmethod
    def of(cls, options: Options, chunk: int | None, prefetch: int | None) -> "Course":
        """What a call asks for, else the Reader's options, else the default. ConfigInvalidError for a wrong value."""
        given = {"chunk": chunk, "prefetch": prefetch}
        chosen = options.updated({name: value for name, value in given.items() if value is not None})
        ahead = _PREFETCH if chosen.prefetch is None else chosen.prefetch
        return cls(chosen.chunk or _CHUNK, ahead)

    def depth(self, granted: int) -> int:
        """Pieces under way or not handed out yet: one that is waited for, and those that `granted` bytes allow."""
        return 1 + granted // self.chunk


def pieces(source: Source, course: Course, start: int, stop: int) -> "Generator[Buffer]":
    """The stream of a range, sync. Where the end is not known it is found by reading: without reading ahead, until a
    reply has told it, if it does.
    """
    while stop == OPEN:
        buffer = source.read_at(start, course.chunk)
        if buffer.nbytes:
            yield buffer
        if buffer.nbytes < course.chunk:
            return
        start += course.chunk
        size = certain(source.size)
        stop = OPEN if size is None else max(start, size)
    loan = SHARED.lend(min(course.prefetch, stop - start))
    try:
        span = course.chunk * _SEGMENT
        for first in range(start, stop, span):
            starts = np.arange(first, min(first + span, stop), course.chunk, dtype=np.int64)
            lengths = np.minimum(course.chunk, stop - starts)
            replies = source.fetch_each(
                starts, lengths, chunk=None, concurrent=course.depth(loan.nbytes), ordered=True
            )
            with closing(cast("Generator[tuple[int, Any]]", replies)):
                for _, reply in replies:
                    if isinstance(reply, Error):
                        try:
                            raise reply
                        finally:
                            del reply  # its traceback holds this frame: let neither hold the other
                    if reply.nbytes:
                        yield reply
    finally:
        loan.close()


class AsyncStream(AsyncIterator["Buffer"]):
    """The stream of a range, async. `aclose`, or letting go of it, stops the reads; so it may be left at any point.

    It is begun by the first `anext`, on the loop that runs then.
    """

    def __init__(self, course: Course, begin: Callable[[], Awaitable[tuple[Source, int, int]]]) -> None:
        """begin: opens what there is to open; the Source, and where in it to start and to stop."""
        self._course = course
        self._begin = begin
        self._flight: Flight | None = None
        self._open_at: tuple[Source, int] | None = (
            None  # where the first piece begins, of one whose end is not known
        )
        self._loan = SHARED.lend(0)
        self._ended = False

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> "Buffer":
        if self._ended:
            await yield_if_due()
        elif self._flight is None:
            self._flight = self._launch(*await self._begin())
        if self._ended or self._flight is None:
            raise StopAsyncIteration
        landed = await self._flight.next()
        if landed is None or self._ended:
            self.end()
            raise StopAsyncIteration
        _, reply = landed
        if isinstance(reply, Error):
            self.end()
            try:
                raise reply
            finally:
                del landed, reply  # its traceback holds this frame: let neither hold the other
        if reply.nbytes < self._course.chunk:
            self.end()  # the last piece, or that of an object that ends here
        elif self._open_at is not None:
            self._look_for_end(*self._open_at)
        if not reply.nbytes:
            raise StopAsyncIteration
        return reply

    def _look_for_end(self, source: Source, start: int) -> None:
        """The first piece may have told where the object ends: then the rest is read ahead."""
        self._open_at = None
        size = certain(source.size)
        if size is not None and self._flight is not None:
            self._flight.close()
            start += self._course.chunk
            self._flight = self._launch(source, start, max(start, size))

    def _launch(self, source: Source, start: int, stop: int) -> Flight:
        chunk = self._course.chunk
        count = -(-(stop - start) // chunk)
        if stop < OPEN:
            self._loan = SHARED.lend(min(self._course.prefetch, stop - start))
        else:
            self._open_at = source, start

        def begin(index: int, waiter: Any) -> None:
            first = start + index * chunk
            source.begin_at(first, min(chunk, stop - first), waiter)

        return Flight(
            begin, count, source.yield_if_due, depth=self._course.depth(self._loan.nbytes), ordered=True
        )

    async def aclose(self) -> None:
        """Stop reading. A second call does nothing."""
        self.end()
        await yield_if_due()

    def end(self) -> None:
        """As `aclose`, which has nothing to wait for."""
        self._ended = True
        if self._flight is not None:
            self._flight.close()
        self._loan.close()

    def __del__(self) -> None:
        self.end()


def way_into(writer: Any) -> Callable[[memoryview], object]:
    """The call that a writer takes bytes by: `write`, or that of trio's streams. TypeError if it has none."""
    for name in ("write", "send_all"):
        if hasattr(writer, name):
            return cast("Callable[[memoryview], object]", getattr(writer, name))
    raise TypeError(f"{writer!r} takes no bytes: give an object with write() or send_all()")


async def copy(
    buffers: "AsyncIterator[Buffer]", writer: Any, progress: Progress | None, total: Callable[[], int | None]
) -> int:
    """See `Reader.copy`. A writer may be sync or async; `drain()` is awaited where there is one.

    total: asked each time, because a reply may have told it.
    """
    write = way_into(writer)
    drain = getattr(writer, "drain", None)
    done = 0
    async for buffer in buffers:
        rest = memoryview(buffer)
        while rest:
            taken = _taken(await settle(write(rest)), len(rest), writer)
            rest = rest[taken:]
            done += taken
        if drain is not None:
            await settle(drain())
        if progress is not None:
            progress(done, total())
    return done


def _taken(answer: object, offered: int, writer: object) -> int:
    """How many bytes a write took. A raw file that answers None took nothing; of all other writers None means all."""
    if answer is None:
        if isinstance(writer, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, "the writer does not block and is full", 0)
        return offered
    if not isinstance(answer, int) or not 0 < answer <= offered:
        raise OSError(errno.EIO, f"{writer!r} was offered {offered} bytes and says it wrote {answer!r}")
    return answer


async def sink(buffers: "AsyncIterator[Buffer]", consumer: Any, *, blocking: bool) -> int:
    """See `Reader.sink`. blocking: whether this thread may wait in the put() of a sync queue."""
    give = entrance(consumer, blocking)
    if blocking and inspect.iscoroutinefunction(give):
        raise TypeError(f"{consumer!r} has to be awaited: read with rangeio.open_async()")
    done = 0
    async for buffer in buffers:
        size = buffer.nbytes
        await settle(give(buffer))
        done += size
    if hasattr(consumer, "send"):
        for name in ("flush", "close"):
            await settle(getattr(consumer, name, lambda: None)())
    return done


def entrance(consumer: Any, blocking: bool) -> Callable[[Any], object]:
    """The call that a consumer takes Buffers by. TypeError if it has none."""
    if hasattr(consumer, "send"):
        send: Callable[[Any], object] = consumer.send
        return send
    if hasattr(consumer, "put"):
        put: Callable[[Any], object] = consumer.put
        return put if blocking or inspect.iscoroutinefunction(put) else lambda buffer: _put(consumer, buffer)
    if callable(consumer):
        call: Callable[[Any], object] = consumer
        return call
    raise TypeError(f"{consumer!r} takes no Buffers: give a callable, a queue, or an object with send()")


async def _put(consumer: "queue.Queue[Any]", buffer: "Buffer") -> None:
    """Put into a sync queue without blocking the loop. It tells nobody when there is room, so look again and again."""
    delay = 0.0
    while True:
        try:
            consumer.put_nowait(buffer)
        except queue.Full:
            await pause(delay)
            delay = min(_LONGEST_PAUSE_S, 2 * delay + 0.0001)
        else:
            return
