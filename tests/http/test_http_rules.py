"""Honest bytes against servers that misbehave: each way that is known, sync and async, and what becomes of it."""

import io
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awaited import by_each
from servers.scripted import Answer, Asked, Script, cut, honest, reply, scripted

import rangeio

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

DATA = bytes(range(256)) * 800
SIZE = len(DATA)
FAST: Any = {"retry": rangeio.Retry(attempts=4, backoff_s=0.001)}


class Desk:
    """Opens readers of scripted servers, sync or by a loop, and remembers what was asked."""

    def __init__(self, open_reader: Callable[..., Any]) -> None:
        self._open = open_reader
        self._servers: list[Any] = []
        self._readers: list[Any] = []

    def open(self, script: Script, path: str = "/object", **options: Any) -> Any:
        context = scripted(script)
        self.server = context.__enter__()
        self._servers.append(context)
        reader = self._open(self.server.url + path, **{**FAST, **options})
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for context in self._servers:
            context.__exit__(None, None, None)


@pytest.fixture(params=["sync", "asyncio"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from by_each(request.param, Desk)


def at(number: int, wrong: Callable[[Asked], Answer]) -> Script:
    """Honest, but for one request."""
    return lambda asked: wrong(asked) if asked.number == number else honest(DATA, asked)


def tens(reader: Any, count: int) -> bytes:
    """So many reads of ten bytes, one after the other."""
    return b"".join(reader.read_at(10 * index, 10) for index in range(count))


# --- ranges --------------------------------------------------------------------------------------------------


def test_parts_are_pinned(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked), chunk=50_000)
    assert reader.read_range() == DATA
    assert sorted(desk.server.ranges) == [(at, at + 50_000) for at in range(0, SIZE - 4_800, 50_000)] + [
        (200_000, SIZE)
    ]
    assert [asked.fields.get("if-match") for asked in desk.server.asked] == [None, *['"v1"'] * 4]
    assert all(asked.fields["accept-encoding"] == "identity" for asked in desk.server.asked)


def test_plan_is_what_is_sent(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked))
    wanted = [(0, 100), (50_000, 50_100), (150_000, 200_000), (SIZE - 10, SIZE + 10)]
    assert reader.stat().size == SIZE
    plan = reader.plan(wanted, gap=1000, chunk=20_000)
    del desk.server.asked[:]
    assert reader.read_ranges(wanted, gap=1000, chunk=20_000) == [DATA[a:b] for a, b in wanted]
    assert sorted(desk.server.ranges) == sorted((start, start + length) for _, start, length in plan.requests)


