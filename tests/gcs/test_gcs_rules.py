"""What Google Cloud Storage says and how it is taken: objects stored compressed, generations, refusals, lists."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.gcs_keys import service_account
from servers.gcs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, TOKEN, GcsServer
from servers.scripted import Answer, Asked, Scripted, reply

import rangeio
from rangeio.cli import main

DATA = bytes(range(256)) * 800
KEYS: Any = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
ODD = ["a b/+%41ü", "a//b", "../c", "#?&=", "'\"", "日本/\x01", "end/"]


# --- requests ------------------------------------------------------------------------------------------------


def test_requests(desk: Any, store: GcsServer, server: Scripted) -> None:
    """What they say. The generation is never the pin: an older one may be gone, which is no change of the object."""
    reader = desk.open(store.put("key", DATA))
    for at in range(5):
        assert reader.read_at(1000 * at, 1000) == DATA[1000 * at : 1000 * at + 1000]
    asked = server.asked[0]
    assert {asked.target for asked in server.asked} == {"/bucket/key"}
    assert asked.fields["authorization"] == f"Bearer {TOKEN}"
    assert asked.fields["accept-encoding"] == "gzip"
    assert server.asked[1].fields["if-match"] == store.buckets["bucket"]["key"][0].etag


@pytest.mark.parametrize("key", ODD)
@pytest.mark.parametrize("who", [{}, KEYS], ids=["token", "HMAC"])
def test_keys(desk: Any, store: GcsServer, key: str, who: Any) -> None:
    """As they are: the store refuses a signature of another path."""
    assert desk.open(store.put(key, DATA), **who).read_at(5, 10) == DATA[5:15]


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_emulators_want_no_credentials(
    monkeypatch: pytest.MonkeyPatch, store: GcsServer, server: Scripted, scheme: str
) -> None:
    store.public.add("bucket")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", scheme + server.url.removeprefix("http://"))
    with rangeio.open(store.put("key", DATA)) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert "authorization" not in server.asked[0].fields


def test_google_base_url(monkeypatch: pytest.MonkeyPatch, store: GcsServer, server: Scripted) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
    with rangeio.open(store.put("key", DATA), bearer_token=TOKEN) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]


def test_an_endpoint_with_a_path(server: Scripted, store: GcsServer) -> None:
    """Some proxies keep Cloud Storage below a path."""
    store.fault = lambda asked: reply(204) if asked.target == "/below/bucket/key" else None
    with rangeio.open("gs://bucket/key", endpoint_url=f"{server.url}/below/", bearer_token=TOKEN) as reader:
        assert reader.read_at(0, 1) == b""


# --- stored compressed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [{}, KEYS], ids=["token", "HMAC"])
def test_compressed_objects_are_read_as_stored(desk: Any, store: GcsServer, who: Any) -> None:
    stored = gzip.compress(DATA)
    reader = desk.open(store.put("key", stored, coding="gzip"), **who)
    assert reader.read_at(5, 10) == stored[5:15]
    assert reader.read_range(rangeio.Suffix(7)) == stored[-7:]
    assert reader.read_range() == stored
    assert reader.stat().size == len(stored)
    assert desk.open("gs://bucket/key", **who).stat().size == len(stored)


@pytest.mark.parametrize("on_no_range", ["error", "slice", "download"])
def test_decompressed_bytes_are_refused(desk: Any, store: GcsServer, on_no_range: str) -> None:
    """A cache between may have them; offsets into them would be others."""
    stored = gzip.compress(DATA)
    uri = store.put("key", stored, coding="gzip")

    def fault(asked: Asked) -> Answer:
        return reply(200, DATA, ETag='"v1"', x_goog_stored_content_encoding="gzip")

    store.fault = fault
    for part in ((5, 15), rangeio.Suffix(5), rangeio.Suffix(10_000_000)):
        with pytest.raises(rangeio.ContentEncodedError, match="another coding"):
            desk.open(uri, on_no_range=on_no_range).read_range(part)


def test_bytes_compressed_on_the_way_are_refused(desk: Any, store: GcsServer) -> None:
    packed = gzip.compress(DATA)
    span = f"bytes 0-9/{len(packed)}"
    store.fault = lambda asked: reply(
        206,
        packed[:10],
        Content_Range=span,
        Content_Encoding="gzip",
        x_goog_stored_content_encoding="identity",
    )
    with pytest.raises(rangeio.ContentEncodedError):
        desk.open("gs://bucket/key").read_at(0, 10)


def test_a_body_made_anew_is_refused(desk: Any, store: GcsServer) -> None:
    """As requests are for ranges, 200 with a coding is not of the store, unless it says that the object has it."""
    store.fault = lambda asked: reply(200, gzip.compress(DATA), Content_Encoding="gzip", ETag='W/"v1"')
    with pytest.raises(rangeio.ContentEncodedError):
        desk.open("gs://bucket/key").read_at(0, len(DATA) * 2)


def test_the_size_of_a_compressed_object_without_content_length(desk: Any, store: GcsServer) -> None:
    """As a server answers HEAD that would decompress it."""
    stored = gzip.compress(DATA)
    uri = store.put("key", stored, coding="gzip")
    kept = store.buckets["bucket"]["key"][0]
    store.fault = lambda asked: reply(
        200, **{**kept.fields(), "Content_Length": None, "Transfer-Encoding": "chunked"}
    )
    assert desk.open(uri).stat().size == len(stored)


# --- versions ------------------------------------------------------------------------------------------------


def test_another_generation_is_refused(desk: Any, store: GcsServer) -> None:
    reader = desk.open(store.put("key", DATA))
    assert reader.read_at(0, 10) == DATA[:10]
    store.put("key", DATA[::-1])
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(0, 10)


def test_generations(desk: Any, store: GcsServer, server: Scripted) -> None:
    uri = store.put("key", DATA)
    old = store.generation("key")
    store.put("key", b"newer")
    reader = desk.open(uri, version=old)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert server.asked[0].target == f"/bucket/key?generation={old}"
    assert reader.stat().version == old
    assert desk.open(uri).stat().version == store.generation("key")
    with pytest.raises(rangeio.NotFoundError):
        desk.open(uri, version="12345").read_at(0, 1)


@pytest.mark.parametrize("version", ["latest", "-1", "1 2", "1&x=2"])
def test_what_is_no_generation(desk: Any, version: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="generation"):
        desk.open("gs://bucket/key", version=version).stat()


def test_the_generation_pins_where_there_is_no_etag(desk: Any, store: GcsServer, server: Scripted) -> None:
    """As in Google's own testbench."""
    uri = store.put("key", DATA)
    store.etags = False
    reader = desk.open(uri)
    assert reader.read_at(0, 10) == DATA[:10]
    assert reader.read_at(10, 10) == DATA[10:20]
    assert server.asked[-1].fields["x-goog-if-generation-match"] == store.generation("key")
    store.put("key", DATA[::-1])
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(0, 10)


