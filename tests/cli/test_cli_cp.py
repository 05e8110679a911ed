"""What `rangeio cp` leaves behind: the whole file, or nothing; by whichever signal or failure it ends."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.child import Child, Lab, code
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, honest, reply, scripted

from rangeio.cli import main

need_module("urllib3")

DATA = bytes(range(253)) * 50_000  # of more than one piece

PROGRAM = """
    import os, signal, sys
    from rangeio.cli import main

    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):  # which nohup and jobs in the background ignore
        signal.signal(number, signal.SIG_DFL)
    how, *words = sys.argv[1:]
    if how == "named":  # as on a file system without O_TMPFILE (open(2)); the bit without O_DIRECTORY
        refuse(errno.EOPNOTSUPP, "openat", flags=os.O_TMPFILE & ~os.O_DIRECTORY)
    sys.exit(main(words))
"""
HOW = ["unnamed", "named"]


class Stalling:
    """A server that tells when it was asked for bytes, and sends none before `go` is set."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            self.asked.set()
            self.go.wait(60)
        return honest(DATA, asked)


@pytest.fixture
def script() -> Stalling:
    return Stalling()


@pytest.fixture
def server(script: Stalling) -> Iterator[Scripted]:
    with scripted(script) as server:
        yield server
        script.go.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


Begin = Callable[..., Child]


@pytest.fixture
def begin(auto_lab: Lab, server: Scripted, script: Stalling, folder: Path) -> Begin:
    """A cp into `folder`, of which the server has been asked for bytes; it has opened its file by then."""

    def start(how: str, name: str = "copy") -> Child:
        child = auto_lab.start(code(PROGRAM), how, "cp", server.url + "/object", folder / name)
        assert script.asked.wait(60)
        return child

    return start


ENDS = {"SIGINT": 130, "SIGTERM": -signal.SIGTERM, "SIGHUP": -signal.SIGHUP, "SIGQUIT": -signal.SIGQUIT}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", HOW)
def test_a_signal_leaves_nothing(begin: Begin, folder: Path, how: str, end: str) -> None:
    """And what is there already as it was. Where the file has a name meanwhile it is hidden, and one."""
    (folder / "copy").write_bytes(b"before")
    child = begin(how)
    beside = [name for name in os.listdir(folder) if name != "copy"]
    assert len(beside) == (how == "named")
    assert all(name.startswith(".") for name in beside)
    child.process.send_signal(getattr(signal, end))
    outcome = child.finish()
    assert outcome.code == ENDS[end]
    assert outcome.stderr == "" or end == "SIGQUIT"  # of which faulthandler may tell
    assert os.listdir(folder) == ["copy"]
    assert (folder / "copy").read_bytes() == b"before"


