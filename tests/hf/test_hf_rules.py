"""What is read of the hub and its storage, by which requests, and what the responses mean. Against the scripted hub."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from awaited import LOOPS, at_once, by_each, run_on
from faults.machine import need_module
from servers import hf_server
from servers.hf_server import TOKEN, Hub, with_fields
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 800
FAST: Any = {"retry": rangeio.Retry(attempts=2, backoff_s=0.001), "timeout": 10}


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the machine."""
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hf_server.hub() as made:
        yield made


class Desk:
    """Opens files of the hub, sync or by a loop."""

    def __init__(self, open_reader: Callable[..., Any], hub: Hub) -> None:
        self._open, self.hub = open_reader, hub
        self._held: list[Any] = []

    def open(self, uri: str, **options: Any) -> Any:
        reader = self._open(uri, **{**self.hub.options, "bearer_token": TOKEN, **FAST, **options})
        self._held.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._held:
            reader.close()


@pytest.fixture(params=["sync", "asyncio"])
def desk(request: pytest.FixtureRequest, hub: Hub) -> Iterator[Desk]:
    yield from by_each(request.param, lambda open_reader: Desk(open_reader, hub))


def counts(hub: Hub) -> tuple[int, int]:
    """Requests to the hub and to the storage since the last call."""
    found = len(hub.site.asked), len(hub.storage.asked)
    hub.site.asked.clear()
    hub.storage.asked.clear()
    return found


# --- requests ------------------------------------------------------------------------------------------------


def test_the_hub_is_asked_once(desk: Desk) -> None:
    reader = desk.open(desk.hub.put("a/big", DATA))
    assert counts(desk.hub) == (0, 0)
    assert reader.read_at(5, 1_000) == DATA[5:1_005]
    assert [(asked.method, asked.target, asked.fields["range"]) for asked in desk.hub.site.asked] == [
        ("GET", "/owner/name/resolve/main/a/big", "bytes=5-1004")
    ]
    assert counts(desk.hub) == (1, 1)
    for start in range(40):
        assert reader.read_at(start, 1_000) == DATA[start : start + 1_000]
    assert counts(desk.hub) == (0, 40)
    pairs = [(start, start + 500) for start in range(0, 200_000, 10_000)]
    assert reader.read_ranges(pairs, gap=0) == [DATA[start:stop] for start, stop in pairs]
    assert counts(desk.hub) == (0, 20)
    assert reader.read_ranges(pairs, gap=20_000) == [DATA[start:stop] for start, stop in pairs]
    assert counts(desk.hub) == (0, 1)
    assert reader.stat().size == len(DATA)
    assert counts(desk.hub) == (0, 1)


def test_a_large_file_is_read_in_pieces(desk: Desk) -> None:
    reader = desk.open(desk.hub.put("a", DATA), chunk=30_000)
    assert reader.read_range() == DATA
    assert counts(desk.hub) == (1, 7)


def test_stat_asks_the_hub_alone(desk: Desk) -> None:
    """The redirect tells the version, the size and where to read."""
    reader = desk.open(desk.hub.put("a", DATA))
    stat = reader.stat()
    commit = desk.hub.repo().refs["main"]
    assert (stat.size, stat.version, stat.mtime_ns) == (len(DATA), commit, None)
    assert stat.pin == f"{stat.etag}:{len(DATA)}"
    assert [asked.method for asked in desk.hub.site.asked] == ["HEAD"]
    assert counts(desk.hub) == (1, 0)
    assert reader.read_range(rangeio.Suffix(10)) == DATA[-10:]
    assert counts(desk.hub) == (0, 1)
    assert reader.stat() == stat
    again = desk.open(desk.hub.put("b", DATA))
    again.stat()
    desk.hub.expire()
    assert again.read_at(5, 5) == DATA[5:10]


