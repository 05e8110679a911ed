"""The reactor: chooses ring or worker pool once, and opens files."""

import os

from libc.stdint cimport int64_t

from _uring.file cimport File
from _uring.read_files cimport Visits
from _uring.liburing cimport Library
from _uring.mapping cimport mapping_stats
from _uring.memory cimport Buffer, Memory
from _uring.open_file cimport Descriptor
from _uring.steady cimport SteadyReads

from _uring.arenas import default_pool_bytes
from _uring.liburing import find
from _uring.open_file import open_descriptor
from _uring.errors import make_error
from _uring.records import Backend


cdef class Reactor:
    def __init__(self, *, int entries=256, pool_bytes=None, str backend="auto", int workers=8):
        cdef Library library = None
        if backend not in ("auto", "uring", "pool"):
            raise ValueError(f"backend must be 'auto', 'uring', 'pool' or 'python', not {backend!r}")
        if entries < 1 or entries > 32768:
            raise ValueError(f"entries must be 1 to 32768 (io_uring_setup(2)), not {entries}")
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if pool_bytes is not None and pool_bytes < 0:
            raise ValueError(f"pool_bytes must not be negative, got {pool_bytes}")
        if backend == "pool":
            self.tried = ()
        else:
            library, self.tried = find()
        if backend == "uring" and library is None:
            raise make_error("unsupported", 0, "", detail=f"backend 'uring' was requested but is not available: {self.refusals()}")
        self.engine = Engine(
            Memory(default_pool_bytes() if pool_bytes is None else pool_bytes), library, entries, workers, backend == "uring"
        )

    def refusals(self):
        return "; ".join(f"{path or 'liburing'}: {why}" for path, why in self.tried if why != "works")

    @property
    def backend(self):
        cdef Library library = self.engine.library
        if library is None:
            return Backend("pool", f"no ring: {self.refusals()}" if self.tried else "requested", "", self.tried)
        if self.engine.refusal and not self.engine.has_ring:
            return Backend(
                "pool", f"the ring was refused after it passed its self-test: {self.engine.refusal}", library.path, self.tried
            )
        kind = "cooperative completions (5.19)" if library.batch_flags else "plain completions"
        return Backend("uring", f"liburing works on this kernel; {kind}", library.path, self.tried)

    def open(self, path, *, direct="auto", bint pin=True, bint mapped=True):
        self.check()
        name = os.fsdecode(path)
        return File(self.engine, name, open_descriptor(self.engine, path), direct, pin, mapped)

    def from_fd(self, int fd, *, bint closefd=False, direct="auto", bint pin=True, bint mapped=True, str path=""):
        cdef Descriptor descriptor
        cdef File file
        path = path or f"<fd {fd}>"
        self.check()
        try:
            # Duplicate the descriptor: the caller may close it, and its number be reused, during a read. Not if it is taken over:
            # closing any descriptor of a file drops all locks that the process holds on it (fcntl(2)).
            descriptor = Descriptor(self.engine, fd if closefd else os.dup(fd))
        except OSError as error:
            raise make_error("errno", error.errno, path)
        descriptor.owned = not closefd
        descriptor.touched = True  # its flags are shared with the caller: do not set O_NOATIME
        file = File(self.engine, path, descriptor, direct, pin, mapped)
        descriptor.owned = True  # only now: if the call raises, the caller keeps the descriptor, as with io.FileIO
        return file

    def read_files(self, jobs, *, bint pin=True):
        cdef Visits visits
        cdef list results
        self.check()
        jobs = list(jobs)
        visits = Visits(self.engine, jobs, pin)
        results = visits.run()
        for i, result in enumerate(results):
            if result is None:
                results[i] = self.read_unusual(*jobs[i], pin)
        return results

    def read_unusual(self, path, start, stop, bint pin):
        """Read a file that is empty, has generated content, or is not regular."""
        try:
            file = self.open(path, pin=pin)
            try:
                return file.read_at(start, max(0, (0x7FFFFFFFFFFFFFFF if stop is None else stop) - start))
            finally:
                file.close()
        except Exception as error:
            return error

    def allocate(self, shape):
        cdef Buffer buffer
        count, length = shape if isinstance(shape, tuple) else (1, shape)
        if count < 0 or length < 0:
            raise ValueError(f"a Buffer cannot have a negative size, got {shape}")
        buffer = self.engine.memory.allocate(count * length)
        if isinstance(shape, tuple):
            buffer.tabulate(count, length)
        buffer.unfinished = True
        return buffer

    def writable(self, Buffer buffer not None):
        return buffer.offer()

    def steady(self, idle, request, give_back, *, most, absolute, good_s, timeout, asked, answered, measured):
        return SteadyReads(
            self.engine, idle, request, give_back, most, absolute, good_s, timeout, asked, answered, measured
        )

    def count(self, int64_t asked, int64_t fetched):
        self.engine.counters.reads += 1
        self.engine.counters.bytes_asked += asked
        self.engine.counters.bytes_fetched += fetched

    def stats(self):
        in_flight = self.engine.in_flight  # first: this also frees abandoned reads that have completed
        counters = dict(self.engine.counters)
        return counters | mapping_stats() | {
            "buffers_live": self.engine.memory.buffers_live,
            "bytes_live": self.engine.memory.bytes_live,
            "bytes_pooled": self.engine.memory.bytes_mapped - self.engine.memory.bytes_live,
            "bytes_mapped": self.engine.memory.bytes_mapped,
            "files_open": self.engine.files_open,
            "in_flight": in_flight,
        }

    def close(self):
        """Refuse to open more files, and drop this thread's ring. Open files and Buffers stay usable."""
        self.shut = True
        self.engine.forget_ring()

    def check(self):
        if self.shut:
            raise make_error("closed", 0, "", detail="the reactor was closed")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return f"<_uring.Reactor {self.backend.name}>"
