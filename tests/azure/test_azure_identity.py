"""Accounts, endpoints and credentials of Azure: from options, connection strings, the environment and callables."""

import os
import pickle
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from awaited import LOOPS, by_each
from faults.machine import need_module
from servers.azure_server import ACCOUNT, CONTAINER, KEY, AzureServer, azure_server

import rangeio
from rangeio.azure.account import Account
from rangeio.azure.endpoint import Endpoint, parse_rest
from rangeio.azure.identity import Identity
from rangeio.azure.settings import of_environment, parse_connection_string
from rangeio.azure.signing import AccountKey, Grant, service_sas
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.remote_object import Access
from rangeio.http.urls import Address
from rangeio.services.azure import AzureRemoteObject
from rangeio.services.http_options import DEFAULTS

need_module("urllib3")

DATA = bytes(range(256)) * 100
SAS = service_sas(AccountKey(ACCOUNT, KEY), Grant(CONTAINER, "", time.time() + 3000, https_only=False))


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own."""
    for name in [*os.environ]:
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[AzureServer]:
    with azure_server() as found:
        found.put("blob", DATA)
        yield found


def read(server: AzureServer, **options: Any) -> bytes:
    """Ten bytes, read with these options."""
    with rangeio.open(f"az://{CONTAINER}/blob", **{**server.options, **options}) as reader:
        return bytes(reader.read_at(5, 10))


# --- accounts and endpoints ----------------------------------------------------------------------------------

PUBLIC = "https://myaccount.blob.core.windows.net"
ENDPOINTS = [
    (("myaccount", None), "myaccount", PUBLIC),
    ((None, PUBLIC), "myaccount", PUBLIC),
    ((None, "https://myaccount.dfs.core.windows.net/"), "myaccount", PUBLIC),
    ((None, "https://myaccount.z12.dfs.storage.azure.net"), "myaccount", "https://myaccount.z12.blob.storage.azure.net"),
    ((None, "http://127.0.0.1:10000/devstoreaccount1"), "devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1"),
    (("other", "http://blobs.example.org/x/"), "other", "http://blobs.example.org/x"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "account", "url"), ENDPOINTS)
def test_endpoints(given: tuple[Any, Any], account: str, url: str) -> None:
    found = Endpoint.of(*given)
    assert (found.account, found.url) == (account, url)


@pytest.mark.parametrize(
    "given",
    [
        (None, None),
        ("UPPER", None),
        ("a.evil.example.org/x", None),
        (None, "http://h/x?sig=secret"),
        (None, "http://me:secret@h/"),
        (None, "ftp://h/"),
    ],
)
def test_endpoints_that_are_none(given: tuple[Any, Any]) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        Endpoint.of(*given)
    assert "secret" not in str(caught.value)


URIS = [
    ("cont/a/b%20c", {"container": "cont"}, "a/b%20c"),
    ("cont@acc.dfs.core.windows.net/a@b/c", {"container": "cont", "account": "acc"}, "a@b/c"),
    ("cont@acc.blob.core.windows.net", {"container": "cont", "account": "acc"}, ""),
    (
        "cont@acc.dfs.core.chinacloudapi.cn/a",
        {"container": "cont", "account": "acc", "endpoint_url": "https://acc.dfs.core.chinacloudapi.cn"},
        "a",
    ),
    (
        "cont@acc.z12.dfs.storage.azure.net/a",
        {"container": "cont", "account": "acc", "endpoint_url": "https://acc.z12.dfs.storage.azure.net"},
        "a",
    ),
    ("", {}, ""),
]


@pytest.mark.parametrize(("rest", "options", "path"), URIS)
def test_uris(rest: str, options: dict[str, str], path: str) -> None:
    assert parse_rest(rest) == (options, path)


@pytest.mark.parametrize(
    "host",
    [
        "acc.dfs.evil.example",
        "acc.blob.core.windows.net.evil.example",
        "acc.blob.core.windows.net:8443",
        "acc.z1.blob.core.windows.net@evil.example",
        "acc.blob.core.windows.net\\.evil.example",
        "acc.z1.dfs.evil.example",
    ],
)
def test_hosts_that_get_no_credentials(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the machine would be sent to whoever wrote the URI."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=secret")
    with pytest.raises(rangeio.ConfigInvalidError, match=r"host|cloud"):
        rangeio.open(f"abfss://cont@{host}/blob")


@pytest.mark.parametrize("scheme", ["az", "azure", "abfs", "abfss", "wasb", "wasbs"])
def test_schemes(server: AzureServer, scheme: str) -> None:
    """Each of them by both forms; a host in the URI is that of the public cloud unless there is an endpoint."""
    for place in (CONTAINER, f"{CONTAINER}@{ACCOUNT}.dfs.core.windows.net"):
        options = {"endpoint_url": server.options["endpoint_url"], "account_key": KEY}
        with rangeio.open(f"{scheme}://{place}/blob", **options) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
            assert reader.path == f"az://{CONTAINER}/blob"


@pytest.mark.parametrize(
    "uri", ["az://c/x", "az://UPPER/x", "az://a--b/x", "abfss://cont@example.org/x", "az://cont"]
)
def test_uris_that_name_nothing(server: AzureServer, uri: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.open(uri, **server.key_options)


def test_operator_of_a_uri(server: AzureServer) -> None:
    server.put("a/b/c", DATA)
    operator = rangeio.Operator.from_uri(f"az://{CONTAINER}/a", **server.key_options)
    assert operator.open("b/c").read_at(0, 9) == DATA[:9]
    assert [stat.path for stat in operator.list()] == ["b/c"]
    assert operator.uri("b/c") == f"az://{CONTAINER}/a/b/c"


# --- connection strings --------------------------------------------------------------------------------------

CLOUD = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net"


def test_connection_strings() -> None:
    found = parse_connection_string(CLOUD)
    assert (found.account, found.endpoint_url) == ("acc", "https://acc.blob.core.windows.net")
    assert found.account_key == KEY
    other = CLOUD.replace("core.windows.net", "core.chinacloudapi.cn").replace("https", "http")
    assert parse_connection_string(other).endpoint_url == "http://acc.blob.core.chinacloudapi.cn"
    found = parse_connection_string("UseDevelopmentStorage=true")
    assert found.endpoint_url == "http://127.0.0.1:10000/devstoreaccount1"
    found = parse_connection_string("BlobEndpoint=https://h/acc/;SharedAccessSignature=?sv=1&sig=abc%3D;")
    assert (found.account, found.endpoint_url, found.sas_token) == (
        None,
        "https://h/acc/",
        "?sv=1&sig=abc%3D",
    )
    assert KEY not in repr(parse_connection_string(CLOUD))


@pytest.mark.parametrize("text", ["", "nonsense", "AccountKey=secret", "EndpointSuffix=secret", 5])
def test_connection_strings_that_are_none(text: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.Operator("az", connection_string=text)
    assert "secret" not in str(caught.value)


def test_read_by_connection_string(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.options["endpoint_url"]
    with_key = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url};"
    with_sas = f"BlobEndpoint={url};SharedAccessSignature={SAS}"
    for text in (with_key, with_sas):
        reader = rangeio.open(f"az://{CONTAINER}/blob", connection_string=text)
        assert reader.read_at(5, 10) == DATA[5:15]
        again = pickle.dumps(reader)
        assert KEY.encode() not in again
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        assert pickle.loads(again).read_at(5, 10) == DATA[5:15]
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        assert rangeio.open(f"az://{CONTAINER}/blob").read_at(5, 10) == DATA[5:15]
        monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")


# --- the environment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ACCOUNT_KEY", "KEY", "ACCESS_KEY"])
@pytest.mark.parametrize("account", ["ACCOUNT_NAME", "ACCOUNT"])
def test_variables(server: AzureServer, monkeypatch: pytest.MonkeyPatch, name: str, account: str) -> None:
    monkeypatch.setenv(f"AZURE_STORAGE_{account}", ACCOUNT)
    monkeypatch.setenv(f"AZURE_STORAGE_{name}", f" {KEY}\n")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.options["endpoint_url"])
    assert rangeio.open(f"az://{CONTAINER}/blob").read_at(5, 10) == DATA[5:15]


@pytest.mark.parametrize("name", ["SAS_TOKEN", "SAS_KEY"])
def test_sas_of_the_environment(server: AzureServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"AZURE_STORAGE_{name}", f"?{SAS}")
    assert read(server) == DATA[5:15]


@pytest.mark.parametrize("named", [True, False], ids=["by account=", "by its URL"])
def test_the_environment_is_of_one_account(
    server: AzureServer, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Its secrets are not for another account, whose server would learn them."""
    need_module("azure.identity")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "another")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    # azure-identity is asked instead, here for what the environment has and nothing more.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    options = {name: value for name, value in server.options.items() if named or name != "account"}
    with (
        rangeio.open(f"az://{CONTAINER}/blob", **options) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="EnvironmentCredential"),
    ):
        reader.read_at(0, 1)
    assert not server.server.asked


