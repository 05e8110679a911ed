"""The contract of every Reader, over gs://: the scripted Cloud Storage, plain and over TLS; sync and async."""

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.gcs_server import GcsServer
from servers.scripted import identity_of, scripted

import _uring
import rangeio

need_module("urllib3")


@pytest.fixture(scope="module")
def store() -> GcsServer:
    """One that everybody may read, as a pickled reader has no token."""
    return GcsServer(public={"bucket"})


@pytest.fixture(scope="module")
def plain(store: GcsServer) -> Iterator[dict[str, Any]]:
    with scripted(store.answer) as server:
        yield {"endpoint_url": server.url, "anonymous": True}


@pytest.fixture(scope="module")
def tls(store: GcsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gcs")
    with scripted(store.answer, identity_of(["localhost"], folder)) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        yield {"endpoint_url": url, "anonymous": True, "ca_file": str(folder / "ca.pem")}


class TestGcs(HttpContract):
    @pytest.fixture(params=["plain", "tls"])
    def make(
        self, request: pytest.FixtureRequest, reactor: _uring.Reactor, store: GcsServer, keep: Any
    ) -> Make:
        options = request.getfixturevalue(request.param)
        return lambda data: keep(
            rangeio.open(store.put(f"contract/{len(data)}", data), reactor=reactor, **options)
        )


class TestGcsAsync(HttpContract):
    @pytest.fixture(params=[*(f"{loop} plain" for loop in LOOPS), "asyncio tls"])
    def make(
        self, request: pytest.FixtureRequest, reactor: _uring.Reactor, store: GcsServer, keep: Any
    ) -> Iterator[Make]:
        name, _, wire = request.param.partition(" ")
        need_module(name)
        loop, options = Loop(name), request.getfixturevalue(wire)

        def make(data: bytes) -> Any:
            uri = store.put(f"contract/{len(data)}", data)
            return Asking(keep(rangeio.open_async(uri, reactor=reactor, **options)), loop)

        yield make
        loop.close()
