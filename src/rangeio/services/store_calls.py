"""The calls of a store that serve one call of a Reader: how many at once, in which threads, and for how long."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias

from _uring.waiters import Binding
from rangeio.errors import ConnectionFailedError, TimedOutError, asked
from rangeio.locks import begin_lock
from rangeio.services.store_read import StoreRead, first_failure
from rangeio.threads import THREADS

# How often a waiting thread looks whether it is now in a child that a signal handler forked.
_FORK_CHECK_S = 1.0

Steps: TypeAlias = Callable[[], Generator[Any, Any, Any]]
"""What a job asks the store, one after the other; it is given the answers."""


def _always() -> bool:
    return True


class Job:
    """Some calls of the store, one after the other. done: called with the result or the exception."""

    __slots__ = ("_dead", "_done", "_gate", "_wanted", "began", "given", "read", "steps", "task")

    def __init__(
        self,
        steps: Steps,
        done: Callable[["Job", Any], None],
        read: StoreRead | None = None,
        wanted: Callable[[], bool] = _always,
    ) -> None:
        """wanted: whether somebody still waits, who need not have said otherwise."""
        self.steps, self.read, self._done = steps, read, done
        self._wanted = wanted
        self.given = time.monotonic()
        self.began: float | None = None
        """When it was started; None while it waits for others to end."""
        self._dead = False
        self.task: Any = None
        self._gate: Gate | None = None

    @property
    def dead(self) -> bool:
        """Nobody waits for it."""
        return self._dead or not self._wanted()

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self._dead = True

    def entered(self, gate: "Gate | None") -> "Job":
        """It is in progress; None: it is not, and has left nothing."""
        self._gate = gate
        return self

    def leave(self) -> None:
        """It is no longer in progress. A second call does nothing. Deleting it does the same: a loop may drop it."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()

    __del__ = leave

    def land(self, result: Any) -> None:
        """On the thread of the caller."""
        if not self.dead:
            self._done(self, result)


def _nothing() -> Generator[Any, Any, None]:
    yield from ()


def _ignored(job: Job, result: Any) -> None:
    pass


class Asks(Protocol):
    """What makes the calls: the source."""

    def made(self, steps: Steps, read: StoreRead | None) -> Any:
        """The result of a job, or its exception; in a thread."""

    def made_awaited(self, steps: Steps, read: StoreRead | None) -> Awaitable[Any]:
        """The same on the running asyncio loop."""


class Gate:
    """Lets at most `limit` jobs of a source be in progress; the others queue. Any thread."""

    _lock: Any

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._running = 0
        self.moved = 0.0
        """When a job has last begun or ended."""
        self._queue: deque[tuple[Job, Callable[[Job], None]]] = deque()
        begin_lock(self)

    def enter(self, job: Job, start: Callable[[Job], None], limit: int) -> None:
        """Start a job now, or when others have ended."""
        with self._lock:
            self._look_for_fork()
            if self._running >= limit:
                self._queue.append((job, start))
                return
            self._running += 1
        start(job.entered(self))

    async def turn(self, limit: int, binding: Binding) -> Job:
        """Wait until a job may begin; the job, which must `leave`."""
        waiter: Any = binding.waiter(None)
        job = Job(_nothing, _ignored)

        def tell() -> None:
            if not waiter.done():
                waiter.set_result(None)

        with self._lock:
            self._look_for_fork()
            if self._running < limit:
                self._running += 1
                return job.entered(self)
            self._queue.append((job, lambda _: binding.call_soon_threadsafe(tell)))
        try:
            await binding.wait(waiter)  # type: ignore[attr-defined]
        except BaseException:
            job.drop()
            job.leave()
            raise
        return job

    def _look_for_fork(self) -> None:
        """In a forked child: what was in progress is the parent's."""
        if self._pid != os.getpid():
            self._pid, self._running = os.getpid(), 0
            self._queue.clear()

    def leave(self) -> None:
        """A job has ended: start the next one that somebody waits for."""
        self.moved = time.monotonic()
        while True:
            with self._lock:
                if not self._queue:
                    self._running -= 1
                    return
                job, start = self._queue.popleft()
            if not job.dead:
                try:
                    start(job.entered(self))
                except RuntimeError:  # its loop is closed
                    job.entered(None)
                    continue
                return


