"""`rangeio doctor`: which backend reads here, why not a faster one, and what to do about it.

It must work even if rangeio itself does not: the checks are independent, and a failed check is a finding.
"""

import argparse
import ctypes
import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from rangeio.cli import machine
from rangeio.cli.console import error_text
from rangeio.cli.opening import add_options, options_of
from rangeio.cli.sizes import size_text

NAME = "doctor"
HELP = "show which backend reads here and why, and what to do about it"
DESCRIPTION = """\
Show how rangeio reads on this machine: kernel, extension, liburing, backend and limits; with PATH also the file system,
the device, O_DIRECT and the share of the file in the page cache; with a URI the endpoint and where credentials were
found, without showing them, and how long reads of the object take (three requests, at most 1 MiB).
Ends with a verdict and advice.

Exit code 0 if everything is in order, 1 if reads are slower than possible ("degraded") or impossible ("cannot be
read"), or if the object is not there ("not there")."""

Level = Literal["fine", "note", "degraded", "cannot be read", "not there"]

_IO_URING_SETUP = 425  # the same number on x86, Arm and every architecture added after 2019
_IO_URING_ENTER = 426
_ENOUGH_MEMLOCK = 8 << 20
_SAMPLE = 1 << 20
"""Bytes of an object that are read to see how fast it comes."""
_SLOW_S, _SLOW_RATE = 0.3, 1_000_000
_MARKS: dict[Level, str] = {
    "fine": " ",
    "note": "-",
    "degraded": "!",
    "cannot be read": "!",
    "not there": "!",
}
# Levels that are a verdict, the worst first.
_WORST: tuple[Level, ...] = ("not there", "cannot be read", "degraded")


