"""Runs a Batch, in the same two steps for every read that may be long:

1. Sweep: copy everything that is cached (`preadv2(RWF_NOWAIT)`). The caller does this, helped by workers if there is much to
   copy and a CPU to spare.
2. The ring reads the rest. Without a ring, the workers read it, with pread.

So a cached batch costs only a loop of system calls, an uncached one uses the full queue depth of the device, and nothing
needs to know beforehand which it is.
"""

import weakref

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from _uring.liburing cimport explain
from _uring.workers cimport Step
from _uring.process cimport usable_cpus
from _uring.request cimport MISSES_TO_STOP, Group, read_in_order, read_one
from _uring.sweep cimport STRIDE, begin_sweep, end_sweep, sweep_each, sweep_span, sweep_stride

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict()  # borrowed

# Below these, waking a second thread (futex, 2-5 us) costs more than it gains.
cdef Py_ssize_t SHARE_REQUESTS = 16
cdef size_t SHARE_BYTES = 256 << 10
# Copies out of a mapping take a third to a fifth of that time. With a second thread, 1,024 records of 4 KiB are 1.4x as fast from
# memory, and no faster from a CPU cache; 512 are 1.2x as fast, and a third slower.
cdef size_t SHARE_MAPPED = 3 << 20
# Requests swept between two checks for signals: about 10 ms of copying.
cdef Py_ssize_t SWEEP_SMALL = 16384
cdef Py_ssize_t SWEEP_LARGE = 128

# Shared rings dropped with reads in flight, of all engines. Not per engine: those reads hold their engine, so this would be a cycle.
cdef list parked = []


