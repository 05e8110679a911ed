"""What S3 says and how it is taken: regions, clocks, refusals, listings. Against a server that answers as told."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest
from awaited import LOOPS, by_each, run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, Script, cut, honest, reply, scripted

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 800
KEYS: Any = {"access_key_id": "AKID", "secret_access_key": "secret"}
FAST: Any = {"retry": rangeio.Retry(attempts=4, backoff_s=0.001)}


class Desk:
    """Opens objects of scripted servers, sync or by a loop."""

    def __init__(self, open_reader: Callable[..., Any]) -> None:
        self._open = open_reader
        self._held: list[Any] = []

    def open(self, script: Script, uri: str = "s3://bucket/key", **options: Any) -> Any:
        context = scripted(script)
        self.server = context.__enter__()
        self._held.append(lambda: context.__exit__(None, None, None))
        reader = self._open(uri, **{"endpoint_url": self.server.url, **KEYS, **FAST, **options})
        self._held.append(reader.close)
        return reader

    def close(self) -> None:
        for let_go in reversed(self._held):
            let_go()


@pytest.fixture(params=["sync", "asyncio"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from by_each(request.param, Desk)


def error(status: int, code: str, message: str = "", more: str = "", **fields: str | None) -> Answer:
    """A refusal as S3 writes it."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message>{more}'
        "<RequestId>ID-IN-XML</RequestId></Error>"
    )
    return reply(status, body.encode(), **fields)


def region_of(asked: Asked) -> str:
    """For which a request is signed."""
    return asked.fields["authorization"].partition("Credential=")[2].split("/")[2]


# --- regions -------------------------------------------------------------------------------------------------


def only_in(region: str, wrong: Callable[[Asked], Answer]) -> Script:
    return lambda asked: honest(DATA, asked) if region_of(asked) == region else wrong(asked)


