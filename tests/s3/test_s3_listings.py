"""Listings that no server should send: without an end, larger or deeper than any, with sizes and dates of none."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from awaited import LOOPS, run_on
from faults.machine import need, need_module
from servers.scripted import Answer, Asked, Scripted, reply, scripted

import rangeio
from rangeio.http.listing import MOST_OF_A_PAGE, Page, Progress
from rangeio.s3.listing import parse_page
from rangeio.service import Stat

need_module("urllib3")

Listed = Callable[..., list[Any]]


@pytest.fixture(params=["sync", *LOOPS])
def listed(request: pytest.FixtureRequest) -> Listed:
    """All entries of a listing."""
    if request.param != "sync":
        need_module(request.param)

    def listed(server: Scripted, prefix: str = "", **options: Any) -> list[Any]:
        keys = {"access_key_id": "AKID", "secret_access_key": "secret"}
        retry = rangeio.Retry(attempts=2, backoff_s=0.001)
        operator = rangeio.Operator(
            "s3", **{"bucket": "bucket", "endpoint_url": server.url, "retry": retry, **keys, **options}
        )
        if request.param == "sync":
            return list(operator.list(prefix))

        async def main() -> list[Any]:
            return [stat async for stat in operator.list_async(prefix)]

        found: list[Any] = run_on(request.param, main)
        return found

    return listed


def page(inside: str = "", after: str = "") -> bytes:
    more = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{after}</NextContinuationToken>"
        if after
        else ""
    )
    return f"<ListBucketResult>{more}{inside}</ListBucketResult>".encode()


def entry(key: str = "k", size: str = "5", date: str = "2026-11-30T03:00:00.000Z") -> str:
    return f"<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{date}</LastModified></Contents>"


def token(asked: Asked) -> str:
    return parse_qs(urlsplit(asked.target).query).get("continuation-token", [""])[0]


# --- without an end ------------------------------------------------------------------------------------------


ENDLESS: dict[str, tuple[Callable[[Asked], bytes], int]] = {
    "one token, empty pages": (lambda asked: page(after="T"), 3),
    "one token, entries": (lambda asked: page(entry(str(asked.number)), "T"), 3),
    "two tokens in turn": (lambda asked: page(entry(str(asked.number)), str(asked.number % 2)), 9),
    "a circle of 50": (lambda asked: page(entry(str(asked.number)), str(asked.number % 50)), 150),
    "a circle after a beginning": (lambda asked: page("", str(max(asked.number, 20 + asked.number % 7))), 80),
    "ever new tokens, empty pages": (lambda asked: page("", str(asked.number)), 1_010),
    "ever new tokens, one page": (lambda asked: page(entry() + entry("l"), str(asked.number)), 3),
    "ever new tokens, two pages in turn": (
        lambda asked: page(entry(str(asked.number % 2)), str(asked.number)),
        9,
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_listings_without_an_end(listed: Listed, name: str) -> None:
    """As redirects in a circle: an error, after a number of requests that is no more than a few times the circle's."""
    body, most = ENDLESS[name]
    with scripted(lambda asked: reply(200, body(asked))) as server:
        with pytest.raises(rangeio.UnexpectedError, match=r"loops|does not end") as caught:
            listed(server)
        assert len(server.asked) <= most
    assert caught.value.path == "s3://bucket/"
    assert "s3://bucket/" in str(caught.value)


def test_listings_that_end(listed: Listed) -> None:
    """Many pages, some of them empty, with tokens that have nothing in order."""
    count = 300

    def script(asked: Asked) -> Answer:
        number = asked.number
        after = "" if number == count else str(number * 7919 % 1000 + 1)
        return reply(200, page("" if number % 3 else entry(f"{number:04}"), after))

    with scripted(script) as server:
        found = listed(server)
    assert [stat.path for stat in found] == [f"{number:04}" for number in range(0, count + 1, 3)]


def test_progress() -> None:
    """A circle of any length, after a beginning of any length, is noticed within three times both."""
    for before in (0, 1, 5, 64, 100):
        for length in (1, 2, 3, 50, 64, 65):
            assert noticed_after(before, length) <= 3 * (before + length) + 1


def noticed_after(before: int, length: int) -> int:
    progress = Progress()
    for steps in range(10_000):
        number = steps if steps < before else before + (steps - before) % length
        try:
            progress.step(Page([Stat(f"{steps}", 1)], f"token {number}"))
        except rangeio.UnexpectedError:
            return steps
    return 10_000


