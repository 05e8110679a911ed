"""What a service may change about its requests and responses: the methods of `RemoteObject` that say "for services"."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, reply, scripted

import _uring
import rangeio
from rangeio.async_reader import AsyncReader
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.heads import Head
from rangeio.http.remote_object import Access, Refusal, RemoteObject
from rangeio.http.urls import Address, moved, parse_url
from rangeio.http.validation import End, Take, Version
from rangeio.reader import Reader
from rangeio.services.http_options import DEFAULTS
from rangeio.services.http_source import HttpSource

need_module("urllib3")

DATA = bytes(range(256)) * 400


def opened(kind: type[RemoteObject], url: str, **options: Any) -> Any:
    chosen = DEFAULTS.updated({"retry": 2, "timeout": 10, **options})
    access = Access(ConnectionPool(Security(None, None, True), ""))
    remote = kind(
        access,
        parse_url(url),
        timeout=chosen.timeout,
        retry=chosen.retry,
        pin=chosen.pin,
        on_no_range=chosen.on_no_range,
        cap=chosen.no_range_cap,
        conditions={},
    )
    return HttpSource(_uring.default_reactor(), remote, chosen), chosen


def also(answer: Answer, line: str) -> Answer:
    """The answer with one more header field."""
    return replace(answer, data=answer.data.replace(b"\r\n", f"\r\n{line}\r\n".encode(), 1))


@pytest.fixture(params=["sync", *LOOPS])
def way(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Opens a kind of object, sync or on a loop."""
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)

    def make(kind: type[RemoteObject], url: str, **options: Any) -> Any:
        source, chosen = opened(kind, url, **options)
        if loop is None:
            return Reader(source, chosen)
        return Awaited(AsyncReader(lambda: source, chosen, url), loop)

    yield make
    if loop is not None:
        loop.close()


# --- requests that differ in more than two numbers -----------------------------------------------------------


def signature(range_: str) -> str:
    return hashlib.sha256(range_.encode()).hexdigest()


class Signed(RemoteObject):
    """Signs the range itself, as Azure's Shared Key does."""

    ranges_alike = False

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        plain = super().request(method, at, stop, version, target, absolute)
        value = "" if stop is None else f"bytes={at}-{stop - 1}"
        return plain[:-2] + f"X-Signature: {signature(value)}\r\n\r\n".encode()


def signed_only(asked: Asked) -> Answer:
    expected = signature(asked.fields.get("range", ""))
    return honest(DATA, asked) if asked.fields.get("x-signature") == expected else reply(401)


def test_each_range_is_signed(way: Any) -> None:
    """The second range, and many at once, would otherwise be made by the core from one text."""
    with scripted(signed_only) as server:
        reader = way(Signed, server.url + "/object")
        for start in (0, 10, 5_000, 90_000):
            assert reader.read_at(start, 100) == DATA[start : start + 100]
        pairs = [(start, start + 50) for start in range(0, 90_000, 9_000)]
        assert [bytes(buf) for buf in reader.read_ranges(pairs, gap=0)] == [DATA[a:b] for a, b in pairs]
        assert reader.read_batch([1, 70_000], 8) == DATA[1:9] + DATA[70_000:70_008]
        assert reader.stat().size == len(DATA)


# --- the pin of a service ------------------------------------------------------------------------------------


class Generations(RemoteObject):
    """Its server knows versions by number."""

    def pin_fields(self, version: Version) -> Mapping[str, str]:
        return {"X-Goog-If-Generation-Match": version.number} if version.number else {}


def test_the_pin_is_that_of_the_service(way: Any) -> None:
    generation = ["7"]

    def script(asked: Asked) -> Answer:
        wanted = asked.fields.get("x-goog-if-generation-match")
        assert "if-match" not in asked.fields
        if wanted not in (None, generation[0]):
            return reply(412)
        return also(honest(DATA, asked, etag=None), f"x-goog-generation: {generation[0]}")

    with scripted(script) as server:
        reader = way(Generations, server.url + "/object")
        for start in (0, 10, 20):
            assert reader.read_at(start, 5) == DATA[start : start + 5]
        assert server.asked[-1].fields["x-goog-if-generation-match"] == "7"
        generation[0] = "8"
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_at(30, 5)


