"""URLs: parsing, display without secrets, redirects, and which origins may receive credentials."""

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from rangeio.errors import ConfigInvalidError
from rangeio.http.fields import check_login

_PORTS = {"http": 80, "https": 443}
# Characters that stay unquoted in a path or query, including "%": the URLs of callers are already quoted.
_AS_IS = "/%:@!$&'()*+,;=~-._?"


class Origin(NamedTuple):  # hashed and compared for each request; a tuple does this in C
    """Scheme, host and port. A connection to an origin can be used for all its objects."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One URL. target: path and query as sent. login: user and password in the URL. The repr shows no secrets."""

    origin: Origin
    target: str
    login: tuple[str, str] | None = None

    @property
    def shown(self) -> str:
        """For display: without login and without query, which may be a signature."""
        path, query, _ = self.target.partition("?")
        return f"{self.origin.scheme}://{self.origin.authority}{path}{'?...' if query else ''}"

    @property
    def url(self) -> str:
        """The URL without the login. It may contain secrets: not for display."""
        return f"{self.origin.scheme}://{self.origin.authority}{self.target}"

    def below(self, path: str) -> "Address":
        """The address of a key below this one, with the same login. The key is quoted."""
        return replace(self, target=f"{self.target.rstrip('/')}/{quoted(path, '/~')}")

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"


def quoted(text: str, safe: str) -> str:
    """Percent-encode all but `safe` and unreserved characters, including non-UTF-8 bytes decoded by `os.fsdecode`.

    ConfigInvalidError for a lone surrogate, which cannot be encoded.
    """
    try:
        return quote(text, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError:
        pass  # its message quotes the text
    raise ConfigInvalidError("the path contains half of a character (a lone surrogate)")


def parse_url(url: str) -> Address:
    """Parse a URL. ConfigInvalidError unless it is an http or https URL with a host. Drops the fragment; quotes spaces
    and non-ASCII characters, and leaves the rest unchanged.

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
    """The parts, host and port. Errors of the standard library are replaced, because they quote the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        return parts, host if not host or host.isascii() else host.encode("idna").decode("ascii"), port
    except ValueError:
        pass
    raise ConfigInvalidError("not a URL: its host or port is malformed")


def moved(address: Address, location: str) -> Address:
    """The target of a redirect. ConfigInvalidError if it is not an http or https URL.

    location: as received, one character per byte; some servers send unquoted UTF-8.
    """
    location = quote(location.encode("latin-1"), safe=_AS_IS + "#[]")
    try:
        url = urljoin(address.url, location)
    except ValueError:  # its message quotes the URL
        url = ""
    return parse_url(url)


def may_carry(sent_to: Origin, target: Origin) -> bool:
    """Whether credentials for one origin may be sent to another: only to the same host, and never from TLS to plain.

    From http to https of one host on the default ports is allowed: sites redirect to TLS this way.
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


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
