"""The bench of objects on a server: against the bench's own server, which must be honest itself."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rangeio.cli import main
from rangeio_bench.command import _as_shown
from rangeio_bench.contender import FLEETING, Contender
from rangeio_bench.http.cases import CLIENTS, HTTP_CASES, HttpCase
from rangeio_bench.http.clients import Client
from rangeio_bench.http.paced import Counted, Paced
from rangeio_bench.http.remote import HttpBench, Where, download, server_of
from rangeio_bench.runner import Options
from rangeio_bench.sample import ensure_file
from rangeio_bench.session import HttpSession
from rangeio_bench.work import Work, far_columns

pytestmark = pytest.mark.usefixtures("bench_of_the_sources")

SIZE = 16 << 20
TINY = Options(
    rounds=2, min_rounds=2, case_s=0.2, sample_s=0.001, large_bytes=SIZE, memory_reads=100, memory_s=0.1
)


def silent(done: float, text: str = "") -> None:
    """Progress for nobody."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("http") / "sample.bin"
    ensure_file(path, SIZE, silent)
    return path


@pytest.fixture
def server(sample: Path) -> Iterator[Paced]:
    """As fast as it can."""
    made = Paced(sample, pace=0, wait_s=0.0)
    yield made
    made.close()


@pytest.fixture
def bench(sample: Path, server: Paced) -> Iterator[HttpBench]:
    made = HttpBench(Where(server.url), sample, TINY)
    yield made
    made.close()


def case_of(name: str) -> HttpCase:
    return next(case for case in HTTP_CASES if case.id == name)


# --- the server ----------------------------------------------------------------------------------------------


def ask(server: Paced, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    try:
        connection.request(method, parts.path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_the_server_is_honest_and_counts(server: Paced, sample: Path) -> None:
    data = sample.read_bytes()
    assert server.counted() == Counted(0, 0)
    response, body = ask(server, Range="bytes=100-199")
    assert (response.status, body) == (206, data[100:200])
    assert response.getheader("content-range") == f"bytes 100-199/{SIZE}"
    response, body = ask(server, Range=f"bytes={SIZE - 5}-{SIZE + 5}")
    assert (response.status, body) == (206, data[-5:])
    assert ask(server)[1] == data
    response, body = ask(server, "HEAD")
    assert (response.getheader("content-length"), body) == (str(SIZE), b"")
    assert ask(server, Range=f"bytes={SIZE}-")[0].status == 416
    counted = server.counted()
    assert counted.requests == 5
    assert SIZE + 105 < counted.nbytes < SIZE + 105 + 5 * 400


def test_the_server_ends_with_its_bench(sample: Path) -> None:
    server = Paced(sample, pace=1 << 20, wait_s=0.0)
    server.close()
    with pytest.raises(OSError):
        server.counted()


# --- who reads -----------------------------------------------------------------------------------------------

NEEDED = {"Rangeio", "RangeioAwaiting", "HttpClient", "Urllib3"}
ABLE = [
    pytest.param(case, kind, id=f"{case.id}-{kind.__name__}")
    for case in HTTP_CASES
    if case.server == "given"
    for kind in case.contenders()
    if kind.__name__ in NEEDED
]


@pytest.mark.parametrize(("case", "kind"), ABLE)
def test_everybody_reads_the_right_bytes(bench: HttpBench, case: HttpCase, kind: type[Contender]) -> None:
    some = {"each": 16, "threads": 1, "tasks": 1, "batch": 16}.get(case.action)
    work = bench.works(case)[0].first(some) if some else bench.works(case)[0]
    contender = kind(bench.setting(case))
    try:
        sample, result = contender.measure(case.action, [work, work])
        assert (sample.reads, sample.nbytes) == (2 * work.reads, 2 * work.nbytes)
        if case.action in FLEETING:
            Work(work.path, work.offsets[-1:], work.lengths[-1:]).check([result], thorough=True)
        else:
            work.check(result, thorough=True)
        del result
        if case.action in ("threads", "tasks", "batch"):
            assert isinstance(contender, Client)
            times = contender.latencies(case.action, bench.works(case)[0].first(64))
            assert len(times) >= 32  # of 64: not the first 16, nor those that 16 of them may have held up
            assert min(times) > 0
    finally:
        contender.close()


def test_every_action_has_its_method() -> None:
    for kind in CLIENTS:
        for action in kind.calls:
            assert callable(getattr(kind, f"_{action}")), (kind, action)


def test_a_case_with_the_paced_server_counts(bench: HttpBench) -> None:
    result = bench.run(case_of("paced-ranges"), silent)
    ours = result.row("rangeio")
    assert ours is not None
    assert not ours.failure
    assert ours.requests_per_read is not None
    assert 0 < ours.requests_per_read <= 1
    assert ours.device_ratio is not None
    assert ours.device_ratio >= 1
    assert all(verdict.met is not None for verdict in result.verdicts if not verdict.target.against)


def test_tls_is_left_out_with_its_reason(bench: HttpBench) -> None:
    assert "--tls" in bench.run(case_of("https-whole-16"), silent).skipped


def test_far_columns_are_as_described(tmp_path: Path) -> None:
    work = far_columns(tmp_path, 1 << 30)
    assert work.reads == 500
    assert 55e6 < work.nbytes < 75e6
    assert work == far_columns(tmp_path, 1 << 30)
    gaps = [start - stop for (_, stop), (start, _) in zip(work.pairs, work.pairs[1:], strict=False)]
    assert min(gaps) == 0
    assert 150 < sum(gap == 0 for gap in gaps) < 250
    assert work.pairs[-1][1] <= 1 << 30


# --- the command ---------------------------------------------------------------------------------------------


def test_a_copy_is_downloaded(server: Paced, sample: Path, tmp_path: Path) -> None:
    download(Where(server.url), tmp_path / "copy", silent)
    assert (tmp_path / "copy").read_bytes() == sample.read_bytes()


def test_the_command(
    server: Paced, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Options, "quick", lambda: TINY)
    monkeypatch.setattr(HttpSession, "memory_kinds", HttpSession.memory_kinds[:1])
    before = {*threading.enumerate()}
    arguments = ["bench", server.url, "--quick", "--rounds", "1", "--cases", "http-4k,memory"]
    assert main([*arguments, "--json", "out.json", "--report", "out.html"]) == 0
    text = capsys.readouterr()
    assert text.err == ""
    for word in ("4 KiB ranges", "http.client", "Resident memory", "tcp_congestion_control"):
        assert word in text.out
    data = json.loads((tmp_path / "out.json").read_text())
    assert [result["case"]["id"] for result in data["cases"]] == ["http-4k"]
    assert data["server"].startswith(server.url)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.json"]
    assert {*threading.enumerate()} <= before


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("https://me:hunter2@example.org:8443/a?sig=abc#b", "https://example.org:8443/a"),
        ("--tls=https://example.org/a?sig=abc", "--tls=https://example.org/a"),
        ("http://me:hunter2@example.org", "http://example.org"),
        ("/data/a?b", "/data/a?b"),
    ],
)
def test_reports_show_no_login_and_no_query(argument: str, shown: str) -> None:
    """They are looked at by others."""
    assert _as_shown(argument) == shown
    assert "hunter2" not in str(Where("http://me:hunter2@example.org/a?sig=abc"))
    assert server_of("http://me:hunter2@example.org:81/a") == "example.org:81"
