"""What HEAD says of the size, without a byte to prove it: reads are planned by it, and it ends none of them."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from faults.machine import need_module
from servers.opening import OPTIONS, MakeReader
from servers.scripted import Answer, Asked, Script, honest, reply, scripted

import rangeio

need_module("urllib3")

DATA = bytes(range(250)) * 4
SIZE = len(DATA)
PAST = [(500, 510), (995, 1005), (5, 10)]


def with_head(head: Answer, etag: str | None = '"v1"') -> Script:
    """HEAD answered so, and GET as it should be."""
    return lambda asked: head if asked.method == "HEAD" else honest(DATA, asked, etag)


LIES: dict[str, Script] = {
    "too few": with_head(reply(200, ETag='"v1"', Content_Length="5", Accept_Ranges="bytes")),
    "too few, ranges unannounced": with_head(reply(200, ETag='"v1"', Content_Length="5")),
    "too few, no ETag": with_head(reply(200, Content_Length="5", Accept_Ranges="bytes"), None),
    "too few, by Content-Range": with_head(
        reply(206, ETag='"v1"', Content_Range="bytes 0-0/5", Content_Length="1")
    ),
}

# Each range of `PAST` by itself starts at or past what HEAD says.
READS: dict[str, Callable[[Any, int, int], Any]] = {
    "read_at": lambda reader, start, stop: reader.read_at(start, stop - start),
    "read_into": lambda reader, start, stop: filled(reader, start, stop),
    "read_range": lambda reader, start, stop: reader.read_range((start, stop)),
    "read_to_end": lambda reader, start, stop: reader.read_to_end(start)[: stop - start],
    "read_exact": lambda reader, start, stop: reader.read_exact(start, min(stop, SIZE) - start),
    "read_ranges": lambda reader, start, stop: reader.read_ranges([(start, stop)])[0],
    "an array of ranges": lambda reader, start, stop: reader.read_ranges([(start, stop)] * 2, gap=None)[1],
    "beside a Suffix": lambda reader, start, stop: reader.read_ranges([rangeio.Suffix(0), (start, stop)])[1],
    "iter_ranges": lambda reader, start, stop: next(iter(reader.iter_ranges([(start, stop)])))[1],
    "slice": lambda reader, start, stop: reader.slice(start, stop).read_range(),
    "end of a slice": lambda reader, start, stop: reader.slice(3).read_at(start - 3, stop - start),
    "within": lambda reader, start, stop: reader.within(9).read_range((start, stop)),
    "copy": lambda reader, start, stop: copied(reader, start, stop),
    "copy in pieces": lambda reader, start, stop: copied(reader, start, stop, chunk=3),
}


def filled(reader: Any, start: int, stop: int) -> bytes:
    memory = bytearray(stop - start)
    return bytes(memory[: reader.read_into(memory, start)])


def copied(reader: Any, start: int, stop: int, **options: Any) -> bytes:
    target = io.BytesIO()
    assert reader.copy(target, (start, stop), **options) == len(target.getvalue())
    return target.getvalue()


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", LIES)
def test_bytes_past_what_head_says(open_reader: MakeReader, name: str, read: str) -> None:
    """Are asked for all the same. Two sizes cannot both be true, so that is an error, and never that there are none."""
    for start, stop in PAST:
        reader, server = open_reader(LIES[name])
        assert reader.stat().size == 5
        with pytest.raises(
            rangeio.ObjectChangedError, match=r"HEAD said 5 bytes, but it has 1000 .*size=1000"
        ):
            READS[read](reader, start, stop)
        assert [asked.method for asked in server.asked][:2] == ["HEAD", "GET"]


@pytest.mark.parametrize("read", READS)
def test_the_size_given_asks_no_head(open_reader: MakeReader, read: str) -> None:
    """As the error advises."""
    for start, stop in PAST:
        reader, server = open_reader(LIES["too few"], size=SIZE)
        assert READS[read](reader, start, stop) == DATA[start:stop]
        assert "HEAD" not in [asked.method for asked in server.asked]


@pytest.mark.parametrize("read", READS)
def test_a_size_that_is_true(open_reader: MakeReader, read: str) -> None:
    """And ranges that lie past it, or pass it."""
    reader, _ = open_reader(lambda asked: honest(DATA, asked))
    assert reader.stat().size == SIZE
    for start, stop in [(SIZE, SIZE + 10), (SIZE + 500, SIZE + 510), (SIZE - 5, SIZE + 5), *PAST]:
        if read != "read_exact":
            assert READS[read](reader, start, stop) == DATA[start:stop]


def test_a_file_that_nobody_asks_where_it_ends() -> None:
    with scripted(LIES["too few"]) as server, rangeio.open(server.url, **OPTIONS) as reader:
        assert reader.stat().size == 5
        file = reader.as_file()
        file.seek(500)
        with pytest.raises(rangeio.ObjectChangedError):
            file.read(10)


def test_an_async_file_that_nobody_asks_where_it_ends() -> None:
    import asyncio

    async def main(url: str) -> None:
        async with rangeio.open_async(url, **OPTIONS) as reader:
            assert (await reader.stat()).size == 5
            file = reader.as_async_file()
            await file.seek(500)
            with pytest.raises(rangeio.ObjectChangedError):
                await file.read(10)

    with scripted(LIES["too few"]) as server:
        asyncio.run(main(server.url))


@pytest.mark.parametrize("read", sorted(READS.keys() - {"read_exact"}))
def test_head_that_says_too_many(open_reader: MakeReader, read: str) -> None:
    """Within what it says, and past what is there."""
    for start, stop in [(1200, 1210), (500, 510), (5000, 5010)]:
        reader, _ = open_reader(with_head(reply(200, ETag='"v1"', Content_Length="2000")))
        assert reader.stat().size == 2000
        with pytest.raises(rangeio.ObjectChangedError):
            READS[read](reader, start, stop)


def test_a_body_in_chunks_that_ends_before(open_reader: MakeReader) -> None:
    """Nothing else tells how much there is, so HEAD counts."""

    def script(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return reply(200, ETag='"v1"', Content_Length=str(SIZE))
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE - 1, DATA[:-1])
        return reply(200, body, ETag='"v1"', Content_Length=None, Transfer_Encoding="chunked")

    reader, _ = open_reader(script)
    assert reader.stat().size == SIZE
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_range()


@pytest.mark.parametrize("told", [True, False])
def test_a_body_in_chunks_that_ends_before_what_is_wanted(open_reader: MakeReader, told: bool) -> None:
    """A server without ranges: all of it is thrown away, and there is nothing at that place."""

    def script(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return reply(200, ETag='"v1"', Content_Length=str(SIZE))
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, DATA)
        return reply(200, body, ETag='"v1"', Content_Length=None, Transfer_Encoding="chunked")

    reader, _ = open_reader(script, on_no_range="slice", **({} if told else {"size": SIZE}))
    assert reader.size == SIZE or reader.stat().size == SIZE
    assert reader.read_at(SIZE + 10, 10) == reader.read_at(SIZE, 10) == b""
    assert reader.read_at(SIZE - 5, 10) == DATA[-5:]


# --- what it says is the size, and what is not ----------------------------------------------------------------

TELLING: dict[str, tuple[Answer, list[str]]] = {
    "206 that says the total": (
        reply(206, ETag='"v1"', Content_Range=f"bytes 0-0/{SIZE}", Content_Length="1"),
        ["HEAD"],
    ),
    "206 of an unknown total": (reply(206, Content_Range="bytes 0-0/*", Content_Length="1"), ["HEAD", "GET"]),
    "206 that says nothing": (reply(206, ETag='"v1"', Content_Length="1"), ["HEAD", "GET"]),
    "204": (Answer(b'HTTP/1.1 204 Word\r\nETag: "v1"\r\n\r\n'), ["HEAD", "GET"]),
    "200 of a part": (
        reply(200, ETag='"v1"', Content_Range=f"bytes 0-0/{SIZE}", Content_Length="1"),
        ["HEAD"],
    ),
    "encoded": (reply(200, Content_Encoding="gzip", Content_Length="5"), ["HEAD", "GET"]),
    "encoded part": (
        reply(206, Content_Encoding="gzip", Content_Range="bytes 0-0/5", Content_Length="1"),
        ["HEAD", "GET"],
    ),
}


@pytest.mark.parametrize("first", ["stat", "read"])
@pytest.mark.parametrize("name", TELLING)
def test_how_head_tells(open_reader: MakeReader, name: str, first: str) -> None:
    head, methods = TELLING[name]
    reader, server = open_reader(with_head(head))
    if first == "read":
        assert reader.read_at(0, 5) == DATA[:5]
        server.asked.clear()
    assert reader.stat().size == SIZE
    assert [asked.method for asked in server.asked] == methods
    assert reader.read_at(500, 10) == DATA[500:510]
    assert reader.stat().size == SIZE


def test_an_empty_object_to_which_head_says_204(open_reader: MakeReader) -> None:
    reader, _ = open_reader(lambda asked: Answer(b"HTTP/1.1 204 Word\r\n\r\n"))
    assert reader.stat().size == 0
    assert reader.read_at(0, 5) == b""
    assert reader.stat().size == 0


# --- requests -------------------------------------------------------------------------------------------------


def announcing(asked: Asked) -> Answer:
    """As most servers, which say that they have ranges."""
    if asked.method == "HEAD":
        return reply(200, ETag='"v1"', Content_Length=str(SIZE), Accept_Ranges="bytes")
    return honest(DATA, asked)


@pytest.mark.parametrize("script", [announcing, lambda asked: honest(DATA, asked)], ids=["announced", "not"])
def test_what_a_size_costs(open_reader: MakeReader, script: Script) -> None:
    """One HEAD, however often it is wanted; and within it no request more than without."""
    reader, server = open_reader(script)
    assert reader.stat().size == reader.size == SIZE
    assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
    assert reader.read_ranges([(0, 5), (500, 505), rangeio.Suffix(3)], gap=None) == [
        DATA[:5],
        DATA[500:505],
        DATA[-3:],
    ]
    assert reader.read_at(SIZE - 5, 100) == DATA[-5:]
    assert reader.read_at(SIZE, 100) == reader.read_range((SIZE + 5, SIZE + 9)) == b""
    assert [asked.method for asked in server.asked] == ["HEAD"] + ["GET"] * 5
    assert type(reader.size) is int


def test_what_reading_past_it_costs(open_reader: MakeReader) -> None:
    """One request, which proves the size; none where bytes have proved it before."""
    reader, server = open_reader(announcing)
    assert reader.stat().size == SIZE
    for _ in range(3):
        assert reader.read_at(SIZE, 100) == reader.read_range((SIZE + 5, SIZE + 9)) == b""
    assert [asked.method for asked in server.asked] == ["HEAD", "GET"]
    assert reader.read_at(0, 5000) == DATA
    assert reader.read_at(5, 5) == DATA[5:10]
    assert len(server.asked) == 4


@pytest.mark.parametrize("script", [announcing, lambda asked: honest(DATA, asked)], ids=["announced", "not"])
def test_what_a_slice_or_a_plan_costs(open_reader: MakeReader, script: Script) -> None:
    reader, server = open_reader(script)
    assert reader.stat().size == SIZE
    assert reader.slice(500, 2000).size == 500
    assert reader.slice(0, 10).size == 10
    assert reader.plan([(990, 2000), (5, None)], gap=None).requests == [
        (server.url + "/object", 990, 10),
        (server.url + "/object", 5, SIZE - 5),
    ]
    assert reader.plan([(2000, 2010)]).requests == [(server.url + "/object", 2000, 10)]  # as it would be sent
    assert len(server.asked) == 1
    assert reader.read_at(0, 1) == DATA[:1]
    assert reader.plan([(2000, 2010)]).requests == []


def test_what_the_end_of_a_file_costs() -> None:
    with scripted(announcing) as server, rangeio.open(server.url, **OPTIONS) as reader:
        assert reader.stat().size == SIZE
        file = reader.as_file()
        assert file.seek(0, io.SEEK_END) == SIZE
        assert file.seek(-5, io.SEEK_END) == SIZE - 5
        assert file.read() == DATA[-5:]
        assert file.read() == b""
        assert [asked.method for asked in server.asked] == ["HEAD", "GET"]
