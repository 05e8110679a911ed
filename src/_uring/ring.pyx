"""One io_uring instance. Only this file touches memory shared with the kernel, in four steps:

    push    fill a submission entry from a Request
    enter   submit the entries, and optionally wait for completions
    reap    take completions; `advance` (request.pyx) interprets each
    end     with the GIL: drop the batches that are complete and that no thread waits for

The kernel identifies a request by its address (user_data). The address stays valid because the ring holds a reference to the
Batch from its first push to its last completion. Block reads cannot be cancelled (IORING_OP_ASYNC_CANCEL does not find them), so
when a caller is interrupted, its batch stays here, `abandoned`, until the kernel is done with it.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EBUSY, EINTR, ETIME
from libc.string cimport memset

from _uring.kernel cimport close, fstat, iovec, stat_t
from _uring.liburing cimport (
    ABI_OP_READ,
    ABI_OP_READ_FIXED,
    ABI_SETUP_CLAMP,
    ABI_SETUP_CQSIZE,
    ABI_SQE_FIXED_FILE,
    abi_cq_advance,
    abi_cq_peek,
    abi_cq_ready,
    abi_cqe,
    abi_get_sqe,
    abi_params,
    abi_sq_at,
    abi_sq_clear,
    abi_sq_pending,
    abi_sqe,
    abi_timespec,
)
from _uring.process cimport coarse_clock_ns, fork_count
from _uring.request cimport LARGEST_READ, PUSHED, QUEUED, advance

cdef extern from * nogil:
    """
    #include <time.h>
    static void rangeio_sleep_ms(long ms)
    {
        struct timespec t = {0, ms * 1000000};
        nanosleep(&t, NULL);
    }
    """
    void rangeio_sleep_ms(long ms)

# Maximum wait before Python's signal handlers can run: Ctrl-C takes effect within this time even if the signal was delivered
# to another thread.
cdef long long WAIT_NS = 100000000
# Maximum entries of one enter. The device starts on them while the next are prepared: O_DIRECT at depth 32 loses 15 % if the
# whole window is refilled at once (bench: direct). For the same reason, a wait is for an eighth of the depth, at most this many.
cdef int BURST = 8
# How often a refused ring is polled for the completions of requests it has taken.
cdef long PAUSE_MS = 10
# How long closing a ring waits for reads in flight. After that, their memory is leaked, since the kernel may still write to it.
cdef long long DRAIN_NS = 1000000000


@cython.no_gc_clear  # `__dealloc__` uses the library, which is in no cycle. Without the GIL, the collector clears what it only frees
cdef class Ring:
    """flags: IORING_SETUP_*. A ring with SINGLE_ISSUER is used only by the thread that made it; others, with the GIL held."""

    def __cinit__(self, Library library, int entries, uint32_t flags):
        cdef abi_params params
        cdef stat_t answer
        cdef int result
        memset(&params, 0, sizeof(params))
        params.flags = flags | ABI_SETUP_CQSIZE | ABI_SETUP_CLAMP
        params.cq_entries = 4 * entries
        self.library = library
        self.made_after_forks = fork_count
        self.fixed_fd = -1
        result = library.call.queue_init_params(entries, &self.ring, &params)
        if result < 0:
            raise OSError(-result, "io_uring_setup")
        self.open = True
        self.entries = self.ring.sq.ring_entries
        # Completions beyond these would stay in the kernel until the next enter, which it may refuse by then.
        self.most = self.ring.cq.ring_entries
        if fstat(self.ring.ring_fd, &answer) == 0:
            self.device, self.inode = answer.st_dev, answer.st_ino
        # A forked child must not submit through these pages: its entries would complete into this process.
        library.call.ring_dontfork(&self.ring)

    def __dealloc__(self):
        self.shut()

    cdef void shut(self) noexcept:
        """Close the ring, after waiting at most a second for the reads in flight."""
        cdef int64_t until = coarse_clock_ns() + DRAIN_NS
        if not self.open:
            return
        self.open = False
        if self.inherited():
            # The pages of the ring are not mapped here (ring_dontfork); other memory may be mapped at their address.
            if self.owned():
                close(self.ring.ring_fd)
            return
        with nogil:
            while self.in_flight and coarse_clock_ns() < until:
                if self.refused:
                    self.pause()
                else:
                    self.enter(<int>self.in_flight)
                self.reap()
        # Closing does not wait for reads that reached the device: batches still in flight are kept for ever.
        self.forget_ended()
        if not self.owned():
            self.ring.ring_fd = self.ring.enter_ring_fd = -1
        self.library.call.queue_exit(&self.ring)

    cdef bint owned(self) noexcept:
        """Whether the descriptor is still the ring's. Other code may have closed it, and its number may now be another file.

        On older kernels all anonymous inodes are the same one; there, only files and sockets can be distinguished from it.
        """
        cdef stat_t answer
        if fstat(self.ring.ring_fd, &answer) != 0:
            return False
        return answer.st_dev == self.device and answer.st_ino == self.inode

    cdef bint usable(self) noexcept:
        return self.open and not self.refused and self.made_after_forks == fork_count

    cdef bint inherited(self) noexcept nogil:
        """Whether the ring belongs to the parent of this forked process."""
        return self.made_after_forks != fork_count

    cdef bint push(self, Request *request) noexcept nogil:
        """Make a submission entry for a request. False if there is no room for it or for its completion."""
        cdef abi_sqe *sqe = NULL
        cdef char *data = request.data + request.done
        cdef size_t left = request.length - request.done
        if self.in_flight < self.most and not self.refused:
            sqe = abi_get_sqe(&self.ring)
        if sqe == NULL:
            return False
        sqe.opcode = ABI_OP_READ
        if self.fixed_base <= data and data + left <= self.fixed_end:
            sqe.opcode = ABI_OP_READ_FIXED
        sqe.fd = request.fd
        if request.fd == self.fixed_fd:
            sqe.fd = 0
            sqe.flags = ABI_SQE_FIXED_FILE
        sqe.off = request.offset + request.done
        sqe.addr = <uint64_t>data
        sqe.len = <uint32_t>min(left, <size_t>LARGEST_READ)
        sqe.user_data = <uint64_t>request
        request.state = PUSHED
        request.group.in_flight += 1
        self.in_flight += 1
        self.reads += 1
        return True

    cdef int fill(self, Group *group, int depth) noexcept nogil:
        """Push queued requests: at most one burst, and at most `depth` in flight. Return the number pushed."""
        cdef int pushed = 0
        cdef Request *request
        while pushed < BURST and group.in_flight < depth:
            if self.retry != NULL:
                request = self.retry
                if not self.push(request):
                    break
                self.retry = request.next
            elif group.next < group.count:
                request = &group.requests[group.next]
                if request.state == QUEUED and not self.push(request):
                    break
                group.next += 1
                if request.state != PUSHED:
                    continue
            else:
                break
            pushed += 1
        return pushed

    cdef int enter(self, int wait) noexcept nogil:
        """Submit what was pushed and wait for `wait` completions, at most WAIT_NS. Return 0, or -EINTR to check for signals.

        If the kernel refuses (a seccomp filter, or a descriptor that other code closed), this is permanent: requests it has
        not taken become QUEUED again, to be read without the ring. Requests it has taken complete, and `reap` takes them.
        """
        cdef abi_cqe *cqe = NULL
        cdef abi_timespec timeout
        cdef int result
        self.enters += 1
        if wait == 0:
            result = self.library.call.submit(&self.ring)
        else:
            timeout.tv_sec, timeout.tv_nsec = 0, WAIT_NS
            result = self.library.call.submit_and_wait_timeout(&self.ring, &cqe, wait, &timeout, NULL)
        if result >= 0 or result == -EAGAIN or result == -EBUSY:
            return 0
        if result != -EINTR and result != -ETIME:
            self.refuse(-result)
        return -EINTR

    cdef void refuse(self, int error) noexcept nogil:
        """Mark the ring as refused: nothing more is pushed."""
        self.refused = error
        self.recall()

    cdef int pause(self) noexcept nogil:
        """Replaces `enter` for a refused ring: its completions arrive without an enter."""
        rangeio_sleep_ms(PAUSE_MS)
        return 0

    cdef void reap(self) noexcept nogil:
        """Take all available completions."""
        cdef uint32_t ready = abi_cq_ready(&self.ring), i
        cdef abi_cqe *cqe
        cdef Request *request
        cdef Group *group
        for i in range(ready):
            cqe = abi_cq_peek(&self.ring, i)
            request = <Request *>cqe.user_data
            group = request.group
            self.in_flight -= 1
            group.in_flight -= 1
            if advance(request, cqe.res) or group.abandoned:
                group.unfinished -= 1
            else:
                request.next = self.retry
                self.retry = request
            self.note_end(group)
        abi_cq_advance(&self.ring, ready)

    cdef void note_end(self, Group *group) noexcept nogil:
        """Add a group with nothing in flight to the list of `next_ended`, if it is complete with `notify`, or abandoned."""
        if group.in_flight == 0 and not group.listed and (group.abandoned or group.notify and group.unfinished == 0):
            group.listed = 1
            group.ended = self.ended
            self.ended = group

    cdef int drive(self, Group *group, int depth) noexcept nogil:
        """Push, enter and reap until the group is finished or the ring takes no more of it. -EINTR to check for signals."""
        cdef int pushed, more, wait, result
        cdef int64_t until = coarse_clock_ns() + WAIT_NS
        while group.unfinished:
            pushed = self.fill(group, depth)
            if group.in_flight == 0:
                return 0  # refused, or full of stalled reads of other groups
            more = group.in_flight < depth and (self.retry != NULL or group.next < group.count)
            # Wait for completions of this group only: reads of an abandoned group may stall for ever.
            wait = <int>max(1, min(min(BURST, depth // 8), group.in_flight))
            result = self.pause() if self.refused else self.enter(0 if more and pushed else wait)
            self.reap()
            # Check the clock as well: an enter that does not wait is never interrupted, however long the batch.
            if group.unfinished and (result == -EINTR or coarse_clock_ns() >= until):
                return -EINTR
        return 0

    cdef int run(self, Batch batch) except -1:
        """Read all queued requests of the batch. Those that the ring does not take stay QUEUED, for the workers."""
        cdef Group *group = &batch.group
        cdef int depth = max(1, min(batch.depth, 2 * self.entries))
        cdef int result
        self.forget_ended()
        self.start(batch)
        try:
            while True:
                with nogil:
                    result = self.drive(group, depth)
                if result == 0:
                    break
                PyErr_CheckSignals()
                if self.inherited():
                    batch.begin_again()
                    break
        except BaseException:
            self.abandon(batch)
            if batch.borrowed:
                self.drain(group)
            raise
        self.release(batch)
        return 0

    cdef int drain(self, Group *group) except -1:
        """Wait until the kernel no longer writes to the group's memory, which its owner is about to reuse or free."""
        with nogil:
            while group.in_flight and not self.inherited():
                if self.refused:
                    self.pause()
                else:
                    self.enter(<int>group.in_flight)
                self.reap()
        self.forget_ended()
        return 0

    cdef void recall(self) noexcept nogil:
        """Queue again the requests that were pushed but not taken by the kernel: nothing else will submit them."""
        cdef uint32_t i
        cdef Request *request
        for i in range(abi_sq_pending(&self.ring)):
            request = <Request *>abi_sq_at(&self.ring, i).user_data
            request.state = QUEUED
            request.group.in_flight -= 1
            self.in_flight -= 1
            self.note_end(request.group)
        # Otherwise they would be recalled, or even submitted, again after their batches are freed.
        abi_sq_clear(&self.ring)

    cdef void start(self, Batch batch):
        """Hold a reference to a batch whose requests are about to be pushed, until it has ended, is abandoned or released."""
        Py_INCREF(batch)
        batch.group.owner = <void *>batch

    cdef void drop(self, Batch batch):
        """Drop the reference of `start`. Resetting `owner` ensures that this happens once."""
        batch.group.owner = NULL
        Py_DECREF(batch)

    cdef void abandon(self, Batch batch):
        """Abandon a batch that the ring may hold: push no more of it, and hold it only while some of it is in flight. May be
        called again."""
        batch.group.abandoned = 1
        self.forget_retries(&batch.group)
        if batch.group.owner == NULL:
            return
        # In a forked child nothing is in flight: the kernel writes to the parent's memory.
        if self.inherited() or batch.group.in_flight == 0 and not batch.group.listed:
            self.drop(batch)

    cdef void release(self, Batch batch):
        """Drop a started batch with nothing in flight: it is complete, or will be read without the ring. Not for a batch that
        is listed."""
        self.forget_retries(&batch.group)
        self.drop(batch)

    cdef void forget_retries(self, Group *group) noexcept:
        cdef Request **link = &self.retry
        while link[0] != NULL:
            if link[0].group == group:
                link[0] = link[0].next
            else:
                link = &link[0].next

    cdef Batch next_ended(self):
        """Take one of the ended batches: complete with `notify`, or abandoned. None if there is none.

        One at a time, so that an exception does not lose the others. In a forked child `abandon` has dropped them.
        """
        cdef Batch batch = None
        if self.ended != NULL and not self.inherited():
            batch = <Batch>self.ended.owner
            self.ended = batch.group.ended
            batch.group.listed = 0
            self.drop(batch)
        return batch

    cdef void forget_ended(self):
        while self.next_ended() is not None:
            pass

    cdef void fix_file(self, int fd) noexcept:
        """Register a file for the next batch: saves the look-up of its descriptor for every entry. No effect if refused."""
        cdef int none = -1
        if self.in_flight:
            return
        if not self.has_files:
            if self.library.call.register_files(&self.ring, &none, 1) < 0:
                return
            self.has_files = True
        if self.library.call.register_files_update(&self.ring, 0, &fd, 1) >= 0:
            self.fixed_fd, self.file_fixed = fd, True

    cdef void fix_memory(self, char *base, size_t size) noexcept:
        """Register the destination of the next batch, which saves pinning its pages for each read. If RLIMIT_MEMLOCK is too
        low, register a part: the size is halved down to 2 MiB, then nothing is registered."""
        cdef iovec part
        if self.in_flight:
            return
        size = min(size, <size_t>1 << 30)  # the kernel's limit of one buffer
        while size >= 2 << 20:
            part.iov_base, part.iov_len = base, size
            if self.library.call.register_buffers(&self.ring, &part, 1) >= 0:
                self.fixed_base, self.fixed_end, self.memory_fixed = base, base + size, True
                return
            size = size // 2

    cdef void unfix(self) noexcept:
        """Unregister the file and buffer of the last batch: the file would stay open, the buffer pinned.

        New entries stop using them in any case: the descriptor number and the addresses may soon be reused. But while reads of
        an interrupted batch are in flight, unregistering would wait for them, so it is left to the next batch.
        """
        cdef int none = -1
        self.fixed_fd = -1
        self.fixed_base = self.fixed_end = NULL
        if self.in_flight:
            return
        if self.file_fixed:
            self.library.call.register_files_update(&self.ring, 0, &none, 1)
            self.file_fixed = False
        if self.memory_fixed:
            self.library.call.unregister_buffers(&self.ring)
            self.memory_fixed = False