WRONG_REGION = {
    "301": lambda asked: error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
    "400": lambda asked: error(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
    "HEAD without a body": lambda asked: (
        reply(400, Content_Length="0")
        if asked.method == "HEAD"
        else error(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>")
    ),
    "403 of an opt-in region": lambda asked: reply(403, x_amz_bucket_region="eu-west-1"),
}


@pytest.mark.parametrize("how", WRONG_REGION)
def test_region_is_followed(desk: Desk, how: str) -> None:
    reader = desk.open(only_in("eu-west-1", WRONG_REGION[how]))
    assert reader.stat().size == len(DATA)
    asked = len(desk.server.asked)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert len(desk.server.asked) == asked + 1


def test_region_is_remembered() -> None:
    """For the bucket, by the Operator: the next object is asked for in the right region at once."""
    with scripted(only_in("eu-west-1", WRONG_REGION["301"])) as server:
        operator = rangeio.Operator("s3", endpoint_url=server.url, **KEYS)
        assert operator.open("one/a").read_at(0, 5) == DATA[:5]
        assert operator.open("one/b").read_at(0, 5) == DATA[:5]
        assert [region_of(asked) for asked in server.asked] == ["us-east-1", "eu-west-1", "eu-west-1"]
        operator.open("two/a").read_at(0, 5)
        assert [region_of(asked) for asked in server.asked[3:]] == ["us-east-1", "eu-west-1"]


def test_regions_in_a_circle(desk: Desk) -> None:
    other = {"us-east-1": "eu-west-1", "eu-west-1": "us-east-1"}
    reader = desk.open(
        lambda asked: error(301, "PermanentRedirect", x_amz_bucket_region=other[region_of(asked)])
    )
    with pytest.raises(rangeio.UnexpectedError, match="PermanentRedirect"):
        reader.read_at(0, 1)
    assert len(desk.server.asked) < 20


@pytest.mark.parametrize("region", ["evil.example.org/", "a b", "", "x" * 100, "EU"])
def test_region_that_is_none(desk: Desk, region: str) -> None:
    """It would become part of a host name."""
    reader = desk.open(lambda asked: error(301, "PermanentRedirect", x_amz_bucket_region=region))
    with pytest.raises(rangeio.UnexpectedError, match="set region="):
        reader.read_at(0, 1)
    assert len(desk.server.asked) == 1


def test_signature_stays_with_its_host(desk: Desk) -> None:
    """A redirect to somebody else is followed, without telling who asks."""
    with scripted(lambda asked: honest(DATA, asked)) as other:
        reader = desk.open(lambda asked: reply(307, Location=f"{other.url}/elsewhere"), session_token="token")
        assert reader.read_at(5, 10) == DATA[5:15]
        assert "authorization" in desk.server.asked[0].fields
        assert not {"authorization", "x-amz-security-token", "x-amz-date"} & set(other.asked[0].fields)


# --- clocks --------------------------------------------------------------------------------------------------


def at_clock(ahead_s: float, **fields: str | None) -> dict[str, Any]:
    date = datetime.now(timezone.utc) + timedelta(seconds=ahead_s)
    return {"Date": format_datetime(date, usegmt=True), **fields}


def signed_at(asked: Asked) -> float:
    stamp = datetime.strptime(asked.fields["x-amz-date"], "%Y%m%dT%H%M%SZ")
    return stamp.replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize("ahead_s", [-7200.0, 7200.0])
def test_clock_is_taken_from_the_server(desk: Desk, ahead_s: float) -> None:
    """HEAD has no body that would say why it is refused."""

    def script(asked: Asked) -> Answer:
        if abs(signed_at(asked) - time.time() - ahead_s) > 900:
            return error(403, "RequestTimeTooSkewed", **at_clock(ahead_s))
        return honest(DATA, asked)

    reader = desk.open(script)
    assert reader.stat().size == len(DATA)
    asked = len(desk.server.asked)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert len(desk.server.asked) == asked + 1


def test_clock_is_taken_once(desk: Desk) -> None:
    reader = desk.open(lambda asked: error(403, "RequestTimeTooSkewed", **at_clock(7200)))
    with pytest.raises(rangeio.UnauthenticatedError, match="clock"):
        reader.read_at(0, 1)
    assert len(desk.server.asked) == 2


# --- refusals ------------------------------------------------------------------------------------------------

REFUSALS: list[tuple[int, str, type[rangeio.Error], str]] = [
    (404, "NoSuchKey", rangeio.NotFoundError, "the key does not exist"),
    (404, "NoSuchBucket", rangeio.NotFoundError, "the bucket does not exist"),
    (404, "NoSuchVersion", rangeio.NotFoundError, "the version does not exist"),
    (403, "AccessDenied", rangeio.PermissionDeniedError, "denied"),
    (403, "InvalidObjectState", rangeio.PermissionDeniedError, "archived"),
    (403, "InvalidAccessKeyId", rangeio.UnauthenticatedError, "access_key_id"),
    (403, "SignatureDoesNotMatch", rangeio.UnauthenticatedError, "secret_access_key"),
    (400, "ExpiredToken", rangeio.UnauthenticatedError, "expired"),
    (400, "InvalidToken", rangeio.UnauthenticatedError, "session_token"),
    (501, "NotImplemented", rangeio.UnsupportedError, "does not support"),
    (400, "SomethingNew", rangeio.UnexpectedError, "400"),
    (404, "SomethingNew", rangeio.NotFoundError, "404"),
]


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"), REFUSALS, ids=[f"{row[0]} {row[1]}" for row in REFUSALS]
)
def test_refusals(desk: Desk, status: int, code: str, kind: type[rangeio.Error], said: str) -> None:
    reader = desk.open(lambda asked: error(status, code, "Something the server says.", x_amz_request_id="ID"))
    with pytest.raises(kind, match=said) as caught:
        reader.read_at(3, 4)
    assert type(caught.value) is kind
    assert (caught.value.http_status, caught.value.request_id, caught.value.status) == (
        status,
        "ID",
        "permanent",
    )
    assert (caught.value.path, caught.value.offset, caught.value.limit) == ("s3://bucket/key", 3, 4)
    assert len(desk.server.asked) == 1


UNKNOWN = [
    (400, "KMS.DisabledException", rangeio.UnexpectedError),
    (400, "InvalidRequest", rangeio.UnexpectedError),
    (403, "SomethingNew", rangeio.PermissionDeniedError),
    (404, "SomethingNew", rangeio.NotFoundError),
    (409, "OperationAborted", rangeio.UnexpectedError),
    (412, "PreconditionFailed", rangeio.ConditionNotMatchError),
    (418, "Teapot", rangeio.UnexpectedError),
    (500, "SomethingNew", rangeio.ServerError),
    (503, "SomethingNew", rangeio.ServerError),
]


@pytest.mark.parametrize(("status", "code", "kind"), UNKNOWN, ids=[f"{row[0]} {row[1]}" for row in UNKNOWN])
@pytest.mark.parametrize("named_by", ["head", "body"])
def test_codes_that_nobody_knows(
    desk: Desk, status: int, code: str, kind: type[rangeio.Error], named_by: str
) -> None:
    """Code, message and request id are what the store's own people ask for; the class is that of the status."""
    fields: Any = {"x_amz_request_id": "ID-IN-HEAD"} if named_by == "head" else {}
    reader = desk.open(lambda asked: error(status, code, "The server's own words.", **fields))
    with pytest.raises(kind) as caught:
        reader.read_at(3, 4)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert f"HTTP {status}: {code}: " in text
    assert "(the server: The server's own words.)" in text
    assert caught.value.request_id == ("ID-IN-HEAD" if named_by == "head" else "ID-IN-XML")
    assert f"request {caught.value.request_id}" in text
    assert caught.value.context["code"] == code
    assert caught.value.context["message"] == "The server's own words."
    assert caught.value.attempts == (4 if status >= 500 else 1)


def test_words_that_cannot_be_printed(desk: Desk) -> None:
    """Are as long as fits into a line, and legible."""
    reader = desk.open(
        lambda asked: error(
            400,
            "Odd&#10;Code\u202e" + "x" * 500,
            "a\tb\nc\x85\u200bd" + "y" * 500,
            x_amz_request_id="z" * 500,
        )
    )
    with pytest.raises(rangeio.UnexpectedError) as caught:
        reader.read_at(0, 1)
    assert str(caught.value).isprintable()
    assert "Odd Code?x" in str(caught.value)
    assert "a b c ?d" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_code_without_a_message(desk: Desk) -> None:
    for body, said in (
        (
            b"<Error><Code>SomethingNew</Code></Error>",
            "HTTP 400: SomethingNew: the server refuses the request",
        ),
        (
            b"<Error><Message>Only words.</Message></Error>",
            "HTTP 400: the server refuses the request (the server: Only words.)",
        ),
        (
            b"<Response><Error><Code>Inner</Code></Error></Response>",
            "HTTP 400: Inner: the server refuses the request",
        ),
        (b"<a><b><Error><Code>Deep</Code></Error></b></a>", "HTTP 400: the server refuses the request"),
    ):
        with pytest.raises(rangeio.UnexpectedError) as caught:
            desk.open(lambda asked, body=body: reply(400, body)).read_at(0, 1)
        assert str(caught.value).endswith(f": {said}")


def test_request_id_of_the_body(desk: Desk) -> None:
    with pytest.raises(rangeio.NotFoundError) as caught:
        desk.open(lambda asked: error(404, "NoSuchKey")).read_at(0, 1)
    assert caught.value.request_id == "ID-IN-XML"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", rangeio.RateLimitedError),
        (503, "ServiceUnavailable", rangeio.ServerError),
        (500, "InternalError", rangeio.ServerError),
        (400, "RequestTimeout", rangeio.TimedOutError),
        (429, "", rangeio.RateLimitedError),
    ],
)
def test_what_passes_is_retried(desk: Desk, status: int, code: str, kind: type[rangeio.Error]) -> None:
    """RequestTimeout comes with status 400."""
    reader = desk.open(lambda asked: error(status, code) if asked.number < 3 else honest(DATA, asked))
    assert reader.read_at(5, 10) == DATA[5:15]
    reader = desk.open(lambda asked: error(status, code))
    with pytest.raises(kind) as caught:
        reader.read_at(5, 10)
    assert (caught.value.status, caught.value.attempts, len(desk.server.asked)) == ("persistent", 4, 4)