cdef class Engine:
    """The memory, rings and threads of one reactor. Each thread gets its own ring on its first read that waits."""

    def __cinit__(self, Memory memory, Library library, int entries, int workers, bint must_ring):
        self.memory = memory
        self.library = library
        self.entries = entries
        self.workers = workers
        # Each waits for one file at a time, which is as little as a few KiB: the device is busier with more of them in flight.
        self.file_workers = 4 * workers
        self.must_ring = must_ring
        self.helpers = min(usable_cpus(), 4) - 1
        self.key = object()
        self.rings = []
        self.loops = {}
        self.refusal = ""

    def __del__(self):
        """Close the rings of threads that are still alive. None has a read in flight: that would hold its file, and so this."""
        cdef Ring ring
        for reference in self.rings:
            ring = reference()
            if ring is not None:
                ring.shut()

    cdef WorkerPool worker_pool(self):
        """The worker threads. A forked child gets new ones: the parent's do not exist there."""
        if self.pool is None or not self.pool.usable():
            self.pool = WorkerPool(self.workers)
        return self.pool

    cdef WorkerPool file_pool(self):
        """The threads that open, read and close whole files."""
        if self.visitors is None or not self.visitors.usable():
            self.visitors = WorkerPool(self.file_workers)
        return self.visitors

    cdef WorkerPool hint_pool(self):
        """One thread for hints: reads do not wait behind them."""
        if self.hints is None or not self.hints.usable():
            self.hints = WorkerPool(1)
        return self.hints

    cdef void release_hints(self) noexcept:
        """Drop what ended hints hold."""
        if self.hints is not None and self.hints.usable():
            self.hints.release_dead()

    cdef Ring ring(self):
        """This thread's ring, or None if none can be made."""
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
        # Weak references without callbacks, unlike a WeakSet: an exception of a signal handler in a callback would be lost.
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
        """A ring that any thread may use, one at a time. None if none can be made."""
        if self.library is None:
            return None
        self.unpark()
        try:
            return self.make_ring(self.library.loop_flags)
        except OSError as error:
            self.refuse(error)
            return None

    cdef int refuse(self, error) except -1:
        """Record why no ring could be made. Raise if the backend was forced to be a ring."""
        self.refusal = explain(error.errno, "io_uring_setup")  # the only call that can fail when a ring is made
        self.counters.fallbacks += 1
        if self.must_ring:
            raise error
        return 0

    cdef int note_refusal(self, Ring ring) except -1:
        """Record that the kernel refuses a ring that worked before."""
        self.refusal = explain(ring.refused, "io_uring_enter")
        self.counters.fallbacks += 1
        return 0

    cdef int count_ring(self, Ring ring) except -1:
        self.counters.ring_enters += ring.enters
        self.counters.ring_reads += ring.reads
        ring.enters = ring.reads = 0
        return 0

    cdef int part_with(self, Ring ring) except -1:
        """Drop a shared ring. Park it while reads are in flight: closing it now would wait for them."""
        self.count_ring(ring)
        if ring.in_flight and not ring.inherited():
            parked.append(ring)
        return 0

    cdef int unpark(self) except -1:
        """Drop parked rings whose last read has completed, and the ended batches that this thread's ring still holds."""
        cdef Ring ring = (<dict><object>PyThreadState_GetDict()).get(self.key)
        if ring is not None and ring.in_flight and ring.usable():
            ring.reap()
            ring.forget_ended()
        for ring in list(parked):
            if not ring.inherited():
                ring.reap()
                ring.forget_ended()
            if (ring.inherited() or ring.in_flight == 0) and ring in parked:  # unless another thread was faster
                parked.remove(ring)
        return 0

    def forget_ring(self):
        """Drop the calling thread's ring when the reactor closes."""
        (<dict><object>PyThreadState_GetDict()).pop(self.key, None)

    cdef int run(self, Batch batch) except -1:
        """Read everything in the batch. Failures are recorded in their requests; this raises only for signals."""
        cdef Ring ring
        self.sweep(batch)
        if batch.group.unfinished and batch.sequential:
            self.run_in_order(batch)
        if batch.group.unfinished and batch.by_ring:
            ring = self.ring()
            if ring is not None:
                self.run_by_ring(ring, batch)
        if batch.group.unfinished:
            self.run_by_workers(batch)
        return 0

    cdef int sweep(self, Batch batch) except -1:
        """Copy everything that is cached."""
        cdef Group *group = &batch.group
        cdef Py_ssize_t first = 0, stop
        cdef Py_ssize_t turn = SWEEP_LARGE if batch.bytes > <size_t>group.count << 16 else SWEEP_SMALL
        cdef bint share
        if not batch.sweepable:
            return 0
        if batch.sequential:
            group.misses = MISSES_TO_STOP - 1  # one miss is enough: more of them would disturb the read-ahead
        begin_sweep(batch)
        if group.map != NULL:
            share = self.helpers > 0 and batch.bytes >= SHARE_MAPPED
        else:
            share = self.helpers > 0 and group.count > 1 and (
                group.count >= SHARE_REQUESTS or batch.bytes >= SHARE_BYTES
            )
        while first < group.count and group.misses < MISSES_TO_STOP:
            stop = min(first + turn, group.count)
            if share:
                self.sweep_together(batch, first, stop, 8 if turn == SWEEP_SMALL else 1)
            else:
                with nogil:
                    sweep_span(group, first, stop)
            first = stop
            if first < group.count:
                PyErr_CheckSignals()
        batch.settle()
        self.counters.mapped_reads += end_sweep(batch)
        return 0

    cdef int sweep_together(self, Batch batch, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain) except -1:
        """Sweep by this thread and helpers."""
        cdef Step step = <Step>sweep_each
        if batch.group.map != NULL and grain > 1:  # small ones, for which the guard of a copy is set up together
            step, grain = <Step>sweep_stride, 1
            first, stop = first // STRIDE, (stop + STRIDE - 1) // STRIDE
        self.worker_pool().run(step, &batch.group, first, stop, grain, self.helpers, True, batch)
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

    cdef int run_in_order(self, Batch batch) except -1:
        """One long read that is not cached, by one worker: the kernel's read-ahead keeps the device as busy as it can be."""
        self.counters.pool_reads += batch.group.unfinished
        self.worker_pool().run(<Step>read_in_order, &batch.group, 0, 1, 1, 1, False, batch)
        batch.settle()
        return 0

    cdef int run_by_workers(self, Batch batch) except -1:
        cdef Group *group = &batch.group
        while group.unfinished:  # one pass, and another in a child that was forked meanwhile
            self.counters.pool_reads += group.unfinished
            self.worker_pool().run(<Step>read_one, group, 0, group.count, 1, min(self.workers, batch.depth), False, batch)
            batch.settle()
        return 0

    def forget_closed_loops(self):
        """Drop the LoopReads of closed loops. A loop does not notify when it closes, so this is polled."""
        for key, reads in list(self.loops.items()):
            if reads.is_closed and self.loops.pop(key, None) is not None:  # unless another thread was faster
                reads.close()

    @property
    def has_ring(self):
        """Whether any thread has a usable ring now."""
        return any((<Ring>ring).usable() for ring in self.living_rings())

    @property
    def in_flight(self):
        """Reads in flight in the kernel, over all rings, including abandoned ones."""
        self.forget_closed_loops()
        self.unpark()
        for pool in (self.pool, self.visitors):
            if pool is not None and (<WorkerPool>pool).usable():
                (<WorkerPool>pool).release_dead()
        self.release_hints()
        return sum((<Ring>ring).in_flight for ring in self.living_rings())


cdef int forget_closed_rings(dict here) except -1:
    """Drop the rings of closed reactors from a thread's state."""
    for key in [key for key, ring in here.items() if isinstance(ring, Ring) and not (<Ring>ring).open]:
        del here[key]
    return 0
