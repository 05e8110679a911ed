"""The command on every service: cat, stat, ranges, cp and ls, of files and over HTTP."""

import json
import os
import pty
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from command import rangeio_command
from servers.fixtures import Sites
from servers.proxy import Fault, proxy
from servers.s3 import BUCKET, S3Server
from servers.scripted import honest, reply, scripted

from rangeio.cli import main

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

DATA = bytes(range(253)) * 400_000
SMALL = DATA[:100_000]


def words_for(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("--option", f"{name}={value}")]


@pytest.fixture
def bucket(seaweedfs: S3Server, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that reading it takes; the key from a file, where nobody who lists processes sees it."""
    key = tmp_path_factory.mktemp("keys") / "secret"
    key.write_text(seaweedfs.secret_access_key)
    return words_for({**seaweedfs.options, "secret_access_key": f"@{key}"})


@pytest.fixture(params=["fs", "http", "https", "s3"])
def uri(request: pytest.FixtureRequest, sites: Sites, tmp_path: Path) -> list[str]:
    """Of an object with DATA, and the options that it takes."""
    if request.param == "fs":
        (tmp_path / "large.bin").write_bytes(DATA)
        return [str(tmp_path / "large.bin")]
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("seaweedfs")
        return [server.put("large.bin", DATA), *request.getfixturevalue("bucket")]
    site = sites(f"nginx-{request.param}")
    return [site.put("large.bin", DATA), *words_for(site.options)]


def test_cat(uri: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", *uri]) == 0
    assert capfdbinary.readouterr() == (DATA, b"")
    assert main(["cat", *uri, "--range", "5-10", "--range=-7"]) == 0
    assert capfdbinary.readouterr() == (DATA[5:10] + DATA[-7:], b"")


def test_stat(uri: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["stat", "--json", *uri]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["size"] == len(DATA)
    assert found["pin"]
    assert found["mtime_ns"]
    assert main(["stat", *uri]) == 0
    assert f"{len(DATA):,} bytes" in capfd.readouterr().out


def test_ranges(uri: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    wanted = ["--range", "0-10", "--range=-10", "--range", f"{len(DATA) - 15}+100", "--gap", "0"]
    assert main(["ranges", "--json", *uri, *wanted]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["size"], plan["bytes_requested"], plan["bytes_fetched"]) == (len(DATA), 35, 25)


@pytest.mark.parametrize("span", [None, "7-1000007"])
def test_cp(uri: list[str], tmp_path: Path, span: str | None) -> None:
    words = ["--range", span] if span else []
    expected = DATA[7:1_000_007] if span else DATA
    place = tmp_path / "copies"
    place.mkdir()
    for destination in (place, place / "named", place / "named"):
        assert main(["cp", *uri, str(destination), *words]) == 0
    assert sorted(os.listdir(place)) == ["large.bin", "named"]
    assert (place / "large.bin").read_bytes() == (place / "named").read_bytes() == expected


def test_cp_shows_its_progress(uri: list[str], tmp_path: Path) -> None:
    """On a terminal, and gone at the end, where a summary stands."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(rangeio_command("cp", *uri, tmp_path / "copy"), stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with open(ours, "rb", buffering=0) as terminal, suppress(OSError):  # EIO, when the other side is gone
        while part := terminal.read(4096):
            seen += part
    assert child.wait(60) == 0
    assert b"% " in seen
    assert b"of 96.5 MiB" in seen
    assert b"MiB/s" in seen
    assert seen.rpartition(b"\x1b[K")[2].startswith(b"1 file, 96.5 MiB in ")


# --- the file that cp makes ----------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(SMALL)
    return tmp_path / "source"


def test_cp_keeps_what_was_there_if_it_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "there"
    target.write_bytes(b"before")
    data = DATA[: 12 << 20]
    with scripted(lambda asked: honest(data, asked) if asked.number < 2 else reply(403)) as server:
        assert main(["cp", server.url + "/object", str(target)]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "HTTP 403" in said.err
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["there"]


def test_cp_interrupted(sites: Sites, tmp_path: Path) -> None:
    """Ctrl-C while a server says nothing more: no file, no traceback."""
    site = sites("nginx-http")
    site.put("large.bin", DATA)
    with proxy(site.program.port) as place:
        place.script = lambda number: Fault("stall", 100_000)
        words = rangeio_command("cp", f"http://127.0.0.1:{place.port}/large.bin", tmp_path / "copy")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            place.reached.wait(60)
            child.send_signal(signal.SIGINT)
            assert child.communicate() == (b"", b"")
        assert child.returncode == 130
    assert os.listdir(tmp_path) == []


def test_cp_writes_to_devices_and_through_links(sample: Path, tmp_path: Path) -> None:
    assert main(["cp", str(sample), os.devnull]) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    assert main(["cp", str(sample), str(link)]) == 0
    assert link.is_symlink()
    assert target.read_bytes() == SMALL


def test_cp_leaves_the_mode_alone(sample: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"")
    kept.chmod(0o640)
    before = os.umask(0o027)
    try:
        for name in ("kept", "new"):
            assert main(["cp", str(sample), str(tmp_path / name)]) == 0
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("kept", "new")] == [0o640, 0o640]


def test_a_server_without_ranges(
    sites: Sites, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What it has as a whole can be had as a whole."""
    site = sites("nginx-http")
    site.put("large.bin", DATA)
    url = f"{site.url}/plain/large.bin"
    assert main(["cp", url, str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy").read_bytes() == DATA
    assert main(["cat", url]) == 0
    assert capfdbinary.readouterr().out == DATA
    assert main(["cat", url, "--range", "5-10"]) == 1
    assert b"on_no_range" in capfdbinary.readouterr().err
    assert main(["cat", url, "--range", "5-10", "-o", "on_no_range=slice"]) == 0
    assert capfdbinary.readouterr().out == DATA[5:10]


# --- ls ------------------------------------------------------------------------------------------------------


def listed(capfd: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["ls", "--json", *words]) == 0
    return [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()]


def test_ls(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a/one", "a/deep/two", "ab", "b"):
        (tmp_path / name).write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    assert listed(capfd) == ["a/", "ab", "b"]
    assert listed(capfd, "-R") == ["a/deep/two", "a/one", "ab", "b"]
    assert listed(capfd, "a") == ["a/deep/", "a/one"]
    assert listed(capfd, str(tmp_path / "a"), "-R") == [f"{tmp_path}/a/deep/two", f"{tmp_path}/a/one"]
    assert listed(capfd, "a/o") == ["a/one"]
    (tmp_path / "empty").mkdir()
    assert listed(capfd, "empty") == listed(capfd, "empty/", "-R") == listed(capfd, "memory://") == []
    monkeypatch.chdir(tmp_path / "empty")
    assert listed(capfd) == []
    monkeypatch.chdir(tmp_path)
    assert main(["ls", "a/"]) == 0
    folder, file = capfd.readouterr().out.splitlines()
    assert folder.split() == ["a/deep/"]
    assert file.split()[:2] == ["5", "B"]
    assert file.endswith(" a/one")


def test_ls_of_names_that_are_not_utf8(tmp_path: Path) -> None:
    """As they are, so that a script can hand them on; whatever the locale makes of standard output."""
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    for words in (["ls", tmp_path], ["stat", tmp_path / os.fsdecode(b"caf\xe9")]):
        child = subprocess.run(rangeio_command(*words), env=environ, capture_output=True)
        assert (child.returncode, child.stderr) == (0, b"")
        assert b"/caf\xe9\n" in child.stdout


def test_ls_of_a_bucket(
    bucket: list[str], capfd: pytest.CaptureFixture[str], seaweedfs: S3Server, tmp_path: Path
) -> None:
    """What it prints, cat and cp take."""
    for key in ("cli/a b", "cli/deep/c%20", "cli/deep/d"):
        seaweedfs.put(key, key.encode())
    place = f"s3://{BUCKET}/cli/"
    assert listed(capfd, place, *bucket) == [place + "a b", place + "deep/"]
    for nothing in ("nothing", "nothing/"):
        assert main(["ls", place + nothing, *bucket]) == 1
        assert capfd.readouterr() == (
            "",
            f"rangeio: no name begins with '{place}{nothing}'\n",
        )
    names = listed(capfd, place, "-R", *bucket)
    assert names == [place + "a b", place + "deep/c%20", place + "deep/d"]
    for name in names:
        key = name.removeprefix(f"s3://{BUCKET}/")
        assert main(["cat", name, *bucket]) == 0
        assert capfd.readouterr().out == key
        assert main(["cp", name, str(tmp_path), *bucket]) == 0
        assert (tmp_path / os.path.basename(key)).read_text() == key


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "exit_code", "named"),
    [
        (["cp", "memory://none", "x"], 1, "none"),
        (["cat", "memory://none"], 1, "none"),
        (["ls", "no/such/folder/"], 1, "no/such/folder"),
        (["ls", "absent"], 1, "no name begins with 'absent'"),
        (["ls", "-R", "absent"], 1, "'absent'"),
        (["ls", "memory://absent", "--json"], 1, "'memory://absent'"),
        (["ls", "https://example.org/"], 1, "does not support listing"),
        (["ls", "nope://x"], 1, "nope"),
        (["cp", "present", "memory://x"], 2, "path of this machine"),
        (["cp", "present", "no/such/folder/"], 2, "no/such/folder"),
        (["cp", "present", "no/such/file"], 1, "no/such"),
        (["cp", "absent", "copy"], 1, "absent"),
        (["cp", "http://127.0.0.1:9/", "."], 2, "no file name"),
        (["cat", "http://me:hunter2@127.0.0.1:1/x?sig=abc", "-o", "retry=1", "-o", "proxy="], 1, "refused"),
        (["stat", "http://a b/"], 1, "host"),
        (["cat", "present", "-o", "nonsense=1"], 1, "nonsense"),
        (["cat", "present", "-o", "gap"], 2, "NAME=VALUE"),
        (["cat", "present", "-o", "retry=sig=abc"], 2, "retry"),
        (["cat", "present", "-o", "chunk=1x"], 2, "chunk"),
        (["cat", "present", "-H", "sig=abc"], 2, "NAME:VALUE"),
        (["cat", "s3://"], 1, "bucket"),
        (["serve", "absent"], 1, "absent"),
        (["serve", ".", "--port", "99999"], 1, "99999"),
    ],
)
def test_an_error_is_one_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    exit_code: int,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "present").write_bytes(SMALL)
    assert main(words) == exit_code
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("rangeio: ")
    assert said.err.count("\n") == 1
    assert named in said.err
    assert "hunter2" not in said.err
    assert "sig=abc" not in said.err
    assert os.listdir(tmp_path) == ["present"]


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["-o", "bearer_token=@token"], {"authorization": "Bearer 0123"}),
        (["-o", "bearer_token=0123", "-o", "retry=2", "-o", "timeout=1.5"], {"authorization": "Bearer 0123"}),
        (["-o", "auth=me:a:b", "-o", "pin=false", "-o", "chunk=1MiB"], {"authorization": "Basic bWU6YTpi"}),
        (["-H", "X-One: a:b", "-H", "X-Two:2"], {"x-one": "a:b", "x-two": "2"}),
    ],
)
def test_options(
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    sent: dict[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("0123\n")
    with scripted(lambda asked: honest(SMALL, asked)) as server:
        assert main(["cat", server.url + "/object", *words]) == 0
        for asked in server.asked:
            assert sent.items() <= asked.fields.items()
    assert capfdbinary.readouterr().out == SMALL


@pytest.mark.parametrize(
    ("status", "verdict", "topic"),
    [
        (404, "not there", "object"),
        (403, "cannot be read", "access"),
    ],
)
def test_doctor_of_an_object_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], status: int, verdict: str, topic: str
) -> None:
    """It is no matter of speed, whatever reads files here."""
    with scripted(lambda asked: reply(status, b"")) as server:
        assert main(["doctor", "--json", server.url]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["verdict"].startswith(f"{verdict}: ")
        assert str(status) in found["verdict"]
        last = found["findings"][-1]
        assert (last["topic"], last["level"]) == (topic, verdict)
        assert main(["doctor", server.url]) == 1
        printed = capsys.readouterr().out
        assert f"! {topic}" in printed
        assert f"\n{verdict}: " in printed


def test_doctor_of_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Advice in words of the command line."""
    assert main(["doctor", "http://127.0.0.1:9/x", "-o", "retry=1"]) == 1
    printed = capsys.readouterr().out
    assert "cannot be read: " in printed
    assert " set retry=" not in printed