def test_conditions(desk: Any, store: GcsServer) -> None:
    uri = store.put("key", DATA)
    etag = store.buckets["bucket"]["key"][0].etag
    assert desk.open(uri, if_match=etag).read_at(0, 5) == DATA[:5]
    with pytest.raises(rangeio.ConditionNotMatchError):
        desk.open(uri, if_match='"other"').read_at(0, 5)
    with pytest.raises(rangeio.NotModifiedError):
        desk.open(uri, if_none_match=etag).read_at(0, 5)


# --- who pays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [{}, KEYS], ids=["token", "HMAC"])
def test_the_reader_pays(desk: Any, store: GcsServer, who: Any) -> None:
    store.billed.add("bucket")
    uri = store.put("key", DATA)
    with pytest.raises(rangeio.ConfigInvalidError, match=r"UserProjectMissing.*user_project="):
        desk.open(uri, **who).read_at(0, 1)
    assert desk.open(uri, user_project="mine", **who).read_at(5, 10) == DATA[5:15]
    operator = rangeio.Operator(
        "gs", bucket="bucket", endpoint_url=desk.url, user_project="mine", **(who or {"bearer_token": TOKEN})
    )
    assert [entry.path for entry in operator.list("")] == ["key"]


# --- refusals ------------------------------------------------------------------------------------------------


