"""`rangeio cp` of several objects, of folders, and of what was interrupted."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, honest, reply, scripted

from rangeio.cli import main

need_module("urllib3")

DATA = bytes(range(251)) * 100_000  # 24 MiB: pieces of 1.5 MiB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "from"
    for name in ("a.bin", "deep/b.bin", "deep/er/c.bin"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode() * 1000)
    return top


def _records(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


# --- several --------------------------------------------------------------------------------------------------


def test_several_sources_go_to_a_folder(tree: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", str(tree / "a.bin"), str(tree / "deep/b.bin"), str(folder)]) == 0
    assert sorted(os.listdir(folder)) == ["a.bin", "b.bin"]
    assert (folder / "b.bin").read_bytes() == (tree / "deep/b.bin").read_bytes()
    assert capsys.readouterr().err.startswith("2 files, 14.6 KiB in ")


def test_several_to_what_is_no_folder(tree: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", str(tree / "a.bin"), str(tree / "deep/b.bin"), str(folder / "x")]) == 2
    assert "several sources are copied to a folder" in capsys.readouterr().err
    assert main(["cp", str(tree / "a.bin"), str(tree / "a.bin"), str(folder)]) == 2
    assert "two sources would be copied to" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["s3://bucket/tables/", "memory://tables/", "tree/", "s3://bucket/"])
@pytest.mark.parametrize("destination", ["there/", "there", "nowhere/"])
def test_a_folder_without_r(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    destination: str,
) -> None:
    """What is missing is said before anything else, and without a request."""
    monkeypatch.chdir(folder)
    (folder / "there").mkdir()
    (folder / "tree").mkdir()
    assert main(["cp", source, destination]) == 2
    assert "-r copies all objects below it" in capsys.readouterr().err
    assert main(["cp", "http://127.0.0.1:9/", destination]) == 2
    assert "-r" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["cp", "cat"])
def test_a_directory_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Errors advise in words of the command line."""
    (tmp_path / "tree").mkdir()
    words = [command, str(tmp_path / "tree"), *([str(tmp_path / "copy")] if command == "cp" else [])]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "rangeio ls lists its content, rangeio cp -r copies it" in said
    assert "Operator" not in said


def test_one_that_fails_does_not_stop_the_others(
    tree: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "--json", str(tree / "absent"), str(tree / "a.bin"), str(folder)]) == 1
    out, err = capsys.readouterr()
    records = {str(record["path"]).rpartition("/")[2]: record for record in _records(out)}
    assert "error" in records["absent"]
    assert records["a.bin"]["size"] == 5000
    assert os.listdir(folder) == ["a.bin"]
    assert "1 failed" in err
    assert main(["cp", "-q", str(tree / "absent"), str(tree / "a.bin"), str(folder)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- folders --------------------------------------------------------------------------------------------------


def test_a_folder_with_all_below(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    assert main(["cp", "-r", str(tree), str(target)]) == 0
    copied = {
        str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()
    }
    assert copied == {name: name.encode() * 1000 for name in ("a.bin", "deep/b.bin", "deep/er/c.bin")}


def test_a_folder_of_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "-r", str(folder), str(tmp_path / "new")]) == 1
    assert "nothing is below" in capsys.readouterr().err
    assert main(["cp", "-r", str(tmp_path / "absent"), str(tmp_path / "new")]) == 1
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["../escaped", "a/../../escaped", "/escaped", "a//b"])
def test_a_name_that_leaves_the_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """A server tells the names of a listing."""
    page = (
        "<ListBucketResult><IsTruncated>false</IsTruncated>"
        f"<Contents><Key>in/{key}</Key><Size>3</Size><ETag>&quot;1&quot;</ETag></Contents></ListBucketResult>"
    )

    def answer(asked: Asked) -> Answer:
        if "list-type=2" in asked.target:
            return reply(200, page.encode(), Content_Type="application/xml")
        return honest(b"abc", asked)

    with scripted(answer) as server:
        words = ["-o", f"endpoint_url={server.url}", "-o", "anonymous=true", "-o", "region=us-east-1"]
        assert main(["cp", "-r", "s3://bucket/in/", str(tmp_path / "to/deep"), *words]) == 1
    assert "is no path below a folder" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*escaped*"))


# --- what was interrupted -----------------------------------------------------------------------------------


class Cut:
    """A server that fails below some bytes of the object, until `whole` is set."""

    def __init__(self) -> None:
        self.whole, self.etag, self.starts = False, '"1"', list[int]()

    def __call__(self, asked: Asked) -> Answer:
        start = asked.range[0] if asked.range else 0
        if asked.method == "GET":
            self.starts.append(start)
            if start > len(DATA) // 2 and not self.whole:
                return reply(404)
        return honest(DATA, asked, etag=self.etag)


