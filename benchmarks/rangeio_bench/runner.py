"""The measurement: every contender once per round, then medians over the rounds.

The state of a machine varies (other tenants, clock, memory). Contenders that run within one second share it;
contenders measured minutes apart do not. So ratios are computed within each round, and their median is reported.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rangeio.cli.machine import usable_cpus
from rangeio.cli.sizes import size_text
from rangeio_bench.cases import CASES, Case
from rangeio_bench.conditions import busy_thread, direct_refused, evict, on_cpus, resident, warm
from rangeio_bench.contender import FLEETING, Contender, Sample, Scratch, Setting
from rangeio_bench.judge import compare
from rangeio_bench.places import PlaceError, Places
from rangeio_bench.results import CaseResult, Row
from rangeio_bench.work import SEED, Work, column_chunks, random_records, small_files, tensors, whole_file

Progress = Callable[[float, str], None]
"""Called between timed sections with the completed share, 0.0 to 1.0, and the next step."""

_COLD_ENOUGH = 0.01
_ALIGN = 8 << 20
_SINGLE_READS = 1000
_SLOW_S = 0.3
# How often to measure the p99 of contenders with a p99 target.
_TAILS = 5
_BUSY_READS = 8192
_THROUGH = 64 << 20


@dataclass(frozen=True)
class Options:
    """The amount of measurement; the defaults take about four minutes on 1 GiB."""

    rounds: int = 9
    min_rounds: int = 3
    case_s: float = 6.5
    """A case starts no more rounds after this time, unless it has fewer than `min_rounds`."""
    sample_s: float = 0.04
    """Small reads are repeated until one sample takes about this long."""
    busy_sample_s: float = 0.2
    """The same beside a busy thread: many times CPython's switch interval of 5 ms, which dominates there."""
    large_bytes: int = 1 << 30
    ranges: int = 2000
    files: int = 10_000
    deep_reads: int = 16_384
    memory_reads: int = 1_000_000
    memory_s: float = 1.0
    """Time for the small reads of the memory case, for those slower than rangeio."""

    @classmethod
    def quick(cls) -> "Options":
        """A quick run with rough figures."""
        return cls(
            rounds=3,
            min_rounds=2,
            case_s=0.8,
            sample_s=0.01,
            busy_sample_s=0.03,
            large_bytes=128 << 20,
            ranges=500,
            files=1000,
            deep_reads=4096,
            memory_reads=200_000,
            memory_s=0.3,
        )


@dataclass
class Entry:
    """A contender in a case, with its row and the works of one sample."""

    contender: Contender
    row: Row
    works: list[Work]
    slow: bool = False
    """Its warm-up is its only sample: more would take too much time."""
    tails: list[float] = field(default_factory=list)
    """The 99th percentiles so far, in nanoseconds."""


