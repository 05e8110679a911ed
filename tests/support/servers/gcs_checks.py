"""Who may read from the scripted Cloud Storage: tokens and signatures, checked from Google's documentation alone.

Nothing of rangeio is imported here. Sources: "V4 signing process" and "Canonical requests" of Cloud Storage, AWS's
"Signature Version 4", RFC 7519 with AIP-4111 for the tokens that service accounts sign themselves.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from faults.machine import need_module

from servers.gcs_keys import service_account
from servers.scripted import Asked

NO_BODY = hashlib.sha256(b"").hexdigest()
_SCOPES = ("/auth/devstorage.", "/auth/cloud-platform")


class Refused(Exception):
    """Of a request: the status, the code of the XML API, and the message."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Accounts:
    """What is known of who may read everything. tokens: opaque ones. keys: HMAC keys by access id. emails: of service
    accounts that have the published test key.
    """

    tokens: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    emails: set[str] = field(default_factory=lambda: {service_account()["client_email"]})

    def check(self, asked: Asked) -> bool:
        """Whether the request proves who makes it; False if it does not try. Refused if its proof is no good."""
        query = dict(parse_qsl(asked.target.partition("?")[2], keep_blank_values=True))
        given = asked.fields.get("authorization", "")
        for prefix in ("X-Goog-", "X-Amz-"):
            if f"{prefix}Algorithm" in query:
                if given:
                    raise Refused(400, "InvalidArgument", "two kinds of authentication")
                self._check_query(asked, query, prefix)
                return True
        if given.startswith("Bearer "):
            self._check_token(given[7:])
            return True
        if given:
            self._check_field(asked, given)
            return True
        return False

    # --- tokens ----------------------------------------------------------------------------------------------

    def _check_token(self, token: str) -> None:
        if token in self.tokens:
            return
        try:
            head, claims, signature = token.split(".")
            kind, said = (json.loads(_unpacked(part)) for part in (head, claims))
            issuer, kept = said["iss"] in self.emails, kind["alg"] == "RS256"
            in_time = said["iat"] - 60 <= time.time() < said["exp"] <= said["iat"] + 3600
            wanted = said.get("scope", "") + said.get("aud", "")
            allowed = any(scope in wanted for scope in _SCOPES) or wanted == "https://storage.googleapis.com/"
            proved = _is_signed(f"{head}.{claims}".encode(), _unpacked(signature))
        except (ValueError, KeyError, TypeError):
            raise Refused(401, "AuthenticationRequired", "Authentication required.") from None
        if not (issuer and kept and in_time and allowed and proved):
            raise Refused(401, "AuthenticationRequired", "Authentication required.")

    # --- signatures ------------------------------------------------------------------------------------------

    def _check_field(self, asked: Asked, given: str) -> None:
        """A signature in Authorization."""
        match = re.fullmatch(
            r"(\S+) Credential=([^,]+),\s*SignedHeaders=([^,]+),\s*Signature=([0-9a-f]+)", given
        )
        if match is None:
            raise Refused(400, "InvalidArgument", "Authorization")
        algorithm, credential, names, signature = match.groups()
        maker = "x-amz-" if algorithm.startswith("AWS4") else "x-goog-"
        signed = names.split(";")
        body = asked.fields.get(f"{maker}content-sha256", "")
        if body not in (NO_BODY, "UNSIGNED-PAYLOAD"):
            raise Refused(400, "InvalidArgument", "the hash of the body")
        when = _seconds(asked.fields.get(f"{maker}date", ""))
        if abs(when - time.time()) > 900:
            raise Refused(403, "RequestTimeTooSkewed", "The clock is off.")
        hosts = [asked.fields["host"]]
        self._check_signature(asked, algorithm, credential, signed, signature, when, body, hosts)

    def _check_query(self, asked: Asked, query: dict[str, str], prefix: str) -> None:
        """A signed URL."""
        try:
            algorithm, credential, names, signature = (
                query[prefix + name] for name in ("Algorithm", "Credential", "SignedHeaders", "Signature")
            )
            when, lasts_s = _seconds(query[f"{prefix}Date"]), int(query[f"{prefix}Expires"])
        except (KeyError, ValueError):
            raise Refused(400, "InvalidArgument", "a term of the signature is missing") from None
        if not 1 <= lasts_s <= 604_800:
            raise Refused(400, "AuthorizationQueryParametersError", "X-Goog-Expires")
        if not when - 900 <= time.time() < when + lasts_s:
            raise Refused(400, "ExpiredToken", "The provided token has expired.")
        host = asked.fields["host"]
        # Google's own library signs the name without the port; others sign the field as it is.
        hosts = [host, host.partition(":")[0]]
        signed = names.split(";")
        self._check_signature(
            asked, algorithm, credential, signed, signature, when, "UNSIGNED-PAYLOAD", hosts
        )

    def _check_signature(
        self,
        asked: Asked,
        algorithm: str,
        credential: str,
        signed: list[str],
        signature: str,
        when: float,
        body: str,
        hosts: Iterable[str],
    ) -> None:
        account, day, region, service, end = credential.rsplit("/", 4)
        amazon = algorithm == "AWS4-HMAC-SHA256"
        place = ("auto", "s3", "aws4_request") if amazon else ("auto", "storage", "goog4_request")
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))
        if (region, service, end) != place or day != stamp[:8]:
            raise Refused(400, "AuthorizationHeaderMalformed", "the scope of the credential")
        ours = [name for name in asked.fields if name.startswith(("x-goog-", "x-amz-"))]
        if "host" not in signed or not set(ours) <= set(signed) or signed != sorted(signed):
            raise Refused(403, "AccessDenied", "There were headers present that were not signed.")
        if len({name.split("-")[1] for name in ours}) > 1:
            raise Refused(400, "ExcessHeaderValues", "x-amz- and x-goog- in one request")
        for host in hosts:
            request = _canonical(asked, signed, host, body)
            digest = hashlib.sha256(request.encode()).hexdigest()
            text = f"{algorithm}\n{stamp}\n{day}/{'/'.join(place)}\n{digest}".encode()
            if self._proves(algorithm, account, day, place, text, signature):
                return
        raise Refused(403, "SignatureDoesNotMatch", "Access denied.")

    def _proves(
        self, algorithm: str, account: str, day: str, place: tuple[str, ...], text: bytes, signature: str
    ) -> bool:
        if algorithm == "GOOG4-RSA-SHA256":
            return account in self.emails and _is_signed(text, bytes.fromhex(signature))
        if algorithm not in ("AWS4-HMAC-SHA256", "GOOG4-HMAC-SHA256"):
            raise Refused(400, "InvalidArgument", "the algorithm")
        if account not in self.keys:
            raise Refused(403, "InvalidAccessKeyId", "The access key does not exist.")
        key = (algorithm.partition("-")[0] + self.keys[account]).encode()
        for part in (day, *place):
            key = hmac.new(key, part.encode(), "sha256").digest()
        return hmac.compare_digest(hmac.new(key, text, "sha256").hexdigest(), signature)


