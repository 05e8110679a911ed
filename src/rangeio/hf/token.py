"""The token of this machine, found as huggingface_hub finds it. Source: its constants.py."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rangeio.errors import ConfigInvalidError, UnauthenticatedError
from rangeio.http.fields import check_value
from rangeio.http.urls import Origin

_TRUE = frozenset(["1", "ON", "YES", "TRUE"])
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def token_path() -> Path:
    """The file in which `hf auth login` keeps the token."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    path = os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    return Path(os.path.expandvars(os.path.expanduser(path)))


def is_disabled() -> bool:
    """Whether only a token that is given may be sent."""
    return os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE


def found() -> tuple[str, str] | None:
    """The token and where it was found; None if there is none."""
    if is_disabled():
        return None
    for name in _VARIABLES:
        if token := os.environ.get(name, "").strip():
            return checked(token, name), name
    path = token_path()
    try:
        token = path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise UnauthenticatedError(f"the token file {path} cannot be read: {said}") from None
    return (checked(token, str(path)), str(path)) if token else None


def checked(token: object, what: str) -> str:
    """ConfigInvalidError unless the token can be sent. The error does not show it."""
    return check_value(f"the token in {what}", token)


def given(answer: Any) -> tuple[str, float | None]:
    """The token and its expiry that a callable returned. ConfigInvalidError if it is not such a mapping."""
    if not isinstance(answer, Mapping) or not {"bearer_token"} <= answer.keys() <= {
        "bearer_token",
        "expires_at",
    }:
        raise ConfigInvalidError(
            "credentials() must return a mapping with bearer_token, and expires_at if it expires"
        )
    expiry = answer.get("expires_at")
    if expiry is not None and not isinstance(expiry, (int, float)):
        raise ConfigInvalidError("expires_at must be in seconds since 1970")
    return check_value("bearer_token", answer["bearer_token"]), None if expiry is None else float(expiry)


def check_origin(origin: Origin) -> None:
    """ConfigInvalidError if others could read a token on its way there."""
    if origin.scheme == "https" or _is_here(origin.host):
        return
    raise ConfigInvalidError(
        f"a token is not sent over plain http to {origin.authority}, where others could read it: use an https"
        " endpoint, or anonymous=True"
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
