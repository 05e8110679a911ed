"""Results that are there before they are awaited, and how long handing them out may hold an event loop.

A read that the page cache answers comes as a `Ready`, which costs no future and no turn of the loop. A task that reads on and on
would starve all others that way, so it gives the loop a turn after some reads. Where many tasks do so, and one go of each would
already hold the loop for too long, they stand in a queue of ours, and each turn of the loop begins with as many of them as it
can take: a few that read many times each, into memory that is still in the processor's cache, not all of them once.

Whatever is awaited and may be there at once takes part, errors too: `ready`, `refused` and `yield_if_due`. `pure.coop` is the same
in Python.
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

# One go of a task: so many hot reads, or bytes, and the loop gets a turn.
cdef int HITS_PER_GO = 64
cdef int64_t BYTES_PER_GO = 4 << 20
# What all goes of one turn of the loop may take. A heartbeat beside them waits so long, and for one read of each task at most.
cdef long long TURN_NS = 1000000
cdef int MOST_GOES = 256
# After so long the loop that was to begin a new turn is gone.
cdef long long LOST_NS = 1000000000
# The most that is copied on the loop's own thread at once (some 100 us, or 25 when other tasks queue for their go); more is the
# workers' to copy. A hand-over costs a stream of 1 MiB pieces a sixth, and its memory the second-level cache.
cdef size_t COPY_ON_LOOP = 1 << 20
cdef size_t COPY_ON_BUSY_LOOP = 256 << 10

# Of the process, not of a loop: two loops at once make each other's goes shorter, which does no harm.
cdef int hits = 0
cdef int64_t hit_bytes = 0
cdef long long turn_began = 0
cdef bint turn_spent = False
cdef long long turns = 0
cdef Queue queue = None


@cython.no_gc
@cython.freelist(128)
@cython.final
cdef class Ready:
    """An awaitable that is already done. `am_send` (CPython 3.10) hands its value over without an exception or a future."""

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
        error, self.error = self.error, None  # its traceback will hold the caller's frame, which may hold this
        raise error


@cython.final
cdef class Checkpoint:
    """As Ready, after one turn of the asyncio loop."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.given:
            self.given = True
            return None
        if self.turn == turns:  # the first that was left in that turn to go on in the next
            begin_turn(rangeio_clock_ns())
        raise StopIteration(self.value)


