"""The command: what it prints, where, and with which exit code. Mostly in process; terminals and pipes by a child."""

import errno
import io
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from command import rangeio_command
from faults.child import Lab, code
from faults.machine import need_backend

from rangeio.cli import main
from rangeio.cli.console import Progress
from rangeio.cli.range_syntax import parse_range_argument
from rangeio.cli.sizes import parse_size
from rangeio.ranges import Suffix

DATA = bytes(range(256)) * 40
TEXT = b"a line\n" * 20


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.bin"
    path.write_bytes(DATA)
    return path


# --- how ranges and sizes are written ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0-100", (0, 100)),
        ("5-5", (5, 5)),
        ("4096+65536", (4096, 69632)),
        ("7-", (7, None)),
        ("-8", Suffix(8)),
        (" 1KiB - 2KiB ", (1024, 2048)),
        ("1m+64k", (1 << 20, (1 << 20) + (64 << 10))),
        ("1.5KiB-", (1536, None)),
    ],
)
def test_spans(text: str, meant: object) -> None:
    assert parse_range_argument(text) == meant


@pytest.mark.parametrize(
    "text", ["", "-", "+", "5", "5-3", "+5", "5+", "a-b", "1-2-3", "0x10-20", "1e3-2e3", "0.3-1"]
)
def test_spans_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_range_argument(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64KiB", 65536), ("64kb", 65536), ("1G", 1 << 30), ("1.5 MiB", 3 << 19)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5", "KiB", "1PiB", "1 2", "1.0001KiB", "inf"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_a_large_size_is_exact() -> None:
    assert parse_size(str(2**63 - 1)) == 2**63 - 1


# --- cat -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], DATA),
        (["0-16"], DATA[:16]),
        (["10-"], DATA[10:]),
        (["-4"], DATA[-4:]),
        (["8+4", "0-2", "8+4"], DATA[8:12] + DATA[:2] + DATA[8:12]),
        (["5-5"], b""),
        (["0-1GiB"], DATA),
        (["1GiB-"], b""),
    ],
)
def test_cat(
    sample: Path, capsysbinary: pytest.CaptureFixture[bytes], ranges: list[str], expected: bytes
) -> None:
    arguments = [word for item in ranges for word in ("--range", item)]
    assert main(["cat", str(sample), *arguments]) == 0
    captured = capsysbinary.readouterr()
    assert captured.out == expected
    assert captured.err == b""