def test_stat_where_the_redirect_does_not_tell_the_size(desk: Desk) -> None:
    """The storage refuses HEAD, for which its URLs are not signed: a GET of one byte tells."""
    own = desk.hub.site.script
    desk.hub.site.script = lambda asked: silent(own(asked))

    def silent(answer: Answer) -> Answer:
        return Answer(answer.data.replace(b"X-Linked-Size", b"X-Other"), answer.then)

    reader = desk.open(desk.hub.put("a", DATA))
    assert reader.stat().size == len(DATA)
    assert [asked.method for asked in desk.hub.site.asked] == ["HEAD"]
    asked = desk.hub.storage.asked[-1]
    assert (asked.method, asked.fields["range"]) == ("GET", "bytes=0-0")
    assert reader.read_at(5, 5) == DATA[5:10]


def test_a_suffix(desk: Desk) -> None:
    assert desk.open(desk.hub.put("a", DATA)).read_range(rangeio.Suffix(10)) == DATA[-10:]
    assert counts(desk.hub) == (1, 1)


def test_a_small_file_comes_from_the_hub(desk: Desk) -> None:
    reader = desk.open(desk.hub.put("folder/a", b"small"))
    assert (reader.read_at(1, 2), reader.read_at(0, 9), reader.read_at(5, 1)) == (b"ma", b"small", b"")
    assert [asked.target.partition("?")[0] for asked in desk.hub.site.asked][:2] == [
        "/owner/name/resolve/main/folder/a",
        f"/api/resolve-cache/models/owner/name/{desk.hub.repo().refs['main']}/folder%2Fa",
    ]
    stat = reader.stat()
    assert (stat.size, stat.etag) == (5, f'"{hf_server.blob(b"small")}"')


@pytest.mark.parametrize("name", ["datasets/owner/name", "spaces/owner/name"])
@pytest.mark.parametrize("path", ["a b/ü%20+&.bin", "@x", "a@b/c#d?e"])
def test_kinds_and_paths(desk: Desk, name: str, path: str) -> None:
    assert desk.open(desk.hub.put(path, DATA, name)).read_at(1, 2) == DATA[1:3]


def test_a_renamed_repository(desk: Desk) -> None:
    """The hub redirects to the new name; it gets the token there, too."""
    desk.hub.put("a", DATA, "new/name")
    desk.hub.repo("new/name").private = True
    desk.hub.renamed["models/old/name"] = "models/new/name"
    reader = desk.open("hf://old/name/a")
    assert reader.read_at(5, 5) == DATA[5:10]
    assert counts(desk.hub) == (2, 1)


# --- the commit ----------------------------------------------------------------------------------------------


def test_a_branch_that_moves(desk: Desk) -> None:
    """What was opened stays; what is opened later is new."""
    uri = desk.hub.put("a", DATA)
    commit = desk.hub.repo().refs["main"]
    reader = desk.open(uri)
    assert reader.read_at(0, 5) == DATA[:5]
    desk.hub.put("a", DATA[::-1])
    assert reader.read_at(5, 5) == DATA[5:10]
    desk.hub.expire()
    counts(desk.hub)
    assert reader.read_at(10, 5) == DATA[10:15]
    assert [asked.target for asked in desk.hub.site.asked] == [f"/owner/name/resolve/{commit}/a"]
    assert reader.read_range() == DATA
    assert desk.open(uri).read_at(0, 5) == DATA[::-1][:5]
    assert desk.open(uri, version=commit).read_at(0, 5) == DATA[:5]


