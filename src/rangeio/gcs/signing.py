"""Signature Version 4 of Google Cloud Storage in the query of a URL. Pure functions: no clock, no I/O.

Source: Google, "V4 signing process", "Canonical requests" and "HMAC keys" of the Cloud Storage documentation. The
canonical form is that of AWS (`s3.signing`); the names differ, and the body is not signed.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote

from rangeio.s3.signing import canonical, sorted_query, stamp

LONGEST_S = 7 * 24 * 3600
"""The maximum lifetime of a signed URL."""
_UNSIGNED = "UNSIGNED-PAYLOAD"
_PAYLOAD_HASH = "x-goog-content-sha256"
_PLACE = ("auto", "storage", "goog4_request")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """account: the email of a service account, or the access id of an HMAC key. sign: the signature of a text made on
    a day (YYYYMMDD); it may block. The repr shows neither.
    """

    algorithm: str
    account: str = field(repr=False)
    sign: Callable[[str, bytes], bytes] = field(repr=False)


def rsa_key(email: str, sign: Callable[[bytes], bytes]) -> SigningKey:
    """The key of a service account. sign: RSA with SHA-256 (PKCS #1 v1.5)."""
    return SigningKey("GOOG4-RSA-SHA256", email, lambda day, text: sign(text))


def hmac_key(access_key_id: str, secret_access_key: str) -> SigningKey:
    """An HMAC key of a user or service account."""

    def sign(day: str, text: bytes) -> bytes:
        key = b"GOOG4" + secret_access_key.encode(errors="surrogateescape")
        for part in (day, *_PLACE):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text, "sha256")

    return SigningKey("GOOG4-HMAC-SHA256", access_key_id, sign)


def presigned(
    key: SigningKey,
    method: str,
    host: str,
    target: str,
    when: float,
    expires_s: int,
    fields: Mapping[str, str] | None = None,
) -> str:
    """`target` with a signature in its query, valid for `expires_s` seconds from `when` (seconds since 1970).

    host: without the port, as in Google's test vectors. target: path and query as sent. fields: header fields that the
    user of the URL must send as well.
    """
    path, _, query = target.partition("?")
    named = {**(fields or {}), "Host": host}
    day = stamp(when)[:8]
    scope = "/".join([day, *_PLACE])
    terms = {
        "X-Goog-Algorithm": key.algorithm,
        "X-Goog-Credential": f"{key.account}/{scope}",
        "X-Goog-Date": stamp(when),
        "X-Goog-Expires": str(expires_s),
        "X-Goog-SignedHeaders": ";".join(sorted(name.lower() for name in named)),
    }
    added = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in terms.items())
    query = sorted_query(f"{query}&{added}")
    body_hash = next((value for name, value in named.items() if name.lower() == _PAYLOAD_HASH), _UNSIGNED)
    _, request = canonical(method, path, query, named, body_hash)
    digest = sha256(request.encode()).hexdigest()
    text = "\n".join([key.algorithm, stamp(when), scope, digest])
    return f"{path}?{query}&X-Goog-Signature={key.sign(day, text.encode()).hex()}"
