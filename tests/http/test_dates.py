"""Dates of HTTP in each of their forms, on machines that are not in UTC. Source: RFC 9110 section 5.6.7."""

import calendar
import time
from collections.abc import Iterator
from typing import Any

import pytest
from faults.machine import need_module
from servers.opening import OPTIONS, MakeReader
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio
from rangeio.cli.file_server import _seconds
from rangeio.http.validation import http_date
from rangeio.s3.listing import parse_page

need_module("urllib3")

DATA = bytes(100)
WHEN_S = 784_111_777
IMF = "Sun, 06 Nov 1994 08:49:37 GMT"
FORMS = {
    "IMF-fixdate": IMF,
    "rfc850-date": "Sunday, 06-Nov-94 08:49:37 GMT",
    "asctime-date": "Sun Nov  6 08:49:37 1994",
    "no zone": "Sun, 06 Nov 1994 08:49:37",
    "a zone that says nothing": "Sun, 06 Nov 1994 08:49:37 -0000",
    "another zone": "Sun, 06 Nov 1994 03:49:37 -0500",
}


@pytest.fixture(params=["UTC0", "EST5EDT", "<+0930>-9:30"], autouse=True)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the machine says it is."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("form", FORMS)
def test_each_form(form: str) -> None:
    assert http_date(FORMS[form]) == WHEN_S
    assert _seconds(FORMS[form]) == WHEN_S


def changed_at(date: str) -> Any:
    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked, None)
        answer.data = answer.data.replace(b"\r\n\r\n", f"\r\nLast-Modified: {date}\r\n\r\n".encode(), 1)
        return answer

    return script


@pytest.mark.parametrize("form", FORMS)
def test_when_it_was_changed(form: str) -> None:
    with scripted(changed_at(FORMS[form])) as server, rangeio.open(server.url, **OPTIONS) as reader:
        assert reader.stat().mtime_ns == WHEN_S * 10**9


@pytest.mark.parametrize("form", FORMS)
def test_conditions_that_the_server_does_not_look_at(opened: MakeReader, form: str) -> None:
    """The date of the condition and that of the object may be in different forms."""
    earlier, later = "Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"
    with scripted(changed_at(FORMS[form])) as server:
        with pytest.raises(rangeio.NotModifiedError):
            opened(server.url, if_modified_since=IMF).read_at(0, 3)
        with pytest.raises(rangeio.ConditionNotMatchError):
            opened(server.url, if_unmodified_since=earlier).read_at(0, 3)
        assert opened(server.url, if_modified_since=earlier).read_at(0, 3) == DATA[:3]
        for date in (IMF, later):
            assert opened(server.url, if_unmodified_since=date).read_at(0, 3) == DATA[:3]


def test_when_to_try_again() -> None:
    def script(asked: Asked) -> Answer:
        if asked.number == 0:
            return reply(503, Retry_After=time.asctime(time.gmtime(time.time() + 1)))
        return honest(DATA, asked)

    retry = rangeio.Retry(attempts=2, backoff_s=0.001, max_retry_after_s=5)
    with scripted(script) as server, rangeio.open(server.url, retry=retry) as reader:
        assert reader.read_at(0, 3) == DATA[:3]


@pytest.mark.parametrize("form", FORMS)
def test_listings(form: str) -> None:
    entry = f"<Contents><Key>a</Key><Size>1</Size><LastModified>{FORMS[form]}</LastModified></Contents>"
    page = parse_page(f"<ListBucketResult>{entry}</ListBucketResult>".encode())
    assert [stat.mtime_ns for stat in page.entries] == [WHEN_S * 10**9]


@pytest.mark.parametrize("date", ["1994-11-06T08:49:37", "1994-11-06T08:49:37Z", "1994-11-06T03:49:37-05:00"])
def test_listings_with_dates_of_their_own(date: str) -> None:
    entry = f"<Contents><Key>a</Key><Size>1</Size><LastModified>{date}</LastModified></Contents>"
    page = parse_page(f"<ListBucketResult>{entry}</ListBucketResult>".encode())
    assert [stat.mtime_ns for stat in page.entries] == [WHEN_S * 10**9]


def test_a_clock_that_is_wrong() -> None:
    """A server's date in the old form: requests are signed by its clock if ours is far from it."""
    asked_at: list[str] = []
    ahead_s = 3600.0

    def script(asked: Asked) -> Answer:
        asked_at.append(asked.fields["x-amz-date"])
        now = time.time() + ahead_s
        date = time.asctime(time.gmtime(now))
        text = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
        return reply(403, text, Date=date) if asked.number == 0 else honest(DATA, asked)

    options: Any = {"access_key_id": "AK", "secret_access_key": "secret", "region": "eu-north-1"}
    with (
        scripted(script) as server,
        rangeio.open("s3://bucket/key", endpoint_url=server.url, **options, **OPTIONS) as reader,
    ):
        assert reader.read_at(0, 3) == DATA[:3]
    first, second = (time.strptime(stamp, "%Y%m%dT%H%M%SZ") for stamp in asked_at)
    assert abs(calendar.timegm(second) - calendar.timegm(first) - ahead_s) < 5