def test_two_first_reads_while_the_branch_moves(hub: Hub) -> None:
    """Two threads ask for the branch and are told two commits: one of them asks again, for the commit of the other."""
    uri, both, stored = hub.put("a", DATA), threading.Barrier(2), threading.Event()
    commit, order = hub.repo().refs["main"], iter(range(9))

    def before(asked: Asked) -> Answer | None:
        if "/resolve/main/" not in asked.target:
            return None
        number = next(order)
        both.wait(10)
        if number == 1:
            stored.wait(10)
            hub.put("a", DATA[::-1])
        return None

    def in_storage(_: Asked) -> None:
        stored.set()

    hub.before, hub.in_storage = before, in_storage
    found: list[Any] = []
    with rangeio.open(uri, **hub.options, **FAST) as reader:
        threads = [threading.Thread(target=lambda: found.append(reader.read_at(7, 9))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [DATA[7:16]] * 2
        assert reader.stat().version == commit


def test_a_hub_that_sends_another_commit(desk: Desk) -> None:
    uri = desk.hub.put("a", DATA)
    reader = desk.open(uri)
    reader.read_at(0, 5)
    desk.hub.put("a", DATA[::-1])
    desk.hub.expire()
    new = desk.hub.repo().refs["main"]

    def before(asked: Asked) -> Answer:
        return desk.hub._resolve(asked, "models/owner/name", f"{new}/a")

    desk.hub.before = before
    with pytest.raises(rangeio.ObjectChangedError, match="in place of"):
        reader.read_at(5, 5)


def test_revisions(desk: Desk) -> None:
    desk.hub.put("a", DATA)
    desk.hub.put("a", DATA[::-1], revision="refs/pr/1")
    desk.hub.put("a", DATA[1:], revision="feature/x")
    for uri, expected in [
        ("hf://owner/name@main/a", DATA),
        ("hf://owner/name@refs/pr/1/a", DATA[::-1]),
        ("hf://owner/name@refs%2Fpr%2F1/a", DATA[::-1]),
        ("hf://owner/name@feature%2Fx/a", DATA[1:]),
    ]:
        assert desk.open(uri).read_at(3, 4) == expected[3:7]
    assert desk.open("hf://owner/name/a", version="feature/x").read_at(3, 4) == DATA[4:8]
    with pytest.raises(rangeio.ConfigInvalidError, match="contradicts"):
        desk.open("hf://owner/name@main/a", version="feature/x").read_at(0, 1)


def test_without_a_pin(desk: Desk) -> None:
    """Each read is of the commit that the branch names by then."""
    uri = desk.hub.put("a", DATA)
    reader = desk.open(uri, pin=False)
    assert reader.read_at(0, 5) == DATA[:5]
    assert reader.read_at(0, 5) == DATA[:5]
    desk.hub.put("a", DATA[::-1])
    assert reader.read_at(0, 5) == DATA[::-1][:5]
    assert reader.read_ranges([(0, 5), (90_000, 90_005)], gap=0) == [
        DATA[::-1][:5],
        DATA[::-1][90_000:90_005],
    ]


def test_many_targets_without_a_pin(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request has a target of its own; what the hub told of the old ones is forgotten."""
    monkeypatch.setattr("rangeio.services.hf._MOST_TOLD", 4)
    reader = desk.open(desk.hub.put("a", DATA), pin=False)
    for start in range(10):
        desk.hub.expire()
        assert reader.read_at(start, 5) == DATA[start : start + 5]


# --- the storage ---------------------------------------------------------------------------------------------


def test_an_expired_target(desk: Desk) -> None:
    reader = desk.open(desk.hub.put("a", DATA))
    reader.read_at(0, 5)
    reader.read_at(0, 5)
    counts(desk.hub)
    desk.hub.expire()
    assert reader.read_at(5, 5) == DATA[5:10]
    assert counts(desk.hub) == (1, 2)
    desk.hub.expire()
    assert reader.read_ranges([(0, 5), (90_000, 90_005)], gap=0) == [DATA[:5], DATA[90_000:90_005]]
    desk.hub.expire()
    assert reader.stat().size == len(DATA)


@pytest.mark.parametrize("way", ["threads", *LOOPS])
def test_a_target_that_expires_under_many_reads(hub: Hub, way: str) -> None:
    """All of them are refused at an address that the first one makes the object leave."""
    uri, count = hub.put("a", DATA), 8
    together = threading.Barrier(count)

    def in_storage(asked: Asked) -> None:
        if f"S1gned{hub.signed - 1}S" in asked.target:
            together.wait(10)

    def expected(start: int) -> bytes:
        return DATA[start : start + 500]

    options: Any = {**hub.options, **FAST}
    places = range(0, 1000 * count, 1000)
    if way == "threads":
        with rangeio.open(uri, **options) as reader, ThreadPoolExecutor(count) as pool:
            for _ in range(2):
                assert [*pool.map(lambda at: reader.read_at(at, 500), places)] == [*map(expected, places)]
                hub.expire()
                hub.in_storage = in_storage
        return
    need_module(way)

    async def main() -> None:
        async with rangeio.open_async(uri, **options) as reader:

            async def read(at: int) -> None:
                assert await reader.read_at(at, 500) == expected(at)

            for _ in range(2):
                await at_once(way, [partial(read, at) for at in places])
                hub.expire()
                hub.in_storage = in_storage

    run_on(way, main)


def test_a_storage_that_refuses_always(desk: Desk) -> None:
    desk.hub.in_storage = lambda asked: reply(403, b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(rangeio.PermissionDeniedError, match="HTTP 403"):
        desk.open(desk.hub.put("a", DATA)).read_at(0, 5)
    assert sum(counts(desk.hub)) <= 4


def test_the_storage_has_an_etag_of_its_own(desk: Desk) -> None:
    """Another one after the next redirect means nothing; and then its own is the one of plain responses."""
    reader = desk.open(desk.hub.put("a", DATA))
    stat = reader.stat()
    reader.read_at(0, 5)
    desk.hub.expire()
    desk.hub.storage_etag = "another storage"
    for start in range(5):
        assert reader.read_at(start, 5) == DATA[start : start + 5]
    assert reader.stat() == stat
    counts(desk.hub)
    assert reader.read_at(0, 5) == DATA[:5]
    assert counts(desk.hub) == (0, 1)


def test_one_address_with_two_etags(desk: Desk) -> None:
    """The hub said nothing of a change, but the storage has other bytes."""
    reader = desk.open(desk.hub.put("a", DATA))
    reader.read_at(0, 5)
    desk.hub.storage_etag = "changed"
    with pytest.raises(rangeio.ObjectChangedError, match="ETag"):
        reader.read_at(5, 5)


def test_the_hub_and_the_storage_disagree_on_the_size(desk: Desk) -> None:
    def in_storage(asked: Asked) -> Answer:
        return honest(DATA[:-1], asked)

    desk.hub.in_storage = in_storage
    reader = desk.open(desk.hub.put("a", DATA))
    with pytest.raises(
        rangeio.UnexpectedError, match=f"{len(DATA)} bytes \\(X-Linked-Size\\), the storage has"
    ):
        reader.read_at(0, 5)


def test_a_size_that_was_given(desk: Desk) -> None:
    uri = desk.hub.put("a", DATA)
    assert desk.open(uri, size=len(DATA)).read_range(rangeio.Suffix(9)) == DATA[-9:]
    for read in (lambda reader: reader.read_at(0, 5), lambda reader: reader.stat()):
        with pytest.raises(rangeio.ObjectChangedError, match="size=7"):
            read(desk.open(uri, size=7))


def test_conditions(desk: Desk) -> None:
    """They are met by the ETag of the hub, which the storage does not know."""
    uri = desk.hub.put("a", DATA)
    etag = desk.open(uri).stat().etag
    assert desk.open(uri, if_match=etag).read_at(0, 5) == DATA[:5]
    for options, kind in [
        ({"if_match": '"other"'}, rangeio.ConditionNotMatchError),
        ({"if_none_match": etag}, rangeio.NotModifiedError),
    ]:
        with pytest.raises(kind):
            desk.open(uri, **options).read_at(0, 5)
        with pytest.raises(kind):
            desk.open(uri, **options).stat()
        with pytest.raises(kind):
            desk.open(uri, **options).read_range(rangeio.Suffix(5))
    assert not [
        asked for asked in desk.hub.storage.asked if {"if-match", "if-none-match"} & asked.fields.keys()
    ]


def test_what_is_no_hub(desk: Desk) -> None:
    desk.hub.before = lambda asked: honest(DATA, asked)
    with pytest.raises(rangeio.UnexpectedError, match="is it a hub"):
        desk.open("hf://owner/name/a").read_at(0, 5)


def test_a_hub_that_sends_large_files_itself(desk: Desk) -> None:
    """As mirrors do: no redirect, one request each."""
    uri = desk.hub.put("a", DATA)
    commit = desk.hub.repo().refs["main"]
    desk.hub.before = lambda asked: with_fields(honest(DATA, asked, 'W/"e"'), X_Repo_Commit=commit)
    reader = desk.open(uri)
    assert reader.read_at(0, 5) == DATA[:5]
    assert reader.read_at(5, 5) == DATA[5:10]
    assert (reader.stat().etag, reader.stat().version) == ('"e"', commit)
    assert [asked.target for asked in desk.hub.site.asked][1:] == [f"/owner/name/resolve/{commit}/a"] * 3


# --- the token -----------------------------------------------------------------------------------------------


def test_the_token_stays_with_the_hub(desk: Desk) -> None:
    desk.hub.repo().private = True
    reader = desk.open(desk.hub.put("a", DATA), headers={"X-Key": "S3cret"})
    reader.read_at(0, 5)
    desk.hub.expire()
    reader.read_range()
    reader.stat()
    assert {asked.fields["authorization"] for asked in desk.hub.site.asked} == {f"Bearer {TOKEN}"}
    assert desk.hub.storage.asked
    assert not [asked for asked in desk.hub.storage.asked if {"authorization", "x-key"} & asked.fields.keys()]


def test_a_token_that_is_renewed(hub: Hub) -> None:
    """Once, after the hub refuses it."""
    tokens = iter(["hf_old", TOKEN])
    uri = hub.put("a", DATA)
    with rangeio.open(
        uri, credentials=lambda: {"bearer_token": next(tokens)}, **hub.options, **FAST
    ) as reader:
        assert reader.read_at(0, 5) == DATA[:5]
    tokens = iter(["hf_old", "hf_old_too"])
    with (
        rangeio.open(
            uri, credentials=lambda: {"bearer_token": next(tokens)}, **hub.options, **FAST
        ) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="the token is not accepted"),
    ):
        reader.read_at(0, 5)


@pytest.mark.parametrize(
    "answer", [None, {}, {"token": "x"}, {"bearer_token": 5}, {"bearer_token": "x", "expires_at": "y"}]
)
def test_what_a_callable_may_return(hub: Hub, answer: Any) -> None:
    with (
        rangeio.open(hub.put("a", DATA), credentials=lambda: answer, **hub.options) as reader,
        pytest.raises(rangeio.ConfigInvalidError, match=r"credentials\(\)|bearer_token|expires_at"),
    ):
        reader.read_at(0, 5)
    assert counts(hub) == (0, 0)


def test_the_token_of_the_machine(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    monkeypatch.setenv("HF_ENDPOINT", hub.site.url)
    hub.repo().private = True
    uri = hub.put("a", DATA)
    for name, value in {"HF_TOKEN_PATH": str(tmp_path / "token"), "HUGGING_FACE_HUB_TOKEN": TOKEN}.items():
        (tmp_path / "token").write_text(TOKEN)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv(name, value)
        assert rangeio.open(uri).read_at(0, 5) == DATA[:5]
    with pytest.raises(rangeio.NotFoundError, match="no token was sent"):
        rangeio.open(uri, anonymous=True).read_at(0, 5)


REMOTE = "http://hub.example.org"


@pytest.mark.parametrize(
    "options", [{"bearer_token": TOKEN}, {"headers": {"Authorization": f"Bearer {TOKEN}"}}]
)
def test_no_token_over_plain_http(options: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=r"not sent over plain http to hub\.example\.org"):
        rangeio.Operator("hf", endpoint_url=REMOTE, **options)


def test_no_token_of_the_machine_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for options in ({}, {"credentials": lambda: {"bearer_token": TOKEN}}):
        with (
            rangeio.open("hf://owner/name/a", endpoint_url=REMOTE, **options) as reader,
            pytest.raises(rangeio.ConfigInvalidError, match="anonymous=True"),
        ):
            reader.read_at(0, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"bearer_token": "x", "anonymous": True},
        {"bearer_token": "x", "credentials": dict},
        {"credentials": dict, "anonymous": True},
        {"bearer_token": "x", "headers": {"authorization": "y"}},
        {"bearer_token": "x", "endpoint_url": "https://me:secret@hub.example.org"},
        {"credentials": "x"},
        {"bearer_token": "x\ny"},
        {"endpoint_url": "https://hub.example.org/?a"},
        {"endpoint_url": "hub.example.org"},
        {"repo": "owner/name/path"},
        {"repo": "name"},
        {"token": "x"},
    ],
)
def test_options_that_are_refused(options: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.Operator("hf", **options)
    assert "secret" not in str(caught.value)


# --- refusals ------------------------------------------------------------------------------------------------


def test_refusals(desk: Desk) -> None:
    uri = desk.hub.put("a", DATA)
    for wrong, kind, said in [
        ("hf://owner/name/none", rangeio.NotFoundError, "EntryNotFound: the file does not exist"),
        ("hf://owner/name@none/a", rangeio.NotFoundError, "RevisionNotFound"),
        ("hf://owner/none/a", rangeio.NotFoundError, "RepoNotFound"),
        ("hf://owner/name", rangeio.ConfigInvalidError, "names a repository"),
    ]:
        for call in (lambda reader: reader.read_at(0, 1), lambda reader: reader.stat()):
            with pytest.raises(kind, match=said):
                call(desk.open(wrong))
    desk.hub.repo().gated = True
    with pytest.raises(rangeio.PermissionDeniedError, match="GatedRepo: the repository is gated") as caught:
        desk.open(uri).read_at(0, 1)
    assert (caught.value.http_status, caught.value.request_id) == (403, "Root=1-2")
    with pytest.raises(rangeio.UnauthenticatedError, match="not accepted"):
        desk.open(uri, bearer_token="hf_wrong").read_at(0, 1)
    assert counts(desk.hub)[1] == 0


def test_a_rate_limit(desk: Desk) -> None:
    """RateLimit says when requests are allowed again; later than a read may wait, so it fails at once."""
    desk.hub.before = lambda asked: reply(429, RateLimit='"resolvers";r=0;t=172')
    with pytest.raises(rangeio.RateLimitedError, match="Retry-After is 172 s"):
        desk.open(desk.hub.put("a", DATA)).read_at(0, 1)
    assert counts(desk.hub) == (1, 0)


# --- listings ------------------------------------------------------------------------------------------------

PATHS = ["README.md", "data/a", "data/b/c", "data/b/d", "data.txt", "z z/ü"]


def listed(hub: Hub, *words: Any, **options: Any) -> list[str]:
    """Of the repository; what sync and async list is the same."""
    operator = rangeio.Operator("hf", **{"repo": "owner/name", **hub.options, **FAST, **options})
    found = [*operator.list(*words)]

    async def main() -> list[Any]:
        return [stat async for stat in operator.list_async(*words)]

    for loop in ("asyncio", "trio"):
        need_module(loop)
        assert run_on(loop, main) == found
    return [stat.path for stat in found]


@pytest.fixture
def filled(hub: Hub) -> Hub:
    for number, path in enumerate(PATHS):
        hub.put(path, DATA[: 500 + 200 * number])
    return hub


@pytest.mark.parametrize("page", [1, 3, 1_000])
def test_listing(filled: Hub, page: int) -> None:
    filled.page = page
    assert listed(filled) == sorted(PATHS)
    found = listed(filled, "", "/")
    assert sorted(found) == ["README.md", "data.txt", "data/", "z z/"]
    assert page < 1_000 or found == sorted(found)  # of several pages, the hub chooses the order
    assert listed(filled, "data") == ["data.txt", "data/a", "data/b/c", "data/b/d"]
    assert sorted(listed(filled, "data", "/")) == ["data.txt", "data/"]
    assert listed(filled, "data/", "/") == ["data/a", "data/b/"]
    assert listed(filled, "data/", "b") == ["data/a", "data/b"]
    assert listed(filled, "data/b/d") == ["data/b/d"]
    assert listed(filled, "none") == listed(filled, "none/a") == []
    assert listed(filled, root="data") == ["a", "b/c", "b/d"]
    assert listed(filled, "b/", root="data") == ["b/c", "b/d"]
    assert listed(filled, "owner/name/data/b", repo=None) == ["owner/name/data/b/c", "owner/name/data/b/d"]


def test_pages_are_requested_when_they_are_needed(filled: Hub) -> None:
    for number in range(21):
        filled.put(f"more/{number:02}", b"x")
    filled.page = 7
    counts(filled)
    listing = rangeio.Operator("hf", repo="owner/name", **filled.options).list("more/")
    assert counts(filled) == (0, 0)
    assert next(listing).path == "more/00"
    assert counts(filled) == (1, 0)
    assert len([*listing]) == 20
    assert counts(filled) == (2, 0)


def test_a_listing_tells_what_stat_tells(filled: Hub) -> None:
    operator = rangeio.Operator("hf", repo="owner/name", **filled.options)
    for stat in operator.list():
        assert replace(operator.stat(stat.path), version=None) == stat
        assert operator.open(stat.path).read_at(3, 10) == DATA[3:13]


def test_listings_of_what_is_not_there(hub: Hub) -> None:
    hub.put("a", DATA)
    for options, said in [
        ({"repo": "owner/none"}, "RepoNotFound"),
        ({"version": "none"}, "RevisionNotFound"),
    ]:
        with pytest.raises(rangeio.NotFoundError, match=said):
            listed(hub, **options)
    with pytest.raises(rangeio.ConfigInvalidError, match="is named"):
        listed(hub, "owner", repo=None)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ('<?cursor=1>; rel="next"', "loops"),
        ("<https://hub>; rel=next", "more pages"),
    ],
)
def test_listings_that_do_not_end(hub: Hub, link: str, said: str) -> None:
    body = b'[{"type": "file", "path": "a", "size": 1, "oid": "b"}]'
    hub.before = lambda asked: reply(200, body, Link=link)
    with pytest.raises(rangeio.UnexpectedError, match=said):
        [*rangeio.Operator("hf", repo="owner/name", **hub.options).list()]
    assert len(hub.site.asked) < 9


def test_the_next_page_is_asked_of_the_same_hub(filled: Hub) -> None:
    """Whatever host a page names: it gets the token."""
    filled.page = 4
    with scripted(lambda asked: reply(500)) as other:
        own, filled.site.script = filled.site.script, lambda asked: renamed(own(asked))

        def renamed(answer: Answer) -> Answer:
            return Answer(answer.data.replace(filled.site.url.encode(), other.url.encode()), answer.then)

        assert listed(filled, bearer_token=TOKEN) == sorted(PATHS)
        assert not other.asked


# --- all of it together ---------------------------------------------------------------------------------------


def test_operators(filled: Hub) -> None:
    options = {**filled.options, **FAST}
    operator = rangeio.Operator.from_uri("hf://owner/name@main/data", **options)
    assert [stat.path for stat in operator.list()] == ["a", "b/c", "b/d"]
    jobs: Any = [("a", (0, 5)), ("b/c", (7, 9)), ("b/c", None)]
    assert operator.read_ranges(jobs) == [DATA[:5], DATA[7:9], DATA[:900]]
    everywhere = rangeio.Operator("hf", **options)
    assert everywhere.open("owner/name/data/a").read_at(0, 5) == DATA[:5]
    assert everywhere.stat("owner/name/data/a").path == "owner/name/data/a"
    for path in ("../a", "b/../../README.md", ""):
        with pytest.raises(rangeio.ConfigInvalidError):
            operator.open(path)
    with pytest.raises(rangeio.UnsupportedError, match="signed URLs"):
        operator.presign("a")
    with pytest.raises(rangeio.ConfigInvalidError, match="repo"):
        rangeio.open("hf://owner/name/a", repo="owner/name")


def test_an_endpoint_behind_a_path(hub: Hub) -> None:
    """A proxy serves the hub below /hf; the relative redirects of the hub lead to it."""
    uri = hub.put("a", DATA)
    answer = hub.site.script
    hub.site.script = lambda asked: answer(replace(asked, target=asked.target.removeprefix("/hf")))
    with rangeio.open(uri, endpoint_url=hub.site.url + "/hf/") as reader:
        assert reader.read_at(0, 5) == DATA[:5]
        hub.expire()
        assert reader.read_at(5, 5) == DATA[5:10]
    assert {asked.target.split("/")[1] for asked in hub.site.asked} == {"hf"}
