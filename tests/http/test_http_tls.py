"""What TLS cannot agree upon: one handshake, and one error that says what to do; nothing is tried again."""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.scripted import Scripted, honest, scripted, serving

import rangeio
from rangeio.http import error_mapping

need_module("urllib3")

DATA = bytes(range(256)) * 100
TIMES = 2


class Authority:
    """Issues certificates, as long as the tests of this module run."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.folder = need_module("trustme").CA(), folder
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.client("client@example.org").write_to_path(str(folder / "client.pem"))
        need_module("trustme").CA().issue_cert("x@example.org").private_key_and_cert_chain_pem.write_to_path(
            str(folder / "stranger.pem")
        )

    def client(self, name: str) -> Any:
        return self.ca.issue_cert(name).private_key_and_cert_chain_pem

    def server(self, host: str = "127.0.0.1", **options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(host, **options).configure_cert(context)
        return context

    def asking(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """A server that wants a certificate of the client's."""
        context = self.server()
        self.ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = version
        return context

    def old(self) -> ssl.SSLContext:
        context = self.server()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is old is what it is for
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context

    def odd(self) -> ssl.SSLContext:
        """One cipher only, which nobody has by default."""
        context = self.server()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-SHA:@SECLEVEL=0")
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Plain(Scripted):
    """Answers in plain HTTP, whatever it is told."""

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), sock:
            sock.recv(65_536)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            sock.recv(65_536)


Setting = tuple[Callable[[Authority], ssl.SSLContext | None], dict[str, str], str]
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
SETTINGS: dict[str, Setting] = {
    "not trusted": (Authority.server, {"ca_file": ""}, "not trusted"),
    "of another name": (lambda authority: authority.server("example.org"), {}, "not trusted"),
    "expired": (lambda authority: authority.server(not_after=LONG_AGO), {}, "expired"),
    "no certificate, 1.2": (lambda authority: authority.asking(ssl.TLSVersion.TLSv1_2), {}, "client_cert="),
    "no certificate, 1.3": (lambda authority: authority.asking(ssl.TLSVersion.TLSv1_3), {}, "client_cert="),
    "a stranger's, 1.2": (
        lambda authority: authority.asking(ssl.TLSVersion.TLSv1_2),
        {"client_cert": "stranger.pem"},
        "client_cert=",
    ),
    "a stranger's, 1.3": (
        lambda authority: authority.asking(ssl.TLSVersion.TLSv1_3),
        {"client_cert": "stranger.pem"},
        "client_cert=",
    ),
    "no version in common": (Authority.old, {}, "no TLS version"),
    "no cipher in common": (Authority.odd, {}, "no common cipher"),
    "no TLS": (lambda _: None, {}, "does not use TLS"),
}


@contextlib.contextmanager
def running(authority: Authority, name: str) -> Iterator[tuple[Scripted, dict[str, Any]]]:
    make, given, _ = SETTINGS[name]
    context = make(authority)
    options: Any = {"ca_file": "ca.pem", **given}
    options = {key: str(authority.folder / file) for key, file in options.items() if file}
    kind = Plain if context is None else Scripted
    listener = socket.create_server(("127.0.0.1", 0))
    with serving(kind(lambda asked: honest(DATA, asked), listener, context)) as server:
        yield server, options


def read(way: str, url: str, **options: Any) -> Any:
    if way == "sync":
        with rangeio.open(url, **options) as reader:
            return reader.read_at(5, 10)

    async def main() -> Any:
        async with rangeio.open_async(url, **options) as reader:
            return await reader.read_at(5, 10)

    return run_on(need_module(way).__name__, main)


@pytest.mark.parametrize("way", ["sync", *LOOPS])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_will_not_change(authority: Authority, name: str, way: str) -> None:
    """Several times: in TLS 1.3 sending meets the server's alert as often as receiving does."""
    with running(authority, name) as (server, options):
        for turn in range(1, TIMES + 1):
            with pytest.raises(rangeio.ConnectionFailedError, match=SETTINGS[name][2]) as caught:
                read(way, server.url.replace("http:", "https:") + "/object", timeout=20, **options)
            assert (caught.value.status, caught.value.attempts) == ("permanent", 1)
            assert server.connections == turn
        assert server.asked == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_that_is_wanted(authority: Authority, version: ssl.TLSVersion) -> None:
    with scripted(lambda asked: honest(DATA, asked), authority.asking(version)) as server:
        files = {
            "ca_file": str(authority.folder / "ca.pem"),
            "client_cert": str(authority.folder / "client.pem"),
        }
        assert read("sync", f"{server.url}/object", **files) == DATA[5:15]


def said(reason: str) -> rangeio.Error:
    error = ssl.SSLError(1, f"[SSL: {reason}] {reason.lower()} (_ssl.c:1000)")
    error.reason = reason
    return error_mapping.connecting_failed(error, 1.0)


@pytest.mark.parametrize(
    "reason",
    [
        "TLSV1_ALERT_INTERNAL_ERROR",
        "SSLV3_ALERT_BAD_RECORD_MAC",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV1_ALERT_DECODE_ERROR",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "UNEXPECTED_EOF_WHILE_READING",
        "SOMETHING_NEW",
        "",
    ],
)
def test_what_may_pass(reason: str) -> None:
    """Damage, the server's own trouble, and what nobody knows: tried again."""
    assert said(reason).status == "temporary"


def test_alerts() -> None:
    """Of what the two sides want of each other."""
    for reason in ("SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_UNKNOWN_CA", "TLSV1_UNRECOGNIZED_NAME"):
        assert said(reason).status == "permanent"


def test_a_handshake_that_breaks_off(authority: Authority) -> None:
    """The server closes amid it, then does not."""

    class Hasty(Scripted):
        def _serve(self, sock: socket.socket, number: int) -> None:
            if number < 2:
                sock.close()
            else:
                super()._serve(sock, number)

    listener = socket.create_server(("127.0.0.1", 0))
    with serving(Hasty(lambda asked: honest(DATA, asked), listener, authority.server())) as server:
        retry = rangeio.Retry(attempts=3, backoff_s=0.001)
        assert read("sync", server.url, retry=retry, ca_file=str(authority.folder / "ca.pem")) == DATA[5:15]
        assert server.connections == 3
