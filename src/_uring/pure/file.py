"""A file of the backend ``python``: positional reads. Async reads run on worker threads."""

import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

import numpy as np

from _uring.arguments import OFFSET_MAX, byte_array, byte_arrays, byte_index, whole_table, writable_bytes
from _uring.errors import as_failure, is_failure, make_error, without_frames
from _uring.event_loops import bind, current_key
from _uring.pickling import unpicklable
from _uring.pure.buffer import Buffer, memory_of
from _uring.pure.coop import refused
from _uring.pure.descriptor import will_need
from _uring.pure.open_file import SMALL, OpenFile
from _uring.pure.workers import Process
from _uring.records import FileStat
from _uring.waiters import Waiter, tell, tell_failure

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer as SupportsBuffer

# Bytes of an async `read_into` that are read between two checks for cancellation.
_PIECE = 8 << 20

_T = TypeVar("_T")
_Read = Callable[[Process], _T]


class File:
    """One open regular file, read by position. No cursor. Every method is thread-safe.

    Each read is first prepared, which checks its arguments. It then runs at once, or on a worker thread while an event
    loop waits for the result.
    """

    direct = False
    mapped = False
    direct_reason = "the python backend does not use O_DIRECT"
    alignment = 0

    def __init__(self, opened: OpenFile) -> None:
        self._opened = opened
        self.path = opened.path
        self.again: tuple[Callable[..., Any], tuple[Any, ...]] | None = None

    @property
    def closed(self) -> bool:
        return self._opened.closed

    @property
    def size(self) -> int | None:
        if self._opened.pin is not None:
            return self._opened.pin.size
        return self._now(lambda _: self._opened.size())

    def fileno(self) -> int:
        if self.closed:
            raise make_error("closed", path=self.path)
        return self._opened.fd

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> Buffer:
        """Read `limit` bytes from `offset`: fewer only at the end of the file, none past it. `limit` 0 does no I/O.

        ValueError for negative numbers, TypeError for non-integers, OverflowError from 2**63 on. All are raised
        before any I/O.
        """
        return self._now(self._prepare_at(offset, limit))

    def read_into(self, buffer: "SupportsBuffer", offset: SupportsIndex = 0) -> int:
        """Fill a writable C-contiguous buffer from `offset`. Return the bytes read: less than its size only at the end.

        TypeError if the buffer is read-only or holds Python objects or pointers, BufferError if it is not contiguous.
        Both are raised before any I/O.
        """
        return self._now(self._prepare_into(buffer, offset))

    def read_many(self, starts: Any, lengths: Any, concurrent: int = 0) -> list[Buffer]:
        return self._now(self._prepare_many(starts, lengths, concurrent))

    def read_many_into(
        self, destinations: "Iterable[SupportsBuffer]", starts: Any, concurrent: int = 0
    ) -> list[int]:
        """Fill writable C-contiguous buffers, each from its start, many at once. Return the bytes read into each.

        As `read_into` of each; none may overlap another. concurrent: as for `read_many`.
        """
        return self._now(self._prepare_many_into(destinations, starts, concurrent))

    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        """Read the records of `length` bytes at `offsets` into one table of shape (len(offsets), length).

        If any record extends past the end, the call raises an ``"eof"`` error with the index of the record in `detail`.
        out: a writable C-contiguous buffer of exactly that size, which is filled and returned in place of a new Buffer.
        """
        return self._now(self._prepare_batch(offsets, length, out))

    def prefetch(self, starts: Any, lengths: Any) -> None:
        first, count = (array.tolist() for array in byte_arrays(starts, lengths))
        process = self._opened.enter()
        fd = self._opened.fd

        def hint() -> None:
            try:
                for start, length in zip(first, count, strict=True):
                    will_need(fd, start, length, lambda: self._opened.closed)
            finally:
                self._opened.leave(process)

        process.hint(hint)

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> Awaitable[Buffer]:
        """As `read_at`, to be awaited under asyncio or trio. This call checks the arguments, not the await.

        Cached bytes are read before this returns. The awaitable is then already done, or yields to the loop once if
        the task's budget for cached reads is used up. Cancelling returns at once; the read keeps its memory and its
        file until it completes.
        """
        return self._later(self._prepare_at(offset, limit))

    def read_into_async(self, buffer: "SupportsBuffer", offset: SupportsIndex = 0) -> Awaitable[int]:
        """As `read_into`, awaited. Cancelling starts no further I/O, and ends once no I/O writes to the buffer."""
        return self._held(lambda stopped: self._prepare_into(buffer, offset, stopped))

    def read_many_into_async(
        self, destinations: "Iterable[SupportsBuffer]", starts: Any, concurrent: int = 0
    ) -> Awaitable[list[int]]:
        """As `read_many_into`, awaited. Cancelling starts no further I/O, and ends once no I/O writes to the memory."""
        return self._held(lambda stopped: self._prepare_many_into(destinations, starts, concurrent, stopped))

    def read_many_async(self, starts: Any, lengths: Any, concurrent: int = 0) -> Awaitable[list[Buffer]]:
        return self._later(self._prepare_many(starts, lengths, concurrent))

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        """As `read_batch`, awaited. With `out`, cancelling is as for `read_into_async`."""
        if out is None:
            return self._later(self._prepare_batch(offsets, length))
        return self._held(lambda stopped: self._prepare_batch(offsets, length, out, stopped))

    def read_cached(self, offset: int, limit: int) -> Buffer | None:
        """None: worker threads make all reads of a loop here."""
        return None

    def begin_at(self, offset: int, limit: int, waiter: Waiter) -> None:
        self._start([self._prepare_at(offset, limit, strict=True)], bind(current_key()), waiter)

    def iter_many(
        self, starts: Any, lengths: Any, concurrent: int = 0, ordered: bool = False
    ) -> Iterator[tuple[int, Buffer]]:
        starts, lengths = (array.tolist() for array in byte_arrays(starts, lengths))
        depth = byte_index(concurrent, "concurrent")
        process = self._opened.enter()
        self._opened.leave(process)
        return process.as_completed(
            len(starts),
            depth,
            lambda i: self._now(self._prepare_at(starts[i], lengths[i], strict=True)),
            ordered=ordered,
        )

    def stat(self) -> FileStat:
        now = self._now(lambda _: self._opened.check())
        return now._replace(size=None) if self._opened.synthetic else now

    def close(self) -> None:
        self._opened.close()

    def __del__(self) -> None:
        if hasattr(self, "_opened"):
            self._opened.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.again is None:
            raise unpicklable(self.path)
        return self.again

    def __repr__(self) -> str:
        return f"<File {self.path!r}{' closed' if self.closed else ''}>"

    def _prepare_at(
        self, offset: SupportsIndex, limit: SupportsIndex, *, strict: bool = False
    ) -> _Read[Buffer]:
        """strict: check the pin even for a small read. It is one of many, which must all be of one version."""
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")

        def read(process: Process) -> Buffer:
            buffer = self._fetch(process, start, count)
            if strict and count:
                self._opened.check(start, count)
            else:
                self._opened.recheck(start, count)
            return buffer

        return read

    def _prepare_into(
        self, buffer: "SupportsBuffer", offset: SupportsIndex, stopped: "threading.Event | None" = None
    ) -> _Read[int]:
        """stopped: checked between pieces, by a read that may have to end early."""
        start, view = byte_index(offset, "offset"), writable_bytes(buffer)

        def read(process: Process) -> int:
            got = self._fill(process, view, start, stopped)
            self._opened.recheck(start, len(view))
            return got

        return read

    def _prepare_many_into(
        self,
        destinations: "Iterable[SupportsBuffer]",
        starts: Any,
        concurrent: int,
        stopped: "threading.Event | None" = None,
    ) -> _Read[list[int]]:
        views = [_array_over(writable_bytes(destination)) for destination in destinations]
        first, depth = byte_array(starts, "starts").tolist(), byte_index(concurrent, "concurrent")
        if len(views) != len(first):
            raise ValueError(f"destinations and starts differ in size: {len(views)} and {len(first)}")

        def read(process: Process) -> list[int]:
            reads_some = any(map(len, views))
            try:
                counts = process.spread(
                    len(views), depth, lambda i: self._fill(process, views[i].data, first[i], stopped)
                )
            finally:
                views.clear()  # workers that have nothing more to do may hold the function for a while
            if reads_some:
                self._opened.check()
            return counts

        return read

    def _fill(self, process: Process, view: memoryview, start: int, stopped: "threading.Event | None") -> int:
        """Fill memory of the caller from `start`, in pieces if the read may be stopped."""
        got, space = 0, view[: OFFSET_MAX - start]
        most = len(view) if stopped is None else _PIECE
        while got < len(space) and not (stopped and stopped.is_set()):
            piece = space[got : got + most]
            got += (came := self._opened.fill(piece, start + got))
            if came < len(piece):
                break
        process.count(len(view), got)
        return got

    def _prepare_many(self, starts: Any, lengths: Any, concurrent: int) -> _Read[list[Buffer]]:
        first, count = (array.tolist() for array in byte_arrays(starts, lengths))
        depth = byte_index(concurrent, "concurrent")

        def read(process: Process) -> list[Buffer]:
            buffers = process.spread(len(first), depth, lambda i: self._fetch(process, first[i], count[i]))
            if any(count):
                self._opened.check()
            return buffers

        return read

    def _prepare_batch(
        self,
        offsets: Any,
        length: SupportsIndex,
        out: Any = None,
        stopped: "threading.Event | None" = None,
    ) -> _Read[Any]:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        if starts.size * count > OFFSET_MAX:
            raise OverflowError(f"{starts.size} records of {count} bytes are more than 2**63 - 1 bytes")
        view = whole_table(out, starts.size, count)

        def read(process: Process) -> Any:
            if starts.size and count:
                self._refuse_beyond_end(starts, count)
            table = process.memory.allocate(starts.size, count) if view is None else out
            memory = memory_of(table) if view is None else view
            if len(memory):
                self._fill_table(process, memory, starts.tolist(), count, stopped)
                self._opened.check()
            return table

        return read

    def _now(self, read: _Read[_T]) -> _T:
        try:
            process = self._opened.enter()
        except BaseException:
            del read  # the traceback holds this frame, which must not hold the caller's memory
            raise
        try:
            return read(process)
        except Exception as error:
            raise _drop_frames(error) from error.__cause__
        finally:
            self._opened.leave(process)

    def _held(self, prepare: "Callable[[threading.Event], _Read[_T]]") -> Awaitable[_T]:
        """A read into memory of the caller: a cancellation waits until no thread writes to it."""
        stopped = threading.Event()
        unclaimed = [prepare(stopped)]
        binding: Any = bind(current_key())

        def cancelled() -> None:
            """Resolve the waiter once no thread writes to the memory: at once, if no worker has started."""
            stopped.set()
            try:
                unclaimed.pop()
            except IndexError:
                return  # the worker resolves it
            waiter.set_result(None)

        waiter = binding.holding(cancelled)
        try:
            self._start(unclaimed, binding, waiter)
        except Exception as error:
            unclaimed.clear()  # the traceback holds the list
            return refused(error)
        result: Awaitable[_T] = binding.wait(waiter)
        return result

    def _later(self, read: _Read[_T]) -> Awaitable[_T]:
        binding: Any = bind(current_key())
        waiter = binding.waiter(None)
        try:
            self._start([read], binding, waiter)
        except Exception as error:
            return refused(error)
        result: Awaitable[_T] = binding.wait(waiter)
        return result

    def _start(self, unclaimed: list[_Read[_T]], binding: Any, waiter: Waiter) -> None:
        """Read on a worker thread and report to the loop. If the file is closed meanwhile, this read still completes.

        unclaimed: holds the read. The worker takes it out to start it; a cancellation takes it out to prevent that.
        """
        process = self._opened.enter()
        landed: list[Any] = [waiter]

        def work() -> None:
            try:
                # Taken out, so that this thread holds no reference to the caller's memory when the task resumes.
                landed.extend((unclaimed.pop()(process), None))
            except BaseException as raised:
                landed.extend((None, _to_failure(_drop_frames(raised), self.path)))
            finally:
                self._opened.leave(process)
            try:
                binding.call_soon_threadsafe(_settle, landed, failed=partial(_fail, landed, self.path))
            except (
                Exception
            ):  # the loop is closed (RuntimeError; some loops raise another error), so no task waits
                pass

        process.delegate(work)

    def _fetch(self, process: Process, offset: int, limit: int) -> Buffer:
        """Read one range into a new Buffer. Allocates no more than the file holds of the range."""
        want = min(limit, OFFSET_MAX - offset)
        if self._opened.synthetic:
            data = self._opened.read_until_nothing(offset, want)
            want = got = len(data)
            buffer = process.memory.allocate(got)
            memory_of(buffer)[:] = data
        else:
            if want > SMALL:
                want = max(0, min(want, (self._opened.size() or 0) - offset))
            buffer = process.memory.allocate(want)
            got = self._opened.fill(memory_of(buffer), offset)
        if limit:
            process.count(want, got)
        return buffer if got == want else buffer[:got]

    def _refuse_beyond_end(self, starts: Any, length: int) -> None:
        """Called before allocating: a wrong length must not cause a huge allocation."""
        size = self._opened.check().size
        if size is not None and not self._opened.synthetic and starts.max() > size - length:
            index = int((starts > size - length).argmax())
            raise self._short_record(index, int(starts[index]), length, max(0, size - int(starts[index])))

    def _fill_table(
        self,
        process: Process,
        view: memoryview,
        starts: list[int],
        length: int,
        stopped: "threading.Event | None",
    ) -> None:
        def fill(index: int) -> None:
            if stopped and stopped.is_set():
                return
            record = memory[0][index * length : (index + 1) * length]
            got = self._opened.fill(record.data, starts[index])
            process.count(length, got)
            if got < length:
                raise self._short_record(index, starts[index], length, got)

        memory = [_array_over(view)]
        try:
            process.spread(len(starts), 0, fill)
        finally:
            memory.clear()  # as above

    def _short_record(self, index: int, offset: int, length: int, got: int) -> BaseException:
        return make_error("eof", 0, self.path, offset, length, f"record {index} has {got} of {length} bytes")