def test_bad_connection_string_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="AZURE_STORAGE_CONNECTION_STRING"):
        of_environment({"AZURE_STORAGE_CONNECTION_STRING": "x"})


# --- one way only --------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "account_key": {"account_key": KEY},
    "sas_token": {"sas_token": SAS},
    "bearer_token": {"bearer_token": "token"},
    "credentials": {"credentials": lambda: {"bearer_token": "token"}},
    "client_id": {"client_id": "id", "tenant_id": "tenant", "client_secret": "secret"},
    "anonymous": {"anonymous": True},
    "connection_string": {"connection_string": f"AccountName={ACCOUNT};AccountKey={KEY}"},
}


@pytest.mark.parametrize("one", WAYS)
@pytest.mark.parametrize("other", WAYS)
def test_one_way_only(one: str, other: str) -> None:
    if one >= other:
        return
    with pytest.raises(rangeio.ConfigInvalidError, match="only one of") as caught:
        rangeio.Operator("az", account=ACCOUNT, **WAYS[one], **WAYS[other])
    assert one in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"account_key": "not base64"},
        {"account_key": 5},
        {"sas_token": "secret words"},
        {"sas_token": "sv=1"},
        {"sas_token": "sig=a\r\nHost: b"},
        {"bearer_token": ""},
        {"bearer_token": "a secret"},
        {"bearer_token": "secret\n"},
        {"credentials": 5},
        {"client_secret": "secret"},
        {"tenant_id": "tenant"},
        {"anonymous": False, "headers": {"authorization": "secret"}},
        {"connection_string": f"AccountName=another;AccountKey={KEY}"},
    ],
)
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.Operator("az", account=ACCOUNT, **options)
    assert "secret" not in str(caught.value).replace("client_secret", "")


