"""Copies of what the page cache has: out of a mapping of the file what was seen there before, the rest by a system call each."""

from _uring.mapping cimport MapState, Piece, copy_pieces, is_seen, major_faults
from _uring.request cimport FINISHED, QUEUED, Request, advance, sweep_one

# What is copied before the first look at the page faults, and between two looks: so much may be read from the device, one page or
# read-around after the other, when pages that had been seen were reclaimed.
cdef enum:
    FIRST = 64
    MOST = 256
    MOST_BYTES = 1 << 20

cdef extern from *:
    """
    #define rangeio_count(counter, more) __atomic_fetch_add(counter, more, __ATOMIC_RELAXED)
    """
    void rangeio_count(Py_ssize_t *counter, Py_ssize_t more) nogil


cdef void sweep_each(Group *group, Py_ssize_t index) noexcept nogil:
    """`sweep_span` of one request."""
    sweep_span(group, index, index + 1)


cdef void sweep_stride(Group *group, Py_ssize_t index) noexcept nogil:
    """`sweep_span` of the index-th so many requests."""
    sweep_span(group, index * STRIDE, min((index + 1) * STRIDE, group.count))


cdef void sweep_span(Group *group, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
    """Read what the page cache has of some requests, without waiting. What it has not stays QUEUED."""
    cdef Py_ssize_t i
    if group.map != NULL and copy_mapped(group, first, stop) == stop - first:
        return
    for i in range(first, stop):
        sweep_one(group, i)


cdef Py_ssize_t copy_mapped(Group *group, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
    """Copy what was seen before; how many requests that finished."""
    cdef Piece[MOST] pieces
    cdef Py_ssize_t[MOST] places
    cdef Request *request
    cdef MapState *map = group.map
    cdef Py_ssize_t total = 0, most = FIRST, count, copied, i
    cdef size_t bytes
    cdef long faults = major_faults()
    while first < stop and not map.spoiled and not group.abandoned:
        count, bytes = 0, 0
        while first < stop and count < most and bytes < MOST_BYTES:
            request = &group.requests[first]
            first += 1
            if request.state == QUEUED and request.done == 0 and is_seen(map, request.offset, request.length):
                pieces[count].to, pieces[count].length = request.data, request.length
                pieces[count].source = map.base + request.offset
                places[count] = first - 1
                bytes += request.length
                count += 1
        copied = copy_pieces(map, pieces, count, &faults)
        for i in range(copied):
            request = &group.requests[places[i]]
            advance(request, request.length)
        total += copied
        most = MOST
    rangeio_count(&group.mapped, total)
    return total


cdef int begin_sweep(Batch batch) except -1:
    """Have the sweep copy out of the mapping of the batch, if it has one and that may be used now."""
    if batch.mapping is not None and batch.mapping.ready(batch.only_fd):
        batch.group.map = &batch.mapping.state
    return 0


cdef Py_ssize_t end_sweep(Batch batch) except -1:
    """Remember what the sweep found in the page cache; how many requests were copied out of the mapping."""
    cdef Group *group = &batch.group
    cdef Py_ssize_t mapped = group.mapped, i
    group.map = NULL
    group.mapped = 0
    if batch.mapping is not None and batch.mapping.state.spoiled:
        batch.mapping.forget()
    elif batch.mapping is not None and mapped < group.count:
        for i in range(group.count):
            if group.requests[i].state == FINISHED and group.requests[i].done:
                batch.mapping.see(group.requests[i].offset, group.requests[i].done)
    return mapped
