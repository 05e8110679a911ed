"""Files and directories by WebHDFS: their requests, and the meaning of the responses."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import quote

from rangeio.errors import (
    ConfigInvalidError,
    IsDirectoryError,
    PermissionDeniedError,
    RangeNotSupportedError,
)
from rangeio.hdfs.login import Login
from rangeio.hdfs.name_nodes import PREFIX, NameNodes, quoted_path
from rangeio.hdfs.responses import STANDBY, WRONG_TOKEN, explained, parse_refusal
from rangeio.hdfs.statuses import FileStatus, parse_status
from rangeio.http.heads import BadResponse, Head
from rangeio.http.redaction import Quoted, secrets_of_fields
from rangeio.http.remote_object import Access, Refusal, RemoteObject
from rangeio.http.urls import Address, Origin
from rangeio.http.validation import End, Take, Version, refuse_coding

DataProxy: TypeAlias = Callable[[str], str] | Mapping[str, str]
"""Where a data node can be reached: from its host, or host:port, to another one."""

# Parameters of a redirect that are no secrets. Others, such as the delegation token, may be.
_HARMLESS = frozenset(["op", "user.name", "offset", "length", "buffersize", "namenoderpcaddress", "doas"])
# Requests that may be in flight, each redirected with a token of its own.
_MOST_SECRETS = 512


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all files of an Operator share. data_proxy: see `DataProxy`. insecure_tokens: others may read tokens."""

    access: Access
    nodes: NameNodes
    login: Login
    scheme: str
    name: str
    data_proxy: DataProxy | None = None
    insecure_tokens: bool = False

    def shown(self, path: str) -> str:
        """The URI of an absolute path, for display."""
        return f"{self.scheme}://{self.name}{path}"

    def reachable(self, origin: Origin) -> Origin:
        """The origin at which a data node can be reached."""
        if self.data_proxy is None:
            return origin
        named = (origin.authority, f"{origin.host}:{origin.port}", origin.host)
        if callable(self.data_proxy):
            found: Any = self.data_proxy(origin.host)
        else:
            found = next((self.data_proxy[name] for name in named if name in self.data_proxy), origin.host)
        host, _, port = found.rpartition(":") if found.rpartition(":")[2].isdigit() else (found, "", "")
        return Origin(origin.scheme, host.strip("[]"), int(port or origin.port))


class WebHdfsObject(RemoteObject):
    """A path of a cluster. Each of its requests begins at the active name node."""

    ranges_alike = False
    redirects_object = False

    def __init__(self, cluster: Cluster, path: str, **options: Any) -> None:
        """path: absolute. options: those of `RemoteObject`."""
        self._cluster, self._path = cluster, quoted_path(path)
        self._node = cluster.nodes.active
        self.alternatives = len(cluster.nodes) - 1
        self._redirect_secrets: tuple[str, ...] = ()
        super().__init__(cluster.access, self._address(), shown=cluster.shown(path), **options)

    def _address(self) -> Address:
        return Address(self._node.origin, self._node.prefix + self._path)

    @property
    def target(self) -> Address:
        """Its address, without a query, at the active name node."""
        active = self._cluster.nodes.active
        if active is not self._node:
            self._node = active
            self.move(self._address())
        return super().target

    def leave(self, target: Address) -> None:
        """See `RemoteObject`."""
        self._cluster.nodes.leave(target.origin)

    def terms(self, at: int, stop: int | None) -> str:
        """The query, without the login."""
        raise NotImplementedError

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        """See `RemoteObject`. A target with a query is that of a redirect."""
        path, redirected, query = target.target.partition("?")
        if not redirected:
            query = self.terms(at, stop) + self._cluster.login.query
        elif stop is not None and path.startswith(f"{PREFIX}/"):
            query = _with_range(query, at, stop)
        text = self._head(method, replace(target, target=f"{path}?{query}"), absolute)
        return (text + "\r\n").encode("latin-1")

    def redirected(self, asked: Address, head: Head) -> Address:
        """See `RemoteObject`. Name nodes normalize the path in Location, so that it may name another file, or none;
        its query names the range, and may hold a token. Paths of gateways are theirs.
        """
        found = super().redirected(asked, head)
        path, _, query = found.target.partition("?")
        secrets = [term.partition("=") for term in query.split("&")]
        secret = [value for name, _, value in secrets if value and name.lower() not in _HARMLESS]
        kept = dict.fromkeys([*secret, *self._redirect_secrets])
        self._redirect_secrets = tuple(kept)[:_MOST_SECRETS]
        if path.startswith(f"{PREFIX}/"):
            found = Address(self._cluster.reachable(found.origin), f"{PREFIX}{self._path}?{query}")
        self._check_token(found.origin, {name.lower() for name, _, _ in secrets})
        return found

    def _check_token(self, origin: Origin, names: set[str]) -> None:
        """PermissionDeniedError if the token would travel in the clear to another machine."""
        if "delegation" not in names or self._cluster.insecure_tokens:
            return
        if not self.access.pool.is_private(origin):
            raise PermissionDeniedError(
                "the name node redirects to "
                + Quoted(f"http://{origin.authority}")
                + ", and others could read the delegation token on the way: use swebhdfs://, set data_proxy=, or"
                " insecure_tokens=True"
            )

    def pin_fields(self, version: Version) -> Mapping[str, str]:
        """See `RemoteObject`. WebHDFS has no conditions."""
        return {}

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """See `RemoteObject`."""
        found = parse_refusal(body)
        general = super().refused(head, body, pinned=pinned).error
        error = explained(found, head.status, general, self.secrets())
        renew = found.code in WRONG_TOKEN or (head.status == 401 and not found.code)
        return Refusal(error, renew=renew, elsewhere=found.code in STANDBY)

    def secrets(self) -> Iterator[str]:
        """See `RemoteObject`. User, path and range in a query are none."""
        yield from self._cluster.login.secrets()
        yield from self._redirect_secrets
        yield from secrets_of_fields(self.access.fields)
        for origin in {self.address.origin, self.target.origin}:
            yield from self.access.pool.secrets(origin)


