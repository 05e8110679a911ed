"""One open file: its descriptors, its identity (the pin), and the alignment that O_DIRECT requires."""

import os

cimport cython
from libc.errno cimport EBADF, EINTR, EISDIR, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from _uring.arenas cimport PAGE
from _uring.filesystems cimport TOLD, UNASKED, has_prompt_fstat, is_made_up, way_of
from _uring.kernel cimport (
    O_CLOEXEC,
    O_DIRECT,
    O_NOATIME,
    O_NOCTTY,
    O_NONBLOCK,
    O_RDONLY,
    S_IFBLK,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
    c_open,
    close,
    fstat,
    in_ns,
    pread,
    stat_t,
)
from _uring.mapping cimport mapping_of
from _uring.residency cimport cached_share
from _uring.process cimport coarse_clock_ns, page_size
from _uring.residency cimport is_cached

from _uring.errors import make_error

cdef extern from *:
    """
    #include <sys/ioctl.h>
    #include <sys/syscall.h>
    #include <sys/sysmacros.h>
    #ifndef BLKGETSIZE64
    #define BLKGETSIZE64 _IOR(0x12, 114, size_t)
    #endif
    /* statx(2), Linux 6.1: the request bit, and the offset of the answer. Older libc headers define neither. */
    #define RANGEIO_STATX_DIOALIGN 0x2000u
    #define RANGEIO_AT_EMPTY_PATH 0x1000
    static long rangeio_statx(int fd, void *answer)
    {
    #ifdef SYS_statx
        return syscall(SYS_statx, fd, "", RANGEIO_AT_EMPTY_PATH, RANGEIO_STATX_DIOALIGN, answer);
    #else
        return -1;
    #endif
    }
    """
    int fcntl(int fd, int command, ...) nogil
    int ioctl(int fd, unsigned long request, ...) nogil
    int posix_fadvise(int fd, int64_t offset, int64_t length, int advice) nogil
    unsigned major(uint64_t device) nogil
    long rangeio_statx(int fd, void *answer) nogil
    int F_GETFL, F_SETFL, O_ACCMODE, O_PATH, O_WRONLY, POSIX_FADV_RANDOM
    unsigned long BLKGETSIZE64

# Reads up to this size are small: the copy takes about 6 us with the GIL held, and relies on an identity check that is at most
# a second old (an fstat per read would cost a third of it).
SMALL = 64 << 10
CHECK_EVERY_NS = 1000000000
# Under direct="auto", one read of at least this many bytes goes past the page cache if it is not cached: a sixteenth of the
# machine's memory. RANGEIO_DIRECT_FROM sets it.
bypass_from = int(
    os.environ.get("RANGEIO_DIRECT_FROM") or max(256 << 20, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16)
)
# It is not cached if at most this share of it is.
cdef double MOST_CACHED = 0.125
# A batch of at least this many reads is scattered: the kernel's read-ahead would fetch bytes that no read needs.
cdef Py_ssize_t SCATTERED = 4


@cython.final
@cython.no_gc_clear  # `__dealloc__` uses the engine; every reference cycle also contains an object that can be cleared
cdef class Descriptor:
    """A file descriptor, closed when its last user (such as a read in flight) drops its reference.

    first: the file's first descriptor, which counts it in `files_open`. Others are further open file descriptions of the
    same file. owned: close it at the end. closed: its file was, so that hints may end.
    """

    def __cinit__(self, Engine engine, int fd, bint first=True):
        self.engine = engine
        self.fd = fd
        self.first = first
        self.owned = True
        engine.files_open += first

    cdef void touch(self) noexcept:
        """Set O_NOATIME after the first read, which has updated the access time; later reads need not update it again.

        The update costs a twelfth of a cached 4 KiB read (touch_atime). Only for open file descriptions that nobody else
        uses. The kernel refuses O_NOATIME to users who do not own the file (open(2)); then nothing changes.
        """
        self.touched = True
        fcntl(self.fd, F_SETFL, fcntl(self.fd, F_GETFL) | O_NOATIME)

    def __dealloc__(self):
        self.engine.files_open -= self.first
        if self.owned:
            close(self.fd)


