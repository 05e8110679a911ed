"""The service for s3://: objects in buckets of Amazon S3 and compatible servers, read with `rangeio.http`."""

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rangeio.errors import ConfigInvalidError, NotFoundError
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.credentials_call import called
from rangeio.http.fields import checked_fields
from rangeio.http.heads import Head
from rangeio.http.listing import Page
from rangeio.http.refusals import parse_refusal
from rangeio.http.remote_object import Access, Refusal, RemoteObject
from rangeio.http.urls import Address, Origin
from rangeio.options import Options
from rangeio.s3.account import Account
from rangeio.s3.credentials import (
    Given,
    KeyRing,
    checked_keys,
    found_keys,
    is_of_botocore,
    keys_of_botocore,
    of_machine,
)
from rangeio.s3.endpoint import Addressing, Endpoint, check_bucket
from rangeio.s3.listing import parse_page
from rangeio.s3.responses import WRONG_KEYS, explained
from rangeio.s3.settings import Settings
from rangeio.s3.signing import Keys as AccessKeys
from rangeio.service import Location
from rangeio.services.http_options import CONNECTION_OPTIONS, TRAVELS, policy_of
from rangeio.services.http_store import KeyedStore, signature_lifetime
from rangeio.services.keys import Keys

if TYPE_CHECKING:
    from _uring import Reactor


# Signatures are made for GET and HEAD, for each region, and again each minute; this many are remembered per object.
_MOST_SIGNATURES = 8


class S3RemoteObject(RemoteObject):
    """One object of a bucket, or the bucket itself. Signs requests, and follows the region that a server reports."""

    def __init__(
        self, access: Access, account: Account, bucket: str, key: str, query: str, options: Options
    ) -> None:
        self._account = account
        self._bucket, self._key, self._query = bucket, key, query
        self._region = account.region(bucket)
        self._signed: tuple[str, ...] = ()  # values of Authorization
        super().__init__(
            access,
            account.address(bucket, key, query),
            shown=f"s3://{bucket}/{key}",
            **policy_of(options),
        )

    @property
    def target(self) -> Address:
        """Its address in the region that is known for the bucket."""
        region = self._account.region(self._bucket)
        if region != self._region:
            self._region = region
            self.move(self._account.address(self._bucket, self._key, self._query))
        return super().target

    def stamp(self) -> object:
        """See `RemoteObject`."""
        return self._account.stamp(self._bucket)

    def fields_for(self, method: str, target: Address) -> Mapping[str, str]:
        """The signature and the signed header fields."""
        if not self.may_sign_for(target.origin):
            return {}
        fields = self._account.fields(self._bucket, method, target)
        self._signed = (*self._signed[1 - _MOST_SIGNATURES :], fields.get("Authorization", ""))
        return fields

    def may_sign_for(self, origin: Origin) -> bool:
        """Whether to sign for `origin`: the endpoint and, within Amazon, redirect targets (used for new buckets)."""
        home = self.address.origin
        return home == origin or self._account.endpoint.may_sign_for(home, origin)

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """The error for the S3 error code, if it says more than the status, and whether to repeat the request."""
        found = parse_refusal(body, whole=head.length == len(body))
        general = super().refused(head, body, pinned=pinned).error
        error = explained(found, head.status, general, self.secrets())
        if head.fields.get("x-amz-delete-marker") == "true":
            said = f"HTTP {head.status}: the object was deleted (it has a delete marker)"
            error = NotFoundError(
                said,
                http_status=head.status,
                request_id=error.request_id,
                context={**error.context, "said": said},
            )
        again = self._account.learn(self._bucket, head, found)
        return Refusal(error, renew=found.code in WRONG_KEYS, again=again)

    def secrets(self) -> Iterator[str]:
        """See `RemoteObject`. Its own query holds a version or listing parameters; the query of a redirect may be
        secret.
        """
        yield from self._account.secrets()
        # Signatures are valid for a quarter of an hour.
        yield from re.findall("Signature=([0-9a-f]+)", " ".join(self._signed))
        yield from self.secrets_of_redirects()


