"""The bench itself: it must read what it says, judge as it says, destroy nothing, and survive whoever fails."""

import html.parser
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need

from rangeio.cli import main
from rangeio.cli.machine import Machine, Place, machine, place, resident_share, usable_cpus
from rangeio.cli.sizes import short, size_text
from rangeio_bench import markdown, memory, page, report
from rangeio_bench.cases import CASES, EVERYONE, Case, Target
from rangeio_bench.conditions import busy_thread, direct_refused, evict, on_cpus, resident, warm
from rangeio_bench.contender import FLEETING, Contender, Sample, Scratch, Setting
from rangeio_bench.html import el, join
from rangeio_bench.http.cases import HTTP_CASES
from rangeio_bench.judge import compare
from rangeio_bench.results import CaseResult, MemoryRow, Report, Row, Spread
from rangeio_bench.runner import Bench, Options, chosen
from rangeio_bench.sample import SampleError, ensure_file, ensure_small_files
from rangeio_bench.session import Session
from rangeio_bench.units import rate_text, time_text
from rangeio_bench.work import (
    RECORD,
    SMALL_FILE,
    Work,
    WrongBytesError,
    column_chunks,
    random_records,
    small_files,
    whole_file,
)

pytestmark = pytest.mark.usefixtures("bench_of_the_sources")

SIZE = 16 << 20
TINY = Options(
    rounds=2,
    min_rounds=2,
    case_s=0.2,
    sample_s=0.001,
    busy_sample_s=0.005,
    large_bytes=SIZE,
    ranges=80,
    files=20,
    deep_reads=256,
    memory_reads=1000,
    memory_s=0.1,
)


