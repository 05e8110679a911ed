"""What WebHDFS says and how it is taken: status, ranges, redirects, refusals, name nodes. Against scripted servers."""

import json
import logging
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from awaited import by_each
from faults.machine import need_module
from servers.scripted import Answer, Asked, Everybody, cut, identity_of, reply, scripted, serving
from servers.webhdfs_server import WebHdfs, chunked, query_of, refusal, webhdfs

import rangeio
from rangeio.http import status_checks

need_module("urllib3")

DATA = bytes(range(256)) * 800
SIZE = len(DATA)
FAST: Any = {"retry": rangeio.Retry(attempts=4, backoff_s=0.001)}
TOKEN = "HgAFYWxpY2UFYWxpY2UAigGiLaMbJYoBolGvnyUCAhQiRXzTjOtf"


class Desk:
    """Opens files of a scripted cluster, sync or by a loop."""

    def __init__(self, open_reader: Callable[..., Any]) -> None:
        self._open = open_reader
        self._held: list[Any] = []

    def cluster(self, name_nodes: int = 1, **given: Any) -> WebHdfs:
        context = webhdfs(name_nodes, **given)
        self.server = context.__enter__()
        self._held.append(lambda: context.__exit__(None, None, None))
        return self.server

    def open(self, path: str = "/dir/file", data: bytes | None = DATA, **options: Any) -> Any:
        if data is not None:
            self.server.put(path, data)
        uri = f"webhdfs://{self.server.authority}{path}"
        reader = self._open(uri, **{"namenodes": self.server.authorities, **FAST, **options})
        self._held.append(reader.close)
        return reader

    def close(self) -> None:
        for let_go in reversed(self._held):
            let_go()


