"""One call of `rangeio bench`: sample, cases, memory, report; a generator of what to print as it goes."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import rangeio
from rangeio.bench import memory, report
from rangeio.bench.machine import machine, place
from rangeio.bench.results import Report
from rangeio.bench.runner import Bench, Options, Progress, chosen
from rangeio.bench.sample import ensure_file, ensure_small_files
from rangeio.bench.units import size_text

_MEMORY = "memory"


class Session:
    """Makes what is missing, measures, and keeps the report."""

    def __init__(
        self,
        path: Path,
        *,
        size: int | None,
        quick: bool,
        rounds: int | None,
        wanted: list[str],
        started: str,
        command: str,
        progress: Progress,
    ) -> None:
        self.path, self.progress = path, progress
        self.options = Options.quick() if quick else Options()
        if rounds is not None:
            self.options = replace(self.options, rounds=rounds, min_rounds=rounds)
        self.with_memory = not wanted or any(name in _MEMORY for name in wanted)
        patterns = [name for name in wanted if name not in _MEMORY]
        self.cases = chosen(patterns) if patterns or not wanted else []
        self.started, self.command, self.quick = started, command, quick
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        self.size = ensure_file(path, size, lambda done: progress(done, f"writing {path}"))
        self.folder = path.with_name(path.name + ".files")
        self.bench = Bench(path, self.size, self.folder, self.options)
        self.report: Report

    def run(self) -> Iterator[str]:
        """Measure; yields text for a person. `report` is complete when the generator is exhausted."""
        start = time.monotonic()
        self._make_small_files()
        backend = rangeio.backend()
        self.report = Report(
            version=rangeio.__version__,
            backend=str(backend),
            reason=backend.reason,
            machine=machine(),
            place=place(self.path),
            sample_bytes=self.size,
            started=self.started,
            quick=self.quick,
            command=self.command,
        )
        yield report.heading(self.report)
        parts = len(self.cases) + self.with_memory
        for number, case in enumerate(self.cases):
            result = self.bench.run(case, self._part(number, parts))
            self.report.cases.append(result)
            yield report.case_text(result)
        if self.with_memory:
            yield self._memory(self._part(parts - 1, parts))
        self.report.elapsed_s = round(time.monotonic() - start, 1)
        if self.report.verdicts():
            yield report.summary(self.report)

    def _part(self, number: int, parts: int) -> Progress:
        return lambda done, text: self.progress((number + done) / parts, text)

    def _memory(self, progress: Progress) -> str:
        size = min(self.size, self.options.large_bytes)
        options = self.options
        self.report.memory = memory.measure(self.path, size, options.memory_reads, options.memory_s, progress)
        self.report.memory_verdicts = memory.judge(self.report.memory)
        return report.memory_text(self.report.memory, self.report.memory_verdicts)

    def _make_small_files(self) -> None:
        case = next((case for case in self.cases if case.action == "files"), None)
        if case is None:
            return
        (work,) = self.bench.works(case)
        text = f"writing {work.reads:,} files, {size_text(work.nbytes)}, to {self.folder}"
        ensure_small_files(work, lambda done: self.progress(done, text))
