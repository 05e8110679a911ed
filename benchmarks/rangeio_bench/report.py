"""The report as text: a table for each case when it is complete, the targets at the end."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rangeio.cli.sizes import short, size_text
from rangeio_bench.results import CaseResult, MemoryRow, Report, Row, Verdict, speed_text
from rangeio_bench.units import time_text


def heading(report: Report) -> str:
    """The versions and the machine, printed before the first case."""
    machine, place = report.machine, report.place
    lines = [
        f"rangeio {report.version}, backend {report.backend}" + (", --quick" if report.quick else ""),
        f"{machine.processor}, {machine.cpus} CPUs, {size_text(machine.memory)}, load {machine.load}",
        f"{machine.kernel}, {machine.system}, {machine.python}",
        f"{size_text(report.sample_bytes)} on {report.server or place}",
    ]
    return "\n".join(lines)


def case_text(result: CaseResult) -> str:
    """One case: the reads and the cache state, then a line for each contender, fastest first."""
    lines = [f"{result.case.title}  ({result.what}; {result.cache}; {result.rounds} rounds)"]
    if result.skipped:
        return f"{result.case.title}\n  skipped: {result.skipped}"
    columns = ["", "", "time", "speed", "min..max", "p99", "CPU", "requests", "fetched", "ratio", ""]
    lines += _table([columns, *(_cells(result, row) for row in ordered(result))], align="<<>>>>>>>><")
    for row in result.rows:
        if row.failure:
            lines.append(f"  {row.name} {row.call}: excluded, {row.failure}")
    for verdict in result.verdicts:
        lines.append(f"  -> {verdict_text(verdict)}")
    return "\n".join(lines)


def ordered(result: CaseResult) -> list[Row]:
    """The rows with figures, fastest first."""
    rows = [row for row in result.rows if row.samples]
    return sorted(rows, key=lambda row: row.bytes_per_s.median, reverse=True)


def _cells(result: CaseResult, row: Row) -> list[str]:
    return [
        f"{'*' if row.role == 'ours' else ' '} {row.name}",
        f"{row.call} [{row.served_by}]" if row.served_by else row.call,
        *_speed_cells(result, row),
        "" if row.p99_ns is None else time_text(row.p99_ns),
        cpu_text(result, row),
        "" if row.requests_per_read is None else short(row.requests_per_read),
        "" if not row.device_ratio else f"{short(row.device_ratio)}x",
        "" if row.ratio is None else f"{short(row.ratio.median)}x",
        "baseline" if row.name == result.case.baseline else "",
    ]


def _speed_cells(result: CaseResult, row: Row) -> tuple[str, str, str]:
    """Time of one read, speed, and the spread of the first of the two that is shown."""
    if result.case.in_bytes:
        speed = row.bytes_per_s
        return "", speed_text(result, row), f"{size_text(speed.low)}..{size_text(speed.high)}"
    took = row.ns_per_read
    return time_text(took.median), speed_text(result, row), f"{time_text(took.low)}..{time_text(took.high)}"


def cpu_text(result: CaseResult, row: Row) -> str:
    """CPU time of one read, or of one GiB if the case counts bytes."""
    if result.case.in_bytes:
        cost = row.cpu_ns_per_byte
        return "" if cost is None else f"{time_text(cost * (1 << 30))}/GiB"
    return "" if row.cpu_ns_per_read is None else time_text(row.cpu_ns_per_read)


def memory_text(rows: Sequence[MemoryRow], verdicts: Iterable[Verdict]) -> str:
    """The resident memory used by reads, a line for each contender."""
    title = (
        f"Resident memory  ({size_text(rows[0].whole_bytes)} read whole, twice; then 4 KiB reads)"
        if rows
        else ""
    )
    cells = [["", "", "first read", "second", "small reads", "drift"]]
    for row in rows:
        if row.failure:
            cells.append([f"  {row.name}", row.failure, "", "", "", ""])
            continue
        first, second = (
            f"{short(part / row.whole_bytes)}x" if part is not None else "" for part in _parts(row)
        )
        name = f"{'*' if row.role == 'ours' else ' '} {row.name}"
        cells.append([name, row.call, first, second, f"{row.reads:,}", size_text(row.drift)])
    return "\n".join([title, *_table(cells, align="<<>>>>"), *(f"  -> {verdict_text(v)}" for v in verdicts)])


def _parts(row: MemoryRow) -> tuple[int | None, int | None]:
    return row.first_read, row.second_read


def verdict_text(verdict: Verdict) -> str:
    """One verdict as a sentence."""
    return f"{verdict.word.upper() if verdict.met is False else verdict.word}: {verdict.measured()}, {_wanted(verdict)}"


def _wanted(verdict: Verdict) -> str:
    value = verdict.value
    spread = ""
    if value is not None and value.low != value.high and verdict.target.metric != "cpu per read":
        spread = f" ({short(value.low)}..{short(value.high)})"
    return f"{verdict.wanted()}{spread}"


def summary(report: Report) -> str:
    """All targets in one table."""
    cells = [["", "measured", "target", "case"]]
    for title, verdict in report.verdicts():
        cells.append([f"  {verdict.word}", verdict.measured(), verdict.wanted(), title])
    return "\n".join(_table(cells, align="<><<"))


def write_json(report: Report, path: Path) -> None:
    """Write everything, including every sample."""
    path.write_text(json.dumps(report.as_dict(), indent=1) + "\n")


def _table(rows: list[list[str]], *, align: str) -> list[str]:
    """Columns as wide as their widest cell; columns that are empty in every row are omitted."""
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in used}
    return [
        "  ".join(f"{row[column]:{align[column]}{widths[column]}}" for column in used).rstrip()
        for row in rows
    ]