def test_shorter_is_continued(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        start, stop = asked.range or (0, 0)
        last = min(stop, start + 30_000, SIZE)
        span = f"bytes {start}-{last - 1}/{SIZE}"
        return reply(206, DATA[start:last], ETag='"v1"', Content_Range=span)

    reader = desk.open(script)
    assert reader.read_at(5, 100_000) == DATA[5:100_005]
    assert desk.server.ranges == [(at, 100_005) for at in (5, 30_005, 60_005, 90_005)]


def test_longer_is_trimmed(desk: Desk) -> None:
    span = f"bytes 90-{SIZE - 1}/{SIZE}"
    reader = desk.open(lambda _: reply(206, DATA[90:], ETag='"v1"', Content_Range=span))
    assert reader.read_at(100, 50) == DATA[100:150]


@pytest.mark.parametrize(
    "span",
    [None, f"bytes 101-149/{SIZE}", "bytes 0-49/205000", "items 100-149/200", "bytes */205000", "nonsense"],
)
def test_misplaced(desk: Desk, span: str | None) -> None:
    reader = desk.open(lambda _: reply(206, DATA[100:150], ETag='"v1"', Content_Range=span))
    with pytest.raises(rangeio.Error) as caught:
        reader.read_at(100, 50)
    assert isinstance(caught.value, rangeio.RangeNotSupportedError | rangeio.ServerError)
    assert (caught.value.offset, caught.value.limit, caught.value.http_status) in [
        (100, 50, 206),
        (100, 50, None),
    ]


def test_misplaced_is_told_half_open(desk: Desk) -> None:
    """Both ranges in the form in which ranges are given: the last byte is not in them."""
    span = f"bytes 160-199/{SIZE}"
    reader = desk.open(lambda _: reply(206, DATA[160:200], ETag='"v1"', Content_Range=span))
    told = (
        f"bytes [100, 150) of '{reader.path}': the server sends bytes [160, 200) for a request for [100, 150)"
    )
    with pytest.raises(rangeio.RangeNotSupportedError, match=re.escape(told)):
        reader.read_at(100, 50)


def test_multipart(desk: Desk) -> None:
    reader = desk.open(lambda _: reply(206, b"--x", Content_Type="multipart/byteranges; boundary=x"))
    with pytest.raises(rangeio.RangeNotSupportedError, match="multipart"):
        reader.read_at(100, 50)


def test_length_contradicts_range(desk: Desk) -> None:
    reader = desk.open(lambda _: reply(206, DATA[:40], ETag='"v1"', Content_Range=f"bytes 0-49/{SIZE}"))
    with pytest.raises(rangeio.ServerError) as caught:
        reader.read_at(0, 50)
    assert (caught.value.attempts, caught.value.status) == (4, "persistent")


def test_unknown_total(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        answer.data = answer.data.replace(f"/{SIZE}\r".encode(), b"/*\r")
        return answer

    reader = desk.open(script, chunk=60_000)
    assert reader.read_at(10, 10) == DATA[10:20]
    assert reader.read_range() == DATA
    assert reader.read_at(SIZE, 10) == b""


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_416(desk: Desk, size: int) -> None:
    reader = desk.open(lambda asked: honest(DATA[:size], asked))
    assert reader.read_at(0, 100) == DATA[: min(size, 100)]
    assert reader.read_at(size, 10) == reader.read_at(size + 5, 10) == b""
    assert reader.stat().size == size


def test_416_for_an_end_past_the_end(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        stop = asked.range[1] if asked.range else 0
        return reply(416, Content_Range=f"bytes */{SIZE}") if stop > SIZE else honest(DATA, asked)

    reader = desk.open(script)
    assert reader.read_at(SIZE - 10, 100) == DATA[-10:]


def test_416_without_a_size(desk: Desk) -> None:
    reader = desk.open(lambda _: reply(416))
    assert reader.read_at(0, 100) == b""


# --- whole objects -------------------------------------------------------------------------------------------


def whole(asked: Asked) -> Answer:
    return reply(200, DATA, ETag='"v1"') if asked.method == "GET" else honest(DATA, asked)


def test_200_for_everything_is_right(desk: Desk) -> None:
    reader = desk.open(whole, chunk=1000)
    assert reader.read_range() == DATA
    assert len(desk.server.asked) == 1
    assert reader.stat().size == SIZE
    assert [asked.method for asked in desk.server.asked] == ["GET", "HEAD"]


def test_200_for_everything_after_its_size_was_asked_for(desk: Desk) -> None:
    """HEAD does not tell what a server makes of Range, so no parts are asked for before one reply has."""
    reader = desk.open(whole, chunk=1000)
    assert reader.stat().size == SIZE
    assert reader.read_range() == reader.read_range() == DATA
    assert [asked.method for asked in desk.server.asked] == ["HEAD", "GET", "GET"]


def test_200_is_refused(desk: Desk) -> None:
    reader = desk.open(whole)
    for offset in (0, 100):
        with pytest.raises(rangeio.RangeNotSupportedError, match="on_no_range"):
            reader.read_at(offset, 50)


def test_200_is_sliced(desk: Desk) -> None:
    reader = desk.open(whole, on_no_range="slice")
    wanted = [(0, 50), (100_000, 100_100), (SIZE - 5, SIZE + 5)]
    assert reader.read_ranges(wanted, gap=None) == [DATA[a:b] for a, b in wanted]
    small = desk.open(whole, on_no_range="slice", no_range_cap=1000)
    with pytest.raises(rangeio.RangeNotSupportedError, match=r" slicing would take .* no_range_cap"):
        small.read_at(100_000, 5)


def test_an_empty_object_whose_response_announces_a_byte(desk: Desk) -> None:
    """Content-Range says that there is none; the connection ends in place of the byte."""

    def script(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return reply(200, Content_Length="0")
        return Answer(reply(206, Content_Range="bytes 0-0/0", Content_Length="1").data, "close")

    reader = desk.open(script, retry=1)
    assert reader.stat().size == 0
    assert desk.open(script, retry=1).read_at(0, 10) == b""


def test_a_sliced_200_is_cut_beyond_the_piece_that_was_asked_for(desk: Desk) -> None:
    """It has brought more than its piece by then: what is asked for next begins where that ends."""

    def script(asked: Asked) -> Answer:
        return cut(whole(asked), 90_000, "close") if asked.number == 0 else whole(asked)

    reader = desk.open(script, on_no_range="slice", chunk=20_000)
    assert reader.read_at(10_000, 150_000) == DATA[10_000:160_000]
    assert all(start < stop for start, stop in desk.server.ranges)


def test_200_is_downloaded_once(desk: Desk) -> None:
    reader = desk.open(whole, on_no_range="download")
    wanted = [(0, 50), (100_000, 100_100), (SIZE - 5, SIZE + 5)]
    assert reader.read_ranges(wanted, gap=None) == [DATA[a:b] for a, b in wanted]
    assert reader.read_at(7, 7) == DATA[7:14]
    assert reader.read_range() == DATA
    assert len(desk.server.asked) == 1
    assert reader.stat().size == SIZE
    assert [asked.method for asked in desk.server.asked] == ["GET", "HEAD"]
    with pytest.raises(rangeio.RangeNotSupportedError, match=r" downloading would take .* no_range_cap"):
        desk.open(whole, on_no_range="download", no_range_cap=1000).read_at(0, 5)


def chunked(body: bytes, step: int) -> bytes:
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    return b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX: y\r\n\r\n"


@pytest.mark.parametrize("step", [1_000, 70_000, SIZE])
def test_chunked(desk: Desk, step: int) -> None:
    def script(asked: Asked) -> Answer:
        return reply(200, chunked(DATA, step), Content_Length=None, Transfer_Encoding="chunked")

    reader = desk.open(script)
    assert reader.read_range() == DATA
    with pytest.raises(rangeio.RangeNotSupportedError):
        desk.open(script).read_at(0, 100)
    sliced = desk.open(script, on_no_range="slice")
    assert sliced.read_at(10, 1000) == DATA[10:1010]
    kept = desk.open(script, on_no_range="download")
    assert kept.read_at(SIZE - 5, 1000) == DATA[-5:]


def test_chunked_range(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        assert asked.range is not None
        start, stop = asked.range
        span = f"bytes {start}-{stop - 1}/{SIZE}"
        body = chunked(DATA[start:stop], 700)
        return reply(
            206, body, Content_Length=None, Transfer_Encoding="chunked", Content_Range=span, ETag='"v"'
        )

    reader = desk.open(script)
    assert reader.read_at(10, 5000) == DATA[10:5010]
    assert reader.read_at(5000, 5000) == DATA[5000:10_000]
    assert desk.server.connections == 1


def test_no_length(desk: Desk) -> None:
    """A 206 says its length anyway; a 200 that ends with the connection could be cut anywhere."""
    span = f"bytes 0-99/{SIZE}"
    reader = desk.open(lambda _: reply(206, DATA[:100], "close", Content_Length=None, Content_Range=span))
    assert reader.read_at(0, 100) == DATA[:100]
    reader = desk.open(lambda _: reply(206, DATA[:90], "close", Content_Length=None, Content_Range=span))
    with pytest.raises(rangeio.ConnectionFailedError, match="in the middle"):
        reader.read_at(0, 100)
    reader = desk.open(lambda _: reply(200, DATA, "close", Content_Length=None))
    with pytest.raises(rangeio.RangeNotSupportedError, match="length"):
        reader.read_range()


# --- encodings and versions ----------------------------------------------------------------------------------


def test_encoded(desk: Desk) -> None:
    reader = desk.open(lambda _: reply(200, b"\x1f\x8b", Content_Encoding="gzip"))
    with pytest.raises(rangeio.ContentEncodedError, match="gzip"):
        reader.read_range()

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        if asked.number:
            answer.data = answer.data.replace(b"\r\n", b"\r\nContent-Encoding: br\r\n", 1)
        return answer

    reader = desk.open(script)
    assert reader.read_at(0, 10) == DATA[:10]
    with pytest.raises(rangeio.ContentEncodedError):
        reader.read_at(10, 10)


def test_changed_between_reads(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked, '"v1"' if asked.number == 0 else '"v2"'))
    assert reader.read_at(0, 10) == DATA[:10]
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(10, 10)
    with pytest.raises(rangeio.ObjectChangedError):
        reader.stat()


@pytest.mark.parametrize("ignored", ["if-match", ""])
def test_changed_between_parts(desk: Desk, ignored: str) -> None:
    """Never mixed, also where the server does not look at If-Match."""

    def script(asked: Asked) -> Answer:
        asked.fields.pop(ignored, None)
        return honest(DATA, asked, '"v1"' if asked.number == 0 else '"v2"')

    with pytest.raises(rangeio.ObjectChangedError):
        desk.open(script, chunk=50_000).read_range()
    with pytest.raises(rangeio.ObjectChangedError):
        desk.open(script, chunk=50_000, pin=False).read_range()


def test_without_a_pin(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked, f'"v{asked.number}"'), pin=False)
    assert tens(reader, 2) == DATA[:20]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_weak_and_missing_etags(desk: Desk, etag: str | None) -> None:
    """Then Last-Modified and the size are the pin; If-Match is not sent."""
    dates = ["Mon, 02 Nov 2026 10:00:00 GMT"] * 3 + ["Mon, 02 Nov 2026 10:00:01 GMT"]

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked, etag)
        date = f"\r\nLast-Modified: {dates[min(asked.number, 3)]}\r\n".encode()
        answer.data = answer.data.replace(b"\r\n", date, 1)
        return answer

    reader = desk.open(script)
    for offset in (0, 10, 20):
        assert reader.read_at(offset, 10) == DATA[offset : offset + 10]
    assert "last-modified" in reader.capability.pin
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(30, 10)
    assert not any("if-match" in asked.fields for asked in desk.server.asked)


def test_size_is_the_last_pin(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA if asked.number < 2 else DATA + b"x", asked, None))
    assert tens(reader, 2) == DATA[:20]
    with pytest.raises(rangeio.ObjectChangedError, match="size"):
        reader.read_at(20, 10)


def test_conditions(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked), if_match='"other"')
    with pytest.raises(rangeio.ConditionNotMatchError) as caught:
        reader.read_at(0, 10)
    assert type(caught.value) is rangeio.ConditionNotMatchError
    reader = desk.open(lambda _: reply(304), if_none_match='"v1"')
    with pytest.raises(rangeio.NotModifiedError):
        reader.read_at(0, 10)
    assert desk.server.asked[0].fields["if-none-match"] == '"v1"'


