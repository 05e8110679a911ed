"""Signatures against those of Microsoft's library, made once: `azure_vectors.json` says how."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from servers.azure_server import ACCOUNT, CONTAINER, AzureServer, Check, shared_key_text, signed
from servers.scripted import Asked

import rangeio
from rangeio.azure.signing import AccountKey, DelegationKey, Grant, delegation_sas, service_sas

VECTORS = json.loads((Path(__file__).parent / "azure_vectors.json").read_text())
KEY = AccountKey(VECTORS["account"], VECTORS["key"])
NEWEST = "2026-10-06"  # of the library that made them


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def grant_of(vector: dict[str, Any]) -> Grant:
    return Grant(
        vector["container"],
        vector.get("blob", ""),
        seconds(vector["expiry"]),
        seconds(vector["start"]) if "start" in vector else None,
        https_only=vector.get("protocol") == "https",
        snapshot=vector.get("snapshot", ""),
        version=vector.get("versionid", ""),
    )


OURS = [vector for vector in VECTORS["sas"] if vector["kind"] != "account"]


@pytest.mark.parametrize("vector", OURS, ids=[vector["kind"] for vector in OURS])
def test_sas(vector: dict[str, Any]) -> None:
    grant = grant_of(vector)
    if "delegation_key" in vector:
        query = delegation_sas(KEY.account, DelegationKey(**vector["delegation_key"]), grant, NEWEST)
    else:
        query = service_sas(KEY, grant, NEWEST)
    assert parse_qs(query) == parse_qs(vector["query"])


def test_a_sas_is_of_its_own_version() -> None:
    """What older servers know; those read for the same request as newer ones."""
    query = parse_qs(service_sas(KEY, Grant("cont", "blob", 1_800_000_000)))
    assert query["sv"] == ["2021-12-02"]
    assert query["spr"] == ["https"]
    assert query["se"] == ["2027-01-15T08:00:00Z"]


@pytest.mark.parametrize("text", ["", "not base64!", "abc", "k=ey", None, b"a2V5", "a2V5\n"])
def test_keys_that_are_none(text: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        AccountKey("account", text)
    assert not text or str(text) not in str(caught.value)
    assert "c2VjcmV0" not in repr(AccountKey("account", "c2VjcmV0"))


# --- the scripted server, which checks what others sign ------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["shared_key"], ids=range(len(VECTORS["shared_key"])))
def test_shared_key_of_the_scripted_server(vector: dict[str, Any]) -> None:
    """rangeio sends none itself."""
    url = urlsplit(vector["url"])
    target = url.path + (f"?{url.query}" if url.query else "")
    fields = {"host": url.netloc, **{name.lower(): value for name, value in vector["headers"].items()}}
    text = shared_key_text(Asked(vector["method"], target, fields, 0, 0), KEY.account)
    assert text == vector["string_to_sign"]
    assert vector["authorization"] == f"SharedKey {KEY.account}:{signed(KEY.text, text)}"


@pytest.mark.parametrize("vector", VECTORS["sas"], ids=[vector["kind"] for vector in VECTORS["sas"]])
def test_sas_of_the_scripted_server(vector: dict[str, Any]) -> None:
    server = AzureServer(KEY.account, KEY.text)
    server.delegation_key = vector.get("delegation_key", {}).get("value", "")
    server.clock = lambda: seconds("2026-11-20 10:30:00+00:00")
    states = {name: vector[name] for name in ("snapshot", "versionid") if name in vector}
    asked = Asked("GET", "/", {"host": f"{KEY.account}.blob.core.windows.net"}, 0, 0)

    def refused(query: str) -> Any:
        terms = {**{name: values[0] for name, values in parse_qs(query).items()}, **states}
        check = Check(server, asked, vector.get("container", "c"), vector.get("blob", "b"), terms, False)
        return check.refused(None)

    assert refused(vector["query"]) is None
    assert refused(vector["query"].replace("sp=r", "sp=rw")) == (403, "AuthenticationFailed")
    server.clock = lambda: seconds("2026-11-20 11:30:00+00:00")
    assert refused(vector["query"]) == (403, "AuthenticationFailed")


@pytest.mark.parametrize("authorization", ["SharedKey", f"SharedKey {ACCOUNT}:wrong", "SharedKey other:x"])
def test_shared_key_that_is_wrong(authorization: str) -> None:
    server = AzureServer()
    asked = Asked("GET", f"/{ACCOUNT}/{CONTAINER}/x", {"authorization": authorization}, 0, 0)
    refused = Check(server, asked, CONTAINER, "x", {}, False).refused(server.containers[CONTAINER])
    assert refused == (403, "AuthenticationFailed")
