"""Reads awaited on an event loop.

A read that the page cache answers is done before it is awaited (`coop`). What must wait goes to a ring that belongs to the
loop: requests of one turn go in with one io_uring_enter, and the ring's own descriptor, watched by the loop, says when to
reap. Copies too long for the loop's thread are made by the workers, who report through an eventfd; so is everything where there
is no ring.

A waiter may be gone (cancelled) when its read completes. The batch then ends like any other, and nobody is told. Of a read into
memory of the caller's the waiter stays until nobody writes there any more (`leave`), whatever it is told then.

Whoever waits is told in any case. What making the result raises is its error; what anything else in a callback raises is the
error of every read that is under way in that loop, because nobody knows what was left undone. The loop and the ring go on.
"""

import os
from functools import partial

from libc.errno cimport EBADF
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from _uring.liburing cimport abi_sq_pending
from _uring.workers cimport Mailbox, Step
from _uring.process cimport alarm_of, fork_count, is_intact
from _uring.request cimport Group, Request, read_one, sweep_one
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
    """The running loop's reads, for one of that file; RuntimeError outside of a loop."""
    cdef LoopReads reads
    key = current_key()
    reads = engine.loops.get(key)
    if reads is None or reads.shut or reads.made_after_forks != fork_count:
        engine.forget_closed_loops()
        try:
            reads = LoopReads(engine, bind(key))
        except Exception as error:  # no ring to be had where it must be one, or the loop does not watch it
            raise as_failure(error, path)
        engine.loops[key] = reads
    return reads


