"""liburing, loaded at run time: the copy in our own wheel, pyuring's, the system's, or none. The result of each try is recorded.

Nothing is linked: the build needs no header or library beyond libc, and the core can be imported on a machine
without liburing (the reactor then reads with worker threads). A candidate is accepted only if all its symbols resolve
and a NOP completes on a ring made with it. The kernel may lack io_uring (ENOSYS), a seccomp filter may refuse it
(EPERM), and the layout of `struct io_uring` is stable only by convention.
"""

import importlib.util
import os
import sys

from libc.errno cimport EINVAL, ENOMEM, ENOSYS, EPERM
from libc.string cimport memset, strerror
from posix.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlclose, dlerror, dlopen, dlsym


cdef class Library:
    @staticmethod
    cdef Library open(str path):
        """Load and test one candidate. OSError says what it lacks, or what the kernel returned."""
        cdef Library library = Library.__new__(Library)
        library.path = path
        # RTLD_LOCAL: another liburing of the process must neither see these symbols nor replace them.
        library.handle = dlopen(os.fsencode(path), RTLD_NOW | RTLD_LOCAL)
        if library.handle == NULL:
            raise OSError((<bytes>dlerror()).decode(errors="replace"))
        library.resolve()
        library.prove()
        return library

    def __dealloc__(self):
        if self.handle != NULL:
            dlclose(self.handle)

    cdef void *symbol(self, bytes name) except NULL:
        cdef void *found = dlsym(self.handle, name)
        if found == NULL:
            raise OSError(f"has no symbol {name.decode()}")
        return found

    cdef int resolve(self) except -1:
        cdef abi_functions *call = &self.call
        (<void **>&call.queue_init_params)[0] = self.symbol(b"io_uring_queue_init_params")
        (<void **>&call.queue_exit)[0] = self.symbol(b"io_uring_queue_exit")
        (<void **>&call.submit)[0] = self.symbol(b"io_uring_submit")
        (<void **>&call.submit_and_wait_timeout)[0] = self.symbol(b"io_uring_submit_and_wait_timeout")
        (<void **>&call.ring_dontfork)[0] = self.symbol(b"io_uring_ring_dontfork")
        (<void **>&call.register_files)[0] = self.symbol(b"io_uring_register_files")
        (<void **>&call.register_files_update)[0] = self.symbol(b"io_uring_register_files_update")
        (<void **>&call.register_buffers)[0] = self.symbol(b"io_uring_register_buffers")
        (<void **>&call.unregister_buffers)[0] = self.symbol(b"io_uring_unregister_buffers")
        return 0

    cdef int prove(self) except -1:
        """Run a NOP on a ring of each kind, without setup flags that this kernel does not support."""
        cdef uint32_t single = ABI_SETUP_SINGLE_ISSUER
        # Not DEFER_TASKRUN (6.1), though it saves a twelfth of the CPU time: with it, a ring whose fd an event loop polls loses
        # wake-ups, and a ring that is refused later could not deliver the completions of requests it has taken.
        self.batch_flags = self.first_accepted([single | ABI_SETUP_COOP_TASKRUN, ABI_SETUP_COOP_TASKRUN, 0])
        self.loop_flags = self.first_accepted([ABI_SETUP_COOP_TASKRUN, 0])
        return 0

    cdef uint32_t first_accepted(self, list choices) except? 0xffffffff:
        cdef int result = 0
        cdef uint32_t flags
        for flags in choices:
            result = self.try_nop(flags)
            if result == 0:
                return flags
            if result != -EINVAL:
                break
        raise OSError(-result, explain(-result, self.refused_call))

    cdef int try_nop(self, uint32_t flags):
        """0, or a negative errno of the call that `refused_call` names."""
        cdef abi_ring ring
        cdef abi_params params
        cdef abi_cqe *cqe = NULL
        cdef abi_sqe *sqe
        cdef abi_timespec timeout
        cdef int result
        memset(&ring, 0, sizeof(ring))
        memset(&params, 0, sizeof(params))
        params.flags = flags
        self.refused_call = "io_uring_setup"
        result = self.call.queue_init_params(4, &ring, &params)
        if result < 0:
            return result
        self.features = params.features
        if not (params.features & ABI_FEAT_EXT_ARG):
            result = -ENOSYS  # before 5.11 a timed wait costs a submission entry: the worker pool is better
        else:
            timeout.tv_sec, timeout.tv_nsec = 5, 0
            sqe = abi_get_sqe(&ring)
            sqe.opcode = ABI_OP_NOP
            sqe.user_data = 0x5241
            self.refused_call = "io_uring_enter"
            result = self.call.submit_and_wait_timeout(&ring, &cqe, 1, &timeout, NULL)
            if result >= 0:
                result = 0 if cqe != NULL and cqe.user_data == 0x5241 and cqe.res == 0 else -ENOSYS
        self.call.queue_exit(&ring)
        return result


cdef str explain(int errno, str call):
    """Explain why a system call was refused and how to fix it (tigerbeetle#2246: distinguishes EPERM and ENOSYS)."""
    cdef str sysctl = "Either the sysctl kernel.io_uring_disabled is not 0, or a" if call == "io_uring_setup" else "A"
    if errno == EPERM:
        return (
            f"{call}: not permitted. {sysctl} seccomp filter forbids it (Docker's default does): use --security-opt"
            " seccomp=<profile that allows io_uring>"
        )
    if errno == ENOSYS:
        return f"{call}: this kernel (or its sandbox, such as gVisor) has no usable io_uring; Linux 5.11 or newer is needed"
    if errno == ENOMEM:
        return f"{call}: the limit of locked memory is reached; raise RLIMIT_MEMLOCK (ulimit -l)"
    return f"{call}: {strerror(errno).decode()}"


def candidates():
    """Yield the paths to try, in order. If RANGEIO_LIBURING is set, it is the only one."""
    forced = os.environ.get("RANGEIO_LIBURING")
    if forced:
        yield forced
        return
    own = os.path.join(os.path.dirname(__file__), "liburing.so.2")  # `make wheels` puts one there
    if os.path.exists(own):
        yield own
    # find_spec does not import pyuring: none of its code runs. Only its shared library is used.
    try:
        spec = importlib.util.find_spec("pyuring")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for name in ("liburingwrap.so", "liburing.so.2"):
                path = os.path.join(folder, "lib", name)
                if os.path.exists(path):
                    yield path
    yield "liburing.so.2"


def find():
    """Return (Library or None, ((path, outcome), ...)): the first candidate that works, and all that were tried."""
    if sys.platform != "linux":
        return None, (("", f"io_uring is Linux only; this is {sys.platform}"),)
    tried = []
    for path in candidates():
        try:
            library = Library.open(path)
        except OSError as error:
            tried.append((path, error.strerror or str(error)))
        else:
            tried.append((path, "works"))
            return library, tuple(tried)
    return None, tuple(tried)
