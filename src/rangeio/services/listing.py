"""Listings over HTTP, page by page, sync and async."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from _uring import yield_if_due
from rangeio.errors import Error, NotFoundError, asked
from rangeio.http.listing import MOST_EMPTY, MOST_OF_A_PAGE, Page, Progress
from rangeio.http.remote_object import RemoteObject
from rangeio.options import Options
from rangeio.service import Stat
from rangeio.services.http_source import HttpSource

if TYPE_CHECKING:
    from _uring import Buffer, Reactor

FIRST = ""
"""What `Pages.request` gets for the first page."""


class Pages(ABC):
    """The pages of a listing: the next request, and the entries of a response. Services write `request` and `parse`."""

    most_empty = MOST_EMPTY
    """The number of consecutive pages without an entry that are accepted."""
    absent_is_empty = False
    """Whether a page that does not exist (404) is passed to `parse` as no bytes: a directory that is not there."""

    def __init__(self, reactor: "Reactor", options: Options) -> None:
        self._reactor = reactor
        # A page that is too large is read only as far as needed to detect this.
        self.options = replace(options, pin=False, chunk=None, on_no_range="slice")
        self._progress = Progress(self.most_empty)
        self._after: Any | None = FIRST
        self._current: RemoteObject

    @abstractmethod
    def request(self, after: Any) -> RemoteObject:
        """The request for a page. after: that of the page before (`Page.after`), or FIRST."""

    @abstractmethod
    def parse(self, body: memoryview, remote: RemoteObject) -> Page:
        """The page in a response. UnexpectedError if it is not one."""

    def path(self, key: str) -> str:
        """The path that `open` accepts for a key in a page; empty if it is not to be listed."""
        return key

    def next(self) -> HttpSource | None:
        """The Source of the next page; None after the last."""
        if self._after is None:
            return None
        self._current = self.request(self._after)
        self._current.by_bytes = False
        return HttpSource(self._reactor, self._current, self.options)

    def absent(self, source: HttpSource, error: NotFoundError) -> Sequence[Stat]:
        """The entries in place of a page that does not exist."""
        if not self.absent_is_empty:
            raise error
        return self.entries(source, b"")

    def entries(self, source: HttpSource, body: "Buffer | bytes") -> Sequence[Stat]:
        """The entries of a page, with paths as `open` accepts them."""
        try:
            page = self.parse(memoryview(body), self._current)
            self._progress.step(page)
            named = [(stat, self.path(stat.path)) for stat in page.entries]
        except Error as error:
            raise type(error)(
                f"{asked(source.path, None, None)}: {error}",
                path=source.path,
                http_status=error.http_status,
                request_id=error.request_id,
                context=error.context,
            ) from None
        self._after = page.after
        return [replace(stat, path=path) for stat, path in named if path]


def listed(pages: Pages) -> Iterator[Stat]:
    """All entries; a page is requested when the iteration reaches it."""
    while (source := pages.next()) is not None:
        try:
            found = pages.entries(source, source.read_at(0, MOST_OF_A_PAGE))
        except NotFoundError as error:
            found = pages.absent(source, error)
        finally:
            source.close()
        yield from found


class AsyncListing(AsyncIterator[Stat]):
    """A listing, one page at a time; yields to other tasks of the loop between entries. The iteration may stop at any
    point and leaves nothing open.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._ready: deque[Stat] = deque()

    async def __anext__(self) -> Stat:
        await yield_if_due()
        while not self._ready:
            source = self._pages.next()
            if source is None:
                raise StopAsyncIteration
            try:
                body = await source.read_at_async(0, MOST_OF_A_PAGE)
                self._ready.extend(self._pages.entries(source, body))
            except NotFoundError as error:
                self._ready.extend(self._pages.absent(source, error))
            finally:
                source.close()
        return self._ready.popleft()
