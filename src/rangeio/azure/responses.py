"""Error responses of Azure Blob Storage, and the exceptions for them.

Source: Microsoft Learn, "Blob Storage error codes" and "Common REST API error codes".
"""

from collections.abc import Iterable

from rangeio.azure.signing import DelegationKey
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
from rangeio.http.heads import Head
from rangeio.http.refusals import Meanings, Refused
from rangeio.http.xml import read_xml


def parse_refusal(head: Head, body: bytes) -> Refused:
    """Parse an error response. The code is a header field too, because a response to HEAD has no body."""
    found = refusals.parse_refusal(body, whole=head.length == len(body))
    code = head.fields.get("x-ms-error-code", "") or found.code
    # The message continues with the request id and the time, each on a line of its own.
    return Refused(code, found.message.strip().partition("\n")[0])


def explained(refused: Refused, http_status: int, general: Error, secrets: Iterable[str]) -> Error:
    """See `rangeio.http.refusals`."""
    return refusals.explained(refused, http_status, general, _CLASS_OF_CODE, secrets)


_PARTS = ("SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService", "SignedVersion", "Value")


def parse_delegation_key(body: bytes | memoryview) -> DelegationKey:
    """Parse a response to Get User Delegation Key. UnexpectedError if it is not one."""
    found: dict[str, str] = {}
    try:
        read_xml(body, lambda path, text: found.setdefault(path[-1], text))
        return DelegationKey(*(found[name] for name in _PARTS))
    except (KeyError, ValueError):
        raise UnexpectedError("the response to a request for a user delegation key is none") from None


EXPIRED = frozenset(["AuthenticationFailed", "InvalidAuthenticationInfo", "ExpiredAuthenticationToken"])
"""Codes for which new credentials may be accepted."""

_WRONG = "the credentials are not accepted: check account_key, sas_token or the token, and that they have not expired"
_NO_RIGHT = "the credentials do not allow reading it"
_CLASS_OF_CODE: Meanings = {
    "BlobNotFound": (NotFoundError, "the blob does not exist"),
    "ContainerNotFound": (NotFoundError, "the container does not exist"),
    "ContainerBeingDeleted": (NotFoundError, "the container is being deleted"),
    "ResourceNotFound": (
        NotFoundError,
        "it does not exist, or it is not public and the request has no credentials",
    ),
    "PathNotFound": (NotFoundError, "the path does not exist"),
    "FilesystemNotFound": (NotFoundError, "the container does not exist"),
    "AuthenticationFailed": (UnauthenticatedError, _WRONG),
    "InvalidAuthenticationInfo": (UnauthenticatedError, _WRONG),
    "ExpiredAuthenticationToken": (UnauthenticatedError, "the token has expired"),
    "NoAuthenticationInformation": (
        UnauthenticatedError,
        "the server requires credentials: set account_key=, sas_token=, bearer_token= or credentials=",
    ),
    "AuthorizationFailure": (PermissionDeniedError, f"{_NO_RIGHT}, or not from this network"),
    "AuthorizationPermissionMismatch": (
        PermissionDeniedError,
        f"{_NO_RIGHT}; with a token the role Storage Blob Data Reader does",
    ),
    "AuthorizationProtocolMismatch": (PermissionDeniedError, "the SAS allows https only"),
    "AuthorizationResourceTypeMismatch": (PermissionDeniedError, _NO_RIGHT),
    "AuthorizationServiceMismatch": (PermissionDeniedError, "the SAS is for another service"),
    "AuthorizationSourceIPMismatch": (PermissionDeniedError, "the SAS does not allow this address"),
    "InsufficientAccountPermissions": (PermissionDeniedError, _NO_RIGHT),
    "AccountIsDisabled": (PermissionDeniedError, "the account is disabled"),
    "KeyBasedAuthenticationNotPermitted": (
        PermissionDeniedError,
        "the account permits no account keys: use a token, which azure-identity gets",
    ),
    "PublicAccessNotPermitted": (PermissionDeniedError, "the account permits no access without credentials"),
    "BlobArchived": (
        PermissionDeniedError,
        "the blob is archived and must be rehydrated before it can be read",
    ),
    "BlobBeingRehydrated": (
        PermissionDeniedError,
        "the blob is archived; it is being rehydrated and cannot be read yet",
    ),
    "BlobUsesCustomerSpecifiedEncryption": (
        UnsupportedError,
        "the blob is encrypted with a key of the customer, which headers= must provide (x-ms-encryption-key and"
        " the other two fields)",
    ),
    "FeatureVersionMismatch": (UnsupportedError, "the blob needs a newer version of the API"),
    "ServerBusy": (RateLimitedError, "the server limits the rate of requests"),
    "OperationTimedOut": (TimedOutError, "the server reports that the request took too long"),
    "InternalError": (ServerError, "the server failed"),
}
