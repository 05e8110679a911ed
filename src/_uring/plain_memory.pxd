"""Memory of the caller that is to be read into."""


cdef bint is_plain(object destination, Py_ssize_t itemsize) noexcept
cdef object writable_view(object destination)
