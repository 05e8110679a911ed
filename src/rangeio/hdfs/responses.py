"""Error responses of WebHDFS, and the exceptions for them."""

import json
from collections.abc import Iterable

from rangeio.errors import (
    Error,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    ObjectChangedError,
    PermissionDeniedError,
    ServerError,
    UnauthenticatedError,
    UnexpectedError,
    UnsupportedError,
)
from rangeio.http import refusals
from rangeio.http.refusals import Refused


def parse_refusal(body: bytes) -> Refused:
    """Parse the body of an error response: the exception is its code. Empty if it is not one of WebHDFS."""
    try:
        found = json.loads(body)["RemoteException"]
        name, message = found["exception"], found.get("message") or ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Refused()
    if not isinstance(name, str) or not isinstance(message, str):
        return Refused()
    if name == "SecurityException" and "StandbyException" in message:
        name = "StandbyException"  # a name node in standby cannot check tokens
    return Refused(name.rpartition("$")[2], message.partition("\n")[0])


STANDBY = frozenset(["StandbyException", "RetriableException", "NotALeaderException"])
"""Exceptions for which another name node may be the active one."""
WRONG_TOKEN = frozenset(["InvalidToken", "SecurityException", "AuthenticationException"])
"""Exceptions for which another delegation token may be accepted."""

_TOKEN = "the user or the delegation token is not accepted"
_CLASS_OF_EXCEPTION: dict[str, tuple[type[Error], str]] = {
    "FileNotFoundException": (NotFoundError, "the file does not exist"),
    "AccessControlException": (PermissionDeniedError, "access is denied"),
    "InvalidToken": (UnauthenticatedError, _TOKEN),
    "SecurityException": (UnauthenticatedError, _TOKEN),
    "AuthenticationException": (UnauthenticatedError, _TOKEN),
    "StandbyException": (ServerError, "the name node is not the active one"),
    "RetriableException": (ServerError, "the name node is not ready"),
    "SafeModeException": (ServerError, "the name node is in safe mode"),
    "NotALeaderException": (ServerError, "the name node is not the active one"),
    "ParentNotDirectoryException": (NotDirectoryError, "a parent of the path is a file"),
    "UnsupportedOperationException": (UnsupportedError, "the server does not support this"),
    "IOException": (UnexpectedError, "the server could not read it"),
}
NEEDS_LOGIN = "the server requires authentication: set delegation_token= or kerberos=True"


def explained(refused: Refused, http_status: int, general: Error, secrets: Iterable[str] = ()) -> Error:
    """The error for a refusal: see `refusals.explained`. Some exceptions of Hadoop mean several things."""
    meanings = _CLASS_OF_EXCEPTION
    if refused.code == "FileNotFoundException" and refused.message.startswith("Path is not a file"):
        meanings = {refused.code: (IsDirectoryError, "it is a directory")}
    elif refused.code == "IOException" and "out of the range" in refused.message:
        meanings = {
            refused.code: (ObjectChangedError, "it is shorter than when it was opened; open it again")
        }
    elif http_status == 401 and not refused.code:
        meanings = {"": (UnauthenticatedError, NEEDS_LOGIN)}
    return refusals.explained(refused, http_status, general, meanings, secrets)
