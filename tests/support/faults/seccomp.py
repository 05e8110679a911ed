"""A seccomp filter for the calling process, by ctypes alone: chosen system calls fail with a chosen errno.

seccomp(2), seccomp_unotify(2), bpf of linux/filter.h. No privilege is needed (no_new_privs is set), every thread of
the process gets the filter at once (TSYNC), children inherit it, and it cannot be taken off again.
"""

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

X86 = {
    "openat": 257,
    "pread64": 17,
    "preadv2": 327,
    "preadv": 295,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
}
ARM = {
    "openat": 56,
    "pread64": 67,
    "preadv2": 286,
    "preadv": 69,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
}
ARCH, SECCOMP, CALLS = {
    "x86_64": (0xC000003E, 317, X86),
    "aarch64": (0xC00000B7, 277, ARM),
}.get(platform.machine(), (0, 0, {}))
CALLS = {**CALLS, "io_uring_register": 427}

SET_MODE_FILTER, FLAG_TSYNC, FLAG_NEW_LISTENER, FLAG_TSYNC_ESRCH = 1, 1, 8, 16
PR_SET_NO_NEW_PRIVS = 38
ERRNO, USER_NOTIF, ALLOW = 0x00050000, 0x7FC00000, 0x7FFF0000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NR_AT, ARCH_AT, ARGS_AT = 0, 4, 16  # offsets in struct seccomp_data
FLAGS_ARG = 2  # openat
OFFSET_ARG = 3  # pread64 and preadv2 alike: the low half of the file offset


@dataclass(frozen=True)
class Rule:
    """`call` fails with `errno` (0: asks the listener; None: returns 0), if its file offset lies in [start, stop), and
    for openat if one of `flags` is given.
    """

    call: str
    errno: int | None
    start: int = 0
    stop: int = 1 << 32
    flags: int = 0


def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One struct sock_filter; yes and no: steps to jump over."""
    return struct.pack("=HBBI", code, yes, no, value)


def assemble(rules: list[Rule]) -> bytes:
    program = step(LOAD, ARCH_AT) + step(JUMP_EQUAL, ARCH, 1, 0) + step(RETURN, ALLOW)
    for rule in rules:
        # An errno of 0 is a result of 0: the call is not made, and does not fail.
        verdict = step(RETURN, USER_NOTIF if rule.errno == 0 else ERRNO | (rule.errno or 0))
        if (rule.start, rule.stop) != (0, 1 << 32):
            inside = step(JUMP_AT_LEAST, rule.start, 0, 2) + step(JUMP_AT_LEAST, rule.stop, 1, 0)
            verdict = step(LOAD, ARGS_AT + 8 * OFFSET_ARG) + inside + verdict
        if rule.flags:
            verdict = step(LOAD, ARGS_AT + 8 * FLAGS_ARG) + step(JUMP_ANY_BIT, rule.flags, 0, 1) + verdict
        program += step(LOAD, NR_AT) + step(JUMP_EQUAL, CALLS[rule.call], 0, len(verdict) // 8) + verdict
    return program + step(RETURN, ALLOW)


def install(rules: list[Rule], *, listen: bool = False) -> int:
    """Put the filter on every thread of this process. With `listen`: the descriptor that hears of the calls."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = assemble(rules)
    steps = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    flags = FLAG_TSYNC | (FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH if listen else 0)
    result = libc.syscall(SECCOMP, SET_MODE_FILTER, flags, fprog)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return int(result)


def refuse(errno: int, *calls: str, start: int = 0, stop: int = 1 << 32, flags: int = 0) -> None:
    """The calls fail from now on (reads: those at offsets in [start, stop); openat: those with one of these flags)."""
    install([Rule(call, errno, start, stop, flags) for call in calls])


def answer_nothing(*calls: str, start: int = 0, stop: int = 1 << 32) -> None:
    """Reads at offsets in [start, stop) return 0 from now on, without being made."""
    install([Rule(call, None, start, stop) for call in calls])
