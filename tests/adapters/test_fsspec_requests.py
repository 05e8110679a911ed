"""What the calls of `rangeio.fsspec` cost, counted by a server; and what they share with every fsspec file system."""

import asyncio
import io
import logging
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, reply, scripted, with_suffixes

import rangeio

fsspec = need_module("fsspec")
need_module("urllib3")
rf = need_module("rangeio.fsspec")
translation = need_module("rangeio.fsspec.translation")

KINDS = [getattr(rf, name) for name in rf.__all__ if name.endswith("FileSystem")]
DATA = bytes(range(256)) * 400
OBJECTS = {
    "top/a/one": DATA,
    "top/a/b/two": b"2" * 10,
    "top/lines": b"a\nb\nc\n",
    "top/three": b"",
    "other/x": b"x",
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No instance of another test is handed out."""
    yield
    for kind in KINDS:
        kind.clear_instance_cache()


def page_of(objects: dict[str, bytes], query: dict[str, list[str]]) -> bytes:
    """A listing of S3, as one page."""
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    parts = dict.fromkeys(
        f"<CommonPrefixes><Prefix>{key[: key.index('/', len(prefix)) + 1]}</Prefix></CommonPrefixes>"
        if delimiter and "/" in key[len(prefix) :]
        else f"<Contents><Key>{key}</Key><Size>{len(objects[key])}</Size></Contents>"
        for key in sorted(objects)
        if key.startswith(prefix)
    )
    return f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode()


@contextmanager
def bucket(also: Callable[[Asked], Any] = lambda _: None, **options: Any) -> Iterator[tuple[Scripted, Any]]:
    """A server of S3 with the bucket `bb`, and a file system. also: is called with each request."""
    objects = dict(OBJECTS)

    def script(asked: Asked) -> Answer:
        also(asked)
        path, _, query = asked.target.partition("?")
        key = unquote(path).removeprefix("/bb").removeprefix("/")
        if asked.method == "GET" and "list-type" in query:
            return reply(200, page_of(objects, parse_qs(query)))
        return with_suffixes(objects[key], asked) if key in objects else reply(404)

    with scripted(script) as server:
        yield server, rf.S3FileSystem(anon=True, endpoint_url=server.url, skip_instance_cache=True, **options)


def kinds_of(server: Scripted) -> list[str]:
    """What was asked since the last call: HEAD, GET, list (of one level) or list all."""
    found = []
    for asked in server.asked:
        listing = "list-type" in asked.target
        level = "delimiter" in parse_qs(asked.target.partition("?")[2])
        found.append(("list" if level else "list all") if listing else asked.method)
    server.asked.clear()
    return found


class Meeting:
    """Whoever comes waits until all are there that are expected; a second visit of one counts nothing."""

    def __init__(self, expected: set[str]) -> None:
        self._missing = set(expected)
        self._complete = threading.Event()

    def come(self, name: str) -> None:
        self._missing.discard(name)
        if not self._missing:
            self._complete.set()
        assert self._complete.wait(30)


# --- facts ---------------------------------------------------------------------------------------------------

COSTS: list[Any] = [
    ("info", "bb/top/a/one", ["HEAD"]),
    ("exists", "bb/top/a/one", ["HEAD"]),
    ("isfile", "bb/top/a/one", ["HEAD"]),
    ("size", "bb/top/a/one", ["HEAD"]),
    ("info", "bb/top/a", ["HEAD", "list"]),
    ("exists", "bb/top/none", ["HEAD", "list"]),
    ("isdir", "bb/top/a", ["list"]),
    ("isdir", "bb/top/none", ["list"]),
    ("ls", "bb/top", ["list"]),
    ("ls", "bb/top/a/one", ["list", "HEAD"]),
    ("find", "bb/top", ["list all"]),
    ("glob", "bb/top/**/two", ["list all"]),
    ("du", "bb/top", ["list all"]),
    ("cat_file", "bb/top/a/one", ["GET"]),
    ("cat", "bb/top/a/one", ["GET"]),
]


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
@pytest.mark.parametrize(("name", "path", "sent"), COSTS, ids=[f"{name}-{path}" for name, path, _ in COSTS])
def test_requests_of_a_call(name: str, path: str, sent: list[str], awaited: bool) -> None:
    with bucket() as (server, fs):
        if awaited:
            asyncio.run(getattr(fs, f"_{name}")(path))
        else:
            getattr(fs, name)(path)
        assert kinds_of(server) == sent


def test_entries_have_the_names_that_users_know(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    names = {"name", "size", "type", "mtime", "LastModified", "ETag", "etag", "version_id"}
    memory = rf.MemoryFileSystem(objects=OBJECTS)
    with bucket() as (server, fs):
        found = [fs.info("bb/top/a/one"), fs.ls("bb/top/a")[-1], *fs.find("bb/top", detail=True).values()]
        found += [memory.info("top/lines"), rf.PosixFileSystem().info(str(tmp_path / "x"))]
        found += [rf.HttpFileSystem().info(f"{server.url}/bb/top/lines")]
    assert all(names <= {*entry} for entry in found)


def test_what_tells_a_version() -> None:
    with bucket() as (_, fs):
        one = fs.ukey("bb/top/a/one")
        assert one == '"v1"'
        assert fs.checksum("bb/top/a/one") == fs.checksum("bb/top/lines") == rf.filesystem.hash_of(one)


def test_walk() -> None:
    expected = [
        ("bb/top", ["a"], ["lines", "three"]),
        ("bb/top/a", ["b"], ["one"]),
        ("bb/top/a/b", [], ["two"]),
    ]

    async def walked(fs: Any) -> list[Any]:
        return [step async for step in fs._walk("bb/top")]

    with bucket() as (server, fs):
        assert [*fs.walk("bb/top")] == asyncio.run(walked(fs)) == expected
        assert kinds_of(server) == ["list"] * 6
        assert [*fs.walk("bb/top", topdown=False)] == expected[::-1]


def test_listings_expire_and_are_few() -> None:
    with bucket(use_listings_cache=True) as (server, fs):
        fs.ls("bb/top")
        fs.ls("bb/top")
        assert kinds_of(server) == ["list"]
    with bucket(use_listings_cache=True, listings_expiry_time=1e-9) as (server, fs):
        fs.ls("bb/top")
        fs.ls("bb/top")
        assert kinds_of(server) == ["list", "list"]
    with bucket(use_listings_cache=True, max_paths=1) as (server, fs):
        for path in ("bb/top", "bb/other", "bb/top/a", "bb/top/a", "bb/top"):  # fsspec keeps one more
            fs.ls(path)
        assert kinds_of(server) == ["list"] * 4


# --- contents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
def test_max_gap_merges(awaited: bool) -> None:
    with bucket() as (server, fs):
        for gap, sent in ((0, 2), (1_000, 1), (None, 1)):
            arguments = (["bb/top/a/one"] * 2, [0, 500], [10, 510])
            call = fs._cat_ranges if awaited else fs.cat_ranges
            found = call(*arguments, max_gap=gap)
            assert (asyncio.run(found) if awaited else found) == [DATA[:10], DATA[500:510]]
            assert kinds_of(server) == ["GET"] * sent, gap


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
@pytest.mark.parametrize("name", ["cat", "cat_ranges", "get"])
def test_many_files_at_once(name: str, awaited: bool, tmp_path: Path) -> None:
    """The server answers when eight have asked."""
    paths = [f"bb/many/{number}" for number in range(8)]
    meeting = Meeting({f"/{path}" for path in paths})
    arguments: dict[str, tuple[Any, ...]] = {
        "cat": (paths,),
        "cat_ranges": (paths, 0, 3),
        "get": (paths, [str(tmp_path / path) for path in paths]),
    }

    def script(asked: Asked) -> Answer:
        if asked.method == "GET":
            meeting.come(asked.target)
        return with_suffixes(asked.target.encode(), asked)

    with scripted(script) as server:
        fs = rf.S3FileSystem(anon=True, endpoint_url=server.url, skip_instance_cache=True)
        if awaited:
            asyncio.run(getattr(fs, f"_{name}")(*arguments[name]))
        else:
            getattr(fs, name)(*arguments[name])
        assert server.connections >= len(paths)


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
def test_whether_many_are_folders_is_asked_at_once(awaited: bool, tmp_path: Path) -> None:
    meeting = Meeting({"top/a/one/", "top/lines/", "top/three/"})

    def also(asked: Asked) -> None:
        (prefix,) = parse_qs(asked.target.partition("?")[2]).get("prefix", [""])
        if prefix in ("top/a/one/", "top/lines/", "top/three/"):
            meeting.come(prefix)

    with bucket(also) as (_, fs):
        found = fs._cat("bb/top", recursive=True) if awaited else fs.cat("bb/top", recursive=True)
        assert len(asyncio.run(found) if awaited else found) == 4


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
def test_cat_of_several(awaited: bool) -> None:
    def cat(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(fs._cat(*args, **kwargs)) if awaited else fs.cat(*args, **kwargs)

    with bucket() as (_, fs):
        below = {"bb/top/a/one": DATA, "bb/top/a/b/two": b"2" * 10}
        assert cat("bb/top/a", recursive=True) == below
        assert cat("bb/top/a/b/two", recursive=True) == {"bb/top/a/b/two": b"2" * 10}
        assert cat([*below], start=1, end=-7) == {path: data[1:-7] for path, data in below.items()}
        assert cat("bb/top/a/one", start=-3) == DATA[-3:]
        assert cat("bb/top/l*", start=2) == {"bb/top/lines": b"b\nc\n"}
        with pytest.raises(FileNotFoundError):
            cat(["bb/top/a/one", "bb/top/none"])
        assert cat(["bb/top/lines", "bb/top/none"], on_error="omit") == {"bb/top/lines": OBJECTS["top/lines"]}
        found = cat(["bb/top/lines", "bb/top/none"], on_error="return")
        assert isinstance(found["bb/top/none"], FileNotFoundError)
        with pytest.raises(rangeio.ConfigInvalidError, match="on_error"):
            cat(["bb/top/lines", "bb/top/three"], on_error="ignore")


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
@pytest.mark.parametrize("name", ["one", "lines", "three"])
def test_a_file_is_copied_by_one_request(name: str, awaited: bool, tmp_path: Path) -> None:
    key = {"one": "top/a/one"}.get(name, f"top/{name}")
    callback = fsspec.callbacks.Callback()
    with bucket() as (server, fs):
        if awaited:
            asyncio.run(fs._get_file(f"bb/{key}", str(tmp_path / name), callback=callback))
        else:
            fs.get_file(f"bb/{key}", str(tmp_path / name), callback=callback)
        assert kinds_of(server) == ["GET"]
    assert (tmp_path / name).read_bytes() == OBJECTS[key]
    assert callback.size == callback.value == len(OBJECTS[key])


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
def test_a_failed_copy_leaves_no_file(awaited: bool, tmp_path: Path) -> None:
    data = bytes(20 << 20)

    def script(asked: Asked) -> Answer:
        return reply(500) if (asked.range or (0, 0))[0] > 9 << 20 else with_suffixes(data, asked)

    with scripted(script) as server:
        fs = rf.HttpFileSystem(retry=1, skip_instance_cache=True)
        into = str(tmp_path / "x")

        def copy() -> None:
            asyncio.run(fs._get_file(server.url, into)) if awaited else fs.get_file(server.url, into)

        with pytest.raises(rangeio.ServerError):
            copy()
    assert os.listdir(tmp_path) == []


def test_methods_that_every_file_system_has(tmp_path: Path) -> None:
    fs = rf.MemoryFileSystem(objects=OBJECTS)
    assert (fs.head("top/a/one", 4), fs.tail("top/a/one", 4)) == (DATA[:4], DATA[-4:])
    assert fs.read_block("top/lines", 1, 3, b"\n") == b"b\nc\n"
    assert (fs.read_text("top/lines"), fs.read_bytes("top/lines", 2, 3)) == ("a\nb\nc\n", b"b")
    assert (
        fs.sizes(["top/lines", "top/three"]) == asyncio.run(fs._sizes(["top/lines", "top/three"])) == [6, 0]
    )
    assert fs.lexists("top/lines")
    assert fs.stat("top/lines") == fs.info("top/lines")
    assert fs.listdir("other", detail=False) == ["other/x"]
    assert fs.du("top", total=False)["top/a/one"] == len(DATA)
    assert "three" in fs.tree("top")
    assert fs.expand_path("top/a", recursive=True) == ["top/a", "top/a/b", "top/a/b/two", "top/a/one"]
    fs.download("top/lines", str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"a\nb\nc\n"
    assert asyncio.run(fs._cat("top/l*")) == fs.cat("top/l*") == {"top/lines": b"a\nb\nc\n"}
    mapper = fs.get_mapper("top")
    assert sorted(mapper) == ["a/b/two", "a/one", "lines", "three"]
    assert (mapper["lines"], "a/one" in mapper, "x" in mapper) == (b"a\nb\nc\n", True, False)
    assert mapper.getitems(["lines", "x"], on_error="omit") == {"lines": b"a\nb\nc\n"}
    with pytest.raises(rf.ReadOnlyError):
        mapper["x"] = b"1"
    with pytest.raises(rf.ReadOnlyError):
        fs.get_mapper("new", create=True)
    mapper.clear()  # fsspec hides what its calls raise
    assert mapper.pop("lines") == fs.cat_file("top/lines")


def test_file_systems_of_fsspec_over_ours(tmp_path: Path) -> None:
    fs = rf.MemoryFileSystem(objects=OBJECTS)
    for protocol in ("simplecache", "filecache"):
        kept = fsspec.filesystem(protocol, fs=fs, cache_storage=str(tmp_path / protocol))
        assert kept.cat("top/lines") == OBJECTS["top/lines"]
        with kept.open("top/a/one") as file:
            assert file.read() == DATA
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("d/a", "in a zip")
    packed = rf.MemoryFileSystem(objects={"z": (tmp_path / "z").read_bytes()})
    with packed.open("z") as file:
        inner = fsspec.filesystem("zip", fo=file, skip_instance_cache=True)
        assert (inner.find(""), inner.cat("d/a")) == (["d/a"], b"in a zip")
        inner.close()
    assert fsspec.filesystem("dir", path="top/a", fs=fs).find("") == ["b/two", "one"]


def test_references_to_parts() -> None:
    with scripted(lambda asked: with_suffixes(DATA, asked)) as server:
        refs = {"x": [server.url + "/a", 2, 3], "y": [server.url + "/a", 90, 5], "z": "inline"}
        given = {"fo": {"version": 1, "refs": refs}, "skip_instance_cache": True}
        fs = fsspec.filesystem("reference", **given, fs={"http": rf.HttpFileSystem()})
        assert fs.cat(["x", "y", "z"]) == {"x": DATA[2:5], "y": DATA[90:95], "z": b"inline"}
        ours = {"http": rf.HttpFileSystem(asynchronous=True)}
        fs = fsspec.filesystem("reference", **given, fs=ours, asynchronous=True)
        assert asyncio.run(fs._cat(["x", "y"])) == {"x": DATA[2:5], "y": DATA[90:95]}


def test_writing_sends_nothing() -> None:
    module = need_module("rangeio.fsspec.read_only")
    with bucket() as (server, fs):
        for name in module.SYNC:
            with pytest.raises(rf.ReadOnlyError):
                getattr(fs, name)("bb/top/a/one", "bb/top/new")
        for mode in ("wb", "ab", "xb", "r+b"):
            with pytest.raises(rf.ReadOnlyError):
                fs.open("bb/top/new", mode)
            with pytest.raises(rf.ReadOnlyError):
                asyncio.run(fs.open_async("bb/top/new", mode))
        assert not server.asked


# --- names and options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_class_says_what_others_ask_for(kind: Any) -> None:
    assert kind.__name__ != "LocalFileSystem"
    assert kind.async_impl
    assert not kind.mirror_sync_methods
    assert isinstance(kind.protocol, tuple)
    assert kind.protocol[0].startswith("rangeio+")
    assert "abstract" not in kind.protocol


def test_importing_serves_nothing_new(lab: Lab) -> None:
    program = code(
        """
        import fsspec
        from fsspec.registry import _registry
        before = dict(_registry)
        import rangeio.fsspec, rangeio.arrow
        say(same=dict(_registry) == before,
            theirs=[fsspec.get_filesystem_class(name).__module__ for name in ("http", "file")])
        """
    )
    facts = lab.run(program).facts()
    assert facts["same"]
    assert all(module.startswith("fsspec.") for module in facts["theirs"])


def test_options_of_reading_pass_through() -> None:
    reading = {
        "gap": 3,
        "chunk": 1 << 20,
        "concurrent": 2,
        "timeout": 3.0,
        "retry": 2,
        "on_no_range": "download",
    }
    for kind in (rf.S3FileSystem, rf.HttpFileSystem):
        fs = kind(**reading, hedge=0.5)
        assert {name: fs.operator.options[name] for name in reading} == reading
        assert fs.operator.options["hedge"] == 0.5
    with bucket() as (_, fs):
        assert fs.cat_file("bb/top/a/one", 0, 5_000, chunk=1_000) == DATA[:5_000]
        assert fs.open("bb/top/a/one", retry=1, timeout=5.0).read(3) == DATA[:3]
        with pytest.raises(rangeio.ConfigInvalidError, match="did you mean 'retry'"):
            fs.open("bb/top/a/one", rety=1)


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
def test_options_of_one_call(awaited: bool) -> None:
    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if awaited:
            return asyncio.run(getattr(fs, f"_{name}")(*args, **kwargs))
        return getattr(fs, name)(*args, **kwargs)

    one = "bb/top/a/one"
    spans = [([one], [0], [4]), ([one, one], [0, 9_000], [4, 9_004]), ([one, "bb/top/lines"], [0, 0], [4, 4])]
    fields = {"version": "7", "timeout": 5.0, "retry": 1}
    with bucket() as (server, fs):
        for span in spans:
            assert call("cat_ranges", *span, max_gap=0, chunk=2, **fields)[0] == DATA[:4]
            assert all("versionId=7" in asked.target for asked in server.asked)
            server.asked.clear()
            with pytest.raises(rangeio.ConfigInvalidError, match="did you mean 'retry'"):
                call("cat_ranges", *span, rety=1)
            assert not server.asked
        assert call("cat", [one, "bb/top/lines"], **fields)[one] == DATA
        assert call("cat_file", "bb/top/lines", version_id="2") == OBJECTS["top/lines"]
        assert call("cat_file", "bb/top/lines", version_id=None) == OBJECTS["top/lines"]
        versions = [asked.target.partition("versionId=")[2] for asked in server.asked]
        assert versions[-2:] == ["2", ""]


def test_options_without_effect_and_of_profiles() -> None:
    given = dict.fromkeys(translation.WITHOUT_EFFECT, 1)
    assert translation.translated("s3", given) == translation.translated("http", given) == {}
    assert translation.translated("s3", {"profile": "work"}) == {"profile": "work"}


def test_secrets_are_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = {"key": "AKEY", "secret": "BSECRET", "token": "CTOKEN"}
    told = []
    with scripted(lambda _: reply(403)) as server:
        fs = rf.S3FileSystem(**keys, endpoint_url=server.url, retry=1, skip_instance_cache=True)
        for call in (fs.info, fs.cat_file, fs.ls, lambda path: fs.open(path).read(1)):
            with pytest.raises(PermissionError) as caught:
                call("bb/top/a/one")
            told.append(str(caught.value))
    with pytest.raises(rangeio.ConfigInvalidError) as caught_too:
        rf.S3FileSystem(**keys, secrett="BSECRET")
    told += [str(caught_too.value), caplog.text]
    for text in told:
        assert not any(secret in text for secret in keys.values())


def test_as_a_file_of_the_io_module() -> None:
    with bucket() as (_, fs), fs.open("bb/top/a/one", block_size=1 << 20) as file:
        assert isinstance(file, io.BufferedIOBase)
        assert (file.blocksize, file.fs, file.path) == (1 << 20, fs, "bb/top/a/one")
        assert io.TextIOWrapper(file, "latin-1").read(2) == "\0\1"
