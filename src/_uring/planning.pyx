"""What is worked out over many ranges at once: their spellings as numbers, the requests that serve them, the results.

The same as `_uring.pure.planning`, which says what each function is for. What is gained: numpy lets go of the GIL in each
operation over more than 500 numbers, and beside a busy thread every time it is let go may cost 5 ms (the interpreter's switch
interval). Here it is held: a thousand ranges take some 30 us.
"""

from cpython.buffer cimport PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from cpython.long cimport PyLong_CheckExact
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from _uring.memory cimport Buffer
from _uring.plain_memory cimport writable_view

from numpy import dtype, empty, ndarray

from _uring.arguments import OFFSET_MAX, byte_array, one_destination, refuse_overlap

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject *PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t index)  # borrowed

cdef object INT64 = dtype("int64")
cdef int64_t OPEN = OFFSET_MAX
# Fewer than these are sorted by insertion: to count digits would take longer.
cdef Py_ssize_t FEW = 48
# See `Layout` in rangeio.ranges.
cdef Py_ssize_t COMPACT_ABOVE = 4


cdef int64_t *cells(object array) except? NULL:
    """Where the numbers of an array of int64 lie, which is held by the caller."""
    cdef Py_buffer view
    cdef int64_t *place
    PyObject_GetBuffer(array, &view, PyBUF_ND)
    place = <int64_t *>view.buf if view.itemsize == sizeof(int64_t) else NULL
    PyBuffer_Release(&view)
    if place == NULL:
        raise TypeError("an array of int64 is wanted")
    return place


