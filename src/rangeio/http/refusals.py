"""Error responses in XML, as object stores send them, and the exceptions for their codes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rangeio.errors import Error
from rangeio.http.redaction import hidden
from rangeio.http.xml import read_xml

Meanings: TypeAlias = Mapping[str, tuple[type[Error], str]]
"""For each code of a service: the class of the error, and what it means."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The relevant parts of an error response; empty if missing."""

    code: str = ""
    message: str = ""
    region: str = ""
    request_id: str = ""


_NAMES = ("Code", "Message", "Region", "RequestId")


def parse_refusal(body: bytes, *, whole: bool = True) -> Refused:
    """Parse the body of an error response; empty if it is not such a response. whole: rangeio did not truncate it."""
    found: dict[str, str] = {}

    def ended(path: tuple[str, ...], text: str) -> None:
        if path[-1] in _NAMES and (path[:-1] == ("Error",) or path[1:-1] == ("Error",)):
            found.setdefault(path[-1], text)

    try:
        read_xml(body, ended, whole=whole)
    except ValueError:
        return Refused()
    return Refused(*(found.get(name, "") for name in _NAMES))


# A message that quotes our request may contain secrets.
_QUOTES_REQUEST = re.compile(
    r"signature=|\bsig=|credential=|x-(?:amz|goog|ms)-|authorization:|bearer ", re.IGNORECASE
)


def explained(
    refused: Refused, http_status: int, general: Error, meanings: Meanings, secrets: Iterable[str] = ()
) -> Error:
    """The error for a refusal: its class follows the code, or for an unknown code, `general`, the error of the status.
    It always contains the server's code, message and request id, which support requests need.

    meanings: the class and the text for each code, an empty text for that of the status. secrets: strings that the
    message must not show, even if the server quotes them.
    """
    secrets = [*secrets]
    code = _legible(refused.code, secrets, _MOST_OF_A_CODE)
    theirs = _legible(refused.message, secrets, _MOST_OF_A_MESSAGE)
    if _QUOTES_REQUEST.search(theirs):
        theirs = ""
    kind, ours = meanings.get(refused.code, (type(general), ""))
    said = ": ".join(filter(None, [f"HTTP {http_status}", code, ours or _general_of(general)]))
    said += f" (the server: {theirs})" if theirs else ""
    return kind(
        said,
        http_status=http_status,
        request_id=general.request_id or _legible(refused.request_id, secrets, _MOST_OF_A_MESSAGE) or None,
        context={name: text for name, text in (("code", code), ("message", theirs), ("said", said)) if text},
    )


def _general_of(general: Error) -> str:
    """The message of a status without its number."""
    return str(general).partition(": ")[2]


_MOST_OF_A_CODE, _MOST_OF_A_MESSAGE = 100, 200


def _legible(text: str, secrets: Iterable[str], most: int) -> str:
    """A text of the server, shortened for a message, without secrets and unprintable characters."""
    text = hidden(" ".join(text.split()), secrets)[:most]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