# --- redirects -----------------------------------------------------------------------------------------------


class OneRange(RemoteObject):
    """Each range is redirected on its own; the response is a 200 without a Content-Range, as WebHDFS sends it."""

    ranges_alike = False
    redirects_object = False

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        if target == self.address and stop is not None:
            target = replace(target, target=f"{target.target}?offset={at}&length={stop - at}")
        return super().request(method, at, None, version, target, absolute)

    def judged(self, head: Head, at: int, stop: int) -> Take | End | None:
        if head.status != 200 or head.length is None:
            return None
        return Take(0, at + head.length, None, open=False) if head.length else End(None)

    def told_by_head(self, head: Head) -> int | None:
        return None


def at_once(asked: Asked) -> tuple[int, int]:
    query = parse_qs(urlsplit(asked.target).query)
    return int(query["offset"][0]), int(query["length"][0])


def test_a_redirect_of_one_request_is_not_kept_for_the_object(way: Any) -> None:
    """Kept for the object, it would deliver the bytes of the first range for all others."""
    nodes: list[Asked] = []

    def node(asked: Asked) -> Answer:
        nodes.append(asked)
        start, length = at_once(asked)
        return reply(200, DATA[start : start + length], ETag='"v1"')

    def script(asked: Asked) -> Answer:
        start, length = at_once(asked)
        return reply(307, Location=f"{far.url}/node?offset={start}&length={length}")

    with scripted(node) as far, scripted(script) as server:
        reader = way(OneRange, server.url + "/object")
        for start in (0, 10, 5_000, 90_000):
            assert reader.read_at(start, 100) == DATA[start : start + 100]
        assert len(server.asked) == len(nodes) == 4
        assert reader.read_at(len(DATA) - 10, 50) == DATA[-10:]


def test_a_redirect_of_one_request_is_asked_for_again_after_a_failure(way: Any) -> None:
    """The node that it led to may be the one that failed."""
    nodes: list[Asked] = []

    def node(asked: Asked) -> Answer:
        nodes.append(asked)
        start, length = at_once(asked)
        return reply(503) if len(nodes) == 1 else reply(200, DATA[start : start + length], ETag='"v1"')

    def script(asked: Asked) -> Answer:
        start, length = at_once(asked)
        return reply(307, Location=f"{far.url}/node?offset={start}&length={length}")

    with scripted(node) as far, scripted(script) as server:
        reader = way(OneRange, server.url + "/object", retry=3)
        assert reader.read_at(7, 100) == DATA[7:107]
        assert (len(server.asked), len(nodes)) == (2, 2)


class Linked(RemoteObject):
    """Learns from the head of a redirect."""

    linked = ""

    def redirected(self, asked: Address, head: Head) -> Address:
        self.linked = head.fields.get("x-linked-etag", "")
        return moved(asked, head.fields["location"])


def test_the_head_of_a_redirect_can_be_read() -> None:
    with scripted(lambda asked: honest(DATA, asked)) as far:

        def script(asked: Asked) -> Answer:
            return reply(302, Location=far.url + "/cdn", X_Linked_Etag='"sha"')

        with scripted(script) as server:
            source, _ = opened(Linked, server.url + "/object")
            assert source.read_at(3, 10) == DATA[3:13]
            assert source._remote.linked == '"sha"'
            source.close()


