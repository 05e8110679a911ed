"""Permissions that hold, though the tests may run as root."""

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from typing import Any

CAPABILITY_VERSION_3 = 0x20080522


def without_privileges(call: Callable[[], Any]) -> Any:
    """What `call` returns or raises in a thread without capabilities: they are a thread's own (capabilities(7))."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            if os.geteuid() == 0:
                _drop_capabilities()
            outcome[:] = [call(), None]
        except BaseException as error:
            outcome[:] = [None, error]

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = outcome
    if error is not None:
        raise error
    return result


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), struct.pack("=6I", *[0] * 6)) < 0:
        raise OSError(ctypes.get_errno(), "capset")
