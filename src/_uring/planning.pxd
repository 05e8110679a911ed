"""What is worked out over many ranges at once."""

from libc.stdint cimport int64_t


cdef struct Span:
    # A range that is not empty, and its place among those asked for.
    int64_t start
    int64_t stop
    Py_ssize_t index


cdef object checked_offsets(object values, str name)
cdef tuple checked_ranges(object starts, object lengths)
cdef tuple checked_places(object destinations, object starts)
