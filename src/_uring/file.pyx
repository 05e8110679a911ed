"""The public interface of one open file: checks arguments, runs reads, returns results.

A small cached read makes one system call, mostly with the GIL held, and creates no object other than its Buffer. `Reader.read_at` is
this method itself, without a wrapper. A read that may block becomes a FileRead (reads.pyx) and goes to the engine.
"""

cimport cython
from cpython.buffer cimport PyBUF_ANY_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer
from cpython.long cimport PyLong_AsLongLong, PyLong_CheckExact
from libc.string cimport memcpy

from _uring.engine cimport Engine
from _uring.iteration cimport Iteration
from _uring.filesystems cimport LOCAL, MEMORY, TOLD
from _uring.kernel cimport RWF_NOWAIT, iovec, pread, preadv2
from _uring.loop_reads cimport LoopReads, loop_reads
from _uring.open_file cimport CHECK_EVERY_NS, SMALL, Descriptor
from _uring.plain_memory cimport is_plain
from _uring.planning cimport checked_offsets, checked_places, checked_ranges
from _uring.prefetch cimport prefetch
from _uring.process cimport coarse_clock_ns
from _uring.reads cimport FileRead, read_at, read_batch, read_many
from _uring.reads_into cimport read_into, read_many_into
from _uring.coop cimport hand_out, may_hand_out, note_hit, refuse

from _uring.arguments import byte_index, whole_table, writable_bytes
from _uring.pickling import unpicklable
from _uring.records import FileStat

# Reads without the GIL since one took so long that the coarse clock went on meanwhile, as it does by chance in one of thousands;
# and until when the GIL is held where that can be, because such reads came close together: they wait for it, or for a device.
cdef int CLOSE_TOGETHER = 256
cdef int64_t since_late = 0
cdef int64_t crowded_until_ns = 0
# Bytes per read of a file whose size is unknown.
cdef int64_t GROWING_PIECE = 256 << 10


cdef inline int64_t to_bytes(object value, str name) except -1:
    """Convert an offset or length; the common case makes no Python call."""
    cdef long long number
    if PyLong_CheckExact(value):
        try:
            number = PyLong_AsLongLong(value)
        except OverflowError:
            number = -1
        if number >= 0:
            return number
    return byte_index(value, name)


cdef void note_wait(int64_t begun, int64_t ended) noexcept:
    """A read was made without the GIL."""
    global crowded_until_ns, since_late
    since_late += 1
    if ended > begun:
        if since_late < CLOSE_TOGETHER:
            crowded_until_ns = ended + CHECK_EVERY_NS
        since_late = 0


