"""What S3 says in XML: why it refuses, and what is in a bucket."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from rangeio.errors import (
    Error,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TimedOutError,
    UnauthenticatedError,
    UnexpectedError,
    UnsupportedError,
)
from rangeio.service import Stat


class _Tree(ElementTree.TreeBuilder):
    """S3 declares no document type, so nothing that could make a small reply a large one (entities) is let in."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type")


def _parsed(body: bytes) -> ElementTree.Element | None:
    """The root, all names freed of their namespace, which servers write in different ways; None if it is no XML."""
    parser = ElementTree.XMLParser(target=_Tree())
    try:
        parser.feed(body)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


# --- refusals ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """The parts of an error reply that mean something to us; empty where it has none."""

    code: str = ""
    message: str = ""
    region: str = ""
    request_id: str = ""


def parse_refusal(body: bytes) -> Refused:
    """What the body of an error reply says; nothing if it is none of S3's."""
    root = _parsed(body)
    if root is None:
        return Refused()
    error = root if root.tag == "Error" else root.find("Error")
    if error is None:
        return Refused()
    names = ("Code", "Message", "Region", "RequestId")
    return Refused(*(_text(error, name) for name in names))


# A message that quotes our own request back could hold what nobody should read in a log.
_QUOTES_US = re.compile(r"signature=|credential=|x-amz-|authorization:", re.IGNORECASE)

EXPIRED = frozenset(["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
"""Other keys would do."""
WRONG_KEYS = EXPIRED | {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
"""So would they here, if they were changed since these were asked for."""
WRONG_REGION = frozenset(
    ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"]
)

_KEYS = "the keys are not accepted: look at access_key_id, secret_access_key and session_token"
_CLASS_OF_CODE: dict[str, tuple[type[Error], str]] = {
    "NoSuchKey": (NotFoundError, "there is no such key"),
    "NoSuchBucket": (NotFoundError, "there is no such bucket"),
    "NoSuchVersion": (NotFoundError, "there is no such version"),
    "AccessDenied": (PermissionDeniedError, "access is denied"),
    "AllAccessDisabled": (PermissionDeniedError, "access is denied"),
    "AccountProblem": (PermissionDeniedError, "there is a problem with the account"),
    "InvalidObjectState": (
        PermissionDeniedError,
        "it is archived, and has to be restored before it can be read",
    ),
    "InvalidAccessKeyId": (UnauthenticatedError, _KEYS),
    "SignatureDoesNotMatch": (UnauthenticatedError, _KEYS),
    "InvalidToken": (UnauthenticatedError, _KEYS),
    "ExpiredToken": (UnauthenticatedError, "the session token has expired"),
    "ExpiredTokenException": (UnauthenticatedError, "the session token has expired"),
    "TokenRefreshRequired": (UnauthenticatedError, "the session token has expired"),
    "RequestTimeTooSkewed": (UnauthenticatedError, "the clock of this machine is wrong"),
    "AuthorizationHeaderMalformed": (UnauthenticatedError, "it is signed for the wrong region: give region="),
    "PermanentRedirect": (
        UnexpectedError,
        "the bucket is in another region, which is not told: give region=",
    ),
    "RequestTimeout": (TimedOutError, "the server says the request took too long"),
    "SlowDown": (RateLimitedError, "the server asks for fewer requests"),
    "Throttling": (RateLimitedError, "the server asks for fewer requests"),
    "ThrottlingException": (RateLimitedError, "the server asks for fewer requests"),
    "RequestLimitExceeded": (RateLimitedError, "the server asks for fewer requests"),
    "RequestThrottled": (RateLimitedError, "the server asks for fewer requests"),
    "BandwidthLimitExceeded": (RateLimitedError, "the server asks for fewer requests"),
    "InternalError": (ServerError, "the server failed"),
    "ServiceUnavailable": (ServerError, "the server failed"),
    "NotImplemented": (UnsupportedError, "the server cannot do this"),
}


def class_of(refused: Refused) -> tuple[type[Error], str] | None:
    """The error for a code, and what to say; None for a code that says no more than its status."""
    found = _CLASS_OF_CODE.get(refused.code)
    if found is None:
        return None
    return found[0], said(refused, found[1])


def said(refused: Refused, ours: str) -> str:
    """Our words, and the server's own where they say more and quote nothing of the request."""
    theirs = " ".join(refused.message.split())[:200]
    if not theirs.isprintable() or _QUOTES_US.search(theirs):
        theirs = ""
    return f"{refused.code}: {ours}" + (f" (the server: {theirs})" if theirs else "")


# --- listings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, in order. after: asks for the next page; None if this was the last."""

    entries: list[Stat]
    after: str | None


def parse_page(body: bytes) -> Page:
    """One reply to ListObjectsV2. UnexpectedError if it is none. Paths are keys; prefixes have no size.

    Source: Amazon S3 API Reference, ListObjectsV2.
    """
    root = _parsed(body)
    if root is None or root.tag != "ListBucketResult":
        raise UnexpectedError("the reply to a listing is none of S3's")
    encoded = _text(root, "EncodingType") == "url"
    try:
        entries = [*_objects(root, encoded), *_prefixes(root, encoded)]
    except ValueError:
        raise UnexpectedError("the reply to a listing holds what cannot be read") from None
    entries.sort(key=lambda stat: stat.path)
    after = _text(root, "NextContinuationToken") or None
    if _text(root, "IsTruncated") != "true":
        return Page(entries, None)
    if after is None:
        raise UnexpectedError("the server has more of the listing, and does not say how to ask for it")
    return Page(entries, after)


def _objects(root: ElementTree.Element, encoded: bool) -> Iterator[Stat]:
    for found in root.iter("Contents"):
        etag = _text(found, "ETag") or None
        size = int(_text(found, "Size"))
        yield Stat(
            _key(_text(found, "Key"), encoded),
            size,
            pin=f"{etag}:{size}" if etag else str(size),
            mtime_ns=_nanoseconds(_text(found, "LastModified")),
            etag=etag,
        )


def _prefixes(root: ElementTree.Element, encoded: bool) -> Iterator[Stat]:
    for found in root.iter("CommonPrefixes"):
        yield Stat(_key(_text(found, "Prefix"), encoded), None, is_prefix=True)


def _key(text: str, encoded: bool) -> str:
    """A key as it is in the bucket. Amazon writes a space as "+" and a plus as "%2B"."""
    return unquote_plus(text, errors="surrogateescape") if encoded else text


def _nanoseconds(text: str) -> int | None:
    """Of 2026-11-21T05:00:00.000Z."""
    if not text:
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)


def _text(element: Any, name: str) -> str:
    return (element.findtext(name) or "") if element is not None else ""