def xml(status: int, code: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told</Message></Error>"
    return reply(status, body.encode(), x_guploader_uploadid="UPLOAD-ID")


def by_json(status: int, reason: str) -> Answer:
    errors = [{"domain": "global", "reason": reason, "message": "told"}]
    body = json.dumps({"error": {"code": status, "message": "told", "errors": errors}})
    return reply(status, body.encode(), x_guploader_uploadid="UPLOAD-ID")


REFUSALS: list[tuple[Answer, type[rangeio.Error], bool]] = [
    (xml(404, "NoSuchKey"), rangeio.NotFoundError, False),
    (xml(404, "NoSuchBucket"), rangeio.NotFoundError, False),
    (reply(404), rangeio.NotFoundError, False),
    (xml(401, "AuthenticationRequired"), rangeio.UnauthenticatedError, False),
    (by_json(401, "required"), rangeio.UnauthenticatedError, False),
    (xml(403, "AccessDenied"), rangeio.PermissionDeniedError, False),
    (by_json(403, "forbidden"), rangeio.PermissionDeniedError, False),
    (xml(403, "SignatureDoesNotMatch"), rangeio.UnauthenticatedError, False),
    (xml(403, "InvalidAccessKeyId"), rangeio.UnauthenticatedError, False),
    (xml(403, "UserProjectAccessDenied"), rangeio.PermissionDeniedError, False),
    (xml(400, "ExpiredToken"), rangeio.UnauthenticatedError, False),
    (xml(400, "UserProjectMissing"), rangeio.ConfigInvalidError, False),
    (by_json(400, "required"), rangeio.ConfigInvalidError, False),
    (xml(400, "ResourceIsEncryptedWithCustomerEncryptionKey"), rangeio.ConfigInvalidError, False),
    (xml(429, "SlowDown"), rangeio.RateLimitedError, True),
    (by_json(429, "rateLimitExceeded"), rangeio.RateLimitedError, True),
    (by_json(403, "rateLimitExceeded"), rangeio.RateLimitedError, True),
    (by_json(403, "userRateLimitExceeded"), rangeio.RateLimitedError, True),
    (reply(408), rangeio.TimedOutError, True),
    (xml(500, "InternalError"), rangeio.ServerError, True),
    (by_json(502, "backendError"), rangeio.ServerError, True),
    (xml(503, "ServiceUnavailable"), rangeio.ServerError, True),
    (reply(504), rangeio.TimedOutError, True),
    (reply(403, b"{" * 50_000), rangeio.PermissionDeniedError, False),
    (reply(403, b'{"error": []}'), rangeio.PermissionDeniedError, False),
    (reply(403, b'{"error": {"errors": [{"reason": 5}]}}'), rangeio.PermissionDeniedError, False),
]


@pytest.mark.parametrize(("answer", "kind", "again"), REFUSALS)
def test_refusals(
    desk: Any, store: GcsServer, server: Scripted, answer: Answer, kind: type[rangeio.Error], again: bool
) -> None:
    store.fault = lambda asked: answer
    with pytest.raises(kind) as caught:
        desk.open(store.put("key", DATA)).read_at(0, 1)
    assert type(caught.value) is kind
    assert len(server.asked) == (4 if again else 1)
    if b"UPLOAD-ID" in answer.data:
        assert caught.value.request_id == "UPLOAD-ID"
        assert "told" in str(caught.value)


def test_temporary_refusals_are_survived(desk: Any, store: GcsServer, server: Scripted) -> None:
    store.fault = lambda asked: xml(503, "ServiceUnavailable") if asked.number < 2 else None
    assert desk.open(store.put("key", DATA)).read_at(5, 10) == DATA[5:15]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "answer", [reply(206, Content_Range="bytes */819200"), reply(206)], ids=["*", "none"]
)
def test_an_empty_206_says_that_there_is_nothing(desk: Any, store: GcsServer, answer: Answer) -> None:
    """An emulator answers so, past the end."""
    reader = desk.open(store.put("key", DATA))
    store.fault = lambda asked: answer if asked.range and asked.range[0] >= len(DATA) else None
    assert reader.read_at(len(DATA) + 5, 10) == b""
    assert reader.read_at(len(DATA) - 5, 10) == DATA[-5:]


# --- lists ---------------------------------------------------------------------------------------------------

LISTED = sorted([*ODD, *(f"many/{number:02}" for number in range(20))], key=lambda key: key.encode())


@pytest.fixture(params=["XML", "JSON", "JSON after 404"])
def filled(request: pytest.FixtureRequest, store: GcsServer) -> GcsServer:
    """The XML API of Google's testbench says 404 to a listing, that of other emulators 501."""
    for name in LISTED:
        store.put(name, name.encode())
    store.page = 7
    store.lists = request.param == "XML"
    if "404" in request.param:
        store.fault = lambda asked: reply(404, b"Not Found") if "list-type" in asked.target else None
    return store


def operator(server: Scripted, **options: Any) -> rangeio.Operator:
    who = {} if "access_key_id" in options or "anonymous" in options else {"bearer_token": TOKEN}
    return rangeio.Operator("gs", endpoint_url=server.url, **{"bucket": "bucket", **who, **options})


def test_list(filled: GcsServer, server: Scripted) -> None:
    found = operator(server).list("")
    assert not server.asked
    entries = list(found)
    assert [entry.path for entry in entries] == LISTED
    assert [entry.size for entry in entries] == [len(name.encode()) for name in LISTED]
    assert [entry.version for entry in entries] == [filled.generation(name) for name in LISTED]
    # A page is a request; the JSON API is asked after the XML API refused.
    assert len(server.asked) == 4 + (not filled.lists)


def test_list_again(filled: GcsServer, server: Scripted) -> None:
    """Which API lists is remembered."""
    listed = operator(server)
    list(listed.list("many/0"))
    before = len(server.asked)
    assert len(list(listed.list("many/1"))) == 10
    assert len(server.asked) - before == 2


