"""fsspec file systems of Google's, Azure's, Hadoop's and the hub's objects: fsspec's own suite, facts and options."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers.azure_server import azure_server
from servers.gcs_server import TOKEN, GcsServer
from servers.hf_server import TOKEN as HF_TOKEN
from servers.hf_server import hub
from servers.scripted import scripted
from servers.webhdfs_server import webhdfs

import rangeio

fsspec = need_module("fsspec")
need_module("urllib3")
rf = need_module("rangeio.fsspec")
abstract = need_module("fsspec.tests.abstract")
translated = need_module("rangeio.fsspec.translation").translated

KINDS = ("gs", "az", "webhdfs", "hf", "memory")


class Store:
    """A file system of ours, and how objects get there. top: a directory of it, in which tests write."""

    def __init__(
        self, fs: Any, top: str, put: Callable[[str, bytes], Any], drop: Callable[[str], Any]
    ) -> None:
        self.fs, self.top, self.put, self.drop = fs, top, put, drop


def _of_gs(folder: Path) -> Iterator[Store]:
    store = GcsServer()
    with scripted(store.answer) as server:
        fs = rf.GcsFileSystem(bearer_token=TOKEN, endpoint_url=server.url)
        yield Store(
            fs,
            "bucket",
            lambda path, data: store.put(path.partition("/")[2], data),
            lambda path: store.buckets["bucket"].pop(path.partition("/")[2]),
        )


def _of_az(folder: Path) -> Iterator[Store]:
    with azure_server(folder) as server:
        fs = rf.AzureFileSystem(
            account_name=server.account,
            endpoint_url=server.options["endpoint_url"],
            account_key=server.key,
            **server.secure,
        )
        (container,) = [*server.containers][:1]
        blobs = server.containers[container].blobs
        yield Store(
            fs,
            container,
            lambda path, data: server.put(path.partition("/")[2], data, container),
            lambda path: blobs.pop(path.partition("/")[2]),
        )


def _of_webhdfs(folder: Path) -> Iterator[Store]:
    with webhdfs() as server:
        fs = rf.WebHdfsFileSystem(cluster=server.authority)
        yield Store(
            fs,
            "top",
            lambda path, data: server.put(f"/{path}", data),
            lambda path: server.files.pop(f"/{path}"),
        )


def _of_hf(folder: Path) -> Iterator[Store]:
    with hub() as server:
        server.put("README", b"a repository has a commit")
        fs = rf.HfFileSystem(token=HF_TOKEN, endpoint=server.site.url)

        def drop(path: str) -> None:
            repo = server.repo()
            del repo.commits[repo.refs["main"]][path.removeprefix("owner/name/")]

        yield Store(
            fs, "owner/name", lambda path, data: server.put(path.removeprefix("owner/name/"), data), drop
        )


def _of_memory(folder: Path) -> Iterator[Store]:
    objects: dict[str, bytes] = {}
    fs = rf.MemoryFileSystem(objects=objects)
    yield Store(fs, "top", objects.__setitem__, objects.pop)


_OPEN: dict[str, Any] = {
    "gs": _of_gs,
    "az": _of_az,
    "webhdfs": _of_webhdfs,
    "hf": _of_hf,
    "memory": _of_memory,
}
_opened: Any = {kind: contextmanager(make) for kind, make in _OPEN.items()}


@pytest.fixture(params=KINDS, scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with _opened[request.param](tmp_path_factory.mktemp("store")) as opened:
        yield opened
        type(opened.fs).clear_instance_cache()


class Writing:
    """The file system with what fsspec's suite calls to write."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.fs, name)

    def pipe(self, path: str, value: bytes) -> None:
        self._store.put(self._store.fs._strip_protocol(path), value)

    def touch(self, path: str, **kwargs: Any) -> None:
        self.pipe(path, b"")

    def mkdir(self, path: str, **kwargs: Any) -> None:
        return

    makedirs = mkdir

    def rm(self, path: Any, recursive: bool = False) -> None:
        for one in self._store.fs.expand_path(path, recursive=recursive):
            if not self._store.fs.isdir(one):
                self._store.drop(one)


class TestGet(abstract.AbstractGetTests, abstract.AbstractFixtures):  # type: ignore[misc, name-defined]
    @pytest.fixture
    def fs(self, store: Store) -> Writing:
        return Writing(store)

    @pytest.fixture
    def fs_path(self, store: Store, tmp_path: Path) -> str:
        return f"{store.top}/upstream/{tmp_path.name}"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "awaited"])
