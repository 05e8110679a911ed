"""The base of services that keep objects by key over HTTP."""

import operator as numbers
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rangeio.errors import ConfigInvalidError
from rangeio.http.listing import Page
from rangeio.http.remote_object import Access, RemoteObject
from rangeio.options import Options
from rangeio.service import Capability, FileResults, Service, Source, Stat
from rangeio.services.http_many import ManyInto, ranges_of_many
from rangeio.services.http_options import DEFAULTS, TRAVELS, lacking, options_to_keep
from rangeio.services.http_source import HttpSource
from rangeio.services.keys import Keys
from rangeio.services.listing import AsyncListing, Pages, listed

if TYPE_CHECKING:
    from _uring import Reactor

LONGEST_SIGNATURE_S = 7 * 24 * 3600
"""The maximum lifetime of a signed URL, in seconds: that of S3 and of Google."""


class StoredSource(HttpSource):
    """One object of a store. Sends no request before the first read."""

    @property
    def capability(self) -> Capability:
        return replace(super().capability, list=True)


class HttpStore(ManyInto, Service):
    """A service writes `_remote` (one object) and `_pages` (one listing), and sets `scheme` and `option_names`.

    reactor: provides memory. access: fields, credentials, and connections, which the service keeps.
    """

    defaults = DEFAULTS
    secret_options: Sequence[str] = ()
    """The names of options that neither a pickle nor a display may contain."""
    travels = TRAVELS
    """What of the credentials another process gets with a pickle, as the end of a sentence."""

    def __init__(self, reactor: "Reactor", access: Access) -> None:
        self._reactor, self.access = reactor, access
        access.pool.use()

    @abstractmethod
    def _remote(self, path: str, options: Options) -> RemoteObject:
        """One object. ConfigInvalidError for a path that names none."""

    @abstractmethod
    def _pages(self, prefix: str, delimiter: str | None, options: Options) -> Pages:
        """The pages of a listing. No I/O."""

    def open(self, path: str, options: Options) -> Source:
        return StoredSource(self._reactor, self._remote(path, options), options)

    def shown(self, path: str) -> str:
        return self._remote(path, self.defaults).shown

    def keep_nothing(self) -> None:
        self.access.pool.unuse()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        return options_to_keep(options, self.secret_options)

    def lacks(self, names: Sequence[str]) -> None:
        lacking(self.access, names, self.travels)

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        return ranges_of_many(self.opening(options), jobs)

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        return listed(self._pages(prefix, delimiter, options))

    def list_async(self, prefix: str, delimiter: str | None, options: Options) -> AsyncListing:
        return AsyncListing(self._pages(prefix, delimiter, options))


class KeyedStore(HttpStore):
    """A store whose objects have keys in buckets. A service writes `page_request` and `page_of`, not `_pages`."""

    def __init__(self, reactor: "Reactor", access: Access, keys: Keys) -> None:
        self._keys = keys
        super().__init__(reactor, access)

    @abstractmethod
    def page_request(
        self, bucket: str, prefix: str, delimiter: str | None, after: Any, options: Options
    ) -> RemoteObject:
        """The request for a page of the keys of a bucket that begin with `prefix`. after: see `Pages.request`."""

    @abstractmethod
    def page_of(self, body: memoryview, remote: RemoteObject) -> Page:
        """See `Pages.parse`."""

    def _pages(self, prefix: str, delimiter: str | None, options: Options) -> Pages:
        return _KeyedPages(self._reactor, self, self._keys, prefix, delimiter, options)


class _KeyedPages(Pages):
    """The pages of a listing of one bucket."""

    def __init__(
        self,
        reactor: "Reactor",
        store: KeyedStore,
        keys: Keys,
        prefix: str,
        delimiter: str | None,
        options: Options,
    ) -> None:
        super().__init__(reactor, options)
        self._store, self._keys = store, keys
        self._bucket, self._prefix = keys.place(prefix)
        self._delimiter = delimiter or None

    def request(self, after: Any) -> RemoteObject:
        return self._store.page_request(self._bucket, self._prefix, self._delimiter, after, self.options)

    def parse(self, body: memoryview, remote: RemoteObject) -> Page:
        return self._store.page_of(body, remote)

    def path(self, key: str) -> str:
        return self._keys.path(self._bucket, key)


def signature_lifetime(expires: float | timedelta, most_s: int = LONGEST_SIGNATURE_S) -> int:
    """The lifetime of a signed URL in whole seconds. ConfigInvalidError unless it is 1 to `most_s`."""
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else numbers.index(expires)  # type: ignore[arg-type]
    if not 1 <= seconds <= most_s:
        raise ConfigInvalidError(f"expires must be 1 to {most_s} seconds, not {expires!r}")
    return int(seconds)
