"""Where a request goes: a URL taken apart, what of it may be shown, and what may be sent along when it changes."""

import re
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from rangeio.errors import ConfigInvalidError
from rangeio.http.fields import check_login

_PORTS = {"http": 80, "https": 443}
# What may stand in a path or query as it is, "%" included: a URL is written by somebody who has quoted it.
_AS_IS = "/%:@!$&'()*+,;=~-._?"


class Origin(NamedTuple):  # hashed and compared for each request, which a tuple does in C
    """Who is talked to; connections of one may serve all its objects."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As the Host field has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One URL. target: path and query as sent. login: user and password that the URL held. Its repr shows no secret."""

    origin: Origin
    target: str
    login: tuple[str, str] | None = None

    @property
    def shown(self) -> str:
        """For people: without login and without query, which may be a signature."""
        path, query, _ = self.target.partition("?")
        return f"{self.origin.scheme}://{self.origin.authority}{path}{'?...' if query else ''}"

    @property
    def url(self) -> str:
        """All of it but the login. Not to be shown."""
        return f"{self.origin.scheme}://{self.origin.authority}{self.target}"

    def below(self, path: str) -> "Address":
        """The address of a key under this one, with the same login: quoted, whatever is in it."""
        return replace(self, target=f"{self.target.rstrip('/')}/{quoted(path, '/~')}")

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"


def quoted(text: str, safe: str) -> str:
    """Percent-encoded, all but `safe` and the unreserved. Bytes that are no UTF-8, as `os.fsdecode` writes them, too.

    ConfigInvalidError for half of a surrogate pair, which no encoding has.
    """
    try:
        return quote(text, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError:
        pass  # what it says quotes the text
    raise ConfigInvalidError("the path holds half of a character (a lone surrogate)")


def parse_url(url: str) -> Address:
    """ConfigInvalidError unless it is an http or https URL with a host. A fragment is left away; spaces and what is not
    ASCII are quoted, everything else stays as written.

    >>> parse_url("HTTP://me:secret@Example.org/a b%20c?sig=1#top").shown
    'http://example.org/a%20b%20c?...'
    """
    parts, host, port = _taken_apart(url)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not host or re.search(r"[\x00-\x20\x7f]", host):
        raise ConfigInvalidError("not an http or https URL with a host")
    target = quoted(parts.path or "/", _AS_IS.replace("?", ""))
    if parts.query:
        target += "?" + quoted(parts.query, _AS_IS)
    login = None
    if parts.username is not None:
        login = (unquote(parts.username), unquote(parts.password or ""))
        check_login("the URL", *login)
    return Address(Origin(scheme, host, _PORTS[scheme] if port is None else port), target, login)


def _taken_apart(url: str) -> tuple[SplitResult, str | None, int | None]:
    """With host and port. What the errors of the standard library say quotes the URL, so they end here."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        return parts, host if not host or host.isascii() else host.encode("idna").decode("ascii"), port
    except ValueError:
        pass
    raise ConfigInvalidError("not a URL: its host or port is malformed")


def moved(address: Address, location: str) -> Address:
    """Where a redirect leads. ConfigInvalidError for what is no http or https URL.

    location: as it came, each character one byte; some servers write UTF-8 as it is.
    """
    location = quote(location.encode("latin-1"), safe=_AS_IS + "#[]")
    try:
        url = urljoin(address.url, location)
    except ValueError:  # what it says quotes the URL
        url = ""
    return parse_url(url)


def may_carry(sent_to: Origin, target: Origin) -> bool:
    """Whether credentials meant for one origin may go to another: only to the same host, and never from TLS to plain.

    From http to https of one host on the default ports they may: that is how sites move their readers to TLS.
    """
    if sent_to == target:
        return True
    same_host = sent_to.host == target.host
    return same_host and (sent_to.scheme, sent_to.port, target.scheme, target.port) == (
        "http",
        80,
        "https",
        443,
    )
