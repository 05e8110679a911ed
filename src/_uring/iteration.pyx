"""Reads of one file, yielded as they complete, with at most `depth` of them in flight.

An iteration has its own ring, of the kind that any thread may use: another thread than the one that started it may advance
it, and it may be left unfinished. Cached reads complete at once, without the ring, several small ones together. If there is
no ring, worker threads make the reads one after the other.

If the order is kept, reads that are complete but not yet due count as in flight. So a slow read stops the reading ahead, and
memory stays bounded.
"""

from collections import deque

from cpython.exc cimport PyErr_CheckSignals

from _uring.filesystems cimport LOCAL
from _uring.open_file cimport SMALL
from _uring.reads cimport read_at
from _uring.request cimport sweep_one

cdef int DEFAULT_DEPTH = 32
# This many small cached reads are made at a time, or SMALL bytes of them. With more, the memory of the earlier ones would have
# left the CPU cache when they are consumed.
cdef int AT_ONCE = 8


cdef class Iteration:
    """An iterator of (index, Buffer). `close()` stops it; reads in flight then complete into memory that is discarded."""

    def __init__(self, Engine engine, OpenFile file, starts, lengths, int depth, bint ordered):
        self.engine, self.file, self.starts, self.lengths = engine, file, starts, lengths
        self.depth = depth if depth > 0 else DEFAULT_DEPTH
        self.ready, self.under_way = deque(), set()
        self.ordered, self.held = ordered, {}

    def __iter__(self):
        return self

    def __next__(self):
        if self.busy:
            raise ValueError("this iterator is being advanced by another thread")
        self.busy = True
        try:
            while not self.ready:
                if self.next == self.starts.shape[0] and not self.under_way:
                    raise StopIteration
                self.pump()
        except BaseException:
            self.stop()
            raise
        finally:
            self.busy = False
        return self.ready.popleft()

    cdef int pump(self) except -1:
        """Start reads until some are complete or enough are in flight. If none is complete, wait for one."""
        self.fresh = 0
        while self.next < self.starts.shape[0] and len(self.under_way) + len(self.held) < self.depth:
            self.next += 1
            self.start(self.next - 1)
            if self.ready and (self.fresh >= SMALL or len(self.ready) >= min(AT_ONCE, self.depth)):
                break
        if not self.ready and self.under_way:
            self.wait()
        if self.ready and self.file.pin:
            # All results are of one version, however slow the consumer is. Checked once per group: it costs as much as a small read.
            self.file.verify(self.plain, None, None)
        return 0

    cdef int start(self, Py_ssize_t index) except -1:
        cdef ReadAt read = read_at(self.file, self.starts[index], self.lengths[index])
        read.index = index
        if read.group.unfinished:
            self.sweep(read)
        # Also where batches are better off with workers: they would make these one after the other.
        if read.group.unfinished and (read.by_ring or read.group.way == LOCAL) and self.has_ring():
            return self.send(read)
        if read.group.unfinished:
            self.engine.run_by_workers(read)
        return self.finish(read)

    cdef int sweep(self, ReadAt read) except -1:
        """Copy what is cached: of a small read with the GIL held, as `File.read_at` does."""
        if read.group.count > 1 or read.length > SMALL:
            return self.engine.sweep(read)
        if read.sweepable:
            sweep_one(&read.group, 0)
            read.settle()
        return 0

    cdef bint has_ring(self) except -1:
        """Whether there is a ring; made on the first call."""
        if not self.asked:
            self.asked = True
            self.ring = self.engine.shared_ring()
        return self.ring is not None and self.ring.usable()

    cdef int send(self, ReadAt read) except -1:
        """Start a read on the ring; `wait` takes it from there."""
        read.group.notify = 1
        self.ring.start(read)
        self.under_way.add(read)
        self.feed(read)
        return 0

    cdef int feed(self, ReadAt read) except -1:
        """Push the requests of the read, up to its depth, and submit them."""
        # Not in a child that a signal handler forked: the ring is the parent's, and `wait` starts the reads again.
        while not self.ring.inherited() and self.ring.fill(&read.group, read.depth):
            self.enter(0)
        return 0

    cdef int enter(self, int count) except -1:
        cdef bint refused = self.ring.refused
        with nogil:
            if refused:
                self.ring.pause()
            else:
                self.ring.enter(count)
            self.ring.reap()
        if self.ring.refused and not refused:
            self.engine.note_refusal(self.ring)
        PyErr_CheckSignals()
        return 0

    cdef int wait(self) except -1:
        """Wait for a completion, take all that have arrived, and push more requests of unfinished reads."""
        if self.ring.inherited():
            return self.begin_again()
        # Do not wait if `feed` has already reaped a complete read: no other completion may arrive.
        self.enter(0 if self.ring.ended != NULL else 1)
        read = self.ring.next_ended()
        while read is not None:
            if read in self.under_way:
                self.under_way.remove(read)
                self.finish(read)
            read = self.ring.next_ended()
        if self.ring.refused:
            return self.leave_ring()
        for read in self.under_way:
            self.feed(read)
        return 0

    cdef int leave_ring(self) except -1:
        """The kernel refuses the ring: the workers read what it has not taken, each read once nothing of it is in flight."""
        cdef ReadAt read
        for read in list(self.under_way):
            if read.group.in_flight == 0 and not read.group.listed:  # else it is complete, and `next_ended` returns it
                self.under_way.remove(read)
                self.ring.release(read)
                self.engine.run_by_workers(read)
                self.finish(read)
        return 0

    cdef int begin_again(self) except -1:
        """In a forked child: start the reads in flight again. They complete in the parent only."""
        cdef ReadAt read
        cdef list lost = [read.index for read in self.under_way]
        for read in self.under_way:
            self.ring.release(read)
        self.under_way = set()
        self.ring, self.asked = None, False
        for index in lost:
            self.start(index)
        return 0

    cdef int finish(self, ReadAt read) except -1:
        self.fresh += read.length
        self.plain = read.plain
        if not self.ordered:
            self.ready.append((read.index, read.finish()))
            return 0
        self.held[read.index] = read.finish()
        while self.released in self.held:
            self.ready.append((self.released, self.held.pop(self.released)))
            self.released += 1
        return 0

    def close(self):
        """Stop. Reads in flight keep their memory and file until they complete. ValueError, as for a generator, while another
        thread is advancing it: that thread is using the ring."""
        if self.busy:
            raise ValueError("this iterator is being advanced by another thread")
        self.stop()

    cdef int stop(self) except -1:
        cdef ReadAt read
        for read in self.under_way:
            self.ring.abandon(read)
        self.under_way = set()
        if self.ring is not None:
            self.engine.part_with(self.ring)
            self.ring = None
        self.next = self.starts.shape[0]
        self.ready.clear()
        self.held.clear()
        return 0

    def __del__(self):
        self.close()
