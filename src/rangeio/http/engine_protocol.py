"""What an attempt and its engine say to each other."""

from typing import Any, Protocol

from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.drivers import Driver
from rangeio.http.heads import Head
from rangeio.http.range_read import RangeRead
from rangeio.http.response_parser import Body


class Parked(Exception):
    """The whole object is being downloaded by another attempt; wait for it. Of that one: the server sends ranges after
    all, so that nobody need wait for it.
    """


class Unsolicited(Exception):
    """A response that was sent before the request was: the server closes an idle connection with it."""


class EngineProtocol(Protocol):
    """The engine, as an attempt knows it: who began it, and hears what becomes of it."""

    driver: Driver
    pool: ConnectionPool

    def holds_none(self) -> bool:
        """Whether none of its attempts has a connection."""

    def judge(self, attempt: Any, head: Head) -> Body:
        """What to take of a response. It sets the attempt's `outcome`, or raises Error or Parked."""

    def next_piece(self, attempt: Any) -> "tuple[RangeRead, int, int] | None":
        """What to ask for next over the connection of an attempt whose plain response is complete."""

    def piece_arrived(self, read: RangeRead, nbytes: int) -> None:
        """A piece of a read is in its place, and its attempt goes on with another one."""

    def arrived(self, attempt: Any) -> None:
        """All that an attempt has asked for is there."""

    def won(self, attempt: Any) -> None:
        """It was answered before its rival."""

    def body_over(self, attempt: Any, filled: int) -> None:
        """A body of unknown length, which needs no `outcome`, is over."""

    def left_alone(self, attempt: Any) -> None:
        """It brings all of its read."""

    def parked(self, attempt: Any) -> None:
        """It waits for the download, or is the download and is not needed."""

    def hedge(self, attempt: Any) -> None:
        """It has had no answer for long: make its request once more."""

    def left_to_rival(self, attempt: Any) -> None:
        """It has failed, and its rival goes on."""

    def gave_up(self, attempt: Any, error: Exception) -> None:
        """It has failed for good. error: an Error, or a MemoryError."""

    def pump(self) -> None:
        """Something has ended: begin what waits."""
