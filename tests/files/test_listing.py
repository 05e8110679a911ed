"""Listings of folders that change meanwhile, lead nowhere, or must not be read."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from faults.rights import without_privileges

import rangeio
from rangeio import Operator

FILES = ["a", "b", "d/x", "d/y/z", "e"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


@pytest.fixture(params=["sync", *LOOPS])
def listed(request: pytest.FixtureRequest, root: Path) -> Callable[..., list[str]]:
    """The paths that a listing of `root` has; at its first path `meanwhile` is called, whatever that changes."""
    if request.param != "sync":
        need_module(request.param)

    def ask(*arguments: str, meanwhile: Callable[[], Any] = lambda: None) -> list[str]:
        operator = Operator("fs", root=root)
        if request.param == "sync":
            return _gathered(operator.list(*arguments), meanwhile)

        async def main() -> list[str]:
            found = operator.list_async(*arguments)
            first = [(await anext(found)).path]
            meanwhile()
            return first + [stat.path async for stat in found]

        return run_on(request.param, main)

    return ask


def _gathered(found: Iterator[rangeio.Stat], meanwhile: Callable[[], Any]) -> list[str]:
    first = [next(found).path]
    meanwhile()
    return first + [stat.path for stat in found]


def test_what_vanishes_meanwhile_is_left_out(listed: Callable[..., list[str]], root: Path) -> None:
    assert listed(meanwhile=(root / "b").unlink) == ["a", "d/x", "d/y/z", "e"]
    assert listed(meanwhile=lambda: shutil.rmtree(root / "d")) == ["a", "e"]


def test_a_folder_that_becomes_something_else_is_left_out(
    listed: Callable[..., list[str]], root: Path
) -> None:
    """A file, and a link that leads in a circle."""

    def swap(make: Callable[[], Any]) -> Callable[[], Any]:
        def both() -> None:
            shutil.rmtree(root / "d", ignore_errors=True)
            make()

        return both

    assert listed(meanwhile=swap(lambda: (root / "d").write_bytes(b""))) == ["a", "b", "e"]
    (root / "d").unlink()
    (root / "d").mkdir()
    assert listed(meanwhile=swap(lambda: (root / "d").symlink_to("d"))) == ["a", "b", "e"]


def test_a_file_that_becomes_something_else(listed: Callable[..., list[str]], root: Path) -> None:
    def make_folder() -> None:
        (root / "b").unlink()
        (root / "b").mkdir()

    assert listed(meanwhile=make_folder) == ["a", "d/x", "d/y/z", "e"]


LEADS_NOWHERE = {
    "missing": "nothing",
    "itself": "link",
    "through a file": "a/b",
    "name too long": "x" * 300,
    "path too long": "x/" * 2000,
    "a circle of two": "other",
}


@pytest.mark.parametrize("kind", LEADS_NOWHERE)
def test_links_that_lead_nowhere_are_left_out(
    listed: Callable[..., list[str]], root: Path, kind: str
) -> None:
    (root / "link").symlink_to(LEADS_NOWHERE[kind])
    (root / "other").symlink_to("link")
    assert listed() == FILES
    assert listed("", "/") == ["a", "b", "d/", "e"]


@pytest.mark.parametrize("prefix", ["nowhere/", "nowhere", "a/", "a/b/", "loop/", "x" * 300 + "/"])
def test_prefixes_of_nothing(root: Path, prefix: str) -> None:
    """A directory need not be there, and a file has nothing below it; as in a store of keys."""
    (root / "loop").symlink_to("loop")
    operator = Operator("fs", root=root)
    assert [*operator.list(prefix)] == [*operator.list(prefix, "/")] == []
    with pytest.raises(rangeio.Error):  # a root that is not there, as a bucket that is not there
        [*Operator("fs", root=root / prefix).list()]


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_what_must_not_be_read_is_an_error(listed: Callable[..., list[str]], root: Path, mode: int) -> None:
    """A folder that cannot be listed, and one of which names can be read but nothing else; not before its turn."""
    (root / "d").chmod(mode)
    try:
        with pytest.raises(rangeio.PermissionDeniedError, match=r"/d(/x)?'") as caught:
            without_privileges(listed)
        assert caught.value.path.startswith(str(root / "d"))
        assert without_privileges(lambda: listed("", "/")) == ["a", "b", "d/", "e"]
        found = Operator("fs", root=root).list()
        assert without_privileges(lambda: [next(found).path, next(found).path]) == ["a", "b"]
    finally:
        (root / "d").chmod(0o755)


def test_a_link_into_what_must_not_be_read_is_an_error(listed: Callable[..., list[str]], root: Path) -> None:
    """It may lead to a file: to leave that out would be a guess."""
    (root / "link").symlink_to("d/x")
    (root / "d").chmod(0)
    try:
        with pytest.raises(rangeio.PermissionDeniedError, match="/link'"):
            without_privileges(lambda: listed("l"))
    finally:
        (root / "d").chmod(0o755)


def test_names_that_are_not_utf8(listed: Callable[..., list[str]], root: Path) -> None:
    """They are as the operating system has them (PEP 383), so that what is listed can be opened."""
    names = [os.fsdecode(name) for name in (b"caf\xe9", b"\xff\xfe/\x80")]
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"abc")
    assert listed() == [*FILES[:2], names[0], *FILES[2:], names[1]]
    assert listed(names[0][:-1]) == [names[0]]
    operator = Operator("fs", root=root)
    assert [operator.open(name).read_to_end() for name in names] == [b"abc", b"abc"]


def test_a_folder_below_a_thousand_others(listed: Callable[..., list[str]], root: Path) -> None:
    """More levels than the interpreter allows frames."""
    folder = str(root / "z")
    levels = [folder + "/d" * depth for depth in range(1100)]
    for level in levels:
        os.mkdir(level)
    bottom = Path(levels[-1], "file")
    bottom.write_bytes(b"1")
    try:
        assert listed() == [*FILES, str(bottom.relative_to(root))]
    finally:  # rmtree may be recursive
        bottom.unlink()
        for level in reversed(levels):
            os.rmdir(level)