@dataclass(frozen=True)
class Finding:
    """One fact, its severity, and advice."""

    topic: str
    text: str
    level: Level = "fine"
    advice: str = ""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument(
        "path", metavar="PATH", nargs="?", help="also check this file or folder, or the service of this URI"
    )
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code, 1 if reads are slower than possible, or impossible."""
    options = options_of(arguments)
    place = _place(arguments.path, options) if arguments.path else []
    findings = [*_system(), *_core(), *_limits(), *place]
    worst = [finding for level in _WORST for finding in findings if finding.level == level]
    read = next(
        (finding.text for finding in findings if finding.topic == "reads"), "io_uring reads, nothing to do"
    )
    verdict = f"{worst[0].level}: {worst[0].text}" if worst else f"fine: {read}"
    if arguments.json:
        print(
            json.dumps({"verdict": verdict, "findings": [asdict(finding) for finding in findings]}, indent=1)
        )
        return 1 if worst else 0
    for finding in findings:
        print(f"{_MARKS[finding.level]} {finding.topic:<14} {finding.text}")
    print(f"\n{verdict}")
    for finding in findings:
        if finding.advice:
            print(f"  -> {finding.advice}")
    return 1 if worst else 0


def _system() -> list[Finding]:
    facts = machine.machine()
    return [
        Finding("system", f"{facts.kernel}, {facts.system}, {facts.python}"),
        Finding(
            "processor", f"{facts.cpus} CPUs usable, {facts.processor}, {size_text(facts.memory)} of memory"
        ),
    ]


def _core() -> list[Finding]:
    """The extension, each liburing that was tried, the backend, and whether the kernel allows io_uring."""
    import _uring

    problem = _uring.extension_error()
    findings = [_extension(problem)]
    try:
        import rangeio

        backend = rangeio.backend()
    except Exception as error:  # for instance, a forced backend that is not available
        return [*findings, _kernel_ring(), Finding("backend", f"none: {error}", "degraded", _forced())]
    for library, outcome in backend.tried:
        findings.append(Finding("liburing", f"{library}: {outcome}"))
    if backend.name == "uring":
        return [*findings, Finding("backend", f"uring: {backend.reason}")]
    text = f"{backend.name} instead of uring: {backend.reason}"
    ring = _kernel_ring()
    advice = _forced() or (
        "" if problem or ring.advice else "install pyuring==0.3.0 or the system's liburing.so.2"
    )
    return [*findings, ring, Finding("backend", text, "degraded", advice)]


def _extension(problem: str) -> Finding:
    if not problem:
        return Finding("extension", "built")
    if "GIL" in problem:
        return Finding("extension", f"not used: {problem}", "degraded")
    return Finding(
        "extension",
        f"not there: {problem}",
        "degraded",
        "install gcc and the Python headers, then reinstall rangeio so that its extension is built",
    )


def _forced() -> str:
    forced = os.environ.get("RANGEIO_BACKEND", "")
    return (
        f"unset RANGEIO_BACKEND (now {forced!r}) to let rangeio choose" if forced not in ("", "auto") else ""
    )


def _kernel_ring() -> Finding:
    """Create and enter a ring with system calls, without a library, and explain a refusal."""
    if platform.system() != "Linux":
        return Finding("io_uring", f"not on {platform.system()}", "note")
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)  # struct io_uring_params, all zero
    call = "io_uring_setup"
    fd = libc.syscall(_IO_URING_SETUP, 1, params)
    refused = fd < 0
    if not refused:
        call = "io_uring_enter"
        refused = libc.syscall(_IO_URING_ENTER, fd, 0, 0, 0, None, 0) < 0
    number = ctypes.get_errno()
    if fd >= 0:
        os.close(fd)
    if not refused:
        return Finding("io_uring", "allowed by the kernel")
    text, advice = _refusal(number)
    return Finding("io_uring", f"{call}: {errno.errorcode.get(number, number)}: {text}", "note", advice)


def _refusal(number: int) -> tuple[str, str]:
    disabled = machine.read_text("/proc/sys/kernel/io_uring_disabled")
    if number == errno.EPERM and disabled == "2":
        return "disabled for all processes", "sysctl kernel.io_uring_disabled=0, as root on the host"
    if number == errno.EPERM and disabled == "1":
        group = machine.read_text("/proc/sys/kernel/io_uring_group")
        return "allowed for one group and root only", (
            f"join the group of kernel.io_uring_group (now {group}), or sysctl kernel.io_uring_disabled=0 as root"
        )
    if number in (errno.EPERM, errno.ENOSYS) and _has_seccomp_filter():
        return "a seccomp filter refuses it, which is the default of container runtimes", (
            "run the container with a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
            " (docker run --security-opt seccomp=PROFILE.json)"
        )
    if number == errno.ENOSYS:
        return "this kernel does not support it", "use Linux 5.11 or newer, built with CONFIG_IO_URING"
    if number == errno.ENOMEM:
        return (
            "the limit of locked memory is too low",
            "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= in systemd)",
        )
    return os.strerror(number), ""


def _has_seccomp_filter() -> bool:
    return any(line.split()[-1] == "2" for line in _status("Seccomp:"))


def _status(name: str) -> list[str]:
    return [line for line in machine.read_text("/proc/self/status").splitlines() if line.startswith(name)]


def _limits() -> list[Finding]:
    memlock, pages = machine.memlock(), machine.huge_pages()
    enough = memlock is None or memlock >= _ENOUGH_MEMLOCK
    findings = [
        Finding(
            "memlock",
            "unlimited" if memlock is None else size_text(memlock),
            "fine" if enough else "note",
            ""
            if enough
            else "raise RLIMIT_MEMLOCK to 64 MiB: registered buffers save a sixth of the CPU of O_DIRECT",
        )
    ]
    if pages == "never":
        advice = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: large O_DIRECT reads gain 40 %"
        return [*findings, Finding("huge pages", "never", "note", advice)]
    return [*findings, Finding("huge pages", pages or "unknown")]


def _place(text: str, options: dict[str, Any]) -> list[Finding]:
    if "://" not in text:
        return _path(Path(text))
    from rangeio.operator import Operator
    from rangeio.services.registry import located

    scheme, own, path = located(text)
    if scheme == "fs":
        return _path(Path(path))
    return [*_service(Operator(scheme, **own, **options), path)]


def _service(operator: Any, path: str) -> Iterator[Finding]:
    """What a service found, and whether an object of it can be read."""
    from rangeio.errors import Error, NotFoundError

    yield Finding("service", operator.scheme)
    try:
        yield from (Finding(topic, text) for topic, text in operator.diagnosis())
        if path:
            stat = operator.stat(path)
            size = "an unknown number of bytes" if stat.size is None else size_text(stat.size)
            yield Finding("object", f"{size}, pin {stat.pin or 'none'}")
            if stat.size:
                yield _timed(operator, path, min(stat.size, _SAMPLE))
    except NotFoundError as error:
        yield Finding("object", error_text(error), "not there")
    except Error as error:
        yield Finding("access", error_text(error), "cannot be read")


def _timed(operator: Any, path: str, count: int) -> Finding:
    """How long reads take: the first byte of a new connection, then of the next request, then many bytes."""
    with operator.open(path) as reader:
        times = [time.monotonic()]
        for length in (1, 1, count):
            reader.read_at(0, length)
            times.append(time.monotonic())
    first, again, many = (after - before for before, after in pairwise(times))
    rate = size_text(count / many) + "/s" if many else "at once"
    text = (
        f"can be read: the first byte after {first * 1e3:.1f} ms, of the next request {again * 1e3:.1f} ms, "
    )
    text += f"{size_text(count)} in {many * 1e3:.1f} ms ({rate})"
    if again < _SLOW_S and (count < _SAMPLE or count / many > _SLOW_RATE):
        return Finding("reads", text)
    advice = (
        "the server or the way to it is slow: read many ranges in one call, and see docs/performance.md; "
        "rangeio.on_event(print) shows each request with its time"
    )
    return Finding("reads", text, "note", advice)


def _path(path: Path) -> list[Finding]:
    where = machine.place(path)
    findings = [Finding("file system", f"{where.file_system} ({where.options})")]
    if where.device:
        text = f"{where.device} {where.model}, {size_text(where.bytes)}, read-ahead {size_text(where.read_ahead)}"
        findings.append(Finding("device", text))
    else:
        findings.append(Finding("device", "none of its own (memory, network or layered file system)"))
    return [*findings, *_file(path)] if path.is_file() else findings


def _file(path: Path) -> list[Finding]:
    import _uring

    file: Any = _uring.default_reactor().open(str(path), direct=True)
    try:
        align, reason, direct = file.alignment, file.direct_reason, file.direct
        share = machine.resident_share(file.fileno())
    finally:
        file.close()
    return [
        Finding("O_DIRECT", f"aligned to {align:,} bytes; {reason}" if direct else f"not here: {reason}"),
        Finding(
            "page cache", "unknown" if share is None else f"{share:.0%} of {size_text(path.stat().st_size)}"
        ),
    ]
