"""One range as a stream of Buffers, and passing it to a writer (`copy`) or a consumer (`sink`)."""

import errno
import inspect
import io
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from _uring import yield_if_due
from rangeio.awaitables import pause, settle
from rangeio.budget import SHARED
from rangeio.errors import Error
from rangeio.in_flight import RequestWindow
from rangeio.options import Options
from rangeio.ranges import OPEN, proven
from rangeio.service import Source

if TYPE_CHECKING:
    from _uring import Buffer

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called with the bytes written so far and the total (None if unknown)."""

# Chosen by measurement (bench: stream): smaller chunks cost more Python time than they save in cache misses, larger
# ones cost more cache misses; eight of 1 MiB keep a device busy.
_CHUNK = 1 << 20
_PREFETCH = 8 << 20
# Chunks that are planned at a time, to bound the size of the arrays for a long stream.
_SEGMENT = 65_536
_LONGEST_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream reads: in pieces of `chunk` bytes, at most `prefetch` bytes ahead of the piece handed out last."""

    chunk: int
    prefetch: int

    @classmethod
    def of(cls, options: Options, chunk: int | None, prefetch: int | None) -> "StreamSettings":
        """The settings of the call, else of the Reader, else the defaults. ConfigInvalidError for an invalid value."""
        given = {"chunk": chunk, "prefetch": prefetch}
        chosen = options.updated({name: value for name, value in given.items() if value is not None})
        ahead = _PREFETCH if chosen.prefetch is None else chosen.prefetch
        return cls(chosen.chunk or _CHUNK, ahead)

    def depth(self, granted: int) -> int:
        """Pieces in flight or not handed out yet: the next piece, and as many more as `granted` bytes allow."""
        return 1 + granted // self.chunk


def stream_range(source: Source, settings: StreamSettings, start: int, stop: int) -> "Generator[Buffer]":
    """The stream of a range, sync. If the end is unknown, reads without prefetch until a response reports the end."""
    while stop == OPEN:
        buffer = source.read_at(start, settings.chunk)
        if buffer.nbytes:
            yield buffer
        if buffer.nbytes < settings.chunk:
            return
        start += settings.chunk
        size = proven(source.size)
        stop = OPEN if size is None else max(start, size)
    grant = SHARED.grant(min(settings.prefetch, stop - start))
    try:
        span = settings.chunk * _SEGMENT
        for first in range(start, stop, span):
            starts = np.arange(first, min(first + span, stop), settings.chunk, dtype=np.int64)
            lengths = np.minimum(settings.chunk, stop - starts)
            responses = source.fetch_each(
                starts, lengths, chunk=None, concurrent=settings.depth(grant.nbytes), ordered=True
            )
            with closing(cast("Generator[tuple[int, Any]]", responses)):
                for _, response in responses:
                    if isinstance(response, Error):
                        try:
                            raise response
                        finally:
                            del response  # breaks the cycle of frame and traceback
                    if response.nbytes:
                        yield response
    finally:
        grant.close()