def test_a_key_needs_an_account() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="account="):
        rangeio.Operator("az", endpoint_url="http://127.0.0.1:1", account_key=KEY)


EXPOSED = {"endpoint_url": "http://blobs.example.org/account"}


@pytest.mark.parametrize("way", ["bearer_token", "client_id"])
def test_no_token_over_plain_http(way: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="plain http"):
        rangeio.Operator("az", **EXPOSED, **WAYS[way])


def test_no_token_of_a_callable_over_plain_http() -> None:
    with (
        rangeio.open("az://cont/x", **EXPOSED, **WAYS["credentials"]) as reader,
        pytest.raises(rangeio.ConfigInvalidError, match="plain http"),
    ):
        reader.read_at(0, 1)


# --- tokens and callables ------------------------------------------------------------------------------------


class Desk:
    def __init__(self, open_reader: Callable[..., Any]) -> None:
        self.open = open_reader

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(params=["sync", *LOOPS])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    yield from by_each(request.param, Desk)


class Token:
    """As azure-core's AccessToken."""

    def __init__(self, token: str, expires_on: float) -> None:
        self.token, self.expires_on = token, expires_on


class Credential:
    """As those of azure-identity."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = [*tokens]
        self.scopes: list[str] = []

    def get_token(self, *scopes: str) -> Token:
        self.scopes += scopes
        return Token(self.tokens[min(len(self.scopes), len(self.tokens)) - 1], time.time() + 3600)


def test_tokens(server: AzureServer, desk: Desk) -> None:
    server.tokens = {"first", "second"}
    credential = Credential("first")
    for options in ({"bearer_token": "second"}, {"credentials": credential}):
        reader = desk.open(f"az://{CONTAINER}/blob", **server.options, **options)
        assert not server.server.asked
        for start in range(5):
            assert reader.read_at(start, 10) == DATA[start : start + 10]
        assert len(server.server.asked) == 5
        server.server.asked.clear()
        reader.close()
    assert credential.scopes == ["https://storage.azure.com/.default"]


def test_a_refused_token_is_renewed(server: AzureServer, desk: Desk) -> None:
    server.tokens = {"new"}
    credential = Credential("old", "new")
    reader = desk.open(f"az://{CONTAINER}/blob", **server.options, credentials=credential)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert len(server.server.asked) == 2
    server.tokens = set()
    with pytest.raises(rangeio.UnauthenticatedError, match="InvalidAuthenticationInfo"):
        reader.read_at(5, 10)
    assert len(server.server.asked) == 4
    reader.close()


def test_no_right_renews_nothing(server: AzureServer) -> None:
    server.tokens = {"token"}
    server.put("forbidden", b"", refusal=(403, "AuthorizationPermissionMismatch"))
    credential = Credential("token")
    with (
        rangeio.open(f"az://{CONTAINER}/forbidden", **server.options, credentials=credential) as reader,
        pytest.raises(rangeio.PermissionDeniedError, match="Storage Blob Data Reader"),
    ):
        reader.read_at(0, 1)
    assert len(credential.scopes) == 1


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "key": lambda: {"account_key": KEY},
    "sas": lambda: {"sas_token": "?" + SAS},
    "token": lambda: {"bearer_token": "token", "expires_at": time.time() + 1000},
    "date": lambda: {"bearer_token": "token", "expires_at": datetime(2099, 1, 1, tzinfo=timezone.utc)},
}


@pytest.mark.parametrize("name", GIVEN)
def test_callables(server: AzureServer, desk: Desk, name: str) -> None:
    server.tokens = {"token"}
    reader = desk.open(f"az://{CONTAINER}/blob", **server.options, credentials=GIVEN[name])
    assert reader.read_at(5, 10) == DATA[5:15]
    assert len(server.server.asked) == 1
    reader.close()


def test_no_thread_sees_an_address_without_the_sas() -> None:
    """Once a thread has got it, while another changes the address."""
    seen: list[str] = []

    class Watched(Account):
        def address(self, *args: Any) -> Address:
            found = super().address(*args)
            if self.identity.version and not seen:
                seen.append("")
                seen[0] = remote.target.target  # by another thread, at this moment
            return found

    identity = Identity(None, lambda: {"sas_token": SAS})
    account = Watched(Endpoint.of(ACCOUNT, None), identity)
    access = Access(ConnectionPool(Security(None, None, True), None), {}, identity)
    remote = AzureRemoteObject(access, account, CONTAINER, "blob", {}, DEFAULTS)
    assert "sig=" not in remote.target.target
    identity.fetch()
    assert "sig=" in remote.target.target
    assert "sig=" in seen[0]


@pytest.mark.parametrize(
    "given",
    [
        {},
        "secret",
        {"bearer_token": "secret", "sas_token": SAS},
        {"bearer": "secret"},
        {"bearer_token": "secret", "expires_at": "tomorrow"},
        {"bearer_token": "secret", "expires_at": datetime(2099, 1, 1)},
        {"sas_token": "secret"},
    ],
)
def test_callables_that_are_wrong(server: AzureServer, given: Any) -> None:
    with (
        rangeio.open(f"az://{CONTAINER}/blob", **server.options, credentials=lambda: given) as reader,
        pytest.raises(rangeio.ConfigInvalidError) as caught,
    ):
        reader.read_at(0, 1)
    assert "secret" not in str(caught.value)
    assert not server.server.asked


def test_an_awaited_credential_is_refused(server: AzureServer) -> None:
    class Awaited:
        async def get_token(self, *scopes: str) -> Any: ...

    with pytest.raises(rangeio.ConfigInvalidError, match=r"azure\.identity\.aio"):
        rangeio.Operator("az", **server.options, credentials=Awaited())


def test_a_credential_that_fails(server: AzureServer) -> None:
    class Failing:
        def get_token(self, *scopes: str) -> Any:
            raise RuntimeError("no such principal")

    with (
        rangeio.open(f"az://{CONTAINER}/blob", **server.options, credentials=Failing()) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="RuntimeError: no such principal"),
    ):
        reader.read_at(0, 1)


def test_public_containers(server: AzureServer) -> None:
    server.containers[CONTAINER].public = True
    assert read(server, anonymous=True) == DATA[5:15]
    (asked,) = server.server.asked
    assert "?" not in asked.target
    assert "authorization" not in asked.fields
    assert asked.fields["x-ms-version"] == "2021-12-02"


def test_own_authorization(server: AzureServer) -> None:
    server.tokens = {"token"}
    assert read(server, anonymous=True, headers={"Authorization": "Bearer token"}) == DATA[5:15]


# --- rangeio doctor ------------------------------------------------------------------------------------------

ENVIRONMENT: list[tuple[dict[str, str], str]] = [
    (
        {"CONNECTION_STRING": f"AccountName={ACCOUNT};AccountKey={KEY}", "SAS_TOKEN": SAS},
        "an account key in AZURE_STORAGE_CONNECTION_STRING",
    ),
    ({"SAS_TOKEN": SAS, "ACCESS_KEY": KEY, "KEY": KEY}, "an account key in AZURE_STORAGE_KEY"),
    ({"SAS_KEY": SAS}, "a SAS in AZURE_STORAGE_SAS_KEY"),
]


@pytest.mark.parametrize(("variables", "said"), ENVIRONMENT)
def test_diagnosis(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    """Which of several is used, and where it was found; options come before the environment."""
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    found = dict(rangeio.Operator("az", account=ACCOUNT).diagnosis())
    assert found == {"endpoint": f"https://{ACCOUNT}.blob.core.windows.net", "credentials": said}
    for way, options in WAYS.items():
        if way != "client_id":  # which asks for a token: tested where there is an authority
            found = dict(rangeio.Operator("az", account=ACCOUNT, **options).diagnosis())
            begin = {"connection_string": "an account key in ", "anonymous": ""}.get(way, "")
            assert found["credentials"].startswith(f"{begin}{way}=")
