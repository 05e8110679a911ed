"""Worker threads. They never touch a Python object: a job is a C function that is called for every index of a range.

Two uses. For work that does not block (copying from the page cache), workers help the caller, which works too. For work that
may block (pread without a ring, opening files), workers do all of it, and the caller checks for signals meanwhile. Threads are
started when first needed and sleep on a futex.

A caller that is interrupted (Ctrl-C) abandons its job. The job uses memory of its owner, so it holds a reference to the owner
until the last worker has left the job. A thread that has the GIL drops that reference later.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR
from libc.stdlib cimport calloc, free

from _uring.process cimport fork_count, notifier_of, notify
from _uring.request cimport Batch

cdef extern from "threads.h" nogil:
    int pthread_mutex_init(pthread_mutex_t *lock, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
    int pthread_cond_signal(pthread_cond_t *cond)
    int pthread_cond_broadcast(pthread_cond_t *cond)
    int pthread_cond_destroy(pthread_cond_t *cond)
    void rangeio_cond_init(pthread_cond_t *cond)
    int rangeio_is_multicore()
    void rangeio_linger_for(void *place, long ns)
    void rangeio_linger_while(int *count, long ns)
    int rangeio_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, long ms)
    int rangeio_spawn(void *(*body)(void *) noexcept nogil, void *argument)
    Py_ssize_t rangeio_claim(Py_ssize_t *counter, Py_ssize_t grain)
    Py_ssize_t rangeio_load(Py_ssize_t *counter)
    void rangeio_store(Py_ssize_t *counter, Py_ssize_t value)

# Maximum wait before signal handlers can run; the same as for a ring.
cdef long WAIT_MS = 100
# A worker that has just helped busy-waits for the next batch: waking a thread costs about 20 us on a virtual machine, half
# the time of a batch of 128 cached reads. Only one worker at a time, and only if there is a second CPU.
cdef long LINGER_NS = 40000
# Maximum threads stuck in stalled reads (a dead network file system) before new reads have to wait for them.
cdef int MOST_STUCK = 64


cdef void work(Job *job) noexcept nogil:
    """Claim and run indices until none is left. Run by workers, and by a caller that takes part."""
    cdef Py_ssize_t at, stop
    while True:
        at = rangeio_claim(&job.claimed, job.grain)
        if at >= job.count:
            return
        stop = min(at + job.grain, job.count)
        while at < stop:
            job.step(job.context, at)
            at += 1


cdef void unlist(PoolState *state, Job *job) noexcept nogil:
    cdef Job **link = &state.first
    while link[0] != NULL:
        if link[0] == job:
            link[0] = job.next
            job.listed = 0
            return
        link = &link[0].next


cdef void report(PoolState *state, Job *job) noexcept nogil:
    """The last worker has left a finished job. Called with the lock held."""
    cdef CompletionQueue *completions = job.completions
    if completions != NULL:
        completions.pending -= 1
    if completions != NULL and not completions.closed:
        job.next = completions.first
        completions.first = job
        notify(&completions.notifier)
    elif completions != NULL or job.abandoned:
        if completions != NULL and completions.pending == 0:
            free(completions)
        job.next = state.dead
        state.dead = job
    else:
        pthread_cond_signal(&job.over)


cdef void *worker(void *argument) noexcept nogil:
    cdef PoolState *state = <PoolState *>argument
    cdef Job *job
    cdef bint last, linger = False
    pthread_mutex_lock(&state.lock)
    while True:
        while state.first == NULL and not state.stopping:
            if linger and state.lingering == 0:
                linger = False
                state.lingering += 1
                pthread_mutex_unlock(&state.lock)
                rangeio_linger_for(&state.first, LINGER_NS)
                pthread_mutex_lock(&state.lock)
                state.lingering -= 1
                continue
            state.idle += 1
            pthread_cond_wait(&state.work, &state.lock)
            state.idle -= 1
        if state.stopping:
            break
        job = state.first
        job.active += 1
        if job.active >= job.limit:
            unlist(state, job)
        pthread_mutex_unlock(&state.lock)
        work(job)
        linger = job.helping and rangeio_is_multicore()
        pthread_mutex_lock(&state.lock)
        if job.listed:
            unlist(state, job)
        job.active -= 1
        if job.helping:
            state.multicore = linger
        if job.active == 0:
            report(state, job)
    state.threads -= 1
    last = state.threads == 0
    pthread_mutex_unlock(&state.lock)
    if last:
        free_state(state)
    return NULL


cdef void free_state(PoolState *state) noexcept nogil:
    pthread_cond_destroy(&state.work)
    pthread_mutex_destroy(&state.lock)
    free(state)


cdef class WorkerPool:
    """At most `workers` threads, shared by all callers of a reactor."""

    def __cinit__(self, int workers):
        self.workers = max(1, workers)
        self.made_after_forks = fork_count
        self.state = <PoolState *>calloc(1, sizeof(PoolState))
        if self.state == NULL:
            raise MemoryError("cannot allocate a thread pool")
        pthread_mutex_init(&self.state.lock, NULL)
        rangeio_cond_init(&self.state.work)

    def __dealloc__(self):
        cdef bint last
        # After a fork the threads do not exist here, and the lock may be held by one of them: leak everything.
        if self.state == NULL or self.made_after_forks != fork_count:
            return
        self.release_dead()
        pthread_mutex_lock(&self.state.lock)
        self.state.stopping = 1
        last = self.state.threads == 0
        pthread_cond_broadcast(&self.state.work)
        pthread_mutex_unlock(&self.state.lock)
        if last:
            free_state(self.state)

    @property
    def threads(self):
        return self.state.threads

    cdef bint usable(self) noexcept:
        return self.made_after_forks == fork_count

    cdef void post(self, Job *job) noexcept nogil:
        """Queue a job for the workers. Wake or start as many as it may use."""
        cdef PoolState *state = self.state
        cdef Job **tail
        cdef int wanted, _
        pthread_mutex_lock(&state.lock)
        tail = &state.first
        while tail[0] != NULL:
            tail = &tail[0].next
        tail[0] = job
        job.listed = 1
        wanted = min(job.limit, self.workers) - state.lingering
        for _ in range(min(wanted, state.idle)):
            pthread_cond_signal(&state.work)
        wanted -= state.idle
        while wanted > 0 and state.threads < self.workers:
            if rangeio_spawn(worker, state) != 0:
                break  # no more threads can be started: the existing ones, or the caller, do the work
            state.threads += 1
            wanted -= 1
        pthread_mutex_unlock(&state.lock)

    cdef int finish(self, Job *job) noexcept nogil:
        """Wait until the job is fully claimed and no worker is in it. Return -EINTR every WAIT_MS, to check for signals."""
        cdef PoolState *state = self.state
        cdef bint woken
        pthread_mutex_lock(&state.lock)
        if job.listed and (rangeio_load(&job.claimed) >= job.count or job.abandoned):
            unlist(state, job)
        if job.listed and state.threads == 0:
            unlist(state, job)
            pthread_mutex_unlock(&state.lock)
            work(job)
            return 0
        if job.active and job.helping and state.multicore:
            # The worker only has to finish one grain of copies, which takes no longer than sleeping and waking up.
            pthread_mutex_unlock(&state.lock)
            rangeio_linger_while(&job.active, LINGER_NS)
            pthread_mutex_lock(&state.lock)
        while job.active or job.listed:
            woken = rangeio_cond_wait_ms(&job.over, &state.lock, WAIT_MS)
            if not woken and (job.active or job.listed):
                if job.active == 0 and state.threads < MOST_STUCK and rangeio_spawn(worker, state) == 0:
                    state.threads += 1  # every worker is stuck in a stalled read: other jobs must not wait for that
                pthread_mutex_unlock(&state.lock)
                return -EINTR
        pthread_mutex_unlock(&state.lock)
        return 0

    cdef int run(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        bint take_part, object owner
    ) except -1:
        """Call step(context, i) for every i from first to stop, on `helpers` workers and, if `take_part`, here. owner: of context.

        In a child that is forked meanwhile, some indices are not done when this returns, and the pool is not `usable`.
        """
        cdef Job *job = self.make(step, context, first, stop, grain, helpers, owner)
        cdef int result
        job.helping = take_part
        try:
            while True:
                with nogil:
                    if not job.listed and job.active == 0 and helpers:
                        self.post(job)
                        helpers = 0
                    if take_part:
                        work(job)
                    result = self.finish(job)
                if result == 0:
                    break
                PyErr_CheckSignals()
                if not self.usable():
                    break  # a signal handler forked, and this is the child: the workers belong to the parent
        except BaseException:
            if isinstance(owner, Batch):
                (<Batch>owner).group.abandoned = 1
                if (<Batch>owner).borrowed:
                    self.drain(job)
            self.abandon(job)
            raise
        self.drop(job)
        return 0

    cdef void drain(self, Job *job):
        """Wait until no worker writes to the job's memory, which its owner is about to reuse or free."""
        if not self.usable():
            return
        with nogil:
            pthread_mutex_lock(&self.state.lock)
            if job.listed:
                unlist(self.state, job)
            while job.active:
                pthread_cond_wait(&job.over, &self.state.lock)
            pthread_mutex_unlock(&self.state.lock)

    cdef Job *make(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        object owner
    ) except NULL:
        cdef Job *job = <Job *>calloc(1, sizeof(Job))
        if job == NULL:
            raise MemoryError("cannot allocate a job")
        self.release_dead()
        job.step, job.context, job.grain, job.limit = step, context, grain, helpers
        job.claimed, job.count = first, stop
        job.owner = <void *>owner
        rangeio_cond_init(&job.over)
        Py_INCREF(owner)
        return job

    cdef int delegate(
        self, Step step, void *context, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t grain, int helpers,
        object owner, CompletionQueue *completions
    ) except -1:
        """As `run`, without waiting: `owner` is put in the completion queue when the job is done."""
        cdef Job *job = self.make(step, context, first, stop, grain, helpers, owner)
        job.completions = completions
        with nogil:
            pthread_mutex_lock(&self.state.lock)
            completions.pending += 1
            pthread_mutex_unlock(&self.state.lock)
            self.post(job)
            pthread_mutex_lock(&self.state.lock)
            if self.state.threads == 0:
                unlist(self.state, job)  # a thread started meanwhile would report it a second time
                pthread_mutex_unlock(&self.state.lock)
                work(job)
                pthread_mutex_lock(&self.state.lock)
                report(self.state, job)
            pthread_mutex_unlock(&self.state.lock)
        return 0

    cdef int detach(self, Step step, void *context, Py_ssize_t count, object owner) except -1:
        """Have one worker call the step for every index. Nobody waits for it. Without a thread nothing is done."""
        cdef Job *job = self.make(step, context, 0, count, 1, 1, owner)
        cdef bint alone
        job.abandoned = 1
        with nogil:
            self.post(job)
            pthread_mutex_lock(&self.state.lock)
            alone = self.state.threads == 0
            if alone:
                unlist(self.state, job)
            pthread_mutex_unlock(&self.state.lock)
        if alone:
            self.drop(job)
        return 0

    cdef bint withdraw(self, object owner, CompletionQueue *completions):
        """Start no more of what was delegated for `owner`. True: no worker had started it, and the job is dropped. False: it is
        done, or workers are in it, and the last of them reports it."""
        cdef Job *job
        cdef bint unclaimed = False
        pthread_mutex_lock(&self.state.lock)
        job = self.state.first
        while job != NULL and (job.completions != completions or job.owner != <void *>owner):
            job = job.next
        if job != NULL:
            rangeio_store(&job.claimed, job.count)
            unlist(self.state, job)
            unclaimed = job.active == 0  # then no worker was ever in it, or it would not be listed
            completions.pending -= unclaimed
        pthread_mutex_unlock(&self.state.lock)
        if unclaimed:
            self.drop(job)
        return unclaimed

    cdef void redirect_completions(self, CompletionQueue *completions, int event) noexcept:
        """Report through another eventfd, or through none (-1) for now. Also reports the jobs that are already queued."""
        pthread_mutex_lock(&self.state.lock)
        completions.notifier = notifier_of(event)
        if completions.first != NULL:
            notify(&completions.notifier)
        pthread_mutex_unlock(&self.state.lock)

    cdef object next_completed(self, CompletionQueue *completions):
        """Take the owner of a finished job; None if there is none. One at a time, so that an exception does not lose the others."""
        cdef object owner
        cdef Job *job
        pthread_mutex_lock(&self.state.lock)
        job = completions.first
        if job != NULL:
            completions.first = job.next
        pthread_mutex_unlock(&self.state.lock)
        if job == NULL:
            return None
        owner = <object>job.owner
        self.drop(job)
        return owner

    cdef void close_completions(self, CompletionQueue *completions):
        """Close the queue: jobs that finish later go to the `dead` list, and the last of them frees the queue."""
        cdef bint idle
        cdef Job *job
        pthread_mutex_lock(&self.state.lock)
        completions.closed = 1
        idle = completions.pending == 0
        # Take the list under the same lock: from here on a worker may free the queue, unless it is idle.
        job = completions.first
        completions.first = NULL
        pthread_mutex_unlock(&self.state.lock)
        self.drop_all(job)
        if idle:
            free(completions)

    cdef void abandon(self, Job *job):
        """The caller leaves: nothing more is claimed, and the last worker in the job puts it on the `dead` list."""
        cdef bint over
        if not self.usable():
            self.drop(job)  # its threads, which may hold the lock, belong to the parent
            return
        rangeio_store(&job.claimed, job.count)
        pthread_mutex_lock(&self.state.lock)
        if job.listed:
            unlist(self.state, job)
        job.abandoned = 1
        over = job.active == 0
        pthread_mutex_unlock(&self.state.lock)
        if over:
            self.drop(job)

    cdef Job *drop(self, Job *job) noexcept:
        """Free a finished job. Return the next job of its list."""
        cdef object owner = <object>job.owner
        cdef Job *following = job.next
        pthread_cond_destroy(&job.over)
        free(job)
        Py_DECREF(owner)
        return following

    cdef void drop_all(self, Job *job) noexcept:
        while job != NULL:
            job = self.drop(job)

    cdef void release_dead(self):
        """Free the finished jobs on the `dead` list, and drop their references."""
        cdef Job *job
        pthread_mutex_lock(&self.state.lock)
        job = self.state.dead
        self.state.dead = NULL
        pthread_mutex_unlock(&self.state.lock)
        self.drop_all(job)
