"""Shared access signatures (SAS) of Azure Blob Storage, made from an account key or a user delegation key. Pure
functions: no clock.

Source: Microsoft Learn, "Create a service SAS" and "Create a user delegation SAS".
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from urllib.parse import quote

from rangeio.errors import ConfigInvalidError

VERSION = "2021-12-02"
"""Of the REST API, for requests and signatures. Newer ones add nothing to reading, and Azurite may not know them."""

# Versions since which the text to sign has more lines.
_DELEGATED_USER, _REQUEST_FIELDS = "2025-07-05", "2026-04-06"


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The name of an account, and one of its two keys. The repr does not show the key.

    ConfigInvalidError unless the key is base64; the error does not show it.
    """

    account: str
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.account:
            raise ConfigInvalidError("account_key needs account=, the name of the account")
        if not isinstance(self.text, str) or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", self.text):
            raise ConfigInvalidError("account_key must be a string in base64")
        if len(self.text) % 4:
            raise ConfigInvalidError("account_key is not complete: its length is not that of base64")


@dataclass(frozen=True, slots=True)
class DelegationKey:
    """A key that a token was exchanged for; its fields as the service names them. The repr does not show it."""

    oid: str
    tid: str
    start: str
    expiry: str
    service: str
    version: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a SAS allows: to read a blob, or to read and list a container if `blob` is empty.

    expires, starts: seconds since 1970. https_only: refuse it over plain HTTP. snapshot, version: only that state of
    the blob. permissions: "r" or "rl" unless given.
    """

    container: str
    blob: str
    expires: float
    starts: float | None = None
    https_only: bool = True
    snapshot: str = ""
    version: str = ""
    permissions: str = ""

    @property
    def terms(self) -> dict[str, str]:
        """The terms of the query, without the signature and those of a delegation key."""
        kind = "bs" if self.snapshot else "bv" if self.version else "b" if self.blob else "c"
        terms = {
            "st": "" if self.starts is None else time_text(self.starts),
            "se": time_text(self.expires),
            "sp": self.permissions or ("r" if self.blob else "rl"),
            "spr": "https" if self.https_only else "",
            "sr": kind,
        }
        return {name: value for name, value in terms.items() if value}

    def resource(self, account: str) -> str:
        """The canonical name of what is granted."""
        return "/".join(filter(None, ["/blob", account, self.container, self.blob]))


def service_sas(key: AccountKey, grant: Grant, version: str = VERSION) -> str:
    """A query that allows what `grant` says, signed with the account key."""
    terms = {"sv": version, **grant.terms}
    lines = [*_granted(terms, grant, key.account), "", *_conditions(terms, grant), *_NO_FIELDS]
    return _query(terms, key.text, lines)


def delegation_sas(account: str, key: DelegationKey, grant: Grant, version: str = VERSION) -> str:
    """The same, signed with a user delegation key."""
    of_key = {
        "skoid": key.oid,
        "sktid": key.tid,
        "skt": key.start,
        "ske": key.expiry,
        "sks": key.service,
        "skv": key.version,
    }
    terms = {"sv": version, **grant.terms}
    lines = [*_granted(terms, grant, account), *of_key.values(), "", "", ""]
    lines += ["", ""] if version >= _DELEGATED_USER else []
    lines += _conditions(terms, grant)
    lines += ["", ""] if version >= _REQUEST_FIELDS else []
    return _query({**terms, **of_key}, key.value, [*lines, *_NO_FIELDS])


# Cache-Control, Content-Disposition, Content-Encoding, Content-Language and Content-Type of the response.
_NO_FIELDS = ("", "", "", "", "")


def _granted(terms: Mapping[str, str], grant: Grant, account: str) -> list[str]:
    return [terms["sp"], terms.get("st", ""), terms["se"], grant.resource(account)]


def _conditions(terms: Mapping[str, str], grant: Grant) -> list[str]:
    """From the address of the client to the encryption scope."""
    return ["", terms.get("spr", ""), terms["sv"], terms["sr"], grant.snapshot or grant.version, ""]


def _query(terms: Mapping[str, str], key: str, lines: list[str]) -> str:
    digest = hmac.digest(b64decode(key), "\n".join(lines).encode(), sha256)
    signed = {**terms, "sig": b64encode(digest).decode()}
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in signed.items())


def time_text(seconds: float) -> str:
    """A time as Azure writes it in a SAS. seconds: since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
