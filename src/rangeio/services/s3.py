"""The service for s3://: objects in buckets of Amazon S3 and compatible servers, read with `rangeio.http`."""

import operator as numbers
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from _uring import yield_if_due
from rangeio.errors import ConfigInvalidError, Error, NotFoundError, UnexpectedError, asked
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.fields import checked_fields
from rangeio.http.heads import Head
from rangeio.http.remote_object import Access, Refusal, RemoteObject
from rangeio.http.urls import Address, Origin
from rangeio.http.validation import Version
from rangeio.s3.account import Account
from rangeio.s3.credentials import Given, KeyRing, checked_keys, of_machine
from rangeio.s3.endpoint import Addressing, Endpoint, check_bucket
from rangeio.s3.listing import MOST_OF_A_PAGE, Progress, parse_page
from rangeio.s3.responses import WRONG_KEYS, explained, parse_refusal
from rangeio.s3.settings import Settings
from rangeio.s3.signing import LONGEST_S, Keys
from rangeio.service import Capability, FileResults, Options, Stat
from rangeio.services.http_many import ranges_of_many
from rangeio.services.http_options import DEFAULTS, conditions, options_to_keep
from rangeio.services.http_source import HttpSource

if TYPE_CHECKING:
    from _uring import Buffer, Reactor


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
            timeout=options.timeout,
            retry=options.retry,
            hedge_s=options.hedge,
            pin=options.pin,
            on_no_range=options.on_no_range,
            cap=options.no_range_cap,
            conditions=conditions(options),
            shown=f"s3://{bucket}/{key}",
            size=options.size,
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


class _Listing(S3RemoteObject):
    """A page of the listing of a bucket: a request without a range."""

    by_bytes = False

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        return super().request(method, at, None, version, target, absolute)


class S3Source(HttpSource):
    """One object in a bucket. Sends no request before the first read."""

    @property
    def capability(self) -> Capability:
        return replace(super().capability, list=True)


OWN_NAMES = [
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
    "addressing",
    "dualstack",
    "headers",
    "ca_file",
    "client_cert",
    "verify",
    "proxy",
]
_SECRETS = {"access_key_id", "secret_access_key", "session_token"}


