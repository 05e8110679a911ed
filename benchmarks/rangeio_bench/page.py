"""The report as one self-contained HTML page, in light and dark mode, for all screen sizes and for print."""

from collections.abc import Iterable, Sequence
from importlib.resources import files

from rangeio.cli.sizes import short, size_text
from rangeio_bench import charts
from rangeio_bench.contender import Action
from rangeio_bench.html import TIMES, Markup, el, join
from rangeio_bench.report import cpu_text, ordered
from rangeio_bench.results import CaseResult, Report, Row, Verdict
from rangeio_bench.units import time_text

_CHAPTERS: tuple[tuple[str, str, tuple[Action, ...], str], ...] = (
    ("one", "One small read", ("each",), "4 KiB at a time, in the page cache: the cost of a call."),
    ("batch", "A batch of small reads", ("batch",), "Many records in one call, in the page cache."),
    (
        "device",
        "Small reads from the device",
        ("deep",),
        "Bypassing the page cache: the device and the queue depth determine the speed.",
    ),
    ("large", "Large reads", ("whole", "blocks"), "Hundreds of megabytes into one buffer."),
    ("ranges", "Ranges of a table", ("ranges",), "Column chunks, as requested by a Parquet reader."),
    ("fill", "Tensors of a model", ("fill",), "Many ranges, each into memory of its own."),
    ("files", "Small files", ("files",), "Thousands of files of 16 KiB, each opened, read whole and closed."),
    (
        "tasks",
        "Tasks and threads",
        ("tasks", "threads"),
        "Many reads at once, awaited under asyncio or each in a thread.",
    ),
    (
        "through",
        "Streams and files",
        ("stream", "through", "seeks"),
        "A file in order, and through file objects.",
    ),
)

_NOTES = (
    "Every contender runs once in each round, in a new random order. Bars are medians over "
    "the rounds, whiskers the slowest and the fastest round. Ratios are computed within each round, and "
    "their median is shown: it may differ from the quotient of two bars.",
    "The thin bar is the user and system CPU time of all threads of the process, without kernel threads; "
    "fio reports its own.",
    "Hot means that mincore(2) found the file in the page cache; cold, that posix_fadvise(2) emptied it "
    "before each run, confirmed by mincore(2). A host or a disk may cache below that, which cannot be "
    "detected here.",
    "The result of every contender is compared with the file, outside of the timed section. A contender "
    "that returns wrong bytes has no row.",
    "Baselines that read into memory use memory that was touched before. Libraries that return "
    "fresh memory pay for its page faults, as in a program; rangeio recycles its memory, and pays on "
    "the first read only. Freeing the last result is not timed for any contender.",
    "fio is a bound, not a peer: the same reads in C, without using the bytes. Its large blocks are in 4 "
    "KiB pages.",
    "A contender that needs an eighth of a case's time for one run runs only once, unless a target names it.",
    "Beside a busy thread os.pread has two speeds: it loses the GIL at nearly every read if the other "
    "CPU wakes quickly, and at few reads if that CPU is busy too. Its p99 of about 5 ms, the switch interval, "
    "says more than its median.",
    "On a virtual machine the third digit is not significant: look at the whiskers, and repeat the run.",
)


def render(report: Report) -> str:
    """The whole page."""
    chapters = [
        (key, title, lead, results)
        for key, title, actions, lead in _CHAPTERS
        if (results := [result for result in report.cases if result.case.action in actions])
    ]
    links = [(key, title) for key, title, _, _ in chapters]
    links += [("memory", "Memory")] if report.memory else []
    links = [("targets", "Targets"), *links, ("machine", "Machine"), ("notes", "How to read this")]
    body = el(
        "main",
        _header(report),
        el("nav", *(el("a", title, href=f"#{key}") for key, title in links)),
        _targets(report.verdicts()),
        *(
            _section(key, title, lead, el("div", *map(_card, results), cls="cards"))
            for key, title, lead, results in chapters
        ),
        _memory(report) if report.memory else "",
        _machine(report),
        _section("notes", "How to read this", "And what not to read into it.", _notes()),
    )
    style = files("rangeio_bench").joinpath("page.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", "rangeio bench"),
        el("style", Markup(style)),
    )
    return f"<!doctype html>\n{el('html', head, el('body', body), lang='en')}\n"


def _section(key: str, title: str, lead: str, *content: str) -> Markup:
    return el("section", el("h2", title), el("p", lead, cls="lead"), *content, id=key)


def _header(report: Report) -> Markup:
    met = [verdict.met for _, verdict in report.verdicts()]
    judged, kept = len(met) - met.count(None), met.count(True)
    machine = report.machine
    facts = (
        f"{machine.processor}, {machine.cpus} CPUs, {machine.kernel}; "
        f"{size_text(report.sample_bytes)} on {report.server or report.place}; {report.started}."
    )
    if report.quick:
        facts += " A quick run: the figures are rough."
    if judged < len(met):
        facts += f" {len(met) - judged} targets could not be measured here."
    return el(
        "header",
        charts.ring(kept, judged),
        el(
            "div",
            el("div", f"rangeio {report.version} · backend {report.backend}", cls="eyebrow"),
            el("h1", f"{kept} of {judged} targets met" if judged else "Measured, no target"),
            el("p", facts, cls="soft"),
        ),
    )


