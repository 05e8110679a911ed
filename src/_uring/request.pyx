"""The life of a read: QUEUED, PUSHED to the kernel or a worker, FINISHED; and back to QUEUED after a short result.

A Request says where the next byte comes from and goes to. Whoever gets an answer for it (a completion of the ring, the
result of a pread) calls `advance`, the only place that knows what full, short, end of file, interrupted and failed mean.

Ownership: a Batch holds its requests, and in `keep` the Buffers they write to and the files they read. While a ring or a
worker has one of its requests, that ring or job holds a reference to the Batch. So nothing the kernel may still write to
is ever recycled, whatever becomes of the caller.
"""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, errno
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from _uring.kernel cimport RWF_NOWAIT, iovec, pread, preadv2

from _uring.errors import as_failure

# After so many reads that were not in the page cache the rest is not asked one by one: it is cold.
cdef Py_ssize_t MISSES_TO_STOP = 8
# What a request may be told EAGAIN or EINTR before that counts as a failure: a broken driver must not make a loop of it.
cdef int MOST_TRIES = 100


cdef bint advance(Request *request, int64_t result) noexcept nogil:
    """Apply one result, a byte count or a negative errno. True: finished; False: send it again for the rest.

    Short is not the end (signals, 2 GiB limits, network file systems); 0 is. Of O_DIRECT a count that is not a multiple of
    the sector is the end: the last sector of the file is partial, and the rest could not be asked for (EINVAL). Example:
    3000 bytes in the file, 4096 asked at 0: 3000 come, and asking for 1096 at 3000 would be refused.

    More than was asked for is a failure: whoever says so has written past the end of the memory, or does not know.

    One store says how far it is: a child forked by another thread meanwhile finds it before or after, and can go on.
    """
    if result > <int64_t>(request.length - request.done):
        request.error = EIO
    elif result > 0:
        request.done += result
        request.tries = 0
        if request.done < request.length and not (request.direct and result % 512):
            request.state = QUEUED
            return False
    elif result == -EINVAL and request.direct and request.plain_fd >= 0:
        # The file system takes O_DIRECT at open but not here (an inline or compressed extent, say).
        request.fd = request.plain_fd
        request.direct = 0
        request.state = QUEUED
        return False
    elif (result == -EINTR or result == -EAGAIN) and request.tries < MOST_TRIES:
        request.tries += 1
        request.state = QUEUED
        return False
    elif result < 0:
        request.error = <int>-result
    request.state = FINISHED
    return True


cdef void sweep_one(Group *group, Py_ssize_t index) noexcept nogil:
    """Read what the page cache has of one request, without waiting. What it has not stays QUEUED."""
    cdef Request *request = &group.requests[index]
    cdef iovec part
    cdef ssize_t got
    if request.state != QUEUED or request.direct or group.misses >= MISSES_TO_STOP or group.abandoned:
        return
    while True:
        part.iov_base = request.data + request.done
        part.iov_len = min(request.length - request.done, LARGEST_READ)
        got = preadv2(request.fd, &part, 1, request.offset + <int64_t>request.done, RWF_NOWAIT)
        if got <= 0:
            # EAGAIN: not cached. EOPNOTSUPP: the file system cannot tell. 0: the file ended meanwhile; or, on Linux 5.9
            # and 5.10, it is not cached. All of it will be met again, and reported, by a read that may wait.
            group.misses += 1
            return
        if advance(request, got):
            if group.misses:
                group.misses -= 1
            return


cdef void read_one(Group *group, Py_ssize_t index) noexcept nogil:
    """Read one request to its end by pread, waiting as long as it takes."""
    cdef Request *request = &group.requests[index]
    cdef ssize_t got
    while request.state == QUEUED and not group.abandoned:
        got = pread(
            request.fd, request.data + request.done, min(request.length - request.done, LARGEST_READ),
            request.offset + <int64_t>request.done
        )
        advance(request, got if got >= 0 else -errno)


