"""The token of this machine, found as huggingface_hub finds it. Source: its constants.py."""

import os
from pathlib import Path

from rangeio.errors import UnauthenticatedError
from rangeio.hf.cache import home
from rangeio.http.fields import check_value

_TRUE = frozenset(["1", "ON", "YES", "TRUE"])
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def token_path() -> Path:
    """The file in which `hf auth login` keeps the token."""
    path = os.environ.get("HF_TOKEN_PATH") or os.path.join(home(), "token")
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