def test_cat_of_a_file_that_does_not_know_its_size(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    path = "/proc/self/status"
    if not os.path.exists(path):
        pytest.skip("needs /proc")
    assert main(["cat", path]) == 0
    assert capsysbinary.readouterr().out.startswith(b"Name:")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_cat_stops_quietly_when_nobody_reads_on(sample: Path, unbuffered: str) -> None:
    sample.write_bytes(DATA * 100)
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        rangeio_command("cat", sample), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(10) == DATA[:10]
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_cat_writes_all_to_a_pipe(sample: Path, unbuffered: str) -> None:
    sample.write_bytes(DATA * 100)
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    child = subprocess.run(rangeio_command("cat", sample), capture_output=True, env=environ)
    assert child.stdout == DATA * 100


@pytest.mark.parametrize(
    ("content", "arguments", "code", "shown"),
    [(TEXT, [], 0, "a line"), (DATA, [], 1, "terminal"), (DATA, ["--force"], 0, "\x00")],
)
def test_cat_keeps_binary_from_a_terminal(
    sample: Path, content: bytes, arguments: list[str], code: int, shown: str
) -> None:
    sample.write_bytes(content)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        rangeio_command("cat", sample, "--range", "0-100", *arguments), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    with open(ours, "rb", buffering=0) as terminal, suppress(OSError):  # EIO, when the other side is gone
        while part := terminal.read(4096):
            seen += part
    assert child.wait(30) == code
    assert shown in seen.decode("latin-1")


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "exit_code", "named"),
    [
        (["cat", "no/such/file"], 1, "no/such/file"),
        (["stat", "."], 1, "directory"),
        (["cat", "nope://bucket/key"], 1, "nope"),
        (["doctor", "no/such/file"], 1, "no/such/file"),
        (["bench", "x.bin", "--cases", "nothing-like-it"], 1, "nothing-like-it"),
        (["ranges", "pyproject.toml"], 2, "--range"),
        (["bench"], 2, "FILE"),
        (["bench", "x.bin", "--rounds", "0"], 2, "--rounds"),
    ],
)
def test_an_error_is_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("x")
    assert main(arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rangeio: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err
    assert not (tmp_path / "x.bin").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["frob"], ["cat"], ["cat", "x", "--range", "5-3"], ["bench", "x", "--size", "y"]]
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("rangeio: ")
    assert captured.err.count("\n") == 1
    assert "--help" in captured.err


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--list"], ["x.bin", "--quick"], ["x", "--size", "y"]]
)
def test_without_the_bench_its_command_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sample: Path, arguments: list[str]
) -> None:
    """It is in no wheel. The other commands do without."""
    monkeypatch.setitem(sys.modules, "rangeio_bench", None)
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rangeio: the bench is not installed: ")
    assert captured.err.count("\n") == 1
    assert "pip install ./benchmarks" in captured.err
    assert main(["stat", str(sample)]) == 0


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANGEIO_DEBUG", "1")
    assert main(["cat", "no/such/file"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["cat", "no/such/file"]) == 1
    assert "\nrangeio: " in sys.stderr.getvalue()  # type: ignore[attr-defined]


# --- stat, ranges --------------------------------------------------------------------------------------------


def test_stat(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stat", str(sample)]) == 0
    text = capsys.readouterr().out
    assert f"{len(DATA):,} bytes" in text
    assert str(sample) in text


def test_stat_as_json(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stat", "--json", str(sample), str(sample)]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert first["size"] == len(DATA)
    assert first["mtime_ns"] == sample.stat().st_mtime_ns
    assert first["pin"]
    assert "inode" in first["pinned_by"]


def test_ranges_prints_the_plan(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["ranges", str(sample), "--range", "0-100", "--range", "150+50", "--range=-10", "--gap", "50"])
        == 0
    )
    text = capsys.readouterr().out
    assert "3 ranges -> 2 requests, 2 at a time, merged up to 50 bytes apart" in text
    assert "160 bytes" in text
    assert "210 bytes" in text
    assert "read amplification 1.31" in text
    assert "█" in text


def test_ranges_from_a_file_as_json(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "ranges.txt"
    listed.write_text("# columns\n0-100\n\n  200+50  # a chunk\n")
    assert main(["ranges", str(sample), "--file", str(listed), "--range", "-1", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["bytes_requested"] == plan["bytes_fetched"] == 151
    assert sorted(length for _, _, length in plan["requests"]) == [1, 50, 100]
    monkeypatch.setattr(sys, "stdin", io.StringIO("0-7\n"))
    assert main(["ranges", str(sample), "--file", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_requested"] == 7


def test_ranges_names_the_wrong_line(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "ranges.txt"
    listed.write_text("0-100\nwhat\n")
    assert main(["ranges", str(sample), "--file", str(listed)]) == 1
    assert "line 2: 'what'" in capsys.readouterr().err


def test_ranges_that_are_empty(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ranges", str(sample), "--range", "5-5"]) == 0
    assert "1 range -> 0 requests" in capsys.readouterr().out


def test_ranges_lists_the_first_requests_only(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [f"--range={at}-{at + 1}" for at in range(0, 90, 3)]
    assert main(["ranges", str(sample), *wanted]) == 0
    assert "and 10 more" in capsys.readouterr().out
    assert main(["ranges", str(sample), *wanted, "--all"]) == 0
    assert "more" not in capsys.readouterr().out


# --- doctor --------------------------------------------------------------------------------------------------


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, str]], str]:
    exit_code = main(["doctor", "--json", *arguments])
    answer = json.loads(capsys.readouterr().out)
    return exit_code, {finding["topic"]: finding for finding in answer["findings"]}, answer["verdict"]


def test_doctor(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import rangeio

    exit_code, found, verdict = doctor(capsys, str(sample))
    assert {"system", "processor", "extension", "backend", "memlock", "huge pages"} <= set(found)
    assert {"file system", "device", "O_DIRECT", "page cache"} <= set(found)
    assert "Linux" in found["system"]["text"]
    assert f"{len(DATA) / 1024:g} KiB" in found["page cache"]["text"]
    for library, outcome in rangeio.backend().tried[-1:]:
        assert found["liburing"]["text"] == f"{library}: {outcome}"
    assert rangeio.backend().reason in found["backend"]["text"]
    with rangeio.open(sample, direct=True) as reader:
        if reader.capability.direct:
            assert f"aligned to {reader.capability.alignment:,} bytes" in found["O_DIRECT"]["text"]
        else:
            assert reader.capability.direct_reason in found["O_DIRECT"]["text"]
    fine = rangeio.backend().name == "uring"
    assert exit_code == (0 if fine else 1)
    assert verdict.startswith("fine" if fine else "degraded")


def test_doctor_ends_with_a_verdict_and_advice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    exit_code = main(["doctor", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    verdicts = [line for line in lines if line.startswith(("fine", "degraded"))]
    assert len(verdicts) == 1
    assert exit_code == verdicts[0].startswith("degraded")


@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_enter"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOMEM], ids=errno.errorcode.get)
def test_doctor_explains_a_refused_ring(auto_lab: Lab, number: int, call: str) -> None:
    need_backend("uring" if call == "io_uring_enter" else "pool")
    found = auto_lab.run(
        f"refuse({number}, '{call}')\n"
        + code("""
        import io, json
        from contextlib import redirect_stdout
        from rangeio.cli import main

        with redirect_stdout(io.StringIO()) as out:
            exit_code = main(["doctor", "--json"])
        answer = json.loads(out.getvalue())
        say(code=exit_code, verdict=answer["verdict"], **{f["topic"]: f for f in answer["findings"]})
        """)
    ).facts()
    assert found["code"] == 1
    assert found["verdict"].startswith("degraded: pool instead of uring")
    assert found["io_uring"]["text"].startswith(f"{call}: {errno.errorcode[number]}")
    assert f"{call}: " in found["backend"]["text"]
    wanted = "RLIMIT_MEMLOCK" if number == errno.ENOMEM else "seccomp"
    assert wanted in found["io_uring"]["advice"]


@pytest.mark.parametrize("forced", ["python", "nonsense"])
def test_doctor_speaks_of_a_backend_that_is_forced(forced: str) -> None:
    environ = {**os.environ, "RANGEIO_BACKEND": forced}
    child = subprocess.run(rangeio_command("doctor"), capture_output=True, text=True, env=environ)
    assert child.returncode == 1
    assert child.stderr == ""
    assert "unset RANGEIO_BACKEND" in child.stdout


# --- the progress line ---------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_shows_a_bar(tmp_path: Path) -> None:
    """On the terminal that stderr is, while the bytes go elsewhere; and it is gone at the end."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(65 << 20)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        rangeio_command("cat", tmp_path / "large"), stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    with open(ours, "rb", buffering=0) as terminal, suppress(OSError):  # EIO, when the other side is gone
        while part := terminal.read(4096):
            seen += part
    assert child.wait(30) == 0
    assert b"[" in seen
    assert b"%" in seen
    assert seen.endswith(b"\x1b[K")


def test_progress_is_for_terminals_only() -> None:
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        with Progress(stream) as progress:
            progress(0.5, "half")
    assert plain.getvalue() == ""
    assert "50%" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[K")  # gone at the end


# --- closed streams, and names that would steer a terminal ----------------------------------------------------

PRINTING = {
    "ls": ["ls", "."],
    "ls --json": ["ls", "--json", "."],
    "stat": ["stat", "sample.bin"],
    "stat --json": ["stat", "--json", "sample.bin"],
    "ranges": ["ranges", "sample.bin", "--range", "0-5"],
    "ranges --json": ["ranges", "sample.bin", "--range", "0-5", "--json"],
    "cat": ["cat", "sample.bin"],
    "cp": ["cp", "sample.bin", "-"],
    "doctor": ["doctor"],
    "bench": ["bench", "--list"],
}


@pytest.mark.parametrize("name", PRINTING)
def test_standard_output_is_closed(sample: Path, name: str) -> None:
    """As by `>&-`. What was to be said there is not lost without a word."""
    words = rangeio_command(*PRINTING[name])
    child = subprocess.run(words, cwd=sample.parent, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert (child.returncode, child.stderr) == (1, b"rangeio: standard output is closed\n")


@pytest.mark.parametrize("words", [["cat", "nothing"], ["ls", "--nothing"], ["cat"]], ids=" ".join)
@pytest.mark.parametrize("debug", ["", "1"])
def test_standard_error_is_closed(sample: Path, words: list[str], debug: str) -> None:
    """Nothing of an error is written among the bytes."""
    child = subprocess.run(
        rangeio_command(*words),
        cwd=sample.parent,
        stdout=subprocess.PIPE,
        env=os.environ | {"RANGEIO_DEBUG": debug},
        preexec_fn=lambda: os.close(2),
    )
    assert child.returncode in (1, 2)
    assert child.stdout == b""


EVIL = "a\x1b[2J\n\x9b31mb\u2028\u202ec"
HARMLESS = r"a\x1b[2J\n\x9b31mb\u2028\u202ec"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / EVIL
    path.parent.mkdir()
    path.write_bytes(b"12345")
    return path


@pytest.mark.parametrize("to_terminal", [True, False])
@pytest.mark.parametrize("command", ["ls", "stat"])
def test_names_that_would_steer_a_terminal(
    evil: Path, monkeypatch: pytest.MonkeyPatch, command: str, to_terminal: bool
) -> None:
    """Are shown as they are by a pipe, and harmless by a terminal; JSON is harmless in any case."""
    stream = Terminal() if to_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([command, str(evil.parent if command == "ls" else evil)]) == 0
    shown = stream.getvalue()
    assert (HARMLESS in shown, EVIL in shown) == (to_terminal, not to_terminal)
    if to_terminal:
        assert all(line.isprintable() for line in shown.split("\n"))
    as_json = io.StringIO()
    monkeypatch.setattr(sys, "stdout", as_json)
    assert main([command, "--json", str(evil)]) == 0
    assert json.loads(as_json.getvalue())["path"] == str(evil)
    assert as_json.getvalue().rstrip("\n").isprintable()


def test_bytes_of_names_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0x9b begins a sequence where a terminal is not of UTF-8."""
    (tmp_path / os.fsdecode(b"a\x9bb")).touch()
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["ls", str(tmp_path)]) == 0
    assert stream.getvalue().endswith("a\\x9bb\n")


def test_names_in_errors_and_in_the_progress_line(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("rangeio.cli.console._EVERY_S", 0.0)
    assert main(["cp", str(evil), str(evil.parent / "no\x1b[2Jfolder" / "copy")]) == 1
    with Progress() as progress:
        progress(0.5, EVIL)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "no\\x1b[2Jfolder" in shown
    assert HARMLESS[:20] in shown
    assert "\x1b[2J" not in shown
