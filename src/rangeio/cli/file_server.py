"""A web server for the files below a folder with correct range requests, for experiments on loopback.

It is based on `http.server`, which implements connections, request heads and listings and is not for production. This
module implements ranges, versions and conditions. Source: RFC 9110 sections 8.8, 13 and 14.
"""

import os
import re
import socket
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

from rangeio.http.validation import http_date

# Before Linux 6.13, two changes within one tick of the clock (at most 10 ms) have the same mtime: its ETag is weak.
_TICK_NS = 20_000_000
# Idle connections are closed after this time.
_IDLE_S = 60.0

Response = tuple[HTTPStatus, int, int]
"""The status, and the start and stop of the body in the file."""


class RangeServer(ThreadingHTTPServer):
    """Serves `folder` on `host` and `port` (0: any free port), with one thread per connection. `url`: its address."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: str, host: str, port: int, *, quiet: bool) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.folder = os.path.realpath(folder)
        super().__init__((host, port), partial(_Handler, directory=self.folder, quiet=quiet))

    def server_bind(self) -> None:
        """As in the base class, but without a lookup of the host name, which may take seconds."""
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """The URL of the folder."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect; print other errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: RangeServer

    def __init__(self, *args: Any, quiet: bool, **options: Any) -> None:
        self._quiet = quiet
        super().__init__(*args, **options)

    def version_string(self) -> str:
        return "rangeio-serve"

    def do_GET(self) -> None:
        self._serve(self._send_body)

    def do_HEAD(self) -> None:
        self._serve(lambda file, start, stop: None)

    def _serve(self, send: Callable[[BinaryIO, int, int], None]) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # an unread body would be taken for the next request
        try:
            path = os.path.realpath(self.translate_path(self.path))
            inside = os.path.commonpath([path, self.server.folder]) == self.server.folder
        except ValueError:  # a NUL
            inside = False
        if not inside:
            self.send_error(HTTPStatus.NOT_FOUND)  # a link out of the folder
        elif os.path.isdir(path):
            self._list(path, send)
        else:
            self._serve_file(path, send)

    def _list(self, path: str, send: Callable[[BinaryIO, int, int], None]) -> None:
        place, question, query = self.path.partition("?")
        if not place.endswith("/"):
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", "/" + place.strip("/") + "/" + question + query)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        listing = self.list_directory(path)  # sends the head
        if listing is not None and self.command == "GET":
            self.wfile.write(listing.read())

    def _serve_file(self, path: str, send: Callable[[BinaryIO, int, int], None]) -> None:
        try:
            file = _opened(path, as_folder=self.path.partition("?")[0].endswith("/"))
        except OSError as error:
            refused = isinstance(error, PermissionError)
            self.send_error(HTTPStatus.FORBIDDEN if refused else HTTPStatus.NOT_FOUND)
            return
        with file:
            known = _settled(file)
            tag, changed = _etag(known), formatdate(known.st_mtime, usegmt=True)
            status, start, stop = self._respond(tag, int(known.st_mtime), known.st_size)
            self.send_response(status)
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", changed)
            self.send_header("Accept-Ranges", "bytes")
            if status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.send_header("Content-Range", f"bytes */{known.st_size}")
            elif status is HTTPStatus.PARTIAL_CONTENT:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{known.st_size}")
            if status is not HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Type", self.guess_type(path))
                self.send_header("Content-Length", str(stop - start))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            send(file, start, stop)

    def _respond(self, tag: str, changed_s: int, size: int) -> Response:
        """The response to the conditions and the range of the request, for a file of `size` bytes."""
        refusal = _refusal(self.headers, tag, changed_s)
        if refusal is not None:
            return refusal, 0, 0
        asked = self.headers.get("Range") if self.command == "GET" else None
        if asked is None or not _same_version(self.headers.get("If-Range"), tag, changed_s):
            return HTTPStatus.OK, 0, size
        span = parse_range(asked, size)
        if span is None:
            return HTTPStatus.OK, 0, size
        if span[0] >= span[1]:
            return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, 0
        return HTTPStatus.PARTIAL_CONTENT, *span

    def _send_body(self, file: BinaryIO, start: int, stop: int) -> None:
        """Send with sendfile if available. If the file has become shorter, close the connection: the client notices."""
        if start < stop and self.connection.sendfile(file, start, stop - start) < stop - start:
            self.close_connection = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        asked = self.headers.get("Range", "") if hasattr(self, "headers") else ""
        number = code.value if isinstance(code, HTTPStatus) else code
        self.log_message("%s", f"{self.requestline} {asked}".rstrip() + f" -> {number}")

    def log_error(self, format: str, *args: Any) -> None:
        """Nothing: the line of the request contains the status."""

    def log_message(self, format: str, *args: Any) -> None:
        if not self._quiet:
            super().log_message(format, *args)