cdef class Batch:
    """Requests that one caller waits for together, and what is made of them when they are done (`finish`).

    `piece`: longer reads are cut, to be under way in parallel. `depth`: most of them under way at once. `waiter`: who is
    to be told, where nobody blocks on it; `error`: of what, where that is known before its end. `by_ring`: whether a ring
    may have it. `borrowed`: its memory is the caller's, who may not leave while the kernel writes to it. `shared`: a
    loop's workers have it, and will report. A ring has it while `group.owner` is set.
    """

    def __cinit__(self):
        memset(&self.group, 0, sizeof(Group))
        self.keep = []
        self.piece = 1 << 20
        self.only_fd = -1
        self.by_ring = True

    def __dealloc__(self):
        free(self.group.requests)

    cdef Py_ssize_t add(self, int fd, int plain_fd, bint direct, char *data, int64_t offset, size_t length) except -1:
        """Queue a read; the index of its first request (of several when it is longer than a piece)."""
        cdef Py_ssize_t first = self.group.count
        cdef Py_ssize_t needed = first + <Py_ssize_t>((length + self.piece - 1) // self.piece)
        cdef Request *request
        cdef size_t part
        if needed > self.capacity:
            self.capacity = max(needed, 2 * self.capacity)
            request = <Request *>realloc(self.group.requests, self.capacity * sizeof(Request))
            if request == NULL:
                raise MemoryError(f"cannot allocate {self.capacity} requests")
            self.group.requests = request
        self.bytes += length
        self.sweepable |= not direct
        while length:
            part = min(length, <size_t>self.piece)
            request = &self.group.requests[self.group.count]
            memset(request, 0, sizeof(Request))
            request.data, request.offset, request.length = data, offset, part
            request.fd, request.plain_fd, request.direct = fd, plain_fd, direct
            request.group = &self.group
            self.group.count += 1
            self.group.unfinished += 1
            data, offset, length = data + part, offset + part, length - part
        return first

    cdef size_t received(self, Py_ssize_t first, Py_ssize_t stop) noexcept:
        """Bytes from the start of a read that lies in requests first to stop: up to the first that came short."""
        cdef size_t total = 0
        cdef Py_ssize_t i
        for i in range(first, stop):
            total += self.group.requests[i].done
            if self.group.requests[i].done < self.group.requests[i].length:
                break
        return total

    cdef Py_ssize_t failed(self) noexcept:
        """Index of the first request, in the order they were added, that failed or was never answered; -1 if none.

        The account of every read, whoever ran it: a request that is not FINISHED has bytes in it that nobody wrote, and
        would be taken for one that met the end of the file.
        """
        cdef Py_ssize_t i
        for i in range(self.group.count):
            if self.group.requests[i].error or self.group.requests[i].state != FINISHED:
                return i
        return -1

    cdef object finish(self):
        """The result of the batch, or the error of the first request that failed. Overridden by each kind of read."""
        raise NotImplementedError

    cdef tuple asked(self):
        """The path, and the range (offset, limit) if it is one, that an error of all of it names."""
        return "", None, None

    cdef object failure(self, error):
        """An exception in the midst of it as what the read ends with: an error of the tree, or an interruption as it is."""
        return as_failure(error, *self.asked()) if isinstance(error, Exception) else error

    cdef void settle(self) noexcept:
        """Count what is left after threads finished requests without counting."""
        cdef Py_ssize_t i
        self.group.unfinished = 0
        for i in range(self.group.count):
            if self.group.requests[i].state != FINISHED:
                self.group.unfinished += 1

    cdef void begin_again(self) noexcept:
        """In a child that was forked while the kernel had some of it (by a signal handler, say): all that is not here is read anew.

        What the kernel has goes to the parent, whose memory only looks like this.
        """
        cdef Py_ssize_t i
        for i in range(self.group.count):
            if self.group.requests[i].state == PUSHED:
                self.group.requests[i].state = QUEUED
        self.group.in_flight = 0
