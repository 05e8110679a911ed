"""The command line on the hub: what it prints can be passed to it; what doctor finds, and does not show."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.machine import need_module
from servers import hf_server
from servers.hf_server import TOKEN, Hub

from rangeio.cli import main

need_module("urllib3")

DATA = bytes(range(32, 122)) * 100


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with hf_server.hub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.site.url)
        for path in ("data/a b", "data/deep/c%20"):
            made.put(path, DATA, "datasets/owner/name")
        yield made


def doctor(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, str]]:
    """Its exit code, and what it found of the service."""
    exit_code = main(["doctor", "--json", *words])
    findings = json.loads(capfd.readouterr().out)["findings"]
    found = {finding["topic"]: finding["text"] for finding in findings}
    assert TOKEN not in str(found)
    return exit_code, {
        topic: text for topic, text in found.items() if topic in ("credentials", "access", "object", "reads")
    }


def test_doctor(
    hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "hf://datasets/owner/name/data/a b"
    _, found = doctor(capfd, uri)
    assert found["credentials"] == f"no token in HF_TOKEN or {tmp_path}/home/token"
    assert found["object"].startswith("8.79 KiB, pin ")
    assert found["reads"].startswith("can be read: the first byte after ")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    assert doctor(capfd, uri)[1]["credentials"] == f"a token from {tmp_path}/home/token"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert doctor(capfd, uri)[1]["credentials"] == "a token from HF_TOKEN"
    assert doctor(capfd, uri, "-o", "anonymous=true")[1]["credentials"] == "anonymous=True"
    assert doctor(capfd, uri, "-o", f"bearer_token={TOKEN}")[1]["credentials"] == "bearer_token="
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes")
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" in doctor(capfd, uri)[1]["credentials"]
    exit_code, found = doctor(capfd, "hf://datasets/owner/name/none")
    assert exit_code == 1
    assert "EntryNotFound" in found["object"]
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    exit_code, found = doctor(capfd, "hf://owner/name/", "-o", "endpoint_url=http://hub.example.org")
    assert exit_code == 1
    assert "not sent over plain http" in found["access"]


def test_help_names_the_schemes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "file://, memory://, http://, https://, s3://," in said
    assert "hf://" in said
