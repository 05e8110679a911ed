"""Which heads are plain: one table for the parser in C and its twin in Python, held against the judge of all heads."""

import random
import re
from typing import Any

import pytest
from faults.machine import need_module
from fuzz.response import corpus
from hypothesis import example, given, settings
from hypothesis import strategies as st

from _uring.pure import http1 as pure
from rangeio.http import validation
from rangeio.http.heads import BadResponse, parse_head
from rangeio.http.validation import Version

native = need_module("_uring.http1")
need_module("urllib3")

START, STOP, SIZE = 200, 220, 1000
HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nServer: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 20\r\n"
    b'Connection: keep-alive\r\nLast-Modified: Sun, 31 Dec 2023 00:00:00 GMT\r\nETag: "v1"\r\n'
    b"Content-Range: bytes 200-219/1000\r\n\r\n"
)
KNOWN = (SIZE, b'"v1"', b"Sun, 31 Dec 2023 00:00:00 GMT", None)
TWINS: list[Any] = [native.Expected, pure.Expected]

# What is changed in the head, and whether it is plain still.
CHANGES: list[tuple[bytes, bytes, bool]] = [
    (b"Partial Content", b"OK", True),
    (b" Partial Content", b" ", True),
    (b" Partial Content", b"", True),
    (b"Partial", b"Parti\xe9l", True),
    (b"Partial", b"Par\0tial", False),
    (b"Partial", b"Par\rtial", False),
    (b"206", b"200", False),
    (b"206", b"2060", False),
    (b"206", b"26", False),
    (b"206", b"+06", False),
    (b"HTTP/1.1", b"HTTP/1.0", False),
    (b"HTTP/1.1", b"HTTP/2.0", False),
    (b"HTTP/1.1", b"http/1.1", False),
    (b"HTTP/1.1 ", b"HTTP/1.1  ", False),
    (b"nginx", b"", True),
    (b"nginx", b"a:b;c=\"d\"", True),
    (b"nginx", b"\xff\x80", True),
    (b"Server", b"X_y.z~!", True),
    (b"nginx", b"x" * 5000, True),
    (b"nginx", b"a\tb", True),
    (b"nginx", b"a\x0bb", False),
    (b"nginx", b"a\x7fb", False),
    (b"nginx", b"a\r\n b", False),
    (b"nginx", b"a\r\n\tb", False),
    (b"nginx", b"a\nX: b", False),
    (b"nginx", b"a\rX: b", False),
    (b"Server:", b"Server :", False),
    (b"Server:", b":", False),
    (b"Server:", b"Server", False),
    (b"Server:", b"S\xe9rver:", False),
    (b"Server:", b" Server:", False),
    (b"Content-Length: 20", b"content-length:20", True),
    (b"Content-Length: 20", b"CONTENT-LENGTH: \t 20 \t", True),
    (b"Content-Length: 20", b"Content-Length: 020", True),
    (b"Content-Length: 20", b"Content-Length: +20", False),
    (b"Content-Length: 20", b"Content-Length: 20.", False),
    (b"Content-Length: 20", b"Content-Length: 0x14", False),
    (b"Content-Length: 20", b"Content-Length: 21", False),
    (b"Content-Length: 20", b"Content-Length: 19", False),
    (b"Content-Length: 20", b"Content-Length: " + b"0" * 20 + b"20", False),
    (b"Content-Length: 20", b"Content-Length: 18446744073709551636", False),
    (b"Content-Length: 20\r\n", b"", False),
    (b"Content-Length: 20", b"Content-Length: 20\r\nContent-Length: 20", False),
    (b"Content-Length: 20", b"Content-Length: 20, 20", False),
    (b"Content-Range: bytes", b"content-range:bytes", True),
    (b"Content-Range: bytes", b"Content-Range: Bytes", False),
    (b"Content-Range: bytes", b"Content-Range: bytes=", False),
    (b"Content-Range: bytes ", b"Content-Range: bytes  ", False),
    (b"Content-Range: bytes 200-219/1000\r\n", b"", False),
    (b"200-219/1000", b"201-220/1000", False),
    (b"200-219/1000", b"200-220/1000", False),
    (b"200-219/1000", b"199-219/1000", False),
    (b"200-219/1000", b"200-219/1001", False),
    (b"200-219/1000", b"200-219/*", False),
    (b"200-219/1000", b"*/1000", False),
    (b"200-219/1000", b"200-219", False),
    (b"200-219/1000", b"200-219/", False),
    (b"200-219/1000", b"-219/1000", False),
    (b"200-219/1000", b"200-/1000", False),
    (b"200-219/1000", b"0200-219/1000", True),
    (b"200-219/1000", b"200-219/1000\r\nContent-Range: bytes 200-219/1000", False),
    (b"keep-alive", b"Keep-Alive", True),
    (b"Connection: keep-alive\r\n", b"", True),
    (b"keep-alive", b"close", False),
    (b"keep-alive", b"keep-alive\r\nConnection: keep-alive", False),
    (b"keep-alive", b"keep-alive, close", False),
    (b"keep-alive", b"keep-alive\r\nTransfer-Encoding: chunked", False),
    (b"keep-alive", b"keep-alive\r\ntransfer-encoding: identity", False),
    (b"keep-alive", b"keep-alive\r\nContent-Encoding: gzip", False),
    (b"keep-alive", b"keep-alive\r\nContent-Encoding: identity", False),
    (b'"v1"', b'"v2"', False),
    (b'"v1"', b'W/"v1"', False),
    (b'"v1"', b"v1", False),
    (b'ETag: "v1"\r\n', b"", False),
    (b'ETag: "v1"', b'ETag: "v1"\r\nETag: "v1"', False),
    (b"31 Dec", b"30 Dec", True),  # the ETag is strong
    (b"Last-Modified: Sun, 31 Dec 2023 00:00:00 GMT\r\n", b"", True),
]  # fmt: skip


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("was", "now", "plain"), CHANGES)
def test_heads(twin: Any, was: bytes, now: bytes, plain: bool) -> None:
    head = HEAD.replace(was, now)
    assert head != HEAD
    assert twin(*KNOWN).accepts(head, START, STOP) == (len(head) if plain else -1)