@cython.final
cdef class Identity:
    """The attributes that must not change while a file is pinned."""

    cdef int read(self, int fd) except -1:
        cdef stat_t answer
        cdef int result
        cdef uint64_t blocks_size = 0
        with nogil:
            result = fstat(fd, &answer)
        if result != 0:
            raise OSError(errno, os.strerror(errno))
        self.device, self.inode, self.mode = answer.st_dev, answer.st_ino, answer.st_mode
        self.size = answer.st_size
        self.mtime_ns = in_ns(&answer.st_mtim)
        if (self.mode & S_IFMT) == S_IFBLK and ioctl(fd, BLKGETSIZE64, &blocks_size) == 0:
            self.size = <int64_t>blocks_size
        return answer.st_blocks == 0 and answer.st_size <= page_size

    cdef bint is_of(self, void *seen) noexcept:
        """Whether an fstat result shows the same regular file, unchanged."""
        cdef stat_t *answer = <stat_t *>seen
        return (
            self.mode & S_IFMT == S_IFREG and answer.st_dev == self.device and answer.st_ino == self.inode
            and answer.st_size == self.size and in_ns(&answer.st_mtim) == self.mtime_ns
        )

    cdef str difference(self, Identity now):
        """Describe how the file changed; empty if it did not."""
        if (self.device, self.inode) != (now.device, now.inode):
            return "it is another file now"
        if now.size != self.size:
            return f"it {'shrank' if now.size < self.size else 'grew'} from {self.size} to {now.size} bytes"
        if now.mtime_ns != self.mtime_ns:
            return "it was written to (its modification time changed)"
        return ""


def open_descriptor(Engine engine, path, int flags=0, bint first=True):
    """Open without blocking on a FIFO, then clear O_NONBLOCK (io_uring would complete reads with EAGAIN)."""
    cdef bytes name = os.fsencode(path)
    cdef const char *raw = name
    cdef int fd
    if b"\0" in name:
        raise ValueError(f"embedded null byte in the path {path!r}")
    while True:
        with nogil:
            fd = c_open(raw, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags)
        if fd >= 0 or errno != EINTR:
            break
    if fd < 0:
        raise make_error("errno", errno, os.fsdecode(name))
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK)
    return Descriptor(engine, fd, first)