@pytest.fixture(params=["sync", "asyncio"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from by_each(request.param, Desk)


# --- requests ------------------------------------------------------------------------------------------------


def test_requests(desk: Desk) -> None:
    """One status, then two for each range; a batch has a status of its own."""
    server = desk.cluster()
    reader = desk.open(user="me")
    assert not server.requests
    assert reader.read_at(5, 10) == DATA[5:15]
    assert server.requests == ["GETFILESTATUS", "OPEN", "READ"]
    server.forget()
    for number in range(40):
        assert reader.read_at(number * 1000, 100) == DATA[number * 1000 :][:100]
    assert (server.requests.count("OPEN"), server.requests.count("READ")) == (40, 40)
    server.forget()
    near = [(at, at + 1000) for at in range(0, 80_000, 5000)]
    assert reader.read_ranges(near, gap=8000) == [DATA[start:stop] for start, stop in near]
    assert server.requests == ["OPEN", "READ"]
    server.forget()
    assert reader.read_ranges(near, gap=0) == [DATA[start:stop] for start, stop in near]
    assert sorted(server.requests) == ["GETFILESTATUS"] + ["OPEN"] * 16 + ["READ"] * 16
    for one in (reader, desk.open(data=None, user="me")):
        server.forget()
        assert one.stat().size == SIZE
        assert one.read_at(SIZE, 10) == b""
        assert server.requests == ["GETFILESTATUS"]
    assert {query_of(asked)["user.name"] for asked in server.name_nodes[0].asked} == {"me"}


def test_suffix_and_size(desk: Desk) -> None:
    server = desk.cluster()
    reader = desk.open()
    assert reader.read_range(rangeio.Suffix(7)) == DATA[-7:]
    assert server.requests == ["GETFILESTATUS", "OPEN", "READ"]
    stat = reader.stat()
    file = server.files["/dir/file"]
    assert (stat.size, stat.mtime_ns, stat.etag) == (SIZE, file.modified_ms * 10**6, None)
    assert stat.pin == f"{file.file_id}:{file.modified_ms}:{SIZE}"
    assert reader.capability.pin == "fileid+mtime+size"


def test_large_reads_are_checked(desk: Desk) -> None:
    server = desk.cluster()
    reader = desk.open(chunk=50_000)
    assert reader.read_at(0, 10) == DATA[:10]
    server.forget()
    assert reader.read_at(0, 120_000) == DATA[:120_000]
    assert server.requests.count("GETFILESTATUS") == 1
    assert server.requests.count("READ") == 3


def test_an_old_status_is_renewed(desk: Desk) -> None:
    server = desk.cluster()
    reader = desk.open()
    assert reader.read_at(0, 10) == DATA[:10]
    source = getattr(reader, "reader", reader)._source
    source._remote.checked_at -= 2
    server.put("/dir/file", DATA)
    with pytest.raises(rangeio.ObjectChangedError, match="it changed after it was opened"):
        reader.read_at(0, 10)


def test_other_versions(desk: Desk) -> None:
    """A file that is written again in the same millisecond, with as many bytes, has another fileId."""
    server = desk.cluster()
    reader, loose = desk.open(), desk.open(data=None, pin=False)
    assert reader.read_at(0, 10) == loose.read_at(0, 10) == DATA[:10]
    server.put("/dir/file", DATA[::-1])
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_ranges([(0, 10), (100_000, 100_010)], on_error="raise")
    with pytest.raises(rangeio.ObjectChangedError):
        reader.stat()
    assert loose.read_at(0, 10) == DATA[::-1][:10]
    wrong = desk.open(data=None, size=SIZE + 1)
    with pytest.raises(rangeio.ObjectChangedError, match="size="):
        wrong.read_at(0, 1)


def test_a_file_that_has_shrunk(desk: Desk) -> None:
    server = desk.cluster()
    reader = desk.open()
    assert reader.read_at(0, 10) == DATA[:10]
    server.files["/dir/file"].data = DATA[:100]
    with pytest.raises(rangeio.ObjectChangedError, match="shorter than when it was opened"):
        reader.read_at(1000, 10)


# --- bodies --------------------------------------------------------------------------------------------------


def sent(body: bytes, **fields: str | None) -> Answer:
    return reply(200, body, then="close", **fields)


def test_shorter_bodies_are_continued(desk: Desk) -> None:
    def few(asked: Asked, query: dict[str, str]) -> Answer:
        offset, length = int(query["offset"]), int(query["length"])
        return sent(DATA[offset : offset + min(length, 30_000)])

    server = desk.cluster(data_fault=few)
    assert desk.open().read_at(10, 100_000) == DATA[10:100_010]
    assert server.requests.count("READ") == 4


def test_broken_bodies_are_continued(desk: Desk) -> None:
    def broken(asked: Asked, query: dict[str, str]) -> Answer | None:
        offset, length = int(query["offset"]), int(query["length"])
        return cut(sent(DATA[offset : offset + length]), 70_000, "close") if length > 70_000 else None

    server = desk.cluster(data_fault=broken)
    assert desk.open().read_at(10, 200_000) == DATA[10:200_010]
    asked = [query_of(one) for one in server.data_node.asked]
    assert [int(query["offset"]) for query in asked] == [10, 70_010, 140_010]


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (lambda body: sent(DATA), rangeio.RangeNotSupportedError, "ignores offset or length"),
        (lambda body: sent(body + b"x"), rangeio.RangeNotSupportedError, "ignores offset or length"),
        (lambda body: sent(body, Content_Length=None), rangeio.RangeNotSupportedError, "without a length"),
        (lambda body: sent(b""), rangeio.ServerError, "no bytes at 5"),
        (lambda body: chunked(body + b"x"), rangeio.RangeNotSupportedError, "more than the requested"),
        (lambda body: chunked(DATA), rangeio.RangeNotSupportedError, "more than the requested"),
        (lambda body: chunked(body[:-1]), rangeio.ServerError, "its body ends after"),
        (lambda body: chunked(body, Content_Encoding="gzip"), rangeio.ContentEncodedError, "gzip"),
        (lambda body: reply(206, body, Content_Range="bytes 5-14/20"), rangeio.RangeNotSupportedError, "206"),
        (lambda body: reply(204), rangeio.RangeNotSupportedError, "204"),
        (lambda body: reply(416), rangeio.RangeNotSupportedError, "416"),
    ],
)
def test_bodies_that_are_not_the_range(desk: Desk, answer: Any, error: Any, match: str) -> None:
    """Never wrong bytes: refused, or retried and then refused."""
    desk.cluster(data_fault=lambda asked, query: answer(DATA[5:15]))
    with pytest.raises(error, match=match) as caught:
        desk.open().read_at(5, 10)
    assert "bytes [5, 15) of 'webhdfs://" in str(caught.value)