def test_delete_marker(desk: Desk) -> None:
    for status in (404, 405):
        reader = desk.open(
            lambda asked, status=status: error(status, "NoSuchKey", x_amz_delete_marker="true")
        )
        with pytest.raises(rangeio.NotFoundError, match="delete marker"):
            reader.read_at(0, 1)


BODIES = {
    "nothing": reply(403),
    "HTML": reply(403, b"<html><body>Forbidden</body></html>"),
    "not even that": reply(403, b"\x00\xff<<&"),
    "other XML": reply(403, b"<Answer><Code>NoSuchKey</Code></Answer>"),
    "cut XML": reply(403, b"<Error><Code>NoSuchKey</Code>"),
    "large": reply(403, b"<Error><Code>AccessDenied</Code><Message>" + b"x" * 50_000 + b"</Message></Error>"),
    "very large": reply(403, b"x" * 1_000_000, then="close"),
    "document type": reply(
        403, b'<!DOCTYPE e [<!ENTITY a "NoSuchKey">]><Error><Code>&a;</Code><Message>m</Message></Error>'
    ),
    "encoding that there is not": reply(403, b'<?xml version="1.0" encoding="klingon"?><Error/>'),
    "chunked": Answer(
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"7\r\n<Error>\r\n1c\r\n<Code>AccessDenied</Code></E\r\n5\r\nrror>\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_refusals(desk: Desk, name: str) -> None:
    """Whatever they are, the status decides; the connection serves on or is closed."""
    reader = desk.open(lambda asked: BODIES[name] if asked.number == 0 else honest(DATA, asked))
    with pytest.raises(rangeio.PermissionDeniedError) as caught:
        reader.read_at(0, 1)
    assert ("AccessDenied" in str(caught.value)) == (name in ("chunked", "large"))
    assert len(str(caught.value)) < 300
    assert reader.read_at(5, 10) == DATA[5:15]


def test_namespace(desk: Desk) -> None:
    body = b'<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Code>NoSuchBucket</Code></Error>'
    with pytest.raises(rangeio.NotFoundError, match="the bucket does not exist"):
        desk.open(lambda asked: reply(404, body)).read_at(0, 1)


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_head_refused(desk: Desk, status: int) -> None:
    """The size then comes with the first byte."""
    reader = desk.open(lambda asked: reply(status) if asked.method == "HEAD" else honest(DATA, asked))
    assert reader.stat().size == len(DATA)
    assert desk.server.ranges == [None, (0, 1)]


def test_changed_object(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked, '"v1"' if asked.number == 0 else '"v2"'))
    reader.read_at(0, 1)
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(5, 10)
    assert desk.server.asked[1].fields["if-match"] == '"v1"'


def test_signed_again_for_each_try(desk: Desk) -> None:
    """What died is continued, under a signature and the pin."""
    reader = desk.open(
        lambda asked: cut(honest(DATA, asked), 1000, "close") if asked.number == 0 else honest(DATA, asked)
    )
    assert reader.read_at(0, 5000) == DATA[:5000]
    assert desk.server.ranges == [(0, 5000), (1000, 5000)]
    assert "authorization" in desk.server.asked[1].fields


# --- versions and conditions ---------------------------------------------------------------------------------


def test_version(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        return Answer(answer.data.replace(b"\r\n", b"\r\nx-amz-version-id: 3/L+4=\r\n", 1))

    reader = desk.open(script, version="3/L+4=")
    assert reader.read_at(5, 10) == DATA[5:15]
    assert reader.stat().version == "3/L+4="
    assert {asked.target for asked in desk.server.asked} == {"/bucket/key?versionId=3%2FL%2B4%3D"}


@pytest.mark.parametrize("scheme", ["http", "memory", "fs"])
def test_version_where_there_are_none(scheme: str) -> None:
    operator = rangeio.Operator(scheme)
    for call in (operator.open, operator.open_async):
        with pytest.raises(rangeio.ConfigInvalidError, match="no versions"):
            call("http://127.0.0.1/a", version="1")


CONDITIONS = {
    "if_match": '"e"',
    "if_none_match": '"e"',
    "if_modified_since": "Sat, 21 Nov 2026 05:00:00 GMT",
    "if_unmodified_since": "Sat, 21 Nov 2026 05:00:00 GMT",
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_are_sent(desk: Desk, name: str) -> None:
    status, kind = (
        (304, rangeio.NotModifiedError) if "none" in name or name == "if_modified_since" else (412, None)
    )
    reader = desk.open(lambda asked: reply(status), **{name: CONDITIONS[name]})
    with pytest.raises(kind or rangeio.ConditionNotMatchError):
        reader.read_at(0, 1)
    assert desk.server.asked[0].fields[name.replace("_", "-")] == CONDITIONS[name]


# --- listings ------------------------------------------------------------------------------------------------


def page(
    keys: list[str],
    after: str = "",
    prefixes: list[str] | None = None,
    encoded: bool = True,
    truncated: str = "",
) -> bytes:
    """A reply to ListObjectsV2, with keys as they are given here."""
    parts = ["<EncodingType>url</EncodingType>"] if encoded else []
    parts += [f"<IsTruncated>{truncated or str(bool(after)).lower()}</IsTruncated>"]
    parts += [f"<NextContinuationToken>{escape(after)}</NextContinuationToken>"] if after else []
    for key in keys:
        parts.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-21T05:00:00.125Z</LastModified>"
            "<ETag>&quot;e&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    parts += [
        f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes or ()
    ]
    inside = "".join(parts)
    return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</ListBucketResult>'.encode()


def terms(asked: Asked) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}


@pytest.fixture(params=["sync", *LOOPS])
def listed(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """All entries of a listing, had in one of the ways there are."""
    if request.param != "sync":
        need_module(request.param)

    def listed(operator: rangeio.Operator, *args: Any) -> list[Any]:
        if request.param == "sync":
            return list(operator.list(*args))

        async def main() -> list[Any]:
            return [stat async for stat in operator.list_async(*args)]

        found: list[Any] = run_on(request.param, main)
        return found

    return listed


Listed = Callable[..., list[Any]]


def operator_of(server: Any, **options: Any) -> rangeio.Operator:
    return rangeio.Operator("s3", bucket="bucket", endpoint_url=server.url, **{**KEYS, **FAST, **options})


def test_pages(listed: Listed) -> None:
    pages = {None: page(["a", "b"], "t/1+="), "t/1+=": page([], "2"), "2": page(["c"])}
    with scripted(lambda asked: reply(200, pages[terms(asked).get("continuation-token")])) as server:
        found = listed(operator_of(server), "x y/")
        assert [stat.path for stat in found] == ["a", "b", "c"]
        first = found[0]
        assert (first.size, first.etag, first.mtime_ns) == (7, '"e"', 1_795_237_200_125_000_000)
        assert [terms(asked).get("continuation-token") for asked in server.asked] == [None, "t/1+=", "2"]
        for asked in server.asked:
            assert terms(asked)["prefix"] == "x y/"
            assert asked.target.startswith("/bucket?")
            assert "range" not in asked.fields
            assert "authorization" in asked.fields
        assert server.connections == 1


def test_a_page_is_asked_for_when_it_is_needed() -> None:
    with scripted(lambda asked: reply(200, page([f"k{asked.number}"], f"t{asked.number}"))) as server:
        found = operator_of(server).list()
        assert len(server.asked) == 0
        assert [next(found).path for _ in range(3)] == ["k0", "k1", "k2"]
        assert len(server.asked) == 3


def test_keys_in_listings(listed: Listed) -> None:
    """Encoded as the server says, with "+" for a space as Amazon does; names that XML cannot hold otherwise, too."""
    encoded = ["a+b", "a%20b", "a%2Bb", "100%25", "%C3%A9", "line%0Aend", "a/b%26c%3Cd", "bad%FF"]
    plain = ["a b", "a b", "a+b", "100%", "é", "line\nend", "a/b&c<d", "bad\udcff"]
    with scripted(lambda asked: reply(200, page(encoded))) as server:
        assert [stat.path for stat in listed(operator_of(server))] == sorted(plain)
        assert terms(server.asked[0])["encoding-type"] == "url"
    raw = ["100%", "a%20b", "a+b", "a/b&c<d", "é"]
    with scripted(lambda asked: reply(200, page(raw, encoded=False))) as server:
        assert [stat.path for stat in listed(operator_of(server))] == raw


def test_prefixes(listed: Listed) -> None:
    with scripted(lambda asked: reply(200, page(["d/b"], prefixes=["d/a/", "d/c+c/"]))) as server:
        found = listed(operator_of(server), "d/", "/")
        assert [(stat.path, stat.is_prefix, stat.size) for stat in found] == [
            ("d/a/", True, None),
            ("d/b", False, 7),
            ("d/c c/", True, None),
        ]
        assert (terms(server.asked[0])["delimiter"], terms(server.asked[0])["prefix"]) == ("/", "d/")


def test_paths_are_those_that_open_takes(listed: Listed) -> None:
    with scripted(
        lambda asked: reply(200, page(["in/", "in/a"])) if "?" in asked.target else honest(DATA, asked)
    ) as server:
        for options, prefix, path in [
            ({"bucket": "bucket"}, "in/", "in/a"),
            ({"bucket": "bucket", "root": "in"}, "", "a"),
            ({"bucket": None}, "bucket/in/", "bucket/in/a"),
        ]:
            operator = rangeio.Operator("s3", endpoint_url=server.url, **KEYS, **options)
            assert listed(operator, prefix)[-1].path == path
            assert "" not in [stat.path for stat in listed(operator, prefix)]
            assert terms(server.asked[-1])["prefix"] == "in/"
            assert operator.open(path).read_at(0, 5) == DATA[:5]
            assert server.asked[-1].target == "/bucket/in/a"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(200, b"<html/>"), "not a listing of S3"),
        (reply(200, b""), "not a listing of S3"),
        (reply(200, b"<ListBucketResult>"), "not a listing of S3"),
        (reply(200, b'<!DOCTYPE x [<!ENTITY a "b">]>' + page(["&a;"])), "not a listing of S3"),
        (reply(200, page(["a"], truncated="true")), "no token"),
        (reply(200, page(["a"]).replace(b"<Size>7", b"<Size>many")), "an invalid size"),
    ],
    ids=str,
)
def test_listings_that_are_none(listed: Listed, answer: Answer, said: str) -> None:
    with scripted(lambda asked: answer) as server, pytest.raises(rangeio.UnexpectedError, match=said):
        listed(operator_of(server))


