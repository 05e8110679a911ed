"""`ZarrStore`: what it requests, what it refuses, and that no two versions of a shard are mixed."""

import asyncio
import hashlib
import os
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server
from servers.scripted import Answer, Asked, Scripted, reply, scripted, with_suffixes

import rangeio

if sys.version_info < (3, 11):
    pytest.skip("zarr 3.1 needs Python 3.11", allow_module_level=True)

need_module("urllib3")
np = need_module("numpy")
zarr = need_module("zarr")
stores = need_module("zarr.abc.store")
buffers = need_module("zarr.core.buffer")
ZarrStore = need_module("rangeio.adapters.zarr").ZarrStore

# zarr's own LocalStore, with which tests write, leaves iterations of directories unfinished.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <posix.ScandirIterator:pytest.PytestUnraisableExceptionWarning"
)

Range, Offset, Suffix = stores.RangeByteRequest, stores.OffsetByteRequest, stores.SuffixByteRequest
NUMBERS = np.arange(64 * 64, dtype="f4").reshape(64, 64)
BUFFERS = buffers.default_buffer_prototype()


def write(root: Path, numbers: Any = NUMBERS, **options: Any) -> Path:
    """A group with an array of chunks, and one of shards."""
    group = zarr.open_group(root, mode="w")
    group.create_array("plain", shape=(64, 64), chunks=(16, 16), dtype="f4", compressors=None)[:] = numbers
    shards = {"chunks": (8, 8), "shards": (32, 32), "dtype": "f4", "compressors": None}
    group.create_array("sharded", shape=(64, 64), **{**shards, **options})[:] = numbers
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "data.zarr")


@contextmanager
def served(root: Path) -> Iterator[Scripted]:
    """The files over HTTP, each with the hash of its content as ETag."""

    def script(asked: Asked) -> Answer:
        path = root / asked.target.strip("/")
        if not path.is_file():
            return reply(404)
        data = path.read_bytes()
        return with_suffixes(data, asked, f'"{hashlib.md5(data).hexdigest()}"')

    with scripted(script) as server:
        yield server


def requests(server: Scripted) -> list[tuple[str, str, str]]:
    asked = [(asked.method, asked.target, asked.fields.get("range", "")) for asked in server.asked]
    server.asked.clear()
    return asked


def value(store: Any, key: str, part: Any = None, *, sync: bool = False) -> bytes | None:
    if sync:
        found = store.get_sync(key, prototype=BUFFERS, byte_range=part)
    else:
        found = asyncio.run(store.get(key, BUFFERS, part))
    return None if found is None else bytes(found.to_bytes())


def ranges(store: Any, key: str, parts: list[Any], *, sync: bool = False, **options: Any) -> list[Any]:
    """The batches of `get_ranges`, as bytes."""
    if sync:
        batches = [store.get_ranges_sync(key, parts, prototype=BUFFERS, **options)]
    else:

        async def read() -> list[Any]:
            return [batch async for batch in store.get_ranges(key, parts, prototype=BUFFERS, **options)]

        batches = asyncio.run(read())
    return [[(index, bytes(found.to_bytes())) for index, found in batch] for batch in batches]


# --- what is requested ---------------------------------------------------------------------------------------


def test_a_whole_chunk_is_one_get(root: Path) -> None:
    with served(root) as server:
        array = zarr.open_array(ZarrStore(server.url), path="plain", mode="r")
        requests(server)
        assert (array[:16, :16] == NUMBERS[:16, :16]).all()
        assert [(method, target) for method, target, _ in requests(server)] == [("GET", "/plain/c/0/0")]
        assert (array[:] == NUMBERS).all()
        assert sorted(target for _, target, _ in requests(server)) == sorted(
            f"/plain/c/{row}/{column}" for row in range(4) for column in range(4)
        )


def test_a_part_of_a_shard_is_its_suffix_and_ranges(root: Path) -> None:
    with served(root) as server:
        array = zarr.open_array(ZarrStore(server.url), path="sharded", mode="r")
        requests(server)
        assert (array[:8, :8] == NUMBERS[:8, :8]).all()
        index = 16 * 16 + 4
        (_, _, suffix), (_, _, chunk) = found = requests(server)
        assert [(method, target) for method, target, _ in found] == [("GET", "/sharded/c/0/0")] * 2
        assert suffix == f"bytes=-{index}"
        assert re.fullmatch(r"bytes=\d+-\d+", chunk)


