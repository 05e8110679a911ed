"""Listings over WebHDFS: pages, recursion, prefixes, and what no server should send."""

from collections.abc import Callable
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked
from servers.webhdfs_server import File, WebHdfs, chunked, refusal, signed, webhdfs

import rangeio
from rangeio.hdfs.statuses import parse_page

need_module("urllib3")

Listed = Callable[..., list[Any]]
NAMES = ["a", "a-", "a.txt", "a/b", "a/c/d", "a/c/e", "a0", "b/x", "u\u0308", "ü", "p%20q", "\U0001f600"]


@pytest.fixture(params=["sync", *LOOPS])
def listed(request: pytest.FixtureRequest) -> Listed:
    """All entries of a listing."""
    if request.param != "sync":
        need_module(request.param)

    def listed(server: WebHdfs, prefix: str = "", delimiter: str | None = None, **options: Any) -> list[Any]:
        retry = rangeio.Retry(attempts=2, backoff_s=0.001)
        operator = rangeio.Operator("webhdfs", namenodes=server.authorities, retry=retry, **options)
        if request.param == "sync":
            return list(operator.list(prefix, delimiter))

        async def main() -> list[Any]:
            return [stat async for stat in operator.list_async(prefix, delimiter)]

        found: list[Any] = run_on(request.param, main)
        return found

    return listed


def files(*names: str) -> dict[str, File]:
    return {f"/data/{name}": File(name.encode()) for name in names}


def paths(found: list[Any]) -> list[str]:
    return [stat.path for stat in found]


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_everything_below(listed: Listed, page: int) -> None:
    """Sorted by path, although name nodes sort by bytes with a sign, and directories by their name alone."""
    names = [name for name in NAMES if name != "a"]
    with webhdfs(files=files(*names), page=page) as server:
        found = listed(server)
        assert paths(found) == sorted(f"data/{name}" for name in names)
        assert paths(listed(server, root="/data")) == sorted(names)
        assert paths(listed(server, "", root="data/a")) == ["b", "c/d", "c/e"]
    by_path = {stat.path: stat for stat in found}
    file = server.files["/data/a/b"]
    stat = by_path["data/a/b"]
    assert (stat.size, stat.mtime_ns) == (3, file.modified_ms * 10**6)
    assert stat.pin == f"{file.file_id}:{file.modified_ms}:3"


def test_the_order_of_name_nodes() -> None:
    """Seen at 3.3.6."""
    assert sorted(["a b", "ü", "u\u0308"], key=signed) == ["ü", "a b", "u\u0308"]


@pytest.mark.parametrize(
    ("prefix", "delimiter", "expected"),
    [
        ("data/a", None, ["data/a-", "data/a.txt", "data/a/b", "data/a/c/d", "data/a/c/e", "data/a0"]),
        ("data/a/", None, ["data/a/b", "data/a/c/d", "data/a/c/e"]),
        ("data/a/c", None, ["data/a/c/d", "data/a/c/e"]),
        ("data/", "/", ["data/a-", "data/a.txt", "data/a/", "data/a0", "data/b/"]),
        ("data/a", "/", ["data/a-", "data/a.txt", "data/a/", "data/a0"]),
        ("data/a/", "/", ["data/a/b", "data/a/c/"]),
        ("", "/", ["data/"]),
        ("data/a", "c", ["data/a-", "data/a.txt", "data/a/b", "data/a/c", "data/a0"]),
        ("data/nothing", None, []),
        ("data/nothing/below", None, []),
        ("data/a.txt/", None, []),
    ],
)
def test_prefixes(listed: Listed, prefix: str, delimiter: str | None, expected: list[str]) -> None:
    ascii_names = [name for name in NAMES if name.isascii() and name not in ("a", "p%20q")]
    with webhdfs(files=files(*ascii_names), page=2) as server:
        found = listed(server, prefix, delimiter)
    assert paths(found) == expected
    assert [stat.path for stat in found if stat.is_prefix] == [
        path for path in expected if path.endswith(("/", "c"))
    ]


def test_no_request_before_it_is_needed() -> None:
    with webhdfs(files=files("a", "b/c", "b/d", "c/e")) as server:
        operator = rangeio.Operator("webhdfs", namenodes=server.authorities, root="/data")
        listing = operator.list()
        assert not server.requests
        assert next(listing).path == "a"
        assert len(server.requests) == 1
        assert next(listing).path == "b/c"
        assert len(server.requests) == 2
        assert paths([*listing]) == ["b/d", "c/e"]
        assert server.requests == ["LISTSTATUS_BATCH"] * 3


def test_what_vanishes_meanwhile() -> None:
    with webhdfs(files=files("a", "b/c", "d")) as server:
        listing = rangeio.Operator("webhdfs", namenodes=server.authorities).list()
        assert next(listing).path == "data/a"
        del server.files["/data/b/c"]
        assert paths([*listing]) == ["data/d"]


def test_denied(listed: Listed) -> None:
    denied = refusal(403, "AccessControlException", "Permission denied: user=me, access=READ_EXECUTE")
    with (
        webhdfs(name_fault=lambda asked, query: denied) as server,
        pytest.raises(rangeio.PermissionDeniedError, match="access=READ_EXECUTE"),
    ):
        listed(server)


def test_what_is_listed_opens() -> None:
    names = [name for name in NAMES if name != "a"]
    with webhdfs(files=files(*names)) as server:
        operator = rangeio.Operator("webhdfs", namenodes=server.authorities, root="/data")
        for stat in operator.list():
            assert operator.stat(stat.path) == stat
            with operator.open(stat.path) as reader:
                assert reader.read_to_end() == stat.path.encode()


ENTRY = '{"pathSuffix":"%s","type":"%s","length":5,"modificationTime":1}'


def page(*entries: str, left: int = 0) -> bytes:
    inside = f'{{"FileStatuses":{{"FileStatus":[{",".join(entries)}]}}}}'
    return f'{{"DirectoryListing":{{"partialListing":{inside},"remainingEntries":{left}}}}}'.encode()


def file(name: str) -> str:
    return ENTRY % (name, "FILE")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"DirectoryListing":{}}',
        b'{"DirectoryListing":{"partialListing":5,"remainingEntries":0}}',
        page("5"),
        page("{}"),
        page(file("a/b")),
        page(file("a")).replace(b'"length":5', b'"length":-5'),
        page(file("a"), left=-1),
        b"[" * 20_000,
    ],
)
def test_pages_that_are_none(body: bytes) -> None:
    with pytest.raises(rangeio.UnexpectedError):
        parse_page(body)


ENDLESS: dict[str, Callable[[Asked, dict[str, str]], Answer]] = {
    "one page": lambda asked, query: chunked(page(file("a"), left=1)),
    "empty pages": lambda asked, query: chunked(page(left=1)),
    "two pages in turn": lambda asked, query: chunked(page(file("ab"[asked.number % 2]), left=1)),
    "ever deeper": lambda asked, query: chunked(page(ENTRY % ("d" * 200, "DIRECTORY"))),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_listings_without_an_end(listed: Listed, name: str) -> None:
    with (
        webhdfs(name_fault=ENDLESS[name]) as server,
        pytest.raises(rangeio.UnexpectedError, match=r"loops|does not end|deeper"),
    ):
        listed(server)
    assert len(server.requests) < 60
