"""WebHDFS of Hadoop 3.3.6: ranges, names, listings, two name nodes, Kerberos and delegation tokens."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.hdfs import Hdfs, SecureHdfs

import _uring
import rangeio

need_module("urllib3")
pytestmark = pytest.mark.hdfs

DATA = random.Random(50_070).randbytes(3_500_000)  # four blocks
FAST: Any = {"retry": rangeio.Retry(attempts=6, backoff_s=0.05)}
NAMES = [
    "a b", "p%q", "p+q", "u\u0308", "ü", "se;mi", "am&p=x", "ha#sh", "q?m", "a@b", "qu\"ote", "ap'o", "[x]", "b\\s",
    "st*r", "til~de", "p%20x", "x,y$z!(w)", "a|b", "{x}", "h^t", "b`t", "<lt>", "\U0001f600",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def as_root(plain: Hdfs) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HADOOP_USER_NAME", "root")
        patch.delenv("HADOOP_CONF_DIR", raising=False)
        yield


class TestContract(HttpContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, plain: Hdfs, keep: Any) -> Make:
        def make(data: bytes) -> Any:
            path = f"/contract/{len(data)}"
            plain.put(path, data)
            return keep(rangeio.open(f"webhdfs://{plain.web()}{path}", reactor=reactor))

        return make


@pytest.mark.parametrize("name", LOOPS)
def test_loops(plain: Hdfs, name: str) -> None:
    need_module(name)
    uri = f"webhdfs://{plain.web()}{plain.put('/loops', DATA)}"
    loop = Loop(name)
    reader = Asking(rangeio.open_async(uri), loop)
    ranges = [(at, at + 1000) for at in range(0, len(DATA), 100_000)]
    assert reader.read_ranges(ranges) == [DATA[start:stop] for start, stop in ranges]
    assert reader.read_to_end() == DATA
    reader.close()
    loop.close()


def test_names(plain: Hdfs) -> None:
    """Read, listed, and with the same metadata by both."""
    for number, name in enumerate(NAMES):
        plain.put(f"/names/{name}/{name}", b"%d:0123456789" % number)
    operator = rangeio.Operator("webhdfs", cluster=plain.web(), root="/names")
    found = list(operator.list())
    assert [stat.path for stat in found] == sorted(f"{name}/{name}" for name in NAMES)
    for stat in found:
        number = NAMES.index(stat.path.partition("/")[0])
        with operator.open(stat.path) as reader:
            assert reader.read_at(0, 3) == (b"%d:0123456789" % number)[:3]
            assert reader.stat().size == stat.size
        assert operator.stat(stat.path) == stat


def test_pages_of_a_listing(plain: Hdfs) -> None:
    """More entries than a name node sends at once."""
    for number in range(1_010):
        plain.do(f"/many/{number:04}", op="MKDIRS")
    plain.put("/many/0999/file", b"content")
    operator = rangeio.Operator("webhdfs", cluster=plain.web())
    assert [stat.path for stat in operator.list("many/")] == ["many/0999/file"]
    assert [stat.path for stat in operator.list("many/", "/")] == ["many/0999/"]
    assert list(operator.list("nothing/")) == []


def test_errors(plain: Hdfs) -> None:
    path = plain.put("/errors/file", b"content")
    plain.do(path, op="SETPERMISSION", permission="600")
    operator = rangeio.Operator("webhdfs", cluster=plain.web(), user="alice")
    for name, error in (
        ("errors/nothing", rangeio.NotFoundError),
        ("errors", rangeio.IsDirectoryError),
        ("errors/file", rangeio.PermissionDeniedError),
    ):
        with operator.open(name) as reader, pytest.raises(error, match=f"webhdfs://{plain.web()}/{name}"):
            reader.read_at(0, 1)
    with rangeio.open(f"webhdfs://{plain.web()}{path}") as reader:
        assert reader.read_to_end() == b"content"


def test_overwritten(plain: Hdfs) -> None:
    path = plain.put("/overwritten", DATA)
    with rangeio.open(f"webhdfs://{plain.web()}{path}") as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        plain.put(path, DATA)
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_ranges([(0, 5), (2_000_000, 2_000_005)])


def test_empty(plain: Hdfs) -> None:
    with rangeio.open(f"webhdfs://{plain.web()}{plain.put('/empty', b'')}") as reader:
        assert reader.read_at(0, 10) == reader.read_to_end() == b""
        assert reader.size == 0


# --- two name nodes ------------------------------------------------------------------------------------------


def test_failover(two_name_nodes: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order: the second is active, then the first again, then the first is killed."""
    cluster = two_name_nodes
    path = cluster.put("/dir/file", DATA)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(cluster.settings))
    given = rangeio.Operator("webhdfs", namenodes=[cluster.web("nn1"), cluster.web("nn2")], **FAST)
    with rangeio.open(f"webhdfs://cluster{path}", **FAST) as reader, given.open(path) as other:
        for change in (lambda: None, lambda: cluster.make_active("nn2"), lambda: cluster.make_active("nn1")):
            change()
            for one in (reader, other):
                assert one.read_at(5, 10) == DATA[5:15]
                assert one.read_ranges([(0, 5), (2_000_000, 2_000_005)]) == [
                    DATA[:5],
                    DATA[2_000_000:2_000_005],
                ]
        assert [stat.path for stat in given.list()] == ["dir/file"]
        cluster.stop_node("nn1")
        cluster.make_active("nn2")
        for one in (reader, other):
            assert one.read_at(5, 10) == DATA[5:15]
    with rangeio.open(f"webhdfs://{path}", **FAST) as reader:  # fs.defaultFS
        assert reader.read_at(5, 10) == DATA[5:15]