cdef class LoopReads:
    """What one loop has under way with one engine. Every method runs in the loop's thread."""

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
                waiter = self.binding.holding(partial(self.leave, batch), self.failed)
            elif batch.group.count > 1:
                waiter = self.binding.waiter(partial(self.cancel, batch), self.failed)
            else:
                waiter = self.binding.waiter(None)  # one request is soon over: who looks for the waiter finds it done
            self.take(batch, waiter)
            return self.binding.wait(waiter)
        return hand_out(batch.finish(), batch.bytes)

    cdef int take(self, Batch batch, object waiter) except -1:
        """Start a batch for a waiter. Raises where that cannot be done, and then the waiter is not told."""
        batch.waiter = waiter
        try:
            self.begin(batch)
        except BaseException as error:
            self.cancel(batch)
            raise batch.failure(error)
        return 0

    cdef bint sweep(self, Batch batch):
        """Copy at once what is cached, if it is little; whether that was all."""
        cdef Group *group = &batch.group
        cdef Py_ssize_t i
        if batch.sweepable and batch.bytes <= copied_at_once() and group.misses == 0:
            with nogil:
                for i in range(group.count):
                    sweep_one(group, i)
            batch.settle()
            group.misses = 1
        return group.unfinished == 0

    cdef int begin(self, Batch batch) except -1:
        """Start a batch that has a waiter, or go on with it."""
        self.pending.add(batch)
        if self.ring is None or not self.ring.usable() or not batch.by_ring:
            self.share(batch, <Step>read_one)
        elif batch.sweepable and batch.group.misses == 0:
            self.share(batch, <Step>sweep_one)
        else:
            self.send(batch)
        return 0

    cdef int send(self, Batch batch) except -1:
        """Give the batch to the ring; it is submitted at the loop's next turn, with all others of this one."""
        self.waiting[batch] = None
        batch.group.notify = 1
        self.ring.start(batch)
        self.flush_soon()
        return 0

    cdef bint serves(self):
        """Whether callbacks have anything to do: not in a child forked by one of the loop's tasks. The ring is not mapped
        there, and what the eventfd tells is for the parent."""
        return not self.shut and self.made_after_forks == fork_count

    def flush(self):
        self.flush_due = False
        if self.serves():
            self.turn()

    def on_ready(self):
        if self.serves():
            self.ring.reap()
            self.turn()

    def on_lost(self):
        """The loop cannot watch the ring any more: somebody closed its descriptor."""
        if self.serves():
            self.ring.refuse(EBADF)
            self.turn()

    cdef int turn(self) except -1:
        """Push what may be under way, submit it, and settle what has completed."""
        cdef Batch batch
        cdef list full = []
        for batch in self.waiting:
            while self.ring.fill(&batch.group, batch.depth):
                # An entry each time: a burst is as much as a hot device likes at once, and the queue may be shorter than the batch.
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
        cdef Ring ring = self.ring  # whoever is told may have this closed
        cdef Batch batch = ring.next_ended()
        while batch is not None:
            self.settle(batch)
            batch = ring.next_ended()
        return 0

    cdef bint can_push(self):
        """Whether completions that were reaped at once have made room: no event will tell of that."""
        cdef Batch batch
        if self.ring.refused:
            # What the kernel has of a refused ring may complete without an event: look again and again, it is soon over.
            return self.ring.in_flight != 0
        if abi_sq_pending(&self.ring.ring):
            return True  # an enter left it behind that was refused for the moment (EAGAIN, EBUSY)
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
        """The ring is refused: the workers read what it has not taken, each batch when the ring has nothing of it any more."""
        cdef Batch batch
        if not self.left:
            self.left = True
            self.engine.note_refusal(self.ring)
            self.binding.unwatch(self.ring.ring.ring_fd)  # before its number comes to be another's, perhaps our own
        for batch in list(self.pending):
            # Of those the ring has begun; one that is done, or was left, is for `settle_ended`.
            if batch.group.owner != NULL and batch.group.in_flight == 0 and not batch.group.listed:
                self.waiting.pop(batch, None)
                batch.group.notify = 0
                batch.settle()
                self.ring.release(batch)
                self.share(batch, <Step>read_one)
        return 0

    cdef void settle(self, Batch batch) noexcept:
        """Tell the waiter of a batch that is done; if it raises, that as well."""
        waiter = batch.waiter
        if batch.error is not None:
            self.end(batch, batch.error)
        elif waiter is not None and not waiter.done():
            try:
                # Abandoned, it was cancelled, and its waiter waited for this.
                waiter.set_result(None if batch.group.abandoned else batch.finish())
            except BaseException as error:
                self.end(batch, error)
        batch.waiter = None
        self.pending.discard(batch)

    cdef void end(self, Batch batch, error) noexcept:
        """Tell the waiter of a batch what went wrong with it."""
        waiter = batch.waiter
        self.let_go(batch)
        batch.error = None  # its traceback will hold who waits, and what that holds
        if waiter is not None:
            tell_failure([(waiter, *batch.asked())], error)

    cdef int let_go(self, Batch batch) except -1:
        """Nobody waits for the batch any more, and nothing more of it is begun. What is under way keeps its memory."""
        batch.waiter = None
        self.pending.discard(batch)
        return self.withdraw(batch)

    cdef int withdraw(self, Batch batch) except -1:
        """Begin nothing more of the batch."""
        batch.group.abandoned = 1  # workers leave it after the piece they are at
        self.waiting.pop(batch, None)
        if batch.group.owner != NULL:
            self.ring.abandon(batch)
        if batch.shared and self.made_after_forks == fork_count and self.engine.worker_pool().withdraw(batch, self.mailbox):
            batch.shared = False
        return 0

    cdef bint is_under_way(self, Batch batch):
        """Whether somebody has some of it and is going to tell: the ring, or workers. In a forked child they are the parent's."""
        return batch.group.owner != NULL or batch.shared and self.made_after_forks == fork_count

    def cancel(self, Batch batch):
        """The task that awaited the batch was cancelled."""
        if batch.waiter is not None:
            self.let_go(batch)

    def failed(self, error):
        """A callback raised: end every read that is under way. See the head of this module."""
        cdef Batch batch
        cdef list waits = []
        self.flush_due = False
        for batch in self.pending:
            waits.append((Leaving(self, batch) if batch.borrowed else batch.waiter, *batch.asked()))
        self.recall()
        for batch in list(self.pending):
            if not batch.borrowed:
                self.let_go(batch)
        try:
            tell_failure(waits, error)
        finally:
            self.hear_the_rest()

    cdef int hear_the_rest(self) except -1:
        """After a callback that raised: take what it has not, and see to it that the loop comes back for what is under way."""
        if self.serves():
            self.take_mail()
        if self.serves() and self.ring is not None:
            self.settle_ended()
        if self.serves() and self.ring is not None and self.can_push():
            self.flush_soon()
        return 0

    cdef int recall(self) except -1:
        """Take back from the ring what was pushed and not submitted: nobody comes to do that."""
        if self.ring is not None and not self.ring.inherited():
            self.ring.recall()
        return 0

    cdef int let_all_go(self) except -1:
        self.recall()
        for batch in list(self.pending):
            self.let_go(batch)
        return 0

    def leave(self, Batch batch):
        """The task that awaited a batch in memory of its own was cancelled: begin no more of it, and let the task go when
        neither the kernel nor a worker has any of it."""
        if batch.waiter is not None:
            self.withdraw(batch)
            if not self.is_under_way(batch):
                self.settle(batch)

    cdef object share(self, Batch batch, Step step):
        """Have the workers do it; `on_event` hears of it."""
        cdef int helpers = max(1, self.engine.helpers) if step == <Step>sweep_one else min(self.engine.workers, batch.depth)
        if self.mailbox == NULL:
            self.open_mail()
        self.engine.counters.pool_reads += batch.group.unfinished if step == <Step>read_one else 0
        self.engine.worker_pool().delegate(step, &batch.group, 0, batch.group.count, 1, helpers, batch, self.mailbox)
        batch.shared = True

    cdef int open_mail(self) except -1:
        """Where this fails (no descriptor is to be had), nothing has changed."""
        cdef Mailbox *mailbox = <Mailbox *>calloc(1, sizeof(Mailbox))
        if mailbox == NULL:
            raise MemoryError("cannot allocate a mailbox")
        try:
            self.event = self.watch_event()
        except BaseException:
            free(mailbox)
            raise
        mailbox.alarm = alarm_of(self.event)
        self.mailbox = mailbox
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
        """The loop cannot watch the eventfd any more: somebody closed it. Another takes its place, as soon as one is to be had."""
        if not self.serves() or self.mailbox == NULL:
            return
        if self.event >= 0:
            self.engine.worker_pool().redirect_mail(self.mailbox, -1)  # its number may come to be another's
            self.binding.unwatch(self.event)
            self.event = -1
        try:
            self.event = self.watch_event()
        except OSError:
            self.binding.call_soon(self.on_event_lost, self.failed)
        else:
            self.engine.worker_pool().redirect_mail(self.mailbox, self.event)

    def on_event(self):
        if not self.serves():
            return
        try:
            os.eventfd_read(self.event)
        except BlockingIOError:
            pass
        except OSError:
            self.on_event_lost()
        self.take_mail()

    cdef int take_mail(self) except -1:
        """Go on with what workers have done, or tell of it."""
        cdef Batch batch
        while self.mailbox != NULL:
            batch = self.engine.worker_pool().next_mail(self.mailbox)
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
        """The loop is gone: nobody is told anything any more. What is under way keeps its memory until it completes."""
        if self.shut:
            return
        self.shut = True
        if self.made_after_forks != fork_count:
            # The parent's, and so is the loop: they share its epoll instance, and to unwatch would take the ring from the parent's.
            return
        self.let_all_go()
        if self.ring is not None:
            if not self.left:
                self.binding.unwatch(self.ring.ring.ring_fd)
            self.engine.part_with(self.ring)
            self.ring = None
        intact = self.mailbox != NULL and is_intact(&self.mailbox.alarm)
        if self.mailbox != NULL:
            self.engine.worker_pool().close_mail(self.mailbox)
            self.mailbox = NULL
        if self.event >= 0:
            self.binding.unwatch(self.event)
            if intact:
                os.close(self.event)
            self.event = -1

    @property
    def is_closed(self):
        return self.shut or self.binding.is_closed()

    def __del__(self):
        if not Py_IsFinalizing():  # then nobody waits, and the modules that bindings use may be gone
            self.close()


cdef class Leaving:
    """For `tell_failure`, the waiter of a batch in memory of the caller's: the error is what it is told of when it may go."""

    def __cinit__(self, LoopReads reads, Batch batch):
        self.reads, self.batch = reads, batch

    def done(self):
        return self.batch.waiter is None or self.batch.waiter.done()

    def set_exception(self, error):
        self.batch.error = error
        self.reads.leave(self.batch)
