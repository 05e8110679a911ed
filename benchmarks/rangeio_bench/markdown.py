"""Figures as a page of Markdown. Each run fills its own section of the page, and leaves the others as they are."""

import re
from collections.abc import Iterable
from pathlib import Path

from rangeio.cli.sizes import short, size_text
from rangeio_bench.results import Report, Verdict

_EMPTY = "# Figures\n"


def update(page: Path, name: str, text: str) -> None:
    """Replace the section of this name, which comments delimit; append it if there is none, or no page."""
    before = page.read_text() if page.exists() else _EMPTY
    section = f"<!-- bench: {name} -->\n{text.strip()}\n<!-- end: {name} -->"
    pattern = re.compile(rf"<!-- bench: {re.escape(name)} -->.*?<!-- end: {re.escape(name)} -->", re.DOTALL)
    after, found = pattern.subn(lambda _: section, before, count=1)
    page.write_text(after if found else f"{before.rstrip()}\n\n{section}\n")


def name_of(report: Report) -> str:
    """The section of a run: files, or objects."""
    return "objects" if report.server else "files"


def of_report(report: Report) -> str:
    """What was measured, where, and each target with its figure; missed ones in bold."""
    machine = report.machine
    title = "Objects on a server" if report.server else "Local files"
    said = (
        f"Measured on {report.started} by `{report.command}`: rangeio {report.version}, backend {report.backend}; "
        f"{machine.processor}, {machine.cpus} CPUs, {size_text(machine.memory)}, load {machine.load}; "
        f"{machine.kernel}, {machine.python}; {size_text(report.sample_bytes)} on {report.server or report.place}. "
        "Each figure is the median of the rounds, a ratio to a baseline of its round; **bold: the aim was missed**."
    )
    rows = [[case, _figure(verdict), _span(verdict), verdict.wanted()] for case, verdict in report.verdicts()]
    return f"## {title}\n\n{said}\n\n" + table(["case", "measured", "lowest and highest", "aim"], rows)


def _figure(verdict: Verdict) -> str:
    return f"**{verdict.measured()}**" if verdict.met is False else verdict.measured()


def _span(verdict: Verdict) -> str:
    value = verdict.value
    return "" if value is None or value.low == value.high else f"{short(value.low)} to {short(value.high)}"


def table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; what a cell must not contain is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("\\", "\\\\").replace("|", "\\|")).strip()
