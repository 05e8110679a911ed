"""What a program run by `child.run` may use: say results, check bytes, put itself into trouble."""

import ctypes
import errno
import json
import os
import resource
import socket
import struct
import sys
import threading
from typing import Any

from .data import pattern
from .seccomp import Rule, answer_nothing, install, refuse

__all__ = [
    "answer_nothing",
    "ask_parent",
    "become_nobody",
    "describe",
    "errno",
    "leaks",
    "pattern",
    "refuse",
    "say",
    "scattered",
    "wrong",
]

PR_SET_KEEPCAPS, CAPSET, CAP_DAC_READ_SEARCH = 8, 126, 2
CAPABILITY_VERSION_3 = 0x20080522


def say(**facts: Any) -> None:
    """One line of JSON for the parent, at once."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def scattered(count: int, length: int, nbytes: int) -> list[tuple[int, int]]:
    """`count` disjoint ranges of `length` bytes all over a file of `nbytes`, in no order that a disk would like."""
    places = nbytes // length
    return [(i * 7919 % places * length, i * 7919 % places * length + length) for i in range(count)]


def wrong(buffers: list[Any], ranges: list[tuple[int, int]]) -> int:
    """How many of the buffers do not hold exactly their range of a pattern file."""
    pairs = zip(buffers, ranges, strict=True)
    return sum(bytes(buffer) != pattern(start, stop) for buffer, (start, stop) in pairs)


def describe(error: BaseException) -> dict[str, Any]:
    """What a caller can see of an error."""
    names = [kind.__name__ for kind in type(error).__mro__]
    shown = {name: getattr(error, name, None) for name in ("errno", "kind", "offset", "limit", "status")}
    path = getattr(error, "path", None)
    return {"type": names[0], "bases": names, "text": str(error), "path": path and os.fspath(path), **shown}


def leaks() -> dict[str, int]:
    """Counters of the reactor that must be 0 when nothing is held and nothing runs.

    A worker that has just handed over its result may still be on its way out, so they get some seconds to settle.
    """
    import gc

    import rangeio

    settling = threading.Event()
    for _ in range(1_000):
        gc.collect()
        stats = rangeio.stats()
        left = {name: stats[name] for name in ("buffers_live", "in_flight") if stats[name]}
        if not left:
            break
        settling.wait(0.01)
    return left


def ask_parent(*calls: str) -> None:
    """From now on the parent answers these system calls of this process (`notify.Supervisor`)."""
    wire = socket.socket(fileno=int(os.environ["RANGEIO_TEST_WIRE"]))
    listener = install([Rule(call, 0) for call in calls], listen=True)
    socket.send_fds(wire, [b"f"], [listener])
    os.close(listener)
    assert wire.recv(1) == b"k"
    wire.detach()


def become_nobody(memlock: int) -> None:
    """Another user without CAP_IPC_LOCK and with so much lockable memory; root keeps only the right to read files,
    because the interpreter may live in a folder that is root's."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    bit = 1 << CAP_DAC_READ_SEARCH
    if libc.syscall(CAPSET, header, struct.pack("=6I", bit, bit, 0, 0, 0, 0)) < 0:
        raise OSError(ctypes.get_errno(), "capset")