class AsyncStream(AsyncIterator["Buffer"]):
    """The stream of a range, async. The iteration may stop at any point: `aclose`, or deleting it, stops the reads.

    The first `anext` begins the reads, on the loop that runs at that time.
    """

    def __init__(
        self, settings: StreamSettings, begin: Callable[[], Awaitable[tuple[Source, int, int]]]
    ) -> None:
        """begin: opens the object if necessary; returns the Source and the start and stop of the range."""
        self._settings = settings
        self._begin = begin
        self._window: RequestWindow | None = None
        # The Source and the start of the first piece, while the end is not known.
        self._open_at: tuple[Source, int] | None = None
        self._grant = SHARED.grant(0)
        self._ended = False

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> "Buffer":
        if self._ended:
            await yield_if_due()
        elif self._window is None:
            self._window = self._launch(*await self._begin())
        if self._ended or self._window is None:
            raise StopAsyncIteration
        completed = self._window.now() or await self._window.next()
        if completed is None or self._ended:
            self.end()
            raise StopAsyncIteration
        _, response = completed
        if isinstance(response, Error):
            self.end()
            try:
                raise response
            finally:
                del completed, response  # breaks the cycle of frame and traceback
        if response.nbytes < self._settings.chunk:
            self.end()  # the last piece of the range, or the object ends here
        elif self._open_at is not None:
            self._look_for_end(*self._open_at)
        if not response.nbytes:
            raise StopAsyncIteration
        return response

    def _look_for_end(self, source: Source, start: int) -> None:
        """If the first piece reported the size of the object, read the rest with prefetch."""
        self._open_at = None
        size = proven(source.size)
        if size is not None and self._window is not None:
            self._window.close()
            start += self._settings.chunk
            self._window = self._launch(source, start, max(start, size))

    def _launch(self, source: Source, start: int, stop: int) -> RequestWindow:
        chunk = self._settings.chunk
        count = -(-(stop - start) // chunk)
        if stop < OPEN:
            self._grant = SHARED.grant(min(self._settings.prefetch, stop - start))
        else:
            self._open_at = source, start

        def begin(index: int, waiter: Any) -> None:
            first = start + index * chunk
            source.begin_at(first, min(chunk, stop - first), waiter)

        def at_once(index: int) -> "Buffer | None":
            first = start + index * chunk
            return source.read_cached(first, min(chunk, stop - first))

        depth = self._settings.depth(self._grant.nbytes)
        return RequestWindow(begin, count, source.yield_if_due, at_once=at_once, depth=depth, ordered=True)

    async def aclose(self) -> None:
        """Stop reading. A second call does nothing."""
        self.end()
        await yield_if_due()

    def end(self) -> None:
        """Like `aclose`, which does not wait."""
        self._ended = True
        if self._window is not None:
            self._window.close()
        self._grant.close()

    def __del__(self) -> None:
        self.end()


def writer_call(writer: Any) -> Callable[[memoryview], object]:
    """The method of a writer that accepts bytes: `write`, or `send_all` of trio streams. TypeError if it has none."""
    for name in ("write", "send_all"):
        if hasattr(writer, name):
            return cast("Callable[[memoryview], object]", getattr(writer, name))
    raise TypeError(f"{writer!r} is not a writer: pass an object with write() or send_all()")


async def copy(
    buffers: "AsyncIterator[Buffer]", writer: Any, progress: Progress | None, total: Callable[[], int | None]
) -> int:
    """See `Reader.copy`. A writer may be sync or async. If its `write` is not awaited, its `drain()` is, if it has one.

    total: called each time, because a response may have reported the size.
    """
    write = writer_call(writer)
    drain = getattr(writer, "drain", None)
    done = 0
    async for buffer in buffers:
        rest = memoryview(buffer)
        try:
            while rest:
                written = write(rest)
                if isinstance(written, Awaitable):
                    drain = None  # it waits by itself; aiohttp warns of a drain
                accepted = _accepted(await settle(written), len(rest), writer)
                rest = rest[accepted:]
                done += accepted
            if drain is not None:
                await settle(drain())
        except BaseException:
            # The writer's frames hold the view for as long as the traceback lives. Web servers keep that of a client
            # that has left until the garbage collector runs.
            with suppress(BufferError):  # a thread of the writer is still at it
                rest.release()
            del buffer
            raise
        if progress is not None:
            progress(done, total())
    return done


def _accepted(result: object, passed: int, writer: object) -> int:
    """The number of bytes a write accepted. None means nothing from a raw file, and all from any other writer."""
    if result is None:
        if isinstance(writer, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, "the writer is non-blocking and full", 0)
        return passed
    if not isinstance(result, int) or not 0 < result <= passed:
        raise OSError(errno.EIO, f"{writer!r} was passed {passed} bytes and returned {result!r}")
    return result


async def sink(buffers: "AsyncIterator[Buffer]", consumer: Any, *, blocking: bool) -> int:
    """See `Reader.sink`. blocking: whether this thread may wait in the put() of a sync queue."""
    give = consumer_call(consumer, blocking)
    if blocking and inspect.iscoroutinefunction(give):
        raise TypeError(f"{consumer!r} must be awaited: read with rangeio.open_async()")
    done = 0
    async for buffer in buffers:
        size = buffer.nbytes
        await settle(give(buffer))
        done += size
    if hasattr(consumer, "send"):
        for name in ("flush", "close"):
            await settle(getattr(consumer, name, lambda: None)())
    return done


def consumer_call(consumer: Any, blocking: bool) -> Callable[[Any], object]:
    """The method of a consumer that accepts Buffers, or the callable itself. TypeError if it is neither."""
    if hasattr(consumer, "send"):
        send: Callable[[Any], object] = consumer.send
        return send
    if hasattr(consumer, "put"):
        put: Callable[[Any], object] = consumer.put
        return put if blocking or inspect.iscoroutinefunction(put) else lambda buffer: _put(consumer, buffer)
    if callable(consumer):
        call: Callable[[Any], object] = consumer
        return call
    raise TypeError(f"{consumer!r} is not a consumer: pass a callable, a queue, or an object with send()")


async def _put(consumer: "queue.Queue[Any]", buffer: "Buffer") -> None:
    """Put into a sync queue without blocking the loop. A queue does not notify when it has room, so poll it."""
    delay = 0.0
    while True:
        try:
            consumer.put_nowait(buffer)
        except queue.Full:
            await pause(delay)
            delay = min(_LONGEST_PAUSE_S, 2 * delay + 0.0001)
        else:
            return
