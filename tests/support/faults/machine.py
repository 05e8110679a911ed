"""What this machine can do, asked of the machine itself, and what to do with a test that needs more.

RANGEIO_CI=1 says that the native core was built and the extras `test` and `test-frameworks` installed: then their
absence fails the tests instead of skipping them.
"""

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# A CPython that can run without the GIL, whether it does or not.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SUPPORT = Path(__file__).resolve().parent.parent
BACKENDS = ("uring", "pool", "python")
IO_URING_SETUP = 425


@cache
def ring_refused() -> str:
    """Why the kernel gives this process no ring; empty if it does. Asked without any code of ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = (ctypes.c_ubyte * 120)()
    fd = libc.syscall(IO_URING_SETUP, 4, ctypes.byref(params))
    if fd < 0:
        return f"io_uring_setup: {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    return ""


@cache
def backend_missing(name: str) -> str:
    """Why `name` cannot run here; empty if it can."""
    if name == "python":
        return ""
    if name == "uring" and ring_refused():
        return ring_refused()
    command = [sys.executable, "-c", "import _uring; print(_uring.extension_error())"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def need(met: object, reason: str) -> None:
    """Skip the test, with the reason, where the machine lacks something that the project cannot bring."""
    if not met:
        pytest.skip(reason)


def must_be_whole() -> bool:
    """Whether what the project itself brings has to be here."""
    return os.environ.get("RANGEIO_CI") == "1"


def need_backend(name: str) -> None:
    missing = backend_missing(name)
    if missing and must_be_whole() and missing != ring_refused():
        pytest.fail(f"backend {name} must be there: {missing}")
    need(not missing, f"backend {name}: {missing}")


def need_module(name: str, extra: str = "test") -> Any:
    """The module, which that extra brings."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if must_be_whole():
            pytest.fail(f"{error}: the extra `{extra}` must bring it")
        pytest.skip(f"{error}: pip install -e '.[{extra}]'", allow_module_level=True)


def need_root_and(*programs: str) -> None:
    need(os.geteuid() == 0, "needs root, to mount")
    for program in programs:
        need(shutil.which(program), f"needs the program {program}")


def sanitized() -> bool:
    """Whether this process runs under AddressSanitizer."""
    return hasattr(ctypes.CDLL(None), "__asan_init")


def need_allocator_across_fork() -> None:
    """AddressSanitizer locks its allocator for a fork only since LLVM 18 (llvm-project, pull request 75290); before, a
    child that is forked while another thread allocates waits for that lock for ever. The C library's is safe."""
    need(not sanitized(), "a fork amid allocations may hang AddressSanitizer")
