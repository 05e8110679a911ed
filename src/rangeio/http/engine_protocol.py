"""The interface between an attempt and its engine."""

from typing import Any, Protocol

from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.drivers import Driver
from rangeio.http.heads import Head
from rangeio.http.range_read import RangeRead
from rangeio.http.response_parser import Body


class Parked(Exception):
    """Raised for an attempt while another one downloads the whole object: it waits for the download. Raised for the
    download itself if the server sends ranges after all: nothing waits for it any more.
    """


class Unsolicited(Exception):
    """A response that was sent before the request: the server closed an idle connection with it."""


class EngineProtocol(Protocol):
    """The methods of the engine that an attempt calls."""

    driver: Driver
    pool: ConnectionPool

    def holds_none(self) -> bool:
        """Whether none of its attempts has a connection."""

    def judge(self, attempt: Any, head: Head) -> Body:
        """Decide what to use of a response. Sets the attempt's `outcome`, or raises Error or Parked."""

    def next_piece(self, attempt: Any) -> "tuple[RangeRead, int, int] | None":
        """The next piece to request over the connection of an attempt whose plain response is complete."""

    def piece_arrived(self, read: RangeRead, nbytes: int) -> None:
        """A piece of a read is complete, and its attempt continues with another one."""

    def arrived(self, attempt: Any) -> None:
        """All bytes that an attempt requested have arrived."""

    def won(self, attempt: Any) -> None:
        """It got its response before its rival."""

    def body_over(self, attempt: Any, filled: int) -> None:
        """A body of unknown length, which has no `outcome`, has ended."""

    def left_alone(self, attempt: Any) -> None:
        """Its response serves its whole read: end the other attempts of the read."""

    def parked(self, attempt: Any) -> None:
        """It waits for the download, or is the download and is no longer needed."""

    def hedge(self, attempt: Any) -> None:
        """It has had no response for long: send its request again over another connection."""

    def left_to_rival(self, attempt: Any) -> None:
        """It has failed, and its rival continues."""

    def gave_up(self, attempt: Any, error: Exception) -> None:
        """It has failed permanently. error: an Error, or a MemoryError."""

    def pump(self) -> None:
        """Begin queued pieces, after something has ended."""
