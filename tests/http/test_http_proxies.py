"""Ways to a server: through proxies of all kinds, and with a certificate of one's own. Real servers, real proxies."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.fixtures import Sites
from servers.forwarding import Forwarding, forwarding
from servers.nginx import nginx
from servers.program import Identity, make_identity, public_folder

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 1000
LOGIN = "me:hunter2"


@pytest.fixture(scope="module")
def identity() -> Iterator[Identity]:
    with public_folder() as folder:
        yield make_identity(folder / "identity")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forwarding]:
    with forwarding(tmp_path_factory.mktemp("proxy"), LOGIN) as running:
        yield running


@pytest.fixture(params=["sync", *LOOPS])
def open_reader(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "sync":
        yield rangeio.open
        return
    need_module(request.param)
    loop = Loop(request.param)
    yield lambda url, **options: Awaited(rangeio.open_async(url, **options), loop)
    loop.close()


@pytest.mark.parametrize("site", ["nginx-http", "nginx-https"])
def test_proxy(site: str, sites: Sites, proxy: Forwarding, open_reader: Any) -> None:
    """Plain requests are forwarded, TLS is tunnelled; that they are is shown by who is refused, below."""
    server = sites(site)
    url = server.put("proxied", DATA)
    with open_reader(url, proxy=proxy.url, **server.options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_ranges([(at, at + 100) for at in range(0, 200_000, 10_000)], gap=None) == [
            DATA[at : at + 100] for at in range(0, 200_000, 10_000)
        ]
        assert reader.stat().size == len(DATA)


@pytest.mark.parametrize("site", ["nginx-http", "nginx-https"])
def test_proxy_that_refuses(site: str, sites: Sites, proxy: Forwarding, open_reader: Any) -> None:
    """The wrong password is an error at once, and is not shown."""
    server = sites(site)
    url = server.put("proxied", DATA)
    wrong = proxy.url.replace("hunter2", "hunter3")
    reader = open_reader(url, proxy=wrong, **server.options)
    with reader, pytest.raises(rangeio.UnauthenticatedError, match="proxy") as caught:
        reader.read_at(0, 10)
    assert (caught.value.http_status, caught.value.attempts) == (407, 1)
    assert "hunter3" not in f"{caught.value!r} {caught.value.__cause__!r} {reader!r}"
    assert b"hunter3" not in pickle.dumps(rangeio.Operator("https", proxy=wrong))


@pytest.mark.parametrize("site", ["nginx-http", "nginx-https"])
def test_proxy_of_the_environment(
    site: str, sites: Sites, proxy: Forwarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scheme of the URL, or for all; unless NO_PROXY names the host, or proxy="" forbids it."""
    server = sites(site)
    url = server.put("proxied", DATA)
    scheme = site.partition("-")[2]
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    refusing = proxy.url.replace("hunter2", "wrong")

    def goes_through() -> bool:
        with rangeio.open(url, **server.options) as reader:
            try:
                return bytes(reader.read_at(0, 10)) != DATA[:10]
            except rangeio.UnauthenticatedError:
                return True

    assert not goes_through()
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper() if scheme == "https" else "all_proxy"):
        with monkeypatch.context() as patch:
            patch.setenv(name, refusing)
            assert goes_through()
            patch.setenv("no_proxy", "127.0.0.1,localhost")
            assert not goes_through()
            patch.delenv("no_proxy")
            with rangeio.open(url, proxy="", **server.options) as reader:
                assert reader.read_at(0, 10) == DATA[:10]


def test_https_proxy(sites: Sites, identity: Identity, tmp_path: Path, open_reader: Any) -> None:
    """Serves http:// URLs over TLS; for https:// URLs it is refused in words."""
    plain, secure = sites("nginx-http"), sites("nginx-https")
    with forwarding(tmp_path, LOGIN, identity) as proxy:
        with open_reader(
            plain.put("proxied", DATA), proxy=proxy.url, ca_file=str(identity.authority)
        ) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
        reader = open_reader(plain.put("proxied", DATA), proxy=proxy.url, retry=1)
        with reader, pytest.raises(rangeio.ConnectionFailedError, match="not trusted"):
            reader.read_at(5, 10)
        reader = open_reader(secure.put("proxied", DATA), proxy=proxy.url, **secure.options)
        with reader, pytest.raises(rangeio.UnsupportedError, match="set an http:// proxy"):
            reader.read_at(5, 10)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("socks5://me:hunter2@localhost:1080", rangeio.UnsupportedError),
        ("http://me:hunter2@", rangeio.ConfigInvalidError),
        ("http://me:hunter2@host:port", rangeio.ConfigInvalidError),
    ],
)
def test_wrong_proxies(url: str, kind: type[rangeio.Error]) -> None:
    with pytest.raises(kind) as caught:
        rangeio.open("http://example.org/object", proxy=url)
    assert "hunter2" not in repr(caught.value)


def test_client_certificate(identity: Identity, open_reader: Any) -> None:
    """From one file or two, with a password or without; a server that wants one says no to who has none."""
    trustme = need_module("trustme")
    serialization = need_module("cryptography.hazmat.primitives.serialization")
    authority = trustme.CA()
    issued = authority.issue_cert("client@example.org")
    with public_folder() as folder:
        authority.cert_pem.write_to_path(str(folder / "clients.pem"))
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
        issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
        (folder / "locked.pem").write_bytes(locked)
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        ways: list[Any] = [
            str(folder / "both.pem"),
            (str(folder / "cert.pem"), str(folder / "key.pem")),
            (str(folder / "cert.pem"), str(folder / "locked.pem"), "hunter2"),
        ]
        with nginx(folder / "nginx", identity, folder / "clients.pem") as server:
            url = server.put("object", DATA)
            for way in ways:
                with open_reader(url, client_cert=way, **server.options) as reader:
                    assert reader.read_at(5, 10) == DATA[5:15]
            for none in (None, ways[2][:2]):
                reader = open_reader(url, client_cert=none, retry=1, **server.options)
                with reader, pytest.raises(rangeio.Error) as caught:
                    reader.read_at(5, 10)
                if none:
                    assert isinstance(caught.value, rangeio.ConfigInvalidError)
                else:
                    assert caught.value.http_status == 400  # nginx says so in HTTP, not by TLS
            operator = rangeio.Operator("https", client_cert=ways[2], **server.options)
            assert b"hunter2" not in pickle.dumps(operator)
