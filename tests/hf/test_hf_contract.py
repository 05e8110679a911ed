"""The contract of every Reader, over a scripted hub and its storage: plain, TLS, and small files; sync and async."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers import hf_server
from servers.hf_server import TOKEN, Hub
from servers.scripted import identity_of

import _uring
import rangeio

need_module("urllib3")

Given = tuple[Hub, dict[str, Any]]


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Given]:
    """small: all files come from the hub itself."""
    identity = identity_of(["127.0.0.1"], folder) if kind == "TLS" else None
    with hf_server.hub(identity) as hub:
        hub.large = 1 << 40 if kind == "small" else hf_server.LARGE
        options = {**hub.options, "bearer_token": TOKEN}
        yield hub, options | ({"ca_file": str(folder / "ca.pem")} if identity else {})


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pickled reader finds it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


class TestHf(HttpContract):
    @pytest.fixture(scope="class", params=["plain", "TLS", "small"])
    @classmethod
    def given(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Given]:
        with served(request.param, tmp_path_factory.mktemp("hub")) as given:
            yield given

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, given: Given, keep: Any) -> Make:
        hub, options = given
        return lambda data: keep(
            rangeio.open(hub.put(f"contract/{len(data)}", data), reactor=reactor, **options)
        )


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


class TestHfAsync(HttpContract):
    @pytest.fixture(scope="class", params=["plain", "TLS"])
    @classmethod
    def given(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Given]:
        with served(request.param, tmp_path_factory.mktemp("hub")) as given:
            yield given

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, given: Given, keep: Any, loop: Loop) -> Make:
        hub, options = given

        def make(data: bytes) -> Any:
            uri = hub.put(f"contract/{len(data)}", data)
            return Asking(keep(rangeio.open_async(uri, reactor=reactor, **options)), loop)

        return make
