"""The kinds of read: the requests of each, and how its result is built.

Each kind is a Batch with two halves. The function of the same name checks the file, allocates memory, queues requests, and
returns the read. `finish` turns the completed requests into a result or an error. The read does not depend on what runs it
in between: a blocked thread or an event loop.

A read holds the descriptors it uses, so it survives the close() of its file.
"""

from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.errno cimport EIO
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from _uring.filesystems cimport LOCAL, TOLD
from _uring.open_file cimport SMALL, bypass_from
from _uring.request cimport Request

from _uring.errors import make_error

# Size and queue depth of the pieces of a long read. Through the page cache, 1 MiB at depth 8 keeps a device busy. With O_DIRECT the
# kernel has all parts of a piece in flight at once, and what a piece costs is the wait for it: 8 MiB take two thirds of the CPU of 4.
cdef Py_ssize_t PIECE = 1 << 20
cdef Py_ssize_t DIRECT_PIECE = 8 << 20
cdef Py_ssize_t LONGEST = 0x7FFFFFFFFFFFFFFF
cdef int DEPTH_OF_PIECES = 8
cdef int DEPTH_OF_RECORDS = 128
# Pieces from which on a read that is not cached is made in order, at the pace of the read-ahead.
cdef Py_ssize_t IN_ORDER_FROM = 8
# Fewer reads gain less than the check whether a mapping may be used costs: three system calls.
cdef Py_ssize_t MAPPED_FROM = 8
# Registering the table avoids pinning the pages of each record. For long records, huge pages already make pinning cheap.
cdef int64_t LARGEST_FIXED = 64 << 10


cdef class FileRead(Batch):
    """The base of all kinds. `strict`: verify the pin when the read is complete, even if it is small."""

    cdef int begin(self, OpenFile file, Descriptor plain, Py_ssize_t count, object start, object want) except -1:
        self.file = file
        self.plain = file.held() if plain is None else plain
        self.size = file.trusted_size(self.plain, start, want)
        self.source = file.source(self.plain, count)
        self.direct = self.source is file.straight
        self.border = file.border
        self.group.way = file.how(self.plain)
        self.by_ring = self.group.way == TOLD
        if self.group.way == LOCAL:
            self.residency = file.known(self.plain)
            self.group.cached = &self.residency.cached
        self.only_fd = self.source.fd
        self.piece = DIRECT_PIECE if self.direct else PIECE
        if file.synthetic:
            self.piece = LONGEST  # content is generated on reading, from the start each time: read in order, by one request
        return 0

    cdef int queue(self, char *data, int64_t start, int64_t length) except -1:
        return self.add(self.source.fd, self.plain.fd, self.direct, data, start, length)

    cdef void choose_depth(self, int concurrent) noexcept:
        if concurrent > 0:
            self.depth = concurrent
        else:
            self.depth = DEPTH_OF_PIECES if self.bytes > <size_t>self.group.count << 18 else DEPTH_OF_RECORDS

    cdef int go_past_cache(self, int64_t start, int64_t length) except -1:
        """Read by O_DIRECT, if ``direct="auto"`` says so for a read of this range."""
        cdef Descriptor past = self.file.bypass(self.plain, start, length)
        if past is not None:
            self.source, self.direct, self.border = past, True, self.file.alignment
            self.only_fd, self.piece = past.fd, DIRECT_PIECE
        return 0

    cdef int long_ranges_past_cache(self, int64_t first, int64_t last, int64_t total, Py_ssize_t count) except -1:
        """As `go_past_cache`, for ranges of a MiB on average that cover half of what lies between the first and the last."""
        if total >> 20 >= count and 2 * total >= last - first:
            self.go_past_cache(first, total)
        return 0

    cdef void note_order(self) noexcept:
        """A long read through the page cache is made in order where it is not cached."""
        self.sequential = self.group.count >= IN_ORDER_FROM and self.group.way == TOLD and not self.group.requests[0].direct

    cdef void use_mapping(self) noexcept:
        """Of a pinned file many reads are copied out of a mapping, as far as what they read has been seen in the page cache."""
        if self.strict and not self.direct and self.group.count >= MAPPED_FROM:
            self.mapping = self.file.hot_mapping(self.plain)

    cdef int check_failure(self) except -1:
        """Raise for the first range, in the caller's order, that has a failed request."""
        cdef Py_ssize_t index = self.failed()
        cdef Request *request
        if index >= 0:
            request = &self.group.requests[index]
            start, want = self.asked_by(index)
            raise make_error(
                "errno", request.error or EIO, self.file.path, start, want,
                "" if request.error else f"the read of {request.length} bytes from {request.offset} never completed",
            )
        return 0

    cdef tuple asked_by(self, Py_ssize_t request):
        """The caller's range (offset, limit) that a request is part of."""
        raise NotImplementedError

    cdef tuple asked(self):
        return self.file.path, None, None

    cdef int account(self, Py_ssize_t reads, int64_t asked, int64_t fetched) except -1:
        if fetched > SMALL or self.strict:
            # The file may have been written to meanwhile: it must be unchanged since the read began or was planned.
            self.file.verify(self.plain, None, asked)
        if not self.source.touched:
            self.source.touch()
        self.file.engine.counters.reads += reads
        self.file.engine.counters.bytes_asked += asked
        self.file.engine.counters.bytes_fetched += fetched
        return 0


