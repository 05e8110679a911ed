"""Many files, each opened, read and closed once, with several opens and reads in flight at a time.

Opening an uncached file blocks (directory and inode blocks), and io_uring would hand each open to a kernel thread. So workers do
the whole visit: open, read, close. Memory is allocated beforehand, by a guess from the sizes of earlier files. A file larger than
the guess stays open until the caller has allocated memory for it. So the window bounds the number of open files; if sizes are
alike, as many are open as there are workers.
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
# The first window is small: its sizes are the first guess.
cdef Py_ssize_t FIRST_WINDOW = 16
cdef int64_t UNBOUNDED = 0x7FFFFFFFFFFFFFFF


cdef void open_one(void *context, Py_ssize_t index) noexcept nogil:
    """Open the file and get its size. If the allocated memory suffices, read it at once."""
    cdef Visit *visit = &(<Visit *>context)[index]
    cdef stat_t answer
    visit.got = visit.done = 0
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
        # A read past the reported end checks whether there are more bytes (`fill`). Not at the largest offset: there can be none.
        visit.to_end = visit.want > answer.st_size - visit.start and max(visit.start, answer.st_size) < UNBOUNDED
        visit.want = max(0, min(visit.want, answer.st_size - visit.start))
        if visit.want > visit.room:
            return
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
            visit.pin = pin
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

    cdef list run(self, Py_ssize_t window):
        """A Buffer, an exception, or None (unusual: ask Reactor.open) for each visit."""
        cdef list results = [None] * self.count
        cdef list waiting = list(range(self.count))
        cdef Py_ssize_t most = window
        window = min(window, FIRST_WINDOW)
        while waiting:
            starved = self.read_window(waiting[:window], results)
            waiting = waiting[window:]
            if starved and window > 1:
                # Out of descriptors. Some files of the window got one, so retry with fewer at a time.
                waiting = self.starved(results) + waiting
                most = window = max(1, window // 4)
            else:
                window = most
        return results

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
        self.visit(<Step>open_one, first, stop)
        late = 0
        for i in range(first, stop):
            visit = &self.visits[i]
            if visit.fd >= 0:
                self.make_room(i, visit.want)
                late += 1
        if late:
            self.visit(<Step>read_one_file, first, stop)
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

    cdef visit(self, Step step, Py_ssize_t first, Py_ssize_t stop):
        cdef WorkerPool pool = None
        while pool is None or not pool.usable():  # one pass, and another in a child that was forked meanwhile
            pool = self.engine.worker_pool()
            pool.run(step, self.visits, first, stop, 4 if stop - first > 64 else 1, self.engine.workers, False, self)