def test_a_listing_is_retried(listed: Listed) -> None:
    """Refused for a while, cut in the middle, sent in chunks."""
    body = page(["a", "b"])
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(body),
        body,
    )
    answers = [
        error(503, "SlowDown"),
        cut(reply(200, body), 50, "close"),
        Answer(b"", "reset"),
        Answer(chunked),
    ]
    with scripted(lambda asked: answers[asked.number]) as server:
        assert [stat.path for stat in listed(operator_of(server))] == ["a", "b"]


def test_a_listing_is_refused(listed: Listed) -> None:
    with (
        scripted(lambda asked: error(404, "NoSuchBucket")) as server,
        pytest.raises(rangeio.NotFoundError, match="the bucket does not exist") as caught,
    ):
        listed(operator_of(server))
    assert caught.value.path == "s3://bucket/"
    assert str(caught.value).startswith(
        "'s3://bucket/': HTTP 404: NoSuchBucket"
    )  # nobody asked for bytes of it


def test_the_region_of_a_listing(listed: Listed) -> None:
    def script(asked: Asked) -> Answer:
        return reply(200, page(["a"])) if region_of(asked) == "eu-west-1" else WRONG_REGION["301"](asked)

    with scripted(script) as server:
        assert [stat.path for stat in listed(operator_of(server))] == ["a"]
        assert len(server.asked) == 2


