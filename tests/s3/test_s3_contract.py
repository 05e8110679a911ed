"""The contract of every Reader, over S3: SeaweedFS, plain and TLS, and JuiceFS's gateway; sync and async."""

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.s3 import S3Server

import _uring
import rangeio

need_module("urllib3")

Given = tuple[S3Server, dict[str, Any]]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, given: Given) -> None:
    """Where a pickled reader finds its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given[0].access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given[0].secret_access_key)


class S3Contract(HttpContract):
    @pytest.fixture(params=["seaweedfs", "seaweedfs over TLS", "juicefs"])
    def given(self, request: pytest.FixtureRequest) -> Given:
        name, _, secure = request.param.partition(" ")
        server: S3Server = request.getfixturevalue(name)
        return server, server.options | (server.secure if secure else {})


class TestS3(S3Contract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, given: Given, keep: Any) -> Make:
        server, options = given
        return lambda data: keep(
            rangeio.open(server.put(f"contract/{len(data)}", data), reactor=reactor, **options)
        )


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


class TestS3Async(S3Contract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, given: Given, keep: Any, loop: Loop) -> Make:
        server, options = given

        def make(data: bytes) -> Any:
            uri = server.put(f"contract/{len(data)}", data)
            return Asking(keep(rangeio.open_async(uri, reactor=reactor, **options)), loop)

        return make
