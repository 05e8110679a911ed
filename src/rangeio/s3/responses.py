"""Error responses of S3, and the exceptions for them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
from rangeio.http.redaction import hidden
from rangeio.s3.xml import read_xml


@dataclass(frozen=True, slots=True)
class Refused:
    """The relevant parts of an error response; empty if missing."""

    code: str = ""
    message: str = ""
    region: str = ""
    request_id: str = ""


_NAMES = ("Code", "Message", "Region", "RequestId")


def parse_refusal(body: bytes, *, whole: bool = True) -> Refused:
    """Parse the body of an error response; empty if it is not one of S3. whole: rangeio did not truncate it."""
    found: dict[str, str] = {}

    def ended(path: tuple[str, ...], text: str) -> None:
        if path[-1] in _NAMES and (path[:-1] == ("Error",) or path[1:-1] == ("Error",)):
            found.setdefault(path[-1], text)

    try:
        read_xml(body, ended, whole=whole)
    except ValueError:
        return Refused()
    return Refused(*(found.get(name, "") for name in _NAMES))


# A message that quotes our request may contain secrets.
_QUOTES_US = re.compile(r"signature=|credential=|x-amz-|authorization:", re.IGNORECASE)

EXPIRED = frozenset(["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
"""Codes for expired keys: new keys may be accepted."""
WRONG_KEYS = EXPIRED | {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
"""Codes for which new keys may be accepted, also because the keys were replaced since they were fetched."""
WRONG_REGION = frozenset(
    ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"]
)

_KEYS = "the keys are not accepted: check access_key_id, secret_access_key and session_token"
_CLASS_OF_CODE: dict[str, tuple[type[Error], str]] = {
    "NoSuchKey": (NotFoundError, "the key does not exist"),
    "NoSuchBucket": (NotFoundError, "the bucket does not exist"),
    "NoSuchVersion": (NotFoundError, "the version does not exist"),
    "AccessDenied": (PermissionDeniedError, "access is denied"),
    "AllAccessDisabled": (PermissionDeniedError, "access is denied"),
    "AccountProblem": (PermissionDeniedError, "there is a problem with the account"),
    "InvalidObjectState": (
        PermissionDeniedError,
        "the object is archived and must be restored before it can be read",
    ),
    "InvalidAccessKeyId": (UnauthenticatedError, _KEYS),
    "SignatureDoesNotMatch": (UnauthenticatedError, _KEYS),
    "InvalidToken": (UnauthenticatedError, _KEYS),
    "ExpiredToken": (UnauthenticatedError, "the session token has expired"),
    "ExpiredTokenException": (UnauthenticatedError, "the session token has expired"),
    "TokenRefreshRequired": (UnauthenticatedError, "the session token has expired"),
    "RequestTimeTooSkewed": (UnauthenticatedError, "the clock of this machine is wrong"),
    "AuthorizationHeaderMalformed": (
        UnauthenticatedError,
        "the request is signed for the wrong region: set region=",
    ),
    "PermanentRedirect": (
        UnexpectedError,
        "the bucket is in another region, which the server does not report: set region=",
    ),
    "RequestTimeout": (TimedOutError, "the server reports that the request took too long"),
    "SlowDown": (RateLimitedError, "the server limits the rate of requests"),
    "Throttling": (RateLimitedError, "the server limits the rate of requests"),
    "ThrottlingException": (RateLimitedError, "the server limits the rate of requests"),
    "RequestLimitExceeded": (RateLimitedError, "the server limits the rate of requests"),
    "RequestThrottled": (RateLimitedError, "the server limits the rate of requests"),
    "BandwidthLimitExceeded": (RateLimitedError, "the server limits the rate of requests"),
    "InternalError": (ServerError, "the server failed"),
    "ServiceUnavailable": (ServerError, "the server failed"),
    "NotImplemented": (UnsupportedError, "the server does not support this"),
}


def explained(refused: Refused, http_status: int, general: Error, secrets: Iterable[str] = ()) -> Error:
    """The error for a refusal: its class follows the code, or for an unknown code, `general`, the error of the status.
    It always contains the server's code, message and request id, which support requests need.

    secrets: strings that the message must not show, even if the server quotes them.
    """
    secrets = [*secrets]
    code = _legible(refused.code, secrets, _MOST_OF_A_CODE)
    theirs = _legible(refused.message, secrets, _MOST_OF_A_MESSAGE)
    if _QUOTES_US.search(theirs):
        theirs = ""
    kind, ours = _CLASS_OF_CODE.get(refused.code, (type(general), ""))
    said = ": ".join(filter(None, [f"HTTP {http_status}", code, ours or _general_of(general)]))
    said += f" (the server: {theirs})" if theirs else ""
    return kind(
        said,
        http_status=http_status,
        request_id=general.request_id or _legible(refused.request_id, secrets, _MOST_OF_A_MESSAGE) or None,
        context={name: text for name, text in (("code", code), ("message", theirs), ("said", said)) if text},
    )


def _general_of(general: Error) -> str:
    """The message of a status without its number."""
    return str(general).partition(": ")[2]


_MOST_OF_A_CODE, _MOST_OF_A_MESSAGE = 100, 200


def _legible(text: str, secrets: Iterable[str], most: int) -> str:
    """A text of the server, shortened for a message, without secrets and unprintable characters."""
    text = hidden(" ".join(text.split()), secrets)[:most]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
