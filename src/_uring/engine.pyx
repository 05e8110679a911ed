"""What runs a Batch. One way for every read that may be long:

1. the sweep: whatever the page cache has is copied at once (`preadv2(RWF_NOWAIT)`), by the caller and, when there is much
   to copy and a CPU to spare, by a worker beside it;
2. the ring takes the rest; or, without a ring, the workers do, by pread.

So a hot batch costs a loop of system calls and no more, a cold one gets the depth of the device, and the two need not
be told apart beforehand.
"""

import weakref

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from _uring.liburing cimport explain
from _uring.workers cimport Step
from _uring.process cimport usable_cpus
from _uring.request cimport Group, read_one, sweep_one

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict()  # borrowed

# Below this the hand-over to a second thread (a futex wake-up, 2-5 us) costs more than it gains.
cdef Py_ssize_t SHARE_REQUESTS = 16
cdef size_t SHARE_BYTES = 256 << 10
# Requests swept between two looks for signals: some 10 ms of copying.
cdef Py_ssize_t SWEEP_SMALL = 16384
cdef Py_ssize_t SWEEP_LARGE = 128

# Shared rings that were left with reads under way, of all engines: those reads keep their engine, so it could not let go of itself.
cdef list parked = []


cdef class Engine:
    """The memory, rings and threads of one reactor. Each thread gets a ring of its own, on its first read that waits."""

    def __cinit__(self, Memory memory, Library library, int entries, int workers, bint must_ring):
        self.memory = memory
        self.library = library
        self.entries = entries
        self.workers = workers
        self.must_ring = must_ring
        self.helpers = min(usable_cpus(), 4) - 1
        self.key = object()
        self.rings = []
        self.loops = {}
        self.refusal = ""

    def __del__(self):
        """Close the rings of threads that live on. None of them has a read under way: that would hold its file, and so this."""
        cdef Ring ring
        for reference in self.rings:
            ring = reference()
            if ring is not None:
                ring.shut()

    cdef WorkerPool worker_pool(self):
        """The worker threads; new ones in a forked child, where the parent's do not exist."""
        if self.pool is None or not self.pool.usable():
            self.pool = WorkerPool(self.workers)
        return self.pool

    cdef Ring ring(self):
        """This thread's ring, or None where there cannot be one."""
        cdef Ring ring
        cdef dict here
        if self.library is None:
            return None
        here = <object>PyThreadState_GetDict()
        ring = here.get(self.key)
        if ring is None or ring.inherited():
            forget_closed_rings(here)
            try:
                ring = self.make_ring(self.library.batch_flags)
            except OSError as error:
                self.refuse(error)
                return None
            here[self.key] = ring
        return ring if ring.usable() else None

    cdef Ring make_ring(self, uint32_t flags):
        cdef Ring ring = Ring(self.library, self.entries, flags)
        # Without callbacks, unlike a WeakSet: a signal handler that raised in one would raise for nobody.
        self.rings = [reference for reference in self.rings if reference() is not None]
        self.rings.append(weakref.ref(ring))
        return ring

    cdef list living_rings(self):
        """The rings that belong to this process."""
        cdef Ring ring
        cdef list found = []
        for reference in self.rings:
            ring = reference()
            if ring is not None and not ring.inherited():
                found.append(ring)
        return found

    cdef Ring shared_ring(self):
        """A ring that any thread may use, one at a time; None where there cannot be one."""
        if self.library is None:
            return None
        self.unpark()
        try:
            return self.make_ring(self.library.loop_flags)
        except OSError as error:
            self.refuse(error)
            return None

    cdef int refuse(self, error) except -1:
        """Remember why a ring could not be had, or say so where one was insisted on."""
        self.refusal = explain(error.errno, "io_uring_setup")  # the one call that making a ring can fail by
        self.counters.fallbacks += 1
        if self.must_ring:
            raise error
        return 0

    cdef int note_refusal(self, Ring ring) except -1:
        """Remember that a ring is refused which worked before."""
        self.refusal = explain(ring.refused, "io_uring_enter")
        self.counters.fallbacks += 1
        return 0

    cdef int count_ring(self, Ring ring) except -1:
        self.counters.ring_enters += ring.enters
        self.counters.ring_reads += ring.reads
        ring.enters = ring.reads = 0
        return 0

    cdef int part_with(self, Ring ring) except -1:
        """Let go of a shared ring, keeping it while reads are under way: dropping it now would mean to wait for them."""
        self.count_ring(ring)
        if ring.in_flight and not ring.inherited():
            parked.append(ring)
        return 0

    cdef int unpark(self) except -1:
        """Drop the parked rings whose last read has completed since, and what this thread's ring still held for nobody."""
        cdef Ring ring = (<dict><object>PyThreadState_GetDict()).get(self.key)
        if ring is not None and ring.in_flight and ring.usable():
            ring.reap()
            ring.forget_ended()
        for ring in list(parked):
            if not ring.inherited():
                ring.reap()
                ring.forget_ended()
            if (ring.inherited() or ring.in_flight == 0) and ring in parked:  # not, where another thread was faster
                parked.remove(ring)
        return 0

    def forget_ring(self):
        """Drop the calling thread's ring, for a reactor that closes."""
        (<dict><object>PyThreadState_GetDict()).pop(self.key, None)

    cdef int run(self, Batch batch) except -1:
        """Read everything in the batch. Failures stay with their requests; this raises only for signals."""
        cdef Ring ring
        self.sweep(batch)
        if batch.group.unfinished and batch.by_ring:
            ring = self.ring()
            if ring is not None:
                self.run_by_ring(ring, batch)
        if batch.group.unfinished:
            self.run_by_workers(batch)
        return 0

    cdef int sweep(self, Batch batch) except -1:
        """Copy what is cached."""
        cdef Group *group = &batch.group
        cdef Py_ssize_t first = 0, stop, i
        cdef Py_ssize_t turn = SWEEP_LARGE if batch.bytes > <size_t>group.count << 16 else SWEEP_SMALL
        cdef bint share = self.helpers > 0 and group.count > 1 and (
            group.count >= SHARE_REQUESTS or batch.bytes >= SHARE_BYTES
        )
        if not batch.sweepable:
            return 0
        while first < group.count and group.misses < 8:
            stop = min(first + turn, group.count)
            if share:
                self.worker_pool().run(
                    <Step>sweep_one, group, first, stop, 8 if turn == SWEEP_SMALL else 1, self.helpers, True, batch
                )
            else:
                with nogil:
                    for i in range(first, stop):
                        sweep_one(group, i)
            first = stop
            if first < group.count:
                PyErr_CheckSignals()
        batch.settle()
        return 0

    cdef int run_by_ring(self, Ring ring, Batch batch) except -1:
        try:
            ring.unfix()
            if batch.group.unfinished >= 64 and batch.only_fd >= 0:
                ring.fix_file(batch.only_fd)
                if batch.fixed_base != NULL:
                    ring.fix_memory(batch.fixed_base, batch.fixed_size)
            ring.run(batch)
        finally:
            if ring.usable():
                ring.unfix()
            self.count_ring(ring)
        if ring.refused:
            self.note_refusal(ring)
        batch.settle()
        return 0

    cdef int run_by_workers(self, Batch batch) except -1:
        cdef Group *group = &batch.group
        while group.unfinished:  # once, and in a child forked meanwhile once more
            self.counters.pool_reads += group.unfinished
            self.worker_pool().run(<Step>read_one, group, 0, group.count, 1, min(self.workers, batch.depth), False, batch)
            batch.settle()
        return 0

    def forget_closed_loops(self):
        """Let go of what belongs to loops that are closed: nothing else tells."""
        for key, reads in list(self.loops.items()):
            if reads.is_closed and self.loops.pop(key, None) is not None:  # not, where another thread was faster
                reads.close()

    @property
    def has_ring(self):
        """Whether some thread reads by a ring now."""
        return any((<Ring>ring).usable() for ring in self.living_rings())

    @property
    def in_flight(self):
        """Reads that the kernel has of every ring, abandoned ones included."""
        self.forget_closed_loops()
        self.unpark()
        if self.pool is not None and self.pool.usable():
            self.pool.release_dead()
        return sum((<Ring>ring).in_flight for ring in self.living_rings())


cdef int forget_closed_rings(dict here) except -1:
    """Drop from a thread's state the rings of reactors that are gone."""
    for key in [key for key, ring in here.items() if isinstance(ring, Ring) and not (<Ring>ring).open]:
        del here[key]
    return 0