def test_at_once(desk: Desk) -> None:
    """HttpFS and proxies answer without a redirect, chunked."""
    server = desk.cluster(at_once=True)
    assert desk.open().read_at(5, 100_000) == DATA[5:100_005]
    assert server.requests == ["GETFILESTATUS", "OPEN"]


# --- redirects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/u\u0308", "/ü", "/a b", "/a%20b", "/p+q;x=1&y,z", "/q?m#h", "/[x]{y}|^`\\<>\"'", "/\U0001f600"]
)
def test_names(desk: Desk, path: str) -> None:
    """The Location of a name node has composed letters in place of decomposed ones: another file, or none."""
    server = desk.cluster()
    reader = desk.open(path)
    other = {"/u\u0308": "/ü", "/ü": "/u\u0308"}.get(path)
    if other is not None:
        server.put(other, DATA[::-1])
    assert reader.read_at(5, 10) == DATA[5:15]


@pytest.mark.parametrize("terms", ["op=OPEN&offset=0&length=10", "op=OPEN&OFFSET=3&Length=3", "op=OPEN"])
def test_redirects_to_another_range(desk: Desk, terms: str) -> None:
    """From a cache, or a gateway that drops what it does not know: the range is that of the read."""

    def moved(asked: Asked, query: dict[str, str]) -> Answer | None:
        place = f"{server.data_node.url}/webhdfs/v1/dir/file?{terms}"
        return reply(307, Location=place) if query["op"] == "OPEN" else None

    server = desk.cluster(name_fault=moved)
    assert desk.open().read_at(50, 10) == DATA[50:60]


def test_paths_of_gateways(desk: Desk) -> None:
    """A gateway has paths of its own, before and after the redirect."""

    def gateway(asked: Asked, query: dict[str, str]) -> Answer | None:
        if not asked.target.startswith("/gateway/default/webhdfs/v1/"):
            return reply(404)
        if query["op"] == "OPEN":
            return reply(307, Location=f"{server.data_node.url}/gateway/data/x?_=AAAencrypted")
        return chunked(json.dumps({"FileStatus": server.files["/dir/file"].status()}).encode())

    def data(asked: Asked, query: dict[str, str]) -> Answer | None:
        return sent(DATA[5:15]) if asked.target == "/gateway/data/x?_=AAAencrypted" else reply(500)

    server = desk.cluster(name_fault=gateway, data_fault=data)
    url = f"http://{server.authority}/gateway/default/webhdfs/v1"
    assert desk.open(namenodes=[url]).read_at(5, 10) == DATA[5:15]


@pytest.mark.parametrize("how", ["mapping of host", "mapping of host and port", "callable"])
def test_data_proxy(desk: Desk, how: str) -> None:
    """Data nodes have names that mean nothing here."""

    def inside(asked: Asked, query: dict[str, str]) -> Answer | None:
        terms = urlsplit(asked.target).query
        place = f"http://data-17.inside:{port}/webhdfs/v1/dir/file?{terms}"
        return reply(307, Location=place) if query["op"] == "OPEN" else None

    server = desk.cluster(name_fault=inside)
    place = urlsplit(server.data_node.url).netloc
    port = place.rpartition(":")[2]
    given: Any = {
        "mapping of host": {"data-17.inside": "127.0.0.1"},
        "mapping of host and port": {f"data-17.inside:{port}": place},
        "callable": lambda host: "127.0.0.1" if host == "data-17.inside" else host,
    }
    assert desk.open(data_proxy=given[how]).read_at(5, 10) == DATA[5:15]


def test_redirects_without_an_end(desk: Desk) -> None:
    def moved(asked: Asked, query: dict[str, str]) -> Answer | None:
        return reply(307, Location=f"{server.data_node.url}{asked.target}") if query["op"] == "OPEN" else None

    server = desk.cluster(name_fault=moved, data_fault=moved)
    with pytest.raises(rangeio.UnexpectedError, match="redirects"):
        desk.open().read_at(0, 1)


# --- refusals ------------------------------------------------------------------------------------------------