class Bench:
    """The cases for one file."""

    def __init__(self, path: Path, size: int, folder: Path, options: Options) -> None:
        self.path, self.size, self.folder, self.options = path, size, folder, options
        self.scratch = Scratch()
        self.places = Places(path)

    def close(self) -> None:
        """Remove the copies of the file on other file systems."""
        self.places.close()

    def path_of(self, case: Case) -> Path:
        """The file that the case reads."""
        return self.places.path(case.place) if case.place else self.path

    def run(self, case: Case, progress: Progress) -> CaseResult:
        """Measure one case, or skip it with the reason if it cannot be measured here."""
        start, skipped = time.monotonic(), self.obstacle(case)
        works = [] if skipped and case.place else self.works(case)
        result = CaseResult(case, "", _what(case, works) if works else "")
        result.skipped = skipped
        if not skipped:
            with on_cpus(case.cpus):
                entries = self._enter(case, result, works)
                try:
                    if self._reach_state(case, result, works, entries):
                        self._contest(case, result, works, entries, progress)
                finally:
                    for entry in entries:
                        entry.contender.close()
        compare(result)
        result.elapsed_s = round(time.monotonic() - start, 1)
        return result

    def works(self, case: Case) -> list[Work]:
        """The works of the case; several are used in turn, so that no result stays in the CPU's cache."""
        options = self.options
        large = min(self.size, options.large_bytes) // _ALIGN * _ALIGN
        path = self.path_of(case)
        size = path.stat().st_size if case.place else self.size
        if case.action == "each":
            return [random_records(path, size, 1 << 16)]
        if case.action == "batch":
            return [random_records(self.path, self.size, case.group, salt=salt) for salt in range(16)]
        if case.action == "deep":
            reads = options.deep_reads if case.depth > 1 else options.deep_reads // 8
            return [random_records(self.path, self.size, reads, salt=case.depth)]
        if case.action in ("tasks", "seeks"):
            return [random_records(path, size, 1 << 16, length=case.block)]
        if case.action == "through":
            return [whole_file(self.path, min(large, _THROUGH), case.block)]
        if case.action in ("whole", "blocks", "stream"):
            return [whole_file(self.path, large, case.block)]
        if case.action == "ranges":
            return [column_chunks(self.path, self.size, options.ranges)]
        if case.action == "fill":
            return [tensors(self.path, self.size, min(options.ranges, 290))]
        return [small_files(self.folder, options.files)]

    def setting(self, case: Case) -> Setting:
        """The setting for the case's contenders."""
        direct = case.cache == "direct"
        return Setting(self.path_of(case), self.folder, self.scratch, direct=direct, depth=case.depth)

    def obstacle(self, case: Case) -> str:
        """The reason why the case cannot be measured here; empty if it can."""
        if self.size < _ALIGN and case.action != "files":
            return f"the file is smaller than {size_text(_ALIGN)}"
        if case.cpus > len(usable_cpus()):
            return f"needs {case.cpus} CPUs, {len(usable_cpus())} are usable"
        try:
            self.path_of(case)
        except PlaceError as error:
            return str(error)
        return direct_refused(self.path) if case.cache == "direct" else ""

    def _enter(self, case: Case, result: CaseResult, works: list[Work]) -> list[Entry]:
        entries = []
        for kind in case.contenders():
            if absence := kind.absence():
                result.absent.append(absence)
                continue
            row = Row(kind.name, kind.calls[case.action], kind.role, kind.version())
            result.rows.append(row)
            try:
                entries.append(Entry(kind(self.setting(case)), row, works))
            except Exception as error:  # a peer that does not work here is reported, and the run continues
                row.failure = _one_line(error)
        return entries

    def _reach_state(self, case: Case, result: CaseResult, works: list[Work], entries: list[Entry]) -> bool:
        share = self._prepare(case, works, entries)
        result.cache = _cache_words(case, share)
        if case.cache == "cold" and share is not None and share > _COLD_ENOUGH:
            result.skipped = f"{share:.0%} of the file stay in the page cache (a file system in memory?)"
        return not result.skipped

    def _prepare(self, case: Case, works: list[Work], entries: list[Entry]) -> float | None:
        """Bring the page cache into the state of the case. Returns the share of the file in it.

        Pages that were cached a second ago may be evicted, by kernels that reclaim early (DAMON_RECLAIM) or by other
        processes, and waiting for a few pages would falsify the figures of hot reads.
        """
        if case.cache == "hot":
            share = resident(works[0])
            if share is not None and share < 1:
                warm(works[0])
                share = resident(works[0])
            return share
        for entry in entries:
            entry.contender.release_pages()
        return evict(works[0])

    def _contest(
        self, case: Case, result: CaseResult, works: list[Work], entries: list[Entry], progress: Progress
    ) -> None:
        options, dice, start = self.options, random.Random(SEED), time.monotonic()
        for entry in entries:
            progress(0.0, f"{case.title}: {entry.row.name}, warm-up")
            self._guarded(entry, lambda entry: self._ready(case, entry))
            self._prepare(case, works, entries)
            self._guarded(entry, lambda entry: self._warm_up(case, entry))
        while result.rounds < options.rounds:
            spent = (time.monotonic() - start) / options.case_s
            if spent > 1 and result.rounds >= options.min_rounds:
                break
            order = [entry for entry in entries if not entry.row.failure and not entry.slow]
            dice.shuffle(order)
            for entry in order:
                progress(
                    min(1.0, max(spent, result.rounds / options.rounds)), f"{case.title}: {entry.row.name}"
                )
                self._guarded(entry, lambda entry: self._ready(case, entry))
                share = self._prepare(case, works, entries)
                if share is not None and (share < 1 if case.cache == "hot" else share > _COLD_ENOUGH):
                    result.cache = _cache_words(case, share)
                self._guarded(entry, lambda entry: self._round(case, entry))
            result.rounds += 1
        tails = _TAILS if any(target.metric == "p99 ratio" for target in case.targets) else 1
        for number in range(tails):
            for entry in entries:
                if not number or entry.row.name in case.judged:
                    self._guarded(entry, lambda entry: self._look_at_tail(case, entry))

    def _ready(self, case: Case, entry: Entry) -> None:
        """Read a large object once before the measurement, so that its memory is available: the host of a virtual
        machine may reclaim memory that is unused for some seconds, and getting it again is expensive.
        """
        if case.action in ("whole", "blocks") and entry.row.role != "bound":
            entry.contender.run(case.action, entry.works[0])

    def _look_at_tail(self, case: Case, entry: Entry) -> None:
        """The median of several measurements: another process may have used the CPU in one of them."""
        tail = self._tail(case, entry)
        if tail is not None:
            entry.tails.append(tail)
            entry.row.p99_ns = statistics.median(entry.tails)

    def _tail(self, case: Case, entry: Entry) -> float | None:
        """The 99th percentile of single reads in nanoseconds; None if it is not meaningful."""
        measured = case.action == "each" and entry.contender.has_latency
        return _p99(case, entry, self.options.case_s / 20) if measured else None

    def _guarded(self, entry: Entry, step: Callable[[Entry], None]) -> None:
        """A contender that fails, or returns wrong bytes, is excluded; the others continue."""
        if entry.row.failure:
            return
        try:
            step(entry)
        except Exception as error:
            entry.row.failure, entry.row.samples = _one_line(error), []

    def _warm_up(self, case: Case, entry: Entry) -> None:
        """Run once, check every byte, and determine how many reads make a sample."""
        if entry.row.role == "bound":
            return
        contender = entry.contender
        self.scratch.spoil()
        if case.action in FLEETING:
            for offset in entry.works[0].offsets[:32]:
                single = Work(entry.works[0].path, [offset], [entry.works[0].length])
                single.check([contender.run(case.action, single)], thorough=True)
        else:
            sample, value = _measure(case, contender, entry.works[:1])
            entry.works[0].check(value, thorough=True)
            slow_s = max(_SLOW_S, self.options.case_s / 8)
            if sample.elapsed_ns > slow_s * 1e9 and entry.row.name not in case.judged:
                entry.slow, entry.row.samples = True, [sample]
        if case.action in ("each", "batch", "tasks", "threads", "seeks"):
            entry.works = self._sized(case, entry)

    def _sized(self, case: Case, entry: Entry) -> list[Work]:
        """Enough reads for a sample: more offsets in the loop, or more batches."""
        aim = self.options.busy_sample_s if case.busy else self.options.sample_s
        reads, most = 1, (1 << 16 if case.action in FLEETING else 4096)
        if case.busy:
            # A contender that releases the GIL gets it back at once or after a switch interval, by chance: a sample
            # sized for the one must not take too long with the other.
            most = _BUSY_READS
        while True:
            works = _repeated(case, entry.works, reads)
            elapsed = _measure(case, entry.contender, works)[0].elapsed_ns / 1e9
            if reads == most or elapsed > aim / 4:
                break
            reads = min(most, reads * 4)
        wanted = round(reads * aim / elapsed)
        return _repeated(case, entry.works, max(1, min(most, wanted)))

    def _round(self, case: Case, entry: Entry) -> None:
        entry.contender.served_by()  # reset its counters
        sample, value = _measure(case, entry.contender, entry.works)
        entry.row.samples.append(sample)
        entry.row.served_by = entry.contender.served_by()
        if value is not None and case.action not in FLEETING:
            entry.works[-1].check(value, thorough=False)


