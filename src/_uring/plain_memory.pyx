"""Memory of the caller that is to be read into: whether it holds no pointers, and views of it as bytes.

The same as `writable_bytes` in arguments.py, which has the rules and raises the errors; what is common takes a tenth of its time.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from libc.string cimport strchr

from numpy import ndarray

from _uring.arguments import writable_bytes

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


cdef object writable_view(object destination):
    """A view of the memory as bytes, which keeps it; or the error of `writable_bytes`."""
    cdef Py_buffer *view
    try:
        memory = PyMemoryView_FromObject(destination)
    except (TypeError, BufferError, ValueError):
        return writable_bytes(destination)
    view = PyMemoryView_GET_BUFFER(memory)
    if view.readonly or view.len == 0 or not PyBuffer_IsContiguous(view, c"C") or not has_no_pointers(view.format):
        return writable_bytes(destination)
    if view.ndim == 1 and view.itemsize == 1 and (view.format == NULL or view.format[0] == c"B"):
        return memory
    try:
        return memory.cast("B")
    except (TypeError, ValueError, NotImplementedError):  # formats that memoryview does not know
        return writable_bytes(destination)
