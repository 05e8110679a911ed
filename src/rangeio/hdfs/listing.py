"""A walk over directories, page by page, in the order of the paths of the files."""

from collections.abc import Sequence

from rangeio.errors import UnexpectedError
from rangeio.hdfs.name_nodes import joined
from rangeio.hdfs.statuses import FileStatus
from rangeio.http.listing import Page, Progress
from rangeio.service import Stat, rolled_up

# Name nodes refuse longer and deeper paths.
_MOST_OF_A_PATH = 8000


class Walk:
    """Directories to be listed, and the entries found. Lists files below `root` with paths that begin with `prefix`.

    A name node sorts by bytes, and a directory by its name without the slash. So all pages of a directory are read
    before its first entry is yielded: 1,000 entries a page, a million in a directory by default.

    root: an absolute path. delimiter: see `Operator.list`; with "/" no directory below the first is read.
    """

    def __init__(self, root: str, prefix: str, delimiter: str | None) -> None:
        self._below = root.rstrip("/") + "/"
        self._prefix = self._below + prefix.lstrip("/")
        self._delimiter = delimiter
        self._pending: list[tuple[str, FileStatus]] = []  # the next one last
        self._directory: str | None = joined("", self._prefix[: self._prefix.rfind("/") + 1])
        self._found: list[tuple[str, FileStatus]] = []
        self._after, self._progress = "", Progress()
        self._rolled = ""

    def path(self, key: str) -> str:
        """The path below the root."""
        return key.removeprefix(self._below)

    @property
    def next(self) -> tuple[str, str] | None:
        """The directory whose page is wanted next, and the name after which the page begins; None at the end."""
        return None if self._directory is None else (self._directory, self._after)

    def took(self, entries: Sequence[FileStatus], *, more: bool) -> list[Stat]:
        """Add that page. Returns the entries that are next in order, with absolute paths."""
        directory = self._directory
        assert directory is not None
        below = directory.rstrip("/") + "/"
        named = [entry for entry in entries if entry.name]  # a file has itself as its only entry
        paths = [(below + entry.name + "/" * entry.directory, entry) for entry in named]
        self._found += [found for found in paths if self._is_wanted(*found)]
        if more:
            self._go_on(named)
            return []
        self._pending += sorted(self._found, key=lambda found: found[0], reverse=True)
        self._found, self._after, self._progress = [], "", Progress()
        return self._ready()

    def _go_on(self, entries: Sequence[FileStatus]) -> None:
        after = entries[-1].name if entries else ""
        self._progress.step(Page([Stat(entry.name, None) for entry in entries], after))
        self._after = after

    def _is_wanted(self, path: str, entry: FileStatus) -> bool:
        if len(path) > _MOST_OF_A_PATH:
            raise UnexpectedError("the listing is deeper than HDFS can be")
        if entry.directory and entry.is_empty:
            return False
        return path.startswith(self._prefix)

    def _ready(self) -> list[Stat]:
        """The entries up to the next directory to be listed."""
        ready: list[Stat] = []
        self._directory = None
        while self._pending:
            path, entry = self._pending.pop()
            if entry.directory and self._delimiter != "/":
                self._directory = path.rstrip("/")
                break
            ready.append(_stat(path, entry))
        return [stat for stat in rolled_up(ready, self._prefix, self._delimiter) if self._is_new(stat)]

    def _is_new(self, stat: Stat) -> bool:
        """A prefix may go on from directory to directory."""
        if not stat.is_prefix:
            return True
        before, self._rolled = self._rolled, stat.path
        return stat.path != before


def _stat(path: str, entry: FileStatus) -> Stat:
    if entry.directory:
        return Stat(path, None, is_prefix=True)
    return Stat(path, entry.size, pin=entry.pin, mtime_ns=entry.modified_ms * 10**6)
