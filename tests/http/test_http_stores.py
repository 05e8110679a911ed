"""Every store over HTTP by the same demands: how many requests it takes, what an Operator and the command line do."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, by_each, run_on
from faults.machine import need_module
from servers import hf_server
from servers.azure_server import CONTAINER, azure_server
from servers.gcs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, TOKEN, GcsServer
from servers.scripted import Scripted, scripted
from servers.webhdfs_server import webhdfs

import rangeio
from rangeio.cli import main

need_module("urllib3")

DATA = bytes(range(256)) * 80_000
SMALL = bytes(range(32, 122)) * 20
FAR = [(at * 295_000, at * 295_000 + 5000) for at in range(16)]
NEAR = [(at * 9000, at * 9000 + 5000) for at in range(16)]
CHUNK = 8 << 20
NAMES = [f"{number:02}" for number in range(27)]
LEAST = {
    "first": 1,
    "40": 40,
    "far": 16,
    "near": 1,
    "whole": 3,
    "suffix": 1,
    "suffix of a known size": 1,
    "stat": 1,
    "list": 4,
}


@dataclass
class Store:
    """A store on scripted servers. begin: the URI of the files in it. options: of any object, and own: of an Operator
    only. server: what a test may change. sites: count the requests. cost: how many each kind of read takes.
    """

    begin: str
    options: dict[str, Any]
    own: dict[str, Any]
    server: Any
    put: Callable[[str, bytes], str]
    sites: list[Scripted]
    cost: dict[str, int]
    signs: bool = False

    @property
    def requests(self) -> int:
        return sum(len(site.asked) for site in self.sites)

    @property
    def operator(self) -> rangeio.Operator:
        return rangeio.Operator(self.begin.partition("://")[0], **self.options, **self.own)

    @property
    def words(self) -> list[str]:
        return [word for name, value in self.options.items() for word in ("-o", f"{name}={value}")]


@contextmanager
def gs() -> Iterator[Store]:
    server = GcsServer()
    with scripted(server.answer) as site:
        options = {"endpoint_url": site.url, "bearer_token": TOKEN}
        yield Store("gs://bucket/", options, {"bucket": "bucket"}, server, server.put, [site], LEAST)


@contextmanager
def gs_by_keys() -> Iterator[Store]:
    with gs() as store:
        del store.options["bearer_token"]
        store.options |= {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
        store.signs = True
        yield store


@contextmanager
def az() -> Iterator[Store]:
    """Azure has no suffix ranges."""
    with azure_server() as server:
        own, container = {"container": CONTAINER}, server.containers[CONTAINER]
        cost, sites = {**LEAST, "suffix": 2}, [server.server]
        yield Store(
            "az://container/", server.key_options, own, container, server.put, sites, cost, signs=True
        )


@contextmanager
def hf() -> Iterator[Store]:
    """The hub is asked once for each file; it answers `stat`."""
    with hf_server.hub() as hub:
        options = {**hub.options, "bearer_token": hf_server.TOKEN}
        cost = {name: count + 1 for name, count in LEAST.items()} | {"stat": 1, "list": 4}
        own, sites = {"repo": "owner/name"}, [hub.site, hub.storage]
        yield Store("hf://owner/name/", options, own, hub, hub.put, sites, cost)


@contextmanager
def hdfs() -> Iterator[Store]:
    """A status, and two for each range; after several ranges, or one of several requests, another status."""
    with webhdfs() as cluster:
        begin, own = f"webhdfs://{cluster.authority}/", {"namenodes": cluster.authorities}
        cost = {name: 2 * count + 1 for name, count in LEAST.items()} | {"stat": 1, "list": 4}
        cost |= {name: cost[name] + 1 for name in ("far", "whole")}
        sites = [*cluster.name_nodes, cluster.data_node]
        yield Store(begin, {}, own, cluster, lambda path, data: cluster.put(f"/{path}", data), sites, cost)


STORES = {"gs": gs, "gs by HMAC keys": gs_by_keys, "az": az, "hf": hf, "webhdfs": hdfs}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("HADOOP_USER_NAME", "HF_TOKEN", "AZURE_STORAGE_CONNECTION_STRING", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    with STORES[request.param]() as made:
        yield made


# --- requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["sync", "asyncio"])
def test_requests(store: Store, way: str) -> None:
    """As few as the server allows, none before one is needed, and with many ranges those that `plan` shows."""
    uri, found = store.put("large", DATA), {}

    def count(name: str, opened: Any, read: Any, expected: Any, **options: Any) -> None:
        reader = opened(uri, **store.options, **options)
        assert store.requests == 0
        assert read(reader) == expected
        found[name] = store.requests
        reader.close()
        for site in store.sites:
            site.asked.clear()

    class Desk:
        def __init__(self, opened: Any) -> None:
            self.count = partial(count, opened=opened)

        def close(self) -> None:
            pass

    def cut(ranges: list[tuple[int, int]]) -> list[bytes]:
        return [DATA[start:stop] for start, stop in ranges]

    steps = [(at * 1000, at * 1000 + 1000) for at in range(40)]
    suffix = rangeio.Suffix(100)
    store.server.page = 7
    for desk in by_each(way, Desk):
        desk.count("first", read=lambda r: r.read_at(0, 1000), expected=DATA[:1000])
        desk.count("40", read=lambda r: [r.read_at(start, 1000) for start, _ in steps], expected=cut(steps))
        desk.count("far", read=lambda r: r.read_ranges(FAR), expected=cut(FAR))
        desk.count("near", read=lambda r: r.read_ranges(NEAR, gap=8000), expected=cut(NEAR))
        desk.count("whole", read=lambda r: r.read_range(), expected=DATA, chunk=CHUNK)
        desk.count("suffix", read=lambda r: r.read_range(suffix), expected=DATA[-100:])
        desk.count(
            "suffix of a known size",
            read=lambda r: r.read_range(suffix),
            expected=DATA[-100:],
            size=len(DATA),
        )
        desk.count("stat", read=lambda r: r.stat().size, expected=len(DATA))
    with rangeio.open(uri, **store.options) as reader:
        assert (len(reader.plan(FAR).requests), len(reader.plan(NEAR, gap=8000).requests)) == (16, 1)
    for name in NAMES:
        store.put(f"many/{name}", b"x")
    assert listed(store, way) == [f"many/{name}" for name in NAMES]
    found["list"] = store.requests
    assert found == store.cost


def listed(store: Store, way: str) -> list[str]:
    if way == "sync":
        entries = store.operator.list("many/")
        assert store.requests == 0
        return [entry.path for entry in entries]

    async def collect() -> list[str]:
        entries = store.operator.list_async("many/")
        assert store.requests == 0
        return [entry.path async for entry in entries]

    return run_on(way, collect)  # type: ignore[no-any-return]


# --- an Operator ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_operator(store: Store, loop: str) -> None:
    need_module(loop)
    for path in ("a", "folder/b", "folder/c d%20"):
        store.put(path, SMALL)
    operator = store.operator
    assert [entry.path for entry in operator.list()] == ["a", "folder/b", "folder/c d%20"]
    assert sorted(entry.path for entry in operator.list("", "/")) == ["a", "folder/"]
    assert operator.stat("folder/b").size == len(SMALL)
    expected = {"a": True, "folder/c d%20": True, "none": False, "folder": False, "folder/none": False}
    assert {path: operator.exists(path) for path in expected} == expected

    async def awaited() -> dict[str, bool]:
        assert [entry.path async for entry in operator.list_async("folder/")] == ["folder/b", "folder/c d%20"]
        async with operator.open_async("a") as reader:
            assert (await reader.stat()).size == len(SMALL)
        return {path: await operator.exists_async(path) for path in expected}

    assert run_on(loop, awaited) == expected
    jobs: Any = [("a", (0, 5)), ("folder/b", (5, 9)), ("none", (0, 1))]
    first, second, missing = operator.read_ranges(jobs, on_error="return")
    assert (first, second, type(missing)) == (SMALL[:5], SMALL[5:9], rangeio.NotFoundError)
    with rangeio.open(operator.uri("folder/c d%20"), **store.options) as reader:
        assert reader.read_range() == SMALL
    before = store.requests
    if store.signs:
        with rangeio.open(operator.presign("folder/c d%20", 60)) as reader:
            assert store.requests == before
            assert reader.read_range() == SMALL
    else:
        with pytest.raises(rangeio.UnsupportedError):
            operator.presign("a", 60)
        assert store.requests == before


# --- the command line ----------------------------------------------------------------------------------------


def test_commands(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What `ls` prints can be passed to the other commands. None of them shows the credentials."""
    for path in ("data/a b", "data/deep/c%20"):
        store.put(path, SMALL)
    begin, shown = store.begin, []

    def output(*words: str, exit_code: int = 0) -> str:
        assert main([*words, *store.words]) == exit_code
        said = capfd.readouterr()
        shown.append(said.out + said.err)
        return said.out if exit_code == 0 else said.err

    def names(*words: str) -> list[str]:
        return [json.loads(line)["path"] for line in output("ls", "--json", *words).splitlines()]

    assert names(begin) == [begin + "data/"]
    assert names(begin + "data/") == [begin + "data/a b", begin + "data/deep/"]
    uris = names(begin, "-R")
    assert uris == [begin + "data/a b", begin + "data/deep/c%20"]
    for uri in uris:
        assert output("cat", uri) == SMALL.decode()
        assert output("cat", uri, "--range", "5-10", "--range=-3") == (SMALL[5:10] + SMALL[-3:]).decode()
        told = json.loads(output("stat", "--json", uri))
        assert (told["size"], bool(told["pin"])) == (len(SMALL), True)
        output("cp", uri, str(tmp_path))
        assert (tmp_path / uri.rpartition("/")[2]).read_bytes() == SMALL
        plan = json.loads(output("ranges", uri, "--range", "0-5", "--range", "9-12", "--json"))
        assert (plan["bytes_requested"], plan["size"]) == (8, len(SMALL))
        findings = json.loads(output("doctor", "--json", uri))["findings"]
        (told,) = (one["text"] for one in findings if one["topic"] == "reads")
        assert told.startswith("can be read: ")
    assert output("cat", begin + "none", exit_code=1).count("\n") == 1
    assert "no name begins with" in output("ls", begin + "none", exit_code=1)
    for name in ("bearer_token", "secret_access_key", "account_key"):
        assert store.options.get(name, "another") not in "".join(shown)
