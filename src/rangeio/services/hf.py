"""The service for hf://: files of repositories of the Hugging Face Hub, read with `rangeio.http`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from _uring import Expected
from rangeio.errors import ConfigInvalidError, Error, ObjectChangedError, UnexpectedError
from rangeio.hf import token
from rangeio.hf.listing import entries, next_query
from rangeio.hf.repository import COMMIT, Repository, split
from rangeio.hf.responses import MISSING, explained, reset_s
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.credentials_call import called
from rangeio.http.fields import checked_fields
from rangeio.http.heads import Head, is_count
from rangeio.http.listing import Page
from rangeio.http.remote_object import Access, Credentials, Fresh, Refusal, RemoteObject
from rangeio.http.tokens import check_private, token_of
from rangeio.http.urls import Address, moved, parse_url
from rangeio.http.validation import Version, content_range
from rangeio.options import Options
from rangeio.ranges import OPEN
from rangeio.service import FileResults, Location, Source, rolled_up
from rangeio.services.hf_snapshot import SnapshotSource, open_snapshot
from rangeio.services.http_options import CONNECTION_OPTIONS, TRAVELS, login_fields, policy_of
from rangeio.services.http_source import HttpSource
from rangeio.services.http_store import HttpStore, StoredSource
from rangeio.services.listing import Pages

if TYPE_CHECKING:
    from _uring import Buffer, Reactor

HUB = "https://huggingface.co"
# Targets of redirects that are remembered with what the hub told of them. Without a pin each request has its own; there
# are at most 256 connections.
_MOST_TOLD = 512
_PINNED = Version(known=True)


@dataclass(slots=True)
class _Told:
    """What the hub tells of a file in a response or redirect. sent: the validators that its address sends."""

    commit: str
    etag: str | None
    size: int | None
    sent: tuple[bytes | None, bytes | None] | None = None


class HfRemoteObject(RemoteObject):
    """One file. The hub redirects its requests to a storage, with a signed URL that expires, and tells the version.

    The first response fixes the commit, which later requests to the hub name. Its ETag is that of the hub, which does
    not depend on where the file is stored; the storage has another one.
    """

    def __init__(
        self, access: Access, hub: Address, repository: Repository, path: str, options: Options
    ) -> None:
        self._hub = hub
        self._repository, self._path = repository, path
        self._told: dict[Address, _Told] = {}
        self._commits: dict[str, str] = {}
        self._sent: tuple[bytes | None, bytes | None] = (None, None)
        self._plain: tuple[object, Expected | None] = (None, None)
        super().__init__(
            access,
            _below(hub, repository.file(path)),
            shown=f"hf://{repository.shown}/{path}",
            **policy_of(options),
        )
        self._branch = self.address
        # Without a pin, each request reads what the revision means by then.
        self.redirects_object = options.pin

    # --- requests ----------------------------------------------------------------------------------------------

    def request(
        self, method: str, at: int, stop: int | None, version: Version, target: Address, absolute: bool
    ) -> bytes:
        """Sends no conditions: they compare with the ETag of the hub, which the storage does not know."""
        return super().request(method, at, stop, _PINNED, target, absolute)

    def suffix_request(self, count: int, version: Version, target: Address, absolute: bool) -> bytes:
        """See `request`."""
        return super().suffix_request(count, _PINNED, target, absolute)

    def pin_fields(self, version: Version) -> Mapping[str, str]:
        """The commit in the URL is the pin."""
        return {}

    @property
    def probe_method(self) -> str:  # type: ignore[override]
        """The URLs of the storage are signed for GET."""
        return "HEAD" if self.target.origin == self._hub.origin else "GET"

    def stamp(self) -> object:
        """See `RemoteObject`. A request for a range is kept with the validators of its response."""
        return super().stamp(), self._sent

    @property
    def expected(self) -> Expected | None:
        """With the validators as the current address sends them."""
        known, sent = super().expected, self._sent
        if known is None:
            return None
        made_for, plain = self._plain
        if plain is None or made_for is not sent:
            plain = Expected(known.size, *sent, known.encoding)
            self._plain = sent, plain
        return plain

    # --- responses ---------------------------------------------------------------------------------------------

    def redirected(self, asked: Address, head: Head) -> Address:
        """Its head has the commit, and the ETag and size of a file that is in a storage."""
        target = moved(asked, head.fields["location"])
        told = self._told_by(head) or self._told.get(asked)
        if told is not None:
            if not self._is_of_pinned(told, asked):
                return self.address  # the branch has moved since the first response: ask for the commit
            self._remember_told(target, told)
        return target

    def told_by_redirect(self, head: Head) -> Head | None:
        """See `RemoteObject`."""
        told = self._told_by(head)
        if told is None or not told.size or told.etag is None or not self._is_of_pinned(told, None):
            return None
        fields = {"etag": told.etag, "x-repo-commit": told.commit, "accept-ranges": "bytes"}
        return Head(200, fields, told.size, False, False)

    def interpret(self, head: Head, target: Address) -> None:
        """Put what the hub told in place of what the storage says."""
        told = self._told_by(head) if target.origin == self._hub.origin else None
        if told is None:
            told = self._told.get(target)
        elif not self._is_of_pinned(told, target):
            raise ObjectChangedError("the branch moved while it was opened; open it again")
        elif target == self._branch and self.pinned:
            self.move(self.address)  # to that of the commit
        if told is None:
            raise UnexpectedError(
                "the server does not say which commit this is (X-Repo-Commit): is it a hub?"
            )
        fields = head.fields
        sent = (_sent(fields.get("etag")), _sent(fields.get("last-modified")))
        if head.status in (200, 206):
            if told.sent is None:
                told.sent = sent
            if sent != told.sent:
                return  # one address, two versions: its own ETag says so
            self._sent = sent if sent != self._sent else self._sent
            total = head.length if head.status == 200 else content_range(head)[2]
            if told.size is not None and total is not None and total != told.size:
                raise UnexpectedError(
                    f"the hub says {told.size} bytes (X-Linked-Size), the storage has {total}"
                )
        etag = told.etag or fields.get("etag")
        fields.pop("last-modified", None)  # of the storage, not of the file
        if etag:
            fields["etag"] = etag
        fields["x-repo-commit"] = told.commit

    def _told_by(self, head: Head) -> _Told | None:
        """What a head of the hub tells; None if it names no commit."""
        commit = head.fields.get("x-repo-commit", "")
        if not COMMIT.fullmatch(commit):
            return None
        size = head.fields.get("x-linked-size", "")
        etag = head.fields.get("x-linked-etag")
        if etag is None and head.status < 300:
            etag = head.fields.get("etag")
        if etag is not None:
            etag = '"' + etag.removeprefix("W/").strip('"') + '"'
        return _Told(commit, etag, int(size) if is_count(size) else None)

    def _is_of_pinned(self, told: _Told, asked: Address | None) -> bool:
        """Whether it is of the commit that the first response fixed. ObjectChangedError if that was `asked` for."""
        if not self.pinned:
            return True
        commit = self._commits.setdefault("first", told.commit)
        self.address = _below(self._hub, self._repository.file(self._path, commit))
        if told.commit != commit and asked == self.address:
            raise ObjectChangedError(f"the hub has commit {told.commit} in place of {commit}; open it again")
        return told.commit == commit

    def _remember_told(self, target: Address, told: _Told) -> None:
        if len(self._told) >= _MOST_TOLD:
            for old in list(self._told)[: _MOST_TOLD // 2]:
                self._told.pop(old, None)
        self._told[target] = told

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """The error for the code of the hub. A refusal of the storage has none."""
        return _refusal(self, head, super().refused(head, body, pinned=pinned).error)


def _refusal(remote: RemoteObject, head: Head, general: Error) -> Refusal:
    fields = head.fields
    if (seconds := reset_s(fields)) is not None:
        fields.setdefault("retry-after", seconds)
    if head.status != 401 and not {"x-error-code", "x-error-message"} & fields.keys():
        return Refusal(general)
    sent = bool(remote.access.credentials.fields)
    error = explained(fields, general, token=sent, secrets=remote.secrets())
    return Refusal(error, renew=sent and head.status == 401 and not fields.get("x-error-code"))


class _Tree(RemoteObject):
    """A page of the listing of a folder. link: the field that says where the next one is."""

    link = ""

    def interpret(self, head: Head, target: Address) -> None:
        """See `RemoteObject`."""
        self.link = head.fields.get("link", "")

    def refused(self, head: Head, body: bytes, *, pinned: bool) -> Refusal:
        """A folder that does not exist has no files."""
        refusal = _refusal(self, head, super().refused(head, body, pinned=pinned).error)
        return replace(refusal, ends=head.fields.get("x-error-code") == MISSING)


class _Folder(Pages):
    """The listing of the files whose path begins with a prefix: of the folder that contains them."""

    def __init__(
        self,
        reactor: "Reactor",
        service: "HfService",
        prefix: str,
        delimiter: str | None,
        options: Options,
    ) -> None:
        super().__init__(reactor, options)
        self._service = service
        self._before, repository, self._begin = service.place(prefix)
        self._repository = repository.at(options.version)
        self._delimiter = delimiter
        self._prefixes: set[str] = set()

    def request(self, after: Any) -> RemoteObject:
        query = after or f"recursive={'false' if self._delimiter == '/' else 'true'}&expand=false"
        folder = self._begin.rpartition("/")[0]
        address = self._service.below(self._repository.tree(folder))
        shown = f"hf://{self._repository.shown}/{self._begin}"
        page = replace(moved(address, f"?{query}"), login=address.login)
        return _Tree(self._service.access, page, shown=shown, **policy_of(self.options))

    def parse(self, body: memoryview, remote: RemoteObject) -> Page:
        assert isinstance(remote, _Tree)
        if not body:
            return Page([], None)
        found = [stat for stat in entries(body) if stat.path.startswith(self._begin)]
        if self._delimiter != "/":
            files = [stat for stat in found if not stat.is_prefix]
            found = [*rolled_up(files, self._begin, self._delimiter)]
        found = [stat for stat in found if not stat.is_prefix or stat.path not in self._prefixes]
        self._prefixes.update(stat.path for stat in found if stat.is_prefix)
        return Page(found, next_query(remote.link))

    def path(self, key: str) -> str:
        path = key[len(self._service.root) :]
        return self._before + path if path else ""


class HfService(HttpStore):
    """The files of one repository, by path: `repo` is ``[datasets/|spaces/]owner/name[@revision]``; with `root`, only
    those below this folder. Without a repository: those of all, as ``owner/name/path``. Paths are used as they are:
    "%20" is three characters.

    version= is a branch, tag or commit; it may instead follow the name of the repository. The first response fixes the
    commit, also for a branch that moves.

    bearer_token: the token. credentials: a callable that returns a mapping with bearer_token, and expires_at if it
    expires, in seconds since 1970. anonymous=True: send none. Otherwise that of the machine: HF_TOKEN,
    HUGGING_FACE_HUB_TOKEN, or the file that `hf auth login` writes (HF_TOKEN_PATH, HF_HOME), unless
    HF_HUB_DISABLE_IMPLICIT_TOKEN is set. It is sent to the hub only, and over plain HTTP only within the machine.

    endpoint_url: else HF_ENDPOINT, else https://huggingface.co. The other options are those of `HttpService`.
    """

    scheme = "hf"
    versions = True
    option_names = (
        "repo",
        "root",
        "endpoint_url",
        "bearer_token",
        "credentials",
        "anonymous",
        *CONNECTION_OPTIONS,
    )
    secret_options = ("bearer_token",)
    travels = f"{TRAVELS}, or set HF_TOKEN there"

    def __init__(
        self,
        reactor: "Reactor",
        repo: str | None = None,
        root: str = "",
        *,
        endpoint_url: str | None = None,
        bearer_token: str | None = None,
        credentials: Callable[[], Mapping[str, Any]] | None = None,
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        self._repository = None if repo is None else _repository(repo)
        self.root = f"{root.strip('/')}/" if root.strip("/") else ""
        self._hub = parse_url(endpoint_url or os.environ.get("HF_ENDPOINT") or HUB)
        if "?" in self._hub.target:
            raise ConfigInvalidError("endpoint_url must be a URL without a query")
        self._proxy = proxy
        fields = checked_fields(headers or {})
        given = self._credentials(fields, bearer_token, credentials, bool(anonymous))
        pool = ConnectionPool(Security(ca_file, client_cert, bool(verify)), proxy)
        super().__init__(reactor, Access(pool, fields, given))

    def _credentials(
        self,
        fields: Mapping[str, str],
        bearer_token: str | None,
        credentials: Callable[[], Mapping[str, Any]] | None,
        anonymous: bool,
    ) -> Credentials:
        """The one given kind of credentials, else the token of the machine."""
        login = login_fields(fields, None, bearer_token, None)
        ways = {
            "bearer_token=": bool(login),
            "credentials=": credentials is not None,
            "anonymous=True": anonymous,
            "the login in endpoint_url=": self._hub.login is not None,
            "Authorization in headers=": not anonymous and "authorization" in map(str.lower, fields),
        }
        given = [way for way, is_given in ways.items() if is_given]
        if len(given) > 1:
            raise ConfigInvalidError(f"two kinds of credentials are given: {given[0]} and {given[1]}")
        self._given = given[0] if given else ""
        if credentials is not None:
            if not callable(credentials):
                raise ConfigInvalidError("credentials must be a callable that returns a mapping")
            return Credentials({}, lambda: self._fresh(token_of(called(credentials))))
        if given and not anonymous:
            self._check_private()
        if given:
            return Credentials(login, None)
        return Credentials({}, lambda: self._fresh(((token.found() or ("",))[0], float("inf"))))

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """See `Service`."""
        yield "endpoint", self._hub.shown
        found = None if self._given else token.found()
        if found is not None:
            self._check_private()
            yield "credentials", f"a token from {found[1]}"
        elif self._given or not token.is_disabled():
            yield "credentials", self._given or f"no token in HF_TOKEN or {token.token_path()}"
        else:
            yield "credentials", "none: HF_HUB_DISABLE_IMPLICIT_TOKEN is set"

    def _check_private(self) -> None:
        check_private(self._hub.origin, self._proxy, "use an https endpoint, or anonymous=True")

    def _fresh(self, given: tuple[str, float]) -> Fresh:
        """The header field with a token, which may be empty, and its expiry."""
        value, expiry = given
        if not value:
            return {}
        self._check_private()
        fields = {"Authorization": f"Bearer {value}"}
        return fields, expiry

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        repository, path = split(rest)
        return Location({"repo": repository.shown}, path)

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        kept = super().without_secrets(options)
        if kept.get("endpoint_url"):
            kept["endpoint_url"] = parse_url(kept["endpoint_url"]).url
        return kept

    def shown(self, path: str) -> str:
        _, repository, inner = self.place(path)
        return f"hf://{repository.shown}/{inner}"

    def place(self, path: str) -> tuple[str, Repository, str]:
        """What is before the path of a file, its repository, and its path or prefix in there."""
        if self._repository is not None:
            return "", self._repository, self.root + path
        repository, inner = split(path)
        return f"{repository.shown}/", repository, self.root + inner

    def below(self, path: str) -> Address:
        """The address of a path of the hub."""
        return _below(self._hub, path)

    def open(self, path: str, options: Options) -> Source:
        """A file of a commit that is in the cache of huggingface_hub is read there, without a request."""
        return self._from_cache(path, options) or self.opening(options)(path)

    def opening(self, options: Options) -> Callable[[str], HttpSource]:
        """See `ManyInto`. Those of the hub, also where the cache has them."""
        return lambda path: StoredSource(self._reactor, self._remote(path, options), options)

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        here = {index: self._read_snapshot(job, options) for index, job in enumerate(jobs)}
        asked = [job for index, job in enumerate(jobs) if here[index] is None]
        found = iter(super().read_files(asked, options))
        return [next(found) if result is None else result for result in here.values()]

    def _read_snapshot(self, job: tuple[str, int, int | None], options: Options) -> "Buffer | Error | None":
        path, start, stop = job
        try:
            source = self._from_cache(path, options)
            if source is None:
                return None
            with closing(source):
                return source.read_at(start, (OPEN if stop is None else stop) - start)
        except Error as error:
            return error

    def _from_cache(self, path: str, options: Options) -> SnapshotSource | None:
        _, repository, file = self.place(path)
        return open_snapshot(self._reactor, repository.at(options.version), file, options)

    def _remote(self, path: str, options: Options) -> HfRemoteObject:
        _, repository, file = self.place(path)
        if file == self.root:
            raise ConfigInvalidError("the path names a repository, not a file in it", path=path)
        return HfRemoteObject(self.access, self._hub, repository.at(options.version), file, options)

    def _pages(self, prefix: str, delimiter: str | None, options: Options) -> Pages:
        return _Folder(self._reactor, self, prefix, delimiter, options)


def _repository(text: str) -> Repository:
    repository, path = split(text)
    if path:
        raise ConfigInvalidError(f"repo={text!r} has a path; pass it to open(), or as root=")
    return repository


def _below(hub: Address, path: str) -> Address:
    """The address of a path of the hub, which may itself have a path, behind a proxy."""
    return replace(hub, target=hub.target.rstrip("/") + path)


def _sent(value: str | None) -> bytes | None:
    """A field as it is sent."""
    return value.encode("latin-1") if value else None
