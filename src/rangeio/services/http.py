"""The service for http:// and https://."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from rangeio.errors import ConfigInvalidError, PermissionDeniedError, UnsupportedError
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.fields import checked_fields
from rangeio.http.remote_object import Access, Credentials, Fresh, RemoteObject
from rangeio.http.tokens import check_private
from rangeio.http.urls import Address, parse_url
from rangeio.options import Options
from rangeio.service import FileResults, Location, Service, Stat
from rangeio.services.http_many import ManyInto, ranges_of_many
from rangeio.services.http_options import (
    CONNECTION_OPTIONS,
    DEFAULTS,
    lacking,
    login_fields,
    options_to_keep,
    policy_of,
)
from rangeio.services.http_source import HttpSource

if TYPE_CHECKING:
    from _uring import Reactor


class HttpService(ManyInto, Service):
    """Objects by URL, or below `root`, to which paths are appended as quoted keys.

    A path cannot leave the root: anything that a server or proxy might interpret as ``..`` raises
    PermissionDeniedError.

    headers: sent with each request; a User-Agent replaces the default. auth: (user, password). bearer_token: str, sent
    over plain http within this machine only. credentials: a callable that returns header fields, or (fields, expiry in
    seconds since 1970); called again before they expire and when the server rejects them. None of these is sent to
    another origin after a redirect. ca_file, client_cert, verify: see `Security`. proxy: a URL, "" for none; default:
    HTTP_PROXY, HTTPS_PROXY and NO_PROXY. insecure_redirects: follow redirects from https:// to http://, where others
    can read and change the bytes.
    """

    scheme = "http"
    defaults = DEFAULTS
    lists = False
    option_names = (
        "root",
        "auth",
        "bearer_token",
        "credentials",
        "insecure_redirects",
        *CONNECTION_OPTIONS,
    )

    def __init__(
        self,
        reactor: "Reactor",
        root: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        bearer_token: str | None = None,
        credentials: Callable[[], Fresh] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
        insecure_redirects: bool = False,
    ) -> None:
        self._reactor = reactor
        self._root = None if root is None else parse_url(root)
        if self._root is not None and "?" in self._root.target:
            raise ConfigInvalidError("a root must be a URL without a query; open signed URLs one by one")
        pool = ConnectionPool(Security(ca_file, client_cert, bool(verify)), proxy)
        fields = checked_fields(headers or {})
        login = login_fields(fields, auth, bearer_token, credentials)
        self.access = Access(pool, fields, Credentials(login, credentials), bool(insecure_redirects))
        self._has_token, self._proxy = bearer_token is not None, proxy
        pool.use()  # the pool keeps connections as long as the service exists

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        return Location({}, f"{scheme}://{rest}")

    def keep_nothing(self) -> None:
        self.access.pool.unuse()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        kept = options_to_keep(options, {"auth", "bearer_token"})
        if kept.get("root"):
            kept["root"] = parse_url(kept["root"]).url
        return kept

    def lacks(self, names: Sequence[str]) -> None:
        lacking(self.access, names)

    def open(self, path: str, options: Options) -> HttpSource:
        address = self._address(path)
        if self._has_token:
            check_private(
                address.origin, self._proxy, "use https, or send your own Authorization in headers="
            )
        remote = RemoteObject(
            self.access,
            address,
            **policy_of(options),
        )
        return HttpSource(self._reactor, remote, options)

    def _address(self, path: str) -> Address:
        """The address of an object. PermissionDeniedError if the path leaves the root."""
        if self._root is None:
            return parse_url(path)
        if _leaves(path):
            raise PermissionDeniedError(
                f"{path!r} leaves the root {self._root.shown!r}; pass a path below the root, without '..'",
                path=path,
            )
        return self._root.below(path)

    def address(self, path: str) -> str:
        return path if self._root is not None else parse_url(path).url

    def shown(self, path: str) -> str:
        return self._address(path).shown

    @classmethod
    def file_name(cls, path: str) -> str:
        return os.path.basename(unquote(urlsplit(path).path))

    def name(self, path: str) -> str:
        return self.shown(path) if self._root is None else path

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        raise UnsupportedError(
            "HTTP does not support listing: open objects by name, or list them with the store's protocol (s3://)",
            path="" if self._root is None else prefix,  # a URL may hold a signature
        )

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        return ranges_of_many(partial(self.open, options=options), jobs)


def _leaves(path: str) -> bool:
    """Whether a server or proxy may interpret a segment as ``..``: they remove dot segments (RFC 3986, section 5.2.4),
    some after decoding once more than they should, some treat a backslash as ``/``, and some drop the rest of a segment
    after a semicolon.
    """
    before = None
    while path != before:
        if any(part.partition(";")[0] == ".." for part in re.split(r"[/\\]", path)):
            return True
        before, path = path, unquote(path)
    return False
