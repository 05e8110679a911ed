"""hdfs:// of Hadoop 3.3.6 by hdfs-native: the contract, errors, listings, name nodes, Kerberos, forks, time limits."""

import multiprocessing
import os
import pickle
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from awaited import LOOPS, Loop, run_on
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.hdfs import Hdfs, SecureHdfs

import _uring
import rangeio

need_module("hdfs_native")
pytestmark = pytest.mark.hdfs

DATA = random.Random(8020).randbytes(3_500_000)  # four blocks
RANGES = [(at, at + 1000) for at in range(0, len(DATA), 50_000)]
EXPECTED = [DATA[start:stop] for start, stop in RANGES]


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "root")
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)


def uri(cluster: Hdfs, path: str, data: bytes = DATA) -> str:
    return f"hdfs://{cluster.rpc}{cluster.put(path, data)}"


class TestContract(HttpContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, plain: Hdfs, keep: Any) -> Make:
        return lambda data: keep(rangeio.open(uri(plain, f"/native/{len(data)}", data), reactor=reactor))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


class TestContractAsync(HttpContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, plain: Hdfs, keep: Any, loop: Loop) -> Make:
        def make(data: bytes) -> Any:
            place = uri(plain, f"/native/{len(data)}", data)
            return Asking(keep(rangeio.open_async(place, reactor=reactor)), loop)

        return make


