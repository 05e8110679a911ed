"""What requests may say: fields once and in one line, a login wherever a URL is opened, nothing outside of a root."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, honest, reply, scripted

import rangeio
from rangeio.http.fields import checked_fields, head_of, merged

need_module("urllib3")

DATA = bytes(range(256)) * 400
OPTIONS: Any = {"retry": 1, "timeout": 10}
WANTED = "Basic " + base64.b64encode(b"me:p w").decode()


@pytest.fixture(params=["sync", *LOOPS])
def way(request: pytest.FixtureRequest) -> Iterator[Callable[[Any, str], Any]]:
    """Opens a path of an Operator, or of `rangeio` itself, sync or on a loop."""
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)

    def opened(opener: Any, path: str, **options: Any) -> Any:
        if loop is None:
            return opener.open(path, **options)
        return Awaited(opener.open_async(path, **options), loop)

    yield opened
    if loop is not None:
        loop.close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(lambda asked: honest(DATA, asked)) as running:
        yield running


def lines(server: Scripted, name: str) -> list[str]:
    """Those of the last request that have this name."""
    return [line for line in server.asked[-1].lines if line.lower().startswith(f"{name.lower()}:")]


# --- a login in the URL --------------------------------------------------------------------------------------


def guarded(asked: Asked) -> Answer:
    known = asked.fields.get("authorization") == WANTED
    return honest(DATA, asked) if known else reply(401, WWW_Authenticate="Basic realm=x")


def test_a_login_in_the_url(way: Any) -> None:
    """RFC 7617 and common use: whatever is read, and however it was opened."""
    with scripted(guarded) as server:
        reader = way(rangeio, server.url.replace("//", "//me:p%20w@") + "/object", **OPTIONS)
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_ranges([(0, 5), (90_000, 90_005)], gap=0) == [DATA[:5], DATA[90_000:90_005]]
        assert reader.stat().size == len(DATA)
        space = bytearray(10)
        assert reader.read_into(space, 7) == 10
        for secret in ("p w", "p%20w"):
            assert secret not in f"{reader!r} {reader.path}"
        reader.close()


@pytest.mark.parametrize("rooted", [True, False])
def test_a_login_of_an_operator(way: Any, rooted: bool) -> None:
    with scripted(guarded) as server:
        url = server.url.replace("//", "//me:p%20w@")
        operator = rangeio.Operator("http", root=url if rooted else None, **OPTIONS)
        path = "object" if rooted else f"{url}/object"
        with way(operator, path) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
        assert operator.read_ranges([(path, (5, 15)), (path, (0, 3))]) == [DATA[5:15], DATA[:3]]
        found = operator.stat(path)
        assert found.size == len(DATA)
        assert "p%20w" not in repr(found)
        assert "p w" not in repr(found)


# --- names of fields -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "USER-AGENT"])
def test_the_callers_field_replaces_ours(server: Scripted, way: Any, name: str) -> None:
    with way(rangeio, f"{server.url}/object", headers={name: "me/1"}, **OPTIONS) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_at(15, 10) == DATA[15:25]  # by the shorter way, as it is asked for again
    assert lines(server, "user-agent") == [f"{name}: me/1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"authorization": "Basic zzz"}, "bearer_token": "tok"},
        {"headers": {"AUTHORIZATION": "Basic zzz"}, "auth": ("me", "password")},
        {"headers": {"accept": "a", "Accept": "b"}},
        {"headers": {"HOST": "example.org"}},
        {"headers": {"if-none-match": '"a"'}},
        {"headers": {"IF-MODIFIED-SINCE": "Sat, 21 Nov 2026 05:00:00 GMT"}},
    ],
    ids=str,
)
def test_contradictions(wrong: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.open("http://example.org/object", **wrong)
    assert "zzz" not in repr(caught.value)


def test_fresh_fields_replace_those_of_before(server: Scripted) -> None:
    """What a callable says now counts more than what headers said once, in whatever case."""
    options = {"headers": {"authorization": "old"}, "credentials": lambda: {"Authorization": "new"}}
    with rangeio.open(f"{server.url}/object", **OPTIONS, **options) as reader:
        reader.read_at(0, 3)
    assert lines(server, "authorization") == ["Authorization: new"]


def test_merged() -> None:
    assert merged({"A": "1", "B": "2"}, {"a": "3"}, {"C": "4"}) == {"a": "3", "B": "2", "C": "4"}


# --- one line each -------------------------------------------------------------------------------------------

BROKEN = {
    "ends with a line break": "value\n",
    "CR LF": "value\r\nX-Injected: 1",
    "CR": "value\rX-Injected: 1",
    "NUL": "val\0ue",
    "another control character": "val\x0bue",
    "delete": "val\x7fue",
    "not Latin-1": "val\u20acue",
}
SOURCES: dict[str, Callable[[str], dict[str, Any]]] = {
    "headers": lambda value: {"headers": {"X-Key": value}},
    "bearer_token": lambda value: {"bearer_token": value},
    "credentials": lambda value: {"credentials": lambda: {"Authorization": value}},
    "if_match": lambda value: {"if_match": value},
    "if_modified_since": lambda value: {"if_modified_since": value},
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("source", SOURCES)
def test_what_cannot_be_sent(server: Scripted, source: str, how: str) -> None:
    """It is refused, in words that do not show it, before anything is sent. Source: RFC 9110, section 5.5."""
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.open(f"{server.url}/object", **OPTIONS, **SOURCES[source](BROKEN[how])).read_at(0, 3)
    assert server.asked == []
    if not source.startswith("if_"):
        assert "val" not in str(caught.value).replace("the value of", "")


LOGINS: dict[str, Callable[[str], dict[str, Any]]] = {
    "auth": lambda text: {"auth": ("me", text)},
    "the user of auth": lambda text: {"auth": (text, "password")},
    "proxy": lambda text: {"proxy": f"http://me:{text}@127.0.0.1:9"},
}


@pytest.mark.parametrize("source", LOGINS)
def test_logins_with_line_breaks(source: str) -> None:
    """In base64 they would harm nobody, and be refused by the server: RFC 7617 has no control characters in them."""
    text = "hunter2%0A" if source == "proxy" else "hunter2\n"
    with pytest.raises(rangeio.ConfigInvalidError, match="line break") as caught:
        rangeio.open("http://example.org/object", **LOGINS[source](text))
    assert "hunter2" not in repr(caught.value)
    with pytest.raises(rangeio.ConfigInvalidError, match="line break"):
        rangeio.open("http://me:hunter2%0A@example.org/object")


def test_the_last_check() -> None:
    """Where a source forgets to look, no head is made all the same."""
    assert head_of("GET / HTTP/1.1", {"A": "b\tc"}) == "GET / HTTP/1.1\r\nA: b\tc\r\n"
    for line, fields in (("GET /\r\nX: 1 HTTP/1.1", {}), ("GET / HTTP/1.1", {"A": "b\nX: 1"})):
        with pytest.raises(rangeio.ConfigInvalidError) as caught:
            head_of(line, fields)
        assert "X: 1" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "a\r\nb", "a:", "", "\u00e9", "a\n"])
def test_names_of_fields(name: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="not a valid name"):
        checked_fields({name: "value"})


# --- below a root --------------------------------------------------------------------------------------------

OUTSIDE = [
    "..",
    "../private",
    "a/../../private",
    "./../private",
    "../sub2/x",
    "a/..",
    "..\\private",
    "a\\..\\..\\private",
    "%2e%2e/private",
    "..%2fprivate",
    "%252e%252e/private",
    "..;a=b/private",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_what_leaves_the_root(server: Scripted, way: Any, path: str) -> None:
    """Refused as over files, whichever server or proxy would take the dots out. Nothing is sent."""
    operator = rangeio.Operator("http", root=f"{server.url}/sub", bearer_token="TOKEN", **OPTIONS)
    with pytest.raises(rangeio.PermissionDeniedError, match="leaves the root"):
        way(operator, path).read_at(0, 3)
    with pytest.raises(rangeio.PermissionDeniedError, match="leaves the root"):
        operator.stat(path)
    results = operator.read_ranges([(path, (0, 3)), ("in", (0, 3)), (path, (5, 6))], on_error="return")
    assert [type(result) for result in results[::2]] == [rangeio.PermissionDeniedError] * 2
    assert results[1] == DATA[:3]
    assert [asked.target for asked in server.asked] == ["/sub/in"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a/b..c/...", "/sub/a/b..c/..."),
        ("a//b", "/sub/a//b"),
        ("/a", "/sub//a"),
        ("//example.org/a", "/sub///example.org/a"),
        ("http://example.org/a", "/sub/http%3A//example.org/a"),
        (".hidden", "/sub/.hidden"),
        ("a?b#c", "/sub/a%3Fb%23c"),
        ("100%", "/sub/100%25"),
        ("bad\udcff", "/sub/bad%FF"),
    ],
)
def test_names_below_the_root(server: Scripted, path: str, target: str) -> None:
    operator = rangeio.Operator("http", root=f"{server.url}/sub", **OPTIONS)
    assert operator.open(path).read_at(0, 3) == DATA[:3]
    assert server.asked[0].target == target


@pytest.mark.parametrize("end", ["", "/", "#fragment", "?", "/?#"])
def test_roots(server: Scripted, end: str) -> None:
    """A fragment is no part of what a path is appended to, nor is an empty query."""
    assert rangeio.Operator("http", root=f"{server.url}/sub{end}").open("a").read_at(0, 3) == DATA[:3]
    assert server.asked[0].target == "/sub/a"


def test_half_a_character() -> None:
    operator = rangeio.Operator("http", root="http://example.org")
    for opened in (operator.open, lambda path: rangeio.open(f"http://example.org/{path}")):
        with pytest.raises(rangeio.ConfigInvalidError, match="surrogate"):
            opened("a\ud800")


def test_keys_of_s3_are_names(server: Scripted) -> None:
    """ ".." too: the path is signed as it is sent, so that who takes dots out of it breaks the signature."""
    keys = {"access_key_id": "AKID", "secret_access_key": "secret"}
    operator = rangeio.Operator("s3", bucket="bucket", root="sub", endpoint_url=server.url, **keys)
    operator.open("../a").read_at(0, 3)
    assert server.asked[0].target == "/bucket/sub/../a"


# --- tokens --------------------------------------------------------------------------------------------------


def test_a_token_is_not_sent_where_others_could_read_it(server: Scripted) -> None:
    """Over plain http to this machine only; no proxy elsewhere, which would read it too."""
    with rangeio.open(server.url + "/object", bearer_token="t0ken", **OPTIONS) as reader:
        assert reader.read_at(0, 4) == DATA[:4]
    for url, options in (
        ("http://data.example.org/object", {}),
        ("http://192.0.2.1/object", {}),
        (server.url + "/object", {"proxy": "http://192.0.2.1:8080"}),
    ):
        with pytest.raises(rangeio.ConfigInvalidError, match="not sent over plain http") as caught:
            rangeio.open(url, bearer_token="t0ken", **options)
        assert "t0ken" not in str(caught.value)
    rangeio.open("https://192.0.2.1/object", bearer_token="t0ken").close()
    rangeio.open("http://192.0.2.1/object", headers={"Authorization": "Bearer mine"}).close()
