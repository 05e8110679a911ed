"""The programs of the pages that have servers of their own run, and do what the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from faults.machine import need, need_module
from servers import hf_server
from servers.scripted import Answer, Asked, honest, reply, scripted

from rangeio.service import Stat, rolled_up

need_module("urllib3")

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = bytes(range(256)) * 100


def blocks_of(page: str, language: str) -> list[str]:
    """The blocks of this language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def program(page: str, language: str = "python") -> str:
    """The last block of this language on a page."""
    return blocks_of(page, language)[-1]


def test_hf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with hf_server.hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.site.url)
        hub.put("model.safetensors", DATA)
        hub.put("model.safetensors", DATA[1:], revision="v1.0")
        hub.put("data/part.parquet", DATA, "datasets/owner/name", revision="refs/pr/1")
        names: dict[str, Any] = {}
        exec(program("huggingface.md"), names)
        assert (names["header"], names["footer"]) == (DATA[:8], DATA[-8:])
        assert names["names"] == ["model.safetensors"]
        assert names["commit"] == hub.repo().refs["v1.0"]


FILES = {"a": DATA, "b/c": b"c", "b/d e": b"d"}


def depot(asked: Asked) -> Answer:
    """The server of the example; two files a page."""
    if asked.fields.get("x-api-key") != "S3cret":
        return reply(401)
    url = urlsplit(asked.target)
    if url.path.startswith("/files/"):
        data = FILES.get(unquote(url.path.removeprefix("/files/")))
        return reply(404) if data is None else honest(data, asked)
    terms = {name: values[0] for name, values in parse_qs(url.query).items()}
    files = (Stat(path, len(data)) for path, data in sorted(FILES.items()))
    found = (stat for stat in files if stat.path.startswith(terms.get("prefix", "")))
    entries = [
        [stat.path, stat.size]
        for stat in rolled_up(found, terms.get("prefix", ""), terms.get("delimiter"))
        if stat.path > terms.get("after", "")
    ]
    body = {"entries": entries[:2], "next": entries[1][0] if len(entries) > 2 else None}
    return reply(200, json.dumps(body).encode())


def install(folder: Path) -> None:
    """Write the package of the page, and let pip install it into a folder."""
    folder.mkdir()
    service, tests = blocks_of("own-service.md", "python")
    (folder / "rangeio_depot.py").write_text(service)
    (folder / "test_depot.py").write_text(tests)
    (folder / "pyproject.toml").write_text(program("own-service.md", "toml"))
    words = [
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
    ]
    site = folder / "site"
    subprocess.run([sys.executable, "-m", "pip", *words, "--target", site, folder], check=True, timeout=60)


USE = """
import asyncio, pickle, sys
import rangeio

depot = rangeio.Operator("depot", url=sys.argv[1], api_key="S3cret", retry=1)
with depot.open("a") as r:
    assert r.read_at(5, 10) == bytes(range(5, 15)) and r.stat().size == 25600
assert [stat.path for stat in depot.list()] == ["a", "b/c", "b/d e"]
assert [stat.path for stat in depot.list("", "/")] == ["a", "b/"]
assert depot.exists("b/c") and not depot.exists("b")
with rangeio.open("depot://b/d e", url=sys.argv[1], api_key="S3cret") as r:
    assert r.read_range() == b"d" and r.path == "depot://b/d e"

async def main():
    assert [stat.path async for stat in depot.list_async("b/")] == ["b/c", "b/d e"]
    assert await depot.exists_async("a")

asyncio.run(main())
assert b"S3cret" not in pickle.dumps(depot)
try:
    depot.open("none").read_at(0, 1)
except rangeio.NotFoundError as error:
    assert error.http_status == 404
else:
    raise AssertionError
"""


def test_a_service_of_your_own(tmp_path: Path) -> None:
    pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, timeout=60)
    need(pip.returncode == 0, "pip is not installed")
    need_module("setuptools")
    package = tmp_path / "depot"
    assert len(blocks_of("own-service.md", "python")[0].splitlines()) <= 45
    install(package)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package / "site"), *sys.path])}

    def run(*words: str) -> str:
        child = subprocess.run(
            [sys.executable, *words], env=environ, capture_output=True, text=True, timeout=60
        )
        assert child.returncode == 0, child.stderr
        return child.stdout

    with scripted(depot) as server:
        run("-c", USE, server.url)
        options = ["-o", f"url={server.url}", "-o", "api_key=S3cret"]
        listed = run("-m", "rangeio", "ls", "-R", "--json", "depot://b/", *options).splitlines()
        assert [json.loads(line)["path"] for line in listed] == ["depot://b/c", "depot://b/d e"]
        assert run("-m", "rangeio", "cat", "depot://b/c", *options) == "c"
    assert "depot://" in run("-m", "rangeio", "--help")
    assert "3 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "test_depot.py"))
