"""A server that answers each request as a function says: honestly, or in one of the ways servers fail."""

import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from faults.machine import need_module

End = Literal["keep", "close", "reset", "stall"]


@dataclass
class Asked:
    """One request. number: counted from 0 over the server's life. connection: which of them, counted from 0. lines: of
    its head, as they came. body: by Content-Length.
    """

    method: str
    target: str
    fields: dict[str, str]
    number: int
    connection: int
    lines: list[str] = field(default_factory=list)
    body: bytes = b""

    @property
    def range(self) -> tuple[int, int] | None:
        """(start, stop) as asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.fields.get("range", ""))
        return None if match is None else (int(match[1]), int(match[2]) + 1)


@dataclass
class Answer:
    """Bytes to send, and what then becomes of the connection. stall: it stays open and silent until the client goes.

    wait_s: before the first byte. pause_s: after each so many bytes, if more follow (`piece`).
    """

    data: bytes
    then: End = "keep"
    wait_s: float = 0.0
    pause_s: float = 0.0
    piece: int = 65_536


Script = Callable[[Asked], Answer]


def reply(status: int, body: bytes = b"", then: End = "keep", **fields: str | None) -> Answer:
    """A reply with Content-Length, unless fields say otherwise; a field that is None is left away."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    named.setdefault("Content-Length", str(len(body)))
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    head = "\r\n".join([f"HTTP/1.1 {status} Word", *lines, "", ""])
    return Answer(head.encode("latin-1") + body, then)


def honest(data: bytes, asked: Asked, etag: str | None = '"v1"', then: End = "keep") -> Answer:
    """What a good server answers."""
    wanted = asked.range
    match = asked.fields.get("if-match")
    if match is not None and match != etag:
        return reply(412)
    if asked.method == "HEAD":
        return reply(200, ETag=etag, Content_Length=str(len(data)))
    if wanted is None:
        return reply(200, data, ETag=etag, then=then)
    start, stop = wanted[0], min(wanted[1], len(data))
    if start >= len(data):
        return reply(416, Content_Range=f"bytes */{len(data)}")
    span = f"bytes {start}-{stop - 1}/{len(data)}"
    return reply(206, data[start:stop], ETag=etag, Content_Range=span, then=then)


def with_suffixes(data: bytes, asked: Asked, etag: str | None = '"v1"') -> Answer:
    """What a good server answers that knows ``bytes=-n`` as well."""
    wanted = asked.fields.get("range", "")
    if not wanted.startswith("bytes=-"):
        return honest(data, asked, etag)
    start = max(0, len(data) - int(wanted[7:]))
    if not data[start:]:
        return reply(416, Content_Range=f"bytes */{len(data)}")
    return reply(206, data[start:], ETag=etag, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")


def cut(answer: Answer, nbytes: int, then: End) -> Answer:
    """The head and so many bytes of the body, then the end."""
    head = answer.data.index(b"\r\n\r\n") + 4
    return Answer(answer.data[: head + nbytes], then)


@dataclass
class Scripted:
    """The running server. asked: all requests so far."""

    script: Script
    listener: socket.socket
    identity: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    _open: list[socket.socket] = field(default_factory=list)
    _serving: list[threading.Thread] = field(default_factory=list)

    @property
    def url(self) -> str:
        scheme = "http" if self.identity is None else "https"
        host, port, *six = self.listener.getsockname()
        return f"{scheme}://[{host}]:{port}" if six else f"{scheme}://{host}:{port}"

    @property
    def ranges(self) -> list[tuple[int, int] | None]:
        """Of all requests so far."""
        return [asked.range for asked in self.asked]

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # what is sent in pieces arrives in pieces
            self._open.append(sock)
            number, self.connections = self.connections, self.connections + 1
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            thread.start()
            self._serving.append(thread)

    def _serve(self, sock: socket.socket, number: int) -> None:
        received = b""
        try:
            if self.identity is not None:
                sock = self.identity.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            while True:
                while b"\r\n\r\n" not in received:
                    more = sock.recv(65_536)
                    if not more:
                        return
                    received += more
                head, _, received = received.partition(b"\r\n\r\n")
                sized = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                while len(received) < (length := int(sized[1]) if sized else 0):
                    received += sock.recv(65_536)
                body, received = received[:length], received[length:]
                if not self._answer(sock, head.decode("latin-1"), number, body):
                    return
        except OSError:
            pass
        finally:
            sock.close()

    def _answer(self, sock: socket.socket, head: str, number: int, body: bytes) -> bool:
        """Whether the connection lives on."""
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        asked = Asked(method, target, fields, len(self.asked), number, head.split("\r\n"), body)
        self.asked.append(asked)
        answer = self.script(asked)
        time.sleep(answer.wait_s)
        for at in range(0, len(answer.data), answer.piece):
            if at:
                time.sleep(answer.pause_s)
            sock.sendall(answer.data[at : at + answer.piece])
        if answer.then == "stall":
            sock.recv(1)
        elif answer.then == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return answer.then == "keep"

    def close(self) -> None:
        """Refuse and end all connections. A second call does nothing."""
        if self.listener.fileno() < 0:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self._open:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def wait_closed(self) -> None:
        """After `close`: until its ends of all connections are closed, too."""
        for thread in self._serving:
            thread.join()


class Everybody(Scripted):
    """An HTTP proxy that plays each host a client asks for, over TLS too, if its certificate names that host."""

    hosts: ssl.SSLContext

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            head = sock.recv(65_536, socket.MSG_PEEK)
            if head.startswith(b"CONNECT "):
                sock.recv(len(head))
                sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                sock = self.hosts.wrap_socket(sock, server_side=True)
                self._open.append(sock)
        except OSError:
            sock.close()
        else:
            super()._serve(sock, number)


def identity_of(hosts: list[str], folder: Path) -> ssl.SSLContext:
    """Certificates for hosts, by an authority that `folder`/ca.pem is about."""
    authority = need_module("trustme").CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


@contextmanager
def everybody(script: Script, hosts: list[str], folder: Path) -> Iterator[tuple[Everybody, dict[str, str]]]:
    """Such a proxy, and the options that lead to it."""
    server = Everybody(script, socket.create_server(("127.0.0.1", 0)))
    server.hosts = identity_of(hosts, folder)
    with serving(server):
        yield server, {"proxy": server.url, "ca_file": str(folder / "ca.pem")}


@contextmanager
def scripted(
    script: Script, identity: ssl.SSLContext | None = None, family: socket.AddressFamily = socket.AF_INET
) -> Iterator[Scripted]:
    """Serve on a free port of loopback; over TLS with an identity."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with serving(Scripted(script, socket.create_server((host, 0), family=family), identity)) as server:
        yield server


@contextmanager
def serving(server: Scripted) -> Iterator[Scripted]:
    """Let it answer."""
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def sockets() -> set[str]:
    """The sockets of this process."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            links.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return {link for link in links if link.startswith("socket:")}
