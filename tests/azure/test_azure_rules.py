"""What Azure says and how it is taken: ends, states of blobs, directories, refusals, clocks, listings, signed URLs."""

import logging
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from awaited import LOOPS, by_each, run_on
from faults.machine import need_module
from servers.azure_server import ACCOUNT, CONTAINER, KEY, AzureServer, azure_server
from servers.scripted import Answer, Asked, reply, scripted

import rangeio
from rangeio.azure.account import Account
from rangeio.azure.endpoint import Endpoint
from rangeio.azure.identity import Identity, Proof
from rangeio.azure.listing import parse_page
from rangeio.azure.signing import AccountKey, Grant, service_sas

need_module("urllib3")

DATA = bytes(range(256)) * 800
URI = f"az://{CONTAINER}/blob"
FAST: Any = {"retry": rangeio.Retry(attempts=3, backoff_s=0.001)}


class Desk:
    """Opens blobs of the scripted server, sync or by a loop."""

    def __init__(self, open_reader: Callable[..., Any]) -> None:
        self._open = open_reader
        self._context = azure_server()
        self.server: AzureServer = self._context.__enter__()
        self._readers: list[Any] = []
        self.server.put("blob", DATA)

    def open(self, uri: str = URI, **options: Any) -> Any:
        self._readers.append(self._open(uri, **{**self.server.key_options, **FAST, **options}))
        return self._readers[-1]

    @property
    def asked(self) -> list[Asked]:
        return self.server.server.asked

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._context.__exit__(None, None, None)