OLD, THEN, NEW = (f"Sat, 21 Nov 2026 0{hour}:00:00 GMT" for hour in (4, 5, 6))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"if_match": '"v1"'}, None),
        ({"if_match": '"v0", "v1"'}, None),
        ({"if_match": "*"}, None),
        ({"if_match": '"v0"'}, rangeio.ConditionNotMatchError),
        ({"if_none_match": '"v0"'}, None),
        ({"if_none_match": '"v0", W/"v1"'}, rangeio.NotModifiedError),
        ({"if_none_match": "*"}, rangeio.NotModifiedError),
        ({"if_modified_since": OLD}, None),
        ({"if_modified_since": THEN}, rangeio.NotModifiedError),
        ({"if_unmodified_since": THEN}, None),
        ({"if_unmodified_since": OLD}, rangeio.ConditionNotMatchError),
        ({"if_match": '"v1"', "if_unmodified_since": OLD}, None),
        ({"if_none_match": '"v0"', "if_modified_since": NEW}, None),
        ({"if_modified_since": "yesterday"}, None),
    ],
    ids=str,
)
def test_conditions_that_the_server_ignores(
    desk: Desk, options: Any, kind: type[rangeio.Error] | None
) -> None:
    """What its reply tells decides."""

    def script(asked: Asked) -> Answer:
        start, stop = asked.range or (0, 1)
        span = f"bytes {start}-{stop - 1}/{SIZE}"
        return reply(206, DATA[start:stop], ETag='"v1"', Last_Modified=THEN, Content_Range=span)

    reader = desk.open(script, **options)
    if kind is None:
        assert reader.read_at(5, 10) == DATA[5:15]
        return
    with pytest.raises(kind) as caught:
        reader.read_at(5, 10)
    assert type(caught.value) is kind


