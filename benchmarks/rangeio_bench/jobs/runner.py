"""The measurement: every way once per round, then medians over the rounds."""

import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rangeio_bench.jobs.job import Job, Metric, Place, Way
from rangeio_bench.jobs.suites import find

_SEED = 20


@dataclass(frozen=True)
class Run:
    """One timed run."""

    time: float
    """Seconds of wall clock."""
    cpu: float
    """Seconds of CPU of this process, all threads, and of its children that have ended."""
    memory: int = 0
    """Bytes of memory at the peak, beyond those before the run; 0 where the run was not in a child."""
    bytes: int = 0
    requests: int = 0


@dataclass
class Row:
    """The runs of one way, one for each round."""

    way: Way
    runs: list[Run] = field(default_factory=list)
    failure: str = ""

    def values(self, metric: Metric) -> list[float]:
        """One figure of each round."""
        return [float(getattr(run, metric)) for run in self.runs]

    def median(self, metric: Metric) -> float:
        """The median over the rounds."""
        return statistics.median(self.values(metric))


@dataclass
class Result:
    """A job that was measured."""

    job: Job
    rows: list[Row]
    absent: list[str]

    def row(self, name: str) -> Row | None:
        """The row of a way, if it ran."""
        return next((row for row in self.rows if row.way.name == name and row.runs), None)

    def ratios(self, ours: Row, other: Row, metric: Metric) -> list[float]:
        """Ours divided by the other's, of each round."""
        pairs = zip(ours.values(metric), other.values(metric), strict=True)
        return [mine / its for mine, its in pairs if its]


def measure(job: Job, folder: Path, rounds: int) -> Result:
    """Measure one job."""
    absent = [f"{way.name}: {reason}" for way in job.ways if (reason := way.absence())]
    rows = [Row(way) for way in job.ways if not way.absence()]
    dice, first = random.Random(_SEED), None
    with job.place(folder) as place:
        for row in rows:
            try:
                first = _first_run(job, row.way, place, first)
            except Exception as error:  # a peer that fails here is reported, and the others go on
                row.failure = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        able = [row for row in rows if not row.failure]
        for _ in range(rounds):
            for row in dice.sample(able, len(able)):
                job.before(place)
                row.runs.append(_counting(job, row.way, place))
    return Result(job, rows, absent)


def _first_run(job: Job, way: Way, place: Place, first: object) -> object:
    """Warm up, and compare the result with that of the first way."""
    if not job.warm_up:
        return None
    job.before(place)
    result = way.run(place)
    if first is None:
        return result
    if not job.same(first, result):
        raise ValueError("the result differs from that of the first way")
    return first


def _counting(job: Job, way: Way, place: Place) -> Run:
    before = job.counted(place) if job.counted else (0, 0)
    run = _in_child(job, way, place) if job.child else timed(way, place)
    after = job.counted(place) if job.counted else (0, 0)
    return Run(run.time, run.cpu, run.memory, after[1] - before[1], after[0] - before[0])


def timed(way: Way, place: Place) -> Run:
    """Time one run in this process."""
    gc.collect()
    gc.disable()  # like timeit: a collection would be charged to the way that runs
    try:
        cpu, start = _cpu(), time.perf_counter()
        result = way.run(place)
        elapsed, cpu = time.perf_counter() - start, _cpu() - cpu
    finally:
        gc.enable()
    del result
    return Run(elapsed, cpu)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _in_child(job: Job, way: Way, place: Place) -> Run:
    command = [sys.executable, "-m", "rangeio_bench.jobs.child", job.id, way.name, json.dumps(dict(place))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{job.id}, {way.name}: {done.stderr.strip().splitlines()[-1:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def child(job_id: str, name: str, place: Place) -> str:
    """One run in this new process, which has imported the libraries of the way: its figures as JSON."""
    job = find(job_id)
    way = next(way for way in job.ways if way.name == name)
    for module in way.needs:
        __import__(module)
    before = _peak()
    run = timed(way, place)
    return json.dumps(asdict(Run(run.time, run.cpu, _peak() - before)))


def _peak() -> int:
    # ru_maxrss of a child begins with that of its parent (getrusage(2) says nothing of it; seen on Linux 6.18).
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def measured(jobs: Sequence[Job], folder: Path, rounds: int) -> Iterator[Result]:
    """Measure jobs, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        yield measure(job, folder, rounds)
