"""Header fields of requests: what may be sent, whose replaces whose, and which of them say nothing about who asks.

Names of fields are the same in any case (RFC 9110, section 5.1).
"""

import re
from collections.abc import Mapping

from rangeio.errors import ConfigInvalidError

# CR, LF and NUL end a line, or the head, for one parser or another; the other control characters are invalid as well,
# but for the tab. Source: RFC 9110, section 5.5.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9_-]+")

# What is said by an option, or by how a request is made, and would contradict it if it were said twice.
_OURS = {
    "host": "",
    "range": "",
    "if-range": "",
    "accept-encoding": "",
    "connection": "",
    "content-length": "",
    "transfer-encoding": "",
    "if-match": "if_match=",
    "if-none-match": "if_none_match=",
    "if-modified-since": "if_modified_since=",
    "if-unmodified-since": "if_unmodified_since=",
}

HARMLESS = frozenset(
    [
        "accept",
        "accept-language",
        "cache-control",
        "dnt",
        "pragma",
        "user-agent",
        "x-amz-checksum-mode",
        "x-amz-request-payer",
        "x-goog-user-project",
        "x-ms-version",
    ]
)
"""Fields known to hold no secret. Any other may: `X-Auth-Key` is one service's password, and no list has them all."""


def check_line(name: str, text: str) -> None:
    """ConfigInvalidError, which does not show it, unless a text is a single line without control characters."""
    if _CONTROL.search(text):
        at_its_end = not _CONTROL.search(text.rstrip("\r\n"))
        what = "ends with a line break" if at_its_end else "holds a line break or another control character"
        raise ConfigInvalidError(f"{name} {what}")


def check_value(name: str, value: object) -> str:
    """The value as it is. ConfigInvalidError, which does not show it, unless it is a string that can be sent."""
    if not isinstance(value, str):
        raise ConfigInvalidError(f"{name} must be a string, not {type(value).__name__}")
    check_line(name, value)
    if any(ord(letter) > 255 for letter in value):
        raise ConfigInvalidError(f"{name} holds a character that is not in Latin-1, so it cannot be sent")
    return value


def check_login(what: str, *parts: object) -> None:
    """ConfigInvalidError unless these can be a user and a password. Source: RFC 7617, section 2: no control characters
    in them.
    """
    for part in parts:
        if not isinstance(part, str):
            raise ConfigInvalidError(f"{what}: user and password are strings, not {type(part).__name__}")
        check_line(f"{what}: user or password", part)


def checked_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """ConfigInvalidError unless they can be sent as they are, and leave ours alone. Values are not shown."""
    checked: dict[str, str] = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigInvalidError(f"header fields are strings; {name!r} is not, or its value")
        if not _NAME.fullmatch(name):
            raise ConfigInvalidError(f"{name!r} is no name of a header field")
        lowered = name.lower()
        if lowered in _OURS:
            instead = f"; use {_OURS[lowered]}" if _OURS[lowered] else ""
            raise ConfigInvalidError(f"the header field {name!r} is rangeio's own{instead}")
        if lowered in map(str.lower, checked):
            raise ConfigInvalidError(f"the header field {name!r} is given twice, in different letter case")
        checked[name] = check_value(f"the value of the header field {name!r}", value)
    return checked


def merged(*groups: Mapping[str, str]) -> dict[str, str]:
    """All fields of all groups; of those with the same name, in whatever case, the last."""
    found: dict[str, tuple[str, str]] = {}
    for group in groups:
        found |= {name.lower(): (name, value) for name, value in group.items()}
    return dict(found.values())


def head_of(line: str, fields: Mapping[str, str]) -> str:
    """The head of a request, without the empty line at its end: every head is built here.

    ConfigInvalidError where a control character would end a line early. Each source of a value has checked it before;
    this is so that one that did not cannot add a field, or a request, of its own.
    """
    named = {"the request line": line, **{f"the header field {name!r}": fields[name] for name in fields}}
    for what, text in named.items():
        check_value(what, text)
    return f"{line}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())


def harmless(fields: Mapping[str, str]) -> dict[str, str]:
    """Those that may be written down for another process."""
    return {name: value for name, value in fields.items() if name.lower() in HARMLESS}
