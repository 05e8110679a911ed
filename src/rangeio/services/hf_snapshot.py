"""A file of the Hugging Face Hub that was downloaded to this machine before."""

from dataclasses import replace
from typing import TYPE_CHECKING

from rangeio.errors import Error
from rangeio.hf.cache import etag, snapshot
from rangeio.hf.repository import Repository
from rangeio.options import Options
from rangeio.service import Stat
from rangeio.services.local import LocalSource

if TYPE_CHECKING:
    from _uring import File, Reactor


class SnapshotSource(LocalSource):
    """A file of one commit, read from the cache of huggingface_hub. It tells of itself what the hub would tell."""

    __slots__ = ("_commit", "_etag", "_shown")

    def __init__(
        self, reactor: "Reactor", file: "File", *, pin: bool, shown: str, commit: str, etag: str | None
    ) -> None:
        super().__init__(reactor, file, pin=pin)
        self._shown, self._commit, self._etag = shown, commit, etag

    @property
    def path(self) -> str:
        return self._shown

    def stat(self) -> Stat:
        stat = super().stat()
        pin = f"{self._etag or self._commit}:{stat.size}"
        return replace(stat, pin=pin, mtime_ns=None, etag=self._etag, version=self._commit)


def open_snapshot(
    reactor: "Reactor", repository: Repository, path: str, options: Options
) -> SnapshotSource | None:
    """The file, if the revision is a commit and its file is in the cache. None where only the hub can answer: for a
    branch or tag, conditions, and another size than the one that is there.
    """
    conditions = (
        options.if_match,
        options.if_none_match,
        options.if_modified_since,
        options.if_unmodified_since,
    )
    try:
        place = snapshot(repository, path)
        if place is None or any(conditions):
            return None
        file = reactor.open(place, direct=options.direct, pin=options.pin, mapped=options.mapped)
    except Error:
        return None  # not there, not for us, or no path: the hub's error tells more
    if options.size not in (None, file.size):
        file.close()
        return None
    shown = f"hf://{repository.shown}/{path}"
    commit = repository.revision or ""
    return SnapshotSource(reactor, file, pin=options.pin, shown=shown, commit=commit, etag=etag(place))
