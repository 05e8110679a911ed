"""A server that speaks the REST API of Azure Blob Storage for reading, and checks who asks as Microsoft documents it.

It shares no code with rangeio: signatures are checked by what a request says, not made anew by the same function.
Source: Microsoft Learn, "Authorize with Shared Key", "Create a service SAS", "Create an account SAS", "Create a user
delegation SAS", "Get Blob" and "List Blobs".
"""

import hmac
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

from servers.scripted import Answer, Asked, Scripted, identity_of, reply, scripted

ACCOUNT = "testaccount"
KEY = b64encode(b"a key of the tests, of sixty-four bytes as those of accounts are").decode()
CONTAINER = "container"


@dataclass(frozen=True)
class Blob:
    """One state of a blob. directory: it is one of a hierarchical namespace. refusal: of all requests for it."""

    data: bytes
    etag: str
    modified: float
    version: str = ""
    directory: bool = False
    refusal: tuple[int, str] | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Container:
    """blobs: by name, the newest version last. public: nobody has to say who asks. page: the largest of a listing.

    empty_pages: each page of a listing is preceded by one without entries, as there may be.
    """

    blobs: dict[str, list[Blob]] = field(default_factory=dict)
    snapshots: dict[tuple[str, str], Blob] = field(default_factory=dict)
    public: bool = False
    page: int = 5000
    empty_pages: bool = False


