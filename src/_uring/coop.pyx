"""Awaitables of results that are already available, and a cooperative budget for tasks that await many of them.

A cached read returns a `Ready`, which needs no future and completes without suspending. So a task that only reads could starve
the loop. After 64 hits or 4 MiB, its budget, a task yields to the loop. When many tasks do this, they queue, and each loop
iteration runs as many as fit in 1 ms: a few tasks that read many times each, into memory that is still in the CPU cache, rather
than every task once.

Everything awaited that may complete at once takes part, errors too: `ready`, `refused` and `yield_if_due`. `pure.coop` is the
same in Python.
"""

from collections import deque

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from _uring.event_loops import after_checkpoint, bind, current_key
from _uring.waiters import Later, tell_failure
from _uring.errors import is_failure

cdef extern from *:
    """
    #include <time.h>
    static void rangeio_set_send(PyTypeObject *type, void *send) { type->tp_as_async->am_send = (sendfunc)send; }
    static long long rangeio_clock_ns(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }
    """
    ctypedef struct PyTypeObject:
        pass
    void rangeio_set_send(PyTypeObject *type, void *send)
    long long rangeio_clock_ns()
    int PYGEN_RETURN

# The budget of a task: after so many cached reads, or bytes, it yields to the loop.
cdef int BUDGET_HITS = 64
cdef int64_t BUDGET_BYTES = 4 << 20
# Time for cached reads in one loop iteration. Another task, such as a heartbeat, waits at most this long plus one read per task.
cdef long long ITERATION_NS = 1000000
# Until then large reads may exceed the byte budget: one more copy of COPY_ON_LOOP still fits.
cdef long long LAST_COPY_NS = ITERATION_NS - 100000
cdef int MOST_TASKS = 256
# If no new iteration has begun for this long, the loop is assumed to be closed.
cdef long long LOST_LOOP_NS = 1000000000
# Maximum size of one copy on the loop's own thread (about 100 us, or 25 us when other tasks are queued). Workers make larger
# copies. Handing a copy to a worker costs a stream of 1 MiB pieces a sixth of its throughput, and the data leaves the L2 cache.
cdef size_t COPY_ON_LOOP = 1 << 20
cdef size_t COPY_ON_BUSY_LOOP = 256 << 10

# Per process, not per loop: two loops at the same time shorten each other's budgets, which does no harm.
cdef int hits = 0
cdef int64_t hit_bytes = 0
cdef long long iteration_began = 0
cdef bint iteration_spent = False
cdef long long iterations = 0
cdef Queue queue = None


@cython.no_gc
@cython.freelist(128)
@cython.final
cdef class Ready:
    """An awaitable that is already done. `am_send` (CPython 3.10) returns its value without an exception or a future."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration(self.value)


cdef int send_ready(PyObject *ready, PyObject *value, PyObject **result) noexcept:
    cdef object handed = (<Ready>ready).value
    Py_INCREF(handed)
    result[0] = <PyObject *>handed
    return PYGEN_RETURN


rangeio_set_send(<PyTypeObject *>Ready, <void *>send_ready)


@cython.final
cdef class Refused:
    """An awaitable that raises at once."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        error, self.error = self.error, None  # its traceback will reference the caller's frame, which may reference this
        raise error