def _measure(case: Case, contender: Contender, works: list[Work]) -> tuple[Sample, Any]:
    with busy_thread(case.busy):
        sample, value = contender.measure(case.action, works)
    return (replace(sample, cpu_ns=None) if case.busy else sample), value


def _repeated(case: Case, works: list[Work], times: int) -> list[Work]:
    return [works[0].first(times)] if case.action in FLEETING else list(islice(cycle(works), times))


def _cache_words(case: Case, share: float | None) -> str:
    return f"{case.cache}, " + (
        "residency unknown" if share is None else f"{share:.0%} in the page cache before each run"
    )


def _p99(case: Case, entry: Entry, seconds: float) -> float | None:
    """The 99th percentile of reads timed one at a time; None if there was not enough time for a hundred."""
    contender, work = entry.contender, entry.works[0]
    singles = [
        Work(work.path, [offset], [work.length])
        for offset in islice(cycle(work.offsets), _SINGLE_READS)  # created before the timed section
    ]
    times, deadline = [], time.monotonic() + max(seconds, 0.05)
    with busy_thread(case.busy):
        for single in singles:
            start = time.perf_counter_ns()
            contender.run("each", single)
            times.append(time.perf_counter_ns() - start)
            if time.monotonic() > deadline:
                break
    return statistics.quantiles(times, n=100)[98] if len(times) >= 100 else None


def _what(case: Case, works: list[Work]) -> str:
    work = works[0]
    if case.action in ("each", "batch", "deep", "tasks", "threads", "seeks"):
        return f"{size_text(work.length)} at random offsets"
    if case.action in ("whole", "blocks", "stream", "through"):
        return size_text(work.nbytes)
    return f"{work.reads:,} {case.unit}s, {size_text(work.nbytes)}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def chosen(patterns: list[str], among: Sequence[Case] = CASES) -> list[Case]:
    """The cases whose id contains one of `patterns`; all if there are none."""
    cases = [case for case in among if not patterns or any(pattern in case.id for pattern in patterns)]
    if not cases:
        names = ", ".join(case.id for case in among)
        raise ValueError(f"no case name contains {' or '.join(patterns)}; the cases are {names}")
    return cases
