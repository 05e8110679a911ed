"""The name nodes of a cluster, or a gateway in their place: their addresses, and which of them is the active one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rangeio.errors import ConfigInvalidError
from rangeio.hdfs.settings import Settings
from rangeio.http.tokens import check_private
from rangeio.http.urls import Address, Origin, parse_url, quoted

PREFIX = "/webhdfs/v1"
"""The path of WebHDFS at name nodes and data nodes."""
PORTS = {"http": 9870, "https": 9871}
# What stays as it is in a path: name nodes normalize some characters that are not encoded.
_SAFE = "/~"


@dataclass(frozen=True, slots=True)
class NameNode:
    """One of them. prefix: the path of WebHDFS there."""

    origin: Origin
    prefix: str = PREFIX

    def address(self, path: str, query: str) -> Address:
        """path: quoted, with a leading slash."""
        return Address(self.origin, f"{self.prefix}{path}?{query}")


class NameNodes:
    """Those of one cluster. `active` is the one that was last found to answer; all objects of an Operator share it.

    found_in: the settings that name them, for display; empty if the caller does.
    """

    def __init__(self, nodes: Sequence[NameNode], found_in: str = "") -> None:
        self._nodes = tuple(nodes)
        self._active = 0
        self._found_in = found_in

    @property
    def shown(self) -> str:
        """Their URLs and where they were found, for display."""
        urls = ", ".join(Address(node.origin, node.prefix).url for node in self._nodes)
        return f"{urls} (of {self._found_in})" if self._found_in else urls

    @property
    def active(self) -> NameNode:
        """The one to ask."""
        return self._nodes[self._active]

    def __len__(self) -> int:
        return len(self._nodes)

    def check_tokens(self, proxy: str | None) -> None:
        """ConfigInvalidError if others could read a token on its way."""
        for node in self._nodes:
            check_private(node.origin, proxy, "use swebhdfs://, or set insecure_tokens=True")

    def has(self, origin: Origin) -> bool:
        """Whether one of them is there."""
        return any(node.origin == origin for node in self._nodes)

    def leave(self, origin: Origin) -> None:
        """Go on to the next one, if `origin` is that of the active one: it is in standby, or cannot be reached."""
        asked = self._active
        if self._nodes[asked].origin == origin:
            self._active = (asked + 1) % len(self._nodes)


def name_nodes(cluster: str | None, given: Sequence[str] | None, *, tls: bool) -> NameNodes:
    """cluster: host:port of the name node, or the name of a nameservice; None for fs.defaultFS. given: host:port or URL
    of each name node, in place of the settings.
    """
    scheme = "https" if tls else "http"
    if given is not None:
        if isinstance(given, str) or not given:
            raise ConfigInvalidError("namenodes must be a list of host:port or URLs")
        return NameNodes([_name_node(text, scheme) for text in given])
    settings = Settings()
    named = cluster or settings.default_cluster()
    if named is None:
        raise ConfigInvalidError(
            "no cluster: name it (webhdfs://host:port/path), set namenodes=, or fs.defaultFS in HADOOP_CONF_DIR"
        )
    found = settings.name_nodes(named, scheme)
    if cluster is None and not found:
        # The port in fs.defaultFS is that of the RPC.
        address = settings.get(f"dfs.namenode.{scheme}-address")
        found = [address or named.rpartition("@")[2].partition(":")[0]]
    return NameNodes([_name_node(text, scheme) for text in found or [named]], settings.place if found else "")


def _name_node(text: str, scheme: str) -> NameNode:
    """A name node by host:port, or by a URL, whose path is used if it has one."""
    if not isinstance(text, str):
        raise ConfigInvalidError("namenodes must be a list of host:port or URLs")
    bare = "://" not in text
    address = parse_url(f"{scheme}://{text}" if bare else text)
    path = address.target.rstrip("/")
    if address.login is not None or "?" in path or (bare and path):
        raise ConfigInvalidError("a name node is named by host:port, or by a URL without login and query")
    if address.origin.scheme != scheme:
        kind = "swebhdfs" if address.origin.scheme == "https" else "webhdfs"
        raise ConfigInvalidError(
            f"a name node at {address.origin.scheme}:// is read with the service {kind!r}"
        )
    origin = address.origin
    if bare and not re.search(r":\d+$", text):
        origin = origin._replace(port=PORTS[scheme])
    return NameNode(origin, path or PREFIX)


def quoted_path(path: str) -> str:
    """An absolute path as it is sent: each character encoded that a server might interpret or normalize."""
    return quoted(path, _SAFE)


def joined(root: str, path: str) -> str:
    """The absolute path of `path` below `root`. ConfigInvalidError for components that are no names."""
    parts = [part for part in f"{root}/{path}".split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise ConfigInvalidError(f"{path!r} contains '.' or '..', which HDFS has not", path=path)
    return "/" + "/".join(parts)
