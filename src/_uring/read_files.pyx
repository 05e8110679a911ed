"""Many files, each opened, read and closed once, with several opens and reads in flight at a time.

Opening an uncached file blocks (directory and inode blocks), and io_uring would hand each open to a kernel thread. So workers do
the whole visit: open, read, close. Memory is allocated beforehand, by a guess from the sizes of earlier files. A file larger than
the guess stays open until the caller has allocated memory for it; if there are many, the others are opened a second time. If
sizes are alike, as many are open as there are workers, and the windows grow: at the end of each, the device runs dry.
"""

import os

from libc.errno cimport EINTR, EIO, EMFILE, ENFILE, errno
from libc.stdlib cimport calloc, free

from _uring.memory cimport Buffer
from _uring.kernel cimport (
    O_CLOEXEC,
    O_NOCTTY,
    O_NONBLOCK,
    O_RDONLY,
    S_IFMT,
    S_IFREG,
    c_open,
    close,
    fstat,
    in_ns,
    iovec,
    preadv,
    stat_t,
)
from _uring.workers cimport WorkerPool, Step
from _uring.process cimport page_size

from _uring.arguments import byte_index
from _uring.errors import make_error

cdef extern from *:
    """
    #define rangeio_next(counter) __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)
    """
    Py_ssize_t rangeio_next(Py_ssize_t *counter) nogil

cdef enum:
    # Left to Reactor.open, which handles block devices and files with generated content.
    UNUSUAL = 1
    # A pinned file was written to during the read.
    CHANGED = 2
    # Reading stopped before the size that the file still reports.
    SHORT = 3

cdef int64_t LARGEST = 0x7FF00000
# Memory is allocated by a guess only for files up to this size.
cdef int64_t MOST_GUESSED = 1 << 20
# The most of them that stay open because they are larger than their memory: a quarter of the usual soft limit of 1024.
cdef Py_ssize_t OPEN_AT_ONCE = 256
# The first window is small: its sizes are the first guess. The next has OPEN_AT_ONCE files; as long as none of a window is larger
# than the guess, the next is four times as large, up to so many files or bytes.
cdef Py_ssize_t FIRST_WINDOW = 16
cdef Py_ssize_t LARGEST_WINDOW = 4096
cdef int64_t LARGEST_WINDOW_BYTES = 64 << 20
# Workers for a window: one for so many files, but at least as many as for reads of one file, and at most four times as many.
cdef Py_ssize_t EACH = 8
cdef int64_t UNBOUNDED = 0x7FFFFFFFFFFFFFFF