cdef class OpenFile:
    """An open regular file or block device. While pinned, its identity does not change."""

    def __cinit__(self, Engine engine, str path, Descriptor plain, direct, bint pin, bint mapped):
        cdef bint maybe_synthetic
        self.engine, self.path, self.plain, self.pin = engine, path, plain, pin
        maybe_synthetic = self.identify()
        self.refuse_unseekable()
        if maybe_synthetic and is_made_up(self.plain.fd):
            self.synthetic = True
        elif self.may_misreport_size():
            self.synthetic = self.has_bytes_past_size()
        self.border = 1
        self.prompt = -1
        self.checked_ns = coarse_clock_ns()
        self.start_direct(direct)
        self.may_map = mapped and pin and not self.synthetic and self.straight is None and self.identity.mode & S_IFMT == S_IFREG

    cdef bint identify(self) except -1:
        """Record the file's identity. Return whether its content may be generated on reading."""
        self.identity = Identity()
        try:
            return self.identity.read(self.plain.fd)
        except OSError as error:
            raise make_error("errno", error.errno, self.path)

    def refuse_unseekable(self):
        cdef uint64_t kind = self.identity.mode & S_IFMT
        if kind == S_IFDIR:
            raise make_error("errno", EISDIR, self.path)
        if kind != S_IFREG and kind != S_IFBLK:
            raise make_error(
                "unsupported", 0, self.path, detail="not a regular file: a FIFO, socket or character device has no offsets to read at"
            )

    cdef bint may_misreport_size(self) noexcept:
        """Whether st_size may be less than there is to read. On a block-device file system the kernel itself ends reads at
        st_size. Others, such as FUSE and 9p, may pass reads on to a server that returns more. Size 0 may mean that the
        size is unknown.
        """
        return self.identity.mode & S_IFMT == S_IFREG and (self.identity.size == 0 or major(self.identity.device) == 0)

    cdef bint has_bytes_past_size(self) except -1:
        """Whether there are bytes past the size that fstat reports and the file has not just grown. Its size then means nothing."""
        cdef char byte
        cdef int64_t end
        cdef ssize_t got
        while True:
            end = self.identity.size
            with nogil:
                got = pread(self.plain.fd, &byte, 1, end)
            if got <= 0:
                return False  # an error here recurs, and is reported, when the file is read
            self.identify()
            if self.identity.size <= end:
                return True

    cdef int start_direct(self, object wanted) except -1:
        """Open the O_DIRECT descriptor if requested and supported. `direct_reason` says what was decided and why."""
        cdef uint8_t[256] answer
        cdef uint32_t *fields = <uint32_t *>answer
        memset(answer, 0, sizeof(answer))
        self.alignment = self.memory_alignment = 0 if self.synthetic else PAGE
        if rangeio_statx(self.plain.fd, answer) == 0:
            self.attributes = (<uint64_t *>answer)[7]  # stx_attributes_mask
            if fields[0] & 0x2000:
                self.alignment = max(fields[38], fields[39])  # stx_dio_mem_align, stx_dio_offset_align
                self.memory_alignment = fields[38]
                self.may_bypass = wanted == "auto" and 0 < self.alignment <= PAGE and not self.synthetic
        if wanted is not True:
            self.direct_reason = "not requested" if wanted is False else "auto: through the page cache"
            if self.may_bypass:
                self.direct_reason += f", except for one read of at least {bypass_from} bytes that is not cached"
            return 0
        if self.alignment == 0 or self.alignment > PAGE or self.synthetic:
            self.direct_reason = "requested, but statx(2) reports no direct I/O for this file; reading through the page cache"
            return 0
        try:
            self.straight = self.reopen(self.plain, O_DIRECT)
        except OSError as error:
            self.alignment = 0
            self.direct_reason = f"requested, but the file system refused O_DIRECT ({error.strerror}); reading through the page cache"
            return 0
        self.border = self.alignment
        self.direct_reason = f"requested; offsets and lengths are aligned to {self.alignment} bytes"
        return 0

    def reopen(self, Descriptor plain, int flags):
        """Open a second file description of the same inode, even if the file was renamed or deleted. OSError if this one may
        not be read."""
        cdef int mode = fcntl(plain.fd, F_GETFL)
        if mode & O_ACCMODE == O_WRONLY or mode & O_PATH:
            raise OSError(EBADF, os.strerror(EBADF))
        return open_descriptor(self.engine, f"/proc/self/fd/{plain.fd}", flags, first=False)

    cdef Descriptor held(self):
        """The descriptor, which stays open while the caller holds it. The "closed" error after close()."""
        if self.plain is None:
            raise make_error("closed", 0, self.path, detail="the reader was closed; open it again")
        return self.plain

    cdef int64_t trusted_size(self, Descriptor plain, object start, object want) except -2:
        """The size to plan a read with: up to a second old if the read is small and ends before it,
        else the current size."""
        if self.pin and not self.synthetic and want is not None and <int64_t>want <= SMALL:
            if <int64_t>start <= self.identity.size - <int64_t>want and coarse_clock_ns() - self.checked_ns < CHECK_EVERY_NS:
                return self.identity.size
        return self.verify(plain, start, want)

    cdef int64_t verify(self, Descriptor plain, object offset, object limit) except -2:
        """Check the file's identity, and raise if a pinned file has changed. Return the current size, or 2**63 - 1 if unknown."""
        cdef Identity now
        cdef stat_t answer
        cdef str difference
        if self.look(plain, &answer) == 0 and not self.synthetic and self.identity.is_of(&answer):
            self.checked_ns = coarse_clock_ns()
            return self.identity.size
        now = Identity()
        try:
            now.read(plain.fd)
        except OSError as error:
            raise make_error("errno", error.errno, self.path, offset, limit)
        if self.synthetic:
            return 0x7FFFFFFFFFFFFFFF
        if self.pin:
            difference = self.identity.difference(now)
            if difference:
                self.checked_ns = 0  # the last check counts as expired: every later read checks again, and fails
                raise make_error("changed", 0, self.path, offset, limit, difference)
        self.identity = now
        self.residency = None  # it may be longer, or, below an overlay, another file
        self.checked_ns = coarse_clock_ns()
        return now.size

    cdef int look(self, Descriptor plain, void *answer):
        """Call fstat; with the GIL held where it cannot block, because a release costs 5 ms next to a busy thread."""
        cdef stat_t *place = <stat_t *>answer
        cdef int result
        if self.prompt < 0:
            self.prompt = has_prompt_fstat(plain.fd)
        if self.prompt:
            return fstat(plain.fd, place)
        with nogil:
            result = fstat(plain.fd, place)
        return result

    cdef int came_short(self, Descriptor plain, int64_t start, int64_t want, int64_t got) except -1:
        """Raise the "eof" error if the file still reports more bytes than the read returned."""
        cdef int64_t size = self.verify(plain, start, want)
        if not self.synthetic and got < want and start + got < size:
            raise make_error(
                "eof", 0, self.path, start, want, f"the file system reports {size} bytes but returned only {got} from there"
            )
        return 0

    cdef int how(self, Descriptor plain) noexcept:
        """How the file is read: what of `filesystems` its file system can do. It is asked once."""
        if self.way == UNASKED:
            self.way = way_of(plain.fd, self.identity.device, self.attributes)
        return self.way

    cdef Residency known(self, Descriptor plain):
        """What says which of it is in the page cache, where no read does (LOCAL)."""
        cdef Residency residency = self.residency
        if residency is None:
            residency = Residency(plain.fd, self.identity.size)
            if self.plain is not None:  # else it was closed meanwhile, and would stay mapped
                self.residency = residency
        return residency

    cdef bint has_cached(self, Descriptor plain, int64_t start, int64_t length) except -1:
        cdef Residency residency = self.known(plain)
        return is_cached(&residency.cached, start, length)

    cdef Descriptor bypass(self, Descriptor plain, int64_t start, int64_t length):
        """The O_DIRECT descriptor for one long read under ``direct="auto"``; None if it goes through the page cache.

        A read as long as a good part of memory evicts what others have cached, and is slower through the page cache. Where
        some of it is cached, the page cache is faster.
        """
        cdef double share
        if not self.may_bypass or length < bypass_from or self.how(plain) != TOLD:
            return None
        with nogil:
            share = cached_share(plain.fd, start, length)
        if share > MOST_CACHED:
            return None
        if self.bypassing is None:
            try:
                self.bypassing = self.reopen(plain, O_DIRECT)
            except OSError:
                self.may_bypass = False
        return self.bypassing

    cdef Descriptor source(self, Descriptor plain, Py_ssize_t count):
        """The descriptor to read with: O_DIRECT, without read-ahead, or plain.

        Another thread may close the file whenever the GIL is released, here or earlier; the caller's `plain` stays open.
        """
        cdef Descriptor scattered
        if self.straight is not None:
            return self.straight
        if count < SCATTERED:
            return plain
        if self.scattered is not None:
            return self.scattered
        if self.plain is not None:
            # For threads that get here while this one is being opened. A second one would have to be closed again, and closing any
            # descriptor of the file drops all locks that the process holds on it (fcntl(2)).
            self.scattered = plain
        try:
            scattered = self.reopen(plain, 0)
            posix_fadvise(scattered.fd, 0, 0, POSIX_FADV_RANDOM)
        except OSError:
            scattered = plain  # /proc is not mounted, or the file may not be reopened: read-ahead just stays on
        if self.plain is not None:
            self.scattered = scattered
        return scattered

    cdef Mapping hot_mapping(self, Descriptor plain):
        """What hot reads may be copied out of; None where the file is not to be mapped."""
        if self.mapping is None and self.may_map and self.plain is not None:
            self.mapping = mapping_of(plain.fd, self.identity.size)
            self.may_map = self.mapping is not None
        return self.mapping

    cdef void drop(self) noexcept:
        """Drop the descriptors. Reads in flight hold them until they complete."""
        if self.plain is not None:
            self.plain.closed = True
        self.plain = self.scattered = self.straight = self.bypassing = self.mapping = None
        self.residency = None
        self.engine.release_hints()
