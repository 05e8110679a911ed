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
cdef int64_t LAST = 0x7FFFFFFFFFFFFFFF


cdef class Prefetch:
    """The ranges of one hint, for a worker. It keeps the descriptor open, and ends when the file is closed."""


cdef void prefetch_one(void *context, Py_ssize_t index) noexcept nogil:
    cdef int64_t at = (<Prefetch>context).starts[index]
    cdef int64_t stop = at + min((<Prefetch>context).lengths[index], LAST - at)
    while at < stop and not (<Prefetch>context).plain.closed:
        if posix_fadvise((<Prefetch>context).fd, at, min(PIECE, stop - at), POSIX_FADV_WILLNEED) != 0:
            return
        at += PIECE


cdef int prefetch(Descriptor plain, object starts, object lengths) except -1:
    """Have a thread ask for the ranges, in this order: a call waits where the queue of the device is full."""
    cdef Prefetch hint = Prefetch()
    hint.plain, hint.fd, hint.starts, hint.lengths = plain, plain.fd, starts, lengths
    plain.engine.hint_pool().detach(<Step>prefetch_one, <void *>hint, hint.starts.shape[0], hint)
    return 0
