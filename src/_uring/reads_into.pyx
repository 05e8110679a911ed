"""Reads into memory of the caller: one range, or many at once. `keep` holds the memory until the last byte is written.

O_DIRECT wants offset, length and address aligned, and the caller's are not. The aligned middle of a range is read in place. What
lies before and behind it is read with the sectors around it, into a Buffer, and copied at the end. Where the address of the middle is
not aligned, it is read some bytes too early, over the place of what precedes it, and moved at the end: that takes a tenth of the
time of the read, and no memory.
"""

from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove

from _uring.open_file cimport SMALL, bypass_from
from _uring.reads cimport aligned_span, clamp

# What is moved without the GIL: below, letting go of it may cost more than the copy.
cdef size_t LONG = 1 << 20
# What O_DIRECT has in flight, in at most so many requests: the ends of ranges are requests of a sector, which must not take the
# places of long ones.
cdef size_t IN_FLIGHT = 32 << 20
cdef size_t MOST_REQUESTS = 128


cdef class Move:
    """Bytes that were read to another place than theirs: too early in the same memory, or into a Buffer (by one request)."""

    cdef int make(self, size_t received) except -1:
        """received: by the request."""
        cdef char *data = self.data
        cdef char *source = self.source
        cdef size_t length = self.length
        if self.bounce is not None:
            received = max(received, self.skipped) - self.skipped
            memcpy(data, self.bounce.data + self.skipped, min(length, received))
        elif length < LONG:
            memmove(data, source, length)
        else:
            with nogil:
                memmove(data, source, length)
        return 0


cdef class ReadManyInto(FileRead):
    """waits: a thread waits for it, which may move much memory at the end. An event loop may not.

    Ranges that follow each other in the list, in the file and in memory are read together, as one run.
    """

    def __dealloc__(self):
        free(self.places)

    cdef int take(self, list views, const int64_t *starts) except -1:
        cdef Place *place
        cdef Place *before = NULL
        cdef Py_ssize_t i
        self.count = len(views)
        self.places = <Place *>calloc(self.count, sizeof(Place))
        if self.places == NULL:
            raise MemoryError(f"cannot allocate {self.count} reads")
        for i in range(self.count):
            place = &self.places[i]
            place.data, place.want = <char *>PyMemoryView_GET_BUFFER(views[i]).buf, PyMemoryView_GET_BUFFER(views[i]).len
            place.start = starts[i]
            place.joins = (
                before != NULL and before.data + before.want == place.data and place.start - before.start == before.want
            )
            self.runs += not place.joins
            before = place
        self.keep.extend(views)
        self.borrowed = True
        return 0

    cdef int past_cache_if_long(self) except -1:
        cdef int64_t first = self.size, last = 0, total = 0
        cdef Place *place
        cdef Py_ssize_t i
        if not self.file.may_bypass or self.size < bypass_from:
            return 0
        for i in range(self.count):
            place = &self.places[i]
            if place.length:
                first, last = min(first, place.start), max(last, place.start + place.length)
                total += place.length
        return self.long_ranges_past_cache(first, last, total, self.runs)

    cdef int queue_runs(self) except -1:
        cdef Place *place
        cdef Py_ssize_t i = 0, stop, j, first
        cdef int64_t length, lead
        for i in range(self.count):
            self.places[i].length = clamp(self.places[i].start, self.places[i].want, self.size)
        self.past_cache_if_long()
        i = 0
        while i < self.count:
            place, stop, first = &self.places[i], i + 1, self.group.count
            length = place.length
            while stop < self.count and self.places[stop].joins:
                length += self.places[stop].length
                stop += 1
            lead = self.place(place.data, place.start, length) if length else 0
            for j in range(i, stop):
                self.places[j].first, self.places[j].stop, self.places[j].lead = first, self.group.count, lead
            i = stop
        return 0

    cdef int64_t place(self, char *data, int64_t start, int64_t length) except -1:
        """Queue one run. Return how many bytes its first request reads before it."""
        cdef int64_t border = self.border
        cdef int64_t lead = start % border
        cdef int64_t head = (border - lead) % border
        cdef int64_t early = <int64_t>(<size_t>(data + head) % <size_t>self.file.memory_alignment) if self.direct else 0
        cdef int64_t middle
        cdef Move move
        if head < early:
            head += border
        middle = (length - head) // border * border
        if not self.direct or head == 0 and middle == length:
            self.queue(data, start, length)
            return 0
        if length <= SMALL or middle <= 0:
            self.bounce(data, start, length)
            return lead
        if early and not self.waits:
            self.add(self.plain.fd, -1, False, data, start, length)  # through the page cache
            return 0
        if early:
            move = Move()
            move.data, move.source, move.length = data + head, data + head - early, middle
            self.moves.append(move)  # before its head: it is over the place of that
        if head:
            self.bounce(data, start, head)
        self.queue(data + head - early, start + head, middle)
        if head + middle < length:
            self.bounce(data + head + middle, start + head + middle, length - head - middle)
        return lead if head else 0

    cdef int bounce(self, char *data, int64_t start, int64_t length) except -1:
        """Queue a short part of a run, to be read with the sectors around it."""
        cdef int64_t span = aligned_span(start, length, self.border)
        cdef Move move = Move()
        move.bounce = self.file.engine.memory.allocate(span)
        move.data, move.length, move.skipped, move.request = data, length, start % self.border, self.group.count
        self.moves.append(move)
        return self.queue(move.bounce.data, start - start % self.border, span)

    cdef tuple asked_by(self, Py_ssize_t request):
        cdef int64_t offset = self.group.requests[request].offset
        cdef Place *place = self.places
        while not (place.first <= request < place.stop and offset - place.start < place.length):
            place += 1
        return place.start, place.want

    cdef list counts(self):
        cdef int64_t left = 0, got, asked = 0, total = 0
        cdef Place *place
        cdef Move move
        cdef Py_ssize_t i
        cdef list counts = []
        self.check_failure()
        for move in self.moves:
            move.make(self.group.requests[move.request].done)
        for i in range(self.count):
            place = &self.places[i]
            if not place.joins:
                left = max(<int64_t>0, <int64_t>self.received(place.first, place.stop) - place.lead)
            got = min(place.length, left)
            left -= got
            if got < place.length:
                self.file.came_short(self.plain, place.start, place.want, got)
            counts.append(got)
            asked += place.length
            total += got
        self.account(self.count, asked, total)
        return counts

    cdef object finish(self):
        return self.counts()