# --- sizes, redirects, credentials ---------------------------------------------------------------------------


def test_no_size_of_what_is_not_there(desk: Desk) -> None:
    """The error does not speak of bytes that nobody asked for."""
    reader = desk.open(lambda _: reply(404))
    with pytest.raises(rangeio.NotFoundError, match=r"^'http://[^ ]*': HTTP 404") as caught:
        reader.stat()
    assert (caught.value.offset, caught.value.limit, caught.value.attempts) == (None, None, 1)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_head_is_refused(desk: Desk, status: int) -> None:
    reader = desk.open(lambda asked: reply(status) if asked.method == "HEAD" else honest(DATA, asked))
    assert reader.stat().size == SIZE
    assert desk.server.ranges == [None, (0, 1)]
    assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]


def test_size_given(desk: Desk) -> None:
    """It saves asking; where it is wrong nothing is read by it."""
    reader = desk.open(lambda asked: honest(DATA, asked), size=SIZE)
    assert reader.size == SIZE
    assert reader.read_ranges([rangeio.Suffix(5), (0, 5)]) == [DATA[-5:], DATA[:5]]
    assert {asked.method for asked in desk.server.asked} == {"GET"}
    for wrong in (SIZE - 1, SIZE + 1, 5):
        reader = desk.open(lambda asked: honest(DATA, asked), size=wrong)
        for _ in range(2):
            with pytest.raises(rangeio.ObjectChangedError, match=f"size={wrong} was given"):
                reader.read_range(rangeio.Suffix(3))


