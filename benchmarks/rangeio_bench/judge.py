"""Ratios and verdicts, computed within each round: runs within the same seconds are comparable."""

from rangeio_bench.cases import Target
from rangeio_bench.contender import Sample
from rangeio_bench.results import CaseResult, Spread, Verdict


def compare(result: CaseResult) -> None:
    """Give every row its ratio to the baseline, and every target its verdict."""
    base = result.row(result.case.baseline)
    for row in result.rows:
        if base and row.samples:
            row.ratio = Spread.of(
                mine.bytes_per_s / theirs.bytes_per_s
                for mine, theirs in zip(row.samples, base.samples, strict=False)
            )
    result.verdicts = [judge(result, target) for target in result.case.targets]


def judge(result: CaseResult, target: Target) -> Verdict:
    """Check one target with the rounds that all its contenders have."""
    ours = result.row("rangeio", target.call)
    if ours is None:
        failed = next((row.failure for row in result.rows if row.name == "rangeio"), "")
        return Verdict(target, None, result.skipped or failed or "rangeio did not run")
    rivals = [row for name in target.against if (row := result.row(name))]
    if target.against and not rivals:
        return Verdict(target, None, f"{' and '.join(target.against)} did not run")
    if target.metric == "p99 ratio":
        times = [row.p99_ns for row in rivals if row.p99_ns]
        if not times or not ours.p99_ns:
            return Verdict(target, None, "it was not measured")
        return Verdict(target, Spread.of([ours.p99_ns / min(times)]))
    values: list[float] = []
    for number, sample in enumerate(ours.samples):
        others = [row.samples[number] for row in rivals if number < len(row.samples)]
        if rivals and not others:
            continue  # all were slow and ran only once
        if (value := _value(target, sample, others)) is not None:
            values.append(value)
    return (
        Verdict(target, Spread.of(values))
        if values
        else Verdict(target, None, "the system does not report it")
    )


def _value(target: Target, ours: Sample, rivals: list[Sample]) -> float | None:
    if target.metric == "rate":
        return ours.bytes_per_s / max(rival.bytes_per_s for rival in rivals)
    if target.metric == "cpu per read":
        return ours.cpu_ns_per_read
    if target.metric == "device bytes":
        return None if ours.device_bytes is None else ours.device_bytes / ours.nbytes
    if target.metric == "requests":
        return None if ours.requests is None else ours.requests / ours.reads
    if target.metric == "limit":
        return None if ours.least_ns is None else ours.elapsed_ns / ours.least_ns
    if ours.cpu_ns is None or any(not rival.cpu_ns for rival in rivals):
        return None
    return (ours.cpu_ns / ours.nbytes) / min((rival.cpu_ns or 0) / rival.nbytes for rival in rivals)