cdef class ReadInto(ReadManyInto):
    """One range."""

    cdef tuple asked(self):
        return self.file.path, self.places[0].start, self.places[0].want

    cdef object finish(self):
        return self.counts()[0]


cdef ReadManyInto prepared(ReadManyInto read, int concurrent, bint waits):
    """Queue the requests of a read that has begun."""
    read.waits, read.moves = waits, []
    read.queue_runs()
    read.choose_depth(concurrent)
    if concurrent == 0 and read.direct and read.bytes:
        read.depth = max(read.depth, <int>min(MOST_REQUESTS, IN_FLIGHT * <size_t>read.group.count // read.bytes))
    if read.runs == 1:
        read.note_order()
    else:
        # What is long and not cached comes faster by workers: for each page that is not there, the ring makes a turn.
        read.by_ring = read.by_ring and (read.direct or read.bytes <= <size_t>read.group.count << 18)
        read.use_mapping()
    return read


cdef ReadInto read_into(OpenFile file, object view, int64_t start, bint waits):
    cdef ReadInto read = ReadInto()
    read.take([view], &start)
    read.begin(file, None, 1, start, read.places[0].want)
    return <ReadInto>prepared(read, 0, waits)


cdef ReadManyInto read_many_into(OpenFile file, list views, object starts, int concurrent, bint waits):
    """starts: an array of int64."""
    cdef ReadManyInto read = ReadManyInto()
    cdef const int64_t[::1] places = starts
    read.take(views, &places[0])
    read.begin(file, None, read.runs, None, None)
    read.strict = file.pin
    return prepared(read, concurrent, waits)
