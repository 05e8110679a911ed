"""The states of a read: QUEUED, PUSHED to the kernel, FINISHED; back to QUEUED after a short result.

A Request holds the source and destination of its next byte. Code that gets a result for it (a completion of the ring, the
return value of a pread) calls `advance`, the only place that distinguishes full, short, end of file, interrupted and failed.

Ownership: a Batch holds its requests, and in `keep` the Buffers they write to and the files they read. While a ring or a
worker has one of its requests, that ring or job holds a reference to the Batch. So memory that the kernel may still write to
is never recycled, even if the caller was interrupted.
"""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, errno
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from _uring.filesystems cimport LOCAL, MEMORY
from _uring.kernel cimport RWF_NOWAIT, iovec, pread, preadv2
from _uring.residency cimport is_cached

from _uring.errors import as_failure

# Bytes of one pread of a long read in order: a cold GiB came at 1.5 GiB/s with 32 MiB, at 2.0 with 128 MiB.
cdef size_t STRETCH = 128 << 20
# Maximum EAGAIN or EINTR results of a request before it fails: a broken driver must not cause an endless loop.
cdef int MOST_TRIES = 100


cdef bint advance(Request *request, int64_t result) noexcept nogil:
    """Apply one result, a byte count or a negative errno. True: finished. False: send it again for the rest.

    A short count is not the end of the file (signals, 2 GiB limits, network file systems); 0 is. With O_DIRECT, a count that
    is not a multiple of the sector size is the end: the last sector of the file is partial, and reading on would fail with
    EINVAL. Example: the file has 3000 bytes; a read of 4096 at 0 returns 3000, and a read of 1096 at 3000 would be refused.

    A count larger than requested is a failure (EIO): the bytes were written past the end of the memory, or not at all.

    The progress is one store, so that a child forked meanwhile by another thread sees a consistent request and can continue.
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
        # The file system accepts O_DIRECT when opening, but not for this read (an inline or compressed extent, for example).
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
    """Read what the page cache has of one request, without waiting. The rest stays QUEUED."""
    cdef Request *request = &group.requests[index]
    cdef ssize_t got
    if request.state != QUEUED or request.direct or group.misses >= MISSES_TO_STOP or group.abandoned:
        return
    while True:
        got = read_cached(
            group, request.fd, request.data + request.done, min(request.length - request.done, LARGEST_READ),
            request.offset + <int64_t>request.done
        )
        if got <= 0:
            # EAGAIN: not cached. EOPNOTSUPP: no RWF_NOWAIT in this file system. 0: the file was truncated; or, on Linux 5.9
            # and 5.10, not cached. The blocking read that follows gets any of these again, and reports it.
            group.misses += 1
            return
        if advance(request, got):
            if group.misses:
                group.misses -= 1
            return


cdef ssize_t read_cached(Group *group, int fd, char *data, size_t length, int64_t offset) noexcept nogil:
    """Read from the page cache, by what the file system can do; the bytes, or -1."""
    cdef iovec part
    if group.way == MEMORY or group.way == LOCAL and is_cached(group.cached, offset, <int64_t>length):
        return pread(fd, data, length, offset)
    if group.way >= LOCAL:
        return -1
    part.iov_base, part.iov_len = data, length
    return preadv2(fd, &part, 1, offset, RWF_NOWAIT)


cdef void read_one(Group *group, Py_ssize_t index) noexcept nogil:
    """Read one request completely with pread, which may block."""
    cdef Request *request = &group.requests[index]
    cdef ssize_t got
    while request.state == QUEUED and not group.abandoned:
        got = pread(
            request.fd, request.data + request.done, min(request.length - request.done, LARGEST_READ),
            request.offset + <int64_t>request.done
        )
        advance(request, got if got >= 0 else -errno)


cdef void read_in_order(Group *group, Py_ssize_t index) noexcept nogil:
    """Read all requests of a group, which are adjacent in the file and in memory, by few long preads. One thread calls it once."""
    cdef Py_ssize_t first = 0, stop
    cdef Request *request
    cdef size_t bytes, part
    cdef ssize_t got
    while first < group.count and not group.abandoned:
        request = &group.requests[first]
        if request.state != QUEUED:
            first += 1
            continue
        bytes, stop = request.length - request.done, first + 1
        # Up to one that the sweep has read, all or part of: nothing is read twice.
        while stop < group.count and bytes < STRETCH and group.requests[stop].state == QUEUED and group.requests[stop].done == 0:
            bytes += group.requests[stop].length
            stop += 1
        got = pread(request.fd, request.data + request.done, bytes, request.offset + <int64_t>request.done)
        if got <= 0:
            advance(request, got if got == 0 else -errno)
        while got > 0:
            part = min(<size_t>got, request.length - request.done)
            advance(request, part)
            got -= part
            request += 1


cdef class Batch:
    """Requests that one caller waits for together; `finish` builds the result.

    piece: longer reads are divided into pieces, to run in parallel. depth: maximum requests in flight. waiter: gets the result
    of an async read. error: for the waiter, if the batch has already failed. by_ring: whether a ring may read it. borrowed:
    the memory is the caller's, which must not be reused while the kernel writes to it. shared: workers of a loop have it, and
    will report. A ring holds it while `group.owner` is set.
    """

    def __cinit__(self):
        memset(&self.group, 0, sizeof(Group))
        self.keep = []
        self.piece = 1 << 20
        self.only_fd = -1
        self.by_ring = True

    def __dealloc__(self):
        free(self.group.requests)

    cdef int reserve(self, Py_ssize_t needed) except -1:
        """Have room for so many requests."""
        cdef Request *requests = <Request *>realloc(self.group.requests, needed * sizeof(Request))
        if requests == NULL and needed:
            raise MemoryError(f"cannot allocate {needed} requests")
        self.group.requests, self.capacity = requests, needed
        return 0

    cdef Py_ssize_t add(self, int fd, int plain_fd, bint direct, char *data, int64_t offset, size_t length) except -1:
        """Queue a read. Return the index of its first request (there are several if it is longer than a piece)."""
        cdef Py_ssize_t first = self.group.count
        cdef Py_ssize_t needed = first + <Py_ssize_t>((length + self.piece - 1) // self.piece)
        cdef Request *request
        cdef size_t part
        if needed > self.capacity:
            self.reserve(max(needed, 2 * self.capacity))
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

    cdef int add_records(self, Request *like, char *data, const int64_t *offsets, Py_ssize_t count) except -1:
        """Queue reads that are alike but for their place, side by side; none longer than a piece, and not of O_DIRECT."""
        cdef Request *request
        cdef Py_ssize_t i
        self.reserve(self.group.count + count)
        request = &self.group.requests[self.group.count]
        like.group = &self.group
        for i in range(count):
            request[i] = like[0]
            request[i].data, request[i].offset = data + i * <Py_ssize_t>like.length, offsets[i]
        self.group.count += count
        self.group.unfinished += count
        self.bytes += count * like.length
        self.sweepable = True
        return 0

    cdef size_t received(self, Py_ssize_t first, Py_ssize_t stop) noexcept:
        """Contiguous bytes read by the requests from `first` to `stop`: up to the first request that came short."""
        cdef size_t total = 0
        cdef Py_ssize_t i
        for i in range(first, stop):
            total += self.group.requests[i].done
            if self.group.requests[i].done < self.group.requests[i].length:
                break
        return total

    cdef Py_ssize_t failed(self) noexcept:
        """Index of the first request, in the order they were added, that failed or never completed; -1 if none.

        Every read is checked, whatever ran it. A request that is not FINISHED contains bytes that were never written, and
        would otherwise look like one that met the end of the file.
        """
        cdef Py_ssize_t i
        for i in range(self.group.count):
            if self.group.requests[i].error or self.group.requests[i].state != FINISHED:
                return i
        return -1

    cdef object finish(self):
        """Return the result of the batch, or raise the error of its first failed request. Each kind of read overrides this."""
        raise NotImplementedError

    cdef tuple asked(self):
        """What an error of the whole batch names: the path, and the range (offset, limit) if it is a single one."""
        return "", None, None

    cdef object failure(self, error):
        """Convert an unexpected exception to the error of the read: one of the error tree. Interruptions stay as they are."""
        return as_failure(error, *self.asked()) if isinstance(error, Exception) else error

    cdef void settle(self) noexcept:
        """Recount the unfinished requests: threads finish requests without counting."""
        cdef Py_ssize_t i
        self.group.unfinished = 0
        for i in range(self.group.count):
            if self.group.requests[i].state != FINISHED:
                self.group.unfinished += 1

    cdef void begin_again(self) noexcept:
        """In a child that was forked while requests were in flight (by a signal handler, for example): queue them again.

        The kernel writes them to the parent's memory, not to the child's copy.
        """
        cdef Py_ssize_t i
        for i in range(self.group.count):
            if self.group.requests[i].state == PUSHED:
                self.group.requests[i].state = QUEUED
        self.group.in_flight = 0