def test_errors(plain: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plain.put("/native-errors/file", b"content")
    plain.do(path, op="SETPERMISSION", permission="600")
    monkeypatch.setenv("HADOOP_USER_NAME", "bob")
    operator = rangeio.Operator("hdfs", cluster=plain.rpc)
    for name, error in (
        ("native-errors/nothing", rangeio.NotFoundError),
        ("native-errors", rangeio.IsDirectoryError),
        ("native-errors/file", rangeio.PermissionDeniedError),
    ):
        with operator.open(name) as reader, pytest.raises(error, match=f"hdfs://{plain.rpc}/{name}"):
            reader.read_at(0, 1)


def test_overwritten(plain: Hdfs) -> None:
    """The blocks of the old file may still be there; its bytes are never mixed with the new ones."""
    place = uri(plain, "/native-overwritten")
    with rangeio.open(place) as reader:
        assert reader.read_ranges(RANGES) == EXPECTED
        time_of = reader.stat().mtime_ns
        plain.put("/native-overwritten", DATA[::-1] + b"x")
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_ranges(RANGES)
        with rangeio.open(place) as again:
            assert again.read_at(0, 5) == DATA[::-1][:5]
            assert (again.stat().mtime_ns or 0) > (time_of or 0)


def test_what_is_known(plain: Hdfs) -> None:
    operator = rangeio.Operator.from_uri(f"hdfs://{plain.rpc}/native-known")
    plain.put("/native-known/a b/%20ü", DATA)
    (stat,) = operator.list()
    assert stat.path == "a b/%20ü"
    assert operator.stat(stat.path) == stat
    with operator.open(stat.path) as reader:
        assert reader.read_ranges(RANGES) == EXPECTED
        assert reader.capability.backend == "hdfs-native"
        assert reader.capability.pin == "mtime+size"
        with pickle.loads(pickle.dumps(reader)) as copy:
            assert copy.read_at(0, 5) == DATA[:5]
    with pytest.raises(rangeio.ConfigInvalidError, match="if_match"):
        operator.open(stat.path, if_match="x")


@pytest.mark.parametrize("name", ["sync", *LOOPS])
def test_listings(plain: Hdfs, name: str) -> None:
    for path in ("a", "a.txt", "b/c", "b/d/e", "b0"):
        plain.put(f"/native-list/{path}", b"content")
    operator = rangeio.Operator("hdfs", cluster=plain.rpc, root="native-list")

    def listed(prefix: str, delimiter: str | None = None) -> list[str]:
        if name == "sync":
            return [stat.path for stat in operator.list(prefix, delimiter)]

        async def main() -> list[str]:
            return [stat.path async for stat in operator.list_async(prefix, delimiter)]

        found: list[str] = run_on(name, main)
        return found

    assert listed("") == ["a", "a.txt", "b/c", "b/d/e", "b0"]
    assert listed("b/") == ["b/c", "b/d/e"]
    assert listed("", "/") == ["a", "a.txt", "b/", "b0"]
    assert listed("nothing/") == listed("a/") == []


def test_wrong_options(tmp_path: Any) -> None:
    for options in ({"cluster": "me@host"}, {"cluster": ""}, {"cluster": "a", "root": ".."}):
        with pytest.raises(rangeio.ConfigInvalidError):
            rangeio.Operator("hdfs", **options)
    with rangeio.open("hdfs:///file") as reader, pytest.raises(rangeio.ConfigInvalidError, match="defaultFS"):
        reader.read_at(0, 1)


@pytest.mark.parametrize("how", ["silent", "refused"])
@pytest.mark.parametrize("name", ["sync", "asyncio", "trio"])
def test_a_name_node_that_does_not_answer(name: str, how: str) -> None:
    """The library would wait for minutes, even if the connection is refused."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"hdfs://127.0.0.1:{silent.getsockname()[1]}/file"
        if how == "refused":
            silent.close()
        timeout = rangeio.Timeout(connect_s=0.2, first_byte_s=0.2)
        began = time.monotonic()
        if name == "sync":
            with rangeio.open(place, timeout=timeout) as reader, pytest.raises(rangeio.TimedOutError):
                reader.read_at(0, 1)
            with pytest.raises(rangeio.TimedOutError):
                list(rangeio.Operator.from_uri(place, timeout=timeout).list())
        else:
            loop = Loop(name)
            waited = Asking(rangeio.open_async(place, timeout=timeout), loop)
            with pytest.raises(rangeio.TimedOutError):
                waited.read_at(0, 1)
            waited.close()
            loop.close()
        assert time.monotonic() - began < 30


def _read_in_child(place: str) -> str:
    try:
        with rangeio.open(place) as reader:
            return str(bytes(reader.read_at(0, 5)) == DATA[:5])
    except rangeio.UnsupportedError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_children(plain: Hdfs) -> None:
    """A forked one is refused; one that begins anew reads."""
    place = uri(plain, "/native-children")
    with rangeio.open(place) as reader:
        assert reader.read_at(0, 5) == DATA[:5]
        for how, expected in (("fork", "webhdfs://"), ("spawn", "True")):
            with multiprocessing.get_context(how).Pool(1) as pool:
                assert expected in pool.apply(_read_in_child, (place,)), how
        child = os.fork()
        if not child:
            try:
                reader.read_at(0, 5)
            except rangeio.UnsupportedError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_two_name_nodes(two_name_nodes: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = two_name_nodes
    cluster.put("/dir/file", DATA)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(cluster.settings))
    with rangeio.open("hdfs://cluster/dir/file") as reader:
        assert reader.read_ranges(RANGES) == EXPECTED
        cluster.make_active("nn2")
        assert reader.read_ranges(RANGES) == EXPECTED
        assert reader.stat().size == len(DATA)
    with rangeio.open("hdfs:///dir/file") as reader:
        assert reader.read_at(0, 5) == DATA[:5]


@pytest.mark.parametrize("name", ["sync", *LOOPS])
def test_kerberos(secure: SecureHdfs, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in secure.tickets("alice").items():
        monkeypatch.setenv(variable, value)
    secure.put("/native", DATA)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(secure.settings))
    monkeypatch.delenv("HADOOP_USER_NAME")
    place = f"hdfs://{secure.rpc}/native"
    if name == "sync":
        with rangeio.open(place) as reader:
            assert reader.read_ranges(RANGES) == EXPECTED
        return
    need_module(name)
    loop = Loop(name)
    waited = Asking(rangeio.open_async(place), loop)
    assert waited.read_ranges(RANGES) == EXPECTED
    waited.close()
    loop.close()