@pytest.fixture
def script() -> Cut:
    return Cut()


@pytest.fixture
def server(script: Cut) -> Iterator[Scripted]:
    with scripted(script) as server:
        yield server


def _cut(server: Scripted, folder: Path) -> int:
    """A copy that fails in the middle. Returns how much of it stays."""
    assert main(["cp", "--continue", server.url + "/object", str(folder)]) == 1
    assert sorted(os.listdir(folder)) == ["object.part", "object.part.json"]
    kept = (folder / "object.part").stat().st_size
    assert 0 < kept < len(DATA)
    return kept


def test_a_copy_goes_on(
    server: Scripted, script: Cut, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = _cut(server, folder)
    script.whole, script.starts = True, []
    capsys.readouterr()
    assert main(["cp", "--continue", "--json", server.url + "/object", str(folder)]) == 0
    assert os.listdir(folder) == ["object"]
    assert (folder / "object").read_bytes() == DATA
    assert min(script.starts) == kept
    assert max(stop - start for start, stop in filter(None, server.ranges)) <= 1 << 20  # little is lost
    (record,) = _records(capsys.readouterr().out)
    assert (record["continued_at"], record["size"]) == (kept, len(DATA))


def test_another_version_begins_anew(server: Scripted, script: Cut, folder: Path) -> None:
    """Bytes of two versions never stand in one file."""
    _cut(server, folder)
    script.whole, script.etag, script.starts = True, '"2"', []
    (folder / "object.part").write_bytes(b"bytes of the other version")
    assert main(["cp", "--continue", server.url + "/object", str(folder)]) == 0
    assert (folder / "object").read_bytes() == DATA
    assert min(script.starts) == 0


def test_another_range_begins_anew(server: Scripted, script: Cut, folder: Path) -> None:
    _cut(server, folder)
    script.whole = True
    assert main(["cp", "-c", "--range", "5-1000", server.url + "/object", str(folder)]) == 0
    assert (folder / "object").read_bytes() == DATA[5:1000]


def test_without_a_version_nothing_stays(folder: Path) -> None:
    """Nobody could tell whether the next bytes belong to it."""

    def answer(asked: Asked) -> Answer:
        return reply(404) if asked.range and asked.range[0] else honest(DATA, asked, etag=None)

    with scripted(answer) as server:
        assert main(["cp", "--continue", server.url + "/object", str(folder)]) == 1
    assert os.listdir(folder) == []


def test_what_is_written_by_another_process(
    server: Scripted, script: Cut, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    _cut(server, folder)
    script.whole = True
    capsys.readouterr()
    with open(folder / "object.part", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["cp", "--continue", server.url + "/object", str(folder)]) == 1
    assert capsys.readouterr().err == f"rangeio: {folder / 'object'}: another process is writing it\n"


def test_an_interrupted_copy_goes_on(folder: Path, tmp_path: Path) -> None:
    """SIGKILL, too: what is on the disk is what arrived."""
    from threading import Event

    asked_late, go = Event(), Event()

    def answer(asked: Asked) -> Answer:
        if asked.range and asked.range[0]:
            asked_late.set()
            go.wait(60)
        return honest(DATA, asked)

    words = [sys.executable, "-m", "rangeio", "cp", "--continue"]
    with scripted(answer) as server:
        with subprocess.Popen([*words, server.url + "/object", str(folder)]) as child:
            assert asked_late.wait(60)
            child.kill()
        go.set()
        assert "object" not in os.listdir(folder)
        assert main(["cp", "--continue", server.url + "/object", str(folder)]) == 0
    assert os.listdir(folder) == ["object"]
    assert (folder / "object").read_bytes() == DATA


def test_files_that_are_complete_are_not_copied_again(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "new")
    assert main(["cp", "-r", "--continue", str(tree), target]) == 0
    (tree / "a.bin").write_bytes(b"another")
    os.utime(tree / "a.bin", (1, 1))
    capsys.readouterr()
    assert main(["cp", "-r", "-c", "--json", str(tree), target]) == 0
    out, err = capsys.readouterr()
    assert {str(record["path"]).rpartition("/")[2]: record["skipped"] for record in _records(out)} == {
        "a.bin": False,
        "b.bin": True,
        "c.bin": True,
    }
    assert (tmp_path / "new/a.bin").read_bytes() == b"another"
    assert "1 file, 7 B" in err
    assert "2 already complete" in err
