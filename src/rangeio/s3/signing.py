"""AWS Signature Version 4 for requests without a body, in header fields or in the query. Pure functions: no clock.

As S3 requires, paths are quoted once and never normalised. Source: AWS, "Signature Version 4 signing process", and the
Amazon S3 API Reference, "Authenticating Requests".
"""

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes

from rangeio.errors import ConfigInvalidError
from rangeio.http.fields import check_line, check_value

_ALGORITHM = "AWS4-HMAC-SHA256"
_NO_BODY = sha256(b"").hexdigest()
_UNRESERVED = "-_.~"
_PLAIN = re.compile(r"[A-Za-z0-9/._~-]*")
LONGEST_S = 7 * 24 * 3600
"""The maximum lifetime of a presigned URL."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys for signatures. expiry: seconds since 1970. The repr shows no values.

    ConfigInvalidError unless the keys can be used for signing and sent, whatever their source. The error shows no
    values either.
    """

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expiry: float = field(default=float("inf"), repr=False)

    def __post_init__(self) -> None:
        for name in ("access_key_id", "secret_access_key"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigInvalidError(f"{name} is missing, or not a string")
        check_line("secret_access_key", self.secret_access_key)  # the only value that is not sent
        for name in ("access_key_id", "session_token"):
            value = check_value(name, getattr(self, name) or "")
            if not value.isascii() or re.search(r"\s", value):
                raise ConfigInvalidError(f"{name} contains a space or a character that is not ASCII")


class Signer:
    """Signs with one set of keys for one region. Thread-safe. The signing key of a day is derived once."""

    __slots__ = ("_derived", "_region", "_service", "keys")

    def __init__(self, keys: Keys, region: str, service: str = "s3") -> None:
        self.keys = keys
        self._region, self._service = region, service
        self._derived = ("", b"")

    def fields(
        self, method: str, authority: str, target: str, when: float, extra: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The header fields to send: `extra` and those of the signature, which covers all of them and Host.

        target: path and query as sent. when: seconds since 1970. Other fields, such as Range, may differ between
        requests with the same signature, which S3 accepts for 15 minutes.
        """
        fields = {**(extra or {}), "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp(when)}
        if self.keys.session_token:
            fields["x-amz-security-token"] = self.keys.session_token
        fields["Authorization"] = self.authorization(
            method, target, {**fields, "Host": authority}, when, _NO_BODY
        )
        return fields

    def authorization(
        self, method: str, target: str, fields: Mapping[str, str], when: float, body_hash: str
    ) -> str:
        """The value of Authorization for a request with these fields, all of which are signed."""
        path, _, query = target.partition("?")
        signed, request = canonical(method, path, sorted_query(query), fields, body_hash)
        credential = f"{self.keys.access_key_id}/{self._scope(when)}"
        signature = self._signature(request, when)
        return f"{_ALGORITHM} Credential={credential}, SignedHeaders={signed}, Signature={signature}"

    def presigned(
        self,
        method: str,
        authority: str,
        target: str,
        when: float,
        expires_s: int,
        fields: Mapping[str, str] | None = None,
        body_hash: str = "UNSIGNED-PAYLOAD",
    ) -> str:
        """`target` with a signature in its query, valid for `expires_s` seconds from `when`.

        fields: header fields that the user of the URL must send as well.
        """
        path, _, query = target.partition("?")
        named = {**(fields or {}), "Host": authority}
        terms = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.keys.access_key_id}/{self._scope(when)}",
            "X-Amz-Date": stamp(when),
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": ";".join(sorted(name.lower() for name in named)),
        }
        if self.keys.session_token:
            terms["X-Amz-Security-Token"] = self.keys.session_token
        added = "&".join(f"{name}={quote(value, safe=_UNRESERVED)}" for name, value in terms.items())
        query = sorted_query(f"{query}&{added}")
        _, request = canonical(method, path, query, named, body_hash)
        return f"{path}?{query}&X-Amz-Signature={self._signature(request, when)}"

    def _scope(self, when: float) -> str:
        return f"{stamp(when)[:8]}/{self._region}/{self._service}/aws4_request"

    def _signature(self, request: str, when: float) -> str:
        digest = sha256(request.encode()).hexdigest()
        text = "\n".join([_ALGORITHM, stamp(when), self._scope(when), digest])
        return hmac.digest(self._key_of(stamp(when)[:8]), text.encode(), "sha256").hex()

    def _key_of(self, day: str) -> bytes:
        known, key = self._derived
        if known != day:
            key = b"AWS4" + self.keys.secret_access_key.encode(errors="surrogateescape")
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._derived = day, key
        return key


def canonical(
    method: str, path: str, query: str, fields: Mapping[str, str], body_hash: str
) -> tuple[str, str]:
    """(the names of the signed fields, the canonical form of the request, which both sides hash)."""
    lowered = sorted((name.lower(), " ".join(value.split())) for name, value in fields.items())
    signed = ";".join(name for name, _ in lowered)
    lines = "".join(f"{name}:{value}\n" for name, value in lowered)
    return signed, "\n".join([method, _requoted(path, "/"), query, lines, signed, body_hash])


def sorted_query(query: str) -> str:
    """The query sorted by name, then by value, each quoted as the signature requires.

    >>> sorted_query("b=1&a-1=2&a=%7e&c")
    'a=~&a-1=2&b=1&c='
    """
    if not query:
        return ""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return "&".join(
        f"{name}={value}" for name, value in sorted((_requoted(n), _requoted(v)) for n, _, v in pairs)
    )


def _requoted(text: str, safe: str = "") -> str:
    if _PLAIN.fullmatch(text) and (safe or "/" not in text):
        return text  # as most paths are
    return quote(unquote_to_bytes(text), safe=_UNRESERVED + safe)


def stamp(when: float) -> str:
    """A time as signatures have it.

    >>> stamp(0)
    '19700101T000000Z'
    """
    return _stamp(int(when // 1))


@lru_cache(maxsize=4)  # many requests within a second
def _stamp(when: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))
