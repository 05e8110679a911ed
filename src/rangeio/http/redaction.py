"""Removes secrets that were sent to a server from texts that the server may have influenced."""

import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from rangeio.http.fields import HARMLESS
from rangeio.http.proxies import basic

# A truncated secret is recognized if at least this many characters remain; a shorter secret only as a whole.
_BEGINNING = 8
# Secrets shorter than _SHORT occur within many words: they are removed only as separate words, below _SHORTEST never.
_SHORT, _SHORTEST = 4, 2
# Secrets from this length on are removed in the codes of a server, too.
_LONG = 12


class Quoted(str):
    """External text, alone or combined with our own text: ``"no head: " + Quoted(line)``.

    Secrets are searched in external text only, because the values of a query are often ordinary words, which may occur
    in our own text. Only ``+`` keeps track of the parts; a format or a join would make all of them our own.
    """

    _parts: tuple[tuple[str, bool], ...]  # (text, whether it is external)

    def __new__(cls, theirs: object) -> "Quoted":
        return cls._of((str(theirs), True))

    @classmethod
    def _of(cls, *parts: tuple[str, bool]) -> "Quoted":
        made = super().__new__(cls, "".join(text for text, _ in parts))
        made._parts = parts
        return made

    def __add__(self, after: str) -> "Quoted":
        return self._of(*self._parts, *_parts_of(after))

    def __radd__(self, before: str) -> "Quoted":
        return self._of(*_parts_of(before), *self._parts)


def _parts_of(text: str) -> tuple[tuple[str, bool], ...]:
    return text._parts if isinstance(text, Quoted) else ((text, False),)


def without_secrets(message: str, secrets: Iterable[str]) -> str:
    """The message with ``***`` in place of each secret in its external text."""
    secrets = [*secrets]
    return "".join(hidden(text, secrets) if theirs else text for text, theirs in _parts_of(message))


def secrets_of_fields(fields: Mapping[str, str]) -> Iterator[str]:
    """Each value of a field that may hold a secret, and the parts of it that a server may quote separately."""
    for name, value in fields.items():
        if name.lower() in HARMLESS:
            continue
        yield value
        first, *others = re.split(r"[\s;,]+", value.strip())
        scheme = bool(others) and first.isalpha()  # Bearer, Basic, Digest
        for part in others if scheme else [first, *others]:
            yield part
            yield part.partition("=")[2].strip('"')
        if first.lower() == "basic" and others:
            yield from _of_basic(others[0])


def _of_basic(text: str) -> Iterator[str]:
    try:
        login = b64decode(text, validate=True).decode()
    except ValueError:
        return
    yield login
    yield login.partition(":")[2]


def secrets_of_login(login: tuple[str, str] | None) -> Iterator[str]:
    """User and password, and their encoded form, which is equally secret."""
    if login is not None:
        yield from login
        yield from secrets_of_fields({"Authorization": basic(*login)})


def secrets_of_query(target: str) -> Iterator[str]:
    """The values of a query, whatever their names: only the server knows which of them are secret."""
    for term in target.partition("?")[2].split("&"):
        name, equals, value = term.partition("=")
        yield value if equals else name


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text with ``***`` in place of each secret: in any case, quoted or not, complete or truncated; a long one also
    in base64 and in hexadecimal digits.
    """
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):  # one may be contained in another
        if len(form) >= _SHORT:
            text = _without(text, form)
        elif len(form) >= _SHORTEST and not form.isdigit():  # a number of up to three digits is not a secret
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "***", text, flags=re.IGNORECASE)
    return text


def _forms(secret: str) -> Iterator[str]:
    yield from (secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1])
    if len(secret) >= _LONG:
        raw = secret.encode(errors="surrogateescape")
        yield from (
            b64encode(raw).decode().rstrip("="),
            urlsafe_b64encode(raw).decode().rstrip("="),
            raw.hex(),
        )


def _without(text: str, secret: str) -> str:
    beginning = re.compile(re.escape(secret[:_BEGINNING]), re.IGNORECASE)
    at = 0
    while (found := beginning.search(text, at)) is not None:
        stop, left = found.end(), secret[_BEGINNING:]
        while left and text[stop : stop + 1].lower() == left[0].lower():
            stop, left = stop + 1, left[1:]
        text = f"{text[: found.start()]}***{text[stop:]}"
        at = found.start() + 3
    return _without_end(text, secret)


def _without_end(text: str, secret: str) -> str:
    """Remove a truncated secret at the end of the text, possibly followed by quotation marks."""
    body = text.rstrip("'\")")
    for length in range(min(_BEGINNING, len(secret)) - 1, _SHORT - 1, -1):
        if body.lower().endswith(secret[:length].lower()):
            return f"{body[:-length]}***{text[len(body) :]}"
    return text
