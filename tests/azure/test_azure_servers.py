"""Azurite, which people test with; and the scripted server as other clients see it."""

import json
import pickle
import random
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.azure_server import CONTAINER, AzureServer, azure_server
from servers.azurite import ACCOUNT, KEY, Azurite
from servers.azurite import azurite as started

import rangeio
from rangeio.cli import main

need_module("urllib3")

DATA = random.Random(7).randbytes(300_000)
NAMES = [
    "plain",
    "a/b/c.bin",
    "with space",
    "plus+plus",
    "100%",
    "%41 is no A",
    "#fragment?query=1&b=2",
    "é ü 日本 🎈",
    "quote'\"<>",
    "(a)[b]{c}!*;:@=,$~",
]

on = pytest.mark.parametrize


def operator_of(server: Any, **options: Any) -> rangeio.Operator:
    return rangeio.Operator("az", **{"container": CONTAINER, **server.key_options, **options})


# --- Azurite -------------------------------------------------------------------------------------------------


@on("name", NAMES)
def test_names(azurite: Azurite, name: str) -> None:
    """Read, listed, and by a signed URL."""
    with rangeio.open(azurite.put(name, DATA[:999]), **azurite.key_options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_range(rangeio.Suffix(9)) == DATA[990:999]
    operator = operator_of(azurite)
    assert name in {stat.path for stat in operator.list()}
    with rangeio.open(operator.presign(name)) as reader:
        assert reader.read_range(None) == DATA[:999]


@on("size", [0, 1, 1000])
def test_ends(azurite: Azurite, size: int) -> None:
    """It answers 206 without a byte at the end, and for an empty blob."""
    uri, data = azurite.put(f"ends/{size}", DATA[:size]), DATA[:size]
    for offset in (size, size + 1, size + 1000):
        with rangeio.open(uri, **azurite.key_options) as reader:
            assert reader.read_at(offset, 10) == b""
            assert reader.read_at(0, 5000) == data
            assert reader.read_at(offset, 10) == b""
            assert reader.read_range(rangeio.Suffix(3)) == data[-3:]
    with rangeio.open(uri, **azurite.key_options) as reader:
        assert reader.stat().size == size


def test_ways_to_sign_in(azurite: Azurite) -> None:
    """The server checks signatures: those of ours, and of Microsoft's library."""
    blob = need_module("azure.storage.blob")
    uri = azurite.put("signed", DATA)
    expiry = datetime.now(timezone.utc) + timedelta(hours=1)
    of_blob = blob.generate_blob_sas(
        ACCOUNT, CONTAINER, "signed", account_key=KEY, permission="r", expiry=expiry
    )
    of_account = blob.generate_account_sas(ACCOUNT, KEY, "co", "rl", expiry)
    text = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azurite.url}"
    for options in (
        {"sas_token": of_blob},
        {"sas_token": "?" + of_account},
        {"account_key": KEY},
        {"connection_string": text},
        {"credentials": lambda: {"account_key": KEY, "expires_at": time.time() + 60}},
    ):
        with rangeio.open(uri, **{**azurite.options, **options}) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
    for options in ({"account_key": f"B{KEY[1:]}"}, {"sas_token": of_blob[:-6] + "AAAAAA"}):
        with rangeio.open(uri, **{**azurite.options, **options}) as reader, pytest.raises(PermissionError):
            reader.read_at(0, 1)


def test_overwritten(azurite: Azurite) -> None:
    with rangeio.open(azurite.put("changing", DATA), **azurite.key_options) as reader:
        reader.read_at(0, 5)
        azurite.put("changing", DATA[::-1])
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_at(5, 5)