def _targets(verdicts: Sequence[tuple[str, Verdict]]) -> Markup:
    lead = (
        "Each mark is a measured figure, as a multiple of its target: right of the line the target is met (a dot), "
        "left of it missed (a diamond). "
        "The bar behind it spans the rounds; values off the scale are at its edge."
    )
    if not verdicts:
        return _section("targets", "Targets", "None of the selected cases has a target.")
    return _section("targets", "Targets", lead, el("div", charts.targets(verdicts), cls="card"))


def _card(result: CaseResult) -> Markup:
    case = result.case
    head = join(el("h3", case.title), el("p", case.why, cls="why"))
    if result.skipped:
        return el(
            "article", head, el("p", f"Skipped: {result.skipped}.", cls="failed"), cls="card", id=case.id
        )
    rows = ordered(result)
    facts = [result.what, result.cache, f"{result.rounds} rounds"]
    return el(
        "article",
        head,
        el(
            "div",
            *(el("span", fact, cls="chip") for fact in facts),
            *map(_chip, result.verdicts),
            cls="chips",
        ),
        charts.bars(result, rows),
        *(
            el("p", f"{row.name} {row.call}: {row.failure}", cls="failed")
            for row in result.rows
            if row.failure
        ),
        charts.legend(result, rows),
        _figures(result, rows),
        cls="card",
        id=case.id,
    )


def _chip(verdict: Verdict) -> Markup:
    return el(
        "span",
        f"{charts.MARK[verdict.met]} {verdict.word}: ",
        el("b", verdict.measured()),
        f", {verdict.wanted()}",
        cls=f"chip {charts.KIND[verdict.met]}",
    )


def _figures(result: CaseResult, rows: Sequence[Row]) -> Markup:
    """The figures of the bars."""
    heads = [
        "",
        "median",
        "fastest",
        "slowest",
        "p99",
        "CPU",
        "requests",
        "fetched",
        "ratio",
        "ratios",
        "version",
    ]
    body = []
    for row in rows:
        took, ratio = row.ns_per_read, row.ratio
        body.append(
            [
                f"{row.name} {row.call}",
                *(time_text(value) for value in (took.median, took.low, took.high)),
                "" if row.p99_ns is None else time_text(row.p99_ns),
                cpu_text(result, row),
                "" if row.requests_per_read is None else short(row.requests_per_read),
                f"{short(row.device_ratio)}{TIMES}" if row.device_ratio else "",
                f"{short(ratio.median)}{TIMES}" if ratio else "",
                f"{short(ratio.low)} to {short(ratio.high)}" if ratio else "",
                row.version,
            ]
        )
    return _table(f"Figures, for each {result.case.unit}", heads, body)


def _table(title: str, heads: Sequence[str], body: Iterable[Sequence[str]]) -> Markup:
    head = el("thead", el("tr", *(el("th", text, scope="col") for text in heads)))
    rows = [el("tr", el("th", name, scope="row"), *(el("td", text) for text in rest)) for name, *rest in body]
    table = el("table", el("caption", title), head, el("tbody", *rows))
    return el("details", el("summary", title), el("div", table, cls="scroll"))


def _memory(report: Report) -> Markup:
    rows = [row for row in report.memory if not row.failure]
    whole = sorted((row for row in rows if row.first_read is not None), key=lambda row: row.grown)
    size = report.memory[0].whole_bytes
    lead = (
        f"Each in a separate process: the growth of its peak resident memory when {size_text(size)} are read whole, "
        "twice, with the first result dropped in between; then many reads of 4 KiB, during which it should not grow."
    )
    heads = ["", "first read", "second read", "small reads", "drift", "version"]
    body = [
        [
            f"{row.name} {row.call}",
            *("" if part is None else size_text(part) for part in (row.first_read, row.second_read)),
            f"{row.reads:,}",
            size_text(row.drift),
            row.version,
        ]
        for row in rows
    ]
    most = max((row.grown / size for row in whole), default=1.0)
    card = el(
        "article",
        el("h3", "Memory for each byte read"),
        el("p", f"1{TIMES} is the result itself; a mapped file counts the touched pages.", cls="why"),
        el("div", *map(_chip, report.memory_verdicts), cls="chips"),
        *(charts.memory_bar(row, most) for row in whole),
        _table("Figures", heads, body),
        cls="card",
    )
    return _section("memory", "Memory", lead, el("div", card, cls="cards"))


def _machine(report: Report) -> Markup:
    machine, place = report.machine, report.place
    device = "none of its own"
    if place.device:
        device = (
            f"{place.device} {place.model}, {size_text(place.bytes)}, scheduler {place.scheduler}, "
            f"read-ahead {size_text(place.read_ahead)}"
        )
    versions = {row.name: row.version for result in report.cases for row in result.rows if row.version}
    facts = {
        "backend": f"{report.backend}: {report.reason}",
        "processor": f"{machine.processor}, {machine.cpus} CPUs usable, {size_text(machine.memory)} of memory",
        "system": f"{machine.kernel}, {machine.system}, {machine.python}",
        "load before": f"{machine.load} (well above 0: other processes affected the measurement)",
        "file system": f"{place.file_system} ({place.options})",
        "device": device,
        "server": report.server,
        "sample": size_text(report.sample_bytes),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "absent": ", ".join(sorted({text for result in report.cases for text in result.absent})),
        "command": report.command,
        "took": f"{report.elapsed_s:.0f} s",
    }
    items = (join(el("dt", name), el("dd", value)) for name, value in facts.items() if value)
    card = el("div", el("dl", *items, cls="facts"), cls="card")
    return _section("machine", "Machine", "The machine that was measured.", card)


def _notes() -> Markup:
    return el("div", el("ul", *(el("li", note) for note in _NOTES), cls="notes"), cls="card")
