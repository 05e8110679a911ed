"""Worker threads and the jobs they share with the caller."""

from libc.stdint cimport int64_t

from _uring.process cimport Alarm
from _uring.request cimport Batch, Group


ctypedef void (*Step)(void *context, Py_ssize_t index) noexcept nogil


cdef extern from *:
    """
    #include <pthread.h>
    """
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass


cdef struct Job:
    Step step
    void *context
    Py_ssize_t count
    Py_ssize_t claimed
    Py_ssize_t grain
    int active
    int limit
    int helping
    int listed
    int abandoned
    Mailbox *mailbox
    pthread_cond_t over
    Job *next
    void *owner


cdef struct Mailbox:
    # Where jobs that nobody waits for are reported: a list under the state's lock, and an eventfd.
    Job *first
    Alarm alarm
    int pending
    int closed


cdef struct PoolState:
    # What the threads share; it outlives the WorkerPool while a thread is stuck in a read.
    pthread_mutex_t lock
    pthread_cond_t work
    Job *first
    Job *dead
    int threads
    int idle
    int lingering
    int company
    int stopping


cdef class WorkerPool:
    cdef PoolState *state
    cdef readonly int workers
    cdef int made_after_forks

    cdef bint usable(self) noexcept
    cdef void post(self, Job *job) noexcept nogil
    cdef int finish(self, Job *job) noexcept nogil
    cdef int run(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        bint take_part, object owner
    ) except -1
    cdef int delegate(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        object owner, Mailbox *mailbox
    ) except -1
    cdef bint withdraw(self, object owner, Mailbox *mailbox)
    cdef void redirect_mail(self, Mailbox *mailbox, int event) noexcept
    cdef object next_mail(self, Mailbox *mailbox)
    cdef void close_mail(self, Mailbox *mailbox)
    cdef Job *make(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        object owner
    ) except NULL
    cdef void drop_all(self, Job *job) noexcept
    cdef void release_dead(self)
    cdef void drain(self, Job *job)
    cdef void abandon(self, Job *job)
    cdef Job *drop(self, Job *job) noexcept