@cython.final
cdef class Checkpoint:
    """As Ready, after one iteration of the asyncio loop."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.yielded:
            self.yielded = True
            return None
        if self.iteration == iterations:  # the first task of the new iteration
            begin_iteration(rangeio_clock_ns())
        raise StopIteration(self.value)


@cython.final
cdef class Queue:
    """The tasks of an asyncio loop that wait for a new budget: futures, in FIFO order.

    A future stays pending at least from one call of `begin_iteration` to the next, so that all callbacks that run in between
    see a waiting task. anyio cancels through a callback that checks each task in each iteration, and skips a task whose
    future is already done (_deliver_cancellation; agronholm/anyio#199).
    """

    def __cinit__(self, loop):
        self.loop, self.binding = loop, bind(loop)
        self.waiting, self.arrived, self.width = deque(), deque(), 4

    cdef object enqueue(self, object value):
        """An awaitable of `value` that completes when this task gets a new budget."""
        future = self.loop.create_future()
        if not self.due:
            self.binding.call_soon(self.begin_iteration, self.failed)
            self.due = True
        self.arrived.append((future, value))
        return future

    def begin_iteration(self):
        """Called by the loop once per iteration, after the tasks woken by the last call have run."""
        cdef long long now = rangeio_clock_ns()
        cdef int left
        # As many tasks as fit in the time. Other work of the loop counts too: an overloaded loop runs one task per iteration.
        if now - iteration_began > ITERATION_NS:
            self.width = max(1, self.width // 2)
        elif now - iteration_began < ITERATION_NS // 2 and self.woken == self.width:
            self.width = min(MOST_TASKS, self.width * 2)
        begin_iteration(now)
        left = self.width
        while self.waiting and left:
            future, value = self.waiting[0]
            if not future.done():  # else it was cancelled
                future.set_result(value)
                left -= 1
            self.waiting.popleft()
        self.woken = self.width - left
        self.waiting.extend(self.arrived)
        self.arrived.clear()
        if self.waiting:
            self.binding.call_soon(self.begin_iteration, self.failed)
        else:
            self.due = False

    def failed(self, error):
        """`begin_iteration` raised: fail all futures that wait for it."""
        futures = [future for future, _ in (*self.waiting, *self.arrived)]
        self.waiting, self.arrived, self.due = deque(), deque(), False
        tell_failure([(future, "", None, None) for future in futures], error)


cdef void begin_iteration(long long now) noexcept:
    """A new loop iteration has begun: reset its counts."""
    global hits, hit_bytes, iteration_spent, iteration_began, iterations
    hits, hit_bytes, iteration_spent, iteration_began = 0, 0, False, now
    iterations += 1


cdef bint may_hand_out(int64_t bytes) noexcept:
    """Whether a task may have cached bytes now: its budget is not used up, and the loop's thread may copy so many."""
    return not is_spent() and bytes <= <int64_t>copied_at_once()


cdef inline bint is_spent() noexcept:
    """Whether the budget is used up, for reads of the core."""
    return iteration_spent or hits >= BUDGET_HITS or (hit_bytes >= BUDGET_BYTES and not has_time())


cdef object hand_out(object value, int64_t bytes):
    """An awaitable of an available value. It yields to the loop if the budget is used up."""
    note_hit(bytes)
    if is_spent():
        return yield_to_loop(value)
    return make_ready(value)


cdef object refuse(object error):
    """The same for the error of a read. Other exceptions, which no read ends with, are raised here."""
    cdef Refused refused
    if not is_failure(error):
        raise error
    note_hit(0)
    if iteration_spent or hits >= BUDGET_HITS:
        return Later(yield_to_loop(None), error=error)
    refused = Refused.__new__(Refused)
    refused.error = error
    return refused


def ready(value, int64_t nbytes=0):
    """An awaitable of an available value."""
    note_hit(nbytes)
    return yield_to_loop(value) if is_over() else make_ready(value)


def refused(error):
    """An awaitable that raises `error`."""
    return refuse(error)


def yield_if_due():
    """An awaitable of None, for a coroutine that does not know yet whether it will suspend."""
    note_hit(0)
    return yield_to_loop(None) if is_over() else nothing


cdef Ready make_ready(object value):
    cdef Ready ready = Ready.__new__(Ready)
    ready.value = value
    return ready


cdef Ready nothing = make_ready(None)


cdef bint is_over() noexcept:
    """Whether the budget is used up, for results that are not reads of the core."""
    return iteration_spent or hits >= BUDGET_HITS or hit_bytes >= BUDGET_BYTES


cdef bint has_time() noexcept:
    """Whether large reads may exceed the byte budget: to a stream, a loop iteration costs as much as a tenth of a MiB."""
    global hit_bytes
    if (queue is None or not queue.due) and rangeio_clock_ns() - iteration_began < LAST_COPY_NS:
        hit_bytes = 0
        return True
    return False


cdef size_t copied_at_once() noexcept:
    """The current maximum size of a copy on the loop's own thread."""
    return COPY_ON_BUSY_LOOP if iteration_spent else COPY_ON_LOOP


cdef int note_hit(int64_t bytes) except -1:
    """Count a cached read that does not go through `hand_out`."""
    global hits, hit_bytes, iteration_began
    hits += 1
    hit_bytes += bytes
    if hits == 1 and (queue is None or not queue.due):
        iteration_began = rangeio_clock_ns()
    return 0


cdef object yield_to_loop(object value):
    """The budget of a task is used up: an awaitable of `value` that yields to the loop first."""
    global hits, hit_bytes, iteration_spent, queue
    cdef Checkpoint checkpoint
    cdef Queue mine = queue
    cdef bint must_queue
    cdef long long now = rangeio_clock_ns()
    try:
        key = current_key()
    except RuntimeError:
        key = None
    if key is None or not hasattr(key, "call_soon"):
        begin_iteration(now)
        return after_checkpoint(value)
    hits = 1 if hits else 0  # not 0: the loop iteration continues, and so does its time
    hit_bytes = 0
    if mine is None or mine.loop is not key or now - iteration_began > LOST_LOOP_NS:
        mine = Queue(key)
        # This may drop the last reference to the old queue's loop: Python code runs, and another thread may set its own queue.
        queue = mine
    # A task that finds the time already used up queues. The task that uses it up continues in the next iteration, perhaps alone.
    must_queue = iteration_spent or mine.due
    iteration_spent = iteration_spent or now - iteration_began > ITERATION_NS
    if must_queue:
        return mine.enqueue(value)
    checkpoint = Checkpoint.__new__(Checkpoint)
    checkpoint.value, checkpoint.iteration = value, iterations
    return checkpoint