REFUSALS = [
    (
        refusal(404, "FileNotFoundException", "File does not exist: /x"),
        rangeio.NotFoundError,
        "does not exist",
    ),
    (
        refusal(403, "FileNotFoundException", "Path is not a file: /x"),
        rangeio.IsDirectoryError,
        "a directory",
    ),
    (refusal(403, "AccessControlException", "Permission denied"), rangeio.PermissionDeniedError, "denied"),
    (
        refusal(401, "SecurityException", "Failed to obtain user"),
        rangeio.UnauthenticatedError,
        "not accepted",
    ),
    (refusal(403, "SecretManager$InvalidToken", "expired"), rangeio.UnauthenticatedError, "InvalidToken"),
    (refusal(403, "ParentNotDirectoryException", ""), rangeio.NotDirectoryError, "is a file"),
    (refusal(403, "IOException", "Bad block"), rangeio.UnexpectedError, "Bad block"),
    (refusal(400, "IllegalArgumentException", "Invalid value"), rangeio.UnexpectedError, "Invalid value"),
    (refusal(403, "SafeModeException", "safe mode"), rangeio.ServerError, "safe mode"),
    (refusal(403, "RetriableException", "starting"), rangeio.ServerError, "4 attempts"),
    (refusal(403, "StandbyException", "standby"), rangeio.ServerError, "not the active one"),
    (refusal(500, "RuntimeException", "defect"), rangeio.ServerError, "defect"),
    (reply(401, b"<html>", WWW_Authenticate="Negotiate"), rangeio.UnauthenticatedError, "kerberos=True"),
    (reply(403, b"not JSON"), rangeio.PermissionDeniedError, "403"),
    (reply(403, b'{"RemoteException":5}'), rangeio.PermissionDeniedError, "403"),
    (reply(403, b'{"RemoteException":{"exception":[]}}'), rangeio.PermissionDeniedError, "403"),
    (reply(404, b"[" * 20_000), rangeio.NotFoundError, "404"),
]


@pytest.mark.parametrize("where", ["status", "open", "data"])
@pytest.mark.parametrize(("answer", "error", "match"), REFUSALS)
def test_refusals(desk: Desk, where: str, answer: Answer, error: Any, match: str) -> None:
    def name_node(asked: Asked, query: dict[str, str]) -> Answer | None:
        return answer if where == {"GETFILESTATUS": "status"}.get(query["op"], "open") else None

    desk.cluster(name_fault=name_node, data_fault=lambda asked, query: answer if where == "data" else None)
    with pytest.raises(error, match=match) as caught:
        desk.open().read_at(0, 10)
    assert "webhdfs://127.0.0.1" in str(caught.value)
    assert type(caught.value) is error


def test_directories(desk: Desk) -> None:
    desk.cluster()
    desk.open()
    reader = desk.open("/dir", data=None)
    with pytest.raises(rangeio.IsDirectoryError, match="list"):
        reader.read_at(0, 1)
    with pytest.raises(rangeio.IsDirectoryError):
        reader.stat()


@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"[]",
        b"{}",
        b'{"FileStatus":[]}',
        b'{"FileStatus":{"length":5}}',
        b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":-5,"modificationTime":1}}',
        b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":5.0,"modificationTime":1}}',
        b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":true,"modificationTime":1}}',
        b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":99999999999999999999,"modificationTime":1}}',
        b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":5,"modificationTime":"now"}}',
        b'{"FileStatus":{"pathSuffix":"a/b","type":"FILE","length":5,"modificationTime":1}}',
        b"[" * 20_000,
        b"\xff" * 50,
        b'{"FileStatus":{"pathSuffix":"' + b"x" * 100_000,
    ],
)
def test_statuses_that_are_none(desk: Desk, status: bytes) -> None:
    desk.cluster(name_fault=lambda asked, query: chunked(status))
    with pytest.raises(rangeio.UnexpectedError, match="FileStatus"):
        desk.open().read_at(0, 1)


def test_a_status_without_file_id(desk: Desk) -> None:
    """HttpFS has none."""
    said = b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":%d,"modificationTime":1}}' % SIZE
    desk.cluster(name_fault=lambda asked, query: chunked(said) if query["op"] != "OPEN" else None)
    reader = desk.open()
    assert reader.read_at(0, 5) == DATA[:5]
    assert reader.stat().pin == f"1:{SIZE}"


