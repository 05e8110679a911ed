"""Connected sockets, from C."""

cdef extern from * nogil:
    """
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t socket_send "send"(int fd, const void *data, size_t length, int flags)
    ssize_t socket_receive "recv"(int fd, void *space, size_t length, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    void *memmem(const void *where, size_t length, const void *what, size_t size)
    int MSG_DONTWAIT
    int MSG_PEEK
    int MSG_NOSIGNAL
    int MSG_WAITALL


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
cdef int unasked(int fd) noexcept nogil
