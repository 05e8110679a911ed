"""What was sent to say who asks, and the values of a URL's query, are shown nowhere: whoever quotes them."""

import ast
import logging
import pickle
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, cut, honest, reply, scripted

import rangeio
from rangeio.cli import main
from rangeio.http import redaction
from rangeio.http.proxies import basic
from rangeio.http.redaction import Quoted, hidden, secrets_of_fields, secrets_of_query, without_secrets

need_module("urllib3")

DATA = bytes(range(256)) * 10
QUERY, HEADER, TOKEN, PASSWORD, COOKIE = (
    "Qu3ryS3cret",
    "H3aderS3cret",
    "T0kenS3cret",
    "Passw0rdS3cret",
    "C00kieS3cret",
)
KEYS = {"access_key_id": "AKIDHIDDEN", "secret_access_key": "K3y/S3cret+x", "session_token": TOKEN}
SECRETS = (QUERY, HEADER, TOKEN, PASSWORD, COOKIE, *KEYS.values())
HEADERS = {"X-Auth-Key": HEADER, "Cookie": f"session={COOKIE}; path=/"}


@pytest.fixture(params=["sync", *LOOPS])
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)
    given: Any = {"retry": rangeio.Retry(attempts=2, backoff_s=0.001), "timeout": 10}

    def opened(uri: str, **options: Any) -> Any:
        if loop is None:
            return rangeio.open(uri, **{**given, **options})
        return Awaited(rangeio.open_async(uri, **{**given, **options}), loop)

    yield opened
    if loop is not None:
        loop.close()


def shown(error: BaseException) -> str:
    """All that an error and what it came of say in any way."""
    texts = traceback.format_exception(error)
    cause: BaseException | None = error
    while cause is not None:
        texts += [str(cause), repr(cause), repr(cause.__dict__), repr(cause.args)]
        cause = cause.__cause__ or cause.__context__
    texts.append(pickle.dumps(error).decode("latin-1"))
    return "\n".join(
        line for line in "\n".join(texts).splitlines() if not line.startswith("    ")
    )  # our own source


def quoted(asked: Asked) -> str:
    """The request, as it came and with its query decoded."""
    return " ".join([*asked.lines, asked.target.replace("%2B", "+"), PASSWORD])


QUOTING: dict[str, Callable[[Asked], Answer]] = {
    "a refusal": lambda asked: reply(403, quoted(asked).encode()),
    "its reason": lambda asked: Answer(f"HTTP/1.1 403 {quoted(asked)}\r\nContent-Length: 0\r\n\r\n".encode()),
    "no head": lambda asked: Answer(f"{asked.target} {quoted(asked)}\r\n\r\n".encode(), "close"),
    "the query, cut": lambda asked: Answer(f"0123456789012345678901234567{QUERY}\r\n\r\n".encode(), "close"),
    "a line that is no field": lambda asked: Answer(
        f"HTTP/1.1 200 OK\r\n{asked.fields.get('x-auth-key') or TOKEN} {HEADER}\r\n\r\n".encode(), "close"
    ),
    "a transfer coding": lambda asked: reply(200, b"", Transfer_Encoding=TOKEN),
    "a content coding": lambda asked: reply(200, DATA, Content_Encoding=HEADER),
    "a content type": lambda asked: reply(206, DATA, Content_Type=f"multipart/{QUERY}"),
    "the name of the request": lambda asked: reply(500, b"", X_Request_Id=f"id-{QUERY}-{TOKEN}"),
    "XML": lambda asked: reply(
        403, f"<Error><Code>C{TOKEN}</Code><Message>{QUERY} {HEADER} {TOKEN}</Message></Error>".encode()
    ),
}
# For who only asks what there is, nothing is wrong with these.
HEAD_IS_WELL = {"a content coding", "a content type"}


def secrets_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret.lower() in text.lower()]


