"""Resident memory of reads: each contender runs in a separate process, so that heaps do not mix.

`python -m rangeio_bench.memory MODULE:CONTENDER FILE URL CA_FILE DEPTH BYTES READS SECONDS` is that process; it prints
one line of JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from rangeio.cli.machine import read_text
from rangeio_bench.baselines import Memmap, Pread, Preadv
from rangeio_bench.cases import Target
from rangeio_bench.contender import Contender, Scratch, Setting
from rangeio_bench.ours import Rangeio
from rangeio_bench.peers import Arrow, Obstore, OpenDAL
from rangeio_bench.results import MemoryRow, Spread, Verdict
from rangeio_bench.work import Work, random_records, whole_file

KINDS: tuple[type[Contender], ...] = (Rangeio, Preadv, Pread, Memmap, Obstore, OpenDAL, Arrow)
TARGETS = (
    # A process that leaks one byte for each read would be at 1 MB; allocators move by some pages.
    Target("growth", 512 << 10),
    Target("memory", 1.02),
)
_BETWEEN_LOOKS = 1000
"""Small reads between two checks of the memory."""


def measure(
    kinds: Sequence[type[Contender]],
    setting: Setting,
    size: int,
    reads: int,
    seconds: float,
    progress: Callable[[float, str], None],
) -> list[MemoryRow]:
    """Run every contender in a child process; the last line of a failed one is the reason.

    Slow contenders do as many of the small `reads` as fit into `seconds`; rangeio does them all.
    """
    rows = []
    kinds = [kind for kind in kinds if not kind.absence()]
    where = (setting.path, setting.url, setting.ca_file, setting.depth)
    for number, kind in enumerate(kinds):
        progress(number / len(kinds), f"Resident memory: {kind.name}")
        call = kind.calls.get("whole") or kind.calls["each"]
        row = MemoryRow(kind.name, call, kind.role, kind.version(), size)
        asked = (f"{kind.__module__}:{kind.__name__}", *where, size, reads, seconds)
        command = [sys.executable, "-m", "rangeio_bench.memory", *map(str, asked)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            row.failure = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        else:
            vars(row).update(json.loads(done.stdout))
        rows.append(row)
    return rows


def judge(rows: list[MemoryRow]) -> list[Verdict]:
    """Compare rangeio's row with `TARGETS`."""
    ours = next((row for row in rows if row.role == "ours" and not row.failure), None)
    if ours is None:
        return [Verdict(target, None, "rangeio did not run") for target in TARGETS]
    values = {"growth": float(ours.drift), "memory": ours.grown / ours.whole_bytes}
    return [Verdict(target, Spread.of([values[target.metric]])) for target in TARGETS]


def _growth(kind: type[Contender], setting: Setting, size: int, reads: int, seconds: float) -> dict[str, int]:
    """Read the whole object twice, then many small ranges. Returns the figures of `MemoryRow`."""
    contender, path = kind(setting), setting.path
    figures: dict[str, int] = {}
    before = _resident("VmRSS")
    if "whole" in contender.calls:
        for name in ("first_read", "second_read"):
            work = whole_file(path, size)
            result = contender.run("whole", work)
            figures[name] = max(0, _resident("VmHWM") - before)
            work.check(result, thorough=False)
            del result
            before = max(before, _resident("VmHWM"))  # the check does not count
    figures["reads"], figures["drift"] = _drift(
        contender, random_records(path, size, _BETWEEN_LOOKS), reads, seconds
    )
    return figures


def _drift(contender: Contender, work: Work, reads: int, seconds: float) -> tuple[int, int]:
    """The number of `reads` done in time, and the growth of the memory from their first tenth to their last."""
    share = min(work.reads, _BETWEEN_LOOKS)
    part, done = work.first(share), 0
    marks: list[int] = []
    deadline = time.monotonic() + seconds
    while done < reads and (time.monotonic() < deadline or len(marks) < 2 or contender.role == "ours"):
        contender.run("each", part)
        done += share
        marks.append(_resident("VmRSS"))
    first = max(1, len(marks) // 10)
    return done, max(marks[-first:]) - max(marks[:first])


def _resident(name: str) -> int:
    """VmRSS or its peak VmHWM, in bytes."""
    lines: Iterable[str] = read_text("/proc/self/status").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)


def main(arguments: list[str]) -> None:
    """The main function of the child process."""
    name, path, url, ca_file, depth, size, reads, seconds = arguments
    module, _, name = name.partition(":")
    kind = getattr(import_module(module), name)
    setting = Setting(Path(path), Path(path).parent, Scratch(), depth=int(depth), url=url, ca_file=ca_file)
    print(json.dumps(_growth(kind, setting, int(size), int(reads), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