# --- what is in them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["-5", "+5", "1_000", "0x10", "5.0", "", "\u0665", "9" * 19, "9" * 5000])
def test_sizes_that_are_none(listed: Listed, size: str) -> None:
    with (
        scripted(lambda asked: reply(200, page(entry(size=size)))) as server,
        pytest.raises(rangeio.UnexpectedError, match="an invalid size"),
    ):
        listed(server)


NOON = 1_796_007_600 * 10**9


@pytest.mark.parametrize(
    ("date", "mtime_ns"),
    [
        ("2026-11-30T03:00:00.000Z", NOON),
        ("2026-11-30T03:00:00Z", NOON),
        ("2026-11-30T03:00:00", NOON),
        ("2026-11-30 03:00:00z", NOON),
        ("2026-11-30T03:00:00+00:00", NOON),
        ("2026-11-30T05:30:00.000000000+02:30", NOON),
        ("2026-11-29T22:00:00-0500", NOON),
        ("2026-11-30T03:00:00.1234567891Z", NOON + 123_456_789),
        (" 2026-11-30T03:00:00Z\n", NOON),
        ("Mon, 30 Nov 2026 03:00:00 GMT", NOON),
        ("30 Nov 2026 03:00:00 +0000", NOON),
        ("1969-12-31T23:59:59Z", -(10**9)),
        ("", None),
        ("yesterday", None),
        ("2026-13-30T03:00:00Z", None),
        ("2026-11-30T03:00:00+99:00", None),
        ("1000000-11-30T03:00:00Z", None),
        ("Mon, 30 Nov 1000000 03:00:00 GMT", None),
        ("Mon, 30 Nov 99999999999999999999 03:00:00 GMT", None),
        ("9" * 30, None),
    ],
)
def test_dates(date: str, mtime_ns: int | None) -> None:
    """As ISO 8601 or RFC 9110 writes them; what cannot be read is no reason to end the listing."""
    (stat,) = parse_page(page(entry(date=date))).entries
    assert (stat.path, stat.size, stat.mtime_ns) == ("k", 5, mtime_ns)


def test_a_size_with_space_around_it(listed: Listed) -> None:
    with scripted(lambda asked: reply(200, page(entry(size="\n  7 ", date="yesterday")))) as server:
        (stat,) = listed(server)
    assert (stat.size, stat.mtime_ns) == (7, None)


def test_what_is_not_below_the_root(listed: Listed) -> None:
    """ConnectionEnded to the root's length, its name would be another one."""
    with (
        scripted(lambda asked: reply(200, page(entry("elsewhere/k")))) as server,
        pytest.raises(rangeio.UnexpectedError, match="below the root"),
    ):
        listed(server, root="some/root")


def test_an_error_that_says_it_is_well(listed: Listed) -> None:
    """Status 200, an error inside: of the class of its code."""
    body = b"<Error><Code>AccessDenied</Code><Message>No.</Message><RequestId>R1</RequestId></Error>"
    with (
        scripted(lambda asked: reply(200, body)) as server,
        pytest.raises(rangeio.PermissionDeniedError, match=r"AccessDenied.*No\.") as caught,
    ):
        listed(server)
    assert (caught.value.request_id, caught.value.path) == ("R1", "s3://bucket/")


def chunked(body: bytes) -> Answer:
    return Answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        "close",
    )


@pytest.mark.parametrize("how", [lambda body: reply(200, body, "close"), chunked], ids=["length", "chunks"])
def test_pages_that_are_too_large(listed: Listed, how: Callable[[bytes], Answer]) -> None:
    """No more is read than shows that it is."""
    body = page("<!--" + " " * (MOST_OF_A_PAGE + 1_000_000) + "-->" + entry())
    with (
        scripted(lambda asked: how(body)) as server,
        pytest.raises(rangeio.UnexpectedError, match="16 MiB or more"),
    ):
        listed(server)


@pytest.mark.parametrize("on_no_range", ["error", "slice", "download"])
def test_a_large_page(listed: Listed, on_no_range: str) -> None:
    """Of a server that does not count to 1,000; whatever is said about ranges, of which a page has none."""
    inside = "".join(entry(f"{number:05}") for number in range(3_000))
    with scripted(lambda asked: reply(200, page(inside))) as server:
        found = listed(server, on_no_range=on_no_range, no_range_cap=1)
    assert len(found) == 3_000
    assert found[-1].path == "02999"


