"""Reading at an offset on Windows, whose C library has no pread: `ReadFile` with an OVERLAPPED structure.

Imported only there. For a handle that was opened for synchronous I/O, as those of `os.open` are, ReadFile reads at the
offset in the structure, returns when it has read, and any number of threads may call it; seek and read would need a
lock for all of them. Source: "ReadFile function" and "Synchronous and Asynchronous I/O" in the Windows documentation.
"""

import ctypes
import msvcrt
from typing import Any

_HANDLE_EOF = 38  # ERROR_HANDLE_EOF, winerror.h
_MAX = 0x7FFF0000  # the length is a DWORD


class _Overlapped(ctypes.Structure):
    """OVERLAPPED, minwinbase.h."""

    _fields_ = [
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", ctypes.c_uint32),
        ("offset_high", ctypes.c_uint32),
        ("event", ctypes.c_void_p),
    ]


def _bound() -> Any:
    function = ctypes.WinDLL("kernel32", use_last_error=True).ReadFile  # type: ignore[attr-defined, unused-ignore]
    function.restype = ctypes.c_int
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.POINTER(ctypes.c_uint32),
        ctypes.POINTER(_Overlapped),
    ]
    return function


_read_file = _bound()


def read_file(fd: int, limit: int, offset: int) -> bytes:
    """At most `limit` bytes from `offset`; none at the end of the file. OSError as Windows reports it."""
    handle: int = msvcrt.get_osfhandle(fd)  # type: ignore[attr-defined, unused-ignore]
    memory = bytearray(min(limit, _MAX))
    target = (ctypes.c_char * len(memory)).from_buffer(memory)
    got = ctypes.c_uint32()
    where = _Overlapped(offset=offset & 0xFFFFFFFF, offset_high=offset >> 32)
    done = _read_file(handle, target, len(memory), ctypes.byref(got), ctypes.byref(where))
    del target  # its export keeps the memory from being cut
    if not done:
        error: int = ctypes.get_last_error()  # type: ignore[attr-defined, unused-ignore]
        if error == _HANDLE_EOF:
            return b""
        raise ctypes.WinError(error)  # type: ignore[attr-defined, unused-ignore]
    return bytes(memory[: got.value])