class S3Service:
    """The objects of one `bucket`, by key; with `root`, only those below this key. Without a bucket: the objects of all
    buckets, as ``bucket/key``. Keys are used as they are: "%20" is three characters.

    Credentials: access_key_id and secret_access_key, optionally session_token; or credentials, a callable that returns
    them as a mapping, with expires_at if they expire; or anonymous=True; or those of the machine: AWS_ACCESS_KEY_ID and
    related variables, else what botocore finds if it is installed, else the shared files. profile: the section of the
    shared files.

    Address: endpoint_url, else AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon. region: else AWS_REGION or that of
    the profile, else us-east-1; the region that a server reports for a bucket is followed and remembered. addressing,
    dualstack: see `Endpoint`. headers: sent with each request, such as x-amz-request-payer, which `presign` includes
    too; fields of a signature are refused. The other options are those of `HttpService`. ``..`` in a key is an ordinary
    name: the path is signed as it is sent.
    """

    scheme = "s3"
    defaults = DEFAULTS
    versions = True

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
        credentials: Callable[[], Given] | None = None,
        anonymous: bool = False,
        profile: str | None = None,
        addressing: Addressing | None = None,
        dualstack: bool | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        if bucket is not None:
            check_bucket(bucket)
        self._reactor = reactor
        self._bucket, self._root = bucket, f"{root.strip('/')}/" if root.strip("/") else ""
        settings = Settings(profile)
        ring = _key_ring(
            (access_key_id, secret_access_key, session_token), credentials, bool(anonymous), profile
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
        self._access = Access(pool, {}, ring)
        pool.use()  # the pool keeps connections as long as the service exists

    def for_one(self) -> None:
        self._access.pool.unuse()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        return options_to_keep(options, _SECRETS)

    def open(self, path: str, options: Options) -> S3Source:
        return S3Source(self._reactor, self._remote(path, options), options)

    def _remote(self, path: str, options: Options) -> S3RemoteObject:
        bucket, key = self._object(path)
        query = "" if options.version is None else "versionId=" + quote(options.version, safe="-_.~")
        return S3RemoteObject(self._access, self._account, bucket, key, query, options)

    def _object(self, path: str) -> tuple[str, str]:
        bucket, key = self._place(path)
        if not key:
            raise ConfigInvalidError("the path names a bucket, not an object in it", path=path)
        return bucket, key

    def _place(self, path: str) -> tuple[str, str]:
        """The bucket and the key, or key prefix, of a path."""
        if self._bucket is not None:
            return self._bucket, self._root + path
        bucket, _, key = path.partition("/")
        check_bucket(bucket)
        return bucket, self._root + key

    def address(self, path: str) -> str:
        return path

    def absolute(self, path: str) -> str:
        return path

    def shown(self, path: str) -> str:
        bucket, key = self._object(path)
        return f"s3://{bucket}/{key}"

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        return ranges_of_many(partial(self.open, options=options), jobs)

    def presign(self, path: str, expires: float | timedelta, options: Options) -> str:
        seconds = expires.total_seconds() if isinstance(expires, timedelta) else numbers.index(expires)  # type: ignore[arg-type]
        if not 1 <= seconds <= LONGEST_S:
            raise ConfigInvalidError(f"expires must be 1 to {LONGEST_S} seconds, not {expires!r}")
        self._account.ring.fetch()
        bucket, _ = self._object(path)
        target = self._remote(path, options).target
        return self._account.presigned(bucket, "GET", target, int(seconds))

    # --- listing ---------------------------------------------------------------------------------------------

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        return self._listed(Pages(self, prefix, delimiter, options))

    def _listed(self, pages: "Pages") -> Iterator[Stat]:
        while (source := pages.next()) is not None:
            try:
                found = pages.entries(source, source.read_at(0, MOST_OF_A_PAGE))
            finally:
                source.close()
            yield from found

    def list_async(self, prefix: str, delimiter: str | None, options: Options) -> "AsyncListing":
        return AsyncListing(Pages(self, prefix, delimiter, options))


class Pages:
    """The pages of one listing: the next request, and the entries of a response."""

    def __init__(self, service: S3Service, prefix: str, delimiter: str | None, options: Options) -> None:
        self._service = service
        self._bucket, begin = service._place(prefix)
        self._terms = {"list-type": "2", "encoding-type": "url", "prefix": begin}
        if delimiter:
            self._terms["delimiter"] = delimiter
        # A page that is too large is read only as far as needed to detect this.
        self._options = replace(options, pin=False, chunk=None, on_no_range="slice")
        self._progress = Progress()
        self._cut = len(service._root)
        self._before = f"{self._bucket}/" if service._bucket is None else ""
        self._after: str | None = ""

    def next(self) -> "S3Source | None":
        """The Source of the next page; None after the last."""
        if self._after is None:
            return None
        terms = {**self._terms, "continuation-token": self._after} if self._after else self._terms
        query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(terms.items()))
        remote = _Listing(
            self._service._access, self._service._account, self._bucket, "", query, self._options
        )
        return S3Source(self._service._reactor, remote, self._options)

    def entries(self, source: S3Source, body: "Buffer") -> Sequence[Stat]:
        """The entries of a page, with paths as `open` accepts them, without an entry for `root` itself."""
        try:
            page = parse_page(memoryview(body))
            if page.refused is not None:
                general = UnexpectedError("HTTP 200: the response is an error, not a listing")
                raise explained(page.refused, 200, general, source._remote.secrets())
            self._progress.step(page)
            if any(not stat.path.startswith(self._service._root) for stat in page.entries):
                raise UnexpectedError("the server lists keys that are not below the root")
        except Error as error:
            raise type(error)(
                f"{asked(source.path, None, None)}: {error}",
                path=source.path,
                http_status=error.http_status,
                request_id=error.request_id,
                context=error.context,
            ) from None
        self._after = page.after
        entries = ((stat, stat.path[self._cut :]) for stat in page.entries)
        return [replace(stat, path=self._before + path) for stat, path in entries if path]


class AsyncListing(AsyncIterator[Stat]):
    """A listing, one page at a time; yields to other tasks of the loop between entries. The iteration may stop at any
    point and leaves nothing open.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._ready: deque[Stat] = deque()

    async def __anext__(self) -> Stat:
        await yield_if_due()
        while not self._ready:
            source = self._pages.next()
            if source is None:
                raise StopAsyncIteration
            try:
                body = await source.read_at_async(0, MOST_OF_A_PAGE)
                self._ready.extend(self._pages.entries(source, body))
            finally:
                source.close()
        return self._ready.popleft()


def _key_ring(
    given: tuple[str | None, str | None, str | None],
    credentials: Callable[[], Given] | None,
    anonymous: bool,
    profile: str | None,
) -> KeyRing:
    """The KeyRing for the one given kind of credentials. ConfigInvalidError if there are several."""
    ways = [any(part is not None for part in given), credentials is not None, anonymous]
    if sum(ways) > 1:
        raise ConfigInvalidError("set only one of access_key_id, credentials and anonymous")
    if ways[0]:
        return KeyRing(Keys(*given))  # type: ignore[arg-type]  # it checks them
    if credentials is not None:
        if not callable(credentials):
            raise ConfigInvalidError("credentials must be a callable that returns keys")
        return KeyRing(None, lambda: checked_keys(credentials()))
    return KeyRing(None) if anonymous else KeyRing(None, of_machine(profile))