def test_redirects(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        if asked.target.startswith("/object"):
            return reply(302, Location="/signed?key=secret")
        return honest(DATA, asked)

    reader = desk.open(script, bearer_token="hidden")
    assert tens(reader, 2) == DATA[:20]
    targets = [asked.target for asked in desk.server.asked]
    assert targets == ["/object", "/signed?key=secret", "/signed?key=secret"]
    assert all(asked.fields["authorization"] == "Bearer hidden" for asked in desk.server.asked)


def test_expired_redirect_is_asked_for_again(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        if asked.target == "/object":
            return reply(307, Location=f"/signed{asked.number}")
        return reply(403) if asked.target == "/signed0" and asked.number > 1 else honest(DATA, asked)

    reader = desk.open(script)
    assert tens(reader, 2) == DATA[:20]


def test_redirect_loop(desk: Desk) -> None:
    reader = desk.open(lambda asked: reply(302, Location="/object"))
    with pytest.raises(rangeio.Error, match="redirects"):
        reader.read_at(0, 10)


def test_credentials_stay_at_home(desk: Desk) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as other:
        reader = desk.open(
            lambda asked: reply(302, Location=f"{other.url}/there"),
            auth=("me", "password"),
            headers={"X-Mine": "1"},
        )
        assert reader.read_at(0, 10) == DATA[:10]
        assert desk.server.asked[0].fields["x-mine"] == "1"
        assert not {"authorization", "x-mine"} & set(other.asked[0].fields)


def test_credentials_are_renewed(desk: Desk) -> None:
    calls: list[int] = []

    def fresh() -> dict[str, str]:
        calls.append(1)
        return {"Authorization": f"Bearer {len(calls)}"}

    def script(asked: Asked) -> Answer:
        known = asked.fields.get("authorization") == ("Bearer 1" if asked.number < 2 else "Bearer 2")
        return honest(DATA, asked) if known else reply(401)

    reader = desk.open(script, credentials=fresh)
    assert tens(reader, 3) == DATA[:30]
    assert len(calls) == 2


SECRETS = ("hunter2", "sig=abc", "tok3n")


def test_secrets_are_not_shown(desk: Desk) -> None:
    reader = desk.open(lambda _: reply(403), "/object?sig=abc", headers={"X-Api-Token": "tok3n"})
    with pytest.raises(rangeio.PermissionDeniedError) as caught:
        reader.read_at(0, 10)
    error = caught.value
    texts = [str(error), repr(error), repr(error.__dict__), repr(reader), reader.path]
    texts += [pickle.dumps(error).decode("latin-1"), repr(reader.plan([(0, 5)]).requests)]
    for secret in SECRETS:
        assert not any(secret in text for text in texts), secret


@pytest.mark.parametrize("term", ["X-Amz-Signature", "sig", "access%5Ftoken", "key", "jwt", "version"])
def test_a_url_travels_as_it_was_given(desk: Desk, term: str) -> None:
    """It is the address: without its query, whatever that means to the server, it is another one. It is not shown."""
    desk.open(lambda asked: honest(DATA, asked))
    url = f"{desk.server.url}/key?a=1&{term}=let-me-in"
    reader: Any
    for reader in (rangeio.open(url), rangeio.open(url).slice(3, 5), rangeio.open_async(url)):
        copy = pickle.loads(pickle.dumps(reader))
        assert "let-me-in" not in f"{reader!r} {copy!r} {copy.path} {reader.stats}"
        if isinstance(copy, rangeio.Reader):
            copy.read_at(0, 2)
            assert desk.server.asked[-1].target == f"/key?a=1&{term}=let-me-in"


def test_operators_pickle_without_secrets() -> None:
    operator = rangeio.Operator(
        "https",
        root="https://me:hunter2@example.org/a",
        headers={"X-Api-Token": "tok3n", "accept-language": "is"},
    )
    pickled = pickle.dumps(operator)
    assert b"accept-language" in pickled
    assert not any(secret.encode() in pickled for secret in SECRETS)
    assert not any(secret in repr(operator) for secret in SECRETS)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, rangeio.UnexpectedError),
        (401, rangeio.UnauthenticatedError),
        (403, rangeio.PermissionDeniedError),
        (404, rangeio.NotFoundError),
        (410, rangeio.NotFoundError),
        (429, rangeio.RateLimitedError),
        (500, rangeio.ServerError),
        (504, rangeio.TimedOutError),
    ],
)
def test_statuses(desk: Desk, status: int, kind: type[rangeio.Error]) -> None:
    reader = desk.open(lambda _: reply(status, b"<text>", X_Request_Id="id-1"))
    with pytest.raises(kind) as caught:
        reader.read_at(3, 10)
    error = caught.value
    temporary = status in (429, 500, 504)
    assert (error.http_status, error.request_id) == (status, "id-1")
    assert (error.offset, error.limit, error.attempts) == (3, 10, 4 if temporary else 1)
    assert error.status == ("persistent" if temporary else "permanent")
    assert len(desk.server.asked) == error.attempts


