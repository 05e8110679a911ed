"""What a part, as of `parts`, and its home, the engine, say to each other."""

from typing import Any, Protocol

from rangeio.http.drivers import Driver
from rangeio.http.exchange import Body
from rangeio.http.heads import Head
from rangeio.http.pool import Pool


class Parked(Exception):
    """The whole object is being downloaded by another part; wait for it. Of that part: the server sends ranges after
    all, so that nobody need wait for it.
    """


class Unsolicited(Exception):
    """A response that was sent before the request was: the server closes an idle connection with it."""


class Home(Protocol):
    """Who has sent a part, and hears what becomes of it."""

    driver: Driver
    pool: Pool

    def holds_none(self) -> bool:
        """Whether none of its parts has a connection."""

    def judge(self, part: Any, head: Head) -> Body:
        """What to take of a reply. It sets the part's `outcome`, or raises Error or Parked."""

    def body_over(self, part: Any, filled: int) -> None:
        """A body of unknown length, which needs no `outcome`, is over."""

    def left_alone(self, part: Any) -> None:
        """It brings all of its read."""

    def parked(self, part: Any) -> None:
        """It waits for the download, or is the download and is not needed."""

    def hedge(self, part: Any) -> None:
        """It has had no answer for long: make its request once more."""

    def left_to_rival(self, part: Any) -> None:
        """It has failed, and its rival goes on."""

    def gave_up(self, part: Any, error: Exception) -> None:
        """It has failed for good. error: an Error, or a MemoryError."""

    def pump(self) -> None:
        """Something has ended: begin what waits."""