class S3Service(KeyedStore):
    """The objects of one `bucket`, by key; with `root`, only those below this key. Without a bucket: the objects of all
    buckets, as ``bucket/key``. Keys are used as they are: "%20" is three characters.

    Credentials: access_key_id and secret_access_key, optionally session_token; or credentials, a callable that returns
    them as a mapping, with expires_at if they expire, or a coroutine that does, or a credentials object of botocore; or
    credentials_file, the path of a shared credentials file; or anonymous=True; or those of the machine:
    AWS_ACCESS_KEY_ID and related variables, else what botocore finds if it is installed, else the shared files.
    profile: the section of the shared files.

    Address: endpoint_url, else AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon. region: else AWS_REGION or that of
    the profile, else us-east-1; the region that a server reports for a bucket is followed and remembered. addressing,
    dualstack: see `Endpoint`. headers: sent with each request, such as x-amz-request-payer, which `presign` includes
    too; fields of a signature are refused. The other options are those of `HttpService`. ``..`` in a key is an ordinary
    name: the path is signed as it is sent.
    """

    scheme = "s3"
    versions = True
    option_names = (
        "bucket",
        "root",
        "endpoint_url",
        "region",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "credentials",
        "anonymous",
        "profile",
        "credentials_file",
        "addressing",
        "dualstack",
        *CONNECTION_OPTIONS,
    )
    secret_options = ("access_key_id", "secret_access_key", "session_token")
    travels = f"{TRAVELS}, and profile= and credentials_file="

    def __init__(
        self,
        reactor: "Reactor",
        bucket: str | None = None,
        root: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        credentials: Callable[[], Given | Awaitable[Given]] | Any = None,
        anonymous: bool = False,
        profile: str | None = None,
        credentials_file: str | os.PathLike[str] | None = None,
        addressing: Addressing | None = None,
        dualstack: bool | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        keys = Keys(bucket, root, check_bucket, "bucket")
        file = None if credentials_file is None else os.fspath(credentials_file)
        settings = Settings(profile, file)
        ring, self._whereabouts = _key_ring(
            (access_key_id, secret_access_key, session_token), credentials, bool(anonymous), profile, file
        )
        url = endpoint_url or settings.endpoint_url()
        endpoint = Endpoint(
            url,
            addressing or settings.addressing() or "auto",  # type: ignore[arg-type]  # checked there
            settings.dualstack() if dualstack is None and url is None else bool(dualstack),
        )
        self._account = Account(endpoint, ring, region or settings.region(), checked_fields(headers or {}))
        # Settings that are not needed are not read: they may be invalid.
        plain = (endpoint.url or "").lower().startswith("http:")
        trusted = ca_file or (None if plain else settings.ca_file())
        pool = ConnectionPool(Security(trusted, client_cert, bool(verify)), proxy)
        super().__init__(reactor, Access(pool, {}, ring), keys)

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """``s3://bucket/key``: the key as it is, not percent-encoded."""
        bucket, _, key = rest.partition("/")
        return Location({"bucket": bucket} if bucket else {}, key if bucket else rest)

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """See `Service`."""
        account = self._account
        yield "endpoint", account.endpoint.url or "Amazon"
        yield "region", account.region(self._keys.bucket or "")
        yield "credentials", self._whereabouts()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        """An object of botocore holds keys."""
        kept = super().without_secrets(options)
        if is_of_botocore(kept.get("credentials")):
            del kept["credentials"]
        return kept

    def _remote(self, path: str, options: Options) -> S3RemoteObject:
        bucket, key = self._keys.object(path)
        query = "" if options.version is None else "versionId=" + quote(options.version, safe="-_.~")
        return S3RemoteObject(self.access, self._account, bucket, key, query, options)

    def shown(self, path: str) -> str:
        bucket, key = self._keys.place(path)
        return f"s3://{bucket}/{key}"

    def presign(self, path: str, expires: float | timedelta, options: Options) -> str:
        seconds = signature_lifetime(expires)
        self._account.ring.fetch()
        bucket, _ = self._keys.object(path)
        target = self._remote(path, options).target
        return self._account.presigned(bucket, "GET", target, seconds)

    def page_request(
        self, bucket: str, prefix: str, delimiter: str | None, after: Any, options: Options
    ) -> RemoteObject:
        """See `KeyedStore`."""
        terms = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        terms |= {"delimiter": delimiter} if delimiter else {}
        terms |= {"continuation-token": after} if after else {}
        query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(terms.items()))
        return S3RemoteObject(self.access, self._account, bucket, "", query, options)

    def page_of(self, body: memoryview, remote: RemoteObject) -> Page:
        """See `KeyedStore`."""
        return parse_page(body, remote.secrets())


def _key_ring(
    given: tuple[str | None, str | None, str | None],
    credentials: Any,
    anonymous: bool,
    profile: str | None,
    file: str | None,
) -> tuple[KeyRing, Callable[[], str]]:
    """The KeyRing for the one given kind of credentials, and a function that tells where the keys come from.
    ConfigInvalidError if several kinds are given.
    """
    ways = [any(part is not None for part in given), credentials is not None, anonymous, file is not None]
    if sum(ways) > 1:
        raise ConfigInvalidError("set only one of access_key_id, credentials, credentials_file and anonymous")
    if ways[0]:
        keys = AccessKeys(*given)  # type: ignore[arg-type]  # it checks them
        return KeyRing(keys), lambda: "access_key_id= and secret_access_key="
    if credentials is not None:
        if is_of_botocore(credentials):
            return KeyRing(
                None, partial(keys_of_botocore, credentials)
            ), lambda: "credentials=, an object of botocore"
        if not callable(credentials):
            raise ConfigInvalidError(
                "credentials must be a callable that returns keys, or a credentials object of botocore"
            )
        return KeyRing(None, lambda: checked_keys(called(credentials))), lambda: "credentials="
    if anonymous:
        return KeyRing(None), lambda: "anonymous=True"
    return KeyRing(None, of_machine(profile, file)), lambda: found_keys(profile, file, [])[1]