@pytest.mark.parametrize("name", LOOPS)
def test_an_async_listing_may_be_left(name: str) -> None:
    need_module(name)
    with scripted(lambda asked: reply(200, page(["a", "b"], "more"))) as server:

        async def main() -> None:
            async for stat in operator_of(server).list_async():
                assert stat.path == "a"
                break

        run_on(name, main)
        assert len(server.asked) == 1


# --- presigning ----------------------------------------------------------------------------------------------


def test_presigned_terms() -> None:
    operator = rangeio.Operator("s3", bucket="data", region="eu-west-1", session_token="a+b", **KEYS)
    url = urlsplit(operator.presign("dir/a b", timedelta(minutes=5)))
    found = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc, url.path) == ("https", "data.s3.eu-west-1.amazonaws.com", "/dir/a%20b")
    assert (found["X-Amz-Expires"], found["X-Amz-SignedHeaders"]) == ("300", "host")
    assert found["X-Amz-Security-Token"] == "a+b"
    assert found["X-Amz-Credential"].startswith("AKID/")
    assert "versionId=7" in operator.presign("a", version="7")


@pytest.mark.parametrize("name", ["x-amz-request-payer", "X-Amz-Request-Payer"])
def test_who_pays_is_part_of_a_presigned_url(name: str) -> None:
    """Without it S3 answers 403 to whoever uses the URL; it is signed as well. The other fields are not for others."""
    headers = {name: "requester", "X-Trace": "7", "x-amz-checksum-mode": "ENABLED"}
    operator = rangeio.Operator("s3", bucket="data", headers=headers, **KEYS)
    terms = parse_qs(urlsplit(operator.presign("a")).query)
    assert terms["x-amz-request-payer"] == ["requester"]
    assert terms["X-Amz-SignedHeaders"] == ["host"]
    assert not {"x-trace", "x-amz-checksum-mode"} & set(map(str.lower, terms))
    versioned = parse_qs(urlsplit(operator.presign("a", version="7")).query)
    assert (versioned["versionId"], versioned["x-amz-request-payer"]) == (["7"], ["requester"])
    plain = rangeio.Operator("s3", bucket="data", **KEYS).presign("a")
    assert "payer" not in plain.lower()


