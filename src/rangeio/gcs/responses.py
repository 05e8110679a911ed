"""Error codes of Google Cloud Storage, and the exceptions for them.

Sources: Google, "HTTP status and error codes" of the XML API and of the JSON API of Cloud Storage.
"""

import json
from collections.abc import Iterable

from rangeio.errors import (
    ConfigInvalidError,
    Error,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TimedOutError,
    UnauthenticatedError,
)
from rangeio.http import refusals
from rangeio.http.refusals import Meanings, Refused

_LIMITED = "the server limits the rate of requests"
_TOKEN = "there is no token, or the server does not accept it"
_KEYS = "the keys are not accepted: check access_key_id and secret_access_key"
_BILLED = "the bucket's readers pay: set user_project= to a project that is billed"
_ENCRYPTED = (
    "the object is encrypted with a key of its owner: send x-goog-encryption-algorithm, x-goog-encryption-key and"
    " x-goog-encryption-key-sha256 by headers="
)
_MEANINGS: Meanings = {
    "NoSuchKey": (NotFoundError, "the object does not exist"),
    "NoSuchBucket": (NotFoundError, "the bucket does not exist"),
    "notFound": (NotFoundError, "the bucket does not exist"),
    "InvalidSecurity": (UnauthenticatedError, _TOKEN),
    "AccessDenied": (PermissionDeniedError, "access is denied"),
    "forbidden": (PermissionDeniedError, "access is denied"),
    "AccountProblem": (PermissionDeniedError, "there is a problem with the account"),
    "UserProjectAccessDenied": (PermissionDeniedError, "the account may not have user_project= billed"),
    "UserProjectAccountProblem": (
        PermissionDeniedError,
        "there is a problem with the account of user_project=",
    ),
    "SignatureDoesNotMatch": (UnauthenticatedError, _KEYS),
    "InvalidAccessKeyId": (UnauthenticatedError, _KEYS),
    "RequestTimeTooSkewed": (UnauthenticatedError, "the clock of this machine is wrong"),
    "ExpiredToken": (UnauthenticatedError, "the token or the signed URL has expired"),
    "UserProjectMissing": (ConfigInvalidError, _BILLED),
    "required": (ConfigInvalidError, _BILLED),
    "UserProjectInvalid": (ConfigInvalidError, "user_project= is not a project"),
    "ResourceIsEncryptedWithCustomerEncryptionKey": (ConfigInvalidError, _ENCRYPTED),
    "SlowDown": (RateLimitedError, _LIMITED),
    "rateLimitExceeded": (RateLimitedError, _LIMITED),
    "userRateLimitExceeded": (RateLimitedError, _LIMITED),
    "usageLimits.rateLimitExceeded": (RateLimitedError, _LIMITED),
    "InternalError": (ServerError, "the server failed"),
    "backendError": (ServerError, "the server failed"),
    "ServiceUnavailable": (ServerError, "the server failed"),
    "RequestTimeout": (TimedOutError, "the server reports that the request took too long"),
}


def parse_refusal(body: bytes, *, whole: bool = True) -> Refused:
    """Parse the body of an error response, in XML or JSON; empty if it is neither."""
    found = refusals.parse_refusal(body, whole=whole)
    if found.code or not body.lstrip().startswith(b"{"):
        return found
    try:
        told = json.loads(body)["error"]
        first = {**told, **(told.get("errors") or [{}])[0]}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return Refused()
    code, message = first.get("reason", ""), first.get("message", "")
    return Refused(code if isinstance(code, str) else "", message if isinstance(message, str) else "")


def explained(refused: Refused, http_status: int, general: Error, secrets: Iterable[str] = ()) -> Error:
    """The error for a refusal; see `rangeio.http.refusals`. 401 is about the token, whatever the code."""
    if http_status == 401:
        general = UnauthenticatedError(f"HTTP 401: {_TOKEN}", request_id=general.request_id)
    meanings = {} if http_status == 401 else _MEANINGS
    return refusals.explained(refused, http_status, general, meanings, secrets)
