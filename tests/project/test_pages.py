"""The pages of the documentation: every program on them runs, every link leads somewhere, every name has a place.

Programs of one page run one after the other, as a reader would, in a folder with `model.bin`. What a page speaks of is
there: https://example.org (a proxy plays it, over TLS), a bucket, a cluster.
"""

import importlib.util
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from faults.data import pattern, write_pattern
from faults.machine import need_module
from pages import ROOT, blocks, run_page, run_programs
from servers.s3 import S3Server
from servers.scripted import Answer, Asked, everybody, honest, reply
from servers.webhdfs_server import webhdfs

import rangeio
from rangeio.cli import main

DOCS = ROOT / "docs"
NBYTES = 4 << 20

# Pages whose programs need a folder with model.bin, and nothing else; and what they import.
PLAIN = {
    "README.md": [],
    "docs/async.md": ["starlette", "httpx"],
    "docs/buffer.md": [],
    "docs/errors.md": [],
    "docs/frameworks.md": ["pydantic", "starlette", "aiohttp", "httpx"],
    "docs/fsspec.md": ["fsspec", "pyarrow", "obspec"],
    "docs/index.md": [],
    "docs/install.md": [],
    "docs/local.md": [],
    "docs/performance.md": [],
    "docs/processes.md": [],
    "docs/reading.md": [],
    "docs/troubleshooting.md": [],
}
# Those that get a server below. Any other page with programs has a test elsewhere, which names it.
SERVED = ["docs/http.md", "docs/hdfs.md", "docs/alternatives.md", "docs/observability.md"]
PEERS = {"aiofiles", "obstore", "opendal", "s3dlio", "s3fs", "smart_open"}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_pattern(tmp_path / "model.bin", NBYTES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Of a module that can be imported: functions of a page are pickled."""
    module = types.ModuleType("a_page")
    monkeypatch.setitem(sys.modules, "a_page", module)
    yield module.__dict__
    module.__dict__.clear()


@pytest.mark.parametrize("page", PLAIN)
def test_programs(page: str, room: Path, names: dict[str, Any]) -> None:
    for module in PLAIN[page]:
        need_module(module)
    before = rangeio.stats()["budget_bytes"]
    try:
        run_programs(page, names)
    finally:
        rangeio.set_budget(before)
    if page == "docs/async.md":
        check_range_requests(names["app"])
    if page == "docs/frameworks.md":
        assert names["received"] == NBYTES
        check_the_servers(names)


def check_range_requests(app: Any) -> None:
    """The application of docs/async.md answers as a server of ranges must, also if its client is nonsensical."""
    from starlette.testclient import TestClient

    data, all_of_it = pattern(0, NBYTES), slice(None)
    answers = [
        (None, 200, all_of_it),
        ("bytes=0-99", 206, slice(0, 100)),
        ("bytes=4000000-", 206, slice(4_000_000, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=-99999999", 206, all_of_it),
        ("bytes=4194303-9999999", 206, slice(-1, None)),
        ("bytes=0-1,5-9", 200, all_of_it),
        ("bytes=9-5", 200, all_of_it),
        ("bytes=-", 200, all_of_it),
        (f"bytes=0-{'9' * 5000}", 200, all_of_it),
        (f"bytes={NBYTES}-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
    ]
    with TestClient(app) as client:
        for header, status, part in answers:
            response = client.get("/model.bin", headers={"Range": header} if header else {})
            assert (response.status_code, response.content) == (status, data[part]), header
            if status == 206:
                start, stop, _ = part.indices(NBYTES)
                assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{NBYTES}"
        conditional = client.get("/model.bin", headers={"Range": "bytes=0-99", "If-Range": '"v1"'})
        assert conditional.content == data


def check_the_servers(names: dict[str, Any]) -> None:
    """The applications of docs/frameworks.md answer, and httpx sends what it should."""
    import asyncio

    from aiohttp.test_utils import TestClient as AiohttpClient
    from aiohttp.test_utils import TestServer
    from starlette.testclient import TestClient

    data = pattern(0, NBYTES)
    with TestClient(names["app"]) as client:
        assert client.get("/part/100").content == data[100:4196]
        assert client.get("/whole").content == data

    async def use() -> None:
        async with AiohttpClient(TestServer(names["site"])) as client:
            assert await (await client.get("/download")).read() == data
            assert await (await client.get("/head")).read() == data[:4096]

    asyncio.run(use())


def example_org(asked: Asked) -> Answer:
    """https://example.org."""
    path = asked.target.partition("?")[0]
    if path == "/whole.bin":
        return reply(200, pattern(0, 100_000), ETag='"v1"')
    if asked.fields.get("if-none-match") == '"v1"':
        return reply(304, ETag='"v1"')
    return honest(pattern(0, NBYTES), asked)


def test_http(room: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("urllib3")
    with everybody(example_org, ["example.org"], room) as (server, options):
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("HTTPS_PROXY", options["proxy"])
        monkeypatch.setenv("SSL_CERT_FILE", options["ca_file"])
        run_page("http.md", names)
        assert names["head"] == pattern(0, 1000)
        assert names["parts"][1] == pattern(200_000, 300_000)
        assert names["part"] == pattern(1000, 1100)
        assert {asked.fields["host"] for asked in server.asked} == {"example.org"}


def test_hdfs(room: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("urllib3")
    with webhdfs() as cluster:
        cluster.put("/data/part-0.parquet", pattern(0, 1000))
        cluster.put("/data/year=2026/a", b"abc")
        address = f"<name>dfs.namenode.http-address</name><value>{cluster.authority}</value>"
        place = f"<name>fs.defaultFS</name><value>hdfs://{cluster.authority}</value>"
        (room / "hdfs-site.xml").write_text(f"<configuration><property>{address}</property></configuration>")
        (room / "core-site.xml").write_text(f"<configuration><property>{place}</property></configuration>")
        monkeypatch.setenv("HADOOP_CONF_DIR", str(room))
        run_page("hdfs.md", names)
        assert names["footer"] == pattern(992, 1000)
        assert names["stat"].size == 3


def test_alternatives(
    room: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, seaweedfs: S3Server
) -> None:
    """Each that is installed reads the same."""
    data = pattern(0, NBYTES)
    seaweedfs.put("tables/weights.bin", data)
    for name, value in {
        "ENDPOINT_URL": seaweedfs.url,
        "ENDPOINT_URL_S3": seaweedfs.url,
        "ACCESS_KEY_ID": seaweedfs.access_key_id,
        "SECRET_ACCESS_KEY": seaweedfs.secret_access_key,
        "REGION": seaweedfs.region,
        "DEFAULT_REGION": seaweedfs.region,
        "ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    seen = 0
    for line, program in blocks("docs/alternatives.md", "python"):
        used = set(re.findall(r"^(?:from|import) (\w+)", program, re.M)) & PEERS
        if any(importlib.util.find_spec(name) is None for name in used):
            continue
        exec(compile("\n" * line + program, "alternatives.md", "exec"), names)
        found = names.pop("found", None) or names.pop("local", None)
        if found is not None:
            seen += 1
            assert [bytes(each) for each in found] == [data[a:b] for a, b in names["RANGES"]], program
    assert seen >= 2


def test_observability(room: Path, names: dict[str, Any]) -> None:
    for module in ("prometheus_client", "opentelemetry.sdk"):
        need_module(module)
    for line, program in blocks("docs/observability.md", "python"):
        program = program.replace("start_http_server(9000)", 'start_http_server(0, "127.0.0.1")')
        exec(compile("\n" * line + program, "observability.md", "exec"), names)
        names["stop"]() if "stop" in names else None
    server = names["server"]
    with rangeio.open(f"http://127.0.0.1:{server.server_port}/metrics", on_no_range="download") as reader:
        assert b"rangeio_requests" in bytes(reader.read_range())
    server.shutdown()
    server.server_close()
    names["thread"].join()


@pytest.mark.parametrize("page", ["docs/command-line.md", "docs/troubleshooting.md"])
def test_commands(page: str, room: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commands = [line for _, block in blocks(page, "console") for line in block.splitlines()]
    assert commands
    for command in commands:
        words = shlex.split(command.removeprefix("$ "))
        assert words[0] == "rangeio"
        assert main(words[1:]) == 0 or words[1] == "doctor", command
    assert not capfd.readouterr().err


def test_each_page_is_run() -> None:
    """Here, or by a test that names it."""
    tests = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)
    )
    for path in (*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        page = path.relative_to(ROOT).as_posix()
        if any(blocks(page, "python")) and page not in (*PLAIN, *SERVED):
            assert f'"{path.name}"' in tests, f"no test runs the programs of {page}"


# --- links ---------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor of a heading, as the site and GitHub make it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text))


def prose(path: Path) -> str:
    """A page without its programs and its code."""
    text = re.sub(r"^( *)```.*?^\1```", "", path.read_text(), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda found: "`" + re.sub(r"[^\w ]", "", found[0]) + "`", text)


def anchors(path: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.*)$", prose(path), re.M)}


PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "bench" / "README.md"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / unquote(name)).resolve() if name else path
        assert there.exists(), f"{path.name}: {target}"
        if DOCS in path.parents:
            assert DOCS in there.parents, f"{path.name}: {target} is not part of the site"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: {target}"


# --- the site ------------------------------------------------------------------------------------------------


def test_each_page_has_its_place() -> None:
    """In the navigation; if only in a comment, until it is written."""
    config = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS).as_posix()}\n" in config, f"mkdocs.yml has no {path.name}"
    for name in re.findall(r"^      - .*: (\S+\.md)$", config, re.M):
        assert (DOCS / name).exists(), name


def test_the_reference_has_every_public_name() -> None:
    said = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    shown = re.findall(r"^::: rangeio\.(\w+)$", said, re.M)
    assert sorted([*shown, "__version__"]) == sorted(rangeio.__all__)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    assert re.search(r"^    make bench ", text, re.M)
    assert re.search(r"^    make test ", text, re.M)