def _array_over(view: memoryview) -> "npt.NDArray[np.uint8]":
    """For threads that fill parts of it, each through a view of its own: views that are made of one view are counted
    together, and without the GIL miscounted (CPython issue 127716).
    """
    return np.frombuffer(view, np.uint8)


def _drop_frames(error: BaseException) -> BaseException:
    """Drop the traceback of an expected error: its frames reference the Buffers of the read, and would keep them alive
    as long as the error. The frames of the native backends hold no such references. An unexpected exception keeps its
    traceback, which shows where it was raised.
    """
    return without_frames(error) if is_failure(error) or isinstance(error, MemoryError) else error


def _to_failure(error: BaseException, path: str) -> BaseException:
    """As `as_failure`, but keep a MemoryError: lack of memory is no defect. The native backends raise it too."""
    return error if isinstance(error, MemoryError) else as_failure(error, path)


def _settle(landed: list[Any]) -> None:
    """In the loop's thread: resolve the waiter, if it is still pending.

    landed: the waiter, the result, the failure. It is emptied here: the worker thread may not run again for a while,
    and would keep the Buffer and the waiter alive meanwhile.
    """
    tell(*landed)
    landed.clear()


def _fail(landed: list[Any], path: str, error: BaseException) -> None:
    """`_settle` raised, or was never called."""
    waits = [(waiter, path, None, None) for waiter in landed[:1]]
    landed.clear()
    tell_failure(waits, error)
