"""Worker threads, and the jobs they share with the caller."""

from libc.stdint cimport int64_t

from _uring.process cimport Notifier
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
    CompletionQueue *completions
    pthread_cond_t over
    Job *next
    void *owner


cdef struct CompletionQueue:
    # The finished jobs of one event loop: a list under the state's lock, and an eventfd that reports them.
    Job *first
    Notifier notifier
    int pending
    int closed


cdef struct PoolState:
    # The state that the threads share. It outlives the WorkerPool while a thread is stuck in a read.
    pthread_mutex_t lock
    pthread_cond_t work
    Job *first
    Job *dead
    int threads
    int idle
    int lingering
    int multicore
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
        object owner, CompletionQueue *completions
    ) except -1
    cdef int detach(self, Step step, void *context, Py_ssize_t count, object owner) except -1
    cdef bint withdraw(self, object owner, CompletionQueue *completions)
    cdef void redirect_completions(self, CompletionQueue *completions, int event) noexcept
    cdef object next_completed(self, CompletionQueue *completions)
    cdef void close_completions(self, CompletionQueue *completions)
    cdef Job *make(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        object owner
    ) except NULL
    cdef void drop_all(self, Job *job) noexcept
    cdef void release_dead(self)
    cdef void drain(self, Job *job)
    cdef void abandon(self, Job *job)
    cdef Job *drop(self, Job *job) noexcept
