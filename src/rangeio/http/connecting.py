"""How an attempt gets a connection: an idle one, a new one, or the next one that another attempt returns."""

import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from rangeio.errors import Error
from rangeio.http.connection import Connection
from rangeio.http.engine_protocol import EngineProtocol
from rangeio.http.error_mapping import connecting_failed, credentials_failed
from rangeio.http.range_read import RangeRead
from rangeio.http.urls import Address, Origin


class Connecting:
    """The part of an attempt that gets a connection.

    live: it is active; once it is False nothing more is done for it. since: when bytes last arrived or a step began.
    resume: the previous connection was closed while idle, so that a new one is needed. queued: it waits in the queue
    for a connection. on_free, resting: see `rest`. dialing: identifies the connection that is being opened for it.
    aside: where a redirect sent this request only; None: to the address of the object.
    """

    __slots__ = (
        "aside",
        "connection",
        "dialing",
        "engine",
        "live",
        "on_free",
        "queued",
        "read",
        "resting",
        "resume",
        "since",
        "target",
    )

    def __init__(self, engine: EngineProtocol, read: RangeRead) -> None:
        self.engine = engine
        self.read = read
        self.live = self.resume = self.queued = self.resting = False
        self.on_free: Callable[[Connection | None], None] | None = None
        self.since = 0.0
        self.connection: Connection | None = None
        self.dialing: object = None
        self.aside: Address | None = None
        self.target: Address = read.remote.target

    @abstractmethod
    def _send(self, connection: Connection) -> None:
        """Send the request over a connection that now belongs to this attempt."""

    @abstractmethod
    def fail(self, error: Error) -> None:
        """Retry if that may help, otherwise give up."""

    @abstractmethod
    def as_error(self, error: Error) -> Error:
        """The error as the caller of the read sees it."""

    @property
    def wanted(self) -> bool:
        """Whether its result is still needed."""
        return self.live and not self.read.done

    @property
    def destination(self) -> Address:
        """The address of its next request."""
        return self.aside or self.read.remote.target

    def connect(self, *, waited: bool = False) -> None:
        """Get a connection and send the request. waited: it was first in the queue."""
        if not self.wanted:
            return
        self.since = time.monotonic()
        remote, pool = self.read.remote, self.engine.pool
        if remote.access.credentials.stale:
            self.renew(None)
            return
        self.target = self.destination
        origin = self.target.origin
        connection = None if self.resume else pool.take(origin)
        if connection is not None:
            self._send(connection)
        elif pool.reserve(origin, waited=waited, first=self.engine.holds_none()):
            self.dial(origin)
        else:
            try:
                self.engine.driver.listen()
            except Error as error:  # no descriptor is left
                self.fail(error)
                return
            self.queued = True
            self.on_free = partial(self._notified, origin)
            pool.when_free(origin, self.on_free, waited=waited)

    def rest(self) -> None:
        """Leave the queue for a connection until `go_on`, because nothing drives the read for now."""
        if (
            self.queued
            and self.on_free is not None
            and self.engine.pool.leave(self.target.origin, self.on_free)
        ):
            self.queued = False
            self.on_free = None
            self.resting = True

    def go_on(self) -> None:
        """Continue after `rest`."""
        if self.resting:
            self.resting = False
            self.connect()

    def dial(self, origin: Origin) -> None:
        """Open a connection, whose slot is reserved."""
        self.dialing = dialing = object()
        timeout_s = self.read.timeout.connect_s
        pool = self.engine.pool
        try:
            self.engine.driver.offload(
                partial(pool.dial, origin, timeout_s),
                partial(self._opened, origin, dialing),
                partial(pool.unwanted, origin),
                alone=False,  # a name lookup, or a very slow proxy, may not end within connect_s
            )
        except Error as error:  # no descriptor is left
            self._opened(origin, dialing, error)

    def _notified(self, origin: Origin, connection: Connection | None) -> None:
        """A connection is available, or may be. From any thread."""
        try:
            self.engine.driver.post(partial(self._inherit, origin, connection))
        except RuntimeError:
            self._pass_on(origin, connection)

    def _inherit(self, origin: Origin, connection: Connection | None) -> None:
        wanted, remote = self.wanted and self.queued, self.read.remote
        same = self.destination.origin == origin and not remote.access.credentials.stale
        if wanted and same and connection is not None:
            self.queued = False
            self.target = self.destination
            if connection.is_quiet():
                self._send(connection)
            else:
                self.engine.pool.drop(connection)
                self.connect(waited=True)
            return
        if not wanted or connection is not None:
            self._pass_on(origin, connection)
        if wanted:
            self.queued = False
            self.connect(waited=True)

    def _pass_on(self, origin: Origin, connection: Connection | None) -> None:
        """Pass a connection, or the notification, to the next in the queue."""
        if connection is not None:
            self.engine.pool.give_back(connection)
        else:
            self.engine.pool.wake(origin)

    def _opened(self, origin: Origin, dialing: object, outcome: Any) -> None:
        pool = self.engine.pool
        if not self.wanted or self.dialing is not dialing:
            pool.unwanted(origin, outcome)
            return
        self.dialing = None
        if isinstance(outcome, Connection):
            self._send(outcome)
        else:
            pool.free(origin)
            self.fail(connecting_failed(outcome, self.read.remote.timeout.connect_s))

    def renew(self, refused: int | None) -> None:
        """Get new credentials, then connect. refused: the version of the rejected credentials."""
        credentials = self.read.remote.access.credentials

        def renewed(outcome: Any) -> None:
            if not self.live:
                return  # it has timed out meanwhile
            if isinstance(outcome, BaseException):
                self.engine.gave_up(self, self.as_error(credentials_failed(outcome)))
                self.engine.pump()
            else:
                self.connect()

        self.engine.driver.offload(lambda: credentials.renew(refused), renewed, lambda _: None, alone=True)
