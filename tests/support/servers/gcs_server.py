"""A Cloud Storage to read from, by its XML and its JSON API, with its checks; as Google documents them.

Nothing of rangeio is imported here. google-cloud-storage, obstore and boto3 read from it, too: test_gcs_peers.py.
"""

import gzip
import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

from servers.gcs_checks import Accounts, Refused
from servers.scripted import Answer, Asked, reply

TOKEN = "ya29.a-token-that-nobody-may-see"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "GOOG1ETESTACCESSID", "a-secret-that-nobody-may-see"
_BEGAN = 1_790_000_000_000_000
_OF_SIGNATURES = re.compile(r"X-(Goog|Amz)-(Algorithm|Credential|Date|Expires|SignedHeaders|Signature)")
_OF_OBJECTS = {"generation", "userProject"}
_OF_LISTS = {
    "list-type", "prefix", "delimiter", "continuation-token", "encoding-type", "max-keys", "start-after", "userProject",
    "fetch-owner",
}  # fmt: skip


@dataclass
class Stored:
    """One generation of an object. data: the stored bytes. coding: its Content-Encoding."""

    data: bytes
    generation: int
    coding: str = ""

    @cached_property
    def md5(self) -> bytes:
        return hashlib.md5(self.data).digest()

    @property
    def etag(self) -> str:
        return f'"{self.md5.hex()}"'

    @property
    def modified_s(self) -> float:
        return self.generation / 1e6 // 1

    def fields(self) -> dict[str, str | None]:
        return {
            "ETag": self.etag,
            "Last-Modified": formatdate(self.modified_s, usegmt=True),
            "x-goog-generation": str(self.generation),
            "x-goog-metageneration": "1",
            "x-goog-hash": f"md5={b64encode(self.md5).decode()}",
            "x-goog-stored-content-encoding": self.coding or "identity",
            "x-goog-stored-content-length": str(len(self.data)),
            "x-goog-storage-class": "STANDARD",
            "Accept-Ranges": "bytes",
        }


Listed = tuple[list[tuple[str, Stored | None]], str]
"""Keys with their newest generation, and prefixes without one; the token of the next page, empty at the end."""


