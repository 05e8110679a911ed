"""The results: plain records, all of which are part of the JSON."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rangeio.cli.machine import Machine, Place
from rangeio.cli.sizes import short, size_text
from rangeio_bench.cases import Case, Target
from rangeio_bench.contender import Role, Sample
from rangeio_bench.units import rate_text, time_text


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The statistics of at least one value."""
        listed = list(values)
        return cls(statistics.median(listed), min(listed), max(listed))


@dataclass
class Row:
    """One contender in one case."""

    name: str
    call: str
    role: Role
    version: str
    served_by: str = ""
    samples: list[Sample] = field(default_factory=list)
    p99_ns: float | None = None
    ratio: Spread | None = None
    """Speed relative to the case's baseline, round by round."""
    failure: str = ""

    @property
    def ns_per_read(self) -> Spread:
        """Wall clock time of one read."""
        return Spread.of(sample.ns_per_read for sample in self.samples)

    @property
    def bytes_per_s(self) -> Spread:
        """Speed; its median corresponds to the median time, also for an even number of rounds."""
        took = Spread.of(1 / sample.bytes_per_s for sample in self.samples)
        return Spread(1 / took.median, 1 / took.high, 1 / took.low)

    @property
    def cpu_ns_per_read(self) -> float | None:
        """CPU time of one read; None if it was not measured."""
        return _median(sample.cpu_ns_per_read for sample in self.samples)

    @property
    def cpu_ns_per_byte(self) -> float | None:
        """CPU time of one byte; None if it was not measured."""
        return _median(s.cpu_ns / s.nbytes if s.cpu_ns is not None else None for s in self.samples)

    @property
    def device_ratio(self) -> float | None:
        """Bytes read from the device per requested byte."""
        return _median(
            s.device_bytes / s.nbytes if s.device_bytes is not None else None for s in self.samples
        )

    @property
    def requests_per_read(self) -> float | None:
        """Requests received by the server per read; None if it does not count."""
        return _median(s.requests / s.reads if s.requests is not None else None for s in self.samples)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


@dataclass(frozen=True)
class Verdict:
    """One target and the measured figure."""

    target: Target
    value: Spread | None
    """None if it could not be measured; `note` gives the reason."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None if it could not be decided."""
        if self.value is None:
            return None
        median, bound = self.value.median, self.target.bound
        if short(median) == short(bound):
            return True  # nobody sees a difference: "0.4x, at most 0.4x" is not missed
        return median >= bound if self.target.at_least else median <= bound

    @property
    def word(self) -> str:
        """met, missed or not measured."""
        return {True: "met", False: "missed", None: "not measured"}[self.met]

    def wanted(self) -> str:
        """The target in words."""
        bound = figure(self.target, self.target.bound)
        against = " or ".join(self.target.against)
        return {
            "rate": f"at least {bound} {against}",
            "cpu ratio": f"at most {bound} the CPU of {against}",
            "cpu per read": f"at most {bound} of CPU per read",
            "p99 ratio": f"at most {bound} the p99 of {against}",
            "device bytes": f"at most {bound} the requested bytes are fetched",
            "requests": f"at most {bound} requests for each range",
            "limit": f"at most {bound} the minimum time at that rate",
            "growth": f"memory grows by at most {bound}",
            "memory": f"at most {bound} of memory for each byte read",
        }[self.target.metric]

    def measured(self) -> str:
        """The figure, or the reason why there is none."""
        return self.note if self.value is None else figure(self.target, self.value.median)


def figure(target: Target, value: float) -> str:
    """A value in the unit of its target."""
    if target.metric == "cpu per read":
        return time_text(value)
    if target.metric == "growth":
        return size_text(value)
    return f"{short(value)}x"


@dataclass
class CaseResult:
    """One case: its rows, and the verdicts about its targets."""

    case: Case
    cache: str
    """The state of the page cache, in words."""
    what: str
    """Reads and bytes of one run."""
    rounds: int = 0
    elapsed_s: float = 0.0
    rows: list[Row] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    skipped: str = ""

    def row(self, name: str, call: str = "") -> Row | None:
        """The first row with figures of this name, and of this call if given."""
        return next(
            (row for row in self.rows if row.name == name and row.samples and call in ("", row.call)), None
        )


@dataclass
class MemoryRow:
    """The resident memory used by one contender's reads, in a separate process."""

    name: str
    call: str
    role: Role
    version: str
    whole_bytes: int
    """Size of the object read whole."""
    first_read: int | None = None
    """Growth of the peak during the first read; None if the whole object was not read."""
    second_read: int | None = None
    """Further growth of the peak during the second."""
    reads: int = 0
    drift: int = 0
    """Growth between the first and the last tenth of `reads` small reads."""
    failure: str = ""

    @property
    def grown(self) -> int:
        """Total growth of the peak."""
        return (self.first_read or 0) + (self.second_read or 0)


@dataclass
class Report:
    """One run of the bench."""

    version: str
    backend: str
    reason: str
    machine: Machine
    place: Place
    sample_bytes: int
    started: str
    quick: bool
    command: str
    server: str = ""
    """The server of the objects; empty for files."""
    elapsed_s: float = 0.0
    cases: list[CaseResult] = field(default_factory=list)
    memory: list[MemoryRow] = field(default_factory=list)
    memory_verdicts: list[Verdict] = field(default_factory=list)

    def verdicts(self) -> list[tuple[str, Verdict]]:
        """Every target with the title of its case."""
        listed = [(result.case.title, verdict) for result in self.cases for verdict in result.verdicts]
        return listed + [("Resident memory", verdict) for verdict in self.memory_verdicts]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON: every sample, and the figures in the tables."""
        data = asdict(self)
        for result, plain in zip(self.cases, data["cases"], strict=True):
            for row, plain_row in zip(result.rows, plain["rows"], strict=True):
                if row.samples:
                    plain_row["ns_per_read"] = asdict(row.ns_per_read)
                    plain_row["bytes_per_s"] = asdict(row.bytes_per_s)
                    plain_row["cpu_ns_per_read"] = row.cpu_ns_per_read
                    plain_row["device_ratio"] = row.device_ratio
                    plain_row["requests_per_read"] = row.requests_per_read
            for verdict, plain_verdict in zip(result.verdicts, plain["verdicts"], strict=True):
                plain_verdict["met"] = verdict.met
        for verdict, plain_verdict in zip(self.memory_verdicts, data["memory_verdicts"], strict=True):
            plain_verdict["met"] = verdict.met
        return data


def speed_text(result: CaseResult, row: Row) -> str:
    """The figure in a chart: bytes per second for large reads, reads per second for small ones."""
    if result.case.in_bytes:
        return f"{size_text(row.bytes_per_s.median)}/s"
    return f"{rate_text(1e9 / row.ns_per_read.median)} {result.case.unit}s/s"