# --- name nodes ----------------------------------------------------------------------------------------------


def test_standby(desk: Desk) -> None:
    """The active name node is found, and remembered by the whole Operator."""
    server = desk.cluster(2, active=1)
    reader = desk.open()
    assert reader.read_at(5, 10) == DATA[5:15]
    assert len(server.name_nodes[0].asked) == 1
    assert reader.read_ranges([(0, 5), (100_000, 100_005)]) == [DATA[:5], DATA[100_000:100_005]]
    assert len(server.name_nodes[0].asked) == 1
    server.active = 0
    assert reader.read_ranges([(0, 5), (100_000, 100_005)]) == [DATA[:5], DATA[100_000:100_005]]
    assert reader.read_at(0, 5) == DATA[:5]


def test_many_reads_while_the_active_one_changes(desk: Desk) -> None:
    """Reads at once do not push each other from one name node to the other."""
    server = desk.cluster(2)
    reader = desk.open(gap=None)
    ranges = [(at, at + 10) for at in range(0, 200_000, 5000)]
    expected = [DATA[start:stop] for start, stop in ranges]
    assert reader.read_ranges(ranges) == expected
    server.active = 1
    assert reader.read_ranges(ranges) == expected


def test_both_in_standby(desk: Desk) -> None:
    server = desk.cluster(2, active=2)
    with pytest.raises(rangeio.ServerError, match="not the active one") as caught:
        desk.open().read_at(0, 1)
    assert caught.value.status == "persistent"
    assert min(len(node.asked) for node in server.name_nodes) >= 2


def test_a_name_node_that_is_down(desk: Desk) -> None:
    server = desk.cluster(2, active=1)
    server.name_nodes[0].close()
    reader = desk.open(retry=1)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert reader.read_at(50, 10) == DATA[50:60]


def test_a_name_node_that_hangs_up(desk: Desk) -> None:
    def hangs_up(asked: Asked, query: dict[str, str]) -> Answer | None:
        return Answer(b"", "close") if asked.fields["host"] == server.authorities[0] else None

    server = desk.cluster(2, active=1, name_fault=hangs_up)
    assert desk.open(retry=1).read_at(5, 10) == DATA[5:15]


def test_tokens_at_a_name_node_in_standby(desk: Desk) -> None:
    """It cannot check them, and says so in its own way."""

    def standby(asked: Asked, query: dict[str, str]) -> Answer | None:
        message = "Failed to obtain user group information: org.apache.hadoop.security.token.SecretManager$"
        at_first = asked.fields["host"] == server.authorities[0]
        return (
            refusal(401, "SecurityException", f"{message}InvalidToken: StandbyException")
            if at_first
            else None
        )

    server = desk.cluster(2, active=1, token=TOKEN, name_fault=standby)
    assert desk.open(delegation_token=TOKEN).read_at(5, 10) == DATA[5:15]


# --- TLS and secrets -----------------------------------------------------------------------------------------