@dataclass
class GcsServer:
    """Its buckets, who may read, and how it behaves. Its `answer` is the script of a scripted server.

    public: buckets that everybody may read. billed: buckets whose readers name a project. versioned: keeps older
    generations. lists: whether the XML API lists, and etags: whether it has them; emulators' has not. page: entries
    of a page. fault: an answer in place of its own.
    """

    buckets: dict[str, dict[str, list[Stored]]] = field(default_factory=lambda: {"bucket": {}})
    accounts: Accounts = field(default_factory=lambda: Accounts({TOKEN}, {ACCESS_KEY_ID: SECRET_ACCESS_KEY}))
    public: set[str] = field(default_factory=set)
    billed: set[str] = field(default_factory=set)
    versioned: bool = True
    lists: bool = True
    etags: bool = True
    page: int = 1000
    fault: Callable[[Asked], Answer | None] = lambda asked: None
    _made: int = 0

    def put(self, key: str, data: bytes, bucket: str = "bucket", coding: str = "") -> str:
        """The URI of an object with this content, of a new generation."""
        self._made += 1
        stored = Stored(data, _BEGAN + self._made * 1_000_000, coding)
        kept = self.buckets.setdefault(bucket, {}).setdefault(key, [])
        kept[:] = [*kept, stored] if self.versioned else [stored]
        return f"gs://{bucket}/{key}"

    def generation(self, key: str, bucket: str = "bucket") -> str:
        """Of the newest."""
        return str(self.buckets[bucket][key][-1].generation)

    def answer(self, asked: Asked) -> Answer:
        path, _, query = asked.target.partition("?")
        terms = dict(parse_qsl(query, keep_blank_values=True))
        by_json = re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o(?:/([^/]+))?", path)
        bucket, _, key = path[1:].partition("/")
        try:
            if asked.method not in ("GET", "HEAD"):
                raise Refused(405, "MethodNotAllowed")
            given = self.fault(asked)
            if given is not None:
                return given
            if by_json:
                bucket, key = by_json[1], by_json[2] or ""
            bucket, key = unquote(bucket), unquote(key, errors="surrogateescape")
            self._admit(asked, terms, bucket, bool(by_json))
            if by_json:
                return self._json(asked, terms, bucket, key)
            return self._object(asked, terms, bucket, key) if key else self._list(terms, bucket)
        except Refused as refused:
            return (refused_by_json if by_json else refused_by_xml)(refused, asked.method)

    def _admit(self, asked: Asked, terms: dict[str, str], bucket: str, by_json: bool) -> None:
        known = self.accounts.check(asked)
        if by_json and not asked.fields.get("authorization", "Bearer ").startswith("Bearer "):
            raise Refused(401, "required", "Login Required.")
        if bucket not in self.buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        if not known and bucket not in self.public:
            raise Refused(401 if by_json else 403, "AccessDenied", "Anonymous caller does not have access.")
        project = terms.get("userProject") or asked.fields.get("x-goog-user-project")
        if bucket in self.billed and not project:
            raise Refused(400, "UserProjectMissing", "Bucket is a requester pays bucket.")

    def _stored(self, bucket: str, key: str, generation: str | None) -> Stored:
        kept = self.buckets[bucket].get(key, [])
        for stored in reversed(kept):
            if generation in (None, str(stored.generation)):
                return stored
        raise Refused(404, "NoSuchKey", "The specified key does not exist.")

    # --- objects ---------------------------------------------------------------------------------------------

    def _object(self, asked: Asked, terms: dict[str, str], bucket: str, key: str) -> Answer:
        unknown = [name for name in terms if name not in _OF_OBJECTS and not _OF_SIGNATURES.fullmatch(name)]
        if unknown:
            raise Refused(400, "InvalidQueryParameterValue", unknown[0])
        stored = self._stored(bucket, key, terms.get("generation"))
        check_conditions(asked, stored, asked.fields.get("x-goog-if-generation-match"))
        answer = whole_or_range(asked, stored)
        return answer if self.etags else Answer(re.sub(rb"ETag: \S+\r\n", b"", answer.data, count=1))

    def _json(self, asked: Asked, terms: dict[str, str], bucket: str, key: str) -> Answer:
        if not key:
            entries, after = self._page(bucket, terms, terms.get("pageToken", ""))
            body: dict[str, Any] = {"kind": "storage#objects"}
            body["items"] = [described(bucket, name, stored) for name, stored in entries if stored]
            body["prefixes"] = [name for name, stored in entries if not stored]
            return as_json(200, {**body, "nextPageToken": after} if after else body)
        stored = self._stored(bucket, key, terms.get("generation"))
        if terms.get("alt") == "media":
            check_conditions(asked, stored, terms.get("ifGenerationMatch"))
            return whole_or_range(asked, stored)
        return as_json(200, described(bucket, key, stored))

    # --- lists -----------------------------------------------------------------------------------------------

    def _list(self, terms: dict[str, str], bucket: str) -> Answer:
        unknown = [name for name in terms if name not in _OF_LISTS and not _OF_SIGNATURES.fullmatch(name)]
        if unknown or terms.get("list-type") != "2":
            raise Refused(400, "InvalidArgument", str(unknown))
        if not self.lists:
            return Answer(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 4\r\n\r\nNope")
        entries, after = self._page(bucket, terms, terms.get("continuation-token", ""))
        encoded = terms.get("encoding-type") == "url"

        def text(name: str) -> str:
            return escape(quote(name, errors="surrogateescape") if encoded else name)

        parts = ["<?xml version='1.0' encoding='UTF-8'?>"]
        parts += ["<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>"]
        parts += [f"<Name>{bucket}</Name><IsTruncated>{'true' if after else 'false'}</IsTruncated>"]
        parts += ["<EncodingType>url</EncodingType>"] if encoded else []
        parts += [f"<NextContinuationToken>{after}</NextContinuationToken>"] if after else []
        for name, stored in entries:
            if stored is None:
                parts += [f"<CommonPrefixes><Prefix>{text(name)}</Prefix></CommonPrefixes>"]
            else:
                parts += [
                    f"<Contents><Key>{text(name)}</Key><Generation>{stored.generation}</Generation>"
                    f"<MetaGeneration>1</MetaGeneration><LastModified>{iso(stored)}</LastModified>"
                    f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.data)}</Size></Contents>"
                ]
        body = "".join([*parts, "</ListBucketResult>"]).encode("utf-8")
        return reply(200, body, Content_Type="application/xml; charset=UTF-8", x_guploader_uploadid="ID")

    def _page(self, bucket: str, terms: dict[str, str], after: str) -> Listed:
        prefix, delimiter = terms.get("prefix", ""), terms.get("delimiter", "")
        found: dict[str, Stored | None] = {}
        for name in sorted(self.buckets[bucket], key=lambda key: key.encode("utf-8", "surrogateescape")):
            if name.startswith(prefix):
                end = name.find(delimiter, len(prefix)) if delimiter else -1
                if end < 0:
                    found[name] = self.buckets[bucket][name][-1]
                else:
                    found.setdefault(name[: end + len(delimiter)], None)
        most = min(self.page, int(terms.get("max-keys") or terms.get("maxResults") or self.page))
        begin = int(after.removeprefix("token-")) if after else 0
        rest = [*found.items()][begin:]
        return rest[:most], f"token-{begin + most}" if len(rest) > most else ""


