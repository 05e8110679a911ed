"""Runs a Batch: the page cache first, then the ring or the workers."""

from libc.stdint cimport uint32_t, uint64_t

from _uring.liburing cimport Library
from _uring.memory cimport Memory
from _uring.workers cimport WorkerPool, Step
from _uring.request cimport Batch
from _uring.ring cimport Ring


cdef struct Counters:
    uint64_t reads
    uint64_t bytes_asked
    uint64_t bytes_fetched
    uint64_t inline_hits
    uint64_t mapped_reads
    uint64_t ring_enters
    uint64_t ring_reads
    uint64_t pool_reads
    uint64_t fallbacks


cdef class Engine:
    cdef readonly Memory memory
    cdef readonly Library library
    cdef WorkerPool pool
    cdef WorkerPool hints
    cdef WorkerPool visitors
    cdef Counters counters
    cdef readonly int entries
    cdef readonly int workers
    cdef int file_workers
    cdef int helpers
    cdef bint must_ring
    cdef object key
    cdef list rings
    cdef readonly dict loops
    cdef readonly str refusal
    cdef readonly Py_ssize_t files_open

    cdef WorkerPool worker_pool(self)
    cdef WorkerPool hint_pool(self)
    cdef WorkerPool file_pool(self)
    cdef void release_hints(self) noexcept
    cdef Ring ring(self)
    cdef Ring make_ring(self, uint32_t flags)
    cdef list living_rings(self)
    cdef int run(self, Batch batch) except -1
    cdef int sweep(self, Batch batch) except -1
    cdef int sweep_together(self, Batch batch, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain) except -1
    cdef int run_by_ring(self, Ring ring, Batch batch) except -1
    cdef int run_in_order(self, Batch batch) except -1
    cdef int run_by_workers(self, Batch batch) except -1
    cdef Ring shared_ring(self)
    cdef int refuse(self, error) except -1
    cdef int note_refusal(self, Ring ring) except -1
    cdef int count_ring(self, Ring ring) except -1
    cdef int part_with(self, Ring ring) except -1
    cdef int unpark(self) except -1
