"""Process-wide facts: fork count, time, CPUs, page size."""

from libc.errno cimport EBADF, errno

from _uring.kernel cimport clock_gettime, fstat, stat_t, timespec

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <sys/eventfd.h>
    #include <unistd.h>
    """
    ctypedef struct cpu_set_t:
        pass
    int pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)() noexcept nogil)
    int sched_getaffinity(int pid, size_t size, cpu_set_t *mask) nogil
    int CPU_COUNT(cpu_set_t *mask) nogil
    int CLOCK_MONOTONIC
    int CLOCK_MONOTONIC_COARSE
    int eventfd_write(int fd, unsigned long long count) nogil
    long sysconf(int name) nogil
    int _SC_PAGESIZE

# A ring or worker thread made under another fork count belongs to the parent and must not be used: a submission from the child
# would complete into the parent. pthread_atfork also sees forks made in C, which os.register_at_fork does not.
fork_count = 0

# The kernel's page size, which files of sysfs report as their size: 4 KiB, on some machines 16 or 64.
page_size = sysconf(_SC_PAGESIZE)


cdef void in_child() noexcept nogil:
    global fork_count
    fork_count += 1


pthread_atfork(NULL, NULL, in_child)


cdef int64_t coarse_clock_ns() noexcept nogil:
    """Monotonic time, accurate to a few milliseconds, read without a system call (clock_gettime(2), vdso)."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef int64_t monotonic_ns() noexcept nogil:
    """As time.monotonic_ns()."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef int usable_cpus() noexcept nogil:
    cdef cpu_set_t mask
    if sched_getaffinity(0, sizeof(mask), &mask) != 0:
        return 1
    return CPU_COUNT(&mask)


cdef Notifier notifier_of(int event) noexcept nogil:
    """event: -1 for none."""
    cdef Notifier notifier
    cdef stat_t answer
    notifier.event, notifier.device, notifier.inode = event, 0, 0
    if event >= 0 and fstat(event, &answer) == 0:
        notifier.device, notifier.inode = answer.st_dev, answer.st_ino
    return notifier


cdef bint is_intact(Notifier *notifier) noexcept nogil:
    """Whether the descriptor is still the eventfd. Other code may have closed it, and its number may now be another file.

    All eventfds have the same inode in fstat(2), which differs from that of files, pipes and sockets.
    """
    cdef stat_t answer
    if notifier.event < 0:
        return False
    if fstat(notifier.event, &answer) != 0:
        return errno != EBADF  # a seccomp filter may refuse fstat
    return answer.st_dev == notifier.device and answer.st_ino == notifier.inode


cdef void notify(Notifier *notifier) noexcept nogil:
    if is_intact(notifier):
        eventfd_write(notifier.event, 1)
