"""Results as tables of text, and for JSON."""

import statistics
from collections.abc import Iterable
from typing import Any

from rangeio_bench.jobs.job import Job, Limit
from rangeio_bench.jobs.runner import Result, Row, Run
from rangeio_bench.markdown import table


def text(result: Result) -> str:
    """The table of a job, and what became of its limits."""
    lines = [f"{result.job.id}: {result.job.title}"]
    ours = next((row for row in result.rows if row.way.ours and row.runs), None)
    for row in result.rows:
        lines.append(
            f"  {row.way.name:36} " + (_figures(row, ours, result) if row.runs else row.failure or "-")
        )
    lines += [f"  left out: {reason}" for reason in result.absent]
    lines += [f"  {verdict}" for verdict in verdicts(result)]
    return "\n".join(lines)


def _figures(row: Row, ours: Row | None, result: Result) -> str:
    times = row.values("time")
    words = [
        f"{row.median('time'):8.3f} s ({min(times):.3f} to {max(times):.3f}), CPU {row.median('cpu'):.3f} s"
    ]
    for metric in ("bytes", "requests", "memory"):
        if value := row.median(metric):
            words.append(f"{value:,.0f} {metric}")
    if ours and row is not ours:
        ratio = statistics.median(result.ratios(ours, row, "time"))
        words.append(f"ours takes {ratio:.2f} of it")
    return ", ".join(words)


def verdicts(result: Result) -> list[str]:
    """What became of each limit, as a sentence."""
    return [_verdict(result, limit) for limit in result.job.limits]


def markdown(suite: str, results: Iterable[Result], said: str) -> str:
    """A section of a page: each limit with its figure; missed ones in bold. said: what was measured, when and where."""
    rows = []
    for result in results:
        for verdict in verdicts(result):
            word, _, figure = verdict.partition(": ")
            rows.append([result.job.title, f"**{figure}**" if word == "MISSED" else figure])
    return f"## {suite.capitalize()}\n\n{said}\n\n" + table(["job", "measured"], rows)


def _verdict(result: Result, limit: Limit) -> str:
    name = limit.way or next(way.name for way in result.job.ways if way.ours)
    ours = result.row(name)
    if ours is None:
        return f"no figure: {name} did not run"
    if not limit.against:
        value = ours.median(limit.metric)
        return f"{_word(value, limit)}: {name}, {limit.metric} {value:,.3f}, at most {limit.bound:,.3f}"
    rivals = [row for one in limit.against if (row := result.row(one))]
    if not rivals:
        return f"no figure: {', '.join(limit.against)} did not run"
    best = min(rivals, key=lambda row: row.median(limit.metric))
    ratios = result.ratios(ours, best, limit.metric)
    value = statistics.median(ratios)
    span = f"({min(ratios):.2f} to {max(ratios):.2f}, n={len(ratios)})"
    return (
        f"{_word(value, limit)}: {name}, {limit.metric} {value:.2f} of {best.way.name} {span}, "
        f"at most {limit.bound}"
    )


def _word(value: float, limit: Limit) -> str:
    return "met" if value <= limit.bound else "MISSED"


def data(result: Result) -> dict[str, Any]:
    """Every run, for JSON."""
    rows = {
        row.way.name: {"failure": row.failure, "runs": [vars(run) for run in row.runs]} for row in result.rows
    }
    return {"id": result.job.id, "title": result.job.title, "rows": rows, "verdicts": verdicts(result)}


def restored(job: Job, found: dict[str, Any]) -> Result:
    """The result that `data` has described, without what was absent."""
    rows = []
    for way in job.ways:
        if row := found["rows"].get(way.name):
            rows.append(Row(way, [Run(**run) for run in row["runs"]], row["failure"]))
    return Result(job, rows, [])