@pytest.mark.parametrize("sync", [False, True])
def test_ranges_of_a_shard_are_one_call(tmp_path: Path, sync: bool) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "shard").write_bytes(data)
    parts = [
        Range(2_000_000, 2_000_100),
        Range(0, 100),
        None,
        Range(1_100, 1_200),
        Suffix(5),
        Offset(2_999_990),
    ]
    wanted = [data[2_000_000:2_000_100], data[:100], data, data[1_100:1_200], data[-5:], data[-10:]]
    with served(tmp_path) as server:
        store = ZarrStore(server.url)
        assert ranges(store, "shard", parts, sync=sync) == [[*enumerate(wanted)]]
        requests(server)
        near = [Range(start, start + 100) for start in (0, 1_000, 500_000, 1_500_000)]
        # zarr's gap of a MiB would make it two requests, for a third of the object
        assert len(ranges(store, "shard", near, sync=sync)[0]) == 4
        assert len(requests(server)) == 3
        ranges(store, "shard", near, sync=sync, max_gap_bytes=0)
        assert len(requests(server)) == 4
        ranges(ZarrStore(server.url, gap="auto"), "shard", near, sync=sync)
        assert len(requests(server)) == 3
        ranges(ZarrStore(server.url, gap=None), "shard", near, sync=sync)
        assert len(requests(server)) == 4
    assert ranges(store, "shard", [], sync=sync) in ([], [[]])
    assert ranges(ZarrStore(tmp_path), "shard", parts, sync=sync) == [[*enumerate(wanted)]]


def test_many_values_come_in_order_from_a_generator(root: Path) -> None:
    keys = ["plain/c/3/3", "none", "plain/c/0/1", "zarr.json"]
    store = ZarrStore(root)

    async def read() -> list[Any]:
        asked = ((key, Range(1, 9)) for key in keys)
        return [await store.get_partial_values(BUFFERS, asked), await store.get_partial_values(BUFFERS, [])]

    found, nothing = asyncio.run(read())
    data = [(root / key).read_bytes()[1:9] if key != "none" else None for key in keys]
    assert [part and bytes(part.to_bytes()) for part in found] == data
    assert nothing == []


def test_values_are_in_flight_together() -> None:
    """Each answer waits for all requests."""
    import threading

    together = threading.Barrier(4, timeout=20)

    def script(asked: Asked) -> Answer:
        together.wait()
        return with_suffixes(b"data", asked)

    with scripted(script) as server:
        store = ZarrStore(server.url)

        async def read() -> list[Any]:
            found: list[Any] = await store.get_partial_values(BUFFERS, [(key, None) for key in "abcd"])
            return found

        assert [bytes(part.to_bytes()) for part in asyncio.run(read())] == [b"data"] * 4


@pytest.mark.parametrize("sync", [False, True])
def test_no_descriptor_is_left(root: Path, sync: bool) -> None:
    store = ZarrStore(root)
    value(store, "zarr.json", sync=sync)
    before = os.listdir("/proc/self/fd")
    for part in (None, Range(0, 3), Suffix(2)):
        value(store, "zarr.json", part, sync=sync)
        value(store, "none", part, sync=sync)
    ranges(store, "zarr.json", [Range(0, 3)], sync=sync)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_readers_of_shards_are_kept_but_not_all() -> None:
    with scripted(lambda asked: with_suffixes(b"data", asked)) as server:
        store = ZarrStore(server.url)
        for number in [*range(300), 299]:
            value(store, str(number), Suffix(2), sync=True)
        kept = store._at_once._readers
        assert list(kept) == [str(number) for number in range(44, 300)]
        store.close()
        assert not kept
        assert value(store, "1", Suffix(2), sync=True) == b"ta"


# --- what is there, and what is not --------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("part", [None, Range(0, 2), Offset(3), Suffix(1)])
def test_no_such_key(root: Path, part: Any, sync: bool) -> None:
    store = ZarrStore(root)
    for key in ("none", "plain", "plain/none", "zarr.json/below", ""):
        assert value(store, key, part, sync=sync) is None
    memory = ZarrStore("memory://", objects={"a": b"data"})
    assert value(memory, "none", part, sync=sync) is None
    with served(root) as server:
        assert value(ZarrStore(server.url), "none", part, sync=sync) is None


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("status", [401, 403, 500, 503])
@pytest.mark.parametrize("part", [None, Range(0, 2), Suffix(1)])
def test_a_server_that_fails_is_an_error(sync: bool, status: int, part: Any) -> None:
    with scripted(lambda asked: reply(status)) as server:
        store = ZarrStore(server.url, retry=1)
        with pytest.raises(rangeio.Error) as raised:
            value(store, "key", part, sync=sync)
        assert raised.value.http_status == status