def silent(done: float, text: str = "") -> None:
    """Progress for nobody."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    path = tmp_path_factory.mktemp("bench") / "sample.bin"
    ensure_file(path, SIZE, silent)
    made = Bench(path, SIZE, path.with_name("files"), TINY)
    ensure_small_files(made.works(chosen(["files-hot"])[0])[0], silent)
    return made


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.id == name)


# --- the sample ----------------------------------------------------------------------------------------------


def test_a_sample_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    done: list[float] = []
    assert ensure_file(path, 20 << 20, done.append) == 20 << 20
    assert done == sorted(done)
    assert len(done) > 1
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert ensure_file(path, None, silent) == ensure_file(path, 20 << 20, silent) == 20 << 20
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_sample_never_replaces_anything(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"data")
    with pytest.raises(SampleError, match="4 bytes"):
        ensure_file(path, 5, silent)
    with pytest.raises(SampleError, match="not a regular file"):
        ensure_file(tmp_path, None, silent)
    work = small_files(tmp_path / "files", 3)
    (tmp_path / "files/00").mkdir(parents=True)
    (tmp_path / "files/00/00001.bin").write_bytes(b"mine")
    with pytest.raises(SampleError, match="remove it"):
        ensure_small_files(work, silent)
    assert (tmp_path / "files/00/00001.bin").read_bytes() == b"mine"
    assert path.read_bytes() == b"data"


def test_a_sample_that_is_too_large_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="free"):
        ensure_file(tmp_path / "s.bin", 1 << 60, silent)
    assert not list(tmp_path.iterdir())


def test_half_a_sample_does_not_stay(tmp_path: Path) -> None:
    def interrupt(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_file(tmp_path / "s.bin", 1 << 20, interrupt)
    assert not list(tmp_path.iterdir())


# --- what is read --------------------------------------------------------------------------------------------


def test_works_are_the_same_every_time(tmp_path: Path) -> None:
    assert random_records(tmp_path, 1 << 30, 1000) == random_records(tmp_path, 1 << 30, 1000)
    assert random_records(tmp_path, 1 << 30, 1000) != random_records(tmp_path, 1 << 30, 1000, salt=1)
    assert column_chunks(tmp_path, 1 << 30) == column_chunks(tmp_path, 1 << 30)
    assert small_files(tmp_path, 100) == small_files(tmp_path, 100)


def test_records_cannot_be_merged(tmp_path: Path) -> None:
    work = random_records(tmp_path, 1 << 24, 1000)
    assert len(set(work.offsets)) == 1000
    assert not any(offset % (2 * RECORD) for offset in work.offsets)
    assert max(work.offsets) + RECORD <= 1 << 24


def test_column_chunks_are_as_described(tmp_path: Path) -> None:
    work = column_chunks(tmp_path, 1 << 30)
    assert work.reads == 2000
    assert 115e6 < work.nbytes < 130e6
    assert min(work.lengths) >= 8 << 10
    assert max(work.lengths) <= 256 << 10
    gaps = [start - stop for (_, stop), (start, _) in zip(work.pairs, work.pairs[1:], strict=False)]
    assert min(gaps) == 0
    assert sum(0 < gap <= 64 << 10 for gap in gaps) > 500
    assert work.pairs[-1][1] <= 1 << 30
    assert any(offset % 512 for offset in work.offsets)


def test_column_chunks_of_a_small_file_stay_inside(tmp_path: Path) -> None:
    work = column_chunks(tmp_path, 1 << 20)
    assert work.reads
    assert work.pairs == sorted(work.pairs)
    assert work.pairs[-1][1] <= 1 << 20


def test_a_whole_file_in_blocks(tmp_path: Path) -> None:
    work = whole_file(tmp_path, 10 << 20, 4 << 20)
    assert work.pairs == [(0, 4 << 20), (4 << 20, 8 << 20), (8 << 20, 10 << 20)]


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("shape", ["list", "table"])
def test_wrong_bytes_are_found(bench: Bench, thorough: bool, shape: str) -> None:
    work = random_records(bench.path, SIZE, 8)
    data = bench.path.read_bytes()
    right = [data[start:stop] for start, stop in work.pairs]
    result: Any = right if shape == "list" else b"".join(right)
    work.check(result, thorough=thorough)
    wrong = [bytes(RECORD)] * 8
    for bad in (
        wrong if shape == "list" else b"".join(wrong),
        right[:-1] if shape == "list" else b"".join(right)[1:],
    ):
        with pytest.raises(WrongBytesError):
            work.check(bad, thorough=thorough)


def test_one_wrong_byte_is_found(bench: Bench) -> None:
    work = whole_file(bench.path, SIZE)
    data = bytearray(bench.path.read_bytes())
    data[12_345_678] ^= 1
    with pytest.raises(WrongBytesError):
        work.check(data, thorough=True)


# --- conditions ----------------------------------------------------------------------------------------------


def test_the_page_cache_is_filled_and_emptied(bench: Bench) -> None:
    work = whole_file(bench.path, SIZE)
    warm(work)
    if resident(work) is None:
        pytest.skip("mincore(2) does not say")
    assert resident(work) == 1.0
    if place(bench.path).file_system == "tmpfs":
        pytest.skip("a file in memory cannot leave it")
    assert evict(work) == resident(work) == 0.0


def test_an_empty_file_has_no_residency(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as file:
        assert resident_share(file.fileno()) is None


def test_cpus_are_given_back() -> None:
    before = usable_cpus()
    with on_cpus(1):
        assert len(usable_cpus()) == 1
    assert usable_cpus() == before


def test_a_busy_thread_ends() -> None:
    import threading

    before = {*threading.enumerate()}
    with busy_thread(True):
        assert len({*threading.enumerate()} - before) == 1
    assert {*threading.enumerate()} <= before


# --- contenders ----------------------------------------------------------------------------------------------

ABLE = [
    pytest.param(case, kind, id=f"{case.id}-{kind.__name__}")
    for case in CASES
    if not case.busy and case.group != 128
    for kind in case.contenders()
    if kind.role in ("ours", "baseline")
]


@pytest.mark.parametrize(("case", "kind"), ABLE)
def test_everybody_reads_the_right_bytes(bench: Bench, case: Case, kind: type[Contender]) -> None:
    if reason := bench.obstacle(case):
        pytest.skip(reason)
    some = {"each": 16, "seeks": 16, "tasks": 1}.get(
        case.action
    )  # tasks do not end in the order in which they begin
    work = bench.works(case)[0].first(some) if some else bench.works(case)[0]
    contender = kind(bench.setting(case))
    try:
        sample, result = contender.measure(case.action, [work, work])
        assert (sample.reads, sample.nbytes) == (2 * work.reads, 2 * work.nbytes)
        assert sample.elapsed_ns > 0
        if case.action in FLEETING:
            Work(work.path, work.offsets[-1:], work.lengths[-1:]).check([result], thorough=True)
        else:
            work.check(result, thorough=True)
    finally:
        del result
        contender.release_pages()
        contender.close()


def test_every_action_has_its_method() -> None:
    for kind in EVERYONE:
        for action in kind.calls:
            assert kind.name == "fio" or callable(getattr(kind, f"_{action}")), (kind, action)


def test_who_is_left_out_says_why() -> None:
    class Newer(Contender):
        module = distribution = "no-such-module"
        needs_python = (9, 9)

    class Missing(Contender):
        module, distribution = "no_such_module", "no-such-library"

    assert Newer.absence() == "no-such-module needs Python 9.9"
    assert Missing.absence() == "no-such-library is not installed"
    assert Contender.absence() == ""


def test_case_names_are_unique_and_chosen_by_parts() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.id for case in chosen(["files", "each-4k-b"])} == {"files-hot", "files-cold", "each-4k-busy"}
    assert chosen([]) == list(CASES)
    with pytest.raises(ValueError, match="each-4k"):
        chosen(["nothing"])


# --- rounds and verdicts -------------------------------------------------------------------------------------


def test_a_case(bench: Bench) -> None:
    steps: list[tuple[float, str]] = []
    result = bench.run(case_of("each-4k"), lambda done, text: steps.append((done, text)))
    ours, base = result.row("rangeio"), result.row("os.pread")
    assert ours is not None
    assert base is not None
    assert result.rounds == len(ours.samples) == 2
    assert base.ratio == Spread(1, 1, 1)
    assert ours.served_by.startswith(("uring", "pool", "python"))
    assert all(0 <= done <= 1 for done, _ in steps)
    assert result.verdicts[0].met is not None
    assert "100% in the page cache" in result.cache or "unknown" in result.cache


@pytest.mark.parametrize("where", ["tmpfs", "overlay"])
def test_a_case_on_another_file_system(bench: Bench, where: str) -> None:
    """A copy of the sample is read there, and removed."""
    case = case_of(f"tasks-1-4k-{where}")
    result = bench.run(case, silent)
    need(not result.skipped, result.skipped)
    copy = bench.path_of(case)
    assert place(copy).file_system == where
    assert all(not row.failure for row in result.rows)
    bench.close()
    assert not copy.exists()


def test_a_cold_case_says_how_cold(bench: Bench) -> None:
    if place(bench.path).file_system == "tmpfs":
        assert bench.run(case_of("ranges-cold"), silent).skipped
        return
    result = bench.run(case_of("ranges-cold"), silent)
    assert "0% in the page cache before each run" in result.cache or "unknown" in result.cache
    ours = result.row("rangeio")
    assert ours is not None
    assert ours.device_ratio is None or ours.device_ratio > 0.9


class Liar(Contender):
    """Returns zeros."""

    name = "liar"
    calls = {"batch": "zeros"}

    def _batch(self, work: Work) -> bytes:
        return bytes(work.nbytes)


class Absent(Liar):
    name = "absent"
    module = "a_module_that_is_not_there"


class Broken(Liar):
    name = "broken"

    def __init__(self, setting: Setting) -> None:
        raise RuntimeError("does not work\nhere")


def test_whoever_fails_loses_the_row_and_nobody_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from rangeio_bench import cases

    monkeypatch.setattr(cases, "EVERYONE", (*EVERYONE[:3], Liar, Absent, Broken))
    result = bench.run(case_of("batch-128-1core"), silent)
    failures = {row.name: row.failure for row in result.rows}
    assert "differ" in failures["liar"]
    assert failures["broken"] == "RuntimeError: does not work here"
    assert failures["rangeio"] == failures["os.pread"] == ""
    assert result.absent == ["a_module_that_is_not_there is not installed"]
    text = report.case_text(result)
    assert "liar zeros: excluded" in text


def result_with(target: Target, **speeds: list[tuple[int, int | None]]) -> CaseResult:
    """A case with one target, and rows of samples given as (elapsed, cpu) of 1,000 bytes in 10 reads."""
    case = Case("id", "title", "why", "each", "hot", "os.pread", (target,))
    result = CaseResult(case, "hot", "what", rounds=3)
    for name, samples in speeds.items():
        row = Row(name.replace("_", "."), "call", "ours" if name == "rangeio" else "baseline", "1.0")
        row.samples = [Sample(elapsed, cpu, 10, 1000, 1100) for elapsed, cpu in samples]
        result.rows.append(row)
    compare(result)
    return result


def test_ratios_are_taken_round_by_round() -> None:
    # The machine slows down tenfold in the second round; within each round we are twice as fast.
    result = result_with(
        Target("rate", 2.0, ("os.pread",)),
        rangeio=[(100, 1), (1000, 1), (100, 1)],
        os_pread=[(200, 1), (2000, 1), (200, 1)],
    )
    assert result.verdicts[0].value == Spread(2.0, 2.0, 2.0)
    assert result.verdicts[0].met is True


def test_the_fastest_rival_counts_in_each_round() -> None:
    result = result_with(
        Target("rate", 1.0, ("os.pread", "mmap")),
        rangeio=[(100, 1), (100, 1), (100, 1)],
        os_pread=[(50, 1), (200, 1), (100, 1)],
        mmap=[(200, 1), (80, 1), (100, 1)],
    )
    assert result.verdicts[0].value == Spread(0.8, 0.5, 1.0)
    assert result.verdicts[0].met is False


def test_what_reads_as_equal_is_met() -> None:
    """ "0.4x, at most 0.4x" must not be marked as missed."""
    target = Target("cpu ratio", 0.4, ("os.pread",))
    result = result_with(target, rangeio=[(1, 4004)] * 3, os_pread=[(1, 10000)] * 3)
    assert result.verdicts[0].measured() == "0.4x"
    assert result.verdicts[0].met is True
    result = result_with(target, rangeio=[(1, 4060)] * 3, os_pread=[(1, 10000)] * 3)
    assert result.verdicts[0].met is False


def test_who_ran_in_the_first_round_only_counts_there() -> None:
    result = result_with(
        Target("rate", 1.0, ("os.pread",)), rangeio=[(100, 1), (1, 1), (1, 1)], os_pread=[(200, 1)]
    )
    assert result.verdicts[0].value == Spread(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target("cpu ratio", 1 / 3, ("os.pread",)), 0.25, True),
        (Target("cpu per read", 3), 2.5, True),
        (Target("cpu per read", 2), 2.5, False),
        (Target("device bytes", 1.05), 1.1, False),
    ],
)
def test_other_figures(target: Target, value: float, met: bool) -> None:
    verdict = result_with(target, rangeio=[(100, 25)] * 3, os_pread=[(100, 100)] * 3).verdicts[0]
    assert verdict.value is not None
    assert verdict.value.median == pytest.approx(value)
    assert verdict.met is met


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ({"os_pread": [(1, 1)]}, "rangeio did not run"),
        ({"rangeio": [(1, 1)]}, "fio did not run"),
        ({"rangeio": [(1, None)], "fio": [(1, 1)]}, ""),
    ],
)
def test_what_cannot_be_judged_says_why(rows: dict[str, Any], note: str) -> None:
    verdict = result_with(Target("rate", 1.0, ("fio",)), **rows).verdicts[0]
    assert (verdict.met is None) is bool(note)
    assert verdict.note == note


def test_a_missing_figure_is_no_verdict() -> None:
    verdict = result_with(Target("cpu per read", 1), rangeio=[(1, None)]).verdicts[0]
    assert verdict.word == "not measured"


# --- memory --------------------------------------------------------------------------------------------------


def test_memory_is_measured_in_a_process_of_its_own(bench: Bench) -> None:
    setting = Setting(bench.path, bench.folder, bench.scratch)
    rows = memory.measure(memory.KINDS[:2], setting, SIZE, 1000, 0.1, silent)
    assert [row.failure for row in rows] == ["", ""]
    for row in rows:
        assert row.first_read is not None
        assert row.first_read > SIZE * 0.9
        assert row.reads >= 1000
    verdicts = memory.judge(rows)
    assert all(verdict.met is not None for verdict in verdicts)
    assert "Resident memory" in report.memory_text(rows, verdicts)


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    setting = Setting(tmp_path / "gone", tmp_path, Scratch())
    (row,) = memory.measure(memory.KINDS[:1], setting, SIZE, 1, 0.1, silent)
    assert "gone" in row.failure
    assert memory.judge([row])[0].met is None


# --- reports -------------------------------------------------------------------------------------------------


def some_report() -> Report:
    result = result_with(
        Target("rate", 1.0, ("os.pread",)), rangeio=[(100, 25), (110, 30)], os_pread=[(200, 100), (210, 100)]
    )
    result.rows.append(Row("<b>&", "call", "peer", "1", failure="<script>alert(1)</script>"))
    skipped = CaseResult(case_of("files-cold"), "", "", skipped="no <disk>")
    compare(skipped)
    rows = [MemoryRow("rangeio", "read_at", "ours", "1", 1000, 1010, 0, 10, 0)]
    return Report(
        version="1.0",
        backend="uring",
        reason="works",
        machine=Machine("Linux", "a <system>", "cpu", 2, 1 << 30, "CPython", 0.1),
        place=Place("ext4", "rw", "sda", "disk", 1 << 40, False, "none", 0),
        sample_bytes=1 << 30,
        started="now",
        quick=True,
        command="rangeio bench",
        cases=[result, skipped],
        memory=rows,
        memory_verdicts=memory.judge(rows),
    )


class Balance(html.parser.HTMLParser):
    """Fails on a tag that is not closed in turn, and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "circle"):
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag != "circle":
            assert self.open.pop() == tag


