"""Which proxy a connection goes through, and how it is opened. No URL with a password leaves this module."""

import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.http.address import Origin

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. fields: what it wants to be told; its repr does not show them."""

    scheme: str
    host: str
    port: int
    fields: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.scheme}://{self.host}:{self.port}>"


def proxy_for(origin: Origin, url: str | None) -> Proxy | None:
    """The proxy at `url`; none if that is empty; where it is None what the environment says for this origin.

    UnsupportedError for SOCKS and the like, ConfigInvalidError for what is no URL.
    """
    if url is None:
        known = getproxies()
        url = known.get(origin.scheme) or known.get("all", "")
        if url and proxy_bypass(origin.authority):
            url = ""
    return parse_proxy(url) if url else None


def parse_proxy(url: str) -> Proxy:
    """See `proxy_for`. Nothing of the URL is in the errors."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:  # what it says may quote the password
        parts = None
    if parts is None:
        raise ConfigInvalidError("the URL of the proxy is malformed")
    if parts.scheme not in _PORTS:
        raise UnsupportedError(
            "a proxy is given as http://host:port or https://host:port, not as another scheme"
        )
    if not parts.hostname:
        raise ConfigInvalidError("the URL of the proxy names no host")
    fields = {}
    if parts.username is not None:
        fields["Proxy-Authorization"] = basic(unquote(parts.username), unquote(parts.password or ""))
    return Proxy(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], fields)


def basic(user: str, password: str) -> str:
    """The value of Authorization for a name and a password, in UTF-8. Source: RFC 7617."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def connection(
    origin: Origin,
    proxy: Proxy | None,
    timeout_s: float | None,
    context: Callable[[], ssl.SSLContext],
    proxy_context: Callable[[], ssl.SSLContext],
) -> "HTTPConnection":
    """One that `connect` will open: plain or TLS, direct, to a proxy that sees requests, or through one by CONNECT."""
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
        # urllib3 does TLS within TLS with a socket that only blocks.
        raise UnsupportedError("an https proxy serves http:// URLs only; for https:// give an http:// proxy")
    made = HTTPSConnection(host, port, timeout=timeout_s, ssl_context=context())
    if proxy is not None:
        made.set_tunnel(origin.host, origin.port, headers=proxy.fields, scheme="http")
    return made
