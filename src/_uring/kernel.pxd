"""Declarations of the kernel interface that more than one module uses."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #include <fcntl.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/time.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef RWF_NOWAIT
    #define RWF_NOWAIT 8
    #endif
    """
    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    int clock_gettime(int clock, timespec *now)

    struct stat_t "stat":
        uint64_t st_dev
        uint64_t st_ino
        uint32_t st_mode
        int64_t st_size
        int64_t st_blocks
        timespec st_mtim
    int fstat(int fd, stat_t *answer)
    unsigned S_IFMT, S_IFREG, S_IFDIR, S_IFBLK

    struct iovec:
        void *iov_base
        size_t iov_len
    int c_open "open"(const char *path, int flags)
    int close(int fd)
    ssize_t pread(int fd, void *data, size_t size, int64_t offset)
    ssize_t preadv(int fd, const iovec *parts, int count, int64_t offset)
    ssize_t preadv2(int fd, const iovec *parts, int count, int64_t offset, int flags)
    int O_RDONLY, O_CLOEXEC, O_NONBLOCK, O_NOCTTY, O_NOATIME, O_DIRECT
    int RWF_NOWAIT

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


cdef inline int64_t in_ns(const timespec *moment) noexcept nogil:
    return moment.tv_sec * 1000000000 + moment.tv_nsec