# --- connections that break ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
def test_body_is_continued(desk: Desk, end: Any) -> None:
    """From the byte reached, under the pin."""

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        return cut(answer, 40_000, end) if asked.number < 2 else answer

    reader = desk.open(script)
    assert reader.read_at(10, 150_000) == DATA[10:150_010]
    if end == "close":
        assert desk.server.ranges == [(10, 150_010), (40_010, 150_010), (80_010, 150_010)]
        assert desk.server.asked[1].fields["if-match"] == '"v1"'


def test_without_a_version_a_body_is_read_anew(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked, None)
        return cut(answer, 40_000, "close") if asked.number == 0 else answer

    reader = desk.open(script)
    assert reader.read_at(10, 100_000) == DATA[10:100_010]
    assert desk.server.ranges == [(10, 100_010)] * 2


def test_connection_closed_while_idle(desk: Desk) -> None:
    """Not a failure at all: asked again, and no attempt is counted."""
    reader = desk.open(lambda asked: honest(DATA, asked, then="close"), retry=1)
    for offset in range(0, 100, 10):
        assert reader.read_at(offset, 10) == DATA[offset : offset + 10]
    assert desk.server.connections == 10


def test_connections_are_kept(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked))
    for offset in range(0, 100, 10):
        assert reader.read_at(offset, 10) == DATA[offset : offset + 10]
    assert desk.server.connections == 1


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00", b"HTTP/2 200\r\n\r\n", b"", b"HTTP/1.1 2"])
def test_garbage(desk: Desk, garbage: bytes) -> None:
    reader = desk.open(lambda _: Answer(garbage, "close"))
    with pytest.raises((rangeio.ServerError, rangeio.ConnectionFailedError)) as caught:
        reader.read_at(0, 10)
    assert caught.value.attempts == 4