def test_from_https_to_http(tmp_path: Any) -> None:
    """A cluster over TLS that sends reads to plain data nodes: others could read them."""
    status = chunked(b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":10,"modificationTime":1}}')
    moved = reply(307, Location="http://127.0.0.1:9/webhdfs/v1/f?op=OPEN")

    def script(asked: Asked) -> Answer:
        return status if query_of(asked)["op"] == "GETFILESTATUS" else moved

    with scripted(script, identity_of(["localhost"], tmp_path)) as server:
        uri = f"swebhdfs://localhost:{urlsplit(server.url).port}/f"
        with (
            rangeio.open(uri, ca_file=str(tmp_path / "ca.pem"), delegation_token=TOKEN) as reader,
            pytest.raises(rangeio.UnsupportedError, match="from https to http"),
        ):
            reader.read_at(0, 5)


def test_over_tls(tmp_path: Any) -> None:
    status = chunked(
        b'{"FileStatus":{"pathSuffix":"","type":"FILE","length":%d,"modificationTime":1}}' % SIZE
    )

    def script(asked: Asked) -> Answer:
        query = query_of(asked)
        assert query["delegation"] == TOKEN
        if query["op"] == "GETFILESTATUS":
            return status
        start = int(query["offset"])
        return chunked(DATA[start : start + int(query["length"])])

    with scripted(script, identity_of(["localhost"], tmp_path)) as server:
        uri = f"swebhdfs://localhost:{urlsplit(server.url).port}/f"
        with rangeio.open(uri, ca_file=str(tmp_path / "ca.pem"), delegation_token=TOKEN) as reader:
            assert reader.read_at(0, 5) == DATA[:5]
            assert reader.path == uri


def test_secrets_are_nowhere(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """In no repr, pickle, plan, message and log."""
    caplog.set_level(logging.DEBUG)
    server = desk.cluster(token=TOKEN)
    server.put("/dir/file", DATA)
    given: Any = {"namenodes": server.authorities, "delegation_token": TOKEN}
    operator = rangeio.Operator("webhdfs", **given)
    with operator.open("dir/file") as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        seen: list[Callable[[], object]] = [
            lambda: repr(operator),
            lambda: repr(reader),
            lambda: vars(operator._service),
            lambda: vars(operator._service)["_cluster"].login,
            lambda: reader.plan([(0, 10)]),
            lambda: reader.stat(),
            lambda: reader.capability,
            lambda: pickle.dumps(operator),
            lambda: pickle.dumps(reader),
            lambda: pickle.dumps(operator.open_async("dir/file")),
            lambda: caplog.text,
        ]
        for look in seen:
            assert TOKEN not in str(look())
            assert TOKEN[:20] not in str(look())


@pytest.mark.parametrize("where", ["name node", "data node"])
def test_secrets_are_in_no_error(desk: Desk, where: str) -> None:
    """Not even when the server quotes the request, or redirects with another token."""
    other = "SecondTokenOfTheRedirect"

    def quoting(asked: Asked, query: dict[str, str]) -> Answer:
        return refusal(403, "IOException", f"Cannot serve {asked.target} {query}")

    def name_node(asked: Asked, query: dict[str, str]) -> Answer | None:
        if query["op"] != "OPEN":
            return None
        if where == "name node":
            return quoting(asked, query)
        return reply(307, Location=f"{server.data_node.url}/webhdfs/v1/x?op=OPEN&delegation={other}&length=9")

    server = desk.cluster(token=TOKEN, name_fault=name_node, data_fault=quoting)
    with pytest.raises(rangeio.UnexpectedError, match="Cannot serve") as caught:
        desk.open(delegation_token=TOKEN).read_at(0, 1)
    error = caught.value
    for text in (str(error), repr(error), repr(error.context), str(pickle.dumps(error))):
        assert TOKEN not in text
        assert other not in text
    assert "op=OPEN" in str(error)


def test_wrong_tokens(desk: Desk) -> None:
    desk.cluster(token=TOKEN)
    with pytest.raises(rangeio.UnauthenticatedError, match=r"delegation_token= or kerberos=True"):
        desk.open().read_at(0, 1)
    with pytest.raises(rangeio.UnauthenticatedError, match="InvalidToken"):
        desk.open(delegation_token="another").read_at(0, 1)


def test_a_status_that_takes_long_is_asked_for_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that is older than a second when it arrives."""
    monkeypatch.setattr(status_checks, "_FRESH_S", -1.0)
    server = desk.cluster()
    reader = desk.open(timeout=rangeio.Timeout(total_s=5))
    assert reader.read_at(0, 10) == DATA[:10]
    assert reader.read_ranges([(0, 10), (90_000, 90_010)], gap=0) == [DATA[:10], DATA[90_000:90_010]]
    assert server.requests.count("GETFILESTATUS") == 2


def test_tokens_stay_with_this_machine(desk: Desk) -> None:
    """A name node here, perhaps a tunnel, redirects to a data node elsewhere, with the token in the query."""
    far = Everybody(lambda asked: reply(200, DATA[:10]), socket.create_server(("127.0.0.1", 0)))
    with serving(far):

        def away(asked: Asked, query: dict[str, str]) -> Answer | None:
            if query["op"] != "OPEN":
                return None
            token = f"&delegation={TOKEN}" if "delegation" in query else ""
            return reply(307, Location=f"http://far.example:1/webhdfs/v1/f?op=OPEN{token}&offset=0")

        server = desk.cluster(token=TOKEN, name_fault=away)
        nearby = {"far.example": urlsplit(far.url).netloc}
        with pytest.raises(rangeio.PermissionDeniedError, match=r"far\.example.*insecure_tokens") as caught:
            desk.open(delegation_token=TOKEN).read_at(0, 10)
        assert TOKEN not in str(caught.value)
        assert not far.asked
        assert desk.open(delegation_token=TOKEN, data_proxy=nearby).read_at(0, 10) == DATA[:10]
        server.token = None
        assert desk.open(user="me", data_proxy=nearby).read_at(0, 10) == DATA[:10]
        with pytest.raises(rangeio.ConnectionFailedError):
            desk.open(delegation_token=TOKEN, insecure_tokens=True).read_at(0, 10)


def test_many_retries(desk: Desk) -> None:
    """Each is redirected again, which is no loop of redirects."""
    server = desk.cluster(data_fault=lambda asked, query: reply(503) if asked.number < 14 else None)
    reader = desk.open(retry=rangeio.Retry(attempts=20, backoff_s=0.001))
    assert reader.read_at(0, 10) == DATA[:10]
    assert server.requests.count("OPEN") == 15


MUCH: dict[str, Callable[[Any], object]] = {
    "a large range": lambda reader: reader.read_at(0, 200_000),
    "several ranges": lambda reader: reader.read_ranges([(0, 10), (150_000, 150_010)], gap=0),
    "records": lambda reader: reader.read_batch([0, 150_000], 10),
    "the first read": lambda reader: reader.read_at(0, 200_000),
}


@pytest.mark.parametrize("how", MUCH)
def test_two_versions_in_one_result(desk: Desk, how: str) -> None:
    """A file that is written again while its ranges are read: the bytes of a data node do not say of which version."""
    server = desk.cluster()
    reader = desk.open(chunk=50_000, concurrent=1)
    if how != "the first read":
        assert reader.read_at(0, 10) == DATA[:10]

    def write_again(asked: Asked, query: dict[str, str]) -> None:
        if int(query["offset"]) >= 100_000:
            server.put("/dir/file", b"B" * SIZE)

    server.data_fault = write_again
    with pytest.raises(rangeio.ObjectChangedError, match="it changed after it was opened"):
        MUCH[how](reader)


def test_results_wait_for_one_status(desk: Desk) -> None:
    """Also if some of the ranges fail, lie past the end or are empty."""
    server = desk.cluster()
    reader = desk.open(retry=rangeio.Retry(attempts=1))
    assert reader.read_at(0, 10) == DATA[:10]
    server.forget()
    server.data_fault = lambda asked, query: reply(404) if query["offset"] == "90000" else None
    ranges = [(0, 10), (90_000, 90_010), (SIZE, SIZE + 5), (7, 7), (150_000, 150_010)]
    found = reader.read_ranges(ranges, gap=0, on_error="return")
    assert isinstance(found[1], rangeio.NotFoundError)
    assert [*found[:1], *found[2:]] == [DATA[:10], b"", b"", DATA[150_000:150_010]]
    assert server.requests.count("GETFILESTATUS") <= 1


def test_tokens_of_many_redirects(desk: Desk) -> None:
    """Each redirect may hold a token of its own, and all of them may be on their way when the first is quoted."""
    many = 16
    together = threading.Barrier(many)

    def redirect(asked: Asked, query: dict[str, str]) -> Answer | None:
        if query["op"] != "OPEN":
            return None
        target = f"{server.data_node.url}/webhdfs/v1/x?op=OPEN&delegation=TokenOf{query['offset']}"
        return reply(307, Location=target)

    def quoting(asked: Asked, query: dict[str, str]) -> Answer:
        together.wait(10)
        return refusal(403, "IOException", f"Cannot serve {query['delegation']}")

    server = desk.cluster(name_fault=redirect, data_fault=quoting)
    reader = desk.open(concurrent=many)
    ranges = [(at * 10_000, at * 10_000 + 10) for at in range(many)]
    found = reader.read_ranges(ranges, gap=0, on_error="return")
    assert all("Cannot serve ***" in str(error) for error in found)
    assert not [error for error in found if "TokenOf" in str(error)]
