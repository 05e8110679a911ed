"""Signed URLs against those that Google has published, and against google-cloud-storage's for other keys."""

import hashlib
import hmac
import json
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from faults.machine import need_module
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.gcs_keys import VECTORS, service_account

from rangeio.gcs.signing import hmac_key, presigned, rsa_key
from rangeio.http.urls import quoted

TESTS: list[dict[str, Any]] = json.loads((VECTORS / "v4_signatures.json").read_text())["signingV4Tests"]


def signer() -> Any:
    """Google's own code for RSA."""
    return need_module("google.auth.crypt").RSASigner.from_service_account_info(service_account())


def seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


def test_all_are_tried() -> None:
    assert len({test["description"] for test in TESTS}) == 29


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test["description"])
def test_published(test: dict[str, Any]) -> None:
    """All of them: the form of the host in the URL is the test's, whatever we would choose."""
    expected = urlsplit(test["expectedUrl"])
    key = rsa_key(service_account()["client_email"], signer().sign)
    name = "/" + quoted(test["object"], "/-_.~") if "object" in test else ""
    styled = test.get("urlStyle") in ("VIRTUAL_HOSTED_STYLE", "BUCKET_BOUND_HOSTNAME")
    path = name if styled else f"/{test['bucket']}{name}"
    terms = test.get("queryParameters", {})
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in terms.items())
    found = presigned(
        key,
        test["method"],
        expected.hostname or "",
        f"{path}?{query}" if query else path,
        seconds(test["timestamp"]),
        test["expiration"],
        test.get("headers"),
    )
    assert found == f"{expected.path}?{expected.query}"


@settings(max_examples=40, deadline=None)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1),
    generation=st.none() | st.integers(1, 2**62).map(str),
    expires=st.integers(1, 604_800),
)
def test_like_google_cloud_storage(name: str, generation: str | None, expires: int) -> None:
    need_module("google.cloud.storage")
    from google.cloud.storage._signing import generate_signed_url_v4
    from google.oauth2.service_account import Credentials

    held = Credentials.from_service_account_info(service_account())
    path = "/bucket/" + quoted(name, "/-_.~")
    theirs = generate_signed_url_v4(
        held,
        resource=path,
        expiration=expires,
        api_access_endpoint="https://storage.googleapis.com",
        generation=generation,
        _request_timestamp="20261130T120000Z",
    )
    key = rsa_key(held.signer_email, held.sign_bytes)
    target = path if generation is None else f"{path}?generation={generation}"
    when = seconds("2026-11-30T12:00:00Z")
    ours = presigned(key, "GET", "storage.googleapis.com", target, when, expires)
    parts = urlsplit(theirs)
    assert ours == f"{parts.path}?{parts.query}"


def test_hmac() -> None:
    """Each step as Google's documentation of HMAC signatures has it; no published signature is known."""
    when = seconds("2026-11-30T12:00:00Z")
    found = presigned(hmac_key("GOOG1EXAMPLE", "secret"), "GET", "storage.googleapis.com", "/b/k", when, 60)
    query, _, signature = found.partition("?")[2].rpartition("&X-Goog-Signature=")
    assert query == (
        "X-Goog-Algorithm=GOOG4-HMAC-SHA256"
        "&X-Goog-Credential=GOOG1EXAMPLE%2F20261130%2Fauto%2Fstorage%2Fgoog4_request"
        "&X-Goog-Date=20261130T120000Z&X-Goog-Expires=60&X-Goog-SignedHeaders=host"
    )
    request = f"GET\n/b/k\n{query}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"GOOG4-HMAC-SHA256\n20261130T120000Z\n20261130/auto/storage/goog4_request\n{digest}"
    key = b"GOOG4secret"
    for part in (b"20261130", b"auto", b"storage", b"goog4_request"):
        key = hmac.new(key, part, "sha256").digest()
    assert signature == hmac.new(key, text.encode(), "sha256").hexdigest()


def test_the_repr_shows_no_key() -> None:
    assert "GOOG1" not in repr(hmac_key("GOOG1EXAMPLE", "secret"))