@pytest.mark.parametrize("twin", TWINS)
def test_what_follows_a_head_and_what_is_missing_of_it(twin: Any) -> None:
    expected = twin(*KNOWN)
    assert expected.accepts(HEAD + b"body\r\n\r\n", START, STOP) == len(HEAD)
    for length in range(len(HEAD)):
        assert expected.accepts(memoryview(HEAD)[:length], START, STOP) in (0, -1)
    assert expected.accepts(bytearray(HEAD[:-1]), START, STOP) == 0


PINS: list[tuple[bytes | None, bytes | None]] = [
    (b'"v1"', None), (b'"v1"', b"a"), (b'W/"v1"', None), (b'W/"v1"', b"a"), (None, b"a"), (None, None), (b'"v2"', b"a"),
    (b'W/"v1"', b"b"), (None, b"b"), (b"", b""),
]  # fmt: skip


def head_of(etag: bytes | None, modified: bytes | None, encoding: bytes | None) -> bytes:
    lines = [b"HTTP/1.1 206 X", b"Content-Length: 20", b"Content-Range: bytes 200-219/1000"]
    fields = {b"ETag": etag, b"Last-Modified": modified, b"Content-Encoding": encoding}
    lines += [name + b": " + value for name, value in fields.items() if value is not None]
    return b"\r\n".join([*lines, b"", b""])


def is_right(head: bytes, known: Any, start: int, stop: int) -> bool:
    """Whether the judge of all heads takes just these bytes, of the same version, over a connection that goes on."""
    size, *pin = known
    try:
        version = Version()
        version.learn(parse_head(head_of(*pin)[:-4]), size)
        end = head.index(b"\r\n\r\n")
        parsed = parse_head(head[:end])
        found = validation.judge(parsed, start, stop, stop, "error", 0)
    except (BadResponse, validation.Error, ValueError):
        return False
    whole = isinstance(found, validation.Take) and (found.skip, found.stop, found.total) == (0, stop, size)
    same = not version.difference(parsed, size) and validation.encoding_of(parsed) == version.encoding
    return parsed.status == 206 and parsed.length == stop - start and whole and same and not parsed.closing


@pytest.mark.parametrize("said", PINS)
@pytest.mark.parametrize("known", PINS)
def test_versions(known: Any, said: Any) -> None:
    """Both twins are alike, and accept nothing that is of another version."""
    for encoding, encoded in ((None, None), (b"gzip", b"gzip"), (b"gzip", None), (None, b"gzip")):
        head = head_of(*said, encoded)
        pin = (SIZE, *known, encoding)
        found = {twin(*pin).accepts(head, START, STOP) for twin in TWINS}
        assert len(found) == 1
        if found == {len(head)}:
            assert is_right(head, pin, START, STOP)


TOKENS = [
    b"HTTP/1.1 206 OK", b"HTTP/1.0 206 OK", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"Content-Length: 20",
    b"ETag: ", b'"v1"', b"Content-Range: bytes 200-219/1000", b"Connection: ", b"close", b"keep-alive",
    b"Transfer-Encoding: chunked", b"Last-Modified: ", b"X", b"\xff", b"\x7f", b"20", b"0", b"-", b"/", b"*", b",",
]  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """The head above, cut, doubled and broken in places; or pieces of heads in any order."""
    if draw(st.booleans()):
        return b"".join(draw(st.lists(st.sampled_from(TOKENS), max_size=12))) + b"\r\n\r\n"
    head = bytearray(HEAD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(head)))
        upto = draw(st.integers(at, min(len(head), at + 40)))
        head[at:upto] = draw(
            st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3), st.just(bytes(head[at:upto] * 2)))
        )
    return bytes(head)


def same_for_both(head: bytes) -> None:
    found = [twin(*KNOWN).accepts(head, START, STOP) for twin in TWINS]
    # The one in C stops at the first line that is wrong, the other one wants the end of the head first.
    assert found[0] == found[1] or (found == [-1, 0] and b"\r\n\r\n" not in head), head
    if found[0] > 0:
        assert head[: found[0]].endswith(b"\r\n\r\n")
        assert is_right(head, KNOWN, START, STOP), head


@settings(max_examples=3000, deadline=None)
@given(heads())
@example(HEAD)
@example(b"HTTP/1.1 206\r\n\r\n")
@example(b"\r\n\r\n")
@example(b"")
def test_both_are_alike_and_right(head: bytes) -> None:
    same_for_both(head)


def test_both_are_alike_in_the_corpus() -> None:
    """Each byte of each response as another one, too."""
    dice = random.Random(1)
    for path in corpus():
        response = path.read_bytes().partition(b"\n")[2]
        found = re.search(rb"bytes (\d+)-(\d+)/(\d+)", response)
        if found is None:
            continue
        start, stop, size = int(found[1]), int(found[2]) + 1, int(found[3])
        etag = b'"v1"' if b"ETag" in response else None
        for at in range(-1, min(len(response), 400)):
            changed = bytearray(response)
            if at >= 0:
                changed[at] = dice.choice([0, 9, 10, 13, 32, 48, 58, 97, 255])
            answers = {twin(size, etag, None, None).accepts(changed, start, stop) for twin in TWINS}
            assert len(answers) == 1 or answers == {0, -1}, changed