@cython.final
cdef class File(OpenFile):
    """The stub documents the interface. Created by Reactor.open and Reactor.from_fd."""

    def __cinit__(self, Engine engine, str path, Descriptor plain, direct, bint pin, bint mapped):
        self.fd = plain.fd
        self.inline_reads = self.straight is None and not self.synthetic

    @property
    def direct(self):
        return self.straight is not None

    @property
    def mapped(self):
        return self.plain is not None and self.hot_mapping(self.plain) is not None

    @property
    def closed(self):
        return self.plain is None

    @property
    def size(self):
        if self.synthetic:
            return None
        if not self.pin and self.plain is not None:
            self.verify(self.plain, None, None)
        return self.identity.size

    def fileno(self):
        return self.held().fd

    def stat(self):
        self.verify(self.held(), None, None)
        size = None if self.synthetic else self.identity.size
        return FileStat(size, self.identity.mtime_ns, self.identity.device, self.identity.inode)

    def prefetch(self, starts, lengths):
        first, count = checked_ranges(starts, lengths)
        prefetch(self.held(), first, count)

    def close(self):
        self.inline_reads = False
        self.fd = -1
        self.drop()

    cdef int64_t fill_inline(self, object destination, int64_t start) except? -1:
        """Fill a small destination from the page cache. Return -1 if that is not possible for any reason."""
        cdef Py_buffer view
        cdef Descriptor plain = self.plain  # the owner of the memory may close the file when he lends or gets it (PEP 688)
        cdef int64_t got = -1
        try:
            PyObject_GetBuffer(destination, &view, PyBUF_WRITABLE | PyBUF_ANY_CONTIGUOUS)
        except (TypeError, BufferError, ValueError):
            return -1  # writable_bytes() raises the error
        if (
            0 < view.len <= SMALL
            and is_plain(destination, view.itemsize)
            and (not self.pin or start <= self.identity.size - view.len)
            and PyBuffer_IsContiguous(&view, c"C")
        ):
            got = self.read_here(<char *>view.buf, start, view.len, True)
            got = got if got == view.len else -1
        PyBuffer_Release(&view)
        if got > 0:
            self.count_hit(plain, start, got)
        return got

    cdef int count_hit(self, Descriptor plain, int64_t start, int64_t bytes) except -1:
        """Count an inline read. Verify the pin if the last check is more than a second old.

        The caller holds `plain`: another thread may close the file during the fstat in `verify`.
        """
        if coarse_clock_ns() - self.checked_ns > CHECK_EVERY_NS:
            self.verify(plain, start, bytes)
        if not plain.touched:
            plain.touch()
        self.engine.counters.reads += 1
        self.engine.counters.inline_hits += 1
        self.engine.counters.bytes_asked += bytes
        self.engine.counters.bytes_fetched += bytes
        return 0

    cdef Buffer read_inline(self, int64_t start, int64_t want, bint waits):
        """The whole read by this thread, or None: not all of it is cached, or the end of the file is near."""
        cdef Buffer buffer
        cdef Descriptor plain
        if self.pin and start > self.identity.size - want:
            return None  # what lies there now is of another version, or nothing
        plain = self.plain
        buffer = self.engine.memory.allocate(want)
        if self.read_here(buffer.data, start, want, waits) != want:
            return None  # errors are met by the read that waits
        self.count_hit(plain, start, want)
        return buffer

    cdef int64_t read_here(self, char *data, int64_t start, int64_t want, bint waits) except? -2:
        """pread from the page cache with the GIL held: who lets go of it waits 5 ms for a thread that computes."""
        cdef iovec part
        if self.way > TOLD:
            return self.read_untold(data, start, want, waits)
        part.iov_base, part.iov_len = data, want
        return preadv2(self.fd, &part, 1, start, RWF_NOWAIT)

    cdef int64_t read_untold(self, char *data, int64_t start, int64_t want, bint waits) except? -2:
        """The same where the kernel does not say what is cached; -1 where the read is not for this thread.

        waits: this thread may wait for a device. It then does so without the GIL, and without asking first, unless other
        threads want the GIL: to ask costs as much as the read.
        """
        cdef Descriptor plain = self.plain  # another thread may close the file
        cdef int64_t begun, got
        if self.way == MEMORY:
            return pread(self.fd, data, want, start)
        if self.way != LOCAL or plain is None:
            return -1
        begun = coarse_clock_ns()
        if not waits or begun < crowded_until_ns:
            if self.has_cached(plain, start, want):
                return pread(plain.fd, data, want, start)
            if not waits:
                return -1
        with nogil:
            got = pread(plain.fd, data, want, start)
        note_wait(begun, coarse_clock_ns())
        return got

    def read_at(self, offset, limit):
        """Read `limit` bytes from `offset`: fewer only at the end of the file, none past it. `limit` 0 does no I/O.

        ValueError for negative numbers, TypeError for non-integers, OverflowError from 2**63 on. All are raised
        before any I/O.
        """
        cdef int64_t start = to_bytes(offset, "offset")
        cdef int64_t want = to_bytes(limit, "limit")
        cdef Buffer buffer
        if want <= SMALL and self.inline_reads and want:
            buffer = self.read_inline(start, want, True)
            if buffer is not None:
                return buffer
        self.held()
        if want == 0:
            return self.engine.memory.allocate(0)
        if self.synthetic:
            return self.read_growing(start, want)
        return self.run(read_at(self, start, want))

    # Async methods. Invalid arguments raise in the call; results and errors of the read come from the await.

    def read_at_async(self, offset, limit):
        """As `read_at`, to be awaited under asyncio or trio. This call checks the arguments, not the await.

        Cached bytes are read before this returns. The awaitable is then already done, or yields to the loop once if
        the task's budget for cached reads is used up. Cancelling returns at once; the read keeps its memory and its
        file until it completes.
        """
        cdef int64_t start = to_bytes(offset, "offset")
        cdef int64_t want = to_bytes(limit, "limit")
        cdef Buffer buffer
        try:
            if want <= SMALL and self.inline_reads and want:
                buffer = self.read_inline(start, want, False)
                if buffer is not None:
                    return hand_out(buffer, want)
            self.held()
            if want == 0:
                return hand_out(self.engine.memory.allocate(0), 0)
            if self.synthetic:
                return self.grow_async(start, want)
            return self.run_async(read_at(self, start, want))
        except Exception as error:
            return refuse(error)

    def read_cached(self, offset, limit):
        cdef int64_t start = to_bytes(offset, "offset")
        cdef int64_t want = to_bytes(limit, "limit")
        cdef Descriptor plain = self.plain
        cdef Buffer buffer
        if not self.inline_reads or plain is None or want == 0 or (self.pin and start > self.identity.size - want):
            return None
        if not may_hand_out(want):
            return None
        buffer = self.engine.memory.allocate(want)
        if self.copy_cached(plain, buffer.data, start, want) != want:
            return None
        if self.pin:
            self.verify(plain, start, want)  # one of many ranges, which must all be of one version
        self.count_hit(plain, start, want)
        note_hit(want)
        return buffer

    cdef int64_t copy_cached(self, Descriptor plain, char *data, int64_t start, int64_t want) except? -2:
        """`read_here` of any length: without the GIL, if it is long and the kernel says what is cached."""
        cdef iovec part
        cdef int64_t got
        if want <= SMALL:
            return self.read_here(data, start, want, False)
        if self.how(plain) != TOLD:
            return -1
        part.iov_base, part.iov_len = data, want
        with nogil:
            got = preadv2(plain.fd, &part, 1, start, RWF_NOWAIT)
        return got

    def begin_at(self, offset, limit, waiter):
        """Start reading a range. `waiter` gets the result, possibly before this returns."""
        cdef int64_t start = to_bytes(offset, "offset")
        cdef int64_t want = to_bytes(limit, "limit")
        cdef FileRead read
        cdef Buffer buffer = None
        cdef Descriptor plain = self.held()
        if want == 0:
            buffer = self.engine.memory.allocate(0)
        elif want <= SMALL and self.inline_reads:
            buffer = self.read_inline(start, want, False)
            if buffer is not None and self.pin:
                self.verify(plain, start, want)  # one of many ranges, which must all be of one version
        if buffer is not None:
            if want:
                note_hit(want)
            waiter.set_result(buffer)
        elif self.synthetic:
            Growing(self, start, want, waiter).go_on()
        else:
            read = read_at(self, start, want)
            read.strict = self.pin
            self.begin_read(read, waiter)

    cdef int begin_read(self, FileRead read, object waiter) except -1:
        cdef LoopReads reads = loop_reads(self.engine, self.path)
        if read.group.unfinished and not reads.sweep(read):
            reads.take(read, waiter)
        else:
            note_hit(read.bytes)
            read.waiter = waiter
            reads.settle(read)
        return 0

    cdef object grow_async(self, int64_t start, int64_t want):
        binding = loop_reads(self.engine, self.path).binding
        waiter = binding.waiter(None)
        Growing(self, start, want, waiter).go_on()
        return binding.wait(waiter)

    def read_into_async(self, buffer, offset=0):
        """As `read_into`, awaited. Cancelling starts no further I/O, and ends once no I/O writes to the buffer."""
        cdef int64_t start = to_bytes(offset, "offset")
        view = writable_bytes(buffer)
        try:
            self.held()
            return self.run_async(read_into(self, view, start, False)) if view.nbytes else hand_out(0, 0)
        except Exception as error:
            return refuse(error)

    def read_many_async(self, starts, lengths, int concurrent=0):
        first, second = checked_ranges(starts, lengths)
        try:
            self.held()
            if len(first) == 0:
                return hand_out([], 0)
            if self.synthetic:
                return self.all_growing(first.tolist(), second.tolist())
            return self.run_async(read_many(self, first, second, concurrent))
        except Exception as error:
            return refuse(error)

    def read_many_into_async(self, destinations, starts, int concurrent=0):
        views, first = checked_places(destinations, starts)
        try:
            self.held()
            if not views:
                return hand_out([], 0)
            if self.synthetic:
                return self.all_filled(views, first.tolist())
            return self.run_async(read_many_into(self, views, first, concurrent, False))
        except Exception as error:
            return refuse(error)

    async def all_filled(self, views, starts):
        return [await self.read_into_async(view, start) for view, start in zip(views, starts)]

    async def all_growing(self, starts, lengths):
        return [await self.read_at_async(start, length) for start, length in zip(starts, lengths)]

    def read_batch_async(self, offsets, length, out=None):
        """As `read_batch`, awaited. With `out`, cancelling is as for `read_into_async`."""
        array, each, view = self.check_batch(offsets, length, out)
        try:
            self.held()
            return self.run_async(read_batch(self, array, each, view, out))
        except Exception as error:
            return refuse(error)

    cdef object run_async(self, FileRead read):
        if not read.group.unfinished:
            return hand_out(read.finish(), 0)
        return loop_reads(self.engine, self.path).submit(read)

    def read_into(self, buffer, offset=0):
        """Fill a writable C-contiguous buffer from `offset`. Return the bytes read: less than its size only at the end.

        TypeError if the buffer is read-only or holds Python objects or pointers, BufferError if it is not contiguous.
        Both are raised before any I/O.
        """
        cdef int64_t start = to_bytes(offset, "offset")
        cdef int64_t filled = self.fill_inline(buffer, start) if self.inline_reads else -1
        if filled >= 0:
            return filled
        view = writable_bytes(buffer)
        self.held()
        return self.run(read_into(self, view, start, True)) if view.nbytes else 0

    def read_many(self, starts, lengths, int concurrent=0):
        first, second = checked_ranges(starts, lengths)
        self.held()
        if len(first) == 0:
            return []
        if self.synthetic:
            return [self.read_at(start, length) for start, length in zip(first.tolist(), second.tolist())]
        return self.run(read_many(self, first, second, concurrent))

    def read_many_into(self, destinations, starts, int concurrent=0):
        views, first = checked_places(destinations, starts)
        self.held()
        if not views:
            return []
        if self.synthetic:
            return [self.read_into(view, start) for view, start in zip(views, first.tolist())]
        return self.run(read_many_into(self, views, first, concurrent, True))

    def iter_many(self, starts, lengths, int concurrent=0, bint ordered=False):
        first, second = checked_ranges(starts, lengths)
        self.held()
        if self.synthetic:
            return self.each_growing(first.tolist(), second.tolist())
        return Iteration(self.engine, self, first, second, concurrent, ordered)

    def each_growing(self, starts, lengths):
        for index, (start, length) in enumerate(zip(starts, lengths)):
            yield index, self.read_at(start, length)

    def read_batch(self, offsets, length, out=None):
        """Read the records of `length` bytes at `offsets` into one table of shape (len(offsets), length).

        If any record extends past the end, the call raises an ``"eof"`` error with the index of the record in `detail`.
        out: a writable C-contiguous buffer of exactly that size, which is filled and returned in place of a new Buffer.
        """
        array, each, view = self.check_batch(offsets, length, out)
        self.held()
        return self.run(read_batch(self, array, each, view, out))

    def check_batch(self, offsets, length, out):
        array = checked_offsets(offsets, "offsets")
        cdef int64_t each = to_bytes(length, "length")
        if len(array) and each > 0x7FFFFFFFFFFFFFFF // <int64_t>len(array):
            raise OverflowError(f"{len(array)} records of {each} bytes are more than 2**63 bytes")
        return array, each, None if out is None else whole_table(out, len(array), each)

    cdef object run(self, FileRead read):
        if read.group.unfinished:
            self.engine.run(read)
        return read.finish()

    cdef Buffer read_growing(self, int64_t start, int64_t want):
        """Read from a file of unknown size, piece by piece until a read comes short."""
        cdef Descriptor plain = self.held()
        cdef Buffer part
        cdef list parts = []
        cdef int64_t total = 0, length
        while total < want:
            length = min(want - total, GROWING_PIECE)
            part = <Buffer>self.run(read_at(self, start + total, length, plain))
            parts.append(part)
            total += part.bytes
            if part.bytes < length:
                break
        return self.joined(parts, total)

    cdef Buffer joined(self, list parts, int64_t total):
        cdef Buffer whole, part
        if len(parts) == 1:
            return parts[0]
        whole = self.engine.memory.allocate(total)
        total = 0
        for part in parts:
            memcpy(whole.data + total, part.data, part.bytes)
            total += part.bytes
        return whole

    def __reduce__(self):
        if self.again is None:
            raise unpicklable(self.path)
        return self.again

    def __repr__(self):
        return f"<_uring.File {self.path!r}{' closed' if self.closed else ''}>"


