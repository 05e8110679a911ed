"""The workloads of `rangeio bench` as pytest benchmarks; README.md explains when to use which."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rangeio_bench.cases import CASES, Case
from rangeio_bench.conditions import evict, on_cpus, resident, warm
from rangeio_bench.contender import Contender
from rangeio_bench.runner import Bench, Options
from rangeio_bench.sample import ensure_file, ensure_small_files
from rangeio_bench.work import Work

SIZE = 64 << 20
ROUNDS = 5


class Turn:
    """One contender in one case, ready to be timed."""

    def __init__(self, arena: Bench, case: Case, kind: type[Contender]) -> None:
        self.case, self.work = case, arena.works(case)[0]
        self.kind, self.contender = kind, kind(arena.setting(case))

    def prepare(self) -> None:
        """Bring the page cache into the state of the case."""
        if self.case.cache != "hot":
            self.contender.release_pages()
            evict(self.work)

    def measure(self, benchmark: Any) -> None:
        """Time the contender in rounds, check the last result, and record the conditions."""
        warm(self.work)
        work = self.work.first(1000) if self.case.action == "each" else self.work
        benchmark.extra_info |= {"reads": work.reads, "bytes": work.nbytes, "resident": resident(self.work)}
        benchmark.extra_info |= {"call": self.kind.calls[self.case.action], "version": self.kind.version()}
        result = benchmark.pedantic(
            self.contender.run, (self.case.action, work), setup=self.prepare, rounds=ROUNDS, warmup_rounds=1
        )
        benchmark.extra_info["served_by"] = self.contender.served_by()
        checked = _last(work) if self.case.action == "each" else work
        checked.check([result] if self.case.action == "each" else result, thorough=True)


def _last(work: Work) -> Work:
    """The result of a loop of single reads: the last one."""
    return Work(work.path, work.offsets[-1:], work.lengths[-1:])


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A sample and its small files: RANGEIO_BENCH_FILE, which is kept, or a temporary one of 64 MiB."""
    given = os.environ.get("RANGEIO_BENCH_FILE")
    path = Path(given) if given else tmp_path_factory.mktemp("bench") / "sample.bin"
    size = ensure_file(path, None if given else SIZE, lambda done: None)
    bench = Bench(
        path, size, path.with_name(path.name + ".files"), replace(Options.quick(), large_bytes=size)
    )
    case = next(case for case in CASES if case.action == "files")
    ensure_small_files(bench.works(case)[0], lambda done: None)
    yield bench
    bench.close()


@pytest.fixture
def turn(arena: Bench, case: Case, kind: type[Contender]) -> Iterator[Turn]:
    """A contender in its case, on the number of CPUs of the case."""
    if reason := arena.obstacle(case):
        pytest.skip(reason)
    with on_cpus(case.cpus):
        ready = Turn(arena, case, kind)
        try:
            yield ready
        finally:
            ready.contender.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A benchmark for each case of the module's ACTIONS and each contender that supports it; grouped by case."""
    metafunc.parametrize(
        ("case", "kind"),
        [
            pytest.param(
                case,
                kind,
                id=f"{case.id}-{kind.name}-{kind.calls[case.action]}".replace(" ", "_"),
                marks=pytest.mark.benchmark(group=case.id),
            )
            for case in CASES
            if case.action in metafunc.module.ACTIONS and not case.busy
            for kind in case.contenders()
            if kind.role != "bound" and not kind.absence()
        ],
    )