cdef void open_one(void *context, Py_ssize_t index) noexcept nogil:
    """Open the file and get its size. If the allocated memory suffices, read it at once."""
    cdef Visit *visit = &(<Visit *>context)[index]
    cdef stat_t answer
    cdef int64_t left
    cdef int fd
    if visit.done or visit.error or visit.refusal:
        return  # the second time, for the files that were larger than their memory
    visit.got = 0
    while visit.fd < 0:  # else a worker of the parent has already opened it before this child was forked
        visit.fd = c_open(visit.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        if visit.fd < 0 and errno != EINTR:
            break
    if visit.fd < 0 or fstat(visit.fd, &answer) != 0:
        visit.error = errno
    elif (answer.st_mode & S_IFMT) != S_IFREG or answer.st_size == 0 or answer.st_size == page_size and answer.st_blocks == 0:
        visit.refusal = UNUSUAL
    else:
        visit.size, visit.mtime_ns = answer.st_size, in_ns(&answer.st_mtim)
        left = max(0, answer.st_size - visit.start)
        if min(visit.want, left) > visit.room:
            visit.needed = min(visit.want, left)
            if rangeio_next(visit.kept) >= OPEN_AT_ONCE:
                fd, visit.fd = visit.fd, -1
                close(fd)
            return
        # A read past the reported end checks whether there are more bytes (`fill`). Not at the largest offset: there can be none.
        visit.to_end |= visit.want > answer.st_size - visit.start and max(visit.start, answer.st_size) < UNBOUNDED
        visit.want = min(visit.want, left)
    read_one_file(context, index)


cdef void read_one_file(void *context, Py_ssize_t index) noexcept nogil:
    """Read an opened file, and close it."""
    cdef Visit *visit = &(<Visit *>context)[index]
    cdef int fd = visit.fd
    if fd >= 0:
        if visit.error == 0 and visit.refusal == 0:
            fill(visit)
        if visit.error == 0 and visit.refusal == 0 and (visit.pin or visit.got != visit.want):
            check_end(visit)
        visit.fd = -1  # before closing: a child forked in between must not use the number
        visit.done = 1
        close(fd)


cdef void fill(Visit *visit) noexcept nogil:
    """Read until complete or at the end. A read to the end of the file requests one byte more: then `got` exceeds `want`."""
    cdef char beyond
    cdef iovec[2] parts
    cdef bint last
    cdef ssize_t got
    cdef int64_t left = visit.want - visit.got
    while left or visit.to_end:
        last = visit.to_end and left <= LARGEST
        parts[0].iov_base, parts[0].iov_len = visit.data + visit.got, min(left, LARGEST)
        parts[1].iov_base, parts[1].iov_len = &beyond, 1
        got = preadv(visit.fd, parts, 2 if last else 1, visit.start + visit.got)
        if got < 0 and errno == EINTR:
            continue
        if got > left + last:
            visit.error = EIO  # more than requested: written past the end of the memory, or never read at all
            return
        if got <= 0:
            visit.error = errno if got < 0 else 0
            return
        visit.got += got
        left -= got
        if left < 0 or (last and left == 0):
            return


cdef void check_end(Visit *visit) noexcept nogil:
    """Check that the file is unchanged after the read, and ends where its size says."""
    cdef stat_t answer
    cdef bint changed
    if fstat(visit.fd, &answer) != 0:
        visit.error = errno
        return
    changed = answer.st_size != visit.size or in_ns(&answer.st_mtim) != visit.mtime_ns
    if changed and visit.pin:
        visit.refusal = CHANGED
    elif visit.got < visit.want and visit.start + visit.got < answer.st_size:
        visit.refusal = SHORT
    elif visit.got > visit.want and not changed:
        visit.refusal = UNUSUAL  # there are bytes past the size
    else:
        visit.got = min(visit.got, visit.want)


cdef class Visits:
    def __cinit__(self, Engine engine, jobs, bint pin):
        cdef Py_ssize_t i
        cdef Visit *visit
        self.engine = engine
        self.count = len(jobs)
        self.visits = <Visit *>calloc(max(1, self.count), sizeof(Visit))
        if self.visits == NULL:
            raise MemoryError(f"cannot allocate {self.count} visits")
        self.names, self.buffers = [], [None] * self.count
        for i in range(self.count):
            self.visits[i].fd = -1
        for i, (path, start, stop) in enumerate(jobs):
            visit = &self.visits[i]
            name = os.fsencode(path)
            if b"\0" in name:
                raise ValueError(f"embedded null byte in the path {path!r}")
            self.names.append(name)
            visit.path = <const char *><bytes>name
            visit.pin, visit.kept = pin, &self.kept
            visit.start = byte_index(start, "start")
            visit.want = UNBOUNDED if stop is None else max(0, byte_index(stop, "stop") - visit.start)

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.visits == NULL:
            return
        for i in range(self.count):
            if self.visits[i].fd >= 0:
                close(self.visits[i].fd)
        free(self.visits)

    cdef list run(self):
        """A Buffer, an exception, or None (unusual: ask Reactor.open) for each visit."""
        cdef list results = [None] * self.count
        cdef list waiting = list(range(self.count))
        cdef Py_ssize_t window = FIRST_WINDOW
        self.grow = True
        while waiting:
            starved = self.read_window(waiting[:window], results)
            waiting = waiting[window:]
            if starved and window > 1:
                # Out of descriptors. Some files of the window got one, so retry with fewer at a time.
                waiting = self.starved(results) + waiting
                window = max(1, window // 4)
                self.grow = False
            elif self.grow:
                window = self.next_window(window)
        return results

    cdef Py_ssize_t next_window(self, Py_ssize_t window) noexcept:
        if self.guess == 0 or self.late:
            return OPEN_AT_ONCE
        return max(OPEN_AT_ONCE, min(4 * window, LARGEST_WINDOW, LARGEST_WINDOW_BYTES // self.guess))

    def starved(self, list results):
        """The indices whose visit failed for lack of a descriptor, reset for a retry."""
        again = [i for i in range(self.count) if results[i] == "starved"]
        for i in again:
            self.visits[<Py_ssize_t>i].error = 0
            results[i] = None
        return again

    cdef int read_window(self, list indices, list results) except -1:
        """Visit consecutive files. Return how many could not be opened for lack of a descriptor."""
        cdef Py_ssize_t i, first, stop
        cdef Visit *visit
        cdef Buffer buffer
        cdef int starved = 0
        first, stop = indices[0], indices[len(indices) - 1] + 1
        if stop - first != len(indices):
            # Not consecutive: the rest of a window that ran out of descriptors. One at a time.
            for i in indices:
                starved += self.read_window([i], results)
            return starved
        for i in range(first, stop if self.guess else first):
            self.make_room(i, self.guess)
        self.visit(first, stop)
        self.late = self.room_for_late(first, stop)
        if self.late:
            self.visit(first, stop)
        while self.room_for_late(first, stop):
            self.visit(first, stop)  # they have grown meanwhile
        self.guess_from(first, stop)
        for i in range(first, stop):
            visit = &self.visits[i]
            if visit.error:
                if (visit.error == EMFILE or visit.error == ENFILE) and stop - first > 1:
                    results[i] = "starved"
                    starved += 1
                    continue
                results[i] = make_error("errno", visit.error, os.fsdecode(self.names[i]))
            elif visit.refusal == CHANGED:
                results[i] = make_error(
                    "changed", 0, os.fsdecode(self.names[i]), visit.start, visit.want, "it was written to while it was read"
                )
            elif visit.refusal == SHORT:
                results[i] = make_error(
                    "eof", 0, os.fsdecode(self.names[i]), visit.start, visit.want,
                    f"the file system reports {visit.size} bytes but returned only {visit.got} from there",
                )
            elif visit.refusal == 0 and not visit.done:
                results[i] = make_error(
                    "errno", EIO, os.fsdecode(self.names[i]), visit.start, visit.want, "it was never read"
                )
            elif visit.refusal == 0:
                if self.buffers[i] is None:
                    self.make_room(i, 0)
                buffer = <Buffer>self.buffers[i]
                buffer.resize(0, visit.got)
                results[i] = buffer
                self.engine.counters.reads += 1
                self.engine.counters.bytes_asked += visit.want
                self.engine.counters.bytes_fetched += visit.got
            self.buffers[i] = None
        return starved

    cdef Py_ssize_t room_for_late(self, Py_ssize_t first, Py_ssize_t stop) except -1:
        """Allocate memory for the files that were larger than theirs; their number."""
        cdef Py_ssize_t i, late = 0
        cdef Visit *visit
        self.kept = 0
        for i in range(first, stop):
            visit = &self.visits[i]
            if visit.needed > visit.room and not visit.done and not visit.error and not visit.refusal:
                self.make_room(i, visit.needed)
                late += 1
        return late

    cdef int make_room(self, Py_ssize_t index, int64_t size) except -1:
        cdef Buffer buffer = self.engine.memory.allocate(size)
        self.buffers[index] = buffer
        self.visits[index].data, self.visits[index].room = buffer.data, size
        return 0

    cdef void guess_from(self, Py_ssize_t first, Py_ssize_t stop) noexcept:
        """Guess that the next files are as large as the largest of these, unless that wastes more than half the memory."""
        cdef int64_t largest = 0, total = 0
        cdef Py_ssize_t i
        for i in range(first, stop):
            if self.visits[i].error == 0 and self.visits[i].refusal == 0:
                largest = max(largest, self.visits[i].got)
                total += self.visits[i].got
        self.guess = largest if largest <= MOST_GUESSED and total * 2 >= largest * (stop - first) else 0

    cdef visit(self, Py_ssize_t first, Py_ssize_t stop):
        cdef WorkerPool pool = None
        cdef int workers = <int>max(self.engine.workers, min(self.engine.file_workers, (stop - first) // EACH))
        while pool is None or not pool.usable():  # one pass, and another in a child that was forked meanwhile
            pool = self.engine.file_pool()
            pool.run(<Step>open_one, self.visits, first, stop, 1, workers, False, self)
