"""Error codes of S3, and the exceptions for them."""

from collections.abc import Iterable

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
from rangeio.http import refusals
from rangeio.http.refusals import Meanings, Refused, parse_refusal

EXPIRED = frozenset(["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
"""Codes for expired keys: new keys may be accepted."""
WRONG_KEYS = EXPIRED | {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
"""Codes for which new keys may be accepted, also because the keys were replaced since they were fetched."""
WRONG_REGION = frozenset(
    ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"]
)

_KEYS = "the keys are not accepted: check access_key_id, secret_access_key and session_token"
_CLASS_OF_CODE: Meanings = {
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
    """See `rangeio.http.refusals`."""
    return refusals.explained(refused, http_status, general, _CLASS_OF_CODE, secrets)


def of_listing(body: bytes, secrets: Iterable[str]) -> Error:
    """The error that a server sent with status 200 in place of a listing."""
    general = UnexpectedError("HTTP 200: the response is an error, not a listing")
    return explained(parse_refusal(body), 200, general, secrets)
