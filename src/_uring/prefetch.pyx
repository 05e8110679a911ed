"""Hints: what of a file will be read soon. The kernel reads it into the page cache, while nobody waits for it."""

from _uring.workers cimport Step

cdef extern from *:
    """
    #include <fcntl.h>
    """
    int posix_fadvise(int fd, int64_t offset, int64_t length, int advice) nogil
    int POSIX_FADV_WILLNEED

# One call reads no more than the read-ahead of the device, often 128 KiB (force_page_cache_ra in mm/readahead.c).
cdef int64_t PIECE = 128 << 10


cdef class Prefetch:
    """The ranges of one hint, for a worker. It keeps the descriptor open."""


cdef void prefetch_one(void *context, Py_ssize_t index) noexcept nogil:
    cdef int64_t at = (<Prefetch>context).starts[index]
    cdef int64_t stop = at + (<Prefetch>context).lengths[index]
    while at < stop:
        if posix_fadvise((<Prefetch>context).fd, at, min(PIECE, stop - at), POSIX_FADV_WILLNEED) != 0:
            return
        at += PIECE


cdef int prefetch(Descriptor plain, object starts, object lengths) except -1:
    """Have one worker ask for the ranges, in this order: a call waits where the queue of the device is full."""
    cdef Prefetch hint = Prefetch()
    hint.plain, hint.fd, hint.starts, hint.lengths = plain, plain.fd, starts, lengths
    plain.engine.worker_pool().detach(<Step>prefetch_one, <void *>hint, hint.starts.shape[0], hint)
    return 0
