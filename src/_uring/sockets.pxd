# What one call of `exchange` sends and receives.
cdef struct Spaces:
    int fd
    const char *request
    size_t request_length
    char *head
    size_t head_length
    const char *announced
    size_t announced_length
    char *body
    size_t body_length
    bint waits


cdef ssize_t converse(Spaces *of) noexcept nogil