# --- Kerberos ------------------------------------------------------------------------------------------------


@pytest.fixture
def alice(secure: SecureHdfs, monkeypatch: pytest.MonkeyPatch) -> SecureHdfs:
    """This process has her ticket."""
    for name, value in secure.tickets("alice").items():
        monkeypatch.setenv(name, value)
    return secure


def uri_of(secure: SecureHdfs, name: str = "/file") -> str:
    return f"webhdfs://{secure.web()}{secure.put(name, DATA)}"


def test_delegation_tokens(secure: SecureHdfs) -> None:
    uri, token = uri_of(secure), secure.token()
    with rangeio.open(uri, delegation_token=token) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_ranges([(0, 5), (2_000_000, 2_000_005)]) == [DATA[:5], DATA[2_000_000:2_000_005]]
    listed = rangeio.Operator("webhdfs", cluster=secure.web(), delegation_token=token).list()
    assert "file" in [stat.path for stat in listed]
    damaged = token[:40] + ("x" if token[40] != "x" else "y") + token[41:]
    for options in ({}, {"user": "alice"}, {"delegation_token": damaged}):
        with rangeio.open(uri, **options) as reader, pytest.raises(rangeio.UnauthenticatedError) as caught:
            reader.read_at(0, 1)
        assert token[:30] not in str(caught.value)
    with rangeio.open(uri, delegation_token=token) as reader:
        assert reader.read_at(0, 1) == DATA[:1]
        secure.cancel(token)
        with pytest.raises(rangeio.UnauthenticatedError):
            reader.read_at(0, 1)


@pytest.mark.parametrize("name", ["sync", *LOOPS])
def test_kerberos(alice: SecureHdfs, name: str) -> None:
    """The token is fetched with the first read."""
    uri = uri_of(alice)
    if name == "sync":
        with rangeio.open(uri, kerberos=True) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
            assert reader.read_to_end() == DATA
        found = dict(rangeio.Operator("webhdfs", cluster=alice.web(), kerberos=True).diagnosis())
        assert found["credentials"].startswith("kerberos=True, with a ticket in ")
        return
    need_module(name)
    loop = Loop(name)
    waited = Asking(rangeio.open_async(uri, kerberos=True), loop)
    assert waited.read_at(5, 10) == DATA[5:15]
    assert waited.read_to_end() == DATA
    waited.close()
    loop.close()


def test_a_token_that_expires(alice: SecureHdfs) -> None:
    """Another one is fetched, once."""
    operator = rangeio.Operator("webhdfs", cluster=alice.web(), kerberos=True)
    alice.put("/file", DATA)
    with operator.open("file") as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        login = operator._service._cluster.login  # type: ignore[attr-defined]
        alice.cancel(login.query.partition("=")[2])
        assert reader.read_at(50, 10) == DATA[50:60]
        assert login.version == 2


def test_no_ticket(secure: SecureHdfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KRB5_CONFIG", secure.tickets("alice")["KRB5_CONFIG"])
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/nothing")
    with (
        rangeio.open(uri_of(secure), kerberos=True) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match=r"Kerberos: .*kinit"),
    ):
        reader.read_at(0, 1)
