"""Readers of scripted servers, sync and by each loop; `conftest.py` names this module in `pytest_plugins`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module

import rangeio
from servers.scripted import Script, scripted

OPTIONS: Any = {
    "retry": rangeio.Retry(attempts=2, backoff_s=0.001),
    "timeout": rangeio.Timeout(first_byte_s=5, idle_s=5),
}
"""Of a reader that is given no others."""
MakeReader = Callable[..., Any]
"""From a script, and options, to a reader of a server that answers so, and the server."""


@pytest.fixture(params=["sync", *LOOPS])
def opened(request: pytest.FixtureRequest) -> Iterator[MakeReader]:
    """`rangeio.open`, or its like of a loop."""
    readers: list[Any] = []
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)

    def opened(url: str, **options: Any) -> Any:
        given = {**OPTIONS, **options}
        reader: Any = rangeio.open(url, **given) if loop is None else rangeio.open_async(url, **given)
        readers.append(reader)
        return reader if loop is None else Awaited(reader, loop)

    yield opened
    for reader in readers:
        reader.close()
    if loop is not None:
        loop.close()


@pytest.fixture
def open_reader(opened: MakeReader) -> Iterator[MakeReader]:
    """A function from a script to a reader of a server that answers so, and the server."""
    with ExitStack() as servers:

        def make(script: Script, path: str = "/object", **options: Any) -> tuple[Any, Any]:
            server = servers.enter_context(scripted(script))
            return opened(server.url + path, **options), server

        yield make
