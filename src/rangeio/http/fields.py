"""Header fields of requests: validation, precedence, and which fields contain no secrets.

Field names are case-insensitive (RFC 9110, section 5.1).
"""

import re
from collections.abc import Mapping

from rangeio.errors import ConfigInvalidError

# CR, LF and NUL end a line, or the head, for some parsers; the other control characters except tab are invalid too.
# Source: RFC 9110, section 5.5.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9_-]+")

# Fields set by an option or by rangeio itself, which a field of the caller could contradict; and the option to use.
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
"""Fields known to hold no secret. Any other field may hold one: `X-Auth-Key` is the password of one service, and no
list is complete."""


def check_line(name: str, text: str) -> None:
    """ConfigInvalidError unless the text is a single line without control characters. The error does not show it."""
    if _CONTROL.search(text):
        at_its_end = not _CONTROL.search(text.rstrip("\r\n"))
        what = (
            "ends with a line break" if at_its_end else "contains a line break or another control character"
        )
        raise ConfigInvalidError(f"{name} {what}")


def check_value(name: str, value: object) -> str:
    """Return the value. ConfigInvalidError unless it is a string that can be sent. The error does not show it."""
    if not isinstance(value, str):
        raise ConfigInvalidError(f"{name} must be a string, not {type(value).__name__}")
    check_line(name, value)
    if not value.isascii() and any(ord(letter) > 255 for letter in value):
        raise ConfigInvalidError(f"{name} contains a character that is not in Latin-1, so it cannot be sent")
    return value


def check_login(what: str, *parts: object) -> None:
    """ConfigInvalidError unless these are a valid user and password. Source: RFC 7617, section 2: no control
    characters.
    """
    for part in parts:
        if not isinstance(part, str):
            raise ConfigInvalidError(f"{what}: user and password must be strings, not {type(part).__name__}")
        check_line(f"{what}: user or password", part)


def checked_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """ConfigInvalidError unless the fields can be sent and are not set by rangeio. Errors do not show values."""
    checked: dict[str, str] = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigInvalidError(f"header fields must be strings; {name!r} or its value is not")
        if not _NAME.fullmatch(name):
            raise ConfigInvalidError(f"{name!r} is not a valid name of a header field")
        lowered = name.lower()
        if lowered in _OURS:
            instead = f"; use {_OURS[lowered]}" if _OURS[lowered] else ""
            raise ConfigInvalidError(f"the header field {name!r} is set by rangeio itself{instead}")
        if lowered in map(str.lower, checked):
            raise ConfigInvalidError(f"the header field {name!r} is set twice, in different letter case")
        checked[name] = check_value(f"the value of the header field {name!r}", value)
    return checked


def merged(*groups: Mapping[str, str]) -> dict[str, str]:
    """The fields of all groups; the last one of each name, compared case-insensitively."""
    found: dict[str, tuple[str, str]] = {}
    for group in groups:
        for name, value in group.items():
            found[name.lower()] = name, value
    return dict(found.values())


def head_of(line: str, fields: Mapping[str, str]) -> str:
    """The head of a request, without the empty line at its end. Every head is built here.

    ConfigInvalidError if a control character would end a line early. Every value was checked at its source; this check
    ensures that a missed one cannot add a field or a request.
    """
    values = "".join(fields.values())
    if not (line.isascii() and values.isascii()) or _CONTROL.search(line) or _CONTROL.search(values):
        check_value("the request line", line)
        for name, value in fields.items():
            check_value(f"the header field {name!r}", value)
    return f"{line}\r\n" + "".join([f"{name}: {value}\r\n" for name, value in fields.items()])


def harmless(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields without secrets, which may be pickled."""
    return {name: value for name, value in fields.items() if name.lower() in HARMLESS}
