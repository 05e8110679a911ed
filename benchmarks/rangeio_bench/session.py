"""One run of `rangeio bench`: sample, cases, memory, report. A generator yields the output."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import rangeio
from rangeio.cli.machine import machine, place
from rangeio.cli.sizes import size_text
from rangeio_bench import memory, report
from rangeio_bench.cases import CASES, Case
from rangeio_bench.contender import Contender, Setting
from rangeio_bench.http import clients, ours
from rangeio_bench.http.cases import HTTP_CASES
from rangeio_bench.http.remote import HttpBench, Where, download
from rangeio_bench.results import Report
from rangeio_bench.runner import Bench, Options, Progress, chosen
from rangeio_bench.sample import ensure_file, ensure_small_files

_MEMORY = "memory"


class Session:
    """Creates missing files, measures, and keeps the report.

    `path` is the sample.
    """

    every_case: Sequence[Case] = CASES
    memory_kinds: Sequence[type[Contender]] = memory.KINDS

    def __init__(
        self,
        path: Path,
        *,
        size: int | None = None,
        quick: bool,
        rounds: int | None,
        wanted: list[str],
        started: str,
        command: str,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self.options = Options.quick() if quick else Options()
        if rounds is not None:
            self.options = replace(self.options, rounds=rounds, min_rounds=rounds)
        self.with_memory = not wanted or any(name in _MEMORY for name in wanted)
        patterns = [name for name in wanted if name not in _MEMORY]
        self.cases = chosen(patterns, self.every_case) if patterns or not wanted else []
        self.started, self.command, self.quick = started, command, quick
        self.bench = self._bench(path, size)
        self.path, self.size = self.bench.path, self.bench.size
        self.report: Report

    def _bench(self, path: Path, size: int | None) -> Bench:
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        size = ensure_file(path, size, lambda done: self.progress(done, f"writing {path}"))
        return Bench(path, size, path.with_name(path.name + ".files"), self.options)

    def run(self) -> Iterator[str]:
        """Measure; yields text to print. `report` is complete when the generator is exhausted."""
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
            server=self._server(),
        )
        yield report.heading(self.report)
        if absent := sorted(
            {text for case in self.cases for kind in case.contenders() if (text := kind.absence())}
        ):
            yield "Left out: " + "; ".join(absent) + "."
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

    def _server(self) -> str:
        return ""

    def close(self) -> None:
        """Stop everything."""
        self.bench.close()

    def _setting(self) -> Setting:
        return Setting(self.path, self.path.parent, self.bench.scratch)

    def _memory(self, progress: Progress) -> str:
        options = self.bench.options
        size = min(self.size, options.large_bytes)
        self.report.memory = memory.measure(
            self.memory_kinds, self._setting(), size, options.memory_reads, options.memory_s, progress
        )
        self.report.memory_verdicts = memory.judge(self.report.memory)
        return report.memory_text(self.report.memory, self.report.memory_verdicts)

    def _make_small_files(self) -> None:
        case = next((case for case in self.cases if case.action == "files"), None)
        if case is None:
            return
        (work,) = self.bench.works(case)
        text = f"writing {work.reads:,} files, {size_text(work.nbytes)}, to {self.bench.folder}"
        ensure_small_files(work, lambda done: self.progress(done, text))


class HttpSession(Session):
    """The session for an object on a server."""

    every_case = HTTP_CASES
    memory_kinds = (ours.Rangeio, clients.HttpClient, clients.Obstore, clients.OpenDAL, clients.Arrow)

    def __init__(self, where: Where, copy: Path | None, **rest: Any) -> None:
        """copy: a local copy of the object; None creates one, which `close` removes."""
        self.where = where
        self._made = ExitStack()
        self._given = copy is not None
        super().__init__(
            copy or Path(self._made.enter_context(tempfile.TemporaryDirectory())) / "copy.bin", **rest
        )

    def _bench(self, path: Path, size: int | None) -> Bench:
        if not self._given:
            download(
                self.where, path, lambda done: self.progress(done, "downloading the object, to check results")
            )
        bench = HttpBench(self.where, path, self.options)
        self._made.callback(bench.close)
        return bench

    def _server(self) -> str:
        return str(self.where)

    def _setting(self) -> Setting:
        here = super()._setting()
        return replace(here, url=self.where.url, ca_file=self.where.ca_file, depth=16)

    def close(self) -> None:
        """See `Session`."""
        self._made.close()