def test_facts_and_contents(store: Store, awaited: bool) -> None:
    top, fs = f"{store.top}/facts", store.fs
    files = {f"{top}/a/one": bytes(range(256)), f"{top}/a/b/two": b"22", f"{top}/three": b""}
    for path, data in files.items():
        store.put(path, data)

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        if awaited:
            return asyncio.run(getattr(fs, f"_{name}")(*args, **kwargs))
        return getattr(fs, name)(*args, **kwargs)

    assert call("ls", top, detail=False) == [f"{top}/a", f"{top}/three"]
    assert call("ls", f"{top}/a/one", detail=False) == [f"{top}/a/one"]
    assert call("find", top) == sorted(files)
    assert call("glob", f"{top}/a/*") == [f"{top}/a/b", f"{top}/a/one"]
    assert call("info", f"{top}/a/one")["size"] == 256
    assert call("info", f"{top}/a")["type"] == call("info", store.top)["type"] == "directory"
    assert [call("isdir", f"{top}/{name}") for name in ("a", "three", "none")] == [True, False, False]
    assert [call("isfile", f"{top}/{name}") for name in ("a", "three", "none")] == [False, True, False]
    assert [call("exists", f"{top}/{name}") for name in ("a", "three", "none")] == [True, True, False]
    for missing in ("ls", "info", "cat_file"):
        with pytest.raises(FileNotFoundError):
            call(missing, f"{top}/none")
    assert call("cat_file", f"{top}/a/one", -10, -2) == bytes(range(246, 254))
    ranges = call("cat_ranges", [f"{top}/a/one", f"{top}/a/b/two"], [3, 0], [9, 2])
    assert ranges == [bytes(range(3, 9)), b"22"]
    if not awaited:
        with fs.open(f"{top}/a/one") as file:
            file.seek(-3, 2)
            assert file.read() == bytes([253, 254, 255])
        with pytest.raises(NotImplementedError):
            fs.mkdir(f"{top}/new")


def test_pickles_with_what_it_needs(store: Store) -> None:
    store.put(f"{store.top}/pickled", b"abc")
    again = pickle.loads(pickle.dumps(store.fs))
    assert again.cat_file(f"{store.top}/pickled") == b"abc"
    assert TOKEN not in repr(again)
    assert TOKEN not in again.to_json(include_password=False)


def test_urls_of_each_protocol(store: Store) -> None:
    store.put(f"{store.top}/by-url", b"abc")
    url = store.fs.unstrip_protocol(f"{store.top}/by-url")
    assert url.startswith("rangeio+")
    assert store.fs.cat_file(url) == b"abc"


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "url", "path", "options"),
    [
        (rf.AzureFileSystem, "abfs://c/a/b", "c/a/b", {}),
        (rf.AzureFileSystem, "abfss://c@acc.dfs.core.windows.net/a/b", "c/a/b", {"account": "acc"}),
        (rf.WebHdfsFileSystem, "rangeio+webhdfs://host:9870/a/b", "a/b", {"cluster": "host:9870"}),
        (rf.WebHdfsFileSystem, "/a/b/", "a/b", {}),
        (rf.HfFileSystem, "hf://datasets/o/n@v/a", "datasets/o/n@v/a", {}),
        (rf.GcsFileSystem, "gcs://b/k", "b/k", {}),
    ],
)
def test_urls(kind: Any, url: str, path: str, options: dict[str, str]) -> None:
    assert kind._strip_protocol(url) == path
    assert kind._get_kwargs_from_urls(url) == options


@pytest.mark.parametrize(
    ("scheme", "given", "found"),
    [
        ("gs", {"token": "anon", "access": "read_only"}, {"anonymous": True}),
        ("gs", {"token": None}, {}),
        ("gs", {"token": "google_default"}, {}),
        ("gs", {"token": "ya29.x"}, {"bearer_token": "ya29.x"}),
        ("gs", {"token": __file__}, {"service_account": __file__}),
        ("gs", {"token": {"type": "x"}}, {"service_account": {"type": "x"}}),
        ("gs", {"requester_pays": True, "project": "p"}, {"user_project": "p"}),
        ("az", {"account_name": "a", "account_key": "k"}, {"account": "a", "account_key": "k"}),
        ("az", {"account_name": "a", "anon": True}, {"account": "a", "anonymous": True}),
        ("az", {"connection_string": "c"}, {"connection_string": "c"}),
        ("az", {"account_name": "a", "sas_token": "s"}, {"account": "a", "sas_token": "s"}),
        ("webhdfs", {"host": "h", "port": 1, "token": "t"}, {"cluster": "h:1", "delegation_token": "t"}),
        ("hf", {"token": "t", "endpoint": "e"}, {"bearer_token": "t", "endpoint_url": "e"}),
        ("hf", {"token": False}, {"anonymous": True}),
    ],
)
def test_options_that_users_have(scheme: str, given: dict[str, Any], found: dict[str, Any]) -> None:
    assert translated(scheme, given) == found


def test_options_that_are_refused() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="bearer_token"):
        translated("gs", {"token": "browser"})
    with pytest.raises(rangeio.ConfigInvalidError, match="set only one of account_name and account"):
        translated("az", {"account_name": "a", "account": "b"})
    with pytest.raises(rangeio.ConfigInvalidError, match="account_key"):
        translated("az", {"acount_key": "b"})


def test_registered_if_named() -> None:
    rf.register("gs", "abfss", "hf")
    try:
        assert fsspec.get_filesystem_class("gs") is rf.GcsFileSystem
        assert fsspec.get_filesystem_class("abfss") is rf.AzureFileSystem
        assert fsspec.get_filesystem_class("hf") is rf.HfFileSystem
    finally:
        rf.unregister()
    with pytest.raises(ValueError, match="memory"):
        rf.register("memory")
