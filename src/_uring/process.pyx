"""Facts of the process that a read has to know: how often it was forked, the time, the CPUs, the page."""

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

# A ring or a worker thread made under another count is the parent's: it must not be touched (a submission from the child
# would complete into the parent). pthread_atfork also sees forks made in C, which os.register_at_fork does not.
fork_count = 0

# The kernel's, which is the size that files of sysfs say they have: 4 KiB, on some machines 16 or 64.
page_size = sysconf(_SC_PAGESIZE)


cdef void in_child() noexcept nogil:
    global fork_count
    fork_count += 1


pthread_atfork(NULL, NULL, in_child)


cdef int64_t coarse_clock_ns() noexcept nogil:
    """Monotonic time to a few milliseconds, read without a system call (clock_gettime(2), vdso)."""
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


cdef Alarm alarm_of(int event) noexcept nogil:
    """-1 for none."""
    cdef Alarm alarm
    cdef stat_t answer
    alarm.event, alarm.device, alarm.inode = event, 0, 0
    if event >= 0 and fstat(event, &answer) == 0:
        alarm.device, alarm.inode = answer.st_dev, answer.st_ino
    return alarm


cdef bint is_intact(Alarm *alarm) noexcept nogil:
    """Whether the descriptor is still the eventfd: who closed it may have opened another file under its number.

    Eventfds are all one inode to fstat(2), which tells files, pipes and sockets from them.
    """
    cdef stat_t answer
    if alarm.event < 0:
        return False
    if fstat(alarm.event, &answer) != 0:
        return errno != EBADF  # a filter refuses to tell
    return answer.st_dev == alarm.device and answer.st_ino == alarm.inode


cdef void sound(Alarm *alarm) noexcept nogil:
    if is_intact(alarm):
        eventfd_write(alarm.event, 1)
