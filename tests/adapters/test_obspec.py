"""`rangeio.obspec` against the protocols of obspec."""

import asyncio
import pickle
import sys
from datetime import datetime, timezone
from typing import Any

import pytest
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server
from servers.scripted import scripted, with_suffixes

import rangeio

need_module("urllib3")
obspec = need_module("obspec")
ro = need_module("rangeio.obspec")

DATA = bytes(range(256)) * 40


@pytest.fixture
def store(seaweedfs: S3Server) -> Any:
    for key in ("a/one", "a/b/two", "ab", "c"):
        seaweedfs.put(f"obspec/{key}", DATA)
    return ro.Store.from_url(f"s3://{BUCKET}/obspec", **seaweedfs.options)


@pytest.fixture(params=["sync", "awaited"])
def call(request: pytest.FixtureRequest, store: Any) -> Any:
    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(store, name)(*args, **kwargs)
        return asyncio.run(getattr(store, f"{name}_async")(*args, **kwargs))

    return call


def test_it_has_all_methods_of_the_protocols() -> None:
    for name in ["Get", "GetRange", "GetRanges", "Head", "List", "ListWithDelimiter"]:
        for protocol in (getattr(obspec, name), getattr(obspec, f"{name}Async")):
            methods = [method for method in vars(protocol) if not method.startswith("_")]
            assert methods
            assert all(callable(getattr(ro.Store, method)) for method in methods)


def test_ranges(call: Any) -> None:
    assert isinstance(call("get_range", "c", start=5, end=9), rangeio.Buffer)
    assert call("get_range", "c", start=5, end=9) == DATA[5:9]
    assert call("get_range", "c", start=5, length=9) == DATA[5:14]
    assert call("get_range", "c", start=len(DATA) - 5, end=len(DATA) + 100) == DATA[-5:]
    found = call("get_ranges", "c", starts=[0, 100], lengths=[5, 6])
    assert found == [DATA[:5], DATA[100:106]]
    assert call("get_ranges", "c", starts=[3], ends=[len(DATA) + 1]) == [DATA[3:]]
    assert call("get_ranges", "c", starts=[], ends=[]) == []


@pytest.mark.parametrize(("start", "end"), [(5, 5), (9, 5), (len(DATA), len(DATA) + 1)])
def test_empty_ranges_are_errors(call: Any, start: int, end: int) -> None:
    with pytest.raises(rangeio.RangeNotSatisfiedError):
        call("get_range", "c", start=start, end=end)
    with pytest.raises(rangeio.RangeNotSatisfiedError):
        call("get_ranges", "c", starts=[0, start], ends=[1, end])


def test_wrong_arguments(call: Any) -> None:
    with pytest.raises(ValueError, match="either"):
        call("get_range", "c", start=0)
    with pytest.raises(ValueError, match="either"):
        call("get_ranges", "c", starts=[0], ends=[1], lengths=[1])
    with pytest.raises(ValueError, match="1 starts and 2 ends"):
        call("get_ranges", "c", starts=[0], ends=[1, 2])
    with pytest.raises(ValueError, match="2 starts and 1 lengths"):
        call("get_ranges", "c", starts=[0, 1], lengths=[1])
    with pytest.raises(ValueError, match="negative"):
        call("get_range", "c", start=-1, end=3)
    with pytest.raises(rangeio.UnsupportedError, match="rnage"):
        call("get", "c", options={"rnage": (0, 1)})


def test_head(call: Any) -> None:
    meta = call("head", "a/one")
    assert (meta["path"], meta["size"]) == ("a/one", len(DATA))
    assert meta["e_tag"]
    assert meta["last_modified"].tzinfo is not None
    with pytest.raises(FileNotFoundError):
        call("head", "none")


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        (None, (0, len(DATA))),
        ((5, 20), (5, 20)),
        ([5, len(DATA) + 9], (5, len(DATA))),
        ({"offset": 100}, (100, len(DATA))),
        ({"suffix": 7}, (len(DATA) - 7, len(DATA))),
    ],
)
def test_get(store: Any, wanted: Any, place: tuple[int, int]) -> None:
    options = None if wanted is None else {"range": wanted}
    result = store.get("a/one", options=options)
    part = DATA[slice(*place)]
    assert result.buffer() == part
    assert b"".join(result) == part
    assert result.range == place
    assert result.meta["size"] == len(DATA)
    assert result.attributes == {}

    async def awaited() -> None:
        found = await store.get_async("a/one", options=options)
        assert (found.range, found.meta["path"]) == (place, "a/one")
        assert await found.buffer_async() == part
        assert b"".join([bytes(piece) async for piece in found]) == part

    asyncio.run(awaited())


def test_conditions_and_head(store: Any) -> None:
    etag = store.head("c")["e_tag"]
    assert store.get("c", options={"if_match": etag, "range": (0, 3)}).buffer() == DATA[:3]
    with pytest.raises(rangeio.ConditionNotMatchError):
        store.get("c", options={"if_match": '"other"'}).buffer()
    old = datetime(2001, 1, 1, tzinfo=timezone.utc)
    with pytest.raises(rangeio.ConditionNotMatchError):
        store.get("c", options={"if_unmodified_since": old}).buffer()
    assert store.get("c", options={"head": True}).buffer() == b""
    with pytest.raises(FileNotFoundError):
        store.get("none").buffer()


