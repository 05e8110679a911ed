"""Hosts of Microsoft's own, played on loopback behind a proxy: azure-identity, unchanged, gets the tokens there."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.azure_server import ACCOUNT, CONTAINER, KEY, AzureServer
from servers.scripted import Answer, Asked, Everybody, everybody, reply, scripted

import rangeio

need_module("urllib3")
identity = need_module("azure.identity")

DATA = bytes(range(256)) * 100
LOGIN, OTHER_LOGIN = "login.microsoftonline.com", "login.partner.microsoftonline.cn"
BLOBS = f"{ACCOUNT}.blob.core.windows.net"
TENANT, CLIENT, SECRET = (
    "11111111-2222-3333-4444-555555555555",
    "66666666-7777-8888-9999-000000000000",
    "the~secret",
)
URI = f"az://{CONTAINER}/blob"


class Cloud:
    """The authority and one account. secret: what the client must show; token: what it gets, good for `lasts_s`."""

    def __init__(self) -> None:
        self.azure = AzureServer()
        self.azure.put("blob", DATA)
        self.azure.tokens = {"the-token"}
        self.lasts_s = 3600
        self.proofs: list[dict[str, str]] = []
        self.server: Everybody
        self.options: dict[str, Any] = {}

    def script(self, asked: Asked) -> Answer:
        host = asked.fields["host"]
        if host == BLOBS:
            return self.azure.script(asked)
        if host not in (LOGIN, OTHER_LOGIN):
            return reply(404)
        path = asked.target.partition("?")[0]
        if path.endswith("/.well-known/openid-configuration"):
            begin = f"https://{host}/{TENANT}"
            found = {
                "token_endpoint": f"{begin}/oauth2/v2.0/token",
                "authorization_endpoint": f"{begin}/oauth2/v2.0/authorize",
                "issuer": f"{begin}/v2.0",
            }
            return _json(200, found)
        if path == "/common/discovery/instance":
            known = [{"preferred_network": LOGIN, "preferred_cache": LOGIN, "aliases": [LOGIN]}]
            return _json(200, {"tenant_discovery_endpoint": f"https://{LOGIN}/x", "metadata": known})
        if path == f"/{TENANT}/oauth2/v2.0/token":
            return self._token(asked)
        return reply(404)

    def _token(self, asked: Asked) -> Answer:
        proof = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        self.proofs.append(proof)
        if proof.get("client_secret", SECRET) != SECRET:
            text = f"AADSTS7000215: Invalid client secret provided: {proof['client_secret']}"
            return _json(401, {"error": "invalid_client", "error_description": text})
        return _json(200, {"token_type": "Bearer", "expires_in": self.lasts_s, "access_token": "the-token"})

    def hosts(self) -> list[str]:
        return [asked.fields["host"] for asked in self.server.asked]


def _json(status: int, found: Any) -> Answer:
    return reply(status, json.dumps(found).encode(), Content_Type="application/json")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """What every request of this process meets that is not for this machine."""
    for name in [*os.environ]:
        if name.startswith("AZURE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    made = Cloud()
    with everybody(made.script, [LOGIN, OTHER_LOGIN, BLOBS], tmp_path) as (server, options):
        made.server = server
        made.options = {"account": ACCOUNT, **options}
        yield made


def read(cloud: Cloud, **options: Any) -> bytes:
    with rangeio.open(URI, **cloud.options, **options) as reader:
        found = bytes(reader.read_at(5, 10))
        assert reader.read_at(15, 10) == DATA[15:25]
    return found


def test_the_account_by_its_host(cloud: Cloud) -> None:
    """As users write it: no endpoint, https, and a signature for https only."""
    assert read(cloud, account_key=KEY) == DATA[5:15]
    assert cloud.hosts() == [BLOBS, BLOBS]
    assert "spr=https" in cloud.server.asked[0].target
    cloud.options.pop("account")
    uri = f"abfss://{CONTAINER}@{ACCOUNT}.dfs.core.windows.net/blob"
    with rangeio.open(uri, account_key=KEY, **cloud.options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert cloud.hosts() == [BLOBS] * 3


def test_a_client_secret(cloud: Cloud) -> None:
    options = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET}
    assert read(cloud, **options) == DATA[5:15]
    (proof,) = cloud.proofs
    assert proof["client_id"] == CLIENT
    assert proof["grant_type"] == "client_credentials"
    assert "https://storage.azure.com/.default" in proof["scope"]
    assert cloud.hosts().count(BLOBS) == 2


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_secret_awaited(cloud: Cloud, loop: str) -> None:
    need_module(loop)

    async def main() -> None:
        options = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET}
        async with rangeio.open_async(URI, **cloud.options, **options) as reader:
            assert await reader.read_ranges([(5, 15), (20_000, 20_010)]) == [DATA[5:15], DATA[20_000:20_010]]

    run_on(loop, main)
    assert len(cloud.proofs) == 1


def test_the_environment(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """DefaultAzureCredential finds a service principal, and we and it the proxy of the environment."""
    monkeypatch.setenv("HTTPS_PROXY", cloud.options.pop("proxy"))
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    assert read(cloud) == DATA[5:15]
    assert cloud.proofs[-1]["client_secret"] == SECRET


def test_a_workload_identity(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token-of-the-pod")
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    assert read(cloud) == DATA[5:15]
    assert cloud.proofs[-1]["client_assertion"] == "token-of-the-pod"


def test_a_credential_of_the_caller(cloud: Cloud) -> None:
    proxies, trusted = {"https": cloud.options["proxy"]}, cloud.options["ca_file"]
    with identity.ClientSecretCredential(
        TENANT, CLIENT, SECRET, proxies=proxies, connection_verify=trusted
    ) as credential:
        assert read(cloud, credentials=credential) == DATA[5:15]


def test_a_managed_identity(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an App Service: a server on the machine itself, which is reached without the proxy."""

    def script(asked: Asked) -> Answer:
        if asked.fields.get("x-identity-header") != "secret-of-the-app":
            return reply(401)
        expires = str(int(time.time()) + 3600)
        return _json(200, {"access_token": "the-token", "expires_on": expires, "token_type": "Bearer"})

    with scripted(script) as local:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{local.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret-of-the-app")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        assert read(cloud, client_id=CLIENT) == DATA[5:15]
        (asked,) = local.asked
    terms = parse_qs(asked.target.partition("?")[2])
    assert (terms["resource"], terms["client_id"]) == (["https://storage.azure.com"], [CLIENT])
    assert cloud.hosts() == [BLOBS] * 2


def test_another_authority(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a national cloud, say."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", OTHER_LOGIN)
    options = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET}
    assert read(cloud, **options) == DATA[5:15]
    assert OTHER_LOGIN in cloud.hosts()