class AzureServer:
    """The account. tokens: bearer tokens that are accepted. delegation_key: its value, as handed out for a token.

    tells_size: 416 has Content-Range. clock: seconds since 1970.
    """

    def __init__(self, account: str = ACCOUNT, key: str = KEY) -> None:
        self.account, self.key = account, key
        self.containers: dict[str, Container] = {CONTAINER: Container()}
        self.tokens: set[str] = set()
        self.delegation_key = b64encode(b"a delegation key").decode()
        self.tells_size = True
        self.clock = time.time
        self.server: Scripted
        self.secure: dict[str, Any] = {}  # what the options become over TLS
        self._states = 0

    # --- what it keeps ---------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes, container: str = CONTAINER, **more: Any) -> str:
        """A new version of a blob; its URI."""
        self._states += 1
        blob = Blob(data, f'"0x8DC{self._states:012X}"', 1_700_000_000 + self._states, self._moment(), **more)
        self.containers[container].blobs.setdefault(name, []).append(blob)
        return f"az://{container}/{name}"

    def snapshot(self, name: str, container: str = CONTAINER) -> str:
        """Keep the present state of a blob; the name of that state."""
        self._states += 1
        moment = self._moment()
        self.containers[container].snapshots[name, moment] = self.containers[container].blobs[name][-1]
        return moment

    def _moment(self) -> str:
        return f"2026-11-20T10:11:12.{self._states:07d}Z"

    @property
    def options(self) -> dict[str, Any]:
        """With which a reader finds it; without credentials."""
        url = self.server.url.replace("127.0.0.1", "localhost") if self.secure else self.server.url
        return {"account": self.account, "endpoint_url": f"{url}/{self.account}", **self.secure}

    @property
    def key_options(self) -> dict[str, Any]:
        """With the account key."""
        return {**self.options, "account_key": self.key}

    # --- what it answers -------------------------------------------------------------------------------------

    def script(self, asked: Asked) -> Answer:
        """The answer to a request."""
        path, _, query = asked.target.partition("?")
        host = asked.fields.get("host", "")
        if not host.startswith(f"{self.account}."):
            account, _, path = path.lstrip("/").partition("/")
            if account != self.account:
                return self.error(asked, 400, "InvalidUri")
        container, _, name = path.lstrip("/").partition("/")
        terms = dict(parse_qsl(query, keep_blank_values=True))
        listing = terms.get("comp") == "list"
        found = self.containers.get(unquote(container))
        refused = Check(self, asked, unquote(container), unquote(name), terms, listing).refused(found)
        if refused is not None:
            return self.error(asked, *refused)
        if terms.get("comp") == "userdelegationkey":
            return self._hand_out(asked)
        if found is None:
            return self.error(asked, 404, "ContainerNotFound")
        if listing:
            return self._list(found, terms)
        answer = self._read(asked, found, unquote(name), terms)
        return Answer(answer.data.replace(b"hdi-isfolder", b"hdi_isfolder"))  # `reply` has no underscores

    def error(self, asked: Asked, status: int, code: str) -> Answer:
        """A refusal as the service writes it."""
        body = (
            f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>It says {code}.\n'
            "RequestId:id-of-the-request\nTime:2026-11-20T10:11:12.1234567Z</Message></Error>"
        ).encode()
        head = asked.method == "HEAD" or status == 304
        return reply(
            status,
            b"" if head else body,
            Content_Length=str(len(body))
            if asked.method == "HEAD"
            else None
            if status == 304
            else str(len(body)),
            x_ms_error_code=code,
            **self._fields(),
        )

    def _fields(self) -> dict[str, str]:
        date = formatdate(self.clock(), usegmt=True)
        return {"x-ms-request-id": "id-of-the-request", "x-ms-version": "2021-12-02", "Date": date}

    def _read(self, asked: Asked, container: Container, name: str, terms: dict[str, str]) -> Answer:
        blob = self._blob_of(container, name, terms)
        if blob is None:
            return self.error(asked, 404, "BlobNotFound")
        if blob.refusal is not None:
            return self.error(asked, *blob.refusal)
        unmet = _unmet(asked, blob)
        if unmet:
            return self.error(asked, unmet, "ConditionNotMet")
        size = len(blob.data)
        wanted = asked.fields.get("x-ms-range") or asked.fields.get("range")
        fields: dict[str, Any] = {**self._fields(), **self._described(blob)}
        if asked.method == "HEAD":
            return reply(200, Content_Length=str(size), **fields)
        if wanted is None:
            return reply(200, blob.data, **fields)
        first, dash, last = wanted.removeprefix("bytes=").partition("-")
        if not dash or not first.isdigit():
            return self.error(asked, 400, "InvalidHeaderValue")
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if start >= size:
            refused = self.error(asked, 416, "InvalidRange").data
            told = f"\r\nContent-Range: bytes */{size}\r\n".encode() if self.tells_size else b"\r\n"
            return Answer(refused.replace(b"\r\n", told, 1))
        span = f"bytes {start}-{stop - 1}/{size}"
        return reply(206, blob.data[start:stop], **{"Content-Range": span}, **fields)

    def _blob_of(self, container: Container, name: str, terms: dict[str, str]) -> Blob | None:
        if "snapshot" in terms:
            return container.snapshots.get((name, terms["snapshot"]))
        states = container.blobs.get(name, [])
        if "versionid" in terms:
            states = [blob for blob in states if blob.version == terms["versionid"]]
        return states[-1] if states else None

    def _described(self, blob: Blob) -> dict[str, str]:
        kind = {"x-ms-resource-type": "directory", "x-ms-meta-hdi_isfolder": "true"} if blob.directory else {}
        return {
            "ETag": blob.etag,
            "Last-Modified": formatdate(blob.modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "x-ms-blob-type": "BlockBlob",
            "x-ms-creation-time": formatdate(blob.modified, usegmt=True),
            "x-ms-version-id": blob.version,
            **kind,
            **blob.fields,
        }

    def _hand_out(self, asked: Asked) -> Answer:
        """A user delegation key, for a token only, and for a period as asked for."""
        period = re.search(rb"<KeyInfo><Start>(.+)</Start><Expiry>(.+)</Expiry></KeyInfo>", asked.body)
        bearer = asked.fields.get("authorization", "").startswith("Bearer ")
        if asked.method != "POST" or period is None or not bearer:
            return self.error(asked, 403, "AuthorizationFailure")
        body = (
            '<?xml version="1.0" encoding="utf-8"?><UserDelegationKey><SignedOid>the-oid</SignedOid>'
            f"<SignedTid>the-tid</SignedTid><SignedStart>{period[1].decode()}</SignedStart>"
            f"<SignedExpiry>{period[2].decode()}</SignedExpiry><SignedService>b</SignedService>"
            f"<SignedVersion>2021-12-02</SignedVersion><Value>{self.delegation_key}</Value></UserDelegationKey>"
        )
        return reply(200, body.encode(), **self._fields())

    # --- listings --------------------------------------------------------------------------------------------

    def _list(self, container: Container, terms: dict[str, str]) -> Answer:
        prefix, delimiter = terms.get("prefix", ""), terms.get("delimiter", "")
        names = {}
        for name, states in sorted(container.blobs.items()):
            if name.startswith(prefix):
                end = name.find(delimiter, len(prefix)) if delimiter else -1
                key = name if end < 0 else name[: end + len(delimiter)]
                if not (end < 0 and states[-1].directory and delimiter):
                    names.setdefault(key, None if end >= 0 else states[-1])
        marker = terms.get("marker", "")
        begin, _, full = marker.partition("!")
        most = min(int(terms.get("maxresults", container.page)), container.page)
        at = int(begin or 0)
        page = [*names.items()][at : at + most]
        after = f"{at + most}!" if at + most < len(names) else ""
        if container.empty_pages and not full:
            page, after = [], f"{at}!full"
        body = "".join(_entry(name, blob) for name, blob in page)
        text = (
            '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="https://x/" '
            f'ContainerName="c"><Prefix>{escape(prefix)}</Prefix><Blobs>{body}</Blobs><NextMarker>{after}</NextMarker>'
            "</EnumerationResults>"
        )
        return reply(200, text.encode(), Content_Type="application/xml", **self._fields())


def _entry(name: str, blob: Blob | None) -> str:
    legible = all(letter.isprintable() for letter in name)
    text = f"<Name>{escape(name)}</Name>" if legible else f'<Name Encoded="true">{quote(name)}</Name>'
    if blob is None:
        return f"<BlobPrefix>{text}</BlobPrefix>"
    kind = "<ResourceType>directory</ResourceType>" if blob.directory else ""
    etag, modified = blob.etag.strip('"'), formatdate(blob.modified, usegmt=True)
    return (
        f"<Blob>{text}<Properties><Creation-Time>{modified}</Creation-Time><Last-Modified>{modified}</Last-Modified>"
        f"<Etag>{etag}</Etag><Content-Length>{len(blob.data)}</Content-Length>{kind}<BlobType>BlockBlob</BlobType>"
        "<Content-Type>application/octet-stream</Content-Type></Properties><OrMetadata /></Blob>"
    )


def _unmet(asked: Asked, blob: Blob) -> int:
    """The status for a condition that the blob does not satisfy; 0 for none."""
    match, none_match = asked.fields.get("if-match"), asked.fields.get("if-none-match")
    since, unless = asked.fields.get("if-modified-since"), asked.fields.get("if-unmodified-since")
    if match not in (None, "*", blob.etag):
        return 412
    if unless and blob.modified > parsedate_to_datetime(unless).timestamp():
        return 412
    if none_match in ("*", blob.etag):
        return 304
    if since and none_match is None and blob.modified <= parsedate_to_datetime(since).timestamp():
        return 304
    return 0


# --- who asks ------------------------------------------------------------------------------------------------

Refused = tuple[int, str]


@dataclass
class Check:
    """Whether a request may be answered."""

    server: AzureServer
    asked: Asked
    container: str
    name: str
    terms: dict[str, str]
    listing: bool

    def refused(self, container: Container | None) -> Refused | None:
        """The status and the code of a refusal."""
        kind, _, proof = self.asked.fields.get("authorization", "").partition(" ")
        if kind == "SharedKey":
            account, _, signature = proof.partition(":")
            text = shared_key_text(self.asked, self.server.account)
            fits = account == self.server.account and signature == signed(self.server.key, text)
            return None if fits else (403, "AuthenticationFailed")
        if kind == "Bearer":
            return None if proof in self.server.tokens else (401, "InvalidAuthenticationInfo")
        if "sig" in self.terms:
            return self._refused_sas()
        if container is not None and container.public:
            return None
        return 404, "ResourceNotFound"

    def _refused_sas(self) -> Refused | None:
        terms, server = self.terms, self.server
        key = server.delegation_key if "skoid" in terms else server.key
        if not hmac.compare_digest(terms["sig"], signed(key, self._text())):
            return 403, "AuthenticationFailed"
        now = server.clock()
        if "ske" in terms and _seconds(terms["se"]) > _seconds(terms["ske"]):
            return 403, "AuthenticationFailed"
        if _seconds(terms["se"]) < now or ("st" in terms and _seconds(terms["st"]) > now):
            return 403, "AuthenticationFailed"
        if terms.get("spr") == "https" and self.is_path_style and server.server.identity is None:
            return 403, "AuthorizationProtocolMismatch"
        if ("l" if self.listing else "r") not in terms["sp"] or (
            self.listing and terms.get("sr", "c") != "c"
        ):
            return 403, "AuthorizationPermissionMismatch"
        return None

    @property
    def is_path_style(self) -> bool:
        return not self.asked.fields.get("host", "").startswith(f"{self.server.account}.")

    def _text(self) -> str:
        terms = self.terms
        if "ss" in terms:
            names = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses")
            return "\n".join([self.server.account, *(terms.get(name, "") for name in names), ""])
        resource = f"/blob/{self.server.account}/{self.container}"
        resource += "" if terms["sr"] == "c" else f"/{self.name}"
        state = {"bs": terms.get("snapshot", ""), "bv": terms.get("versionid", "")}.get(terms["sr"], "")
        lines = [terms["sp"], terms.get("st", ""), terms["se"], resource]
        if "skoid" in terms:
            names = ("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid")
            lines += [terms.get(name, "") for name in names]
            lines += (
                [terms.get("skdutid", ""), terms.get("sduoid", "")] if terms["sv"] >= "2025-07-05" else []
            )
        else:
            lines.append(terms.get("si", ""))
        lines += [terms.get("sip", ""), terms.get("spr", ""), terms["sv"], terms["sr"], state]
        lines.append(terms.get("ses", ""))
        lines += ["", ""] if "skoid" in terms and terms["sv"] >= "2026-04-06" else []
        return "\n".join(
            [*lines, *(terms.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct"))]
        )


def signed(key: str, text: str) -> str:
    """The signature of a text."""
    return b64encode(hmac.digest(b64decode(key), text.encode(), "sha256")).decode()


_STANDARD = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


def shared_key_text(asked: Asked, account: str) -> str:
    """What a request with Shared Key has signed."""
    path, _, query = asked.target.partition("?")
    fields = {name.lower(): value for name, value in asked.fields.items()}
    standard = [fields.get(name, "") for name in _STANDARD]
    standard[2] = "" if standard[2] == "0" else standard[2]
    standard[5] = "" if "x-ms-date" in fields else standard[5]
    ours = sorted((name, value) for name, value in fields.items() if name.startswith("x-ms-"))
    grouped: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        grouped.setdefault(name.lower(), []).append(value)
    lines = [asked.method, *standard, *(f"{name}:{value}" for name, value in ours), f"/{account}{path}"]
    return "\n".join([*lines, *(f"{name}:{','.join(sorted(grouped[name]))}" for name in sorted(grouped))])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()


@contextmanager
def azure_server(folder: Path | None = None) -> Iterator[AzureServer]:
    """A running one; over TLS with a folder for its certificates."""
    made = AzureServer()
    identity = None if folder is None else identity_of(["localhost"], folder)
    made.secure = {} if folder is None else {"ca_file": str(folder / "ca.pem")}
    with scripted(made.script, identity) as server:
        made.server = server
        yield made