cdef class Growing:
    """`read_growing` on an event loop: acts as the waiter of each piece in turn, then passes the result to `waiter`."""

    def __init__(self, File file, int64_t start, int64_t want, waiter):
        self.file, self.plain, self.waiter = file, file.held(), waiter
        self.start, self.want, self.parts = start, want, []

    def done(self):
        return self.waiter.done()

    def set_result(self, Buffer part):
        self.parts.append(part)
        self.total += part.bytes
        self.ended = part.bytes < self.asked or self.total == self.want
        self.landed = True
        if not self.beginning:
            self.go_on()

    def set_exception(self, error):
        self.waiter.set_exception(error)

    cdef int go_on(self) except -1:
        try:
            if self.begin_pieces():
                self.waiter.set_result(self.file.joined(self.parts, self.total))
        except BaseException as error:  # in a loop callback: nothing else would resolve the waiter
            if not self.waiter.done():
                self.waiter.set_exception(error)
        return 0

    cdef bint begin_pieces(self) except -1:
        """Read pieces until one has to be waited for. True if all have arrived. A loop, not recursion: there may be many."""
        while not self.ended:
            self.asked = min(self.want - self.total, GROWING_PIECE)
            self.landed, self.beginning = False, True
            try:
                self.file.begin_read(read_at(self.file, self.start + self.total, self.asked, self.plain), self)
            finally:
                self.beginning = False
            if not self.landed:
                return False
        return True