class Host(Protocol):
    """Starts jobs for one caller, and calls back in its thread."""

    def start(self, job: Job) -> None:
        """Start it, or queue it."""

    def stop(self, job: Job) -> None:
        """Nobody waits for a job that was started."""

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once; a caller that waits by itself does it itself."""

    def since(self, job: Job) -> float:
        """From when on the time of a job counts: since it began; if it waits for others, since one of these ended."""


class CallerHost:
    """The caller's thread, which waits in `step`. inline: it makes the calls itself."""

    def __init__(self, asks: Asks, gate: Gate, limit: int, *, inline: bool) -> None:
        self._asks, self._gate, self._limit = asks, gate, limit
        self._inline: deque[Job] | None = deque() if inline else None
        self._landed: SimpleQueue[tuple[Job, Any]] = SimpleQueue()
        self._given: set[Job] = set()
        self._pid = os.getpid()

    def start(self, job: Job) -> None:
        """See `Host`."""
        if self._inline is None:
            self._given.add(job)
            self._gate.enter(job, self._in_thread, self._limit)
        else:
            self._inline.append(job)

    def _in_thread(self, job: Job) -> None:
        job.began = time.monotonic()
        THREADS.start(partial(_work, self._asks, job, self._landed.put))

    def stop(self, job: Job) -> None:
        """See `Host`. Its thread goes on, and its result is dropped."""

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Host`: `step` is told how long to wait."""

    def since(self, job: Job) -> float:
        """See `Host`."""
        return job.began or max(job.given, self._gate.moved)

    def step(self, wait_s: float | None = None) -> None:
        """Wait for a job to end, or for that time."""
        if self._inline:
            job = self._inline.popleft()
            job.land(self._asks.made(job.steps, job.read))
            return
        try:
            job, result = self._landed.get(timeout=min(_FORK_CHECK_S, wait_s or _FORK_CHECK_S))
        except Empty:
            if os.getpid() != self._pid:
                self._go_on_alone()
            return
        self._given.discard(job)
        job.land(result)

    def _go_on_alone(self) -> None:
        """In a child that a signal handler forked: the threads with the jobs are the parent's."""
        self._pid = os.getpid()
        given, self._given, self._inline = [*self._given], set(), deque()
        self._inline.extend(job for job in given if not job.dead)


def _work(asks: Asks, job: Job, put: Callable[[tuple[Job, Any]], object]) -> None:
    """In a thread."""
    result = None if job.dead else asks.made(job.steps, job.read)
    job.leave()
    put((job, result))


class LoopHost:
    """A running event loop. awaits: the store can be awaited on it; otherwise threads make the calls."""

    def __init__(self, asks: Asks, gate: Gate, limit: int, binding: Binding, *, awaits: bool) -> None:
        self._asks, self._gate, self._limit = asks, gate, limit
        self.binding: Any = binding
        self._awaits = awaits
        self._failed: Callable[[BaseException], None] | None = None

    def tell_failures(self, failed: Callable[[BaseException], None] | None) -> None:
        """Exceptions in callbacks go to `failed`, not to the loop."""
        self._failed = failed

    def start(self, job: Job) -> None:
        """See `Host`."""
        self._gate.enter(job, self._as_task if self._awaits else self._in_thread, self._limit)

    def _in_thread(self, job: Job) -> None:
        job.began = time.monotonic()
        THREADS.start(partial(_work, self._asks, job, self._put))

    def _put(self, landed: tuple[Job, Any]) -> None:
        job, result = landed
        if job.dead:
            return
        try:
            self.binding.call_soon_threadsafe(job.land, result, failed=self._failed)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _as_task(self, job: Job) -> None:
        job.began = time.monotonic()
        self.binding.call_soon_threadsafe(self._spawn, job, failed=self._failed)

    def _spawn(self, job: Job) -> None:
        if job.dead:
            job.leave()
        else:
            job.task = self.binding.loop.create_task(self._awaited(job))
            job.task.add_done_callback(lambda _: job.leave())  # also if it is cancelled before it begins

    async def _awaited(self, job: Job) -> None:
        result: Any = None
        try:
            result = await self._asks.made_awaited(job.steps, job.read)
        except asyncio.CancelledError:
            # By `stop`, at the end of the loop, or by the store, whose reader would then wait for ever.
            job.land(ConnectionFailedError("the store cancelled its call"))
            raise
        finally:
            job.task = None
            job.leave()
        try:
            job.land(result)
        except BaseException as error:
            if self._failed is None:
                raise
            self._failed(error)

    def stop(self, job: Job) -> None:
        """See `Host`."""
        if job.task is not None:
            job.task.cancel()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Host`."""
        self.binding.later(seconds, callback)

    def since(self, job: Job) -> float:
        """See `Host`."""
        return job.began or max(job.given, self._gate.moved)


class Run:
    """One call: some reads, then a look whether the object has changed, if that is due. One thread.

    landed: called once, at the end. `results` then has the results or raises the first failure.
    """

    def __init__(
        self,
        host: Host,
        parts: Iterator[tuple[StoreRead, Steps] | None],
        reads: list[StoreRead],
        check: Callable[[], Steps | None],
        landed: Callable[[], None],
        *,
        width: int,
        wanted: Callable[[], bool],
        limits: tuple[str, float | None, float | None],
    ) -> None:
        """parts: jobs of the reads, in order; None while the next is not known before the last has ended. check: the
        last job, if there is one. width: jobs in progress at once. wanted: whether somebody still waits. limits: the
        path of the object, for errors, and the seconds for the whole call and for a single job.
        """
        self._host = host
        self._parts = parts
        self._reads = reads
        self._check: Callable[[], Steps | None] | None = check
        self._landed = landed
        self._width, self._wanted = width, wanted
        self._path, self._total_s, self._call_s = limits
        self._began = time.monotonic()
        self._jobs: set[Job] = set()
        self._errors: dict[int, BaseException] = {}
        self._more = True
        self.over = False
        self.checked: Any = None
        """The result of the check."""
        self.found: list[Any] = []
        """The results, if the caller keeps them here."""

    def begin(self) -> None:
        """Start what may be started."""
        self._go_on()
        self._arm()

    def _go_on(self) -> None:
        while self._more and len(self._jobs) < self._width and not self._errors:
            part = next(self._parts, False)
            if part is None:
                break
            if part is False:
                self._more = False
            else:
                read, steps = part  # type: ignore[misc]
                self._start(Job(steps, self._land, read, self._wanted))
        if not self._jobs and not self.over:
            steps_of_check = None if self._errors or self._check is None else self._check()
            self._check = None
            if steps_of_check is None:
                self._end()
            else:
                self._start(Job(steps_of_check, self._land, None, self._wanted))

    def _start(self, job: Job) -> None:
        self._jobs.add(job)
        self._host.start(job)

    def _land(self, job: Job, result: Any) -> None:
        self._jobs.discard(job)
        if self.over:
            return
        index = 0 if job.read is None else job.read.index
        if isinstance(result, BaseException):
            self._errors.setdefault(index, result)
            first = min(self._errors)
            for other in [other for other in self._jobs if other.read and other.read.index > first]:
                self._drop(other)
        elif job.read is None:
            self.checked = result
        del result  # an error refers to its frames
        self._go_on()

    def _drop(self, job: Job) -> None:
        job.drop()
        self._jobs.discard(job)
        self._host.stop(job)

    def _end(self) -> None:
        self.over = True
        self._landed()

    def fail(self, error: BaseException) -> None:
        """End with this error."""
        if not self.over:
            self._errors = {0: error}
            self._drop_all()
            self._end()

    def _drop_all(self) -> None:
        self._more = False
        for job in [*self._jobs]:
            self._drop(job)

    # --- time ------------------------------------------------------------------------------------------------

    def left_s(self) -> float | None:
        """Seconds until the next limit; None without one."""
        ends = [] if self._total_s is None else [self._began + self._total_s]
        if self._call_s is not None:
            ends += [self._host.since(job) + self._call_s for job in self._jobs]
        return max(0.001, min(ends) - time.monotonic()) if ends else None

    def look(self) -> None:
        """End with a TimedOutError if a limit has passed."""
        now, passed = time.monotonic(), None
        if self._total_s is not None and now >= self._began + self._total_s:
            passed = self._total_s
        elif self._call_s is not None and any(
            now >= self._host.since(job) + self._call_s for job in self._jobs
        ):
            passed = self._call_s
        if passed is not None and not self.over:
            offset = limit = None
            if len(self._reads) == 1:
                offset, limit = self._reads[0].start, self._reads[0].limit
            text = f"{asked(self._path, offset, limit)}: the store did not answer within {passed:g} s"
            error = TimedOutError(text, path=self._path, offset=offset, limit=limit)
            self.fail(error)

    def _arm(self) -> None:
        seconds = None if self.over else self.left_s()
        if seconds is not None:
            self._host.after(seconds, self._at_limit)

    def _at_limit(self) -> None:
        self.look()
        self._arm()

    # --- the end ---------------------------------------------------------------------------------------------

    def results(self) -> list[Any]:
        """The results; raises the first failure."""
        if self._errors:
            error = first_failure(self._errors)
            # The frames of a thread. The store's own exception, its cause, keeps its own.
            error.__traceback__ = None
            try:
                raise error
            finally:
                self._errors.clear()
                del error  # its traceback refers to this frame
        return [read.result() for read in self._reads]

    def stop(self) -> None:
        """Nobody waits any more. Nothing is written from here on."""
        self.over = True
        self._drop_all()
        for read in self._reads:
            read.let_go()