@pytest.fixture(params=["sync", "asyncio"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from by_each(request.param, Desk)


# --- requests ------------------------------------------------------------------------------------------------


def test_the_request(desk: Desk) -> None:
    reader = desk.open()
    assert reader.read_at(5, 10) == DATA[5:15]
    assert reader.read_at(15, 10) == DATA[15:25]
    first, second = desk.asked
    assert first.fields["x-ms-version"] == "2021-12-02"
    assert not [asked for asked in desk.asked if "authorization" in asked.fields]
    assert first.fields["range"] == "bytes=5-14"
    assert "if-match" not in first.fields
    assert second.fields["if-match"].startswith('"0x')
    terms = parse_qs(urlsplit(first.target).query)
    assert (terms["sr"], terms["sp"], terms["sv"]) == (["c"], ["rl"], ["2021-12-02"])
    assert first.target == second.target


def test_a_blob_that_changes(desk: Desk) -> None:
    reader = desk.open()
    reader.read_at(0, 5)
    desk.server.put("blob", DATA[::-1])
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(5, 5)


@pytest.mark.parametrize("tells", [True, False], ids=["size told", "size not told"])
@pytest.mark.parametrize("data", [b"", b"abc"])
def test_ends(desk: Desk, data: bytes, tells: bool) -> None:
    desk.server.tells_size = tells
    desk.server.put("short", data)
    reader = desk.open("az://container/short")
    assert reader.read_at(0, 100) == data
    assert reader.read_at(len(data), 10) == b""
    assert reader.read_at(1000, 10) == b""
    assert reader.read_range(rangeio.Suffix(2)) == data[-2:]
    assert desk.open("az://container/short").read_at(1000, 10) == b""
    assert desk.open("az://container/short").stat().size == len(data)


def test_stored_encodings(desk: Desk) -> None:
    """Azure stores a coding with a blob, and decodes nothing: offsets are those of the stored bytes."""
    desk.server.put("coded", DATA, fields={"Content-Encoding": "gzip"})
    reader = desk.open("az://container/coded")
    assert reader.stat().size == len(DATA)
    assert reader.read_range(None) == DATA
    assert reader.read_at(5, 10) == DATA[5:15]


# --- states --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["account_key", "sas_token"])
def test_versions_and_snapshots(desk: Desk, way: str) -> None:
    """With an account key a snapshot has a SAS of its own."""
    sas = service_sas(AccountKey(ACCOUNT, KEY), Grant(CONTAINER, "", time.time() + 3000, https_only=False))
    options = {"account_key": None, way: KEY if way == "account_key" else sas}
    snapshot = desk.server.snapshot("blob")
    version = desk.open(**options).stat().version
    desk.server.put("blob", b"new")
    assert desk.open(**options).read_range(None) == b"new"
    for state in ({"version": version}, {"snapshot": snapshot}):
        reader = desk.open(**options, **state)
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_at(15, 10) == DATA[15:25]
        assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
    assert desk.open(version=version).stat().version == version
    with pytest.raises(rangeio.NotFoundError):
        desk.open(snapshot="2020-01-01T00:00:00.0000000Z").read_at(0, 1)


@pytest.mark.parametrize("snapshot", [5, "", "a\r\nb", "é"])
def test_snapshots_that_are_none(desk: Desk, snapshot: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="snapshot"):
        desk.open(snapshot=snapshot).read_at(0, 1)
    with pytest.raises(rangeio.ConfigInvalidError, match="only one of version and snapshot"):
        desk.open(snapshot="2020", version="2020").read_at(0, 1)


def test_snapshot_is_an_option_of_az_only() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="snapshot"):
        rangeio.open("http://127.0.0.1:1/x", snapshot="2020")


def test_directories(desk: Desk) -> None:
    """Of a hierarchical namespace, and those that older file systems make of empty blobs."""
    desk.server.put("dir", b"", directory=True)
    desk.server.put("old", b"", fields={"x-ms-meta-hdi_isfolder": "true"})
    for name in ("dir", "old"):
        with pytest.raises(rangeio.IsDirectoryError, match="list") as caught:
            desk.open(f"az://container/{name}").stat()
        assert isinstance(caught.value, IsADirectoryError)
        with pytest.raises(rangeio.IsDirectoryError):
            desk.open(f"az://container/{name}").read_range(rangeio.Suffix(5))


# --- refusals ------------------------------------------------------------------------------------------------

REFUSALS: list[tuple[int, str, type[rangeio.Error]]] = [
    (404, "BlobNotFound", rangeio.NotFoundError),
    (404, "ContainerNotFound", rangeio.NotFoundError),
    (404, "ResourceNotFound", rangeio.NotFoundError),
    (409, "ContainerBeingDeleted", rangeio.NotFoundError),
    (403, "AuthenticationFailed", rangeio.UnauthenticatedError),
    (401, "NoAuthenticationInformation", rangeio.UnauthenticatedError),
    (401, "InvalidAuthenticationInfo", rangeio.UnauthenticatedError),
    (403, "AuthorizationPermissionMismatch", rangeio.PermissionDeniedError),
    (403, "AuthorizationFailure", rangeio.PermissionDeniedError),
    (403, "InsufficientAccountPermissions", rangeio.PermissionDeniedError),
    (403, "AccountIsDisabled", rangeio.PermissionDeniedError),
    (403, "KeyBasedAuthenticationNotPermitted", rangeio.PermissionDeniedError),
    (403, "AuthorizationProtocolMismatch", rangeio.PermissionDeniedError),
    (403, "AuthorizationSourceIPMismatch", rangeio.PermissionDeniedError),
    (409, "PublicAccessNotPermitted", rangeio.PermissionDeniedError),
    (409, "BlobArchived", rangeio.PermissionDeniedError),
    (409, "BlobBeingRehydrated", rangeio.PermissionDeniedError),
    (409, "BlobUsesCustomerSpecifiedEncryption", rangeio.UnsupportedError),
    (503, "ServerBusy", rangeio.RateLimitedError),
    (500, "OperationTimedOut", rangeio.TimedOutError),
    (500, "InternalError", rangeio.ServerError),
    (400, "SomethingNew", rangeio.UnexpectedError),
]


@pytest.mark.parametrize(("status", "code", "kind"), REFUSALS, ids=[code for _, code, _ in REFUSALS])
def test_refusals(desk: Desk, status: int, code: str, kind: type[rangeio.Error]) -> None:
    """The same by GET, with a body, and by HEAD, which has the code in a field."""
    desk.server.put("refused", b"", refusal=(status, code))
    temporary = status >= 500
    for read in (lambda reader: reader.read_at(0, 1), lambda reader: reader.stat()):
        begun = len(desk.asked)
        with pytest.raises(rangeio.Error, match=code) as caught:
            read(desk.open("az://container/refused"))
        assert type(caught.value) is kind
        assert caught.value.http_status == status
        assert caught.value.request_id == "id-of-the-request"
        assert caught.value.context["code"] == code
        assert (len(desk.asked) - begun > 2) == temporary
    assert "RequestId" not in str(caught.value)


def test_archived_says_what_to_do(desk: Desk) -> None:
    desk.server.put("cold", b"", refusal=(409, "BlobArchived"))
    with pytest.raises(rangeio.PermissionDeniedError, match="rehydrated"):
        desk.open("az://container/cold").read_at(0, 1)


def test_missing_containers(desk: Desk) -> None:
    with pytest.raises(rangeio.NotFoundError, match="ContainerNotFound: the container does not exist"):
        desk.open("az://missing/blob").read_at(0, 1)


def test_refusals_of_proxies(desk: Desk) -> None:
    """Without a code and without XML."""
    with (
        scripted(lambda asked: reply(403, b"<html>go away")) as server,
        rangeio.open(URI, account=ACCOUNT, endpoint_url=server.url, account_key=KEY) as reader,
        pytest.raises(rangeio.PermissionDeniedError, match="HTTP 403"),
    ):
        reader.read_at(0, 1)


def test_conditions(desk: Desk) -> None:
    with pytest.raises(rangeio.ConditionNotMatchError):
        desk.open(if_match='"other"').read_at(0, 1)
    etag = desk.open().stat().etag
    with pytest.raises(rangeio.NotModifiedError):
        desk.open(if_none_match=etag).read_at(0, 1)
    assert desk.open(if_match=etag).read_at(0, 1) == DATA[:1]


# --- clocks and the life of a signature ----------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [7200, 90_000])
def test_a_clock_that_is_wrong(desk: Desk, ahead_s: float) -> None:
    """The server's counts, once it has refused a signature; for all blobs of the Operator."""
    desk.server.clock = lambda: time.time() + ahead_s
    reader = desk.open()
    assert reader.read_at(5, 10) == DATA[5:15]
    assert len(desk.asked) == 2
    assert reader.read_at(15, 10) == DATA[15:25]
    assert len(desk.asked) == 3


def test_a_wrong_key(desk: Desk) -> None:
    reader = desk.open(account_key=KEY[:-4] + "AAA=")
    with pytest.raises(
        rangeio.UnauthenticatedError, match="AuthenticationFailed: the credentials are not accepted"
    ):
        reader.read_at(0, 1)
    assert len(desk.asked) == 1


def test_a_signature_is_kept_for_ten_minutes() -> None:
    account = Account(Endpoint.of(ACCOUNT, None), Identity(Proof(account_key=AccountKey(ACCOUNT, KEY))))
    account.skew_s = 600 - time.time() % 600  # a new signature begins

    def address() -> str:
        return account.address(CONTAINER, "blob", {}).target

    first = address()
    assert address() == first
    account.skew_s += 601
    assert address() != first
    signature = parse_qs(first.partition("?")[2])["sig"][0]
    assert any(
        signature in (secret, secret.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="))
        for secret in account.secrets()
    )


def test_a_signature_that_expires_under_open_readers(desk: Desk) -> None:
    reader = desk.open()
    for start in range(0, 50, 10):
        assert reader.read_at(start, 10) == DATA[start : start + 10]
    desk.server.clock = lambda: time.time() + 3700
    assert reader.read_ranges([(5, 15), (90_000, 90_010)]) == [DATA[5:15], DATA[90_000:90_010]]
    assert desk.asked[-1].target != desk.asked[0].target


# --- listings ------------------------------------------------------------------------------------------------

NAMES = sorted(["a/1", "a/2", "a/b/3", "a/ü %41", "b", "ctl\x01\x02", "last<&>'\"", "plus+ space", "x/y/z"])


@pytest.fixture
def listed() -> Iterator[AzureServer]:
    with azure_server() as server:
        for name in NAMES:
            server.put(name, name.encode())
        yield server


def each_listing(server: AzureServer, *args: Any, **options: Any) -> Iterator[list[rangeio.Stat]]:
    """What the sync and each async listing yield."""
    operator = rangeio.Operator("az", container=CONTAINER, **server.key_options, **options)
    yield list(operator.list(*args))
    for loop in LOOPS:
        need_module(loop)

        async def collect() -> list[rangeio.Stat]:
            return [stat async for stat in operator.list_async(*args)]

        yield run_on(loop, collect)


@pytest.mark.parametrize("empty", [False, True], ids=["", "empty pages"])
@pytest.mark.parametrize("page", [1, 4, 5000])
def test_listings(listed: AzureServer, page: int, empty: bool) -> None:
    listed.containers[CONTAINER].page = page
    listed.containers[CONTAINER].empty_pages = empty
    for found in each_listing(listed):
        assert [stat.path for stat in found] == NAMES
        assert [stat.size for stat in found] == [len(name.encode()) for name in NAMES]
    pages = -(-len(NAMES) // page) * (2 if empty else 1)
    assert len(listed.server.asked) == pages * (1 + len(LOOPS))
    reader = rangeio.open(f"az://{CONTAINER}/{NAMES[3]}", **listed.key_options)
    assert (reader.stat().etag, reader.stat().mtime_ns) == (found[3].etag, found[3].mtime_ns)
    reader.close()


def test_listings_with_a_delimiter(listed: AzureServer) -> None:
    listed.put("a", b"", directory=True)
    listed.put("a/b", b"", directory=True)
    for found in each_listing(listed, "a/", "/"):
        assert [(stat.path, stat.is_prefix) for stat in found] == [
            ("a/1", False),
            ("a/2", False),
            ("a/b/", True),
            ("a/ü %41", False),
        ]
    for found in each_listing(listed):
        assert [stat.path for stat in found] == NAMES


def test_listings_below_a_root(listed: AzureServer) -> None:
    for found in each_listing(listed, root="a"):
        assert [stat.path for stat in found] == [name[2:] for name in NAMES if name.startswith("a/")]


def test_no_request_before_the_first_entry(listed: AzureServer) -> None:
    found = rangeio.Operator("az", container=CONTAINER, **listed.key_options).list()
    assert not listed.server.asked
    next(found)
    assert len(listed.server.asked) == 1


def test_listings_that_are_refused(listed: AzureServer) -> None:
    operator = rangeio.Operator("az", container="missing", **listed.key_options)
    with pytest.raises(rangeio.NotFoundError, match="ContainerNotFound"):
        list(operator.list())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"<ListBucketResult/>",
        b"<!DOCTYPE x><EnumerationResults/>",
        b"<EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs></EnumerationResults>",
        b"<EnumerationResults>" + b"<x/>" * 2000 + b"</EnumerationResults>",
    ],
)
def test_pages_that_are_none(body: bytes) -> None:
    with pytest.raises(rangeio.UnexpectedError):
        parse_page(body)


def test_a_listing_that_loops(listed: AzureServer) -> None:
    def script(asked: Asked) -> Answer:
        return reply(200, b"<EnumerationResults><NextMarker>again</NextMarker></EnumerationResults>")

    listed.server.script = script
    operator = rangeio.Operator("az", container=CONTAINER, **listed.key_options)
    with pytest.raises(rangeio.UnexpectedError, match="loop"):
        list(operator.list())


# --- signed URLs ---------------------------------------------------------------------------------------------


def test_presign(desk: Desk) -> None:
    """The server checks the signature; https sees it."""
    operator = rangeio.Operator("az", container=CONTAINER, **desk.server.key_options)
    snapshot = desk.server.snapshot("blob")
    version = operator.stat("blob").version
    desk.server.put("blob", b"new")
    with rangeio.open(operator.presign("blob", 60)) as reader:
        assert reader.read_range(None) == b"new"
        assert "sig=" not in reader.path
    with rangeio.open(operator.presign("blob", version=version)) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    of_snapshots = rangeio.Operator("az", container=CONTAINER, snapshot=snapshot, **desk.server.key_options)
    with rangeio.open(of_snapshots.presign("blob")) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    altered = operator.presign("blob").replace("/blob?", "/other?")
    with rangeio.open(altered) as reader, pytest.raises(PermissionError):
        reader.read_at(0, 1)


def test_presign_for_https() -> None:
    operator = rangeio.Operator("az", account=ACCOUNT, account_key=KEY)
    url = urlsplit(operator.presign("container/a b", 60))
    assert (url.scheme, url.hostname) == ("https", f"{ACCOUNT}.blob.core.windows.net")
    assert url.path == "/container/a%20b"
    terms = parse_qs(url.query)
    assert (terms["spr"], terms["sp"], terms["sr"]) == (["https"], ["r"], ["b"])


@pytest.mark.parametrize("options", [{"sas_token": "sig=x"}, {"anonymous": True}])
def test_presign_without_a_key(options: Any) -> None:
    with pytest.raises(rangeio.UnsupportedError, match="account_key="):
        rangeio.Operator("az", account=ACCOUNT, **options).presign("container/x")


def test_presign_with_a_token(desk: Desk) -> None:
    """One request for a key, which signs until it expires."""
    desk.server.tokens = {"token"}
    operator = rangeio.Operator("az", container=CONTAINER, bearer_token="token", **desk.server.options)
    urls = [operator.presign("blob", seconds) for seconds in (60, 600, 3000, 7 * 24 * 3600, 7000)]
    assert [asked.method for asked in desk.asked] == ["POST", "POST"]
    for url in urls:
        with rangeio.open(url) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
    with rangeio.open(urls[0].replace("/blob?", "/other?")) as reader, pytest.raises(PermissionError):
        reader.read_at(0, 1)
    desk.server.tokens = set()
    with pytest.raises(rangeio.UnauthenticatedError, match="user delegation key"):
        rangeio.Operator("az", bearer_token="token", **desk.server.options).presign("container/blob")


def test_presign_with_a_response_that_is_no_key(desk: Desk) -> None:
    desk.server.server.script = lambda asked: reply(200, b"<UserDelegationKey/>")
    with pytest.raises(rangeio.UnexpectedError, match="user delegation key"):
        rangeio.Operator("az", bearer_token="token", **desk.server.options).presign("container/blob")


# --- secrets -------------------------------------------------------------------------------------------------

SAS = service_sas(AccountKey(ACCOUNT, KEY), Grant(CONTAINER, "", time.time() + 3000, https_only=False))
SECRETS = [
    KEY,
    "a-very-secret-token",
    "customers-secret-key",
    SAS.partition("sig=")[2],
    parse_qs(SAS)["sig"][0],
]
WITH_SECRETS: dict[str, dict[str, Any]] = {
    "key": {"account_key": KEY},
    "sas": {"sas_token": SAS},
    "token": {"bearer_token": "a-very-secret-token"},
    "connection string": {},
    "principal": {"tenant_id": "t", "client_id": "c", "client_secret": "a-very-secret-token"},
}


@pytest.mark.parametrize("way", WITH_SECRETS)
def test_no_secret_is_shown(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """In no message, traceback, log, repr, plan or pickle, even if the server quotes the request."""
    caplog.set_level(logging.DEBUG)

    def script(asked: Asked) -> Answer:
        quoted = f"<Error><Code>Odd</Code><Message>{asked.target.replace('&', ' ')} {asked.fields}</Message></Error>"
        return reply(400, quoted.encode(), x_ms_error_code=f"Odd {asked.target.partition('?')[2]}")

    with scripted(script) as server:
        url = f"{server.url}/{ACCOUNT}"
        options: dict[str, Any] = {"account": ACCOUNT, "endpoint_url": url, **WITH_SECRETS[way]}
        if way == "connection string":
            options = {"connection_string": f"BlobEndpoint={url};AccountName={ACCOUNT};AccountKey={KEY}"}
        options["headers"] = {"x-ms-encryption-key": "customers-secret-key"}
        operator = rangeio.Operator("az", container=CONTAINER, **options)
        reader = operator.open("blob", size=1000)
        shown = [repr(operator), repr(reader), reader.path, repr(reader.plan([(0, 5)])), operator.uri("blob")]
        signed = [*SECRETS]
        if way != "principal":  # which would ask the real service for a token
            for read in (lambda: reader.read_at(0, 5), reader.stat, lambda: list(operator.list())):
                try:
                    read()
                except rangeio.Error as error:
                    shown += [str(error), repr(error.context), *traceback.format_exception(error)]
                    shown.append(repr(pickle.dumps(error)))
            signed += [parse_qs(urlsplit(asked.target).query).get("sig", [KEY])[0] for asked in server.asked]
            signed += [asked.target.partition("sig=")[2] or KEY for asked in server.asked]
            assert server.asked
        shown += [repr(pickle.dumps(operator)), repr(pickle.dumps(reader)), caplog.text]
        reader.close()
    for secret in signed:
        assert not [text for text in shown if secret in text], secret