def _canonical(asked: Asked, signed: list[str], host: str, body: str) -> str:
    """What both sides sign: method, path, query, header fields, their names, the hash of the body."""
    path, _, query = asked.target.partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
        if not name.endswith("-Signature")
    )
    fields = {**asked.fields, "host": host}
    lines = [f"{name}:{' '.join(fields.get(name, '').split())}\n" for name in signed]
    return "\n".join(
        [
            asked.method,
            quote(unquote(path, errors="surrogateescape"), safe="/-_.~", errors="surrogateescape"),
            "&".join(f"{name}={value}" for name, value in pairs),
            "".join(lines),
            ";".join(signed),
            body,
        ]
    )


@cache
def _public_key() -> Any:
    serialization = need_module("cryptography.hazmat.primitives.serialization")
    return serialization.load_pem_private_key(service_account()["private_key"].encode(), None).public_key()


def _is_signed(text: bytes, signature: bytes) -> bool:
    """Whether the test key made the signature."""
    padding = need_module("cryptography.hazmat.primitives.asymmetric.padding")
    hashes = need_module("cryptography.hazmat.primitives.hashes")
    try:
        _public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
    except need_module("cryptography.exceptions").InvalidSignature:
        return False
    return True


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _seconds(stamp: str) -> float:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        raise Refused(400, "InvalidArgument", "the date of the signature") from None