def test_listings(store: Any) -> None:
    def paths(pages: Any) -> list[str]:
        return [meta["path"] for page in pages for meta in page]

    assert paths(store.list()) == ["a/b/two", "a/one", "ab", "c"]
    assert paths(store.list("a")) == paths(store.list("a/")) == ["a/b/two", "a/one"]
    assert paths(store.list(offset="a/one")) == ["ab", "c"]
    assert paths(store.list("none")) == []

    async def awaited() -> list[str]:
        return [meta["path"] async for page in store.list_async("a") for meta in page]

    assert asyncio.run(awaited()) == ["a/b/two", "a/one"]


def test_one_level(call: Any) -> None:
    found = call("list_with_delimiter")
    assert found["common_prefixes"] == ["a"]
    assert [meta["path"] for meta in found["objects"]] == ["ab", "c"]
    assert call("list_with_delimiter", "a")["common_prefixes"] == ["a/b"]


def test_pickle_and_urls() -> None:
    for url in ("file:///folder", "https://host/folder/"):
        assert ro.Store.from_url(url).url == url
    assert ro.Store.from_url("https://user:word@host/folder").url == "https://host/folder/"
    assert ro.Store.from_url("s3://bucket/folder", region="r").url == "s3://bucket/folder/"
    assert ro.Store("s3", region="r").url == "s3://"
    with scripted(lambda asked: with_suffixes(DATA, asked)) as server:
        store = pickle.loads(pickle.dumps(ro.Store.from_url(server.url + "/folder")))
        assert store.get_range("x", start=1, end=3) == DATA[1:3]
        assert server.asked[0].target == "/folder/x"
    memory = ro.Store("memory", objects={"x": DATA})
    assert pickle.loads(pickle.dumps(memory)).get_range("x", start=0, length=2) == DATA[:2]
    secret = ro.Store("s3", access_key_id="AKEY", secret_access_key="SECRET")
    assert b"SECRET" not in pickle.dumps(secret)
    assert "SECRET" not in repr(secret)


@pytest.mark.parametrize(
    "wanted", [(len(DATA), len(DATA) + 5), {"offset": len(DATA)}, {"offset": len(DATA) + 1}]
)
def test_get_past_the_end(store: Any, wanted: Any) -> None:
    with pytest.raises(rangeio.RangeNotSatisfiedError):
        store.get("c", options={"range": wanted}).buffer()
    with pytest.raises(rangeio.RangeNotSatisfiedError, match=r"10,?24\d.*past the end") as caught:
        next(iter(store.get("c", options={"range": wanted})))
    assert len(str(caught.value)) < 60

    async def awaited() -> None:
        found = await store.get_async("c", options={"range": wanted})
        with pytest.raises(rangeio.RangeNotSatisfiedError):
            await found.buffer_async()
        with pytest.raises(rangeio.RangeNotSatisfiedError, match="past the end"):
            async for _ in found:
                pass

    asyncio.run(awaited())


def test_objects_of_nothing() -> None:
    """As in obstore: all of an empty object, and its last bytes, are nothing and no error."""
    store = ro.Store("memory", objects={"empty": b"", "c": DATA})
    for path, wanted in (("empty", None), ("empty", {"suffix": 5}), ("c", {"suffix": 0})):
        found = store.get(path, options=wanted and {"range": wanted})
        assert (found.buffer(), [*found]) == (b"", [])
    with pytest.raises(rangeio.RangeNotSatisfiedError):
        next(iter(store.get("empty", options={"range": (0, 5)})))
    assert [*store.get("c", options={"head": True, "range": (len(DATA), len(DATA) + 1)})] == []


def test_an_iteration_that_is_left_lets_go(store: Any) -> None:
    pieces = iter(store.get("c"))
    assert next(pieces)
    pieces.close()
    assert rangeio.stats()["in_flight"] == 0


def test_long_listings_come_in_pages() -> None:
    store = ro.Store("memory", objects={f"a/{number:04}": b"" for number in range(2_001)})
    assert [len(page) for page in store.list("a")] == [1_000, 1_000, 1]

    async def awaited() -> list[int]:
        return [len(page) async for page in store.list_async("a", offset="a/0000")]

    assert asyncio.run(awaited()) == [1_000, 1_000]


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="obspec-utils comes with VirtualiZarr, for Python 3.11"
)
def test_readable_store_of_obspec_utils() -> None:
    protocols = need_module("obspec_utils.protocols")
    readers = need_module("obspec_utils.readers")
    store = ro.Store("memory", objects={"c": DATA})
    assert isinstance(store, protocols.ReadableStore)
    for name in ("BufferedStoreReader", "EagerStoreReader", "BlockStoreReader"):
        with getattr(readers, name)(store, "c") as file:
            file.seek(100)
            assert bytes(file.read(50)) == DATA[100:150], name
            file.seek(0)
            assert bytes(file.read()) == DATA, name