def test_snapshots(azurite: Azurite) -> None:
    """With the account key too, where Azurite wants a signature for the snapshot."""
    uri = azurite.put("kept", DATA)
    snapshot = azurite.snapshot("kept")
    azurite.put("kept", b"new")
    with rangeio.open(uri, snapshot=snapshot, **azurite.key_options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_at(15, 10) == DATA[15:25]
    with rangeio.open(uri, **azurite.key_options) as reader:
        assert reader.read_range(None) == b"new"


def test_missing(azurite: Azurite) -> None:
    for uri, code in (
        (f"az://{CONTAINER}/missing", "BlobNotFound"),
        ("az://missing/blob", "ContainerNotFound"),
    ):
        with rangeio.open(uri, **azurite.key_options) as reader:
            for read in (reader.stat, lambda reader=reader: reader.read_at(0, 1)):
                with pytest.raises(rangeio.NotFoundError, match=code):
                    read()


def test_many_names(azurite: Azurite) -> None:
    names = [f"many/{number:04}" for number in range(30)]
    for name in names:
        azurite.put(name, name.encode())
    azurite.put("many/deep/x", b"")
    operator = operator_of(azurite)
    found = list(operator.list("many/", "/"))
    assert [stat.path for stat in found] == [*names, "many/deep/"]
    assert found[3].etag == operator.stat(names[3]).etag
    for loop in LOOPS:

        async def collect() -> list[str]:
            return [stat.path async for stat in operator.list_async("many/")]

        assert run_on(loop, collect) == [*names, "many/deep/x"]
    jobs = [(name, (0, 4)) for name in names]
    assert operator.read_ranges(jobs) == [b"many"] * len(jobs)


def test_development_storage(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people have it in their settings, but for the port."""
    uri = azurite.put("plain", DATA)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "UseDevelopmentStorage=true")
    with rangeio.open(uri, endpoint_url=azurite.url) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert pickle.loads(pickle.dumps(reader)).read_at(5, 10) == DATA[5:15]


def test_the_example_of_the_documentation(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "azure.md").read_text()
    example = text.partition("```python\n")[2].partition("```")[0]
    azurite.put("tables/weights.bin", DATA)
    connection = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azurite.url}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    found: dict[str, Any] = {}
    exec(example, found)
    assert (found["head"], found["footer"]) == (DATA[:8], DATA[-8:])
    assert found["columns"] == [DATA[4096:8192], DATA[100_000:200_000]]
    with rangeio.open(found["url"]) as reader:
        assert reader.read_range(None) == DATA


def test_command(azurite: Azurite, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite.url)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    uri = azurite.put("command/data", DATA)
    assert main(["cat", uri, "--range", "5-15"]) == 0
    assert capfdbinary.readouterr().out == DATA[5:15]
    assert main(["ls", f"az://{CONTAINER}/command/"]) == 0
    assert b"data" in capfdbinary.readouterr().out
    assert main(["stat", "--json", uri]) == 0
    assert json.loads(capfdbinary.readouterr().out)["size"] == len(DATA)
    assert main(["ranges", "--json", uri, "--range=0-10"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["bytes_requested"] == 10
    assert main(["cp", uri, str(tmp_path)]) == 0
    assert (tmp_path / "data").read_bytes() == DATA
    main(["doctor", "--json", uri])
    out = capfdbinary.readouterr().out
    found = {one["topic"]: one["text"] for one in json.loads(out)["findings"]}
    assert found["credentials"] == "an account key in AZURE_STORAGE_ACCOUNT_KEY"
    assert found["object"].startswith("293 KiB, pin ")
    assert found["reads"].startswith("can be read: ")
    assert KEY.encode() not in out


def token_of(**claims: Any) -> str:
    """As the authority would sign it; Azurite reads the claims only."""
    now = int(time.time())
    claims = {
        "oid": "object",
        "tid": "tenant",
        "iat": now,
        "nbf": now - 60,
        "exp": now + 600,
        "iss": "https://sts.windows.net/tenant/",
        **claims,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in [*parts, b"signature"])


def test_over_tls_with_a_token(tmp_path: Path) -> None:
    with started(tmp_path, secure=True) as server:
        uri = server.put("blob", DATA)
        with rangeio.open(uri, **server.key_options) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
        good, bad = token_of(aud="https://storage.azure.com"), token_of(aud="https://example.org")
        with rangeio.open(uri, bearer_token=good, **server.options) as reader:
            assert reader.read_at(5, 10) == DATA[5:15]
            assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
        operator = rangeio.Operator("az", container=CONTAINER, bearer_token=good, **server.options)
        with rangeio.open(operator.presign("blob"), **server.secure) as reader:
            assert reader.read_range(None) == DATA
        with (
            rangeio.open(uri, bearer_token=bad, **server.options) as reader,
            pytest.raises(rangeio.UnauthenticatedError),
        ):
            reader.read_at(0, 1)


# --- the scripted server and other clients -------------------------------------------------------------------


@pytest.fixture
def scripted(azurite: Azurite) -> Iterator[AzureServer]:
    with azure_server() as server:
        for name in NAMES:
            server.put(name, DATA)
        server.containers[CONTAINER].page = 4
        yield server


def test_azure_storage_blob(scripted: AzureServer) -> None:
    """Its Shared Key and each SAS are accepted, so the server checks them as Azure does."""
    blob = need_module("azure.storage.blob")
    expiry = datetime.now(timezone.utc) + timedelta(hours=1)
    account, key, name = scripted.account, scripted.key, NAMES[4]
    snapshot, url = scripted.snapshot(name), scripted.options["endpoint_url"]
    delegated = blob.UserDelegationKey()
    for part, value in (
        ("oid", "o"),
        ("tid", "t"),
        ("start", "s"),
        ("expiry", "2099-11-20T10:00:00Z"),
        ("service", "b"),
        ("version", "v"),
    ):
        setattr(delegated, f"signed_{part}", value)
    delegated.value = scripted.delegation_key
    ways = {
        "key": {"account_name": account, "account_key": key},
        "container": blob.generate_container_sas(account, CONTAINER, key, permission="rl", expiry=expiry),
        "account": blob.generate_account_sas(account, key, "oc", "rl", expiry),
        "blob": blob.generate_blob_sas(
            account, CONTAINER, name, account_key=key, permission="r", expiry=expiry
        ),
        "delegated": blob.generate_blob_sas(
            account, CONTAINER, name, user_delegation_key=delegated, permission="r", expiry=expiry
        ),
    }
    for way, credential in ways.items():
        with blob.BlobServiceClient(url, credential=credential) as client:
            assert client.get_blob_client(CONTAINER, name).download_blob(5, 10).readall() == DATA[5:15]
            kept = client.get_blob_client(CONTAINER, name, snapshot=snapshot)
            assert kept.get_blob_properties().size == len(DATA)
            if way in ("key", "container", "account"):
                found = [item.name for item in client.get_container_client(CONTAINER).list_blobs()]
                assert found == sorted(NAMES)
    refused = need_module("azure.core.exceptions").ClientAuthenticationError
    wrong = {"account_name": account, "account_key": KEY}
    with blob.BlobServiceClient(url, credential=wrong) as client, pytest.raises(refused):
        client.get_blob_client(CONTAINER, name).download_blob()


def test_obstore(scripted: AzureServer) -> None:
    """Its Shared Key and a SAS of ours; and ranges past the end."""
    obstore, stores = need_module("obstore"), need_module("obstore.store")
    sas = operator_of(scripted).presign("plain").partition("?")[2]
    options = {"endpoint": scripted.options["endpoint_url"], "client_options": {"allow_http": True}}
    for login in ({"account_key": scripted.key}, {"sas_key": sas}):
        store = stores.AzureStore(CONTAINER, account_name=scripted.account, **login, **options)
        assert bytes(obstore.get_range(store, "plain", start=5, length=10)) == DATA[5:15]
        assert obstore.head(store, "plain")["size"] == len(DATA)
    store = stores.AzureStore(CONTAINER, account_name=scripted.account, account_key=scripted.key, **options)
    assert sorted(item["path"] for page in obstore.list(store) for item in page) == sorted(NAMES)
    with pytest.raises(need_module("obstore.exceptions").BaseError, match="InvalidRange"):
        obstore.get_range(store, "plain", start=len(DATA), length=10)