@pytest.mark.parametrize("loop", LOOPS)
def test_list_async(filled: GcsServer, server: Scripted, loop: str) -> None:
    need_module(loop)

    async def main() -> list[str]:
        return [entry.path async for entry in operator(server).list_async("")]

    assert run_on(loop, main) == LISTED


def test_list_prefixes(filled: GcsServer, server: Scripted) -> None:
    found = list(operator(server).list("", delimiter="/"))
    expected = sorted({name.partition("/")[0] + "/" if "/" in name else name for name in LISTED})
    assert sorted(entry.path for entry in found) == expected
    assert all(entry.is_prefix == entry.path.endswith("/") for entry in found)
    below = operator(server, root="many")
    assert [entry.path for entry in below.list("1")] == [f"{number}" for number in range(10, 20)]
    assert below.open("05").read_range() == b"many/05"
    everywhere = operator(server, bucket=None)
    assert next(iter(everywhere.list("bucket/many/"))).path == "bucket/many/00"


def test_hmac_keys_do_not_fit_the_json_api(filled: GcsServer, server: Scripted) -> None:
    found = operator(server, **KEYS).list("")
    if filled.lists:
        assert [entry.path for entry in found] == LISTED
    else:
        with pytest.raises((rangeio.UnsupportedError, rangeio.NotFoundError)):  # as the XML API says it
            list(found)
        assert len(server.asked) == 1


def test_a_bucket_that_is_not_there(store: GcsServer, server: Scripted) -> None:
    with pytest.raises(rangeio.NotFoundError, match="NoSuchBucket"):
        list(operator(server, bucket="other").list(""))
    assert len(server.asked) == 1


BAD_LISTS = [
    b"{",
    b"[]",
    b'{"items": [5]}',
    b'{"items": [{"name": "a"}]}',
    b'{"items": [{"name": "a", "size": "-1"}]}',
    b'{"items": [{"name": "", "size": "1"}]}',
    b'{"items": {"a": 1}}',
    b'{"nextPageToken": 5}',
    b"{" * 100_000,
    b'{"a": ' * 50_000,
]


@pytest.mark.parametrize("body", BAD_LISTS, ids=lambda body: body[:40].decode())
def test_lists_that_are_none(store: GcsServer, server: Scripted, body: bytes) -> None:
    store.fault = lambda asked: reply(200, body)
    with pytest.raises(rangeio.UnexpectedError):
        list(operator(server).list(""))


@pytest.mark.parametrize("by", ["XML", "JSON"])
def test_the_command_line(
    store: GcsServer,
    server: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    by: str,
) -> None:
    store.put("a/b", DATA)
    store.put("a/c", b"other")
    store.lists = by == "XML"
    store.public.add("bucket")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    assert main(["ls", "gs://bucket/a/"]) == 0
    assert [line.split()[-1] for line in capfd.readouterr().out.splitlines()] == [
        "gs://bucket/a/b",
        "gs://bucket/a/c",
    ]
    assert main(["cat", "gs://bucket/a/c"]) == 0
    assert capfd.readouterr().out == "other"
    assert main(["cat", "gs://bucket/a/d"]) == 1
    assert "gs://bucket/a/d" in capfd.readouterr().err


def test_a_list_that_loops(store: GcsServer, server: Scripted) -> None:
    store.fault = lambda asked: reply(200, b'{"items": [{"name": "a", "size": "1"}], "nextPageToken": "x"}')
    with pytest.raises(rangeio.UnexpectedError, match="loops"):
        list(operator(server).list(""))


# --- the service ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", ["", "a", "a/b", "-a", "a b", "..", "a?b", "x" * 300])
def test_what_is_no_bucket(bucket: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.Operator("gs", bucket=bucket, anonymous=True).open("key")


def test_read_ranges_of_many(store: GcsServer, server: Scripted) -> None:
    store.put("a", DATA)
    store.put("b", DATA[::-1])
    found = operator(server).read_ranges([("a", (0, 5)), ("b", (0, 5)), ("c", (0, 5))], on_error="return")
    assert found[:2] == [DATA[:5], DATA[::-1][:5]]
    assert isinstance(found[2], rangeio.NotFoundError)


def test_the_lines_of_the_documentation(
    store: GcsServer, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run as they stand, and read."""
    store.put("tables/weights.bin", DATA)
    monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(service_account()))
    need_module("google.auth")
    text = (Path(__file__).resolve().parents[2] / "docs" / "gcs.md").read_text()
    lines = text.partition("```python\n")[2].partition("```")[0]
    said: dict[str, Any] = {}
    exec(lines, said)
    assert said["columns"] == [DATA[4096:8192], DATA[100_000:200_000]]
    with rangeio.open(said["url"]) as reader:
        assert reader.read_range() == DATA
