"""How much Python a read in the steady state goes through: counted, because what is counted does not depend on load."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from awaited import run_on
from faults.machine import need_module
from servers.odd import DATA
from servers.scripted import honest, scripted

import _uring
import rangeio

pytestmark = pytest.mark.skipif(_uring.LoopTransfers is None, reason="there is no extension")

SOURCES = str(Path(rangeio.__file__).parent.parent)


@contextmanager
def counted() -> Iterator[list[str]]:
    """The functions of ours that are entered, or gone on with, each as "file function"."""
    found: list[str] = []

    def hook(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCES):
            owner = code.co_qualname if hasattr(code, "co_qualname") else code.co_name
            found.append(f"{Path(code.co_filename).name} {owner}")

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        yield found
    finally:
        sys.setprofile(before)


def check(found: list[str], files: int, frames: int) -> None:
    """As many at most. How often a loop is woken, as a response comes in pieces, is the kernel's: it counts once."""
    wakes = sum(each.split(" ")[0] == "waiters.py" for each in found)
    assert len({each.split(" ")[0] for each in found}) <= files, found
    assert len(found) - max(0, wakes - 1) <= frames, found


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("way", "files", "frames"), [("read_at", 4, 7), ("read_into", 5, 9)])
def test_an_awaited_read(name: str, way: str, files: int, frames: int) -> None:
    need_module(name)
    memory = bytearray(4096)

    async def main(url: str) -> list[str]:
        async with rangeio.open_async(url) as reader:
            arguments: tuple[Any, ...] = (0, 4096) if way == "read_at" else (memory, 0)
            for _ in range(4):
                await getattr(reader, way)(*arguments)
            with counted() as found:
                await getattr(reader, way)(*arguments)
            return found

    with scripted(lambda asked: honest(DATA, asked)) as server:
        check(run_on(name, lambda: main(server.url)), files, frames)


def test_a_read_in_a_thread() -> None:
    """One that is large enough for the rate of the server to be measured, too."""
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        for _ in range(4):
            reader.read_at(0, 131_072)
        with counted() as found:
            assert len(reader.read_at(0, 131_072)) == 131_072
        check(found, 2, 2)
