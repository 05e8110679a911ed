"""A prefix of nothing: no entry of any service, sync or awaited; `rangeio ls` says so and fails."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from awaited import run_on
from faults.machine import need_module
from servers.azure_server import CONTAINER, azure_server
from servers.gcs_server import TOKEN, GcsServer
from servers.hf_server import hub
from servers.scripted import Answer, Asked, reply, scripted
from servers.webhdfs_server import webhdfs

import rangeio
from rangeio.cli import main
from rangeio.service import Stat

need_module("urllib3")


def empty_page(asked: Asked) -> Answer:
    """S3 has no entry for such a prefix."""
    return reply(200, b"<ListBucketResult></ListBucketResult>")


def in_gcs(stack: ExitStack) -> tuple[str, dict[str, Any]]:
    store = GcsServer()
    store.put("there/file", b"1")
    server = stack.enter_context(scripted(store.answer))
    return "gs://bucket/", {"endpoint_url": server.url, "bearer_token": TOKEN}


def in_azure(stack: ExitStack) -> tuple[str, dict[str, Any]]:
    server = stack.enter_context(azure_server())
    server.put("there/file", b"1")
    return f"az://{CONTAINER}/", server.key_options


def in_hub(stack: ExitStack) -> tuple[str, dict[str, Any]]:
    server = stack.enter_context(hub())
    return server.put("there/file", b"1").removesuffix("there/file"), {**server.options, "anonymous": True}


def in_webhdfs(stack: ExitStack) -> tuple[str, dict[str, Any]]:
    server = stack.enter_context(webhdfs())
    return server.put("/there/file", b"1").removesuffix("there/file"), {}


def in_s3(stack: ExitStack) -> tuple[str, dict[str, Any]]:
    server = stack.enter_context(scripted(empty_page))
    keys = {"access_key_id": "AKID", "secret_access_key": "secret"}
    return "s3://bucket/", {"endpoint_url": server.url, "region": "us-east-1", **keys}


PLACES = {"s3": in_s3, "gs": in_gcs, "az": in_azure, "hf": in_hub, "webhdfs": in_webhdfs}


@pytest.fixture(params=["fs", *PLACES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URI of a folder with "there/file" only, or without it, and its options."""
    with ExitStack() as stack:
        if request.param == "fs":
            (tmp_path / "there").mkdir()
            (tmp_path / "there" / "file").write_bytes(b"1")
            yield f"{tmp_path}/", {}
        else:
            yield PLACES[request.param](stack)


@pytest.mark.parametrize("prefix", ["nowhere", "nowhere/", "nowhere/deep/er", "there/file/", "there/filet"])
def test_nothing_is_listed(place: tuple[str, dict[str, Any]], prefix: str) -> None:
    uri, options = place
    operator = rangeio.Operator.from_uri(uri, **options)

    async def awaited(delimiter: str | None) -> list[Stat]:
        return [stat async for stat in operator.list_async(prefix, delimiter)]

    for delimiter in (None, "/"):
        assert [*operator.list(prefix, delimiter)] == []
        assert run_on("asyncio", lambda delimiter=delimiter: awaited(delimiter)) == []


def test_ls_of_nothing(place: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    uri, options = place
    words = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    for prefix in ("nowhere", "nowhere/"):
        assert main(["ls", uri + prefix, *words]) == 1
        out, said = capsys.readouterr()
        assert out == ""
        assert "no name begins with" in said
        assert "nowhere" in said


def test_memory() -> None:
    operator = rangeio.Operator("memory", objects={"there/file": b"1"})
    assert [*operator.list("nowhere/")] == [*operator.list("there/file/", "/")] == []
