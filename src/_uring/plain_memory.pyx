"""Whether memory of the caller holds no pointers, so that a read may fill it."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport strchr

from numpy import ndarray

# The last array dtype that was found to hold no pointers: numpy takes at least 50 ns to build the format string.
cdef object plain_type = None


cdef bint is_plain(object destination, Py_ssize_t itemsize) noexcept:
    """Whether the destination is known to hold no pointers. If not, `check_plain` in arguments.py raises the error."""
    global plain_type
    cdef Py_buffer view
    cdef bint plain
    if itemsize < <Py_ssize_t>sizeof(void *):
        return True  # too small for an address
    kind = destination.dtype if type(destination) is ndarray else None
    if kind is not None and kind is plain_type:
        return True
    try:
        PyObject_GetBuffer(destination, &view, PyBUF_STRIDES | PyBUF_FORMAT)
    except (TypeError, BufferError, ValueError):
        return False
    plain = has_no_pointers(view.format)
    PyBuffer_Release(&view)
    if plain and kind is not None:
        plain_type = kind
    return plain


cdef bint has_no_pointers(const char *format) noexcept:
    cdef bint named = False
    while format != NULL and format[0] != 0:
        if format[0] == b":":
            named = not named
        elif not named and strchr(b"OPz&", format[0]) != NULL:
            return False
        elif not named and format[0] == b"X" and format[1] == b"{":
            return False
        elif not named and format[0] == b"Z" and (format[1] == 0 or strchr(b"fdg", format[1]) == NULL):
            return False
        format += 1
    return True
