"""What S3 says where it refuses, and which error that is."""

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
    """The parts of an error response that mean something to us; empty where it has none."""

    code: str = ""
    message: str = ""
    region: str = ""
    request_id: str = ""


_NAMES = ("Code", "Message", "Region", "RequestId")


def parse_refusal(body: bytes, *, whole: bool = True) -> Refused:
    """What the body of an error response says; nothing if it is none of S3's. whole: it was not cut off by us."""
    found: dict[str, str] = {}

    def ended(path: tuple[str, ...], text: str) -> None:
        if path[-1] in _NAMES and (path[:-1] == ("Error",) or path[1:-1] == ("Error",)):
            found.setdefault(path[-1], text)

    try:
        read_xml(body, ended, whole=whole)
    except ValueError:
        return Refused()
    return Refused(*(found.get(name, "") for name in _NAMES))


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


def explained(refused: Refused, http_status: int, general: Error, secrets: Iterable[str] = ()) -> Error:
    """The error for a refusal: of the class of its code, else of `general`, which its status stands for. It has the
    server's code, message and request id whatever the code is: they are what the store's own people ask for.

    secrets: what the message may not show, though the server quotes it.
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
    """What a status means, without its number."""
    return str(general).partition(": ")[2]


_MOST_OF_A_CODE, _MOST_OF_A_MESSAGE = 100, 200


def _legible(text: str, secrets: Iterable[str], most: int) -> str:
    """As much of a server's text as fits into a message, without what was sent to it."""
    text = hidden(" ".join(text.split()), secrets)[:most]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