class Told(RemoteObject):
    """Its redirects tell the version and the size, and the ETag of the server that they lead to means nothing."""

    probe_method = "GET"
    linked: Head | None = None

    def pin_fields(self, version: Version) -> Mapping[str, str]:
        return {}

    def redirected(self, asked: Address, head: Head) -> Address:
        self.linked = Head(200, {"etag": head.fields["x-linked-etag"]}, len(DATA), False, False)
        return moved(asked, head.fields["location"])

    def told_by_redirect(self, head: Head) -> Head | None:
        return self.linked

    def interpret(self, head: Head, target: Address) -> None:
        assert target.target == "/cdn"
        assert self.linked is not None
        head.fields["etag"] = self.linked.fields["etag"]


def test_a_redirect_can_tell_what_it_leads_to(way: Any) -> None:
    """`stat` does not follow it then, and each response has the ETag that it told."""
    own = iter(range(9))
    with scripted(lambda asked: honest(DATA, asked, etag=f'"{next(own)}"')) as far:
        location = {"Location": far.url + "/cdn", "X_Linked_Etag": '"sha"'}
        with scripted(lambda asked: reply(302, **location)) as server:
            reader = way(Told, server.url + "/object")
            stat = reader.stat()
            assert (stat.etag, stat.size) == ('"sha"', len(DATA))
            assert [asked.method for asked in server.asked] == ["GET"]
            assert not far.asked
            for start in (3, 70_000):
                assert reader.read_at(start, 10) == DATA[start : start + 10]
            assert reader.stat().etag == '"sha"'
            assert [asked.method for asked in far.asked] == ["GET"] * 3


# --- what responses mean -------------------------------------------------------------------------------------


class EndsByRefusal(OneRange):
    """Says 403 where the object ends, as WebHDFS does."""

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        return replace(super().refused(head, body, pinned=pinned), ends=b"out of the range" in body)


def test_a_refusal_can_mean_the_end(way: Any) -> None:
    def script(asked: Asked) -> Answer:
        start, length = at_once(asked)
        if start >= len(DATA):
            return reply(403, b"Offset=102400 out of the range [0, 102400)")
        return reply(200, DATA[start : start + length], ETag='"v1"')

    with scripted(script) as server:
        reader = way(EndsByRefusal, server.url + "/object")
        assert reader.read_at(len(DATA), 10) == b""
        assert reader.read_at(len(DATA) - 5, 10) == DATA[-5:]


class EmptyParts(RemoteObject):
    """A part of no bytes is the end, as Azurite sends it."""

    def judged(self, head: Head, at: int, stop: int) -> Take | End | None:
        return End(None) if head.status == 206 and head.length == 0 else None


def test_a_part_without_bytes_can_mean_the_end(way: Any) -> None:
    def script(asked: Asked) -> Answer:
        start = (asked.range or (0, 0))[0]
        if start < len(DATA):
            return honest(DATA, asked)
        return reply(206, Content_Range=f"bytes {len(DATA)}-{len(DATA) - 1}/{len(DATA)}", ETag='"v1"')

    with scripted(script) as server:
        assert way(EmptyParts, server.url + "/object").read_at(len(DATA) + 5, 10) == b""


class Stored(RemoteObject):
    """Stores encoded bytes and sends them as they are, as Google does."""

    accept_encoding = "gzip"
    stored_encoding = True


@pytest.mark.parametrize("whole", [False, True])
def test_offsets_can_refer_to_encoded_bytes(way: Any, whole: bool) -> None:
    def script(asked: Asked) -> Answer:
        assert asked.fields["accept-encoding"] == "gzip"
        answer = reply(200, DATA, ETag='"v1"') if whole else honest(DATA, asked)
        return also(answer, "Content-Encoding: gzip")

    with scripted(script) as server:
        reader = way(Stored, server.url + "/object")
        assert reader.read_at(0, 1 << 20) == DATA
        if not whole:
            assert reader.read_at(500, 10) == DATA[500:510]


def test_409_says_that_the_state_of_the_object_is_the_reason() -> None:
    with scripted(lambda asked: reply(409)) as server:
        source, _ = opened(RemoteObject, server.url + "/object")
        with pytest.raises(rangeio.UnexpectedError, match="the state of the object does not allow"):
            source.read_at(0, 1)
        source.close()
