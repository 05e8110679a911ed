"""Selects the proxy for a connection and opens it. No URL with a password leaves this module."""

import ipaddress as ip
import re
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.http.fields import check_login
from rangeio.http.urls import Origin, is_loopback

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. fields: the header fields for it, which the repr does not show."""

    scheme: str
    host: str
    port: int
    fields: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.scheme}://{self.host}:{self.port}>"


def proxy_for(origin: Origin, url: str | None) -> Proxy | None:
    """The proxy at `url`; None if `url` is empty. If `url` is None, the proxy from the environment for this origin.

    UnsupportedError for SOCKS and other schemes, ConfigInvalidError for an invalid URL.
    """
    if url is None:
        known = getproxies()
        url = (known.get(origin.scheme) or known.get("all", "")).strip()
        if url and _goes_direct(origin):
            url = ""
    return parse_proxy(url) if url else None


def _goes_direct(origin: Origin) -> bool:
    """Whether NO_PROXY excludes this origin; without NO_PROXY, whether the settings of macOS or Windows do."""
    rule = getproxies_environment().get("no", "")
    return is_exempt(origin, rule) if rule.strip() else bool(proxy_bypass(origin.authority))


def is_exempt(origin: Origin, rule: str) -> bool:
    """Whether a rule in the format of NO_PROXY matches this origin.

    A rule is a list, separated by commas or spaces, of: host names, which include their subdomains, with or without a
    leading dot; addresses, with or without brackets; networks (10.0.0.0/8, fd00::/8); each with a port (``host:8080``)
    or for all ports; ``*`` for everything. Case-insensitive. Names are not resolved for the comparison with addresses.
    Source: curl(1), NO_PROXY, since 7.86; `requests.utils.should_bypass_proxies` for ports. Neither matches a part of
    an address as a name.
    """
    host = _plain_host(origin.host)
    address = _address_of(host)
    for entry in re.split(r"[\s,]+", rule):
        named, port = _entry(entry)
        if not named or port not in (None, origin.port):
            continue
        if named == "*":
            return True
        if address is None:
            if host == named or host.endswith(f".{named}"):
                return True
        elif _holds(named, address):
            return True
    return False


_Ip: TypeAlias = "ip.IPv4Address | ip.IPv6Address"


def _plain_host(text: str) -> str:
    """The normal form for comparison: lower case, ASCII, without a dot at either end."""
    host = text.strip("[]").lower().removeprefix("*").strip(".")
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _entry(text: str) -> tuple[str, int | None]:
    """The host, address, network or ``*`` of an entry, and its port. Several colons mean an IPv6 address."""
    bracketed = re.fullmatch(r"\[([^\]]+)\](/\d+)?(?::(\d+))?", text)
    if bracketed is not None:
        named, port = bracketed[1] + (bracketed[2] or ""), bracketed[3]
    elif text.count(":") == 1:
        named, _, port = text.partition(":")
    else:
        named, port = text, None
    if port is not None and not (port.isascii() and port.isdigit()):
        return "", None
    return named if named == "*" else _plain_host(named), None if port is None else int(port)


def _address_of(host: str) -> "_Ip | None":
    try:
        return ip.ip_address(host.partition("%")[0])  # the rest names an interface
    except ValueError:
        return None


def _holds(named: str, address: _Ip) -> bool:
    """Whether `named` is this address, or a network that contains it."""
    try:
        return address in ip.ip_network(named.partition("%")[0], strict=False)
    except ValueError:
        return False


def is_private(origin: Origin, given: str | None) -> bool:
    """Whether nobody else can read what is sent there: by TLS, or within this machine. given: see `proxy_for`."""
    if origin.scheme == "https":
        return True
    proxy = proxy_for(origin, given)
    return is_loopback(origin.host) and (proxy is None or is_loopback(proxy.host))


def parse_proxy(url: str) -> Proxy:
    """See `proxy_for`. Errors contain no part of the URL."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:  # its message may quote the password
        parts = None
    if parts is None:
        raise ConfigInvalidError("the URL of the proxy is malformed")
    if parts.scheme not in _PORTS:
        raise UnsupportedError(
            "the URL of the proxy must be http://host:port or https://host:port; other schemes are not supported"
        )
    if not parts.hostname or re.search(r"[\x00-\x20\x7f]", parts.hostname):
        raise ConfigInvalidError("the URL of the proxy has no host")
    fields = {}
    if parts.username is not None:
        login = unquote(parts.username), unquote(parts.password or "")
        check_login("the URL of the proxy", *login)
        fields["Proxy-Authorization"] = basic(*login)
    return Proxy(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], fields)


def basic(user: str, password: str) -> str:
    """The value of Authorization for a user and a password, in UTF-8. Source: RFC 7617."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def connection(
    origin: Origin,
    proxy: Proxy | None,
    timeout_s: float | None,
    context: Callable[[], ssl.SSLContext],
    proxy_context: Callable[[], ssl.SSLContext],
) -> "HTTPConnection":
    """An unopened connection: plain or TLS; direct, to a forwarding proxy, or through a proxy with CONNECT."""
    try:
        from urllib3.connection import HTTPConnection, HTTPSConnection
    except ImportError as error:
        raise UnsupportedError(f"urllib3 is missing ({error}): pip install 'rangeio[http]'") from error

    host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
    if origin.scheme == "http":
        if proxy is not None and proxy.scheme == "https":
            return HTTPSConnection(host, port, timeout=timeout_s, ssl_context=proxy_context())
        return HTTPConnection(host, port, timeout=timeout_s)
    if proxy is not None and proxy.scheme == "https":
        # urllib3 implements TLS within TLS with a socket that can only block.
        raise UnsupportedError("an https proxy supports http:// URLs only; for https:// set an http:// proxy")
    made = HTTPSConnection(host, port, timeout=timeout_s, ssl_context=context())
    if proxy is not None:
        made.set_tunnel(origin.host, origin.port, headers=proxy.fields, scheme="http")
    return made