@pytest.mark.parametrize(("sent", "bound"), [(0, "first_byte_s"), (500, "idle_s")])
def test_stalls(desk: Desk, sent: int, bound: str) -> None:
    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        return Answer(b"", "stall") if not sent else cut(answer, sent, "stall")

    timeout = rangeio.Timeout(**{bound: 0.05})
    reader = desk.open(script, timeout=timeout, retry=2)
    if sent:
        desk.server.script = at(0, script)
        assert reader.read_at(0, 1000) == DATA[:1000]
        assert desk.server.ranges[1] == (500, 1000)
    else:
        with pytest.raises(rangeio.TimedOutError, match=bound) as caught:
            reader.read_at(0, 1000)
        assert caught.value.attempts == 2


def test_total_time(desk: Desk) -> None:
    reader = desk.open(lambda _: Answer(b"", "stall"), timeout=0.05)
    with pytest.raises(rangeio.TimedOutError, match="total_s"):
        reader.read_at(0, 10)


def test_time_limits_of_one_call(desk: Desk) -> None:
    """A Reader with other limits is the same object; what it shares is closed with the first."""

    def stalls_from_1000(asked: Asked) -> Answer:
        far = asked.range is not None and asked.range[0] >= 1000
        return Answer(b"", "stall") if far else honest(DATA, asked)

    reader = desk.open(stalls_from_1000)
    hasty = reader.within(0.05)
    for view in (hasty, reader.slice(0, 2000).within(rangeio.Timeout(total_s=0.05)), pickled(hasty)):
        assert view.read_at(5, 5) == DATA[5:10]
        for call in (
            lambda view=view: view.read_at(1000, 10),
            lambda view=view: view.read_into(bytearray(10), 1000),
            lambda view=view: view.read_ranges([(0, 5), (1000, 1010)], gap=None),
            lambda view=view: list(view.iter_ranges([(1000, 1010)])),
            lambda view=view: view.read_batch([1000], 10),
            lambda view=view: view.copy(io.BytesIO(), (1000, 1010)),
        ):
            with pytest.raises(rangeio.TimedOutError, match=r"total_s=0\.05"):
                call()
        assert view.within(None).read_at(5, 5) == DATA[5:10]
    hasty.close()
    assert reader.read_at(0, 5) == DATA[:5]
    slow = reader.within(None)
    reader.close()
    for view in (hasty, slow):
        assert view.closed
        with pytest.raises(rangeio.ClosedError):
            view.read_at(0, 5)


def pickled(reader: Any) -> Any:
    return pickle.loads(pickle.dumps(reader)) if isinstance(reader, rangeio.Reader) else reader


def test_retry_after(desk: Desk) -> None:
    reader = desk.open(at(0, lambda _: reply(503, Retry_After="0")))
    assert reader.read_at(0, 10) == DATA[:10]
    reader = desk.open(lambda _: reply(503, Retry_After="3600"))
    with pytest.raises(rangeio.ServerError) as caught:
        reader.read_at(0, 10)
    assert caught.value.attempts == 1


def test_nobody_listens(desk: Desk) -> None:
    reader = desk.open(lambda asked: honest(DATA, asked))
    desk.server.close()
    with pytest.raises(rangeio.ConnectionFailedError, match="refused") as caught:
        reader.read_at(0, 10)
    assert caught.value.attempts == 4


def test_one_failure_among_many(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        wrong = asked.range is not None and asked.range[0] == 1000
        return reply(400) if wrong else honest(DATA, asked)

    reader = desk.open(script)
    wanted = [(0, 10), (1000, 1010), (2000, 2010)]
    results = reader.read_ranges(wanted, gap=None, on_error="return")
    assert (results[0], results[2]) == (DATA[:10], DATA[2000:2010])
    assert isinstance(results[1], rangeio.UnexpectedError)
    with pytest.raises(rangeio.UnexpectedError) as caught:
        reader.read_ranges(wanted, gap=None)
    assert caught.value.index == 1


def test_keys_are_sent_as_they_are(desk: Desk) -> None:
    desk.open(lambda asked: honest(DATA, asked))
    operator = rangeio.Operator("http", root=desk.server.url + "/bucket")
    with operator.open("a b+c%20d#e?f/ü") as reader:
        assert reader.read_at(0, 10) == DATA[:10]
    assert desk.server.asked[-1].target == "/bucket/a%20b%2Bc%2520d%23e%3Ff/%C3%BC"