def test_a_presigned_url_is_read(desk: Desk) -> None:
    """By the http service, which sends it as it is."""
    desk.open(lambda asked: honest(DATA, asked))
    options = {"endpoint_url": desk.server.url, "headers": {"x-amz-request-payer": "requester"}, **KEYS}
    url = rangeio.Operator("s3", bucket="data", **options).presign("a b")
    with rangeio.open(url) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert desk.server.asked[-1].target == url.removeprefix(desk.server.url)


def test_customer_keys_cannot_be_presigned() -> None:
    headers = {"x-amz-server-side-encryption-customer-key": "c2VjcmV0", "x-amz-request-payer": "requester"}
    operator = rangeio.Operator("s3", bucket="data", headers=headers, **KEYS)
    with pytest.raises(rangeio.UnsupportedError, match="customer-key") as caught:
        operator.presign("a")
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("expires", [0, -1, 604_801, timedelta(days=8)])
def test_how_long(expires: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="604800"):
        rangeio.Operator("s3", **KEYS).presign("bucket/key", expires)


def test_who_cannot_presign() -> None:
    for operator in (rangeio.Operator("fs"), rangeio.Operator("http"), rangeio.Operator("memory")):
        with pytest.raises(rangeio.UnsupportedError):
            operator.presign("http://127.0.0.1/a")
    assert rangeio.Operator("s3", anonymous=True, bucket="data").presign("a").endswith(".amazonaws.com/a")


# --- paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["s3://bucket", "s3://bucket/", "s3://", "s3:///key", "s3://a b/key", "s3://x/k"]
)
def test_what_is_no_object(uri: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.open(uri, anonymous=True)


def test_from_uri() -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server:
        operator = rangeio.Operator.from_uri(
            "s3://bucket/some/where", endpoint_url=server.url, anonymous=True
        )
        operator.open("a b").read_at(0, 1)
        assert server.asked[0].target == "/bucket/some/where/a%20b"
        jobs: Any = [("a", (5, 15)), ("b", (0, 3)), ("a", None)]
        assert operator.read_ranges(jobs) == [DATA[5:15], DATA[:3], DATA]
        assert repr(operator) == "<rangeio.Operator s3 'some/where'>"


def test_a_uri_has_its_bucket() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="bucket"):
        rangeio.open("s3://bucket/key", bucket="other", anonymous=True)
