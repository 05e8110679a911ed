"""`rangeio tail`, `cat` of several, completion, and advice in the words of the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from faults.machine import need_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.scripted import reply, scripted, with_suffixes

import rangeio
from rangeio.cli import full_parser, main
from rangeio.cli.console import in_words_of_the_command
from rangeio.cli.tail import last_lines

LONG = b"".join(b"%07d\n" % number for number in range(100_000))  # 800 kB


def _tail(capfdbinary: pytest.CaptureFixture[bytes], *words: object) -> bytes:
    assert main(["tail", *map(str, words)]) == 0
    return capfdbinary.readouterr().out


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"", 3, b""),
        (b"a\nb\n", 0, b""),
        (LONG, 50_000, LONG[-400_000:]),
        (LONG, 10**6, LONG),
        (b"x" * 300_000, 1, b"x" * 300_000),
    ],
)
def test_tail_lines(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], data: bytes, count: int, expected: bytes
) -> None:
    (tmp_path / "log").write_bytes(data)
    assert _tail(capfdbinary, "-n", count, tmp_path / "log") == expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\n\n"])).map(b"".join), count=st.integers(0, 9))
def test_tail_like_tail(data: bytes, count: int) -> None:
    with rangeio.from_bytes(data) as reader:
        ours = b"".join(last_lines(reader, count))
    lines = data.splitlines(keepends=True) if b"\r" not in data else []
    assert ours == b"".join(lines[-count:] if count else [])


def test_tail_bytes_and_defaults(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "log").write_bytes(LONG)
    assert _tail(capfdbinary, "-c", "1KiB", tmp_path / "log") == LONG[-1024:]
    assert _tail(capfdbinary, tmp_path / "log") == LONG[-80:]
    assert _tail(capfdbinary, "-n1", tmp_path / "log", tmp_path / "log") == LONG[-8:] * 2


def test_tail_of_an_object_is_one_request(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    need_module("urllib3")
    with scripted(lambda asked: with_suffixes(LONG, asked)) as server:
        assert _tail(capfdbinary, server.url + "/log") == LONG[-80:]
        assert len(server.asked) == 1


@pytest.mark.parametrize("words", [["-n", "-1", "x"], ["-n", "1", "-c", "1", "x"], ["-"]])
def test_tail_of_wrong_words(words: list[str]) -> None:
    try:
        code = main(["tail", *words])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2


def test_cat_of_several_and_of_standard_input(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one ")
    (tmp_path / "b").write_bytes(b" three")
    command = [sys.executable, "-m", "rangeio", "cat"]
    done = subprocess.run([*command, "a", "-", "b"], input=b"two", capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one two three", b"")
    done = subprocess.run([*command, "-", "--range", "0-1"], input=b"two", capture_output=True, cwd=tmp_path)
    assert done.returncode == 2
    assert b"standard input has no ranges" in done.stderr


def test_advice_in_the_words_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    need_module("urllib3")
    with scripted(lambda asked: reply(200, b"0123456789") if asked.method == "GET" else reply(405)) as server:
        assert main(["cat", server.url + "/object", "--range", "2-4"]) == 1
    assert "-o on_no_range=slice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "http://host/a?version=3&retry=1: HTTP 500",
        "the field x-size=3 is wrong",
        "size = 3",
        "set credentials=",
    ],
)
def test_what_is_no_advice_stays(text: str) -> None:
    assert in_words_of_the_command(text) == text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    need_module("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "--continue" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script.encode()).returncode == 0


def test_completion_without_shtab(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'rangeio[completion]'" in capsys.readouterr().err


def test_the_manual_page_has_every_command(tmp_path: Path) -> None:
    need_module("build_manpages")
    from build_manpages.manpage import Manpage  # type: ignore[import-untyped]

    page = str(Manpage(full_parser()))
    assert all(word in page for word in ("rangeio tail", "rangeio cp", "continue"))
