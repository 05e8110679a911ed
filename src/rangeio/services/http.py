"""http:// and https://: the service that opens objects."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rangeio.errors import ConfigInvalidError, UnsupportedError
from rangeio.http.address import parse_url
from rangeio.http.pool import Pool, Security
from rangeio.http.remote import Access, Credentials, Fresh, Remote, checked_fields
from rangeio.service import FileResults, Options, Stat
from rangeio.services.http_options import DEFAULTS, conditions, login_fields, options_to_keep
from rangeio.services.http_source import HttpSource, ranges_of_many

if TYPE_CHECKING:
    from _uring import Reactor

OWN_NAMES = [
    "root",
    "headers",
    "auth",
    "bearer_token",
    "credentials",
    "ca_file",
    "client_cert",
    "verify",
    "proxy",
    "insecure_redirects",
]


class HttpService:
    """Objects by URL, or below `root`, to which paths are appended as keys: quoted, whatever is in them.

    headers: sent with each request. auth: (user, password). bearer_token: text. credentials: a callable that returns
    header fields, or (fields, expiry in seconds since 1970); asked again before they expire and when they are refused.
    None of these is sent to another origin that a redirect leads to. ca_file, client_cert, verify: see `Security`.
    proxy: a URL, "" for none; by default what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say. insecure_redirects: follow a
    redirect from https:// to http://, where others can read and change the bytes.
    """

    scheme = "http"
    defaults = DEFAULTS
    versions = False

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
        self._root = root
        if root is not None and "?" in parse_url(root).target:
            raise ConfigInvalidError("a root is a URL without a query; signed URLs are opened one by one")
        pool = Pool(Security(ca_file, client_cert, bool(verify)), proxy)
        self._access = Access(
            pool,
            checked_fields(headers or {}),
            Credentials(login_fields(auth, bearer_token, credentials), credentials),
            bool(insecure_redirects),
        )
        pool.use()  # connections are kept as long as the service is

    def for_one(self) -> None:
        self._access.pool.unuse()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        kept = options_to_keep(options, {"auth", "bearer_token"})
        if kept.get("root"):
            kept["root"] = parse_url(kept["root"]).url
        return kept

    def open(self, path: str, options: Options) -> HttpSource:
        remote = Remote(
            self._access,
            parse_url(self._url(path)),
            timeout=options.timeout,
            retry=options.retry,
            hedge_s=options.hedge,
            pin=options.pin,
            on_no_range=options.on_no_range,
            cap=options.no_range_cap,
            conditions=conditions(options),
            size=options.size,
        )
        return HttpSource(self._reactor, remote, options)

    def _url(self, path: str) -> str:
        return path if self._root is None else self._root.rstrip("/") + "/" + quote(path, safe="/~")

    def address(self, path: str) -> str:
        return path if self._root is not None else parse_url(path).url

    def may_travel(self, path: str) -> bool:
        return not parse_url(self._url(path)).is_signed

    def shown(self, path: str) -> str:
        return parse_url(self._url(path)).shown

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        raise UnsupportedError(
            "HTTP has no listing: open objects by their names, or list them by the store's own protocol (s3://)",
            path=prefix,
        )

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        return ranges_of_many([self.open(path, options) for path, _, _ in jobs], jobs)
