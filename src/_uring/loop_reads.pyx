"""Async reads of one event loop.

A cached read completes before it is awaited (`coop`). A read that must wait goes to a ring that belongs to the loop. All
requests of one loop iteration are submitted with one io_uring_enter. The loop watches the ring's descriptor, which becomes
readable when there are completions to reap. Workers make the copies that are too long for the loop's thread, and report through
an eventfd. Without a ring, workers do all reads.

A waiter may be cancelled before its read completes. The batch then completes like any other, without a result. For a read into
the caller's memory, a cancelled waiter stays pending until no more bytes are written there (`cancel_borrowed`).

Every waiter gets a result or an error. An exception in `finish` is the error of that read. An exception anywhere else in a
callback is the error of every read in flight in that loop, because it is not known what was left undone. Loop and ring stay usable.
"""

import os
from functools import partial

from libc.errno cimport EBADF
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from _uring.liburing cimport abi_sq_pending
from _uring.workers cimport CompletionQueue, Step
from _uring.process cimport fork_count, is_intact, notifier_of
from _uring.request cimport Group, Request, read_in_order, read_one, sweep_one
from _uring.coop cimport copied_at_once, hand_out

from _uring.event_loops import bind, current_key
from _uring.errors import as_failure
from _uring.waiters import tell_failure

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030D0000
    #define Py_IsFinalizing _Py_IsFinalizing
    #endif
    """
    int Py_IsFinalizing()


cdef LoopReads loop_reads(Engine engine, str path):
    """The LoopReads of the running loop; RuntimeError outside of a loop. path: named in errors."""
    cdef LoopReads reads
    key = current_key()
    reads = engine.loops.get(key)
    if reads is None or reads.shut or reads.made_after_forks != fork_count:
        engine.forget_closed_loops()
        try:
            reads = LoopReads(engine, bind(key))
        except Exception as error:  # a ring is required but cannot be made, or the loop cannot watch it
            raise as_failure(error, path)
        engine.loops[key] = reads
    return reads


cdef class LoopReads:
    """The reads of one engine in flight on one loop. Every method runs in the loop's thread."""

    def __init__(self, Engine engine, binding):
        self.engine, self.binding = engine, binding
        self.pending, self.waiting = set(), {}
        self.event = -1
        self.made_after_forks = fork_count
        self.ring = engine.shared_ring()
        if self.ring is not None:
            binding.watch(self.ring.ring.ring_fd, self.on_ready, self.on_lost, self.failed)

    cdef object submit(self, Batch batch):
        """An awaitable of the batch's result."""
        if batch.group.unfinished and not self.sweep(batch):
            if batch.borrowed:
                waiter = self.binding.holding(partial(self.cancel_borrowed, batch), self.failed)
            elif batch.group.count > 1:
                waiter = self.binding.waiter(partial(self.cancel, batch), self.failed)
            else:
                waiter = self.binding.waiter(None)  # one request completes soon; `settle` sees that the waiter was cancelled
            self.take(batch, waiter)
            return self.binding.wait(waiter)
        return hand_out(batch.finish(), batch.bytes)

    cdef int take(self, Batch batch, object waiter) except -1:
        """Start a batch for a waiter. If it cannot be started, raise, and leave the waiter pending."""
        batch.waiter = waiter
        try:
            self.begin(batch)
        except BaseException as error:
            self.cancel(batch)
            raise batch.failure(error)
        return 0

    cdef bint sweep(self, Batch batch):
        """Copy what is cached, if the batch is small. True if that completed the batch."""
        cdef Group *group = &batch.group
        cdef Py_ssize_t i
        if batch.sweepable and batch.bytes <= copied_at_once() and group.misses == 0:
            # Not out of a mapping: a page of it that was reclaimed would hold the loop until it is read.
            with nogil:
                for i in range(group.count):
                    sweep_one(group, i)
            batch.settle()
            group.misses = 1
        return group.unfinished == 0

    cdef int begin(self, Batch batch) except -1:
        """Start a batch that has a waiter, or continue it."""
        self.pending.add(batch)
        if self.ring is None or not self.ring.usable() or not batch.by_ring:
            self.share(batch, <Step>read_one)
        elif batch.sweepable and batch.group.misses == 0:
            self.share(batch, <Step>sweep_one)
        elif batch.sequential:
            self.share(batch, <Step>read_in_order)
        else:
            self.send(batch)
        return 0

    cdef int send(self, Batch batch) except -1:
        """Queue the batch for the ring. It is submitted in the next loop iteration, with all others of this iteration."""
        self.waiting[batch] = None
        batch.group.notify = 1
        self.ring.start(batch)
        self.flush_soon()
        return 0

    cdef bint serves(self):
        """Whether callbacks may act. Not in a child that one of the loop's tasks forked: the ring is not mapped there, and
        the eventfd reports to the parent."""
        return not self.shut and self.made_after_forks == fork_count

    def flush(self):
        self.flush_due = False
        if self.serves():
            self.pump()

    def on_ready(self):
        if self.serves():
            self.ring.reap()
            self.pump()

    def on_lost(self):
        """The loop can no longer watch the ring: its descriptor was closed by other code."""
        if self.serves():
            self.ring.refuse(EBADF)
            self.pump()

    cdef int pump(self) except -1:
        """Push requests up to the depth, submit them, and settle the batches that have completed."""
        cdef Batch batch
        cdef list full = []
        for batch in self.waiting:
            while self.ring.fill(&batch.group, batch.depth):
                # Submit in bursts: a burst is as much as a busy device takes at once, and the queue may be shorter than the batch.
                if abi_sq_pending(&self.ring.ring) >= <uint32_t>self.ring.entries // 2:
                    self.ring.enter(0)
            if batch.group.next >= batch.group.count:
                full.append(batch)
        for batch in full:
            del self.waiting[batch]
        self.push_retries()
        if abi_sq_pending(&self.ring.ring):
            self.ring.enter(0)
        self.ring.reap()
        if self.ring.refused:
            self.leave_ring()
        self.engine.count_ring(self.ring)
        if self.can_push():
            self.flush_soon()
        return self.settle_ended()

    cdef int settle_ended(self) except -1:
        cdef Ring ring = self.ring  # a resolved waiter may close this object
        cdef Batch batch = ring.next_ended()
        while batch is not None:
            self.settle(batch)
            batch = ring.next_ended()
        return 0

    cdef bint can_push(self):
        """Whether requests can be pushed now. After completions that were reaped at once, no event will trigger that."""
        cdef Batch batch
        if self.ring.refused:
            # Reads in flight of a refused ring may complete without an event: poll until they are done, which is soon.
            return self.ring.in_flight != 0
        if abi_sq_pending(&self.ring.ring):
            return True  # left by an enter that was refused temporarily (EAGAIN, EBUSY)
        if self.ring.in_flight >= self.ring.most:
            return False
        for batch in self.waiting:
            if batch.group.in_flight < batch.depth:
                return True
        return self.ring.retry != NULL

    cdef int flush_soon(self) except -1:
        if not self.flush_due:
            self.binding.call_soon(self.flush, self.failed)
            self.flush_due = True
        return 0

    cdef int push_retries(self) except -1:
        cdef Request *request
        while self.ring.retry != NULL:
            request = self.ring.retry
            if not self.ring.push(request):
                return 0
            self.ring.retry = request.next
        return 0

    cdef int leave_ring(self) except -1:
        """The kernel refuses the ring: the workers read what it has not taken, each batch once nothing of it is in flight."""
        cdef Batch batch
        if not self.ring_abandoned:
            self.ring_abandoned = True
            self.engine.note_refusal(self.ring)
            self.binding.unwatch(self.ring.ring.ring_fd)  # before its number is reused, perhaps by us
        for batch in list(self.pending):
            # Only batches the ring has started. `settle_ended` handles those that are complete or abandoned.
            if batch.group.owner != NULL and batch.group.in_flight == 0 and not batch.group.listed:
                self.waiting.pop(batch, None)
                batch.group.notify = 0
                batch.settle()
                self.ring.release(batch)
                self.share(batch, <Step>read_one)
        return 0

    cdef void settle(self, Batch batch) noexcept:
        """Resolve the waiter of a completed batch with its result or error."""
        waiter = batch.waiter
        if batch.error is not None:
            self.end(batch, batch.error)
        elif waiter is not None and not waiter.done():
            try:
                # An abandoned batch was cancelled, and its waiter was held until now.
                waiter.set_result(None if batch.group.abandoned else batch.finish())
            except BaseException as error:
                self.end(batch, error)
        batch.waiter = None
        self.pending.discard(batch)

    cdef void end(self, Batch batch, error) noexcept:
        """Fail the waiter of a batch with an error."""
        waiter = batch.waiter
        self.detach(batch)
        batch.error = None  # its traceback will reference the waiting task and everything that holds
        if waiter is not None:
            tell_failure([(waiter, *batch.asked())], error)

    cdef int detach(self, Batch batch) except -1:
        """Detach the batch from its waiter and start no more of it. Requests in flight keep their memory."""
        batch.waiter = None
        self.pending.discard(batch)
        return self.withdraw(batch)

    cdef int withdraw(self, Batch batch) except -1:
        """Start no more requests of the batch."""
        batch.group.abandoned = 1  # workers stop after their current piece
        self.waiting.pop(batch, None)
        if batch.group.owner != NULL:
            self.ring.abandon(batch)
        if batch.shared and self.made_after_forks == fork_count and self.engine.worker_pool().withdraw(batch, self.completions):
            batch.shared = False
        return 0

    cdef bint is_under_way(self, Batch batch):
        """Whether the ring or workers have some of it and will report. In a forked child those belong to the parent."""
        return batch.group.owner != NULL or batch.shared and self.made_after_forks == fork_count

    def cancel(self, Batch batch):
        """The task that awaited the batch was cancelled."""
        if batch.waiter is not None:
            self.detach(batch)

    def failed(self, error):
        """A callback raised: fail every read in flight. See the module docstring."""
        cdef Batch batch
        cdef list waits = []
        self.flush_due = False
        for batch in self.pending:
            waits.append((DeferredFailure(self, batch) if batch.borrowed else batch.waiter, *batch.asked()))
        self.recall()
        for batch in list(self.pending):
            if not batch.borrowed:
                self.detach(batch)
        try:
            tell_failure(waits, error)
        finally:
            self.resume_after_failure()

    cdef int resume_after_failure(self) except -1:
        """After a callback that raised: take the completions it has missed, and have the loop call again for reads in flight."""
        if self.serves():
            self.take_completed()
        if self.serves() and self.ring is not None:
            self.settle_ended()
        if self.serves() and self.ring is not None and self.can_push():
            self.flush_soon()
        return 0

    cdef int recall(self) except -1:
        """Take back the requests that were pushed but not submitted: nothing else will submit them."""
        if self.ring is not None and not self.ring.inherited():
            self.ring.recall()
        return 0

    cdef int detach_all(self) except -1:
        self.recall()
        for batch in list(self.pending):
            self.detach(batch)
        return 0

    def cancel_borrowed(self, Batch batch):
        """The task that awaited a batch in its own memory was cancelled. Start no more of the batch; resolve the waiter once
        neither the kernel nor a worker has any of it."""
        if batch.waiter is not None:
            self.withdraw(batch)
            if not self.is_under_way(batch):
                self.settle(batch)

    cdef object share(self, Batch batch, Step step):
        """Have the workers read it. They report to `on_event`."""
        cdef int helpers = max(1, self.engine.helpers) if step == <Step>sweep_one else min(self.engine.workers, batch.depth)
        cdef Py_ssize_t count = 1 if step == <Step>read_in_order else batch.group.count
        if self.completions == NULL:
            self.open_completions()
        self.engine.counters.pool_reads += batch.group.unfinished if step != <Step>sweep_one else 0
        self.engine.worker_pool().delegate(step, &batch.group, 0, count, 1, helpers, batch, self.completions)
        batch.shared = True

    cdef int open_completions(self) except -1:
        """Make the completion queue. If this fails (no descriptor is left), nothing has changed."""
        cdef CompletionQueue *completions = <CompletionQueue *>calloc(1, sizeof(CompletionQueue))
        if completions == NULL:
            raise MemoryError("cannot allocate a completion queue")
        try:
            self.event = self.watch_event()
        except BaseException:
            free(completions)
            raise
        completions.notifier = notifier_of(self.event)
        self.completions = completions
        return 0

    cdef int watch_event(self) except -1:
        """An eventfd that the loop watches."""
        cdef int event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self.binding.watch(event, self.on_event, self.on_event_lost, self.failed)
        except BaseException:
            os.close(event)
            raise
        return event

    def on_event_lost(self):
        """The loop can no longer watch the eventfd: other code closed it. Replace it as soon as one can be opened."""
        if not self.serves() or self.completions == NULL:
            return
        if self.event >= 0:
            self.engine.worker_pool().redirect_completions(self.completions, -1)  # its number may be reused
            self.binding.unwatch(self.event)
            self.event = -1
        try:
            self.event = self.watch_event()
        except OSError:
            self.binding.call_soon(self.on_event_lost, self.failed)
        else:
            self.engine.worker_pool().redirect_completions(self.completions, self.event)

    def on_event(self):
        if not self.serves():
            return
        try:
            os.eventfd_read(self.event)
        except BlockingIOError:
            pass
        except OSError:
            self.on_event_lost()
        self.take_completed()

    cdef int take_completed(self) except -1:
        """Take the batches that workers have finished: settle each, or continue it on the ring."""
        cdef Batch batch
        while self.completions != NULL:
            batch = self.engine.worker_pool().next_completed(self.completions)
            if batch is None:
                break
            batch.shared = False
            batch.settle()
            batch.group.misses = 1
            if batch.waiter is None or batch.group.unfinished == 0 or batch.group.abandoned:
                self.settle(batch)
                continue
            try:
                self.begin(batch)
            except BaseException as error:
                self.end(batch, error)
        return 0

    def close(self):
        """The loop is closed: no waiter is resolved any more. Reads in flight keep their memory until they complete."""
        if self.shut:
            return
        self.shut = True
        if self.made_after_forks != fork_count:
            # Ring and loop are the parent's. The epoll instance is shared, so unwatching here would unwatch the ring in the parent.
            return
        self.detach_all()
        if self.ring is not None:
            if not self.ring_abandoned:
                self.binding.unwatch(self.ring.ring.ring_fd)
            self.engine.part_with(self.ring)
            self.ring = None
        intact = self.completions != NULL and is_intact(&self.completions.notifier)
        if self.completions != NULL:
            self.engine.worker_pool().close_completions(self.completions)
            self.completions = NULL
        if self.event >= 0:
            self.binding.unwatch(self.event)
            if intact:
                os.close(self.event)
            self.event = -1

    @property
    def is_closed(self):
        return self.shut or self.binding.is_closed()

    def __del__(self):
        if not Py_IsFinalizing():  # at exit no task waits, and the modules that bindings use may be unloaded
            self.close()


cdef class DeferredFailure:
    """Stands in for the waiter of a batch in the caller's memory: stores the error until the waiter may be resolved."""

    def __cinit__(self, LoopReads reads, Batch batch):
        self.reads, self.batch = reads, batch

    def done(self):
        return self.batch.waiter is None or self.batch.waiter.done()

    def set_exception(self, error):
        self.batch.error = error
        self.reads.cancel_borrowed(self.batch)