def test_the_page_stands_alone() -> None:
    text = page.render(some_report())
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    assert all(address.startswith("#") for address in parser.loaded)
    assert "url(" not in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "no &lt;disk&gt;" in text
    anchors = set(re.findall(r'id="([\w-]+)"', text))
    assert {address[1:] for address in parser.loaded} <= anchors


def test_the_page_of_nothing_is_a_page() -> None:
    empty = some_report()
    empty.cases, empty.memory, empty.memory_verdicts = [], [], []
    assert "no target" in page.render(empty)


def test_the_json_holds_every_sample(tmp_path: Path) -> None:
    report.write_json(some_report(), tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    row = data["cases"][0]["rows"][0]
    assert [sample["elapsed_ns"] for sample in row["samples"]] == [100, 110]
    assert row["ns_per_read"] == {"median": 10.5, "low": 10.0, "high": 11.0}
    assert data["cases"][0]["verdicts"][0]["met"] is True
    assert data["cases"][1]["skipped"] == "no <disk>"
    assert data["machine"]["kernel"] == "Linux"


def test_the_text_names_what_it_shows() -> None:
    made = some_report()
    text = "\n".join([report.heading(made), *map(report.case_text, made.cases), report.summary(made)])
    for word in (
        "uring",
        "ext4",
        "os.pread",
        "baseline",
        "skipped: no <disk>",
        "met",
        "at least 1x os.pread",
    ):
        assert word in text


def test_a_run_fills_its_section_of_a_page(tmp_path: Path) -> None:
    path = tmp_path / "figures.md"
    made = some_report()
    markdown.update(path, "files", markdown.of_report(made))
    path.write_text(path.read_text() + "\nby hand\n")
    markdown.update(path, "objects", "## Objects\n\nnothing")
    made.cases[0].verdicts[0] = replace(made.cases[0].verdicts[0], value=Spread(0.5, 0.4, 0.6))
    markdown.update(path, "files", markdown.of_report(made))
    text = path.read_text()
    assert text.startswith("# Figures\n")
    assert text.count("## Local files") == 1
    assert "by hand" in text
    assert "## Objects" in text
    (row,) = [line for line in text.splitlines() if "at least 1x os.pread" in line]
    assert row.split(" | ")[1:3] == ["**0.5x**", "0.4 to 0.6"]
    assert markdown.table(["a|b"], [["c\nd"]]) == "| a\\|b |\n| --- |\n| c d |\n"


def test_markup_escapes_what_is_not_markup() -> None:
    assert el("p", "a < b", el("b", "c"), cls='x"y') == '<p class="x&quot;y">a &lt; b<b>c</b></p>'
    assert el("i", left=12.345, width=1) == '<i style="left:12.35%;width:1.00%;"></i>'
    assert join("<", el("b")) == "&lt;<b></b>"


def test_figures_for_people() -> None:
    assert [size_text(n) for n in (0, 17, 4096, 1536, 1 << 30)] == [
        "0 B",
        "17 B",
        "4 KiB",
        "1.5 KiB",
        "1 GiB",
    ]
    assert [time_text(n) for n in (478, 1500, 2.5e6, 12e9)] == ["478 ns", "1.5 µs", "2.5 ms", "12 s"]
    assert [rate_text(n) for n in (5, 91_400, 2_130_000)] == ["5", "91.4 k", "2.13 M"]
    assert [short(n) for n in (0.123, 1.0, 12.34, 1234.5)] == ["0.12", "1", "12.3", "1234"]


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rangeio_bench import cases

    monkeypatch.chdir(tmp_path)

    class Absent(EVERYONE[0]):  # type: ignore[misc]
        name, module = "absent", "a_module_that_is_not_there"

    known = [k for k in EVERYONE if k.role in ("ours", "baseline")]
    monkeypatch.setattr(cases, "EVERYONE", (*known, Absent))
    monkeypatch.setattr(Options, "quick", lambda: TINY)
    monkeypatch.setattr(Session, "memory_kinds", memory.KINDS[:1])
    arguments = [
        "bench",
        "new/s.bin",
        "--size",
        "16MiB",
        "--quick",
        "--cases",
        "files-hot,batch-128-2,memory",
    ]
    monkeypatch.setattr(sys, "argv", ["rangeio", *arguments])
    assert main([*arguments, "--rounds", "1", "--json", "out.json", "--report", "out.html"]) == 0
    text = capsys.readouterr()
    assert text.err == ""
    assert "Left out: a_module_that_is_not_there is not installed." in text.out.partition("Small files")[0]
    assert "Resident memory" in text.out
    assert (tmp_path / "new/s.bin").stat().st_size == 16 << 20
    data = json.loads((tmp_path / "out.json").read_text())
    assert [result["case"]["id"] for result in data["cases"]] == ["batch-128-2core", "files-hot"]
    assert [result["rounds"] for result in data["cases"]] == [1, 1]
    assert data["command"].startswith("rangeio bench")
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")
    assert sorted(os.listdir(tmp_path)) == ["new", "out.html", "out.json"]
    assert len(list((tmp_path / "new/s.bin.files").rglob("*.bin"))) == TINY.files
    assert main(["bench", "new/s.bin", "--size", "17MiB", "--no-report"]) == 1
    assert "exists with 16777216 bytes" in capsys.readouterr().err


def test_the_cases_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    assert capsys.readouterr().out.split() == [*(case.id for case in (*CASES, *HTTP_CASES)), "memory"]


def test_the_machine_is_described(tmp_path: Path) -> None:
    assert machine().cpus >= 1
    assert place(tmp_path).file_system
    assert isinstance(direct_refused(tmp_path / "gone"), str)


def test_scratch_is_touched_aligned_and_shared() -> None:
    scratch = Scratch()
    large = scratch.bytes(1 << 20)
    assert large.ctypes.data % 4096 == 0
    assert scratch.bytes(100).base is not None
    large[:] = 7
    scratch.spoil()
    assert (large != 7).all()
    assert SMALL_FILE % 4096 == 0
