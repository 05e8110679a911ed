"""A scripted Hugging Face Hub and the storage that it redirects to: two origins.

It follows what the hub is seen to answer: files of 1,000 bytes and more are in the storage, whose URLs are signed for
GET and expire; the hub sends smaller ones itself, after a relative redirect. The storage has ETags of its own.
"""

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from servers.scripted import Answer, Asked, Scripted, cut, honest, reply, scripted

LARGE = 1_000
TOKEN = "hf_T0kenS3cret0123456789"
Files = dict[str, bytes]
Instead = Callable[[Asked], Answer | None]


@dataclass
class Repo:
    """commits: the files of each. refs: branches and tags. gated, private: who may read it."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


@dataclass
class Hub:
    """before, in_storage: answer in place of the hub or the storage, if they return something."""

    site: Scripted
    storage: Scripted
    repos: dict[str, Repo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    page: int = 1_000
    large: int = LARGE
    signed: int = 0  # URLs of the storage that were signed with another number have expired
    storage_etag: str = "storage"
    before: Instead | None = None
    in_storage: Instead | None = None
    blobs: dict[str, bytes] = field(default_factory=dict)

    def repo(self, name: str = "owner/name", **options: Any) -> Repo:
        """A repository, made when it is first named; ``datasets/owner/name`` for another kind."""
        key = name if name.count("/") == 2 else f"models/{name}"
        return self.repos.setdefault(key, Repo(**options))

    def put(self, path: str, data: bytes, name: str = "owner/name", revision: str = "main") -> str:
        """Commit a file; returns the URI."""
        repo = self.repo(name)
        files = {**repo.commits.get(repo.refs.get(revision, ""), {}), path: data}
        commit = hashlib.sha1(repr((revision, len(repo.commits), path)).encode() + data).hexdigest()
        repo.commits[commit] = files
        repo.refs[revision] = commit
        return f"hf://{name}/{path}"

    def expire(self) -> None:
        """Make all signed URLs invalid."""
        self.signed += 1

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.site.url}

    # --- the hub ---------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        if self.before is not None and (given := self.before(asked)) is not None:
            return given
        path, _, query = asked.target.partition("?")
        if asked.fields.get("authorization", f"Bearer {TOKEN}") != f"Bearer {TOKEN}":
            return refusal(401, "", "Invalid credentials in Authorization header")
        if path.startswith("/api/resolve-cache/"):
            kind, owner, name, commit, file = map(
                unquote, path.removeprefix("/api/resolve-cache/").split("/", 4)
            )
            return self._cached(asked, f"{kind}/{owner}/{name}", commit, file)
        if path.startswith("/api/"):
            key, _, rest = path.removeprefix("/api/").partition("/tree/")
            return self._of(asked, key) or self._tree(asked, key, rest, parse_qs(query))
        key, mark, rest = path.removeprefix("/").partition("/resolve/")
        key = key if key.count("/") == 2 else f"models/{key}"
        if not mark:
            return refusal(404, "", "Sorry, we can't find the page you are looking for.")
        if key in self.renamed:
            new = self.renamed[key].removeprefix("models/")
            return reply(307, Location=f"/{new}/resolve/{rest}")
        return self._of(asked, key) or self._resolve(asked, key, rest)

    def _of(self, asked: Asked, key: str) -> Answer | None:
        """The refusal, if this request may not read the repository."""
        repo, told = self.repos.get(key), "authorization" in asked.fields
        if repo is None or (repo.private and not told):
            return refusal(404 if told else 401, "RepoNotFound", "Repository not found")
        if repo.gated:
            said = "Access to model owner/name is restricted."
            return refusal(403 if told else 401, "GatedRepo", said)
        return None

    def _commit(self, key: str, revision: str) -> str | None:
        repo = self.repos[key]
        name = unquote(revision)
        return name if name in repo.commits else repo.refs.get(name)

    def _resolve(self, asked: Asked, key: str, rest: str) -> Answer:
        revision, _, path = rest.partition("/")
        commit = self._commit(key, revision)
        if commit is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = self.repos[key].commits[commit].get(unquote(path))
        if data is None:
            return refusal(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        if len(data) < self.large:
            place = f"/api/resolve-cache/{key}/{commit}/{quote(unquote(path), safe='')}"
            return reply(
                307, Location=f"{place}?etag={blob(data)}", X_Repo_Commit=commit, Accept_Ranges="bytes"
            )
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return reply(
            302,
            Location=f"{self.storage.url}/xet/{name}?Expires=1&Signature=S1gned{self.signed}S3cret",
            X_Repo_Commit=commit,
            X_Linked_Size=str(len(data)),
            X_Linked_Etag=f'"{name}"',
            ETag=f'"{name}"',
            X_Xet_Hash="f" * 64,
            Link=f'<{self.site.url}/api/{key}/xet-read-token/{commit}>; rel="xet-auth"',
            Accept_Ranges="bytes",
        )

    def _cached(self, asked: Asked, key: str, commit: str, path: str) -> Answer:
        """A small file, which the hub sends itself."""
        if (refused := self._of(asked, key)) is not None:
            return refused
        data = self.repos[key].commits[commit][path]
        return with_fields(ranged(data, asked, f'"{blob(data)}"'), X_Repo_Commit=commit)

    def _tree(self, asked: Asked, key: str, rest: str, query: dict[str, list[str]]) -> Answer:
        revision, _, folder = rest.partition("/")
        commit = self._commit(key, revision)
        if commit is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        begin = f"{unquote(folder)}/" if folder else ""
        files = {
            path: data for path, data in self.repos[key].commits[commit].items() if path.startswith(begin)
        }
        if folder and not files:
            return refusal(404, "EntryNotFound", f"{unquote(folder)} does not exist", X_Repo_Commit=commit)
        found = self._entries(files, begin, query.get("recursive") == ["true"])
        start = int(query.get("cursor", ["0"])[0])
        link = None
        if start + self.page < len(found):
            terms = "&".join(f"{name}={value}" for name, (value,) in query.items() if name != "cursor")
            link = f'<{self.site.url}/api/{key}/tree/{rest}?{terms}&cursor={start + self.page}>; rel="next"'
        body = json.dumps(found[start : start + self.page]).encode()
        return reply(200, body, Content_Type="application/json; charset=utf-8", Link=link)

    def _entries(self, files: Files, begin: str, recursive: bool) -> list[dict[str, Any]]:
        folders = {
            begin + path[len(begin) :].rpartition("/")[0] for path in files if "/" in path[len(begin) :]
        }
        if not recursive:
            folders = {begin + folder[len(begin) :].partition("/")[0] for folder in folders}
            files = {path: data for path, data in files.items() if "/" not in path[len(begin) :]}
        found: list[dict[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders
        ]
        for path, data in files.items():
            entry = {"type": "file", "oid": blob(data), "size": len(data), "path": path}
            if len(data) >= self.large:
                oid = hashlib.sha256(data).hexdigest()
                entry |= {"lfs": {"oid": oid, "size": len(data), "pointerSize": 134}, "xetHash": "f" * 64}
            found.append(entry)
        return sorted(found, key=lambda entry: entry["path"])

    # --- the storage -----------------------------------------------------------------------------------------

    def stored(self, asked: Asked) -> Answer:
        if self.in_storage is not None and (given := self.in_storage(asked)) is not None:
            return given
        path, _, query = asked.target.partition("?")
        if "authorization" in asked.fields:
            return reply(400, b"Only one auth mechanism allowed")
        if asked.method != "GET" or query != f"Expires=1&Signature=S1gned{self.signed}S3cret":
            return reply(403, f"<Error><Code>AccessDenied</Code><Q>{query}</Q></Error>".encode())
        name = path.removeprefix("/xet/")
        etag = f'"{hashlib.sha256((self.storage_etag + name).encode()).hexdigest()}"'
        return with_fields(
            ranged(self.blobs[name], asked, etag), Last_Modified="Mon, 02 Nov 2026 10:00:00 GMT"
        )


def blob(data: bytes) -> str:
    """The name of a file in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def refusal(status: int, code: str, message: str, **fields: str | None) -> Answer:
    """As the hub writes it."""
    body = json.dumps({"error": message}).encode()
    return reply(
        status, body, X_Error_Code=code or None, X_Error_Message=message, X_Request_Id="Root=1-2", **fields
    )


