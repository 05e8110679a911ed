"""The last bytes of an object of unknown size: one request, whose response also tells the size and the version."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio
from rangeio import Suffix

need_module("urllib3")

DATA = bytes(range(256)) * 400
END = len(DATA)
OPTIONS: Any = {"retry": 2, "timeout": 10}


@pytest.fixture(params=["sync", *LOOPS])
def way(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)

    def make(url: str, **options: Any) -> Any:
        chosen = {**OPTIONS, **options}
        if loop is None:
            return rangeio.open(url, **chosen)
        return Awaited(rangeio.open_async(url, **chosen), loop)

    yield make
    if loop is not None:
        loop.close()


def suffixes(asked: Asked, data: bytes = DATA) -> Answer:
    """A server that knows suffix ranges."""
    field = asked.fields.get("range", "")
    if not field.startswith("bytes=-"):
        return honest(data, asked)
    count = int(field[7:])
    if not data or not count:
        return reply(416, Content_Range=f"bytes */{len(data)}")
    start = max(0, len(data) - count)
    span = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return reply(206, data[start:], ETag='"v1"', Content_Range=span)


@pytest.mark.parametrize("count", [1, 8, 5_000, len(DATA), len(DATA) + 1, 1 << 40])
def test_one_request_tells_bytes_size_and_version(way: Any, count: int) -> None:
    with scripted(suffixes) as server:
        reader = way(server.url + "/object")
        assert reader.read_range(Suffix(count)) == DATA[-count:]
        assert len(server.asked) == 1
        assert reader.size == len(DATA)
        assert reader.read_at(5, 10) == DATA[5:15]
        assert server.asked[-1].fields["if-match"] == '"v1"'
        assert reader.read_range(Suffix(3)) == DATA[-3:]  # its place is known now
        assert [asked.method for asked in server.asked] == ["GET"] * 3
        assert server.asked[-1].range == (len(DATA) - 3, len(DATA))


def test_more_than_a_chunk(way: Any) -> None:
    """The last chunk comes first; the chunks before it follow together, all of one version."""
    with scripted(suffixes) as server:
        reader = way(server.url + "/object", chunk=10_000)
        assert reader.read_range(Suffix(45_000)) == DATA[-45_000:]
        assert server.asked[0].fields["range"] == "bytes=-10000"
        assert sorted(asked.range for asked in server.asked[1:]) == [
            (at, min(at + 10_000, len(DATA) - 10_000))
            for at in range(len(DATA) - 45_000, len(DATA) - 10_000, 10_000)
        ]
        assert {asked.fields.get("if-match") for asked in server.asked[1:]} == {'"v1"'}


def test_an_empty_object(way: Any) -> None:
    with scripted(lambda asked: suffixes(asked, b"")) as server:
        reader = way(server.url + "/object")
        assert reader.read_range(Suffix(8)) == b""
        assert reader.read_range(Suffix(0)) == b""


def test_a_body_that_breaks_off_is_continued(way: Any) -> None:
    def script(asked: Asked) -> Answer:
        answer = suffixes(asked)
        if asked.number == 0:
            head = answer.data.index(b"\r\n\r\n") + 4
            return replace(answer, data=answer.data[: head + 100], then="close")
        return answer

    with scripted(script) as server:
        reader = way(server.url + "/object")
        assert reader.read_range(Suffix(1_000)) == DATA[-1_000:]
        assert server.asked[1].range == (len(DATA) - 900, len(DATA))


# --- servers that do something else --------------------------------------------------------------------------


def whole(asked: Asked) -> Answer:
    """Ignores Range."""
    return reply(200, b"" if asked.method == "HEAD" else DATA, ETag='"v1"', Content_Length=str(len(DATA)))


def test_a_server_that_sends_the_whole_object(way: Any) -> None:
    with scripted(whole) as server:
        with pytest.raises(rangeio.RangeNotSupportedError):
            way(server.url + "/object").read_range(Suffix(10))
        assert way(server.url + "/object").read_range(Suffix(len(DATA))) == DATA
        assert way(server.url + "/object", on_no_range="slice").read_range(Suffix(10)) == DATA[-10:]
        kept = way(server.url + "/object", on_no_range="download")
        assert kept.read_range(Suffix(10)) == DATA[-10:]
        count = len(server.asked)
        assert kept.read_range(Suffix(20)) == DATA[-20:]
        assert len(server.asked) == count


@pytest.mark.parametrize(
    "odd",
    [
        lambda: reply(400),
        lambda: reply(405),
        lambda: reply(416),
        lambda: reply(501),
        lambda: reply(206, DATA[:10], ETag='"v1"', Content_Range="bytes 0-9/*"),
        lambda: reply(206, DATA[:10], ETag='"v1"', Content_Range=f"bytes 0-9/{len(DATA)}"),
        lambda: reply(206, DATA[-20:-5], ETag='"v1"', Content_Range=f"bytes {END - 20}-{END - 6}/{END}"),
        lambda: reply(416, Content_Range=f"bytes */{len(DATA)}"),
        lambda: reply(206, DATA[:10], ETag='"v1"'),
    ],
    ids=["400", "405", "416", "501", "no-total", "the-first-bytes", "not-up-to-the-end", "416-of-some", "no-place"],
)  # fmt: skip
def test_servers_that_know_no_suffix(way: Any, odd: Callable[[], Answer]) -> None:
    """The size is asked for, or told by the odd response, and the bytes are requested by their place."""

    def script(asked: Asked) -> Answer:
        return odd() if asked.fields.get("range", "").startswith("bytes=-") else honest(DATA, asked)

    with scripted(script) as server:
        reader = way(server.url + "/object")
        assert reader.read_range(Suffix(10)) == DATA[-10:]
        assert server.asked[-1].range == (len(DATA) - 10, len(DATA))
        assert len(server.asked) <= 3


def test_more_than_the_last_bytes(way: Any) -> None:
    """Google sends at least so many; others round to blocks. What is too much is not taken."""

    def script(asked: Asked) -> Answer:
        if asked.fields.get("range", "").startswith("bytes=-"):
            return suffixes(replace(asked, fields={"range": "bytes=-64"}))
        return honest(DATA, asked)

    with scripted(script) as server:
        assert way(server.url + "/object").read_range(Suffix(10)) == DATA[-10:]


def test_it_is_of_the_version_that_was_opened(way: Any) -> None:
    etag = ['"v1"']

    def script(asked: Asked) -> Answer:
        answer = suffixes(asked)
        return replace(answer, data=answer.data.replace(b'"v1"', etag[0].encode()))

    with scripted(script) as server:
        reader = way(server.url + "/object")
        reader.stat()  # by HEAD: no byte proves the size
        etag[0] = '"v2"'
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_range(Suffix(10))


def test_what_is_refused_says_what_was_asked_for(way: Any) -> None:
    with scripted(lambda asked: reply(404)) as server:
        reader = way(server.url + "/object")
        with pytest.raises(rangeio.NotFoundError, match="object") as caught:
            reader.read_range(Suffix(10))
        assert caught.value.offset is None
        assert len(server.asked) == 1


def test_conditions_hold_for_it(way: Any) -> None:
    with scripted(suffixes) as server:
        reader = way(server.url + "/object", if_none_match='"v1"')
        with pytest.raises(rangeio.NotModifiedError):
            reader.read_range(Suffix(10))
        assert server.asked[0].fields["if-none-match"] == '"v1"'


def test_slices_have_an_end_of_their_own(way: Any) -> None:
    with scripted(suffixes) as server:
        reader = way(server.url + "/object")
        assert reader.slice(10, 30).read_range(Suffix(5)) == DATA[25:30]
        assert way(server.url + "/object").within(5).read_range(Suffix(5)) == DATA[-5:]
        assert server.asked[-1].fields["range"] == "bytes=-5"


def test_it_says_so(way: Any) -> None:
    with scripted(suffixes) as server:
        assert way(server.url + "/object").capability.suffix


def test_a_size_that_comes_late(way: Any) -> None:
    """What is before the response that tells the size has arrived, and is neither asked for nor counted again."""

    def script(asked: Asked) -> Answer:
        start, stop = asked.range or (0, END)
        total = "*" if asked.number < 2 else str(END)
        last = min(start + 1_000, stop, END)
        return reply(206, DATA[start:last], ETag='"v1"', Content_Range=f"bytes {start}-{last - 1}/{total}")

    with scripted(script) as server:
        assert way(server.url + "/object", chunk=1_000).read_at(0, 10_000) == DATA[:10_000]
        starts = [asked.range[0] for asked in server.asked if asked.range]
        assert sorted(starts) == [*range(0, 10_000, 1_000)]


def test_many_suffixes_are_one_request(way: Any) -> None:
    with scripted(suffixes) as server:
        for asked in ([8], [8, 5_000, 3], [5, 5, len(DATA) + 9, 0]):
            for kwargs in ({}, {"on_error": "return"}, {"exact": True}):
                reader = way(server.url + "/object")
                server.asked.clear()
                found = reader.read_ranges([Suffix(count) for count in asked], **kwargs)
                assert found == [DATA[len(DATA) - min(count, len(DATA)) :] for count in asked]
                assert [one.method for one in server.asked] == ["GET"]
                assert reader.size == len(DATA)
                assert reader.stats["requests"] == 1
                assert reader.stats["ranges"] == len(asked)


def test_suffixes_that_need_a_plan(way: Any) -> None:
    """Other ranges beside them, no merging, less merging, or smaller requests: the size comes first."""
    with scripted(suffixes) as server:
        for asked, options in (
            ([Suffix(8), (0, 5)], {}),
            ([Suffix(8), Suffix(5)], {"gap": None}),
            ([Suffix(800), Suffix(500)], {"max_merged": 600}),
            ([Suffix(800)], {"chunk": 300}),
            ([Suffix(0)], {}),
        ):
            server.asked.clear()
            found = way(server.url + "/object").read_ranges(asked, **options)
            whole = [DATA[:5] if isinstance(one, tuple) else DATA[len(DATA) - one.n :] for one in asked]
            assert found == whole
            assert server.asked[0].method == "HEAD"


def test_suffixes_of_nothing_and_of_an_empty_object(way: Any) -> None:
    with scripted(lambda asked: suffixes(asked, b"")) as server:
        assert way(server.url + "/object").read_ranges([Suffix(3), Suffix(0), Suffix(9)]) == [b""] * 3
    with scripted(lambda asked: reply(404)) as server:
        with pytest.raises(rangeio.NotFoundError) as caught:
            way(server.url + "/object").read_ranges([Suffix(3), Suffix(4)])
        assert caught.value.index == 0
        found = way(server.url + "/object").read_ranges([Suffix(3), Suffix(4)], on_error="return")
        assert [(type(error), error.index) for error in found] == [
            (rangeio.NotFoundError, 0),
            (rangeio.NotFoundError, 1),
        ]


def test_suffixes_of_many_objects_are_a_request_each() -> None:
    with scripted(suffixes) as server:
        operator = rangeio.Operator("http", root=server.url)
        jobs = [("/a", Suffix(5)), ("/b", Suffix(9)), ("/b", Suffix(2))]
        wanted = [DATA[-5:], DATA[-9:], DATA[-2:]]
        assert operator.read_ranges(jobs) == wanted
        assert [asked.method for asked in server.asked] == ["GET"] * 2
        server.asked.clear()
        loop = Loop("asyncio")
        assert loop.run(lambda: operator.read_ranges_async(jobs)) == wanted
        loop.close()
        assert [asked.method for asked in server.asked] == ["GET"] * 2
