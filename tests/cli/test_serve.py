"""`rangeio serve`: what it answers, byte by byte, to requests that no client of ours would make."""

import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import rangeio_command
from servers.program import LONG_AGO

from rangeio.cli.file_server import RangeServer

DATA = bytes(range(200)) * 500
SIZE = len(DATA)
CHANGED = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE, AFTER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "www"
    (made / "sub").mkdir(parents=True)
    for name, data in (("file", DATA), ("empty", b""), ("sub/a b", b"deep")):
        (made / name).write_bytes(data)
        os.utime(made / name, (LONG_AGO, LONG_AGO))
    (tmp_path / "outside").write_bytes(b"secret")
    (made / "link").symlink_to(tmp_path / "outside")
    (made / "inner").symlink_to("file")
    os.mkfifo(made / "pipe")
    return made


class Client:
    """One kept connection to a server of its own."""

    def __init__(self, server: RangeServer) -> None:
        self.connection = http.client.HTTPConnection(server.server_name, server.server_port, timeout=30)

    def ask(
        self, target: str, method: str = "GET", **fields: str
    ) -> tuple[int, "http.client.HTTPMessage", bytes]:
        """Status, header fields and body; names of fields with _ for -."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        self.connection.request(method, target, headers=named)
        found = self.connection.getresponse()
        return found.status, found.headers, found.read()

    @property
    def tag(self) -> str:
        return str(self.ask("/file", "HEAD")[1]["ETag"])


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with RangeServer(str(folder), "127.0.0.1", 0, quiet=True) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        made = Client(server)
        yield made
        made.connection.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=100-199", (100, 200)),
        ("BYTES= 100 - 199 ", (100, 200)),
        (f"bytes={SIZE - 5}-", (SIZE - 5, SIZE)),
        (f"bytes={SIZE - 5}-{SIZE + 5}", (SIZE - 5, SIZE)),
        (f"bytes=5-{10**30}", (5, SIZE)),
        ("bytes=-5", (SIZE - 5, SIZE)),
        (f"bytes=-{SIZE + 5}", (0, SIZE)),
    ],
)
def test_ranges(client: Client, asked: str, span: tuple[int, int]) -> None:
    status, fields, body = client.ask("/file", Range=asked)
    assert (status, body) == (206, DATA[slice(*span)])
    assert fields["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/{SIZE}"
    assert fields["Content-Length"] == str(span[1] - span[0])


@pytest.mark.parametrize(
    "asked", [f"bytes={SIZE}-", f"bytes={SIZE + 9}-{SIZE + 99}", "bytes=-0", f"bytes={10**40}-"]
)
def test_ranges_past_the_end(client: Client, asked: str) -> None:
    status, fields, body = client.ask("/file", Range=asked)
    assert (status, body, fields["Content-Range"]) == (416, b"", f"bytes */{SIZE}")
    assert client.ask("/file", Range="bytes=0-4")[2] == DATA[:5]  # on the same connection


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=0-1,5-6", "bytes=", "bytes=-", "items=0-1", "0-1", "bytes=a-b", "bytes=--5"]
)
def test_ranges_that_are_ignored(client: Client, asked: str) -> None:
    """As RFC 9110 section 14.2 lets a server do with what it does not understand or want."""
    status, fields, body = client.ask("/file", Range=asked)
    assert (status, body, fields["Content-Range"]) == (200, DATA, None)


def test_empty_file(client: Client) -> None:
    assert client.ask("/empty")[::2] == (200, b"")
    status, fields, body = client.ask("/empty", Range="bytes=0-0")
    assert (status, body, fields["Content-Range"]) == (416, b"", "bytes */0")


def test_head(client: Client) -> None:
    for given in ({}, {"Range": "bytes=0-9"}):
        status, fields, body = client.ask("/file", "HEAD", **given)
        assert (status, body, fields["Content-Length"]) == (200, b"", str(SIZE))
        assert (fields["Last-Modified"], fields["Accept-Ranges"]) == (CHANGED, "bytes")
        assert re.fullmatch(r'"[\w-]+"', fields["ETag"])


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"If_Match": "TAG"}, 206),
        ({"If_Match": '"x", TAG'}, 206),
        ({"If_Match": "*"}, 206),
        ({"If_Match": '"x"'}, 412),
        ({"If_Match": "W/TAG"}, 412),
        ({"If_Match": "TAG", "If_Unmodified_Since": BEFORE}, 206),
        ({"If_Unmodified_Since": BEFORE}, 412),
        ({"If_Unmodified_Since": CHANGED}, 206),
        ({"If_Unmodified_Since": "soon"}, 206),
        ({"If_None_Match": "TAG"}, 304),
        ({"If_None_Match": "W/TAG"}, 304),
        ({"If_None_Match": '"x"'}, 206),
        ({"If_None_Match": '"x"', "If_Modified_Since": AFTER}, 206),
        ({"If_Modified_Since": CHANGED}, 304),
        ({"If_Modified_Since": BEFORE}, 206),
        ({"If_Range": "TAG"}, 206),
        ({"If_Range": '"x"'}, 200),
        ({"If_Range": "W/TAG"}, 200),
        ({"If_Range": CHANGED}, 206),
        ({"If_Range": AFTER}, 200),
        ({"If_Range": "soon"}, 200),
    ],
)
def test_conditions(client: Client, given: dict[str, str], status: int) -> None:
    tag = client.tag
    fields = {name: value.replace("TAG", tag) for name, value in given.items()}
    found, _, body = client.ask("/file", Range="bytes=5-9", **fields)
    assert (found, body) == (status, {200: DATA, 206: DATA[5:10]}.get(status, b""))
    assert client.ask("/file", Range="bytes=0-4")[2] == DATA[:5]  # on the same connection


def test_a_version_has_an_etag_of_its_own(client: Client, folder: Path) -> None:
    """Strong also of a file that is new, for which it takes a tick of its clock; weak where time does not help."""
    before = client.tag
    (folder / "file").write_bytes(DATA[::-1])
    assert client.tag.startswith('"')
    os.utime(folder / "file", (LONG_AGO, LONG_AGO + 1))
    assert client.tag not in (before, "")
    os.utime(folder / "file", (LONG_AGO, 2 * LONG_AGO))
    assert client.tag.startswith('W/"')


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/sub/a%20b", 200),
        ("/sub/../file", 200),
        ("/inner?query=ignored", 200),
        ("/absent", 404),
        ("/file/", 404),
        ("/link", 404),
        ("/pipe", 404),
        ("/../outside", 404),
        ("/%2e%2e/outside", 404),
        ("/..%2foutside", 404),
        ("/sub/..%2f..%2foutside", 404),
        ("/a%00b", 404),
        ("/sub", 301),
    ],
)
def test_paths(client: Client, target: str, status: int) -> None:
    found, _, body = client.ask(target)
    assert found == status
    assert b"secret" not in body


def test_listing(client: Client) -> None:
    status, fields, body = client.ask("/sub/")
    assert (status, fields["Content-Length"]) == (200, str(len(body)))
    assert b'href="a%20b"' in body
    assert client.ask("//evil.example/..", "GET")[1]["Location"] != "//evil.example/"
    assert client.ask("/", "HEAD")[2] == b""


def test_what_it_does_not_do(client: Client) -> None:
    assert client.ask("/file", "PUT")[0] == 501


def test_a_body_is_not_taken_for_a_request(client: Client) -> None:
    client.connection.request("GET", "/file", body=b"GET /empty HTTP/1.1\r\n\r\n")
    found = client.connection.getresponse()
    assert found.read() == DATA
    assert client.ask("/sub/a%20b")[2] == b"deep"


def test_the_command(folder: Path) -> None:
    """Says where, says what is asked, and ends quietly by Ctrl-C."""
    words = rangeio_command("serve", folder, "--port", "0")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = re.search(r"at http://127\.0\.0\.1:(\d+)/", child.stdout.readline())
        assert said is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(said[1]), timeout=30)
        connection.request("GET", "/file", headers={"Range": "bytes=0-9"})
        assert connection.getresponse().read() == DATA[:10]
        connection.close()
        child.send_signal(signal.SIGINT)
        out, told = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "")
    assert "GET /file HTTP/1.1 bytes=0-9 -> 206" in told
    assert told.count("\n") == 1


def test_a_port_that_is_taken(client: Client, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from rangeio.cli import main

    assert main(["serve", str(folder), "--port", str(client.connection.port)]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"rangeio: cannot listen on 127.0.0.1 port {client.connection.port}: ")
    assert said.count("\n") == 1