cdef class ReadAt(FileRead):
    """One range into one Buffer; with O_DIRECT, a view of the aligned range around it."""

    cdef tuple asked_by(self, Py_ssize_t request):
        return self.start, self.want

    cdef tuple asked(self):
        return self.file.path, self.start, self.want

    cdef object finish(self):
        cdef int64_t shift = self.start % self.border
        cdef int64_t got
        self.check_failure()
        got = clamp(shift, self.length, <int64_t>self.received(0, self.group.count))
        if self.length:
            self.buffer.resize(shift, got)
        if got < self.length:
            self.file.came_short(self.plain, self.start, self.want, got)
        self.account(1, self.length, got)
        return self.buffer


cdef ReadAt read_at(OpenFile file, int64_t start, int64_t want, Descriptor plain=None):
    """plain: the descriptor to read with, even if the file is closed."""
    cdef ReadAt read = ReadAt()
    cdef int64_t span
    read.begin(file, plain, 1, start, want)
    read.start, read.want, read.length = start, want, clamp(start, want, read.size)
    read.go_past_cache(start, read.length)
    span = aligned_span(start, read.length, read.border)
    read.buffer = file.engine.memory.allocate(span)
    read.queue(read.buffer.data, start - start % read.border, span)
    read.choose_depth(0)
    read.note_order()
    return read


cdef class ReadMany(FileRead):
    """Many ranges, one Buffer for each. `firsts`: the first request of each range, and the total number of requests."""

    def __dealloc__(self):
        free(self.firsts)

    cdef int past_cache_if_long(self) except -1:
        cdef int64_t first = self.size, last = 0, total = 0, length
        cdef Py_ssize_t i, count = self.starts.shape[0]
        if not self.file.may_bypass or self.size < bypass_from:
            return 0
        for i in range(count):
            length = clamp(self.starts[i], self.lengths[i], self.size)
            if length:
                first, last = min(first, self.starts[i]), max(last, self.starts[i] + length)
                total += length
        return self.long_ranges_past_cache(first, last, total, count)

    cdef tuple asked_by(self, Py_ssize_t request):
        cdef Py_ssize_t index = 0
        while self.firsts[index + 1] <= request:
            index += 1
        return self.starts[index], self.lengths[index]

    cdef list results(self):
        cdef Py_ssize_t i
        cdef int64_t start, want, shift, got, total = 0
        cdef Buffer buffer
        self.check_failure()
        for i in range(self.starts.shape[0]):
            start = self.starts[i]
            shift = start % self.border
            want = clamp(start, self.lengths[i], self.size)
            got = clamp(shift, want, <int64_t>self.received(self.firsts[i], self.firsts[i + 1]))
            buffer = <Buffer>self.buffers[i]
            if want:
                buffer.resize(shift, got)
            if got < want:
                self.file.came_short(self.plain, start, self.lengths[i], got)
            total += got
        self.account(len(self.buffers), total, total)
        return self.buffers

    cdef object finish(self):
        return self.results()


cdef ReadMany fill_many(ReadMany read, OpenFile file, object starts, object lengths, int concurrent):
    cdef Py_ssize_t i
    cdef int64_t start, span
    cdef Buffer buffer
    read.begin(file, None, len(starts), None, None)
    read.strict = file.pin
    read.starts, read.lengths = starts, lengths
    read.buffers = []
    read.firsts = <Py_ssize_t *>malloc((read.starts.shape[0] + 1) * sizeof(Py_ssize_t))
    if read.firsts == NULL:
        raise MemoryError(f"cannot allocate {read.starts.shape[0]} reads")
    read.past_cache_if_long()
    for i in range(read.starts.shape[0]):
        start = read.starts[i]
        span = aligned_span(start, clamp(start, read.lengths[i], read.size), read.border)
        buffer = file.engine.memory.allocate(span)
        read.buffers.append(buffer)
        read.firsts[i] = read.group.count
        read.queue(buffer.data, start - start % read.border, span)
    read.firsts[read.starts.shape[0]] = read.group.count
    read.choose_depth(concurrent)
    read.use_mapping()
    return read


