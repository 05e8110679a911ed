"""What goes by a proxy of the environment, and what NO_PROXY keeps from it: as curl, requests and Go read it."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from awaited import run_on
from faults.machine import need, need_module
from servers.scripted import Scripted, honest, reply, scripted

import rangeio
from rangeio.http.proxies import is_exempt, proxy_for
from rangeio.http.urls import parse_url

need_module("urllib3")

DATA = bytes(range(256)) * 10


@pytest.mark.parametrize(
    ("url", "rule", "exempt"),
    [
        # names: themselves and all below them, at a dot, in any case
        ("http://example.org/", "example.org", True),
        ("http://example.org/", "EXAMPLE.org", True),
        ("http://EXAMPLE.org/", "example.org", True),
        ("http://a.example.org/", "example.org", True),
        ("http://a.example.org/", ".example.org", True),
        ("http://example.org/", ".example.org", True),
        ("http://a.example.org/", "*.example.org", True),
        ("http://example.org./", "example.org", True),
        ("http://example.org/", "example.org.", True),
        ("http://badexample.org/", "example.org", False),
        ("http://example.org/", "a.example.org", False),
        ("http://example.org.evil/", "example.org", False),
        ("http://b\u00fccher.example/", "b\u00fccher.example", True),
        ("http://b\u00fccher.example/", "xn--bcher-kva.example", True),
        # lists
        ("http://example.org/", "a.b, example.org", True),
        ("http://example.org/", "a.b example.org", True),
        ("http://example.org/", " ,, ", False),
        ("http://example.org/", "", False),
        ("http://example.org/", "*", True),
        ("http://127.0.0.1/", "a.b,*", True),
        # ports
        ("http://example.org:8080/", "example.org:8080", True),
        ("http://example.org/", "example.org:8080", False),
        ("http://example.org/", "example.org:80", True),
        ("https://example.org/", "example.org:443", True),
        ("https://example.org/", "example.org:80", False),
        ("http://example.org/", "example.org:x", False),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080", True),
        ("http://127.0.0.1:81/", "127.0.0.1:8080", False),
        ("http://10.1.2.3:81/", "10.0.0.0/8:81", True),
        # addresses and networks
        ("http://127.0.0.1/", "127.0.0.1", True),
        ("http://127.0.0.1/", "0.0.1", False),
        ("http://127.0.0.1/", ".1", False),
        ("http://127.0.0.1/", "127.0.0.0/8", True),
        ("http://127.0.0.1/", "127.9.9.9/8", True),
        ("http://128.0.0.1/", "127.0.0.0/8", False),
        ("http://10.1.2.3/", "0.0.0.0/0", True),
        ("http://10.1.2.3/", "10.0.0.0/99", False),
        ("http://10.1.2.3/", "10.0.0.0/", False),
        ("http://example.org/", "0.0.0.0/0", False),
        ("http://[::1]/", "::1", True),
        ("http://[::1]/", "[::1]", True),
        ("http://[::1]/", "0:0:0:0:0:0:0:1", True),
        ("http://[::1]/", "localhost,127.0.0.1,::1", True),
        ("http://[::1]/", "::/64", True),
        ("http://[::1]/", "[::]/64", True),
        ("http://[FD00::AB]/", "fd00::/8", True),
        ("http://[::1]/", "fd00::/8", False),
        ("http://[::1]/", "127.0.0.1", False),
        ("http://127.0.0.1/", "::/0", False),
        ("http://[::1]:8080/", "[::1]:8080", True),
        ("http://[::1]:81/", "[::1]:8080", False),
        ("http://localhost/", "localhost", True),
        ("http://localhost/", "127.0.0.1", False),
    ],
)
def test_rules(url: str, rule: str, exempt: bool) -> None:
    assert is_exempt(parse_url(url).origin, rule) is exempt


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without proxies, and without a server's variables, by which HTTP_PROXY would not count."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("proxy", ["http_proxy", "all_proxy"])
def test_the_environment(environment: pytest.MonkeyPatch, proxy: str, name: str) -> None:
    origin = parse_url("http://[::1]:8080/").origin
    assert proxy_for(origin, None) is None
    environment.setenv(proxy, " http://proxy.example:3128\n")  # as a file of settings may end
    found = proxy_for(origin, None)
    assert found is not None
    assert (found.host, found.port) == ("proxy.example", 3128)
    environment.setenv(name, "10.0.0.0/8,fd00::/8")
    assert proxy_for(origin, None) is not None
    environment.setenv(name, "10.0.0.0/8,::/64")
    assert proxy_for(origin, None) is None
    assert (
        proxy_for(origin, "http://given.example") is not None
    )  # what is given counts, whatever the environment says


@pytest.fixture
def servers() -> Iterator[tuple[Scripted, Scripted]]:
    """One on an address of IPv6, and a proxy that refuses all there is."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        need(False, "loopback has no IPv6 here")
    with ExitStack() as stack:
        six = stack.enter_context(scripted(lambda asked: honest(DATA, asked), family=socket.AF_INET6))
        yield six, stack.enter_context(scripted(lambda asked: reply(403)))


@pytest.mark.parametrize("way", ["sync", "asyncio"])
@pytest.mark.parametrize(("rule", "direct"), [("::1", True), ("::/64", True), ("fd00::/8", False)])
def test_reads(
    servers: tuple[Scripted, Scripted], environment: pytest.MonkeyPatch, rule: str, direct: bool, way: str
) -> None:
    """The request, signature and all, does not go to whom it is not meant for."""
    six, proxy = servers
    environment.setenv("http_proxy", proxy.url)
    environment.setenv("no_proxy", rule)

    def read() -> object:
        if way == "sync":
            return rangeio.open(f"{six.url}/object", retry=1, timeout=10).read_at(5, 10)

        async def main() -> object:
            async with rangeio.open_async(f"{six.url}/object", retry=1, timeout=10) as reader:
                return await reader.read_at(5, 10)

        return run_on(way, main)

    if direct:
        assert read() == DATA[5:15]
    else:
        with pytest.raises(rangeio.PermissionDeniedError):
            read()
    assert (len(six.asked), len(proxy.asked)) == ((1, 0) if direct else (0, 1))