def test_a_bucket_or_root_that_is_not_there_is_an_error(tmp_path: Path, seaweedfs: S3Server) -> None:
    with pytest.raises(rangeio.NotFoundError):
        value(ZarrStore("s3://no-such-bucket/a", **seaweedfs.options), "zarr.json")
    write(tmp_path / "gone")
    array = zarr.open_array(ZarrStore(tmp_path / "gone"), path="plain", mode="r")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(rangeio.NotFoundError):
        array[:]
    with pytest.raises(rangeio.NotFoundError):
        asyncio.run(ZarrStore(tmp_path / "gone").is_empty(""))


def test_ranges_of_no_key(root: Path) -> None:
    for sync in (False, True):
        with pytest.raises(BaseExceptionGroup) as raised:  # type: ignore[name-defined] # noqa: F821
            ranges(ZarrStore(root), "none", [Range(0, 2)], sync=sync)
        assert raised.group_contains(FileNotFoundError)
        with (
            scripted(lambda asked: reply(500)) as server,
            pytest.raises(BaseExceptionGroup) as raised,  # type: ignore[name-defined] # noqa: F821
        ):
            ranges(ZarrStore(server.url, retry=1), "none", [Range(0, 2)], sync=sync)
        assert raised.group_contains(rangeio.ServerError)


def test_keys(root: Path, seaweedfs: S3Server) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            seaweedfs.put(f"keys/{path.relative_to(root)}", path.read_bytes())

    async def check(store: Any) -> None:
        assert await store.exists("zarr.json")
        assert not await store.exists("plain")
        assert not await store.exists("zarr.json/below")
        assert await store.getsize("plain/c/0/0") == 16 * 16 * 4
        for key in ("none", "plain", "zarr.json/below"):
            with pytest.raises(FileNotFoundError):
                await store.getsize(key)
        assert await store.getsize_prefix("plain/c") == NUMBERS.nbytes
        assert {name async for name in store.list_dir("")} == {"plain", "sharded", "zarr.json"}
        assert {name async for name in store.list_dir("sharded/c/")} == {"0", "1"}
        assert [key async for key in store.list_prefix("plai")] == []
        assert len([key async for key in store.list_prefix("plain")]) == 17
        assert [key async for key in store.list_dir("none")] == []
        assert await store.is_empty("none")
        assert not await store.is_empty("plain")

    for store in (ZarrStore(root), ZarrStore(f"s3://{BUCKET}/keys", **seaweedfs.options)):
        asyncio.run(check(store))
        assert zarr.open_group(store, mode="r")["plain"].nchunks_initialized == 16