cdef ReadMany read_many(OpenFile file, object starts, object lengths, int concurrent):
    return fill_many(ReadMany(), file, starts, lengths, concurrent)


cdef class ReadBatch(FileRead):
    """Records of one length, in one contiguous table."""

    cdef tuple asked_by(self, Py_ssize_t request):
        cdef Request *failed = &self.group.requests[request]
        cdef Py_ssize_t first = (failed.data + failed.done - self.data) // self.length
        cdef Py_ssize_t last = (failed.data + failed.length - 1 - self.data) // self.length
        return self.offsets[first], (last - first + 1) * self.length  # several records, if they were one read

    cdef int refuse(self, Py_ssize_t index, int64_t size) except -1:
        cdef int64_t offset = self.offsets[index]
        raise make_error(
            "eof", 0, self.file.path, offset, self.length,
            f"record {index} of the batch ends at {<object>offset + self.length}, the file at {size}",
        )

    cdef int queue_records(self) except -1:
        cdef Py_ssize_t first = 0, stop, count = self.offsets.shape[0]
        cdef Request like
        if 0 < self.length <= <int64_t>self.piece and not self.direct and count:
            memset(&like, 0, sizeof(Request))
            like.fd, like.plain_fd, like.length = self.source.fd, self.plain.fd, self.length
            return self.add_records(&like, self.data, &self.offsets[0], count)
        while first < count:
            stop = first + 1
            # With O_DIRECT, records that follow each other in the file, as they do in the table, are one read.
            while self.direct and stop < count and self.offsets[stop] - self.offsets[stop - 1] == self.length:
                stop += 1
            self.queue(self.data + first * self.length, self.offsets[first], (stop - first) * self.length)
            first = stop
        return 0

    cdef object finish(self):
        cdef Py_ssize_t count = self.offsets.shape[0], short
        cdef int64_t got
        self.check_failure()
        got = <int64_t>self.received(0, self.group.count)
        if got != self.nbytes:
            short = got // self.length
            self.refuse(short, self.file.verify(self.plain, self.offsets[short], self.length))
        self.account(count, self.nbytes, self.nbytes)
        return self.table


cdef class ReadBounced(ReadMany):
    """Unaligned records, which O_DIRECT cannot read in place: reads the aligned ranges around them, then copies."""

    cdef object finish(self):
        cdef Py_ssize_t i
        cdef Buffer part
        for i, part in enumerate(self.results()):
            if part.bytes != self.length:
                raise make_error("eof", 0, self.file.path, self.starts[i], self.length, f"record {i} came short")
            memcpy(self.data + i * self.length, part.data, self.length)
        return self.table


cdef FileRead read_batch(OpenFile file, object offsets, int64_t length, object view, object out):
    """view: the memory of `out`, which is the result; None: into a new table."""
    cdef ReadBatch read = ReadBatch()
    cdef int64_t joined = length, each
    cdef Py_ssize_t count = len(offsets), i
    cdef Buffer table
    read.begin(file, None, count, None, None)
    read.strict = file.pin
    read.offsets, read.length = offsets, length
    for i in range(count):
        each = read.offsets[i]
        joined |= each
        if length and each > read.size - length:
            read.refuse(i, read.size)
    if view is None:
        table = file.engine.memory.allocate(count * length)
        table.tabulate(count, length)
        read.table, read.data = table, table.data
    else:
        read.table, read.data = out, <char *>PyMemoryView_GET_BUFFER(view).buf
        joined |= <int64_t>read.data
    read.nbytes = count * length
    if joined % read.border:
        return bounced(read, view)
    if view is not None:
        read.keep.append(view)
        read.borrowed = True
    elif length <= LARGEST_FIXED:
        read.fixed_base, read.fixed_size = read.data, count * length
    read.queue_records()
    read.choose_depth(0)
    read.use_mapping()
    return read


cdef ReadBounced bounced(ReadBatch read, object view):
    """The same read by way of aligned memory."""
    cdef ReadBounced made = fill_many(ReadBounced(), read.file, read.offsets.base, full_like(read.offsets.base, read.length), 0)
    made.table, made.data, made.length = read.table, read.data, read.length
    if view is not None:
        made.keep.append(view)
        made.borrowed = True  # it could end at once, but would hold the memory still
    return made


cdef object full_like(object array, int64_t value):
    import numpy
    return numpy.full_like(array, value)