@cython.final
cdef class Queue:
    """The tasks of an asyncio loop that wait for their next go: futures, first come, first served.

    A future stays pending from one call of `begin_turn` to the next at least, so that everything else that is ready in
    between finds a task that waits. anyio cancels by a callback that looks at each task in each turn, and one whose
    future is done already is left alone (_deliver_cancellation; agronholm/anyio#199).
    """

    def __cinit__(self, loop):
        self.loop, self.binding = loop, bind(loop)
        self.parked, self.coming, self.width = deque(), deque(), 4

    cdef object park(self, object value):
        """An awaitable of `value`, when it is this task's turn."""
        future = self.loop.create_future()
        if not self.due:
            self.binding.call_soon(self.begin_turn, self.failed)
            self.due = True
        self.coming.append((future, value))
        return future

    def begin_turn(self):
        """Called by the loop once in each turn, after those that were woken in the last one have had their go."""
        cdef long long now = rangeio_clock_ns()
        cdef int left
        # As many goes as fill the time. Other work of the loop counts as well: a loop that is late serves one task in a turn.
        if now - turn_began > TURN_NS:
            self.width = max(1, self.width // 2)
        elif now - turn_began < TURN_NS // 2 and self.woken == self.width:
            self.width = min(MOST_GOES, self.width * 2)
        begin_turn(now)
        left = self.width
        while self.parked and left:
            future, value = self.parked[0]
            if not future.done():  # else it was cancelled
                future.set_result(value)
                left -= 1
            self.parked.popleft()
        self.woken = self.width - left
        self.parked.extend(self.coming)
        self.coming.clear()
        if self.parked:
            self.binding.call_soon(self.begin_turn, self.failed)
        else:
            self.due = False

    def failed(self, error):
        """`begin_turn` raised: nobody may wait for it any longer."""
        futures = [future for future, _ in (*self.parked, *self.coming)]
        self.parked, self.coming, self.due = deque(), deque(), False
        tell_failure([(future, "", None, None) for future in futures], error)


cdef void begin_turn(long long now) noexcept:
    """A turn of the loop has begun: nothing has been handed out in it."""
    global hits, hit_bytes, turn_spent, turn_began, turns
    hits, hit_bytes, turn_spent, turn_began = 0, 0, False, now
    turns += 1


cdef object hand_out(object value, int64_t bytes):
    """An awaitable of a value that is there, which gives the loop a turn when the go is over."""
    note_hit(bytes)
    if turn_spent or hits >= HITS_PER_GO or (hit_bytes >= BYTES_PER_GO and not has_time()):
        return give_turn(value)
    return make_ready(value)


cdef object refuse(object error):
    """The same for what a read ended with, if it is one of the errors that reads end with; anything else is raised here."""
    cdef Refused refused
    if not is_failure(error):
        raise error
    note_hit(0)
    if turn_spent or hits >= HITS_PER_GO:
        return Later(give_turn(None), error=error)
    refused = Refused.__new__(Refused)
    refused.error = error
    return refused


def ready(value, int64_t nbytes=0):
    """An awaitable of a value that is there."""
    note_hit(nbytes)
    return give_turn(value) if is_over() else make_ready(value)


def refused(error):
    """An awaitable that raises `error`."""
    return refuse(error)


def yield_if_due():
    """An awaitable of None, for who has yet to find out what he has."""
    note_hit(0)
    return give_turn(None) if is_over() else nothing


cdef Ready make_ready(object value):
    cdef Ready ready = Ready.__new__(Ready)
    ready.value = value
    return ready


cdef Ready nothing = make_ready(None)


cdef bint is_over() noexcept:
    """Whether a go is over of things that are not the core's."""
    return turn_spent or hits >= HITS_PER_GO or hit_bytes >= BYTES_PER_GO


cdef bint has_time() noexcept:
    """Whether a go of large reads may be longer: a turn of the loop costs a stream as much as a tenth of a MiB."""
    global hit_bytes
    if (queue is None or not queue.due) and rangeio_clock_ns() - turn_began < TURN_NS // 2:
        hit_bytes = 0
        return True
    return False


cdef size_t copied_at_once() noexcept:
    """How much is copied on the loop's own thread now."""
    return COPY_ON_BUSY_LOOP if turn_spent else COPY_ON_LOOP


cdef int note_hit(int64_t bytes) except -1:
    """Account for a read that was done at once and not by `hand_out`."""
    global hits, hit_bytes, turn_began
    hits += 1
    hit_bytes += bytes
    if hits == 1 and (queue is None or not queue.due):
        turn_began = rangeio_clock_ns()
    return 0


cdef object give_turn(object value):
    """The go of a task is over."""
    global hits, hit_bytes, turn_spent, queue
    cdef Checkpoint turn
    cdef Queue mine = queue
    cdef bint parks
    cdef long long now = rangeio_clock_ns()
    try:
        key = current_key()
    except RuntimeError:
        key = None
    if key is None or not hasattr(key, "call_soon"):
        begin_turn(now)
        return after_checkpoint(value)
    hits = 1 if hits else 0  # not 0: the turn of the loop goes on, and so does its time
    hit_bytes = 0
    if mine is None or mine.loop is not key or now - turn_began > LOST_NS:
        mine = Queue(key)
        # The last one may have been all that held its loop: Python code runs now, and another thread may set its own.
        queue = mine
    # Who finds the time spent already stands in the queue; who spends it goes on in the next turn, alone perhaps.
    parks = turn_spent or mine.due
    turn_spent = turn_spent or now - turn_began > TURN_NS
    if parks:
        return mine.park(value)
    turn = Checkpoint.__new__(Checkpoint)
    turn.value, turn.turn = value, turns
    return turn
