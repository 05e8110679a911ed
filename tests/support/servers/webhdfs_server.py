"""WebHDFS by script: name nodes and a data node that answer as Hadoop 3.3.6 does, or as a test says."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from servers.scripted import Answer, Asked, Scripted, reply, scripted

PREFIX = "/webhdfs/v1"
Fault = Callable[[Asked, dict[str, str]], Answer | None]
_IDS = count(16_386)


@dataclass
class File:
    """One file; each that is made has another file_id."""

    data: bytes
    modified_ms: int = 1_796_061_811_986
    file_id: int = field(default_factory=lambda: next(_IDS))

    def status(self, name: str = "") -> dict[str, Any]:
        """As GETFILESTATUS tells it."""
        said = {"pathSuffix": name, "type": "FILE", "length": len(self.data), "blockSize": 1 << 20}
        return {**said, "modificationTime": self.modified_ms, "fileId": self.file_id, "owner": "root"}


DIRECTORY = {"type": "DIRECTORY", "length": 0, "modificationTime": 1_796_061_811_468, "fileId": 16_385}


def refusal(status: int, exception: str, message: str = "", java: str = "org.apache.hadoop.") -> Answer:
    """A RemoteException."""
    said = {"exception": exception, "javaClassName": java + exception, "message": message}
    return chunked(json.dumps({"RemoteException": said}).encode(), status)


def chunked(body: bytes, status: int = 200, **fields: str | None) -> Answer:
    """As name nodes send JSON."""
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = {"Content_Type": "application/json", "Content_Length": None, "Transfer_Encoding": "chunked"}
    return reply(status, coded, **{**head, **fields})


@dataclass
class WebHdfs:
    """The running servers. files: by absolute path. active: which of the name nodes is. token: what each request must
    have. name_fault, data_fault: may answer in place of a node.
    """

    files: dict[str, File] = field(default_factory=dict)
    name_nodes: list[Scripted] = field(default_factory=list)
    data_node: Scripted = field(init=False)
    active: int = 0
    token: str | None = None
    name_fault: Fault = lambda asked, query: None
    data_fault: Fault = lambda asked, query: None
    page: int = 1000  # entries
    authorities: list[str] = field(default_factory=list)
    at_once: bool = False
    """Answers OPEN itself, chunked, as HttpFS."""

    def put(self, path: str, data: bytes) -> str:
        """The URI of a new file."""
        self.files[path] = File(data)
        return f"webhdfs://{self.authority}{path}"

    @property
    def authority(self) -> str:
        """Of the first name node."""
        return self.authorities[0]

    @property
    def requests(self) -> list[str]:
        """The operations asked for so far, those of the data node as READ."""
        asked = [(query_of(one)["op"], one) for node in self.name_nodes for one in node.asked]
        return [name for name, _ in asked] + ["READ" for _ in self.data_node.asked]

    def forget(self) -> None:
        """Count requests from here on."""
        for node in (*self.name_nodes, self.data_node):
            node.asked.clear()

    def at_name_node(self, number: int, asked: Asked) -> Answer:
        """What that name node answers."""
        query, path = query_of(asked), path_of(asked)
        fault = self.name_fault(asked, query)
        if fault is not None:
            return fault
        if self.token is not None and query.get("delegation") != self.token:
            if "delegation" in query:
                return refusal(403, "InvalidToken", "token (token for alice) is expired")
            return reply(401, b"<html>Authentication required</html>", WWW_Authenticate="Negotiate")
        if number != self.active:
            return refusal(
                403, "StandbyException", "Operation category READ is not supported in state standby"
            )
        operation = {"GETFILESTATUS": self._status, "OPEN": self._open, "LISTSTATUS_BATCH": self._list}
        return operation[query["op"]](path, query)

    def _status(self, path: str, query: dict[str, str]) -> Answer:
        if path in self.files:
            return chunked(json.dumps({"FileStatus": self.files[path].status()}).encode())
        if self._names(path):
            return chunked(json.dumps({"FileStatus": {**DIRECTORY, "pathSuffix": ""}}).encode())
        return refusal(404, "FileNotFoundException", f"File does not exist: {path}", "java.io.")

    def _open(self, path: str, query: dict[str, str]) -> Answer:
        if path not in self.files:
            return refusal(404, "FileNotFoundException", f"File {path} not found.", "java.io.")
        offset, size = int(query["offset"]), len(self.files[path].data)
        if offset >= size > 0:
            message = f"Offset={offset} out of the range [0, {size}); OPEN, path={path}"
            return refusal(403, "IOException", message, "java.io.")
        if self.at_once:
            return chunked(self._range(path, query), Content_Type="application/octet-stream")
        terms = {name: query[name] for name in ("user.name", "delegation") if name in query}
        terms |= {
            "namenoderpcaddress": "127.0.0.1:8020",
            "length": query["length"],
            "offset": query["offset"],
        }
        normalized = quote(unicodedata.normalize("NFC", path), safe="/+;&=@'*~,$!():")
        more = "&".join(f"{name}={value}" for name, value in terms.items())
        return reply(307, Location=f"{self.data_node.url}{PREFIX}{normalized}?op=OPEN&{more}")

    def _list(self, path: str, query: dict[str, str]) -> Answer:
        names, after = self._names(path), query.get("startAfter", "")
        if not names:
            return refusal(404, "FileNotFoundException", f"File {path} does not exist.", "java.io.")
        left = [name for name in sorted(names, key=signed) if not after or signed(name) > signed(after)]
        found = [self._entry(path, name) for name in left[: self.page]]
        listing = {"partialListing": {"FileStatuses": {"FileStatus": found}}}
        listing |= {"remainingEntries": len(left) - len(found)}  # type: ignore[dict-item]
        return chunked(json.dumps({"DirectoryListing": listing}, ensure_ascii=False).encode())

    def _names(self, path: str) -> set[str]:
        below = path.rstrip("/") + "/"
        return {name[len(below) :].partition("/")[0] for name in self.files if name.startswith(below)}

    def _entry(self, path: str, name: str) -> dict[str, Any]:
        file = self.files.get(f"{path.rstrip('/')}/{name}")
        return {**DIRECTORY, "pathSuffix": name} if file is None else file.status(name)

    def at_data_node(self, asked: Asked) -> Answer:
        """What the data node answers."""
        query, path = query_of(asked), path_of(asked)
        fault = self.data_fault(asked, query)
        if fault is not None:
            return fault
        if self.token is not None and query.get("delegation") != self.token:
            return refusal(403, "InvalidToken", "Can't find token")
        if path not in self.files:
            return refusal(404, "FileNotFoundException", f"File does not exist: {path}", "java.io.")
        return reply(200, self._range(path, query), then="close", Connection="close")

    def _range(self, path: str, query: dict[str, str]) -> bytes:
        offset = int(query.get("offset", 0))
        return self.files[path].data[offset:][: int(query["length"]) if "length" in query else None]


def signed(name: str) -> list[int]:
    """By this, name nodes sort: bytes with a sign."""
    return [byte - 256 if byte > 127 else byte for byte in name.encode()]


def query_of(asked: Asked) -> dict[str, str]:
    """The terms of a query."""
    terms = parse_qs(urlsplit(asked.target).query, keep_blank_values=True)
    return {name: values[-1] for name, values in terms.items()}


def path_of(asked: Asked) -> str:
    """The path in HDFS."""
    return unquote(urlsplit(asked.target).path).removeprefix(PREFIX)


@contextmanager
def webhdfs(name_nodes: int = 1, **given: Any) -> Iterator[WebHdfs]:
    """Serve on free ports of loopback. given: attributes of `WebHdfs`."""
    cluster = WebHdfs(**given)
    with ExitStack() as stack:
        cluster.data_node = stack.enter_context(scripted(cluster.at_data_node))
        for number in range(name_nodes):
            node = stack.enter_context(scripted(partial(cluster.at_name_node, number)))
            cluster.name_nodes.append(node)
            cluster.authorities.append(urlsplit(node.url).netloc)
        yield cluster