def check_conditions(asked: Asked, stored: Stored, generation: str | None) -> None:
    """Refused unless all conditions of the request hold."""
    fields, modified_s = asked.fields, stored.modified_s

    def later(name: str) -> bool:
        return modified_s > parsedate_to_datetime(fields[name]).timestamp()

    if generation is not None and generation != str(stored.generation):
        raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
    if fields.get("if-match", stored.etag) not in (stored.etag, "*"):
        raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
    if "if-unmodified-since" in fields and later("if-unmodified-since"):
        raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
    if fields.get("if-none-match") in (stored.etag, "*"):
        raise Refused(304, "NotModified")
    if "if-modified-since" in fields and not later("if-modified-since"):
        raise Refused(304, "NotModified")


def whole_or_range(asked: Asked, stored: Stored) -> Answer:
    """The bytes as stored, or decompressed for a client that does not accept them so; then Range is ignored."""
    fields = {**stored.fields(), "x-guploader-uploadid": "ID"}
    data = stored.data
    if stored.coding == "gzip" and "gzip" not in asked.fields.get("accept-encoding", ""):
        del fields["Accept-Ranges"]
        fields |= {
            "Warning": "214 UploadServer gunzipped",
            "Transfer-Encoding": "chunked",
            "Content-Length": None,
        }
        whole = gzip.decompress(data)
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole) if whole else b"0\r\n\r\n"
        return reply(200, b"" if asked.method == "HEAD" else chunks, **fields)
    if stored.coding:
        fields["Content-Encoding"] = stored.coding
    if asked.method == "HEAD":
        return reply(200, **fields, Content_Length=str(len(data)))
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.fields.get("range", ""))
    if match is None or not (match[1] or match[2]):
        return reply(200, data, **fields)
    size = len(data)
    start = int(match[1]) if match[1] else max(0, size - int(match[2]))
    stop = min(size, int(match[2]) + 1) if match[1] and match[2] else size
    if start >= size or start >= stop:
        refused = refused_by_xml(
            Refused(416, "InvalidRange", "The requested range cannot be satisfied."), "GET"
        )
        at = refused.data.index(b"\r\n\r\n")
        span = b"\r\nContent-Range: bytes */%d" % size
        return Answer(refused.data[:at] + span + refused.data[at:])
    return reply(206, data[start:stop], **fields, Content_Range=f"bytes {start}-{stop - 1}/{size}")


def refused_by_xml(refused: Refused, method: str) -> Answer:
    """As the XML API says it; HEAD and 304 have no body."""
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{refused.code}</Code>"
        f"<Message>{escape(refused.message)}</Message><Details>details</Details></Error>"
    )
    if method == "HEAD" or refused.status == 304:
        body = ""
    kind = "application/xml; charset=UTF-8"
    return reply(refused.status, body.encode(), Content_Type=kind, x_guploader_uploadid="ID")


def refused_by_json(refused: Refused, method: str) -> Answer:
    """As the JSON API says it."""
    reason = {404: "notFound", 412: "conditionNotMet", 401: "required"}.get(refused.status, refused.code)
    errors = [{"domain": "global", "reason": reason, "message": refused.message}]
    return as_json(
        refused.status, {"error": {"code": refused.status, "message": refused.message, "errors": errors}}
    )


def as_json(status: int, body: dict[str, Any]) -> Answer:
    text = json.dumps(body).encode()
    return reply(status, text, Content_Type="application/json; charset=UTF-8", x_guploader_uploadid="ID")


def described(bucket: str, key: str, stored: Stored) -> dict[str, Any]:
    """The metadata of an object."""
    return {
        "kind": "storage#object",
        "name": key,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": "1",
        "size": str(len(stored.data)),
        "updated": iso(stored),
        "timeCreated": iso(stored),
        "md5Hash": b64encode(stored.md5).decode(),
        "etag": b64encode(str(stored.generation).encode()).decode(),
        **({"contentEncoding": stored.coding} if stored.coding else {}),
    }


def iso(stored: Stored) -> str:
    seconds = parsedate_to_datetime(formatdate(stored.modified_s, usegmt=True))
    return seconds.strftime("%Y-%m-%dT%H:%M:%S.000Z")