@pytest.mark.parametrize("how", QUOTING)
def test_what_a_server_quotes(opened: Any, how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted(QUOTING[how]) as server:
        host = server.url.removeprefix("http://")
        reader = opened(
            f"http://me:{PASSWORD}@{host}/object?key={QUERY}",
            headers={**HEADERS, "X-Bearer": f"Bearer {TOKEN}"},
        )
        calls = [lambda: reader.read_at(0, 10), lambda: reader.read_ranges([(0, 5), (7, 9)])]
        for call in calls if how in HEAD_IS_WELL else [*calls, reader.stat]:
            with pytest.raises(rangeio.Error) as caught:
                call()
            text = shown(caught.value) + caplog.text
            assert not secrets_in(text)
            assert quote(f"me:{PASSWORD}") not in text
        assert not secrets_in(f"{reader!r} {reader.path}")
        reader.close()


@pytest.mark.parametrize("how", QUOTING)
def test_what_a_store_quotes(opened: Any, how: str) -> None:
    options: Any = {"headers": {"x-amz-meta": HEADER, "X-Query": QUERY}, **KEYS}
    with scripted(QUOTING[how]) as server:
        reader = opened("s3://bucket/key", endpoint_url=server.url, **options)
        operator = rangeio.Operator("s3", bucket="bucket", endpoint_url=server.url, retry=1, **options)
        calls = [lambda: reader.read_at(0, 10), lambda: list(operator.list("prefix"))]
        for call in calls if how in HEAD_IS_WELL else [*calls, reader.stat]:
            with pytest.raises(rangeio.Error) as caught:
                call()
            text = shown(caught.value)
            assert not secrets_in(text)
        for asked in server.asked:
            signature = asked.fields["authorization"].rpartition("=")[2]
            assert signature not in text
        reader.close()


CODES = ["AccessDenied", "InvalidToken", "ExpiredToken", "SlowDown", "SomethingNew"]


@pytest.mark.parametrize("code", CODES)
def test_what_a_store_explains(opened: Any, code: str) -> None:
    """The rest of its words is there; and so are ours, though a secret is one of them."""
    body = f"<Error><Code>{code}</Code><Message>Your token {TOKEN} and {HEADER.lower()} are bad.</Message></Error>"
    options = {**KEYS, "headers": {"X-Key": HEADER}, "secret_access_key": "secret"}
    with scripted(lambda asked: reply(403, body.encode())) as server:
        reader = opened("s3://bucket/key", endpoint_url=server.url, **options)
        with pytest.raises(rangeio.Error) as caught:
            reader.read_at(0, 1)
        assert f"{code}: " in str(caught.value)
        assert "(the server: Your token *** and *** are bad.)" in str(caught.value)
        assert ("secret_access_key" in str(caught.value)) == (code == "InvalidToken")
        reader.close()


def test_what_is_sent_to_a_redirect(opened: Any) -> None:
    """A signature that came by Location is one as well."""

    def script(asked: Asked) -> Answer:
        if asked.target == "/object":
            return reply(307, Location=f"/elsewhere?sig={QUERY}")
        return Answer(f"{QUERY} is no head\r\n\r\n".encode(), "close")

    with scripted(script) as server:
        reader = opened(f"{server.url}/object")
        with pytest.raises(rangeio.Error) as caught:
            reader.read_at(0, 1)
        assert QUERY not in shown(caught.value)
        assert "***" in str(caught.value)
        reader.close()


def test_credentials_of_before() -> None:
    """A server may still speak of those that a request was sent with, when others have been asked for."""
    calls: list[str] = []

    def fresh() -> dict[str, str]:
        calls.append(TOKEN if not calls else HEADER)
        return {"Authorization": f"Bearer {calls[-1]}"}

    def script(asked: Asked) -> Answer:
        return reply(401) if len(calls) < 2 else Answer(f"{TOKEN} {HEADER}\r\n\r\n".encode(), "close")

    with scripted(script) as server, rangeio.open(server.url, credentials=fresh, retry=1) as reader:
        with pytest.raises(rangeio.Error) as caught:
            reader.read_at(0, 1)
        assert not secrets_in(shown(caught.value))


def test_the_login_of_a_proxy(opened: Any) -> None:
    with scripted(lambda asked: Answer(f"{asked.fields['proxy-authorization']}\r\n\r\n".encode())) as proxy:
        url = proxy.url.replace("//", f"//me:{PASSWORD}@")
        reader = opened("http://example.org/object", proxy=url)
        with pytest.raises(rangeio.Error) as caught:
            reader.read_at(0, 1)
        sent = proxy.asked[0].fields["proxy-authorization"]
        assert sent.removeprefix("Basic ")[:12] not in shown(caught.value)
        reader.close()


@pytest.mark.parametrize("given", ["URL", "auth", "headers", "credentials"])
def test_a_login_as_it_was_sent(opened: Any, given: str) -> None:
    """Whoever has the base64 of a login has the login."""
    login = "alice", f"{PASSWORD}/@"
    header = {"Authorization": basic(*login)}
    options: dict[str, Any] = {"auth": login, "headers": header, "credentials": lambda: header}

    def script(asked: Asked) -> Answer:
        sent = asked.fields["authorization"]
        return reply(404, X_Request_Id=sent if asked.number else sent.partition(" ")[2])

    with scripted(script) as server:
        inside = f"alice:{quote(login[1], safe='')}@" if given == "URL" else ""
        url = server.url.replace("//", f"//{inside}")
        reader = opened(f"{url}/object", **{name: options[name] for name in options if name == given})
        for _ in range(2):
            with pytest.raises(rangeio.NotFoundError) as caught:
                reader.read_at(0, 1)
            assert caught.value.request_id
            assert basic(*login).partition(" ")[2].lower() not in shown(caught.value).lower()
        assert server.asked[0].fields["authorization"] == basic(*login)
        reader.close()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{}/object", "s3://bucket/key"])
def test_the_login_of_a_proxy_on_the_way_to_a_redirect(
    opened: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment may have a proxy for where it leads, and none for where it began."""
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with (
        scripted(lambda asked: reply(307, Location="http://elsewhere.example/object")) as server,
        scripted(lambda asked: reply(404, X_Request_Id=asked.fields["proxy-authorization"])) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", f"//me:{PASSWORD}@"))
        options = {"endpoint_url": server.url, **KEYS} if uri.startswith("s3") else {}
        reader = opened(uri.format(server.url.rpartition(":")[2]), **options)
        with pytest.raises(rangeio.NotFoundError) as caught:
            reader.read_at(0, 1)
        assert proxy.asked[0].fields["proxy-authorization"] == basic("me", PASSWORD)
        assert basic("me", PASSWORD).partition(" ")[2].lower() not in shown(caught.value).lower()
        reader.close()


def test_a_signed_target_of_before(opened: Any) -> None:
    """One request is under way to it still when another has found that it has expired, and been led elsewhere."""
    led, elsewhere = count(), threading.Event()

    def script(asked: Asked) -> Answer:
        if asked.target == "/object":
            return reply(307, Location=f"/elsewhere?sig={next(led)}{QUERY}")
        if asked.range == (0, 10):
            return honest(DATA, asked)
        if asked.range == (100, 110):
            assert elsewhere.wait(10)
            return reply(500, X_Request_Id=asked.target)
        if "sig=0" in asked.target:
            return reply(403)
        elsewhere.set()
        return honest(DATA, asked)

    with scripted(script) as server:
        reader = opened(f"{server.url}/object", retry=1)
        reader.read_at(0, 10)
        with pytest.raises(rangeio.ServerError) as caught:
            reader.read_ranges([(100, 110), (1000, 1010)], gap=None)
        assert caught.value.request_id == "/elsewhere?sig=***"
        assert QUERY not in shown(caught.value)
        reader.close()


def test_a_signature_of_before(opened: Any) -> None:
    """What was made for one read is sent again by the next, whatever was signed in between."""
    refused: list[str] = []

    def script(asked: Asked) -> Answer:
        if refused:
            return reply(403, X_Request_Id=asked.fields["authorization"].rpartition(",")[2])
        return honest(DATA, asked)

    with scripted(script) as server:
        reader = opened("s3://bucket/key", endpoint_url=server.url, **KEYS)
        for at in (0, 10, 20):
            reader.read_at(at, 10)
        reader.stat()
        refused.append("from now on")
        with pytest.raises(rangeio.PermissionDeniedError) as caught:
            reader.read_at(30, 10)
        signature = server.asked[-1].fields["authorization"].rpartition("=")[2]
        assert caught.value.request_id == "Signature=***"
        assert signature not in shown(caught.value)
        reader.close()


# --- what we say ourselves -----------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 206 Word\r\nContent-Range: bytes 5-14/2560\r\nTransfer-Encoding: chunked\r\n\r\n"
# What is said of it, and what goes wrong.
GOES_WRONG: dict[str, Callable[[Asked], Answer]] = {
    "closed the connection without a response": lambda asked: Answer(b"", "close"),
    "in the middle of its response": lambda asked: cut(honest(DATA, asked), 3, "close"),
    "is invalid: not a status line: '***'": lambda asked: Answer(b"connection\r\n\r\n", "close"),
    "not a header field: '***'": lambda asked: Answer(b"HTTP/1.1 200 OK\r\nconnection\r\n\r\n", "close"),
    "transfer coding '***'": lambda asked: reply(200, Transfer_Encoding="connection"),
    "Content-Length '***'": lambda asked: reply(200, Content_Length="connection"),
    "Content-Range bytes 9-1/***": lambda asked: reply(206, DATA, Content_Range="bytes 9-1/4711"),
    "not a chunk size: b'***'": lambda asked: Answer(CHUNKED + b"connection\r\n", "close"),
    "not a line of a chunked body: b'***\\n'": lambda asked: Answer(CHUNKED + b"connection\n", "close"),
    "sends 206 as 'multipart/***'": lambda asked: reply(206, DATA, Content_Type="multipart/connection"),
    "206 without a usable Content-Range": lambda asked: reply(206, DATA),
    "encodes the content (***)": lambda asked: reply(200, DATA, Content_Encoding="connection"),
    "ignores Range and sends the whole object": lambda asked: reply(200, DATA),
    "HTTP 500: the server failed": lambda asked: reply(500),
    "HTTP 500: the server failed (request ***)": lambda asked: reply(500, X_Request_Id="connection"),
    "to an address that is not an http or https URL": lambda asked: reply(
        307, Location="connection://server"
    ),
    "more than 10 redirects": lambda asked: reply(307, Location="/object?connection"),
    "no bytes arrived within first_byte_s=": lambda asked: Answer(b"", "stall"),
    "but size=4711 was given": lambda asked: honest(DATA, asked),
    "is not satisfied, but the server ignores it": lambda asked: reply(
        206, DATA[5:15], ETag='"v1"', Content_Range="bytes 5-14/2560"
    ),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "no bytes arrived within first_byte_s=": {"timeout": rangeio.Timeout(first_byte_s=0.05)},
    "but size=4711 was given": {"size": 4711},
    "is not satisfied, but the server ignores it": {"if_match": '"connection"'},
}


@pytest.mark.parametrize("said", GOES_WRONG)
def test_our_words_are_no_secrets(opened: Any, said: str) -> None:
    """Though values of a query may be the same ordinary words: only a server can give a secret away."""
    words = "the server closed connection without middle reply cannot understood status line header field"
    words += " transfer coding chunk size body Content-Length Content-Range answers usable encodes content"
    words += (
        " ignores whole object failed redirects than nothing came given hold HTTP 4711 given first_byte_s"
    )
    query = "&".join(f"{number}={word}" for number, word in enumerate(words.split()))
    with scripted(GOES_WRONG[said]) as server:
        reader = opened(f"{server.url}/object?{query}", **{"retry": 1, **OPTIONS.get(said, {})})
        with pytest.raises(rangeio.Error) as caught:
            reader.read_at(5, 10)
        assert said in str(caught.value)
        assert str(caught.value).count("***") == said.count("***")
        reader.close()


def test_our_words_of_what_changed(opened: Any) -> None:
    def script(asked: Asked) -> Answer:
        head = honest(DATA, asked, etag=None).data.partition(b"\r\n")[2]
        date = [b"some day", b"that day"][asked.number > 0]
        return Answer(b"HTTP/1.1 206 Word\r\nLast-Modified: " + date + b"\r\n" + head)

    with scripted(script) as server:
        reader = opened(f"{server.url}/object?0=changed&1=after&2=modified&3=that")
        reader.read_at(0, 10)
        with pytest.raises(rangeio.ObjectChangedError) as caught:
            reader.read_at(10, 10)
        assert "it changed after it was opened: it was modified at *** day; open it again" in str(
            caught.value
        )
        reader.close()


def test_words_of_a_callable_are_not_ours(opened: Any) -> None:
    def fresh() -> dict[str, str]:
        if not server.asked:
            return {"Authorization": f"Bearer {TOKEN}"}
        raise rangeio.UnauthenticatedError(f"{TOKEN} is refused")

    with scripted(lambda asked: reply(401)) as server:
        reader = opened(f"{server.url}/object", credentials=fresh)
        with pytest.raises(rangeio.UnauthenticatedError, match="\\*\\*\\* is refused") as caught:
            reader.read_at(0, 1)
        assert TOKEN not in str(caught.value)
        reader.close()


# --- what is shown beside errors -----------------------------------------------------------------------------


def test_a_query_is_shown_nowhere(server: Scripted) -> None:
    """Whatever its names: what lets somebody in, only its server knows."""
    url = f"{server.url}/object?key={QUERY}"
    operator = rangeio.Operator("http")
    with rangeio.open(url) as reader:
        looks: list[Callable[[], object]] = [
            lambda: reader,
            lambda: reader.path,
            lambda: reader.stat(),
            lambda: reader.plan([(0, 5), (7, 9)]),
            lambda: reader.capability,
            lambda: reader.stats,
            lambda: reader.slice(0, 5),
            lambda: operator,
            lambda: operator.stat(url),
            lambda: operator.open_async(url),
            lambda: vars(operator),
            lambda: reader.as_file(),
            rangeio.stats,
        ]
        for look in looks:
            assert QUERY not in repr(look()) + str(look())
    calls: list[Callable[[], object]] = [
        lambda: operator.list(url),
        lambda: operator.presign(url),
        lambda: operator.read_ranges([(url,)]),  # type: ignore[list-item]
        lambda: operator.read_ranges([url]),  # type: ignore[list-item]
        lambda: operator.read_ranges([(url, "0-5")]),  # type: ignore[list-item]
        lambda: rangeio.open(url, nonsense=1),
    ]
    for call in calls:
        with pytest.raises((rangeio.Error, TypeError, ValueError)) as caught:
            call()
        assert QUERY not in shown(caught.value)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(lambda asked: honest(DATA, asked)) as running:
        yield running


@pytest.mark.parametrize(
    "words", [["stat"], ["stat", "--json"], ["ranges", "--range", "0-5"], ["cat", "--range", "5000-"], ["ls"]]
)
def test_commands(server: Scripted, capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    main([words[0], f"{server.url.replace('//', f'//me:{PASSWORD}@')}/object?key={QUERY}", *words[1:]])
    said = capfd.readouterr()
    assert not secrets_in(said.out + said.err)


def test_a_destination_that_is_a_url(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "/dev/null", f"http://example.org/?key={QUERY}"]) == 2
    assert QUERY not in capfd.readouterr().err


# --- what travels --------------------------------------------------------------------------------------------

HARMLESS = {"User-Agent": "me/1", "accept-language": "is", "X-Amz-Request-Payer": "requester"}


@pytest.mark.parametrize(
    "name",
    ["X-Auth-Key", "Authorization", "Cookie", "X-Api-Key", "Private-Token", "X-Functions-Key", "Referer"],
)
def test_fields_that_travel(server: Scripted, name: str) -> None:
    """Those known to be harmless, in any case; of others nobody knows."""
    headers = {name: HEADER, **HARMLESS}
    for thing in (
        rangeio.open(f"{server.url}/object", headers=headers),
        rangeio.open_async(f"{server.url}/object", headers=headers),
        rangeio.Operator("http", root=server.url, headers=headers),
    ):
        pickled = pickle.dumps(thing)
        assert HEADER.encode() not in pickled
        assert HEADER not in repr(thing)
        assert all(value.encode() in pickled for value in HARMLESS.values())


def test_logins_do_not_travel(server: Scripted) -> None:
    url = server.url.replace("//", f"//me:{PASSWORD}@")
    things = [
        rangeio.open(f"{url}/object"),
        rangeio.open_async(f"{url}/object"),
        rangeio.Operator("http", root=url),
        rangeio.open(f"{server.url}/object", bearer_token=TOKEN),
        rangeio.open(f"{server.url}/object", auth=("me", PASSWORD)),
        rangeio.open(f"{server.url}/object", proxy=f"http://me:{PASSWORD}@127.0.0.1:9"),
        rangeio.open("s3://bucket/key", endpoint_url=server.url, **KEYS),  # type: ignore[arg-type]
    ]
    for thing in things:
        pickled = pickle.dumps(thing)
        assert not [secret for secret in SECRETS if secret.encode() in pickled]


# --- how it is done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "secrets", "left"),
    [
        ("say secret-word twice: SECRET-WORD", ["secret-word"], "say *** twice: ***"),
        ("a%2Fb%2Bcd and a/b+cd", ["a/b+cd"], "*** and ***"),
        ("a/b+cd and a%2Fb%2Bcd", ["a%2Fb%2Bcd"], "*** and ***"),
        ("cut: 'secret-wo", ["secret-words-that-are-long"], "cut: '***"),
        ("cut: 'secre'", ["secret-words-that-are-long"], "cut: '***'"),
        ("secretsecret", ["secret"], "******"),
        ("longsecret", ["secret", "longsecret"], "***"),
        ("an abc, not abcd", ["abc"], "an ***, not abcd"),
        ("a b c", ["a", "", " "], "a b c"),
        ("206 of 4711 bytes", ["206", "4711"], "206 of *** bytes"),
        (repr("a back\\slash"), ["back\\slash"], "'a ***'"),
        ("[^x]+.*", ["[^x]+.*"], "***"),
        ("id-dE9rRW5TZUNyRXQrLz1acTk=", ["tOkEnSeCrEt+/=Zq9"], "id-***="),
        ("744F6B456E5365437245742b2f3d5a7139 x", ["tOkEnSeCrEt+/=Zq9"], "*** x"),
    ],
)
def test_hidden(text: str, secrets: list[str], left: str) -> None:
    assert hidden(text, secrets) == left


def test_parts_of_fields() -> None:
    fields = {
        "Authorization": "Basic bWU6aHVudGVyMg==",
        "Cookie": 'a=first; b="second"',
        "X-Key": "third",
        "X-Token": "Bearer fourth",
        "User-Agent": "me/1",
    }
    found = set(secrets_of_fields(fields))
    assert {"bWU6aHVudGVyMg==", "hunter2", "first", "second", "third", "fourth"} <= found
    assert not {"Basic", "Bearer", "me/1"} & found
    assert set(secrets_of_query("/a?b=c%20d&e&f=")) == {"c%20d", "e", ""}
    assert set(secrets_of_query("/a")) == {""}


def test_words_of_two() -> None:
    inner = "it ends (" + Quoted("secretly") + ")"
    said = "secret: " + inner + "; secret"
    assert said == "secret: it ends (secretly); secret"
    assert without_secrets(said, ["secretly", "secret"]) == "secret: it ends (***); secret"
    assert without_secrets("a secret", ["secret"]) == "a secret"
    assert type(str(rangeio.ServerError(said))) is str
    assert type(pickle.loads(pickle.dumps(rangeio.ServerError(said))).args[0]) is str


# Of the standard library and of urllib3, before anything is sent.
# The text of expat: what is wrong, and where.
NOT_OF_A_SERVER = {"connection_pool.py: error", "proxies.py: error", "xml.py: error"}


def test_no_error_formats_the_words_of_a_server() -> None:
    """They would be taken for ours, in which nobody looks for secrets: they are `Quoted`."""
    found = set()
    for path in Path(redaction.__file__).parent.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if not ast.unparse(call.func).endswith(("Error", "BadResponse", "kind")) or not call.args:
                continue
            shown = [node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.FormattedValue)]
            theirs = [what for what in map(ast.unparse, shown) if re.search(r"\[|fields|error\b(?!\))", what)]
            found |= {f"{path.name}: {what}" for what in theirs}
    assert found <= NOT_OF_A_SERVER
