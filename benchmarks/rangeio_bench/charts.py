"""Charts: bars for a case, dots for targets, a ring for the headline; HTML and CSS, the ring as SVG."""

import math
from collections.abc import Sequence

from rangeio.cli.sizes import short, size_text
from rangeio_bench.html import TIMES, Markup, el, join
from rangeio_bench.report import cpu_text
from rangeio_bench.results import CaseResult, MemoryRow, Row, Verdict, figure, speed_text
from rangeio_bench.units import time_text

KIND = {True: "met", False: "missed", None: "unknown"}
MARK = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}", None: "?"}
"""For those who see no colours."""

_TICKS = (0.25, 0.5, 1, 2, 4)
_LOWEST, _HIGHEST = math.log(0.2), math.log(5)


def ring(met: int, judged: int) -> Markup:
    """A ring with the share of met targets."""
    around = 2 * math.pi * 54
    part = around * met / judged if judged else 0
    circle = '<circle cx="66" cy="66" r="54" fill="none" stroke-width="11" stroke="var(--{})"{}/>'
    arc = f' stroke-linecap="round" stroke-dasharray="{part:.1f} {around:.1f}" transform="rotate(-90 66 66)"'
    return Markup(
        '<svg class="ring" viewBox="0 0 132 132" role="img" aria-label="targets met">'
        + circle.format("line", "")
        + (circle.format("met", arc) if part else "")
        + f'<text x="66" y="73">{met}</text><text class="of" x="66" y="92">of {judged}</text></svg>'
    )


def targets(verdicts: Sequence[tuple[str, Verdict]]) -> Markup:
    """One line per target: the measured figure on a logarithmic axis of multiples of the target."""
    names = (el("span", "the target" if at == 1 else f"{short(at)}{TIMES}", left=_place(at)) for at in _TICKS)
    axis = el("div", el("div", cls="title"), el("div", *names, cls="plot"), cls="target axis")
    lines, last = [axis], ""
    for title, verdict in verdicts:
        lines.append(_target("" if title == last else title, verdict))
        last = title
    return join(*lines)


def _target(title: str, verdict: Verdict) -> Markup:
    marks = [el("div", cls="one" if at == 1 else "tick", left=_place(at)) for at in _TICKS]
    shown = "-"
    if value := verdict.value:
        low, middle, high = (_place(_margin(verdict, part)) for part in (value.low, value.median, value.high))
        marks.append(el("div", cls="span", left=min(low, high), width=abs(high - low)))
        marks.append(el("div", cls="dot", left=middle))
        shown = figure(verdict.target, value.median)
    return el(
        "div",
        el("div", title, cls="title" if title else "title again"),
        el("div", *marks, cls="plot"),
        el("div", shown, el("small", f"{MARK[verdict.met]} {verdict.word}"), cls="value"),
        el("div", "; ".join(text for text in (verdict.wanted(), verdict.note) if text), cls="wanted"),
        cls=f"target {KIND[verdict.met]}",
    )


def _place(margin: float) -> float:
    """The position on the axis in percent; values off the scale are at its edge."""
    return 100 * (min(max(math.log(margin), _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)


def _margin(verdict: Verdict, value: float) -> float:
    """How many times better than the target. Zero of a quantity that should be small is the best value."""
    bound, at_least = verdict.target.bound, verdict.target.at_least
    if value <= 0:
        return 1e-9 if at_least else 1e9
    return value / bound if at_least else bound / value


def bars(result: CaseResult, rows: Sequence[Row]) -> Markup:
    """Speed as a thick bar with the spread of the rounds, CPU as a thin bar, the baseline as a line through all."""
    if not rows:
        return Markup("")
    fastest = max(row.bytes_per_s.high for row in rows)
    dearest = max((cost for row in rows if (cost := row.cpu_ns_per_byte) is not None), default=0.0)
    base = result.row(result.case.baseline)
    line = el("div", cls="base", left=100 * base.bytes_per_s.median / fastest) if base else Markup("")
    return join(*(_bar(result, row, fastest, dearest, line) for row in rows))


def _bar(result: CaseResult, row: Row, fastest: float, dearest: float, line: Markup) -> Markup:
    speed, took, cost = row.bytes_per_s, row.ns_per_read, row.cpu_ns_per_byte
    low, median, high = (100 * value / fastest for value in (speed.low, speed.median, speed.high))
    marks = [line, el("div", cls="bar", width=median), el("div", cls="whisker", left=low, width=high - low)]
    if cost is not None and dearest:
        marks.append(el("div", cls="cpu", width=100 * cost / dearest))
    cpu = cpu_text(result, row)
    ratio = "" if row.ratio is None else f"{short(row.ratio.median)}{TIMES}"
    notes = " · ".join(text for text in (f"{cpu} CPU" if cpu else time_text(took.median), ratio) if text)
    call = f"{row.call} · {row.served_by}" if row.served_by else row.call
    title = f"{time_text(took.low)} to {time_text(took.high)} for each {result.case.unit}"
    return el(
        "div",
        el("div", row.name, el("small", call), cls="who"),
        el("div", *marks, cls="track", title=title),
        el("div", speed_text(result, row), el("small", notes), cls="figures"),
        cls=f"row {row.role}",
    )


def legend(result: CaseResult, rows: Sequence[Row]) -> Markup:
    """The meaning of the bars and of the line."""
    unit = "bytes per second" if result.case.in_bytes else f"{result.case.unit}s per second"
    items = [("var(--ours)", f"{unit}, longer is faster")]
    if any(row.cpu_ns_per_byte is not None for row in rows):
        items.append(("var(--cpu)", "CPU, shorter is cheaper"))
    shown = [el("span", el("i", colour=colour), text) for colour, text in items]
    return el("div", *shown, el("span", f"┆ {result.case.baseline}"), cls="legend")


def memory_bar(row: MemoryRow, most: float) -> Markup:
    """Peak memory per byte read; the line marks the size of the result."""
    times, scale = row.grown / row.whole_bytes, 100 / max(most, 1)
    return el(
        "div",
        el("div", row.name, el("small", row.call), cls="who"),
        el("div", el("div", cls="base", left=scale), el("div", cls="bar", width=times * scale), cls="track"),
        el("div", f"{short(times)}{TIMES}", el("small", f"{size_text(row.grown)}"), cls="figures"),
        cls=f"row {row.role}",
    )
