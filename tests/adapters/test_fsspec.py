"""`rangeio.fsspec`: names, options, facts and contents, over files, a scripted server and SeaweedFS."""

import _thread
import asyncio
import json
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from faults.child import Lab, code
from faults.machine import need, need_module
from servers.s3 import BUCKET, S3Server
from servers.scripted import scripted, with_suffixes

import rangeio

fsspec = need_module("fsspec")
need_module("urllib3")
rf = need_module("rangeio.fsspec")

DATA = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No instance of another test is handed out."""
    yield
    for kind in (rf.S3FileSystem, rf.HttpFileSystem, rf.PosixFileSystem):
        kind.clear_instance_cache()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(DATA)
    (tmp_path / "a" / "b" / "two").write_bytes(b"2" * 10)
    (tmp_path / "three").write_bytes(b"")
    return tmp_path


@pytest.fixture
def stored(seaweedfs: S3Server) -> Any:
    for key, data in {"a/one": DATA, "a/b/two": b"2" * 10, "a.txt": b"text", "three": b""}.items():
        seaweedfs.put(f"fsspec/{key}", data)
    return s3_of(seaweedfs)


def s3_of(server: S3Server, **more: Any) -> Any:
    return rf.S3FileSystem(
        key=server.access_key_id,
        secret=server.secret_access_key,
        client_kwargs={"endpoint_url": server.url, "region_name": server.region},
        **more,
    )


# --- names and options ---------------------------------------------------------------------------------------


def test_entry_points() -> None:
    found = {point.name: point for point in entry_points(group="fsspec.specs")}
    need("rangeio+hf" in found, "rangeio was installed before it had these entry points of fsspec")
    assert found["rangeio+s3"].load() is rf.S3FileSystem
    assert found["rangeio+http"].load() is found["rangeio+https"].load() is rf.HttpFileSystem
    assert found["rangeio+file"].load() is rf.PosixFileSystem
    assert {point.load() for point in found.values() if point.name.startswith("rangeio+")} == {
        *(rf.S3FileSystem, rf.HttpFileSystem, rf.PosixFileSystem, rf.GcsFileSystem, rf.AzureFileSystem),
        *(rf.WebHdfsFileSystem, rf.MemoryFileSystem, rf.HfFileSystem),
    }


def test_import_rangeio_imports_none_of_it(lab: Lab) -> None:
    program = code(
        """
        import sys
        import rangeio
        say(found=[name for name in ("fsspec", "pyarrow", "obspec", "pandas") if name in sys.modules])
        """
    )
    assert lab.run(program).facts()["found"] == []


@pytest.mark.parametrize(
    ("module", "missing"), [("fsspec", "fsspec"), ("arrow", "pyarrow"), ("obspec", "obspec")]
)
def test_a_missing_package_is_named(lab: Lab, module: str, missing: str) -> None:
    program = code(
        """
        import importlib, sys
        sys.modules[sys.argv[2]] = None
        try:
            importlib.import_module(sys.argv[1])
        except ImportError as error:
            say(told=str(error))
        """
    )
    told = lab.run(program, f"rangeio.{module}", missing).facts()["told"]
    assert told == f"rangeio.{module} needs {missing}: pip install 'rangeio[{module}]'"


def test_no_class_has_the_name_that_pyarrow_replaces() -> None:
    kinds = (rf.S3FileSystem, rf.HttpFileSystem, rf.PosixFileSystem)
    assert "LocalFileSystem" not in {kind.__name__ for kind in kinds}
    for kind in kinds:
        assert kind.async_impl
        assert not kind.mirror_sync_methods
        assert isinstance(kind.protocol, tuple)
        assert "abstract" not in kind.protocol


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("rangeio+s3://bucket/key", "bucket/key"),
        ("s3a://bucket/a/", "bucket/a"),
        ("s3://", ""),
    ],
)
def test_paths_of_s3(url: str, path: str) -> None:
    assert rf.S3FileSystem._strip_protocol(url) == path


def test_paths_of_the_others(tmp_path: Path) -> None:
    strip = rf.HttpFileSystem._strip_protocol
    assert strip("rangeio+https://host/path?query=1") == "https://host/path?query=1"
    assert strip("http://host/a/") == "http://host/a/"
    assert rf.HttpFileSystem._parent("https://host/a/b?c=/d") == "https://host/a"
    assert rf.HttpFileSystem().unstrip_protocol("https://host/x") == "rangeio+https://host/x"
    strip = rf.PosixFileSystem._strip_protocol
    assert strip(f"rangeio+file://{tmp_path}") == strip(f"file://{tmp_path}/") == str(tmp_path)
    assert strip("file:///") == "/"


def test_options_of_s3fs() -> None:
    translated = need_module("rangeio.fsspec.translation").translated
    given = {
        "key": "A",
        "secret": "B",
        "token": "C",
        "requester_pays": True,
        "client_kwargs": {"endpoint_url": "http://inner", "region_name": "r", "verify": False},
        "default_block_size": 1,
        "config_kwargs": {},
        "gap": 7,
    }
    assert translated("s3", given) == {
        "access_key_id": "A",
        "secret_access_key": "B",
        "session_token": "C",
        "headers": {"x-amz-request-payer": "requester"},
        "endpoint_url": "http://inner",
        "region": "r",
        "verify": False,
        "gap": 7,
    }
    outer = {"endpoint_url": "http://outer", "client_kwargs": {"endpoint_url": "http://inner"}}
    assert translated("s3", outer)["endpoint_url"] == "http://outer"
    assert translated("s3", {"anon": True}) == {"anonymous": True}
    assert translated("s3", {"client_kwargs": {"verify": "/ca.pem"}}) == {"ca_file": "/ca.pem"}
    assert translated("s3", {"use_ssl": False})["endpoint_url"].startswith("http://s3.")
    client = {"headers": {"a": "b"}, "auth": ("u", "p", "latin1")}
    assert translated("http", {"client_kwargs": client}) == {"headers": {"a": "b"}, "auth": ("u", "p")}


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("S3FileSystem", {"secert": "x"}, "'secert'.*'secret'"),
        ("S3FileSystem", {"client_kwargs": {"region": "x"}}, "'region'.*'region_name'"),
        ("HttpFileSystem", {"key": "x"}, "'key'"),
        ("HttpFileSystem", {"concurent": 3}, "'concurent'.*'concurrent'"),
        ("PosixFileSystem", {"auto_mkdir": True}, "'auto_mkdir'"),
        ("S3FileSystem", {"bucket": "x"}, "'bucket'"),
    ],
)
def test_unknown_options(kind: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=told):
        getattr(rf, kind)(**given)


def test_secrets_are_kept_and_not_shown() -> None:
    fs = rf.S3FileSystem(key="AKEY", secret="BSECRET", token="CTOKEN", anon=None, gap=5)
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    assert again.storage_options["secret"] == "BSECRET"
    assert rf.S3FileSystem.from_json(fs.to_json()) == fs
    shown = [
        repr(fs),
        str(fs),
        fs.to_json(include_password=False),
        repr(fs.operator),
        repr(fs.open("bucket/k")),
    ]
    for text in shown:
        assert not any(secret in text for secret in ("AKEY", "BSECRET", "CTOKEN"))
    assert json.loads(shown[2])["gap"] == 5
    web = rf.HttpFileSystem(headers={"X-Key": "SECRET"}, client_kwargs={"auth": ("u", "SECRET")})
    assert "SECRET" not in web.to_json(include_password=False) + repr(web)


def test_instances_are_cached() -> None:
    assert rf.PosixFileSystem() is rf.PosixFileSystem()
    assert rf.PosixFileSystem(gap=1) is not rf.PosixFileSystem()


def test_constructing_and_reading_start_no_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("this would run in the thread fsspecIO")

    monkeypatch.setattr("fsspec.asyn.sync", refused)
    before, count = (
        {*threading.enumerate()},
        _thread._count(),
    )  # the latter also those that `threading` does not know
    fs = rf.PosixFileSystem()
    assert fs.cat_file(str(folder / "a/one")) == DATA
    assert len(fs.cat(str(folder / "a/*ne"))) == 1
    assert {*threading.enumerate()} == before
    assert _thread._count() <= count


# --- only reading --------------------------------------------------------------------------------------------


def test_nothing_is_written(folder: Path) -> None:
    module = need_module("rangeio.fsspec.read_only")
    fs = rf.PosixFileSystem()
    path = str(folder / "new")
    for name in module.SYNC:
        with pytest.raises(NotImplementedError, match="only reads") as caught:
            getattr(fs, name)(path, path)
        assert isinstance(caught.value, rangeio.UnsupportedError)
    for name in module.AWAITED:
        with pytest.raises(rf.ReadOnlyError):
            asyncio.run(getattr(fs, name)(path, path))
    for mode in ("w", "wb", "ab", "xb", "r+b", "rb+", "wt"):
        with pytest.raises(rf.ReadOnlyError):
            fs.open(path, mode)
    assert not (folder / "new").exists()
    with pytest.raises(rf.ReadOnlyError):
        fs.open(str(folder / "three")).write(b"x")


# --- registration --------------------------------------------------------------------------------------------


def test_register_and_unregister(tmp_path: Path) -> None:
    theirs = fsspec.get_filesystem_class("file")
    try:
        rf.register()
        for protocol in ("s3", "s3a"):
            assert fsspec.get_filesystem_class(protocol) is rf.S3FileSystem
        for protocol in ("http", "https"):
            assert fsspec.get_filesystem_class(protocol) is rf.HttpFileSystem
        assert fsspec.get_filesystem_class("file") is theirs
        rf.register("file")
        rf.register("file")
        (tmp_path / "x").write_bytes(b"abc")
        with fsspec.open(f"file://{tmp_path}/x") as file:
            assert isinstance(file, rf.ObjectFile)
            assert file.read() == b"abc"
    finally:
        rf.unregister()
    assert fsspec.get_filesystem_class("file") is theirs
    with pytest.raises(ValueError, match="'ftp'"):
        rf.register("ftp")
    rf.register("local")
    rf.unregister("local")
    rf.unregister("local", "s3")
    assert fsspec.get_filesystem_class("local") is theirs


# --- facts ---------------------------------------------------------------------------------------------------


def test_facts_of_files(folder: Path) -> None:
    fs = rf.PosixFileSystem()
    one = str(folder / "a/one")
    info = fs.info(one)
    assert (info["name"], info["size"], info["type"]) == (one, len(DATA), "file")
    assert info["mtime"] == os.stat(one).st_mtime == pytest.approx(info["LastModified"].timestamp())
    assert fs.modified(one) == info["LastModified"]
    assert fs.created(one) is not None
    assert fs.isfile(one)
    assert not fs.isdir(one)
    assert fs.isdir(str(folder))
    assert not fs.exists(one + "x")
    assert not fs.exists(one + "/x")
    assert fs.size(one) == len(DATA)
    assert fs.ls(str(folder), detail=False) == [str(folder / "a"), str(folder / "three")]
    assert fs.ls(one, detail=False) == [one]
    with pytest.raises(FileNotFoundError):
        fs.ls(str(folder / "none"))
    assert fs.find(str(folder)) == [str(folder / name) for name in ("a/b/two", "a/one", "three")]
    assert fs.glob(f"{folder}/a/*") == [str(folder / "a/b"), one]
    assert fs.du(str(folder)) == len(DATA) + 10
    assert fs.ukey(one) == fs.ukey(one) != fs.ukey(str(folder / "three"))


@pytest.mark.parametrize("awaited", [False, True])
def test_facts_of_objects(stored: Any, awaited: bool) -> None:
    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if awaited:
            return asyncio.run(getattr(stored, f"_{name}")(*args, **kwargs))
        return getattr(stored, name)(*args, **kwargs)

    top = f"{BUCKET}/fsspec"
    info = call("info", f"s3://{top}/a/one")
    assert (info["name"], info["size"], info["type"]) == (f"{top}/a/one", len(DATA), "file")
    assert info["ETag"] == info["etag"]
    assert info["LastModified"].timestamp() == info["mtime"]
    assert call("info", f"{top}/a")["type"] == "directory"
    assert call("info", BUCKET)["type"] == "directory"
    assert call("isdir", f"{top}/a")
    assert not call("isdir", f"{top}/a.txt")
    assert call("isfile", f"{top}/a.txt")
    assert not call("exists", f"{top}/none")
    assert not call("isdir", "no-such-bucket")
    names = [f"{top}/{name}" for name in ("a", "a.txt", "three")]
    assert call("ls", top, detail=False) == names
    assert [entry["type"] for entry in call("ls", top)] == ["directory", "file", "file"]
    assert call("ls", f"{top}/a.txt", detail=False) == [f"{top}/a.txt"]
    with pytest.raises(FileNotFoundError):
        call("ls", f"{top}/none")
    with pytest.raises(rangeio.UnsupportedError, match="buckets"):
        call("ls", "")
    files = [f"{top}/{name}" for name in ("a.txt", "a/b/two", "a/one", "three")]
    assert call("find", top) == files
    assert call("find", top, prefix="a") == files[:3]
    assert call("find", top, maxdepth=1) == [files[0], files[3]]
    assert call("find", top, maxdepth=2) == [files[0], *files[2:]]
    assert call("find", top, withdirs=True) == sorted([top, f"{top}/a", f"{top}/a/b", *files])
    assert call("find", f"{top}/a.txt") == [f"{top}/a.txt"]
    assert call("find", f"{top}/none") == []
    assert call("find", top, detail=True)[files[0]]["size"] == 4
    assert call("glob", f"{top}/*/*") == [f"{top}/a/b", f"{top}/a/one"]
    assert call("glob", f"{top}/**/two") == [f"{top}/a/b/two"]
    assert call("du", top) == len(DATA) + 14


def test_listings_are_cached_if_asked_for(seaweedfs: S3Server) -> None:
    top = f"{BUCKET}/cached"
    seaweedfs.put("cached/one", b"1")
    plain, cached = s3_of(seaweedfs), s3_of(seaweedfs, use_listings_cache=True)
    assert len(plain.ls(top)) == len(cached.ls(top)) == 1
    with pytest.raises(FileNotFoundError):
        cached.ls(f"{top}/new")
    seaweedfs.put("cached/new/two", b"2")
    assert len(plain.ls(top)) == 2
    assert len(cached.ls(top)) == 1
    assert len(cached.ls(f"{top}/new")) == 1
    assert len(cached.ls(top, refresh=True)) == 2
    seaweedfs.put("cached/three", b"3")
    cached.invalidate_cache(f"{top}/three")
    assert len(cached.ls(top)) == 3


def test_urls() -> None:
    with scripted(lambda asked: with_suffixes(DATA, asked)) as server:
        fs = rf.HttpFileSystem()
        url = server.url + "/x?y=1"
        assert fs.info(url)["size"] == len(DATA)
        assert [asked.method for asked in server.asked] == ["HEAD"]
        server.asked.clear()
        assert fs.glob(url) == asyncio.run(fs._glob(url)) == [url]
        assert [asked.method for asked in server.asked] == ["HEAD"] * 2
        assert fs.ls(url, detail=False) == fs.find(url) == [url]
        assert not fs.isdir(url)
        assert fs.isfile(f"rangeio+{url}")
        for call in (fs.ls, fs.glob, fs.find, fs.expand_path):
            with pytest.raises(rangeio.UnsupportedError, match="pattern"):
                call(server.url + "/*.csv")


# --- contents ------------------------------------------------------------------------------------------------

SPANS = [
    (None, None),
    (0, 10),
    (5, None),
    (None, 7),
    (-10, None),
    (-10, -3),
    (5, -100),
    (-20, len(DATA) - 5),
    (-(len(DATA) + 9), 4),
    (10, 5),
    (len(DATA) - 3, len(DATA) + 50),
    (len(DATA) + 5, len(DATA) + 9),
    (3, 3),
]


@pytest.mark.parametrize(("start", "end"), SPANS)
def test_cat_file_is_a_slice_and_one_request(start: Any, end: Any) -> None:
    with scripted(lambda asked: with_suffixes(DATA, asked)) as server:
        fs = rf.HttpFileSystem(retry=1, skip_instance_cache=True)
        url = server.url + "/x"
        found = fs.cat_file(url, start, end)
        assert type(found) is bytes
        assert found == DATA[start:end]
        assert len(server.asked) <= 1
        assert asyncio.run(fs._cat_file(url, start, end)) == DATA[start:end]
        assert len(server.asked) <= 2


def test_a_large_range_uses_all_connections() -> None:
    data = DATA * 100
    with scripted(lambda asked: with_suffixes(data, asked)) as server:
        fs = rf.HttpFileSystem(skip_instance_cache=True)
        assert fs.cat_file(server.url + "/x", 1, 9_000_000) == data[1:9_000_000]
        assert asyncio.run(fs._cat_file(server.url + "/x", 1, 9_000_000)) == data[1:9_000_000]
        assert len(server.asked) == 2 * 9


@pytest.mark.parametrize("awaited", [False, True])
def test_cat_ranges(folder: Path, awaited: bool) -> None:
    fs = rf.PosixFileSystem()
    one, two, none = (str(folder / name) for name in ("a/one", "a/b/two", "none"))

    def call(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(fs._cat_ranges(*args, **kwargs)) if awaited else fs.cat_ranges(*args, **kwargs)

    paths = [one, two, one, none, one, one]
    starts, ends = [0, None, -5, 0, 0, 50], [4, 3, None, 1, 4, -100]
    found = call(paths, starts, ends, max_gap=10)
    assert isinstance(found[3], FileNotFoundError)
    assert found[:3] == [DATA[:4], b"222", DATA[-5:]]
    assert found[4:] == [DATA[:4], DATA[50:-100]]
    assert call([one, two], 1, 3) == [DATA[1:3], b"22"]
    assert call([one], 1, 3) == [DATA[1:3]]
    assert call([], [], []) == []
    with pytest.raises(FileNotFoundError):
        call([one, none], 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="2 paths"):
        call([one, two], [0], [1])


def test_cat(stored: Any) -> None:
    top = f"{BUCKET}/fsspec"
    assert stored.cat(f"{top}/a/one") == DATA
    assert stored.cat([f"{top}/a/one", f"{top}/three"]) == {f"{top}/a/one": DATA, f"{top}/three": b""}
    assert stored.cat(f"{top}/a", recursive=True) == {f"{top}/a/one": DATA, f"{top}/a/b/two": b"2" * 10}
    assert stored.cat(f"{top}/a/*ne") == {f"{top}/a/one": DATA}
    missing = [f"{top}/a.txt", f"{top}/none"]
    assert stored.cat(missing, on_error="omit") == {f"{top}/a.txt": b"text"}
    assert isinstance(stored.cat(missing, on_error="return")[missing[1]], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        stored.cat(missing)


@pytest.mark.parametrize("awaited", [False, True])
def test_get(stored: Any, tmp_path: Path, awaited: bool) -> None:
    sizes: list[int] = []

    class Seen(fsspec.callbacks.Callback):  # type: ignore[misc, name-defined]
        def relative_update(self, inc: int = 1) -> None:
            sizes.append(inc)
            super().relative_update(inc)

    def get(name: str, *args: Any, **kwargs: Any) -> None:
        if awaited:
            asyncio.run(getattr(stored, f"_{name}")(*args, **kwargs))
        else:
            getattr(stored, name)(*args, **kwargs)

    callback = Seen()
    get("get_file", f"{BUCKET}/fsspec/a/one", str(tmp_path / "one"), callback=callback)
    assert (tmp_path / "one").read_bytes() == DATA
    assert (callback.size, callback.value, sum(sizes)) == (len(DATA),) * 3
    get("get", f"{BUCKET}/fsspec/", str(tmp_path / "all"), recursive=True)
    assert {str(p.relative_to(tmp_path / "all")) for p in (tmp_path / "all").rglob("*") if p.is_file()} == {
        "a/one",
        "a/b/two",
        "a.txt",
        "three",
    }
    with pytest.raises(FileNotFoundError):
        get("get_file", f"{BUCKET}/fsspec/none", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("awaited", [False, True])
def test_names_of_a_listing_stay_below_the_target(folder: Path, tmp_path: Path, awaited: bool) -> None:
    class Lying(rf.PosixFileSystem):  # type: ignore[misc, name-defined]
        def expand_path(self, *args: Any, **kwargs: Any) -> list[str]:
            return [f"{folder}/a/one", f"{folder}/../../three"]

        async def _expand_path(self, *args: Any, **kwargs: Any) -> list[str]:
            return self.expand_path()

    fs = Lying()
    into = str(tmp_path / "into")

    def get() -> None:
        if awaited:
            asyncio.run(fs._get(str(folder), into, recursive=True))
        else:
            fs.get(str(folder), into, recursive=True)

    with pytest.raises(PermissionError, match="out of"):
        get()
    assert not os.path.exists(into)


# --- loops, processes ----------------------------------------------------------------------------------------


def test_two_loops_and_sync_calls_within_one(stored: Any) -> None:
    path = f"{BUCKET}/fsspec/a/one"

    async def read() -> bytes:
        assert stored.cat_file(path, 0, 4) == DATA[:4]
        async with await stored.open_async(path) as file:
            await file.seek(5)
            assert await file.read(3) == DATA[5:8]
        found: bytes = await stored._cat_file(path)
        return found

    assert asyncio.run(read()) == asyncio.run(read()) == DATA


def test_the_awaited_twin_that_zarr_makes(stored: Any) -> None:
    made = json.loads(stored.to_json())
    twin = fsspec.AbstractFileSystem.from_json(json.dumps({**made, "asynchronous": True}))
    assert twin.asynchronous
    assert not stored.asynchronous
    assert asyncio.run(twin._cat_file(f"{BUCKET}/fsspec/a/one", 0, 4)) == DATA[:4]


def test_a_forked_child_reads(stored: Any) -> None:
    path = f"{BUCKET}/fsspec/a/one"
    assert stored.cat_file(path, 0, 4) == DATA[:4]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            same = stored.cat_file(path) == DATA and asyncio.run(stored._cat_file(path, 1, 3)) == DATA[1:3]
            status = 0 if same else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_urls_by_the_front_door(folder: Path) -> None:
    need("rangeio+file" in fsspec.available_protocols(), "rangeio was installed before it had entry points")
    with fsspec.open(f"rangeio+file://{folder}/a/b/two", "rt") as file:
        assert file.read() == "2" * 10
    assert "rangeio.fsspec" in sys.modules