class WebHdfsFile(WebHdfsObject):
    """A file. Its status has size and version; responses with bytes have neither."""

    by_status = True
    probe_method = "GET"
    found: FileStatus | None = None
    """The last status."""

    @property
    def told_by(self) -> str:
        """See `RemoteObject`."""
        return "fileid+mtime+size" if self.pinned else ""

    def terms(self, at: int, stop: int | None) -> str:
        """The range, or the status."""
        return "op=GETFILESTATUS" if stop is None else f"op=OPEN&offset={at}&length={stop - at}"

    def status(self, body: bytes) -> tuple[int, str]:
        """See `RemoteObject`."""
        self.found = found = parse_status(body)
        if found.directory:
            raise IsDirectoryError("it is a directory; Operator.list() lists its content")
        return found.size, found.pin

    def judged(self, head: Head, at: int, stop: int) -> Take | End | None:
        """A 200 is the range, if it has as many bytes as requested, or fewer. A server that ignores the range sends
        more.
        """
        if head.status != 200:
            raise RangeNotSupportedError(f"HTTP {head.status} is no response of WebHDFS to a read")
        refuse_coding(head)
        if head.length is None and not head.chunked:
            raise RangeNotSupportedError(
                "the server sends a body without a length, so a truncated body could not be detected"
            )
        length = stop - at if head.length is None else head.length
        if length > stop - at:
            raise RangeNotSupportedError(
                f"the server sends {length} bytes for a request for {stop - at}: it ignores offset or length"
            )
        if not length:
            raise BadResponse(f"no bytes at {at}, although the status says that there are some")
        return Take(0, at + length, None, exact=head.chunked)


class WebHdfsDirectory(WebHdfsObject):
    """A page of a directory: a request without a range. after: the name after which it begins."""

    by_bytes = False

    def __init__(self, cluster: Cluster, path: str, after: str, **options: Any) -> None:
        self._after = quote(after, safe="-_.~", errors="surrogateescape")
        super().__init__(cluster, path, **options)

    def terms(self, at: int, stop: int | None) -> str:
        """The page."""
        return "op=LISTSTATUS_BATCH" + (f"&startAfter={self._after}" if self._after else "")


class TokenRequest(WebHdfsObject):
    """A request for a delegation token, with the login of Kerberos for the name node that is asked."""

    by_bytes = False

    def __init__(self, cluster: Cluster, log_in: Callable[[str], str], **options: Any) -> None:
        """log_in: from a host to the value of Authorization."""
        self._log_in, self._login = log_in, ""
        super().__init__(cluster, "/", **options)

    def stamp(self) -> object:
        """See `RemoteObject`. A login is good for one request."""
        return object()

    def fields_for(self, method: str, target: Address) -> Mapping[str, str]:
        """See `RemoteObject`."""
        if not self._cluster.nodes.has(target.origin):
            return {}
        self._login = self._log_in(target.origin.host)
        return {**super().fields_for(method, target), "Authorization": self._login}

    def terms(self, at: int, stop: int | None) -> str:
        """The token."""
        return "op=GETDELEGATIONTOKEN"

    def secrets(self) -> Iterator[str]:
        """See `RemoteObject`."""
        yield from super().secrets()
        yield from secrets_of_fields({"Authorization": self._login})


def _with_range(query: str, at: int, stop: int) -> str:
    """The query of a redirect, for this range: that of the redirect may be another one's, from a cache or a proxy."""
    terms = [term for term in query.split("&") if term.partition("=")[0].lower() not in ("offset", "length")]
    return "&".join([*filter(None, terms), f"offset={at}", f"length={stop - at}"])


def check_data_proxy(given: Any) -> None:
    """ConfigInvalidError for anything else than a callable or a mapping."""
    if given is not None and not callable(given) and not isinstance(given, Mapping):
        raise ConfigInvalidError("data_proxy must be a mapping of hosts, or a callable")
