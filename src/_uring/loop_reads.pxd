"""Async reads of one event loop."""

from _uring.engine cimport Engine
from _uring.workers cimport CompletionQueue, Step
from _uring.request cimport Batch
from _uring.ring cimport Ring


cdef class LoopReads:
    cdef Engine engine
    cdef object binding
    cdef Ring ring
    cdef set pending
    cdef dict waiting
    cdef CompletionQueue *completions
    cdef int event
    cdef bint flush_due
    cdef bint shut
    cdef bint ring_abandoned
    cdef int made_after_forks

    cdef object submit(self, Batch batch)
    cdef int take(self, Batch batch, object waiter) except -1
    cdef bint serves(self)
    cdef bint sweep(self, Batch batch)
    cdef int begin(self, Batch batch) except -1
    cdef int send(self, Batch batch) except -1
    cdef int pump(self) except -1
    cdef bint can_push(self)
    cdef int flush_soon(self) except -1
    cdef int push_retries(self) except -1
    cdef int leave_ring(self) except -1
    cdef int settle_ended(self) except -1
    cdef void settle(self, Batch batch) noexcept
    cdef void end(self, Batch batch, error) noexcept
    cdef int detach(self, Batch batch) except -1
    cdef int withdraw(self, Batch batch) except -1
    cdef bint is_under_way(self, Batch batch)
    cdef int resume_after_failure(self) except -1
    cdef int recall(self) except -1
    cdef int detach_all(self) except -1
    cdef int take_completed(self) except -1
    cdef object share(self, Batch batch, Step step)
    cdef int open_completions(self) except -1
    cdef int watch_event(self) except -1


cdef class DeferredFailure:
    cdef LoopReads reads
    cdef Batch batch


cdef LoopReads loop_reads(Engine engine, str path)