def ranged(data: bytes, asked: Asked, etag: str) -> Answer:
    """What a good server answers, also to a request for the last bytes."""
    last = re.fullmatch(r"bytes=-(\d+)", asked.fields.get("range", ""))
    if last is not None and data:
        span = f"bytes={max(0, len(data) - int(last[1]))}-{len(data) - 1}"
        asked = replace(asked, fields={**asked.fields, "range": span})
    return honest(data, asked, etag)


def without_body(asked: Asked, answer: Answer) -> Answer:
    """The answer, cut after its head for HEAD."""
    return cut(answer, 0, answer.then) if asked.method == "HEAD" and b"\r\n\r\n" in answer.data else answer


def with_fields(answer: Answer, **fields: str) -> Answer:
    """The answer with more fields."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()).encode()
    head, _, body = answer.data.partition(b"\r\n\r\n")
    return Answer(head + b"\r\n" + lines + b"\r\n" + body, answer.then)


@contextmanager
def hub(identity: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """Serve on two free ports of loopback; over TLS with an identity."""
    made: list[Hub] = []

    def of_site(asked: Asked) -> Answer:
        return without_body(asked, made[0].answer(asked))

    def of_storage(asked: Asked) -> Answer:
        return without_body(asked, made[0].stored(asked))

    with scripted(of_site, identity) as site, scripted(of_storage, identity) as storage:
        made.append(Hub(site, storage))
        yield made[0]