def test_diagnosis(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks the authority for a token, and no storage; says which part of azure-identity had it."""
    options = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET}
    found = dict(rangeio.Operator("az", **cloud.options, **options).diagnosis())
    assert found == {
        "endpoint": f"https://{BLOBS}",
        "credentials": "tenant_id=, client_id= and client_secret=",
    }
    for name, value in options.items():
        monkeypatch.setenv(f"AZURE_{name.upper()}", value)
    found = dict(rangeio.Operator("az", **cloud.options).diagnosis())
    assert found["credentials"] == "a token of azure-identity, from its EnvironmentCredential"
    with pytest.raises(rangeio.UnauthenticatedError, match="AADSTS7000215"):
        [*rangeio.Operator("az", **cloud.options, **{**options, "client_secret": "wrong"}).diagnosis()]
    assert BLOBS not in cloud.hosts()


def test_a_wrong_secret(cloud: Cloud) -> None:
    """The authority says which of its errors it is; the secret that it quotes is not shown."""
    options = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": "a-wrong-secret"}
    with (
        rangeio.open(URI, **cloud.options, **options) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="AADSTS7000215") as caught,
    ):
        reader.read_at(0, 1)
    assert "a-wrong-secret" not in str(caught.value)
    assert BLOBS not in cloud.hosts()


def test_no_way_at_all(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with (
        rangeio.open(URI, **cloud.options) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match=r"no token, .* anonymous=True"),
    ):
        reader.read_at(0, 1)
    assert not cloud.server.asked


def test_without_azure_identity(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with (
        rangeio.open(URI, **cloud.options) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match=r"pip install 'rangeio\[azure\]'"),
    ):
        reader.read_at(0, 1)
    assert read(cloud, account_key=KEY) == DATA[5:15]
