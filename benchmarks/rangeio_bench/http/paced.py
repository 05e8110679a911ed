"""A server with configurable distance: a delay before the first byte, a rate per connection, and counters.

`python -m rangeio_bench.http.paced FILE BYTES_PER_SECOND WAIT_SECONDS` serves FILE under any path, or the files below
a folder under /BUCKET/, for any BUCKET, and prints its port. It ends when its standard input ends. The kernel limits
the rate (SO_MAX_PACING_RATE, tc-fq(8)), so that bytes arrive evenly, as from a network, without bursts.
"""

import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; Python has no name for it
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d*)-(\d*)", re.IGNORECASE)
_COUNTERS = "/counters"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, path: Path, pace: int, wait_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.path = path
        self.files: dict[str, tuple[int, int]] = {}
        self.pace, self.wait_s = pace, wait_s
        self.lock = threading.Lock()
        self.requests = self.sent = 0

    def open(self, target: str) -> tuple[int, int]:
        """The descriptor and size of a target's file, opened once. FileNotFoundError if there is none."""
        with self.lock:
            if target not in self.files:
                name = unquote(target.partition("?")[0]).removeprefix("/").partition("/")[2]
                path = self.path / name if self.path.is_dir() else self.path
                if not path.is_file():
                    raise FileNotFoundError(path)
                self.files[target] = (os.open(path, os.O_RDONLY), path.stat().st_size)
            return self.files[target]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        sock: socket.socket = self.request
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pace = cast("_Server", self.server).pace
        if pace:
            sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, pace)
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = sock.recv(65536)
                if not data:
                    return
                pending += data
            request, _, pending = pending.partition(b"\r\n\r\n")
            self._answer(sock, request)

    def _answer(self, sock: socket.socket, request: bytes) -> None:
        server = cast("_Server", self.server)
        method, target = request.split(b" ", 2)[:2]
        if target == _COUNTERS.encode():
            text = json.dumps([server.requests, server.sent]).encode()
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            return
        try:
            file, size = server.open(target.decode())
        except FileNotFoundError:
            time.sleep(server.wait_s)
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        start, stop, status, extra = 0, size, b"200 OK", b""
        if found := _RANGE.search(request):
            if found[1]:
                start = int(found[1])
                stop = min(stop, int(found[2]) + 1) if found[2] else stop
            else:
                start = max(0, stop - int(found[2]))
            status, extra = b"206 Partial Content", b"Content-Range: bytes %d-%d/%d\r\n"
            extra %= (start, stop - 1, size)
            if start >= size:
                status, extra = b"416 Range Not Satisfiable", b"Content-Range: bytes */%d\r\n" % size
        time.sleep(server.wait_s)
        head = b'HTTP/1.1 %s\r\nETag: "1"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n'
        head = head % status + extra + b"Content-Length: %d\r\n\r\n" % max(0, stop - start)
        body = method == b"GET"
        with server.lock:
            server.requests += 1
            server.sent += len(head) + (stop - start if body else 0)
        sock.sendall(head, socket.MSG_MORE if body else 0)
        while body and start < stop:
            start += os.sendfile(sock.fileno(), file, start, stop - start)


@dataclass(frozen=True, slots=True)
class Counted:
    """The requests that a server has received, and the bytes it has sent."""

    requests: int
    nbytes: int


def counters(port: int) -> Counted:
    """The counters of the server on this port; this request is not counted."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET %s HTTP/1.1\r\n\r\n" % _COUNTERS.encode())
        reply = b""
        while not reply.endswith(b"]"):
            reply += sock.recv(4096)
    return Counted(*json.loads(reply.partition(b"\r\n\r\n")[2]))


class Paced:
    """The server in a separate process, until `close`."""

    def __init__(self, path: Path, *, pace: int, wait_s: float) -> None:
        """pace: bytes per second of each connection, 0: no limit. wait_s: delay before the first byte of a response."""
        self.pace, self.wait_s = pace, wait_s
        command = [sys.executable, "-m", __name__, str(path.resolve()), str(pace), str(wait_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise OSError("the paced server did not start")
        self._port = int(line)
        # Two folders, because S3 clients use the first as the bucket.
        self.url = f"http://127.0.0.1:{self._port}/bench" + ("" if path.is_dir() else f"/data/{path.name}")

    def counted(self) -> Counted:
        """Its counters; this request is not counted."""
        return counters(self._port)

    def close(self) -> None:
        """Stop the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main(arguments: list[str]) -> None:
    """The main function of the server process."""
    path, pace, wait_s = arguments
    with _Server(Path(path), int(pace), float(wait_s)) as server:
        print(server.server_address[1], flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()  # without shutdown() after it, which waits half a second for the loop: the process ends


if __name__ == "__main__":
    main(sys.argv[1:])