@pytest.mark.parametrize("ends", [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM")])
@pytest.mark.parametrize("how", HOW)
def test_a_second_signal_leaves_nothing(begin: Begin, folder: Path, how: str, ends: tuple[str, ...]) -> None:
    child = begin(how)
    for end in ends:
        child.process.send_signal(getattr(signal, end))
    assert child.finish().code != 0
    assert os.listdir(folder) == []


def test_a_kill_leaves_nothing(begin: Begin, folder: Path) -> None:
    """Nobody can clean up after it; there is nothing to clean up."""
    child = begin("unnamed")
    child.process.kill()
    assert child.finish().code == -signal.SIGKILL
    assert os.listdir(folder) == []


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("before", [None, 0o640])
def test_it_is_whole_or_as_it_was(
    begin: Begin, script: Stalling, folder: Path, how: str, before: int | None
) -> None:
    """The mode is that of what is replaced, or what any new file gets."""
    if before is not None:
        (folder / "copy").write_bytes(b"before")
        (folder / "copy").chmod(before)
    child = begin(how)
    assert (folder / "copy").exists() == (before is not None)
    script.go.set()
    assert child.finish().code == 0
    assert os.listdir(folder) == ["copy"]
    assert (folder / "copy").read_bytes() == DATA
    (folder / "other").touch()
    other = stat.S_IMODE((folder / "other").stat().st_mode)
    assert stat.S_IMODE((folder / "copy").stat().st_mode) == (other if before is None else before)


@pytest.mark.parametrize("how", HOW)
def test_what_comes_into_being_meanwhile_is_replaced(
    begin: Begin, script: Stalling, folder: Path, how: str
) -> None:
    child = begin(how)
    (folder / "copy").write_bytes(b"meanwhile")
    script.go.set()
    assert child.finish().code == 0
    assert os.listdir(folder) == ["copy"]
    assert (folder / "copy").read_bytes() == DATA


def test_a_signal_that_is_ignored_stays_so(
    server: Scripted, script: Stalling, folder: Path, tmp_path: Path
) -> None:
    """As nohup does it."""
    words = [sys.executable, "-m", "rangeio", "cp", server.url + "/object", str(folder / "copy")]
    with subprocess.Popen(words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as child:
        assert script.asked.wait(60)
        child.send_signal(signal.SIGHUP)
        script.go.set()
        assert child.wait(60) == 0
    assert (folder / "copy").read_bytes() == DATA


def test_handlers_are_as_before(folder: Path) -> None:
    """Also where they are the program's own, which are not touched at all."""
    source = folder / "source"
    source.write_bytes(DATA)
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    own = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        before = [signal.getsignal(number) for number in numbers]
        assert main(["cp", str(source), str(folder / "copy")]) == 0
        assert main(["cp", str(folder / "absent"), str(folder / "copy")]) == 1
        assert [signal.getsignal(number) for number in numbers] == before
    finally:
        signal.signal(signal.SIGHUP, own)
    assert sorted(os.listdir(folder)) == ["copy", "source"]


@pytest.mark.parametrize("how", HOW)
def test_no_room(auto_lab: Lab, folder: Path, tmp_path: Path, how: str) -> None:
    """One line that names the file, and nothing beside it."""
    (tmp_path / "source").write_bytes(DATA)
    (folder / "copy").write_bytes(b"before")
    limit = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
    )
    outcome = auto_lab.run(limit + code(PROGRAM), how, "cp", tmp_path / "source", folder / "copy")
    assert outcome.code == 1
    assert outcome.stderr == f"rangeio: {folder / 'copy'}: File too large\n"
    assert os.listdir(folder) == ["copy"]
    assert (folder / "copy").read_bytes() == b"before"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_without_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "source").write_bytes(DATA)
    assert main(["cp", str(tmp_path / "source"), "/dev/full"]) == 1
    assert capsys.readouterr().err == "rangeio: /dev/full: No space left on device\n"


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told before anything is asked of a server."""
    (tmp_path / "file").touch()
    with scripted(lambda asked: reply(500)) as server:
        for parent in ("nowhere", "file"):
            assert main(["cp", server.url + "/object", str(tmp_path / parent / "copy")]) == 1
            assert capsys.readouterr().err == f"rangeio: the folder {tmp_path / parent} does not exist\n"
        assert not server.asked


@pytest.mark.parametrize("letter", ["n", "\u00fc", "\u65e5", "\U0001f600"])
def test_long_names(auto_lab: Lab, folder: Path, tmp_path: Path, letter: str) -> None:
    """Whatever the file system takes: names are counted in bytes there (NAME_MAX)."""
    name = letter * (255 // len(letter.encode()))
    (tmp_path / "source").write_bytes(b"12345")
    for _ in range(2):  # new, and replaced
        assert main(["cp", str(tmp_path / "source"), str(folder / name)]) == 0
        assert os.listdir(folder) == [name]
    if letter == "\u65e5":
        assert auto_lab.run(code(PROGRAM), "named", "cp", tmp_path / "source", folder / name).code == 0
        assert os.listdir(folder) == [name]


# --- standard output -----------------------------------------------------------------------------------------


def rangeio_command(*words: object) -> list[str]:
    return [sys.executable, "-m", "rangeio", *map(str, words)]


@pytest.mark.parametrize("dash", ["-", "/dev/stdout"])
@pytest.mark.parametrize("span", [None, (7, 1_000_007)])
def test_to_standard_output(folder: Path, tmp_path: Path, dash: str, span: tuple[int, int] | None) -> None:
    (tmp_path / "source").write_bytes(DATA)
    words = [] if span is None else ["--range", f"{span[0]}-{span[1]}"]
    child = subprocess.run(
        rangeio_command("cp", tmp_path / "source", dash, *words), capture_output=True, cwd=folder
    )
    assert (child.returncode, child.stderr) == (0, b"")
    assert child.stdout == (DATA if span is None else DATA[slice(*span)])
    assert os.listdir(folder) == []


def test_to_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    words = rangeio_command("cp", tmp_path / "source", "-")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(10) == DATA[:10]
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_where_the_shell_has_closed_it(folder: Path, tmp_path: Path) -> None:
    """A copy needs neither standard output nor standard error."""
    (tmp_path / "source").write_bytes(DATA)
    for closed in (1, 2):
        words = rangeio_command("cp", tmp_path / "source", folder / f"copy{closed}")
        child = subprocess.run(words, preexec_fn=lambda: os.close(closed))  # noqa: B023
        assert child.returncode == 0
        assert (folder / f"copy{closed}").read_bytes() == DATA
    child = subprocess.run(
        rangeio_command("cp", tmp_path / "source", "-"),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.close(1),
    )
    assert (child.returncode, child.stderr) == (1, b"rangeio: standard output is closed\n")
