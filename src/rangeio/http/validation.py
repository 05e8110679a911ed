"""Validation of responses: what the head allows to use of the body, and which error it means otherwise. No I/O.

A request is always for stored bytes `at` to `stop` of one version. Nothing here guesses; any other response is refused.
Source: RFC 9110 sections 8.8, 13, 14 and 15. RFC 9111 does not apply, because nothing is cached.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Literal

from _uring.arguments import OFFSET_MAX
from rangeio.errors import (
    ConditionNotMatchError,
    ContentEncodedError,
    Error,
    NotFoundError,
    NotModifiedError,
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotSupportedError,
    RateLimitedError,
    ServerError,
    TimedOutError,
    UnauthenticatedError,
    UnexpectedError,
    UnsupportedError,
    half_open,
)
from rangeio.http.heads import BadResponse, Head, is_count
from rangeio.http.redaction import Quoted

OnNoRange = Literal["error", "slice", "download"]

# A 206 may begin before the requested bytes; up to this many bytes are discarded, more are refused.
_MOST_SKIPPED = 8 << 20
# Statuses of responses with bytes of the object, or that report that there are none.
BRINGING = frozenset([200, 204, 206, 416])
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d+)-(\d+)|(\*))/(\d+|\*)", re.IGNORECASE)


@dataclass(slots=True)
class Version:
    """The identity of one version of an object, as its server reports it. Not `known` before the first response.

    etag: as the server sends it, weak or strong. number: the version id, if the service keeps several. ranged: the
    server is known to send ranges. size: before the first response, the size given by the caller, if any. told: the
    size from HEAD, which no byte proves: used to plan ranges, but not as the end of the object (see `expected`).
    revision: what a status says of the version, in place of ETag and date.
    """

    known: bool = False
    etag: str | None = None
    modified: str | None = None
    size: int | None = None
    encoding: str = ""
    number: str | None = None
    ranged: bool = False
    told: int | None = None
    revision: str = ""

    @property
    def expected(self) -> int | None:
        """The size that a response must not contradict."""
        return self.told if self.size is None else self.size

    @property
    def strong(self) -> str | None:
        """The ETag if it promises equal bytes, so that If-Match can be sent. Source: RFC 9110 section 8.8.1."""
        return None if self.etag is None or _is_weak(self.etag) else self.etag

    @property
    def name(self) -> str:
        """For comparison and display: ETag and size, or Last-Modified and size, or only the size; or the revision."""
        if self.revision:
            return self.revision
        size = "" if self.expected is None else str(self.expected)
        weak = "" if self.strong else self.etag or ""
        return ":".join(filter(None, [self.strong or self.modified, weak, size]))

    @property
    def told_by(self) -> str:
        """The fields that the pin consists of."""
        parts = ["etag" if self.strong else "last-modified" if self.modified else "", "size"]
        return "+".join(filter(None, parts)) if self.known else "etag"

    def learn(self, head: Head, total: int | None, *, by_head: bool = False) -> None:
        """Set it from the first response. by_head: the response is to HEAD."""
        self.etag = head.fields.get("etag") or None
        self.modified = head.fields.get("last-modified")
        if by_head:
            self.told = total
        else:
            self.size = total
        self.encoding = encoding_of(head)
        self.number = version_number(head)
        self.ranged = _does_ranges(head)
        self.known = True  # last: other threads read it

    def learn_status(self, size: int, revision: str) -> None:
        """Set it from the first status."""
        self.size, self.revision = size, revision
        self.ranged = True
        self.known = True  # last: other threads read it

    def compared(self, head: Head, total: int | None, *, by_head: bool = False) -> None:
        """Add what a later response of the same version reports for the first time."""
        if by_head:
            self.told = total
        elif self.size is None:
            self.size = total
        self.ranged = self.ranged or _does_ranges(head)

    def difference(self, head: Head, total: int | None) -> str:
        """How a later response shows a different version; empty if it does not.

        Equal strong ETags decide. Equal weak ETags do not prove equal bytes, so Last-Modified and the size decide.
        Different weak ETags, or a weak one in place of a strong one, are two versions. Source: RFC 9110 8.8.3.2.
        """
        if None not in (total, self.expected) and total != self.expected:
            if self.size is None:
                return f"HEAD said {self.told} bytes, but it has {total} (size={total} avoids HEAD)"
            return f"its size was {self.size} and is {total} bytes"
        etag, modified = head.fields.get("etag"), head.fields.get("last-modified")
        if self.etag and etag:
            if _is_weak(self.etag) != _is_weak(etag) or _opaque(self.etag) != _opaque(etag):
                return "its ETag is different"
            if not _is_weak(etag):
                return ""
        if self.modified and modified:
            return "" if self.modified == modified else "it was modified at " + Quoted(modified)
        if (self.etag and not etag) or (self.modified and not modified):
            return "the server no longer sends its ETag or Last-Modified"
        return ""


def check_conditions(conditions: Mapping[str, str], head: Head) -> None:
    """ConditionNotMatchError or NotModifiedError if the server should have refused: some servers ignore If-Match and
    the other conditions. Checks only fields that the response has; an ETag takes precedence over a date. Source: RFC
    9110 section 13.1.
    """
    for name, value in conditions.items():
        kind, unmet, instead = _UNMET[name]
        if instead not in conditions and unmet(value, head):
            raise kind(f"{name}: {value} is not satisfied, but the server ignores it")


def _has_etag(value: str, head: Head) -> bool:
    """Whether the ETag of a response is in a list, by weak comparison."""
    found = _opaque(head.fields["etag"])
    listed = {_opaque(tag.strip()) for tag in value.split(",")}
    return value.strip() == "*" or found in listed


def _is_later(head: Head, value: str) -> bool | None:
    """Whether the object was modified after a date; None if one of the dates is invalid."""
    modified, date = http_date(head.fields.get("last-modified", "")), http_date(value)
    return None if modified is None or date is None else modified > date


def http_date(value: str) -> float | None:
    """Seconds since 1970; None for an invalid date, which must be ignored. Source: RFC 9110 section 5.6.7.

    A date without a time zone is in UTC: asctime-date never has one and must be accepted.
    """
    try:
        date = parsedate_to_datetime(value)
        return (date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date).timestamp()
    except (
        TypeError,
        ValueError,
        OverflowError,
        OSError,
    ):  # OSError: a year that the C library does not support
        return None


# For each condition: its error, whether it is not satisfied, and the condition that takes precedence over it.
_UNMET: dict[str, tuple[type[Error], Callable[[str, Head], bool], str]] = {
    "If-Match": (
        ConditionNotMatchError,
        lambda value, head: "etag" in head.fields and not _has_etag(value, head),
        "",
    ),
    "If-None-Match": (
        NotModifiedError,
        lambda value, head: "etag" in head.fields and _has_etag(value, head),
        "",
    ),
    "If-Modified-Since": (
        NotModifiedError,
        lambda value, head: _is_later(head, value) is False,
        "If-None-Match",
    ),
    "If-Unmodified-Since": (
        ConditionNotMatchError,
        lambda value, head: _is_later(head, value) is True,
        "If-Match",
    ),
}


def _is_weak(etag: str) -> bool:
    return etag.startswith(("W/", "w/"))


def _opaque(etag: str) -> str:
    return etag[2 if _is_weak(etag) else 0 :].strip('"')  # servers differ in the quotes


def encoding_of(head: Head) -> str:
    """The content coding, empty for none."""
    coding = head.fields.get("content-encoding", "").lower()
    return "" if coding == "identity" else coding


def content_range(head: Head) -> tuple[int | None, int | None, int | None]:
    """(first, stop, total) of Content-Range, None if missing or ``*``. BadResponse for invalid numbers.

    Some servers send ``bytes 0-0/0`` for an empty object, which has no first byte: (None, None, 0).
    """
    match = _CONTENT_RANGE.fullmatch(head.fields.get("content-range", "").strip())
    if match is None:
        return None, None, None
    if not all(is_count(number) for number in match.groups() if number not in (None, "*")):
        raise BadResponse("Content-Range with numbers that are too large")
    total = None if match[4] == "*" else int(match[4])
    if match[1] is None or (total == 0 and int(match[1]) == int(match[2]) == 0):
        return None, None, total
    first, stop = int(match[1]), int(match[2]) + 1
    if first >= stop or stop > (OFFSET_MAX if total is None else total):
        raise BadResponse("Content-Range " + Quoted(match[0]))
    return first, stop, total


@dataclass(slots=True)
class Take:
    """The body contains the requested bytes up to `stop`, after `skip` others. total: size of the object.

    open: its length is not known beforehand. all: it is the whole object, so no further request is needed. keep: it
    is the whole object although less was requested, and is kept (`on_no_range="download"`). exact: a longer body, whose
    head does not tell its length, is refused.
    """

    skip: int
    stop: int
    total: int | None
    open: bool = False
    all: bool = False
    keep: bool = False
    exact: bool = False


@dataclass(slots=True)
class End:
    """The requested bytes do not exist. total: size of the object, None if still unknown."""

    total: int | None


def judge(
    head: Head,
    at: int,
    stop: int,
    limit: int,
    on_no_range: OnNoRange,
    cap: int,
    *,
    stored_encoding: bool = False,
) -> Take | End:
    """What to use of the response to a request for `at` to `stop`, for a read of all bytes up to `limit`.

    Raises RangeNotSupportedError and ContentEncodedError; BadResponse for an inconsistent head. Only for statuses in
    BRINGING. cap: maximum bytes of a 200 to discard or keep. stored_encoding: a content coding is that of the stored
    bytes.
    """
    first, last, total = content_range(head)
    if head.status == 416:
        return End(total)
    if head.status == 204 or (head.status == 206 and total == 0 and first is None):
        return End(0)  # some servers report an empty object this way
    if head.status == 206 or (head.status == 200 and first is not None and first <= at):
        return _partial(head, at, stop, first, last, total)
    if not stored_encoding:
        refuse_coding(head)
    return _whole(head, at, limit, on_no_range, cap)


def refuse_coding(head: Head) -> None:
    """ContentEncodedError if the body is encoded."""
    coding = encoding_of(head)
    if coding:
        raise ContentEncodedError(
            "the server encodes the content ("
            + Quoted(coding[:20])
            + ") although the request forbids it, so offsets would"
            " not refer to the stored bytes"
        )


def _partial(head: Head, at: int, stop: int, first: int | None, last: int | None, total: int | None) -> Take:
    if first is None or last is None:
        what = head.fields.get("content-type", "")
        parts = what.startswith("multipart/")
        said = "206 as " + Quoted(repr(what[:40])) if parts else "206 without a usable Content-Range"
        raise RangeNotSupportedError("the server sends " + said + ", so the position of the bytes is unknown")
    if not first <= at < last or at - first > _MOST_SKIPPED:
        raise RangeNotSupportedError(
            f"the server sends bytes {half_open(first, last)} for a request for {half_open(at, stop)}"
        )
    if head.length is None and not head.chunked:
        head.length, head.closing = last - first, True
    if head.length is not None and head.length != last - first:
        raise BadResponse(f"Content-Length {head.length} with a Content-Range of {last - first} bytes")
    return Take(at - first, min(last, stop), total)


def _whole(head: Head, at: int, limit: int, on_no_range: OnNoRange, cap: int) -> Take:
    """A 200: the whole object. Accepted if the whole object is requested, otherwise `on_no_range` decides."""
    total = head.length
    if total is None and not head.chunked:
        raise RangeNotSupportedError(
            "the server sends a body without a length, so a truncated body could not be detected"
        )
    if at == 0 and (limit >= total if total is not None else on_no_range == "error"):
        return Take(0, limit if total is None else total, total, open=total is None, all=True)
    if total is not None and at >= total:
        return Take(0, at, total)
    if on_no_range == "error":
        raise RangeNotSupportedError(
            "the server ignores Range and sends the whole object; on_no_range='slice' discards the bytes before the"
            " range, on_no_range='download' downloads the object once and keeps it"
        )
    needed = total if on_no_range == "download" else at
    if needed is not None and needed > cap:
        doing = "slicing" if on_no_range == "slice" else "downloading"
        raise RangeNotSupportedError(
            f"the server ignores Range, and {doing} would take {needed} bytes, more than no_range_cap={cap}"
        )
    if on_no_range == "download":
        stop = limit if total is None else total
        return Take(0, stop, total, open=total is None, all=True, keep=True)
    return Take(at, limit if total is None else min(limit, total), total, open=total is None)


def told_by_head(head: Head) -> int | None:
    """The size of the object from a response to HEAD; None if it does not tell, so that a byte must be requested.

    A length of 0 does not prove that the object is empty: servers that build HEAD from an empty body report 0 for every
    object, against RFC 9110 section 8.6. The same holds for 204, which such a body may cause. The length of a 206 is
    that of the part, and with an encoding that of the encoded content; a part has the size in Content-Range (section
    14.4).
    """
    first, _, total = content_range(head)
    if encoding_of(head) or head.status == 204:
        return None
    if first is not None or head.status == 206:
        return total or None
    return head.length or None


_CLASS_OF_STATUS: dict[int, tuple[type[Error], str]] = {
    304: (NotModifiedError, "the object is not newer than the condition requires"),
    401: (
        UnauthenticatedError,
        "the server requires authentication: set auth=, bearer_token= or credentials=",
    ),
    403: (PermissionDeniedError, "the server denies access; a signed URL may have expired"),
    404: (NotFoundError, "the object does not exist"),
    405: (UnsupportedError, "the server does not allow reading it"),
    407: (UnauthenticatedError, "the proxy requires authentication"),
    409: (
        UnexpectedError,
        "the state of the object does not allow this request, for instance while it changes",
    ),
    408: (TimedOutError, "the server reports that the request took too long"),
    410: (NotFoundError, "the object no longer exists, or a signed URL has expired"),
    412: (ConditionNotMatchError, "the object does not satisfy if_match or if_unmodified_since"),
    429: (RateLimitedError, "the server limits the rate of requests"),
    501: (UnsupportedError, "the server does not support this"),
    504: (TimedOutError, "the server behind the gateway did not respond in time"),
}


def status_class(status: int, *, pinned: bool) -> tuple[type[Error], str]:
    """The error for a status without bytes of the object. pinned: If-Match was sent for the pin."""
    if status == 412 and pinned:
        return ObjectChangedError, "it changed after it was opened; open it again, or open it with pin=False"
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    return (
        (ServerError, "the server failed")
        if status >= 500
        else (UnexpectedError, "the server refuses the request")
    )


def _does_ranges(head: Head) -> bool:
    return head.status == 206 or head.fields.get("accept-ranges", "").lower() == "bytes"


def version_number(head: Head) -> str | None:
    """The version id, if the service keeps versions."""
    for name in ("x-amz-version-id", "x-goog-generation", "x-ms-version-id", "x-repo-commit"):
        if name in head.fields:
            return head.fields[name]
    return None


def request_id(head: Head) -> str | None:
    """The id that identifies this request for the operators of the server."""
    for name in ("x-amz-request-id", "x-request-id", "x-ms-request-id", "x-guploader-uploadid", "cf-ray"):
        if name in head.fields:
            return head.fields[name]
    return None


def retry_after_s(head: Head, now: float) -> float | None:
    """The seconds in Retry-After, in either of its forms. now: seconds since 1970."""
    value = head.fields.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    date = http_date(value)
    return None if date is None else max(0.0, date - now)
