"""Bearer tokens of all services: which can be sent, when they expire, and to whom they may be sent unencrypted."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rangeio.errors import ConfigInvalidError
from rangeio.http.fields import check_value
from rangeio.http.proxies import is_private
from rangeio.http.urls import Origin


def checked_token(token: object) -> str:
    """The token. ConfigInvalidError unless it can be sent; the error does not show it."""
    text = check_value("bearer_token", token)
    if not re.fullmatch(r"[!-~]+", text):
        raise ConfigInvalidError(
            "bearer_token is empty, or contains a space or a character that is not ASCII"
        )
    return text


def token_of(given: Any) -> tuple[str, float]:
    """The token and its expiry in what a callable returned: a mapping with bearer_token, and expires_at if it expires.
    ConfigInvalidError for anything else; it shows no value.
    """
    if not isinstance(given, Mapping):
        raise ConfigInvalidError(
            f"credentials() must return a mapping with bearer_token, not {type(given).__name__}"
        )
    for name in sorted(set(map(str, given)) - {"bearer_token", "expires_at"}):
        raise ConfigInvalidError(f"credentials() returned unknown {name!r}; known: bearer_token, expires_at")
    return checked_token(given.get("bearer_token")), expiry_of(given.get("expires_at"))


def expiry_of(given: Any) -> float:
    """The expiry in seconds since 1970; infinite for None. ConfigInvalidError for what is no time."""
    if given is None:
        return float("inf")
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ConfigInvalidError("expires_at needs a time zone: datetime(..., tzinfo=timezone.utc)")
        return given.timestamp()
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return float(given)
    raise ConfigInvalidError("expires_at must be a datetime or seconds since 1970")


def check_private(origin: Origin, proxy: str | None, instead: str) -> None:
    """ConfigInvalidError unless a token for `origin` stays private. instead: what the caller can do."""
    if not is_private(origin, proxy):
        raise ConfigInvalidError(
            f"a token is not sent over plain http to {origin.authority}, where others could read it, but to this"
            f" machine only: {instead}"
        )
