"""The service for gs://: objects in buckets of Google Cloud Storage, by its XML API, read with `rangeio.http`."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rangeio.errors import ConfigInvalidError, ContentEncodedError
from rangeio.gcs.account import Account, Who
from rangeio.gcs.endpoint import check_bucket, endpoint_of
from rangeio.gcs.identity import Transport, is_of_google
from rangeio.gcs.listing import parse_page
from rangeio.gcs.responses import explained, parse_refusal
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.fields import checked_fields
from rangeio.http.heads import Head
from rangeio.http.listing import Page
from rangeio.http.redaction import Quoted
from rangeio.http.remote_object import Access, Refusal, RemoteObject
from rangeio.http.urls import Address, may_carry
from rangeio.http.validation import End, Take, Version, encoding_of
from rangeio.options import Options
from rangeio.s3.signing import Keys as AccessKeys
from rangeio.service import Location
from rangeio.services.http_options import CONNECTION_OPTIONS, TRAVELS, policy_of
from rangeio.services.http_store import KeyedStore, signature_lifetime
from rangeio.services.keys import Keys

if TYPE_CHECKING:
    from _uring import Reactor


# Signatures of an HMAC key are made for GET and HEAD, and again each minute; this many are remembered per object.
_MOST_SIGNATURES = 8


class GcsRemoteObject(RemoteObject):
    """One object of a bucket, or the bucket itself.

    Objects that are stored compressed are read as they are stored: without this Accept-Encoding, Google decompresses
    them and ignores Range.
    """

    accept_encoding = "gzip"
    stored_encoding = True

    def __init__(
        self, access: Access, account: Account, address: Address, shown: str, options: Options
    ) -> None:
        self._account = account
        self._signed: tuple[str, ...] = ()  # values of Authorization
        super().__init__(access, address, shown=shown, **policy_of(options))

    def stamp(self) -> object:
        """See `RemoteObject`."""
        return self._account.stamp()

    def fields_for(self, method: str, target: Address) -> Mapping[str, str]:
        """The caller's fields, who asks and who pays; none for another host."""
        if not may_carry(self.address.origin, target.origin):
            return {}
        fields = self._account.fields(method, target)
        if self._account.signs:
            self._signed = (*self._signed[1 - _MOST_SIGNATURES :], fields["Authorization"])
        return fields

    def pin_fields(self, version: Version) -> Mapping[str, str]:
        """The ETag, else the generation: emulators have no ETags. It would be a field that a signature has to cover."""
        number = version.number or ""
        if version.strong or self._account.signs or not number.isdigit():
            return super().pin_fields(version)
        return {"x-goog-if-generation-match": number}

    def judged(self, head: Head, at: int, stop: int) -> Take | End | None:
        """An empty 206 is how an emulator says 416. Bytes that are not the stored ones are refused."""
        if head.status == 206 and head.length == 0:
            return End(None)
        stored = head.fields.get("x-goog-stored-content-encoding", "").lower()
        if not stored and head.status == 200:
            stored = "identity"  # as each request is for a range, somebody has made this body anew
        if head.status in (200, 206) and stored and encoding_of(head) != stored.replace("identity", ""):
            raise ContentEncodedError(
                "the object is stored as "
                + Quoted(stored[:20])
                + ", but the server sends it in another coding, so offsets"
                " would not refer to the stored bytes"
            )
        return None

    def told_by_head(self, head: Head) -> int | None:
        """The size of the stored bytes."""
        told = head.fields.get("x-goog-stored-content-length", "")
        return (
            int(told) if told.isascii() and told.isdigit() and len(told) < 19 else super().told_by_head(head)
        )

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """The error for Google's code. 403 is a matter of rights, for which other credentials are not looked for."""
        found = parse_refusal(body, whole=head.length == len(body))
        general = super().refused(head, body, pinned=pinned).error
        error = explained(found, head.status, general, self.secrets())
        return Refusal(error, renew=head.status == 401)

    def secrets(self) -> Iterator[str]:
        """See `RemoteObject`. Its own query holds a generation or listing parameters."""
        yield from self._account.secrets()
        # Signatures are valid for a quarter of an hour.
        yield from re.findall("Signature=([0-9a-f]+)", " ".join(self._signed))
        yield from self.secrets_of_redirects()


class _BucketPage(GcsRemoteObject):
    """A page of a listing, which is not wanted compressed. Where the XML API does not list, the JSON API is asked."""

    accept_encoding = "identity"
    stored_encoding = False
    by_json: Address | None = None
    """The same page in the JSON API; None if that is asked already, or does not accept the credentials."""

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        refusal = super().refused(head, body, pinned=pinned)
        known = parse_refusal(body).code == "NoSuchBucket"
        if head.status in (404, 501) and not known and self.by_json is not None:
            self.move(self.by_json)
            self.by_json = None
            return Refusal(refusal.error, again=True)
        return refusal


