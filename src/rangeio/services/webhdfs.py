"""The services for webhdfs:// and swebhdfs://: files of HDFS, read over HTTP with `rangeio.http`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rangeio.errors import ConfigInvalidError
from rangeio.hdfs.listing import Walk
from rangeio.hdfs.login import Login, parse_token
from rangeio.hdfs.name_nodes import NameNodes, joined, name_nodes
from rangeio.hdfs.negotiate import negotiate
from rangeio.hdfs.remote import (
    Cluster,
    DataProxy,
    TokenRequest,
    WebHdfsDirectory,
    WebHdfsFile,
    check_data_proxy,
)
from rangeio.hdfs.statuses import parse_page
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.fields import checked_fields
from rangeio.http.listing import Page
from rangeio.http.range_read import Probe
from rangeio.http.remote_object import Access, RemoteObject
from rangeio.http.validation import Version
from rangeio.options import Options
from rangeio.service import Location, Stat
from rangeio.services.http_options import CONNECTION_OPTIONS, DEFAULTS, conditions, policy_of
from rangeio.services.http_source import HttpSource
from rangeio.services.http_store import HttpStore, StoredSource
from rangeio.services.listing import Pages

if TYPE_CHECKING:
    from _uring import Reactor

_MOST_OF_A_TOKEN = 16 << 10


class WebHdfsSource(StoredSource):
    """One file. The first read sends a request for the status, and then two for each range."""

    def _told(self, probe: Probe, version: Version) -> Stat:
        remote = self._remote
        assert isinstance(remote, WebHdfsFile)
        modified = None if remote.found is None else remote.found.modified_ms * 10**6
        return replace(super()._told(probe, version), mtime_ns=modified)


class WebHdfsService(HttpStore):
    """Files of one HDFS cluster, below `root`.

    cluster: host:port of the name node (default port 9870; with TLS 9871), or a nameservice of HADOOP_CONF_DIR;
    default: fs.defaultFS. namenodes: host:port or URL of each name node, in place of the settings; the path of a URL,
    such as that of a gateway, replaces /webhdfs/v1. The active one is found and remembered.

    Who reads, one of: user (default: HADOOP_USER_NAME), which a cluster without security believes; delegation_token;
    kerberos=True, which fetches a delegation token with the ticket of kinit. Over http://, a token is sent to this
    machine only, unless insecure_tokens=True.

    data_proxy: where data nodes can be reached, if not by their names in the cluster: a mapping from host or host:port,
    or a callable. headers, ca_file, client_cert, verify, proxy: see `HttpService`.
    """

    scheme = "webhdfs"
    defaults = DEFAULTS
    option_names = (
        "cluster",
        "namenodes",
        "root",
        "user",
        "delegation_token",
        "kerberos",
        "insecure_tokens",
        "data_proxy",
        *CONNECTION_OPTIONS,
    )
    secret_options = ("delegation_token",)
    travels = "kerberos=True does"

    def __init__(
        self,
        reactor: "Reactor",
        cluster: str | None = None,
        root: str = "",
        *,
        namenodes: Sequence[str] | None = None,
        user: str | None = None,
        delegation_token: str | None = None,
        kerberos: bool = False,
        insecure_tokens: bool = False,
        data_proxy: DataProxy | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        if sum([user is not None, delegation_token is not None, bool(kerberos)]) > 1:
            raise ConfigInvalidError("set only one of user, delegation_token and kerberos")
        check_data_proxy(data_proxy)
        nodes = name_nodes(cluster, namenodes, tls=self._tls)
        if (delegation_token is not None or kerberos) and not insecure_tokens:
            nodes.check_tokens(proxy)
        self._root = joined("", root)
        pool = ConnectionPool(Security(ca_file, client_cert, bool(verify)), proxy)
        fields = checked_fields(headers or {})
        name = cluster or nodes.active.origin.authority
        source = partial(_fetched_token, reactor, Access(pool, fields), nodes, name) if kerberos else None
        who = "delegation_token=" if user is None else f"user={user!r}"
        if user is None and delegation_token is None and not kerberos:
            user = os.environ.get("HADOOP_USER_NAME") or None
            who = f"the user {user!r} of HADOOP_USER_NAME" if user else "none: the name node's default user"
        self._who = "" if kerberos else who
        login = Login(user, delegation_token, source)
        access = Access(pool, fields, login)
        self._cluster = Cluster(
            access, nodes, login, self.scheme, name, data_proxy, insecure_tokens=bool(insecure_tokens)
        )
        super().__init__(reactor, access)

    @property
    def _tls(self) -> bool:
        return self.scheme == "swebhdfs"

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """Paths are used as they are: "%20" is three characters."""
        cluster, _, path = rest.partition("/")
        return Location({"cluster": cluster} if cluster else {}, path)

    def open(self, path: str, options: Options) -> WebHdfsSource:
        return WebHdfsSource(self._reactor, self._remote(path, options), options)

    def uri(self, path: str) -> str:
        """See `Service`. That of a directory ends in a slash, as its prefix in a listing does."""
        return self.shown(path).rstrip("/") + "/" if path.endswith("/") else self.shown(path)

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """See `Service`. With Kerberos, asks the KDC."""
        nodes = self._cluster.nodes
        yield "name nodes", nodes.shown
        if not self._who:
            negotiate(nodes.active.origin.host)
        ticket = f"kerberos=True, with a ticket in {os.environ.get('KRB5CCNAME') or 'the default cache'}"
        yield "credentials", self._who or ticket

    def _remote(self, path: str, options: Options) -> WebHdfsFile:
        if conditions(options):
            raise ConfigInvalidError(f"{self.scheme!r} has no conditions such as if_match", path=path)
        return WebHdfsFile(self._cluster, joined(self._root, path), **policy_of(options))

    def _pages(self, prefix: str, delimiter: str | None, options: Options) -> "_WalkPages":
        return _WalkPages(self._reactor, self._cluster, Walk(self._root, prefix, delimiter), options)


class SecureWebHdfsService(WebHdfsService):
    """WebHDFS over TLS."""

    scheme = "swebhdfs"


class _WalkPages(Pages):
    """The pages of all directories of a listing."""

    absent_is_empty = True
    most_empty = (
        1_000_000  # a page of a directory that continues, and one with directories only, have no entry
    )

    def __init__(self, reactor: "Reactor", cluster: Cluster, walk: Walk, options: Options) -> None:
        super().__init__(reactor, options)
        self._cluster, self._walk = cluster, walk
        self._count = 0

    def request(self, after: Any) -> RemoteObject:
        assert self._walk.next is not None
        return WebHdfsDirectory(self._cluster, *self._walk.next, **policy_of(self.options))

    def parse(self, body: memoryview, remote: RemoteObject) -> Page:
        entries, more = parse_page(body) if len(body) else ([], False)
        found = self._walk.took(entries, more=more)
        self._count += 1
        return Page(found, None if self._walk.next is None else str(self._count))

    def path(self, key: str) -> str:
        return self._walk.path(key)


def _fetched_token(reactor: "Reactor", access: Access, nodes: NameNodes, name: str) -> str:
    """A delegation token from the active name node. May block."""
    cluster = Cluster(access, nodes, Login(), "webhdfs", name)
    remote = TokenRequest(cluster, negotiate, **policy_of(replace(DEFAULTS, pin=False, on_no_range="slice")))
    source = HttpSource(reactor, remote, DEFAULTS)
    try:
        return parse_token(memoryview(source.read_at(0, _MOST_OF_A_TOKEN)))
    finally:
        source.close()
