"""Every way to answer a request for a range, by every option that matters, by every range: the bytes, or an Error.

A table says of each kind of server when a read has to succeed; an oracle, a slice of the bytes, says what it returns.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from awaited import Awaited, Loop
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

DATA = bytes(i * 7 % 251 for i in range(1000))
SIZE = len(DATA)
ONCE: Any = {"retry": rangeio.Retry(attempts=2, backoff_s=0.0001), "timeout": 20}
RANGES: list[Any] = [
    (0, 0), (0, 10), (0, SIZE), (0, None), (0, SIZE + 7), (5, 10), (500, None), (SIZE - 10, SIZE + 10),
    (SIZE - 1, SIZE), (SIZE, SIZE + 5), (SIZE + 10, SIZE + 20), rangeio.Suffix(16), rangeio.Suffix(2 * SIZE), None,
]  # fmt: skip
OPTIONS = [
    {"on_no_range": policy, "pin": pin, "size": size, "chunk": chunk}
    for policy, pin, size, chunk in itertools.product(
        ["error", "slice", "download"], [True, False], [None, SIZE], [None, 97]
    )
]
# For the answers that depend on none of these but one or two.
FEW = [options for options in OPTIONS if options["size"] is None or options["pin"]]

Works = Callable[[dict[str, Any], int, int], "bool | None"]


def bounds(wanted: Any) -> tuple[int, int]:
    """First byte and end, which may be past the end of the object."""
    if isinstance(wanted, rangeio.Suffix):
        return max(0, SIZE - wanted.n), SIZE
    start, stop = (0, None) if wanted is None else wanted
    return start, 2**63 - 1 if stop is None else stop


@dataclass(frozen=True)
class Kind:
    """How a server answers; works: whether a read has to succeed (False: to fail; None: either, but no other bytes)."""

    script: Callable[[Asked], Answer]
    works: Works = lambda options, start, stop: True


def partial(
    asked: Asked, *, before: int = 0, after: int = 0, most: int = SIZE, **fields: str | None
) -> Answer:
    """A 206 that may have more than was asked for at either end, or less."""
    if asked.method == "HEAD" or asked.range is None or asked.range[0] >= SIZE:
        return honest(DATA, asked, fields.get("ETag", '"v1"'))
    start, stop = asked.range
    first = max(0, start - before)
    last = min(SIZE, stop + after, start + most)
    fields = {"Content_Range": f"bytes {first}-{last - 1}/{SIZE}", "ETag": '"v1"', **fields}
    return reply(206, DATA[first:last], **fields)


def chunked(body: bytes, size: int = 100) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def coded(answer: Answer, ends_after: int | None = None) -> Answer:
    """The same body in chunks, without its length; cut off in good form after so many bytes."""
    head, _, body = answer.data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return Answer(b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", chunked(body[:ends_after])]))


def in_chunks(asked: Asked) -> Answer:
    return honest(DATA, asked) if asked.method == "HEAD" else coded(honest(DATA, asked))


def in_chunks_that_end_early(asked: Asked) -> Answer:
    answer = honest(DATA, asked)
    brings = asked.method == "GET" and b" 206 " in answer.data
    return coded(answer, len(answer.data.partition(b"\r\n\r\n")[2]) - 1) if brings else answer


def whole(asked: Asked, **fields: str | None) -> Answer:
    """Ignores Range."""
    return reply(200, b"" if asked.method == "HEAD" else DATA, **{"Content_Length": str(SIZE), **fields})


def whole_in_chunks(asked: Asked) -> Answer:
    return whole(asked) if asked.method == "HEAD" else coded(whole(asked))


def until_the_end(answer: Answer, asked: Asked) -> Answer:
    """The length is not told: the body ends with the connection."""
    if asked.method == "HEAD":
        return answer
    head, end, body = answer.data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return Answer(b"\r\n".join(lines) + end + body, "close")


def refuses_what_passes_the_end(asked: Asked) -> Answer:
    if asked.range is not None and asked.range[1] > SIZE:
        return reply(416)
    return honest(DATA, asked)


def refuses_and_tells_no_size(asked: Asked) -> Answer:
    if asked.method == "HEAD":
        return reply(405)
    answer = refuses_what_passes_the_end(asked)
    answer.data = answer.data.replace(f"/{SIZE}\r".encode(), b"/*\r")
    return answer


def body_is_cut(asked: Asked) -> Answer:
    """Each response brings half of what it announces."""
    answer = honest(DATA, asked)
    head, end, body = answer.data.partition(b"\r\n\r\n")
    return Answer(head + end + body[: len(body) // 2], "close")


def then(answer: Answer, more: bytes, end: Any = "keep") -> Answer:
    return Answer(answer.data + more, end)


def moved(asked: Asked) -> Answer:
    return reply(302, Location="/there") if asked.target == "/o" else honest(DATA, asked)


def with_head(answer: Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
    """HEAD answered so, and GET as it should be."""
    return lambda asked: answer(asked) if asked.method == "HEAD" else honest(DATA, asked)


def folded(asked: Asked) -> Answer:
    answer = honest(DATA, asked)
    answer.data = answer.data.replace(b"\r\n\r\n", b"\r\nX-Policy: a;\r\n\tb\r\n\r\n", 1)
    answer.data = answer.data.replace(b"Content-Range: bytes", b"Content-Range:\r\n bytes")
    return answer


def older(asked: Asked) -> Answer:
    answer = honest(DATA, asked, then="close")
    answer.data = answer.data.replace(b"HTTP/1.1", b"HTTP/1.0")
    return answer


def nothing_there(options: dict[str, Any], start: int, stop: int) -> bool:
    return start >= min(stop, SIZE)


def only_all(options: dict[str, Any], start: int, stop: int) -> bool:
    """Where the length of the whole is told: all of it, and what is past the end."""
    wanted_whole = start == 0 and stop >= SIZE
    return options["on_no_range"] != "error" or wanted_whole or nothing_there(options, start, stop)


def only_all_unless_cut(options: dict[str, Any], start: int, stop: int) -> "bool | None":
    """Where it is not told: all of it, if nobody cuts it into parts."""
    if options["on_no_range"] != "error" or start >= stop:
        return True
    if options["size"] is not None or options["chunk"] is not None:
        return None
    return start == 0 and stop >= SIZE


def nothing_at_all(options: dict[str, Any], start: int, stop: int) -> "bool | None":
    return None if nothing_there(options, start, stop) else False


def either(options: dict[str, Any], start: int, stop: int) -> None:
    return None


CLOSING = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad"
KINDS: dict[str, Kind] = {
    "honest": Kind(lambda asked: honest(DATA, asked)),
    "in chunks": Kind(in_chunks),
    "in chunks that end early": Kind(in_chunks_that_end_early, nothing_at_all),
    "total not told": Kind(lambda asked: total_not_told(asked)),
    "short of what was asked for": Kind(lambda asked: partial(asked, most=97)),
    "one byte each": Kind(lambda asked: partial(asked, most=1 if asked.range and asked.range[0] > 980 else SIZE)),
    "more than was asked for": Kind(lambda asked: partial(asked, before=8, after=50)),
    "whole": Kind(whole, only_all),
    "whole, pinned": Kind(lambda asked: whole(asked, ETag='"v1"'), only_all),
    "whole in chunks": Kind(whole_in_chunks, only_all_unless_cut),
    "whole of no length": Kind(lambda asked: until_the_end(whole(asked), asked), nothing_at_all),
    "part of no length": Kind(lambda asked: until_the_end(honest(DATA, asked), asked)),
    "encoded part": Kind(lambda asked: partial(asked, Content_Encoding="gzip"), either),
    "encoded whole": Kind(lambda asked: whole(asked, Content_Encoding="gzip"), nothing_at_all),
    "416 of what passes the end": Kind(refuses_what_passes_the_end),
    "416, and no size anywhere": Kind(refuses_and_tells_no_size, either),
    "body is cut": Kind(body_is_cut, either),
    "weak ETag": Kind(lambda asked: partial(asked, ETag='W/"v1"')),
    "weak ETags that differ": Kind(lambda asked: partial(asked, ETag=f'W/"v{asked.number}"'), either),
    "nothing to pin by": Kind(lambda asked: partial(asked, ETag=None)),
    "other bytes, and it says so": Kind(lambda asked: misplaced(asked), nothing_at_all),
    "moved": Kind(moved),
    "HEAD not allowed": Kind(with_head(lambda asked: reply(405))),
    "HEAD says 0": Kind(with_head(lambda asked: reply(200, ETag='"v1"'))),
    "HEAD says nothing": Kind(with_head(lambda asked: reply(200, ETag='"v1"', Content_Length=None))),
    "folded fields": Kind(folded),
    "HTTP/1.0": Kind(older),
    "closing each time": Kind(lambda asked: honest(DATA, asked, then="close")),
    "body goes on": Kind(lambda asked: then(honest(DATA, asked), b"EVIL" * 100)),
    "400 after each": Kind(lambda asked: then(honest(DATA, asked), CLOSING, "close")),
    "HEAD with a body": Kind(lambda asked: then(honest(DATA, asked), DATA[:20] * (asked.method == "HEAD"))),
}  # fmt: skip


def total_not_told(asked: Asked) -> Answer:
    answer = honest(DATA, asked)
    answer.data = answer.data.replace(f"/{SIZE}\r".encode(), b"/*\r")
    return answer


def misplaced(asked: Asked) -> Answer:
    if asked.method == "HEAD" or asked.range is None or asked.range[0] >= SIZE:
        return honest(DATA, asked)
    start, stop = asked.range[0] + 1, min(asked.range[1], SIZE) + 1
    return reply(
        206, DATA[start:stop].ljust(stop - start), Content_Range=f"bytes {start}-{stop - 1}/{SIZE + 1}"
    )


def one_range(reader: Any, wanted: Any) -> bytes:
    return bytes(reader.read_range(wanted))


def of_many(reader: Any, wanted: Any) -> bytes:
    first, last = reader.read_ranges([wanted, wanted], gap=None)
    assert first == last
    return bytes(first)


def into(reader: Any, wanted: Any) -> bytes:
    start, stop = bounds(wanted)
    if start >= stop:
        return b""
    memory = bytearray(min(stop - start, SIZE + 50))
    return bytes(memory[: reader.read_into(memory, start)])


def streamed(reader: Any, wanted: Any) -> bytes:
    return b"".join(map(bytes, reader.stream(wanted)))


def outcome(read: Callable[[Any, Any], bytes], reader: Any, wanted: Any) -> "bytes | rangeio.Error":
    try:
        return read(reader, wanted)
    except rangeio.Error as error:
        return error.with_traceback(None)


def check(
    name: str, options: dict[str, Any], wanted: Any, found: "bytes | rangeio.Error", *, cut: bool = False
) -> None:
    """cut: each chunk is a read of its own, so that all of an object may not be had where only all of it is sent."""
    start, stop = bounds(wanted)
    works = KINDS[name].works(options, start, stop)
    if cut and options["chunk"] and options["on_no_range"] == "error" and name.startswith("whole"):
        works = None
    if isinstance(wanted, rangeio.Suffix) and wanted.n >= SIZE and works is False:
        works = None  # no kind knows a suffix: some answer it with the whole object, which is right here
    where = f"{name}, {options}, {wanted}: {str(found)[:200]}"
    if isinstance(found, bytes):
        assert found == DATA[start:stop], where
        assert works is not False, where
    else:
        assert works is not True, where


@pytest.mark.parametrize("read", [one_range, of_many, into, streamed])
@pytest.mark.parametrize("name", KINDS)
def test_every_option_and_range(name: str, read: Callable[[Any, Any], bytes]) -> None:
    """By a Reader that has read nothing yet."""
    with scripted(KINDS[name].script) as server:
        for options, wanted in itertools.product(FEW if read is one_range else FEW[::4], RANGES):
            with rangeio.open(server.url + "/o", **{**ONCE, **options}) as reader:
                check(name, options, wanted, outcome(read, reader, wanted), cut=read is streamed)


@pytest.mark.parametrize("name", KINDS)
def test_every_range_of_one_reader(name: str) -> None:
    """Whatever it has learned from the others: the size, the version, that the server sends no ranges."""
    with scripted(KINDS[name].script) as server:
        for options in FEW[::3]:
            with rangeio.open(server.url + "/o", **{**ONCE, **options}) as reader:
                for wanted in [*RANGES, *RANGES[::-1]]:
                    found = outcome(one_range, reader, wanted)
                    start, stop = bounds(wanted)
                    # What one read has learned may let another one succeed, and never makes it wrong.
                    if isinstance(found, bytes):
                        assert found == DATA[start:stop], (name, options, wanted)
                    else:
                        check(name, options, wanted, found)


@pytest.mark.parametrize("name", KINDS)
def test_awaited(name: str) -> None:
    loop = Loop("asyncio")
    try:
        with scripted(KINDS[name].script) as server:
            for options, wanted in itertools.product(FEW[::5], RANGES):
                with Awaited(rangeio.open_async(server.url + "/o", **{**ONCE, **options}), loop) as reader:
                    check(name, options, wanted, outcome(one_range, reader, wanted))
    finally:
        loop.close()


EMPTY: dict[str, Answer] = {
    "206, bytes 0-0/0": reply(206, b"", Content_Range="bytes 0-0/0", ETag='"v1"'),
    "206, bytes */0": reply(206, b"", Content_Range="bytes */0", ETag='"v1"'),
    "204": Answer(b'HTTP/1.1 204 No Content\r\nETag: "v1"\r\n\r\n'),
    "416, bytes */0": reply(416, Content_Range="bytes */0"),
    "416": reply(416),
    "200": reply(200, ETag='"v1"'),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_object(name: str) -> None:
    with scripted(lambda asked: EMPTY[name]) as server:
        for options, wanted in itertools.product(
            OPTIONS, [(0, 10), (0, None), (5, 10), None, rangeio.Suffix(3)]
        ):
            if options["size"] is None:
                with rangeio.open(server.url, **{**ONCE, **options}) as reader:
                    assert reader.read_range(wanted) == b"", (options, wanted)


@pytest.mark.parametrize("name", EMPTY)
def test_an_object_that_has_become_empty(name: str) -> None:
    def script(asked: Asked) -> Answer:
        return EMPTY[name] if asked.number else honest(DATA, asked)

    with scripted(script) as server, rangeio.open(server.url, **ONCE) as reader:
        assert reader.read_at(0, 5) == DATA[:5]
        with pytest.raises(rangeio.Error):
            reader.read_at(5, 5)