class GcsService(KeyedStore):
    """The objects of one `bucket`, by key; with `root`, only those below this key. Without a bucket: the objects of all
    buckets, as ``bucket/key``. Keys are used as they are: "%20" is three characters.

    Credentials, at most one kind: service_account, the path or the content of a credentials file, of any type that
    google-auth knows; bearer_token; credentials, a callable that returns a mapping with bearer_token, and expires_at if
    it expires, or a Credentials object of google-auth; access_key_id and secret_access_key, an HMAC key;
    anonymous=True. Otherwise those of the machine: GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT_KEY,
    GOOGLE_SERVICE_ACCOUNT, the file of the gcloud command, the metadata server.

    endpoint_url: else GOOGLE_BASE_URL, STORAGE_EMULATOR_HOST (then without credentials), else Google. user_project: who
    is billed for buckets whose readers pay. sign_as: the service account for which Google signs URLs (`presign`) where
    no private key is at hand. The other options are those of `HttpService`.
    """

    scheme = "gs"
    versions = True
    option_names = (
        "bucket",
        "root",
        "endpoint_url",
        "service_account",
        "bearer_token",
        "credentials",
        "anonymous",
        "access_key_id",
        "secret_access_key",
        "user_project",
        "sign_as",
        *CONNECTION_OPTIONS,
    )
    secret_options = ("bearer_token", "access_key_id", "secret_access_key")
    travels = f"{TRAVELS}, and service_account= with the path of a file"

    def __init__(
        self,
        reactor: "Reactor",
        bucket: str | None = None,
        root: str = "",
        *,
        endpoint_url: str | None = None,
        service_account: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        bearer_token: str | None = None,
        credentials: Any = None,
        anonymous: bool = False,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        user_project: str | None = None,
        sign_as: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        paths = Keys(bucket, root, check_bucket, "bucket")
        self._sign_as = sign_as
        keys = None
        if access_key_id is not None or secret_access_key is not None:
            keys = AccessKeys(access_key_id, secret_access_key)  # type: ignore[arg-type]  # it checks them
        who = Who(service_account, bearer_token, credentials, keys, bool(anonymous))
        transport = Transport(ca_file, bool(verify), proxy)
        endpoint, fields = endpoint_of(endpoint_url), checked_fields(headers or {})
        self._account = Account(endpoint, who, transport, user_project, fields)
        self._lists_by_json = False
        pool = ConnectionPool(Security(ca_file, client_cert, bool(verify)), proxy)
        super().__init__(reactor, Access(pool, {}, self._account.credentials), paths)

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """``gs://bucket/key``: the key as it is, not percent-encoded."""
        bucket, _, key = rest.partition("/")
        return Location({"bucket": bucket} if bucket else {}, key if bucket else rest)

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        """The path of a credentials file is no secret, its content is, and so is an object of google-auth."""
        kept = super().without_secrets(options)
        if isinstance(kept.get("service_account"), Mapping):
            del kept["service_account"]
        if is_of_google(kept.get("credentials")):
            del kept["credentials"]
        return kept

    def _remote(self, path: str, options: Options) -> GcsRemoteObject:
        bucket, key = self._keys.object(path)
        query = self._account.query(generation=_generation(options))
        address = self._account.endpoint.object(bucket, key, query)
        return GcsRemoteObject(self.access, self._account, address, f"gs://{bucket}/{key}", options)

    def shown(self, path: str) -> str:
        bucket, key = self._keys.place(path)
        return f"gs://{bucket}/{key}"

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """See `Service`."""
        yield "endpoint", self._account.endpoint.shown
        yield "credentials", self._account.whereabouts()

    def presign(self, path: str, expires: float | timedelta, options: Options) -> str:
        seconds = signature_lifetime(expires)
        bucket, key = self._keys.object(path)
        return self._account.presigned(bucket, key, _generation(options), seconds, self._sign_as)

    def page_request(
        self, bucket: str, prefix: str, delimiter: str | None, after: Any, options: Options
    ) -> RemoteObject:
        """See `KeyedStore`."""
        account, token = self._account, after or None
        terms = {"prefix": prefix or None, "delimiter": delimiter}
        query = account.query(list_type="2", encoding_type="url", continuation_token=token, **terms)
        by_xml = account.endpoint.object(bucket, "", query)
        by_json = account.endpoint.listing(bucket, account.query(pageToken=token, **terms))
        address = by_json if account.lists_by_json else by_xml
        remote = _BucketPage(self.access, account, address, f"gs://{bucket}/{prefix}", options)
        if address is by_xml and not after and not account.signs:
            remote.by_json = by_json
        return remote

    def page_of(self, body: memoryview, remote: RemoteObject) -> Page:
        """See `KeyedStore`."""
        page = parse_page(body, remote.secrets())
        self._account.lists_by_json = bytes(body[:1]) == b"{"
        return page


def _generation(options: Options) -> str | None:
    """`version=`. ConfigInvalidError if it is not a generation."""
    version = options.version
    if version is not None and not (version.isascii() and version.isdigit()):
        raise ConfigInvalidError(f"version must be the generation of an object, a number, not {version!r}")
    return version