def test_without_listing(root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is not part of format 3
        zarr.consolidate_metadata(root)
    with served(root) as server:
        store = ZarrStore(server.url)
        assert not store.supports_listing
        group = zarr.open_group(store, mode="r")
        assert sorted(name for name, _ in group.members()) == ["plain", "sharded"]
        assert (group["sharded"][:] == NUMBERS).all()
        with pytest.raises(rangeio.UnsupportedError):
            asyncio.run(anext(store.list()))


# --- versions ------------------------------------------------------------------------------------------------


@contextmanager
def over(kind: str, root: Path) -> Iterator[Any]:
    if kind == "file":
        yield ZarrStore(root)
    else:
        with served(root) as server:
            yield ZarrStore(server.url)


def replace(root: Path, data: bytes | None) -> None:
    """A writer replaces the value of ``key``, or deletes it."""
    if data is None:
        (root / "key").unlink()
        return
    (root / "new").write_bytes(data)
    (root / "new").rename(root / "key")


@pytest.fixture(params=["file", "http"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("part", [None, Range(0, 3), Range(1, 3), Offset(1), Suffix(3)])
def test_a_replaced_key_is_read_anew(tmp_path: Path, kind: str, sync: bool, part: Any) -> None:
    replace(tmp_path, b"old data")
    with over(kind, tmp_path) as store:
        first = value(store, "key", part, sync=sync)
        replace(tmp_path, b"new bytes, and more of them")
        second = value(store, "key", part, sync=sync)
    cut = {None: slice(None), Range(0, 3): slice(3), Range(1, 3): slice(1, 3), Offset(1): slice(1, None)}
    where = cut.get(part, slice(-3, None))
    assert (first, second) == (b"old data"[where], b"new bytes, and more of them"[where])


@pytest.mark.parametrize("new", [b"new bytes, and more of them", b"OLD DATA", None])
@pytest.mark.parametrize("index", [Suffix(3), Range(0, 3)])
def test_no_chunk_of_another_version_than_the_index(
    tmp_path: Path, kind: str, new: bytes | None, index: Any
) -> None:
    replace(tmp_path, b"old data")
    with over(kind, tmp_path) as store:

        async def read() -> None:
            await store.get("key", BUFFERS, index)
            assert bytes((await store.get("key", BUFFERS, Range(3, 5))).to_bytes()) == b" d"
            replace(tmp_path, new)
            # another reader of the same store takes notice; the first one still must
            if new is not None:
                await asyncio.create_task(store.get("key", BUFFERS, Suffix(3)))
            with pytest.raises(rangeio.ObjectChangedError, match="'key'"):
                await store.get("key", BUFFERS, Range(3, 5))

        asyncio.run(read())

        async def read_ranges() -> None:
            await store.get("key", BUFFERS, index)
            replace(tmp_path, b"third")
            with pytest.raises(BaseExceptionGroup) as raised:  # type: ignore[name-defined] # noqa: F821
                _ = [batch async for batch in store.get_ranges("key", [Range(3, 5)], prototype=BUFFERS)]
            assert raised.group_contains(rangeio.ObjectChangedError)
            assert bytes((await store.get("key", BUFFERS, Range(0, 2))).to_bytes()) == b"th"

        replace(tmp_path, b"old data")
        asyncio.run(read_ranges())


def test_a_rewritten_array(tmp_path: Path, kind: str) -> None:
    for place in ("end", "start"):
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        write(tmp_path / "a", shards={"shape": (32, 32), "index_location": place})
        with over(kind, tmp_path / "a") as store:
            array = zarr.open_array(store, path="sharded", mode="r")
            assert (array[3:9, 5:40] == NUMBERS[3:9, 5:40]).all()
            write(tmp_path / "a", -NUMBERS, shards={"shape": (32, 32), "index_location": place})
            assert (array[3:9, 5:40] == -NUMBERS[3:9, 5:40]).all()


# --- the store as an object ----------------------------------------------------------------------------------


def test_it_refuses_what_writes(root: Path) -> None:
    store = ZarrStore(root)
    one = BUFFERS.buffer.from_bytes(b"1")
    calls: list[Callable[[], Any]] = [
        lambda: asyncio.run(store.set("a", one)),
        lambda: asyncio.run(store.set_if_not_exists("zarr.json", one)),
        lambda: asyncio.run(store.delete("a")),
        lambda: asyncio.run(store.delete_dir("a")),
        lambda: store.set_sync("a", one),
        lambda: store.delete_sync("a"),
        lambda: asyncio.run(ZarrStore(root, read_only=False).set("a", one)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="read-only mode and does not support writing"):
            call()
    for mode in ("a", "r+", "w"):
        with pytest.raises(ValueError, match="read-only"):
            zarr.open_group(store, mode=mode)
    with pytest.raises(NotImplementedError, match="with_read_only is not implemented"):
        store.with_read_only(False)
    assert store.with_read_only(True) == store
    assert not any([store.supports_writes, store.supports_deletes, store.supports_partial_writes])


@pytest.mark.parametrize("sync", [False, True])
def test_wrong_ranges(root: Path, sync: bool) -> None:
    with pytest.raises(TypeError, match=r"Unexpected byte_range, got \(0, 2\)"):
        value(ZarrStore(root), "zarr.json", (0, 2), sync=sync)
    with pytest.raises(ValueError):
        value(ZarrStore(root), "zarr.json", Range(-5, 2), sync=sync)
    with pytest.raises(rangeio.ConfigInvalidError):
        ZarrStore(root, no_such_option=1)


def test_equality_and_pickles(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    store = ZarrStore("data.zarr")
    same = pickle.loads(pickle.dumps(store))
    assert same == store == ZarrStore(root) == ZarrStore(rangeio.Operator("fs", root=str(root)))
    assert hash(same) == hash(store)
    assert store != ZarrStore(root, gap=5)
    assert store != ZarrStore(root, read_only=False)
    assert store != ZarrStore(root.parent)
    assert pickle.loads(pickle.dumps(ZarrStore(root, read_only=False))).read_only is False
    assert str(store) == str(root)
    secret = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrSECRET", "region": "eu-x-1"}
    s3 = ZarrStore("s3://bucket/a/b.zarr", **secret)
    assert repr(s3) == "ZarrStore('s3://bucket/a/b.zarr')"
    assert b"wJalrSECRET" not in pickle.dumps(s3)
    assert len(pickle.dumps(s3)) < 2000
    assert pickle.loads(pickle.dumps(s3)) == s3
    with_function = {"region": "eu-x-1", "credentials": lambda: ("AKID", "wJalrSECRET")}
    assert ZarrStore("s3://bucket/a", **with_function) == ZarrStore("s3://bucket/a", **with_function)
    web = ZarrStore("https://user:word@host/a.zarr")
    assert repr(web) == "ZarrStore('https://host/a.zarr')"
    assert b"word" not in pickle.dumps(web)
    kept = ZarrStore(rangeio.Operator("fs", root=str(root)), gap=7)
    assert pickle.loads(pickle.dumps(kept)) == kept != ZarrStore(root)


def test_an_operator(root: Path) -> None:
    objects = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    store = ZarrStore(rangeio.Operator("memory", objects=objects), chunk=100)
    assert store._supports_sync_io
    assert (zarr.open_group(store, mode="r")["sharded"][1:50] == NUMBERS[1:50]).all()
    assert not ZarrStore("s3://bucket/a", region="r")._supports_sync_io


def test_threads_and_loops(root: Path) -> None:
    with served(root) as server:
        for store in (ZarrStore(root), ZarrStore(server.url)):
            array = zarr.open_array(store, path="sharded", mode="r")
            with ThreadPoolExecutor(4) as pool:
                for found in pool.map(array.__getitem__, range(0, 64, 4)):
                    assert found[0] == found[1] - 1
            assert value(store, "zarr.json") == value(store, "zarr.json", sync=True)


def test_other_processes(root: Path, auto_lab: Lab) -> None:
    """A forked child, and one that gets the store as a pickle."""
    with served(root) as server:
        stores = [ZarrStore(root), ZarrStore(server.url)]
        for store in stores:
            value(store, "sharded/c/0/0", Suffix(3))
        child = os.fork()
        if child == 0:
            well = all(value(store, "sharded/c/0/0", Suffix(3), sync=True) for store in stores)
            os._exit(0 if well else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        program = code(f"""
            import pickle, zarr
            for data in {[pickle.dumps(store) for store in stores]!r}:
                array = zarr.open_array(pickle.loads(data), path="sharded", mode="r")
                say(total=float(array[:].sum()))
        """)
        assert auto_lab.run(program).facts() == {"total": float(NUMBERS.sum())}


def test_it_is_imported_when_it_is_used(auto_lab: Lab) -> None:
    program = code("""
        import sys
        import rangeio
        assert not [name for name in sys.modules if name.startswith(("zarr", "rangeio.adapters.zarr"))]
        sys.modules["zarr"] = None
        try:
            import rangeio.adapters.zarr
        except ImportError as error:
            say(told=str(error))
    """)
    assert "pip install 'rangeio[zarr]'" in auto_lab.run(program).facts()["told"]


def test_the_fused_pipeline(root: Path) -> None:
    """Of zarr 3.4: files by `get_sync` in its threads, a network awaited."""
    if not hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"):
        pytest.skip("zarr has no FusedCodecPipeline")
    fused = {"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}
    with zarr.config.set(fused), served(root) as server:
        for store in (ZarrStore(root), ZarrStore(server.url)):
            arrays = [zarr.open_array(store, path=name, mode="r") for name in ("plain", "sharded")]
            for array in arrays:
                assert (array[:] == NUMBERS).all()
            requests(server)
            assert (arrays[1][3:29, 5:20] == NUMBERS[3:29, 5:20]).all()
            assert len(requests(server)) in (0, 2)
