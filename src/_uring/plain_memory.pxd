"""Whether memory of the caller holds no pointers, so that a read may fill it."""

cdef bint is_plain(object destination, Py_ssize_t itemsize) noexcept
