"""What of the kernel's interface more than one module uses, declared once."""

cdef extern from * nogil:
    """
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/time.h>
    #include <sys/uio.h>
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct timeval:
        long tv_sec
        long tv_usec
    ssize_t socket_send "send"(int fd, const void *data, size_t length, int flags)
    ssize_t socket_receive "recv"(int fd, void *space, size_t length, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int length)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int MSG_PEEK
    int MSG_WAITALL
    int SOL_SOCKET
    int SO_RCVTIMEO

    ctypedef union epoll_data_t:
        int fd
        unsigned int u32
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int most, int timeout_ms)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLL_CTL_MOD
    int EPOLLIN
    int EPOLLONESHOT