def _opened(path: str, *, as_folder: bool) -> BinaryIO:
    if as_folder or not os.path.isfile(path):
        raise FileNotFoundError  # opening a FIFO would wait
    return open(path, "rb")


def _settled(file: BinaryIO) -> os.stat_result:
    """The status of a file, once it is older than a tick: a weak ETag that becomes strong would be a different version
    for clients that have started to read.
    """
    known = os.fstat(file.fileno())
    young_ns = _TICK_NS - (time.time_ns() - known.st_mtime_ns)
    if not 0 < young_ns <= _TICK_NS:
        return known
    time.sleep(young_ns / 1e9)
    return os.fstat(file.fileno())


def _etag(known: os.stat_result) -> str:
    """The ETag. Strong, unless the file changes constantly or its mtime is in the future."""
    weak = "W/" if time.time_ns() - known.st_mtime_ns < _TICK_NS else ""
    return f'{weak}"{known.st_ino:x}-{known.st_size:x}-{known.st_mtime_ns:x}"'


def _refusal(headers: Any, tag: str, changed_s: int) -> HTTPStatus | None:
    """412 or 304 if a condition requires it, otherwise None. Source: RFC 9110 section 13.2.2."""
    if "If-Match" in headers:
        if not _among(headers["If-Match"], tag, weakly=False):
            return HTTPStatus.PRECONDITION_FAILED
    elif (since := _seconds(headers.get("If-Unmodified-Since"))) is not None and changed_s > since:
        return HTTPStatus.PRECONDITION_FAILED
    if "If-None-Match" in headers:
        if _among(headers["If-None-Match"], tag, weakly=True):
            return HTTPStatus.NOT_MODIFIED
    elif (since := _seconds(headers.get("If-Modified-Since"))) is not None and changed_s <= since:
        return HTTPStatus.NOT_MODIFIED
    return None


def _among(listed: str, tag: str, *, weakly: bool) -> bool:
    """Whether an ETag is in a list. Source: RFC 9110 section 8.8.3.2."""
    if listed.strip() == "*":
        return True
    found = re.findall(r'(?:W/)?"[^"]*"', listed)
    if weakly:
        return tag.removeprefix("W/") in [other.removeprefix("W/") for other in found]
    return not tag.startswith("W/") and tag in found


def _same_version(condition: str | None, tag: str, changed_s: int) -> bool:
    """Whether If-Range allows to send a range. Source: RFC 9110 section 13.1.5."""
    if condition is None:
        return True
    if '"' in condition:
        return _among(condition, tag, weakly=False)
    return _seconds(condition) == changed_s


def _seconds(date: str | None) -> int | None:
    """Seconds since 1970; None for an invalid date, which is ignored."""
    seconds = None if date is None else http_date(date)
    return None if seconds is None else int(seconds)


def parse_range(asked: str, size: int) -> tuple[int, int] | None:
    """(start, stop) within `size` bytes, with start >= stop if the range is past the end. None if the header must be
    ignored: it is malformed, or has several ranges, for which the whole file is a valid response.

    >>> parse_range("bytes=0-99", 50), parse_range("bytes=-5", 50), parse_range("bytes=50-", 50)
    ((0, 50), (45, 50), (50, 50))
    """
    match = re.fullmatch(r"bytes=\s*(\d{0,99})\s*-\s*(\d{0,99})\s*", asked, re.IGNORECASE | re.ASCII)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start = int(match[1])
    last = int(match[2]) if match[2] else max(start, size)
    return None if last < start else (start, min(last + 1, size))