# --- other XML -----------------------------------------------------------------------------------------------

LONG = 200_000
HOSTILE = {
    "deep": b"<ListBucketResult>" + b"<a>" * LONG,
    "deep and whole": b"<ListBucketResult>" + b"<a>" * LONG + b"</a>" * LONG + b"</ListBucketResult>",
    "names that differ": page("".join(f"<a{number}/>" for number in range(LONG))),
    "attributes": page("<a " + " ".join(f'b{number}="c"' for number in range(LONG)) + "/>"),
    "a long text": page(entry("k" * LONG)),
    "a long name": page(f"<{'a' * LONG}/>"),
    "a document type": b'<!DOCTYPE x [<!ENTITY a "b">]>' + page(entry("&a;")),
    "laughs": b'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]>' + page(entry("&c;")),
    "an entity from a file": b'<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]>' + page(entry("&a;")),
    "an entity that there is not": page(entry("&a;")),
    "an encoding that there is not": b'<?xml version="1.0" encoding="klingon"?>' + page(entry()),
    "an encoding of several bytes": b'<?xml version="1.0" encoding="shift_jis"?>' + page(entry("\u00e9")),
    "NUL": page(entry("\0")),
    "two roots": page() + page(),
    "another root": b"<Answer>" + page() + b"</Answer>",
    "a prefix without a namespace": page("<s3:Contents/>"),
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml(name: str) -> None:
    with pytest.raises(rangeio.UnexpectedError, match=r"not a listing of S3|an invalid size"):
        parse_page(HOSTILE[name])


def test_what_is_not_wanted() -> None:
    """Is passed over: other elements, comments, instructions, deeper ones of the same name; and text is as it is."""
    inside = (
        "<!-- a comment --><?an instruction?><Name>bucket</Name><MaxKeys>1000</MaxKeys>"
        "<Contents><Owner><Key>wrong</Key><Size>-1</Size></Owner><Size>5</Size><Key>a&amp;<![CDATA[b<c]]>&#233;</Key>"
        "<ETag>&quot;e&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
        "<Other><Contents><Key>wrong</Key></Contents></Other>"
    )
    (stat,) = parse_page(page(inside)).entries
    assert (stat.path, stat.size, stat.etag, stat.mtime_ns) == ("a&b<c\u00e9", 5, '"e"', None)


def test_more_entries_than_anybody_sends() -> None:
    body = page("<Contents><Key/><Size>1</Size></Contents>" * 100_001)
    with pytest.raises(rangeio.UnexpectedError, match="100,000 entries"):
        parse_page(body)


MEASURE = """
import json, sys
from pathlib import Path
import rangeio
from rangeio.http.listing import MOST_OF_A_PAGE
from rangeio.s3.listing import parse_page
shapes = {
    "deep": (b"<a>", b"", b""),
    "side by side": (b"<Contents><Key>k</Key><Size>1</Size></Contents>", b"", b""),
    "names": (b"", b"".join(b"<a%d/>" % n for n in range(1200000)), b""),
}
piece, before, after = shapes[sys.argv[1]]
count = (MOST_OF_A_PAGE - len(before) - 100) // len(piece) if piece else 0
body = b"<ListBucketResult>" + before + piece * count + after + b"</ListBucketResult>"
body = body[:MOST_OF_A_PAGE - 1]
def peak():
    # ru_maxrss would begin with what the parent has: exec(2) keeps it.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10
Path("/proc/self/clear_refs").write_text("5")  # from now on, without what it took to make the body: proc(5)
small = peak()
try:
    parse_page(body)
except rangeio.Error:
    pass
print(json.dumps([len(body), peak() - small]), flush=True)
"""


@pytest.mark.parametrize("shape", ["deep", "side by side", "names"])
def test_memory(shape: str) -> None:
    """Of a page as large as may be, whatever is in it. A tree of it would take up to fifty times its size."""
    need(sys.platform.startswith("linux"), "looks into /proc")
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, shape],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    size, grown = json.loads(found.stdout)
    assert size > MOST_OF_A_PAGE * 0.9 or shape == "names"
    assert grown < 96 << 20
