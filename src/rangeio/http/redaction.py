"""What was sent to a server to say who asks, taken out of a text that a server may have had a part in."""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from rangeio.http.fields import HARMLESS
from rangeio.http.proxies import basic

# A secret that a text cuts short shows at least so much of it; a shorter one is looked for as a whole.
_BEGINNING = 8
# What is shorter is part of many words: it is taken out only where it stands by itself; below the second, never.
_SHORT, _SHORTEST = 4, 2


class Quoted(str):
    """Words of somebody else's, alone or with ours around them: ``"no head: " + Quoted(line)``.

    Secrets are looked for in theirs only, because ours may be among the values of a query, which are ordinary words
    often. It is by ``+`` that a message keeps which are whose; a format or a join would make all of them ours.
    """

    _parts: tuple[tuple[str, bool], ...]  # and whether it is theirs

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
    """The message with ``***`` in place of each secret that somebody else has said in it."""
    secrets = [*secrets]
    return "".join(hidden(text, secrets) if theirs else text for text, theirs in _parts_of(message))


def secrets_of_fields(fields: Mapping[str, str]) -> Iterator[str]:
    """Each value of a field that may hold a secret, and the parts of it that a server may quote alone."""
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
    """User and password, and what is sent of them: who has the one has the other."""
    if login is not None:
        yield from login
        yield from secrets_of_fields({"Authorization": basic(*login)})


def secrets_of_query(target: str) -> Iterator[str]:
    """The values of a query, whatever their names: which of them let somebody in, only its server knows."""
    for term in target.partition("?")[2].split("&"):
        name, equals, value = term.partition("=")
        yield value if equals else name


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text with ``***`` in place of each secret: in any case, quoted or not, as a whole or cut short."""
    forms = {
        form
        for secret in secrets
        for form in (secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1])
    }
    for form in sorted(forms, key=len, reverse=True):  # one may be part of another
        if len(form) >= _SHORT:
            text = _without(text, form)
        elif len(form) >= _SHORTEST and not form.isdigit():  # a number of three digits is no secret
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "***", text, flags=re.IGNORECASE)
    return text


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
    """A quotation that is cut short ends the text, or stands before the quotation mark that does."""
    body = text.rstrip("'\")")
    for length in range(min(_BEGINNING, len(secret)) - 1, _SHORT - 1, -1):
        if body.lower().endswith(secret[:length].lower()):
            return f"{body[:-length]}***{text[len(body) :]}"
    return text