cdef bint take_number(object value, int64_t *place) except -1:
    """Put an integer of 64 bits in its place; False for anything else."""
    cdef int overflow = 0
    if PyLong_CheckExact(value):
        place[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0
    try:
        place[0] = PyLong_AsLongLongAndOverflow(value, &overflow)  # of what has __index__, which may run anything
    except (TypeError, ValueError, OverflowError):
        return False
    return overflow == 0


def pairs(items):
    """See the twin."""
    cdef Py_ssize_t count = PySequence_Fast_GET_SIZE(items), i
    starts, stops = empty(count, INT64), empty(count, INT64)
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    for i in range(count):
        if PySequence_Fast_GET_SIZE(items) != count:
            return None  # an __index__ has changed the list
        item = <object>PySequence_Fast_GET_ITEM(items, i)
        if (type(item) is not tuple and type(item) is not list) or PySequence_Fast_GET_SIZE(item) != 2:
            return None
        first, last = <object>PySequence_Fast_GET_ITEM(item, 0), <object>PySequence_Fast_GET_ITEM(item, 1)
        if not take_number(first, &start[i]):
            return None
        if last is None:
            stop[i] = OPEN
        elif not take_number(last, &stop[i]):
            return None
    return starts, stops


def columns(table):
    """See the twin."""
    cdef const int64_t[:, :] rows = table if table.dtype == INT64 and table.flags.aligned else table.astype(INT64)
    cdef Py_ssize_t count = rows.shape[0], i
    starts, stops = empty(count, INT64), empty(count, INT64)
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    for i in range(count):
        start[i], stop[i] = rows[i, 0], rows[i, 1]
    return starts, stops


cdef object checked_offsets(object values, str name):
    """As `byte_array`, which has the rules; what is common without numpy's own ways."""
    cdef Py_ssize_t count, i
    cdef int64_t *number
    if type(values) is ndarray and values.dtype == INT64 and values.ndim == 1 and values.flags.c_contiguous:
        count = len(values)
        array = empty(count, INT64)
        number = cells(array)
        memcpy(number, cells(values), count * sizeof(int64_t))
    elif type(values) is list or type(values) is tuple:
        count = PySequence_Fast_GET_SIZE(values)
        array = empty(count, INT64)
        number = cells(array)
        for i in range(count):
            if PySequence_Fast_GET_SIZE(values) != count or not take_number(<object>PySequence_Fast_GET_ITEM(values, i), &number[i]):
                return byte_array(values, name)
    else:
        return byte_array(values, name)
    for i in range(count):
        if number[i] < 0:
            return byte_array(values, name)  # refuses it, and says why
    return array


cdef tuple checked_ranges(object starts, object lengths):
    """The arguments of many reads: two arrays of one size."""
    first, second = checked_offsets(starts, "starts"), checked_offsets(lengths, "lengths")
    if len(first) != len(second):
        raise ValueError(f"starts and lengths differ in size: {len(first)} and {len(second)}")
    return first, second


cdef tuple checked_places(object destinations, object starts):
    """The arguments of many reads into memory: views of bytes, and an array of the same size."""
    views, first = [writable_view(destination) for destination in destinations], checked_offsets(starts, "starts")
    if len(views) != len(first):
        raise ValueError(f"destinations and starts differ in size: {len(views)} and {len(first)}")
    return views, first


def destinations(items, str name):
    """See the twin."""
    cdef list given = list(items), views = []
    cdef Py_ssize_t count = len(given), i
    starts = empty(count, INT64)
    cdef int64_t *start = cells(starts)
    for i in range(count):
        item = given[i]
        if type(item) is tuple and len(item) == 2 and take_number(item[1], &start[i]) and start[i] >= 0:
            try:
                views.append(writable_view(item[0]))
                continue
            except (TypeError, ValueError, BufferError):
                pass  # told by what follows
        view, start[i] = one_destination(item, name, i)
        views.append(view)
    refuse_overlaps(views, name)
    return views, starts


cdef int refuse_overlaps(list views, str name) except -1:
    cdef Py_ssize_t count = len(views), live = 0, i
    cdef bint sorted_already = True
    cdef Span *spans = <Span *>malloc(2 * (count + 1) * sizeof(Span))
    if spans == NULL:
        raise MemoryError(f"cannot check {count} destinations")
    for i in range(count):
        view = PyMemoryView_GET_BUFFER(views[i])
        if view.len:
            spans[live].start, spans[live].index = <int64_t>view.buf, i
            spans[live].stop = spans[live].start + view.len
            sorted_already &= live == 0 or spans[live - 1].start <= spans[live].start
            live += 1
    if not sorted_already:
        sort_spans(spans, spans + count, live)
    try:
        for i in range(1, live):
            if spans[i].start < spans[i - 1].stop:
                refuse_overlap(name, *sorted((spans[i - 1].index, spans[i].index)))
    finally:
        free(spans)
    return 0


def first_wrong(starts, stops):
    """See the twin."""
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef Py_ssize_t i
    for i in range(len(starts)):
        if start[i] < 0 or start[i] > stop[i]:
            return i
    return -1


def within(starts, stops, size, bint is_told):
    """See the twin."""
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef int64_t end = size
    cdef Py_ssize_t count = len(starts), i = 0
    while i < count and stop[i] <= end:
        i += 1
    if i == count:
        return starts, stops
    starts, stops = starts.copy(), stops.copy()
    start, stop = cells(starts), cells(stops)
    for i in range(count):
        if not is_told or start[i] < end:
            start[i], stop[i] = min(start[i], end), min(stop[i], end)
    return starts, stops


def shifted(starts, lengths, int64_t origin, int64_t size):
    """See the twin."""
    cdef int64_t *start = cells(starts)
    cdef int64_t *length = cells(lengths)
    cdef Py_ssize_t count = len(starts), i
    places, wants = empty(count, INT64), empty(count, INT64)
    cdef int64_t *place = cells(places)
    cdef int64_t *want = cells(wants)
    for i in range(count):
        place[i] = min(start[i], size)
        want[i] = min(length[i], size - place[i])
        place[i] += origin
    return places, wants


def sizes(starts, stops):
    """See the twin."""
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef int64_t total = 0
    cdef Py_ssize_t count = len(starts), i
    lengths = empty(count, INT64)
    cdef int64_t *length = cells(lengths)
    for i in range(count):
        length[i] = stop[i] - start[i]
        if stop[i] != OPEN:
            total += min(length[i], OPEN - total)
    return lengths, total


cdef void sort_spans(Span *spans, Span *spare, Py_ssize_t count) noexcept nogil:
    """By start, in linear time: digit after digit, the lowest first, those left out in which all are equal."""
    cdef Py_ssize_t[257] place
    cdef uint64_t differing = 0
    cdef Span *origin = spans
    cdef Py_ssize_t i
    cdef int shift, digit
    for i in range(1, count):
        differing |= <uint64_t>(spans[i].start ^ spans[0].start)
    for shift in range(0, 64, 8):
        if (differing >> shift) & 255 == 0:
            continue
        memset(place, 0, sizeof(place))
        for i in range(count):
            place[1 + ((<uint64_t>spans[i].start >> shift) & 255)] += 1
        for digit in range(256):
            place[digit + 1] += place[digit]
        for i in range(count):
            digit = (<uint64_t>spans[i].start >> shift) & 255
            spare[place[digit]] = spans[i]
            place[digit] += 1
        spans, spare = spare, spans
    if spans != origin:
        memcpy(origin, spans, count * sizeof(Span))


cdef void sort_few(Span *spans, Py_ssize_t count) noexcept nogil:
    cdef Span span
    cdef Py_ssize_t i, at
    for i in range(1, count):
        span, at = spans[i], i
        while at > 0 and spans[at - 1].start > span.start:
            spans[at] = spans[at - 1]
            at -= 1
        spans[at] = span


cdef Py_ssize_t join(
    Span *spans, Py_ssize_t count, int64_t near, int64_t most, Span *requests, int64_t *assigned
) noexcept nogil:
    """Fill in the requests for sorted ranges, and for each the index of its own; how many there are."""
    cdef Py_ssize_t first = 0, stop, request = -1, i
    cdef int64_t end
    while first < count:
        # Between ranges that overlap no request can begin: they are taken together.
        end, stop = spans[first].stop, first + 1
        while stop < count and spans[stop].start < end:
            end = max(end, spans[stop].stop)
            stop += 1
        if (
            request >= 0 and spans[first].start - requests[request].stop <= near
            and end - requests[request].start <= most
        ):
            requests[request].stop = end
        else:
            request += 1
            requests[request].start, requests[request].stop = spans[first].start, end
        for i in range(first, stop):
            assigned[spans[i].index] = request
        first = stop
    return request + 1


def merge(starts, stops, gap, max_merged):
    """See the twin."""
    cdef int64_t near = min(gap, OPEN), most = OPEN if max_merged is None else min(max_merged, OPEN)
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef Py_ssize_t count = len(starts), live = 0, made, i
    cdef bint sorted_already = True
    assigned = empty(count, INT64)
    cdef int64_t *request = cells(assigned)
    cdef Span *spans = <Span *>malloc(2 * (count + 1) * sizeof(Span))
    if spans == NULL:
        raise MemoryError(f"cannot plan {count} ranges")
    for i in range(count):
        request[i] = -1
        if start[i] < stop[i]:
            spans[live].start, spans[live].stop, spans[live].index = start[i], stop[i], i
            sorted_already &= live == 0 or spans[live - 1].start <= start[i]
            live += 1
    if not sorted_already and live < FEW:
        sort_few(spans, live)
    elif not sorted_already:
        sort_spans(spans, spans + count, live)
    made = join(spans, live, near, most, spans + count, request)
    try:
        return (*bounds_of(spans + count, made), assigned) if made < live else None
    finally:
        free(spans)


cdef tuple bounds_of(Span *spans, Py_ssize_t count):
    cdef Py_ssize_t i
    starts, stops = empty(count, INT64), empty(count, INT64)
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    for i in range(count):
        start[i], stop[i] = spans[i].start, spans[i].stop
    return starts, stops


def members(assigned, Py_ssize_t requests):
    """See the twin."""
    cdef int64_t *request = cells(assigned)
    cdef Py_ssize_t count = len(assigned), i
    places = empty(requests + 2, INT64)
    cdef int64_t *place = cells(places)
    cdef list order = [None] * count
    memset(place, 0, (requests + 2) * sizeof(int64_t))
    for i in range(count):
        place[1 + (request[i] if request[i] >= 0 else requests)] += 1
    for i in range(requests + 1):
        place[i + 1] += place[i]
    firsts = places.tolist()
    for i in range(count):
        order[place[request[i] if request[i] >= 0 else requests]] = i
        place[request[i] if request[i] >= 0 else requests] += 1
    return order, firsts


cdef object piece(object response, int64_t start, int64_t stop):
    """A slice of a response, which is copied if it would keep more than four times its own bytes alive."""
    cdef Buffer whole, part
    if type(response) is not Buffer:
        slice_ = response[start:stop]
        return slice_.compact() if len(response) > COMPACT_ABOVE * len(slice_) else slice_
    whole = <Buffer>response
    stop = min(stop, <int64_t>whole.bytes)
    start = min(start, stop)
    part = whole.view(start, stop - start)
    return part.compact() if whole.bytes > COMPACT_ABOVE * part.bytes else part


def cut(response, int64_t origin, list indices, starts, stops):
    """See the twin."""
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef Py_ssize_t index
    if len(indices) == 1:
        return [response]
    return [piece(response, start[index] - origin, stop[index] - origin) for index in indices]


def scatter(assigned, origins, starts, stops, list responses, make_empty):
    """See the twin."""
    cdef int64_t *request = cells(assigned)
    cdef int64_t *origin = cells(origins)
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef Py_ssize_t count = len(assigned), i
    shares = empty(len(origins), INT64)
    cdef int64_t *share = cells(shares)
    cdef list results = []
    memset(share, 0, len(origins) * sizeof(int64_t))
    for i in range(count):
        if request[i] >= 0:
            share[request[i]] += 1
    for i in range(count):
        if request[i] < 0:
            results.append(make_empty())
        elif share[request[i]] == 1:
            results.append(responses[request[i]])
        else:
            results.append(piece(responses[request[i]], start[i] - origin[request[i]], stop[i] - origin[request[i]]))
    return results


def total_bytes(list buffers):
    """See the twin."""
    cdef Py_ssize_t total = 0
    for buffer in buffers:
        total += (<Buffer>buffer).bytes if type(buffer) is Buffer else len(buffer)
    return total


def shorter(list results, starts, stops):
    """See the twin."""
    cdef int64_t *start = cells(starts)
    cdef int64_t *stop = cells(stops)
    cdef int64_t length
    cdef Py_ssize_t i
    cdef list found = []
    for i, result in enumerate(results):
        length = 0 if stop[i] == OPEN else stop[i] - start[i]
        if type(result) is Buffer:
            if (<Buffer>result).bytes < length:
                found.append(i)
        elif not isinstance(result, BaseException) and len(result) < length:
            found.append(i)
    return found
