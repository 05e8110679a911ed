"""The contract of every Reader, over WebHDFS by script; sync and async."""

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.webhdfs_server import WebHdfs, webhdfs

import _uring
import rangeio

need_module("urllib3")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, WebHdfs]]:
    with webhdfs() as redirecting, webhdfs(at_once=True) as at_once:
        yield {"name node": redirecting, "HttpFS": at_once}


class WebHdfsContract(HttpContract):
    @pytest.fixture(params=["name node", "HttpFS"])
    def server(self, request: pytest.FixtureRequest, servers: dict[str, WebHdfs]) -> WebHdfs:
        return servers[request.param]


class TestWebHdfs(WebHdfsContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, server: WebHdfs, keep: Any) -> Make:
        return lambda data: keep(rangeio.open(server.put(f"/contract/{len(data)}", data), reactor=reactor))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


class TestWebHdfsAsync(WebHdfsContract):
    @pytest.fixture
    def server(self, servers: dict[str, WebHdfs]) -> WebHdfs:
        return servers["name node"]

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, server: WebHdfs, keep: Any, loop: Loop) -> Make:
        def make(data: bytes) -> Any:
            uri = server.put(f"/contract/{len(data)}", data)
            return Asking(keep(rangeio.open_async(uri, reactor=reactor)), loop)

        return make
