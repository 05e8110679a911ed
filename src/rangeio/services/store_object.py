"""One object of another library: what is known of it, and the calls that read it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from _uring.event_loops import bind, current_key
from rangeio.errors import Error, ObjectChangedError, RangeNotSatisfiedError, UnexpectedEofError, asked
from rangeio.locks import begin_lock
from rangeio.ranges import OPEN
from rangeio.services.store_calls import Steps
from rangeio.services.store_read import StoreRead, bytes_of
from rangeio.stores.failures import mapped
from rangeio.stores.one_at_a_time import Turn
from rangeio.stores.store import Info, Store, Told
from rangeio.threads import THREADS

# Bytes that are asked for at once where the object has no size.
_PIECE = 8 << 20
# A call of this many bytes, or of several requests, ends with a look whether the object has changed; so does a smaller
# one if the last look is longer ago than this.
_LARGE = 1 << 20
_CHECKED_S = 1.0

# What a job asks of the store: (offset, n) to read, or one of these.
_LEARN, _CHECK = "learn", "check"


class Known:
    """What is known of an object; shared by its sources with different time limits."""

    _lock: Any

    def __init__(self, info: Info | None, size: int | None) -> None:
        """size: as the caller gives it, used where the store does not say."""
        self.info = info
        self._size = size
        self.at = 0.0
        self._turn = Turn()  # no event loop waits for it
        begin_lock(self)

    def learn(self, ask: Callable[[], Info]) -> Info:
        """Ask once, even if several threads want to know."""

        def asked_once() -> Info:
            if self.info is None:
                self.hear(ask(), pinned=False)
            assert self.info is not None
            return self.info

        return self._turn.take(asked_once)

    def is_due(self) -> bool:
        """Whether a small read must be followed by a check; true for one of those that ask at the same time."""
        with self._lock:
            now = time.monotonic()
            if now < self.at + _CHECKED_S:
                return False
            self.at = now
            return True

    def hear(self, info: Info, pinned: bool) -> bool:
        """Take note of what the store reports. False if it is another version than the one that is pinned."""
        if info.size is None and self._size is not None:
            info = replace(info, size=self._size)
        with self._lock:
            if self.info is None or not pinned:
                self.info = info
            elif not self.info.is_same(info):
                return False
            self.at = time.monotonic()
            return True


class StoreObject:
    """Makes the jobs of reads, and runs them: in a thread (`made`), or on a running asyncio loop (`made_awaited`).

    A job is a generator: it yields what it asks of the store, and is given the answers. So the rules are written once.
    """

    def __init__(self, store: Store, *, pinned: bool, size: int | None) -> None:
        """size: as the caller gives it; without a pin it saves a question."""
        self.store = store
        self._pinned = pinned
        is_enough = not (pinned or store.tells or size is None)
        self.known = Known(Info(size) if is_enough else None, size)

    def learn_now(self) -> None:
        """Ask what the object is, so that an object that does not exist fails here."""
        if self.known.info is None and not self.store.tells:
            self._call(_LEARN, None)

    # --- the steps of a job ----------------------------------------------------------------------------------

    def parts(
        self, reads: list[StoreRead], most: int, wanted: Callable[[], bool]
    ) -> Iterator[tuple[StoreRead, Steps] | None]:
        """The jobs of some reads, of at most that many bytes. None while a job must end before the next is known."""
        for read in reads:
            at = read.start
            while at < read.stop and wanted():
                if self.known.info is None:  # one job alone learns what the object is
                    if self.store.tells or (len(reads) == 1 and read.limit <= most):
                        at = min(at + most, read.stop)
                        yield read, partial(self._filling, read, read.start, at)
                    else:
                        yield read, self._learning
                    while self.known.info is None:
                        yield None
                    if read.open:
                        break
                    continue
                read.settle(self.known.info.size)
                first, at = at, read.stop if read.open else min(at + most, read.stop)
                if first < at:
                    yield read, partial(self._filling, read, first, at)
            if not (read.settled or read.open):
                read.settle(read.start)

    def _learning(self) -> Generator[Any, Any, None]:
        self._hear((yield _LEARN))

    def _filling(self, read: StoreRead, at: int, stop: int) -> Generator[Any, Any, None]:
        """Read the bytes `at` to `stop`, or to the end of the object."""
        if self.known.info is None and not self.store.tells:
            self._hear((yield _LEARN))
        if self.known.info is not None:
            read.settle(self.known.info.size)
        while True:
            stop = read.stop if read.open else min(stop, read.stop)
            if at >= stop:
                break
            most = min(stop - at, _PIECE) if read.open else stop - at
            try:
                found = yield at, most
            except RangeNotSatisfiedError:
                if read.settled or read.open:
                    raise
                self._hear((yield _LEARN))  # perhaps there is no byte there
                size = None if self.known.info is None else self.known.info.size
                if size is None or size > at:
                    raise
                read.settle(size)
                continue
            if isinstance(found, Told) or self.known.info is None:
                data, info = found if isinstance(found, Told) else (found, Info(None))
                self._hear(info)
                read.settle(info.size)
                if read.settled and at >= read.stop:
                    break
                most = min(most, read.stop - at)
            else:
                data = found
            del found
            data = bytes_of(data, most)
            if not data.nbytes:
                if read.settled:
                    self._hear((yield _CHECK))
                    raise UnexpectedEofError(
                        f"the store returned nothing from {at} on, before the end at {read.stop}"
                    )
                break
            read.put(at, data)
            at += data.nbytes
        read.gather()

    def reading(self, read: StoreRead) -> Generator[Any, Any, Any]:
        """All of a read of one piece, and the check after it."""
        if read.start < read.stop:
            yield from self._filling(read, read.start, read.stop)
            check = self.due([read])
            if check is not None:
                yield from check()
        elif not read.settled:
            read.settle(read.start)

    def checking(self) -> Generator[Any, Any, Info]:
        """Ask what the object is now."""
        info: Info = yield _CHECK
        self._hear(info)
        return info

    def _hear(self, info: Info) -> None:
        if not self.known.hear(info, self._pinned):
            raise ObjectChangedError(
                "the object is no longer the version that was opened; open it again, or open it with pin=False"
            )

    def due(self, reads: list[StoreRead]) -> Steps | None:
        """The check after these reads, if there must be one: not where each read says which version it read."""
        if not self._pinned or self.store.tells or self.known.info is None:
            return None
        nbytes = sum(read.stop - read.start for read in reads)
        if nbytes and (len(reads) > 1 or nbytes >= _LARGE or time.monotonic() >= self.known.at + _CHECKED_S):
            return self.checking
        return None

    # --- calls of the store ----------------------------------------------------------------------------------

    def _call(self, ask: Any, read: StoreRead | None) -> Any:
        """One call of the store, in this thread. Raises errors of the tree, MemoryError and interruptions."""
        try:
            if ask is _LEARN:
                return self.known.learn(self.store.info)
            if ask is _CHECK:
                return self.store.info()
            at, n = ask
            return self.store.pread(at, n, self.known.info if self._pinned else None)
        except MemoryError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            raise self._mapped(error, read) from error

    def _mapped(self, error: BaseException, read: StoreRead | None) -> Error:
        start, stop = (0, OPEN) if read is None else (read.start, read.start + read.limit)
        return mapped(error, self.store.failed(error), self.store.path, start, stop)

    def _placed(self, error: BaseException, read: StoreRead | None) -> BaseException:
        """The error of a job. An error that names no object gets the range that was read."""
        if isinstance(error, Error) and not error.path:
            offset, limit = (None, None) if read is None else (read.start, read.limit)
            text = f"{asked(self.store.path, offset, limit)}: {error}"
            error = type(error)(text, path=self.store.path, offset=offset, limit=limit, status=error.status)
        return error

    def made(self, steps: Steps, read: StoreRead | None) -> Any:
        """See `Asks`."""
        going = steps()
        try:
            ask = next(going)
            while True:
                try:
                    found = self._call(ask, read)
                except Exception as error:
                    ask = going.throw(error)
                else:
                    ask = going.send(found)
                found = None
        except StopIteration as end:
            return end.value
        except BaseException as error:
            return self._placed(error, read)

    async def made_awaited(self, steps: Steps, read: StoreRead | None) -> Any:
        """See `Asks`."""
        going = steps()
        try:
            ask = next(going)
            while True:
                try:
                    found = await self._call_awaited(ask, read)
                except Exception as error:
                    ask = going.throw(error)
                else:
                    ask = going.send(found)
                found = None
        except StopIteration as end:
            return end.value
        except Exception as error:
            return self._placed(error, read)

    async def _call_awaited(self, ask: Any, read: StoreRead | None) -> Any:
        try:
            if ask is _LEARN or ask is _CHECK:
                if self.known.info is not None and ask is _LEARN:
                    return self.known.info
                awaited: Awaitable[Any] | None = self.store.info_async()
            else:
                at, n = ask
                awaited = self.store.pread_async(at, n, self.known.info if self._pinned else None)
            if awaited is not None:
                return await awaited
        except MemoryError:
            raise
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise self._mapped(
                error, read
            ) from error  # the store has cancelled its call; nobody has cancelled ours
        except Exception as error:
            raise self._mapped(error, read) from error
        return await in_thread(partial(self._call, ask, read))


def _is_cancelled() -> bool:
    """Whether the running task is being cancelled; before Python 3.11 it cannot be told, and is supposed."""
    task: Any = asyncio.current_task()
    return not hasattr(task, "cancelling") or task.cancelling() > 0


async def in_thread(call: Callable[[], Any]) -> Any:
    """The result of `call`, made by a thread, for the running event loop."""
    binding: Any = bind(current_key())
    waiter = binding.waiter(None)

    def tell(result: Any) -> None:
        if waiter.done():
            return
        if isinstance(result, BaseException):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)

    def work() -> None:
        try:
            result = call()
        except BaseException as error:
            result = error
        try:
            binding.call_soon_threadsafe(tell, result)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    THREADS.start(work)
    return await binding.wait(waiter)
