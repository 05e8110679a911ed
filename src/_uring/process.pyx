"""Facts of the process that a read has to know: how often it was forked, the time, the CPUs, the page."""

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <time.h>
    #include <unistd.h>
    """
    ctypedef struct cpu_set_t:
        pass
    struct timespec:
        long tv_sec
        long tv_nsec
    int pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)() noexcept nogil)
    int sched_getaffinity(int pid, size_t size, cpu_set_t *mask) nogil
    int CPU_COUNT(cpu_set_t *mask) nogil
    int clock_gettime(int clock, timespec *now) nogil
    int CLOCK_MONOTONIC
    int CLOCK_MONOTONIC_COARSE
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
