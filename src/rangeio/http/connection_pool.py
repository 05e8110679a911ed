"""Connections: opened by urllib3, kept alive, given to one read at a time, and bounded per server and in all.

urllib3 is here for what a connection needs before the first byte: TLS and its certificates, proxies, SNI, name lookup.
Requests and responses are not its business.
"""

import errno
import inspect
import os
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from _uring import IdleConnections
from _uring.records import MOST_IDLE_S
from rangeio.counters import CONNECTIONS
from rangeio.errors import ConfigInvalidError, Error
from rangeio.http.connection import Connection
from rangeio.http.latency import Latency
from rangeio.http.proxies import connection, parse_proxy, proxy_for
from rangeio.http.redaction import secrets_of_fields
from rangeio.http.urls import Origin

PER_HOST = 64
IN_ALL = 256
# A new connection that had no answer for so long may wait for an idle one: see _Serial. Such a server is one that has
# answered so often, one time after the other, so soon after idle connections were closed.
_SERIAL_S = 1.0
_PROMPT_S = 0.1
_PROOFS = 3
_SERIAL_FOR_S = 300.0
# A queue that has not moved for so long may wait for itself: the connections may be held by an iteration that nobody
# goes on with, or by a loop whose thread waits in the queue. Its first one gets a connection beyond the bounds.
_STUCK_S = 1.0


class _TlsSocket(ssl.SSLSocket):
    """Closed when it is let go of: ssl itself forgets that if a reset comes before the handshake (CPython 3.11)."""

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Security:
    """How servers are checked, and how we are known to them by TLS. Files are read when the first connection is opened.

    ca_file: certificates trusted instead of the system's. client_cert: a file with certificate and key, or the two, or
    those and the key's password. verify: False trusts everybody.
    """

    ca_file: str | None = None
    client_cert: str | tuple[str, ...] | None = field(default=None, repr=False)
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """ConfigInvalidError if a file cannot be read."""
        try:
            made = ssl.create_default_context(cafile=self.ca_file)
            made.sslsocket_class = _TlsSocket
            if self.client_cert is not None:
                given = (self.client_cert,) if isinstance(self.client_cert, str) else self.client_cert
                certificate, key, password, *_ = *given, None, None
                # OpenSSL asks the terminal for a password that it is not given, and waits.
                made.load_cert_chain(certificate or "", key, password or "")
            # Short of descriptors OpenSSL does without the system's certificates, and does not say so.
            socket.socket().close()
        except (OSError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise ConfigInvalidError(f"ca_file or client_cert cannot be used: {error}") from error
        if not self.verify:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        made.set_alpn_protocols(["http/1.1"])
        return made


OnFree: TypeAlias = Callable[[Connection | None], None]
"""Called once, from any thread, with a connection that is its own now; with None when it may look for one again."""


class HeldConnections:
    """How many connections an iteration holds. count: set by who runs it."""

    __slots__ = ("__weakref__", "count")

    def __init__(self) -> None:
        self.count: Callable[[], int] = lambda: 0


class ConnectionPool:
    """Idle connections by origin, and the count of all. Any thread; a forked child starts with none.

    proxy: URL of one for everything, "" for none, None for what the environment says (HTTP_PROXY, HTTPS_PROXY,
    ALL_PROXY, NO_PROXY, in small letters too). An https:// proxy serves http:// URLs only.
    """

    def __init__(
        self, security: Security, proxy: str | None, *, per_host: int = PER_HOST, in_all: int = IN_ALL
    ) -> None:
        self._security = security
        self._proxy = proxy
        if proxy:
            parse_proxy(proxy)  # so that a wrong one is an error of the options
        # A client certificate is for servers; what speaks for a proxy is in its URL.
        self._proxy_security = replace(security, client_cert=None)
        self._per_host, self._in_all = per_host, in_all
        self._context: ssl.SSLContext | None = None
        self.opened = 0
        self.users = 0
        # Iterations, and what they hold. One that is suspended is gone on with when its consumer likes.
        self._iterations: weakref.WeakKeyDictionary[Generator[Any, None, None], HeldConnections] = (
            weakref.WeakKeyDictionary()
        )
        self._begin()
        with _POOLS_LOCK:
            _POOLS.add(self)

    def _begin(self) -> None:
        self.lock = threading.RLock()
        self._idle: dict[Origin, IdleConnections] = {}
        self._open: dict[Origin, int] = {}
        self._waiting: dict[Origin, deque[OnFree]] = {}
        self._moved = 0.0  # when somebody left a queue last, or began one
        self._latencies: dict[Origin, Latency] = {}

    def forget(self) -> None:
        """In a forked child: the connections are the parent's. Closing them here does not end them there."""
        inherited = [one for idle in self._idle.values() for one in idle.clear()]
        self._begin()
        for one in inherited:
            one.close()

    def idle(self, origin: Origin) -> IdleConnections:
        """Those that are idle; always the same object."""
        found = self._idle.get(origin)
        if found is None:
            with self.lock:
                found = self._idle.setdefault(origin, IdleConnections())
                self._mark_wanted()
        return found

    def peek(self, origin: Origin) -> Connection | None:
        """The one that `take` would look at first."""
        found: Connection | None = self.idle(origin).peek()
        return found

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection, the one used last, that is alive and has brought nothing."""
        idle = self.idle(origin)
        while True:
            connection: Connection | None = idle.take()
            if connection is None:
                return None
            if connection.idle_s < MOST_IDLE_S and connection.is_quiet():
                return connection
            self.drop(connection)

    def _mark_wanted(self) -> None:
        """Have connections that are not to be kept come to `give_back`. For a caller that has the lock."""
        for origin, idle in list(self._idle.items()):
            idle.wanted = bool(self._waiting) or self.users <= 0 or SERIAL.keeps_waiting(origin)

    def reserve(
        self, origin: Origin, *, waited: bool = False, force: bool = False, first: bool = False
    ) -> bool:
        """Whether one more may be opened; if so its place is taken.

        waited: it is its turn, others wait in the queue. force: whatever the bounds say, where the queue is stuck.
        first: of a call that has no other one; it does not wait for iterations that rest.
        """
        with self.lock:
            force = force or (first and self._rest_holds_all(origin))
            if not (force or waited) and self._waiting.get(origin):
                return False
            # Whoever asks for a place has looked for an idle connection, or does not trust one.
            if not force and self._open.get(origin, 0) >= self._per_host and not self._evict([origin]):
                return False
            if not force and sum(self._open.values()) >= self._in_all and not self._evict(self._idle):
                return False
            self._open[origin] = self._open.get(origin, 0) + 1
            return True

    def iterates(self, iteration: "Generator[Any, None, None]", held: HeldConnections) -> None:
        """Connections may be held between two results of `iteration`."""
        with self.lock:
            self._iterations[iteration] = held

    def _rest_holds_all(self, origin: Origin) -> bool:
        """Whether there would be room but for the connections of iterations that are suspended."""
        of_origin, of_all = self._open.get(origin, 0), sum(self._open.values())
        if of_origin < self._per_host and of_all < self._in_all:
            return False
        resting = sum(
            held.count()
            for iteration, held in self._iterations.items()
            if inspect.getgeneratorstate(iteration) == inspect.GEN_SUSPENDED
        )
        return of_origin - resting < self._per_host and of_all - resting < self._in_all

    def _evict(self, origins: Iterable[Origin]) -> bool:
        """Close the connection to one of these that has been idle for longest; whether there was one."""
        idle = [found for origin in origins if (found := self._idle.get(origin))]
        oldest = max(idle, key=IdleConnections.longest_s, default=None)
        connection = None if oldest is None else oldest.take_oldest()
        if connection is None:
            return False
        self.drop(connection)
        return True

    def free(self, origin: Origin) -> None:
        """Give a reserved place back."""
        with self.lock:
            self._open[origin] = max(0, self._open.get(origin, 0) - 1)
        self.wake(origin)

    def unwanted(self, origin: Origin, outcome: Any) -> None:
        """A connection was opened, or not, when nobody waited for it any more. From any thread."""
        if isinstance(outcome, Connection):
            self.give_back(outcome)
        else:
            self.free(origin)

    def wake(self, origin: Origin) -> None:
        """Tell one of those who wait to look again: one for this origin, else for any."""
        if not self._waiting:
            return
        with self.lock:
            queues = [origin, *self._waiting]
            on_free = next((self._first(queue) for queue in queues if queue in self._waiting), None)
        if on_free is not None:
            on_free(None)

    def _first(self, origin: Origin) -> "OnFree | None":
        """Take the first of a queue; for a caller that has the lock."""
        queue = self._waiting.get(origin)
        if queue is None:
            return None
        self._moved = time.monotonic()
        on_free = queue.popleft()
        if not queue:
            del self._waiting[origin]
            self._mark_wanted()
        return on_free

    def leave(self, origin: Origin, on_free: "OnFree") -> bool:
        """Wait in the queue no longer; whether it was in it still. Else it is called, or was."""
        with self.lock:
            queue = self._waiting.get(origin, ())
            found = on_free in queue
            if found:
                queue.remove(on_free)  # type: ignore[union-attr]
                if not queue:
                    del self._waiting[origin]
                    self._mark_wanted()
        return found

    def is_stuck(self) -> bool:
        """Whether nobody has left a queue for long. The caller that is told so takes a place by force."""
        with self.lock:
            now = time.monotonic()
            stuck = now - self._moved > _STUCK_S
            if stuck:
                self._moved = now
        return stuck

    def drop(self, connection: Connection) -> None:
        """Close a connection that was taken. That frees its place."""
        connection.close()

    def give_back(self, connection: Connection) -> None:
        """The connection is idle now, or another one's who waits for it: were it to lie here in between, whoever reads
        all the time would have it again. It is closed if nobody reads any more, or others wait for its place.
        """
        origin = connection.origin
        with self.lock:
            on_free = self._first(origin) if self._waiting else None
            crowded = bool(self._waiting) and sum(self._open.values()) >= self._in_all
            kept = self.users > 0 and not crowded and connection.is_open and not SERIAL.keeps_waiting(origin)
            if kept and on_free is None:
                self.idle(origin).keep(connection)
            self._mark_wanted()
        if on_free is not None:
            on_free(connection)
        elif not kept:
            self.drop(connection)

    def when_free(self, origin: Origin, on_free: "OnFree", *, waited: bool = False) -> None:
        """Wait in the queue for a connection, or a place. waited: it has, and goes to where it was."""
        with self.lock:
            room = self._open.get(origin, 0) < self._per_host and sum(self._open.values()) < self._in_all
            queue = self._waiting.get(origin)
            if not self._waiting:
                self._moved = time.monotonic()
            # First, so that who gives a connection back from now on looks here; what was given back before is seen.
            queue = self._waiting.setdefault(origin, deque())
            self._mark_wanted()
            ready = bool(self.idle(origin)) or (room and (waited or not queue))
            if not ready:
                queue.appendleft(on_free) if waited else queue.append(on_free)
            elif not queue:
                del self._waiting[origin]
                self._mark_wanted()
        if ready:  # it became so since the caller looked
            on_free(None)

    def close_idle(self, origin: Origin) -> int:
        """Close those that are idle; how many there were."""
        self.look_again()
        connections = self.idle(origin).clear()
        for one in connections:
            self.drop(one)
        return len(connections)

    def look_again(self) -> None:
        """Whether idle connections may be kept has changed."""
        with self.lock:
            self._mark_wanted()

    def use(self) -> None:
        """One more that reads."""
        with self.lock:
            self.users += 1
            self._mark_wanted()

    def unuse(self) -> None:
        """One less; with the last one, idle connections are closed."""
        with self.lock:
            self.users -= 1
            self._mark_wanted()
            idle = list(self._idle.values()) if self.users <= 0 else []
        for one in [one for of_origin in idle for one in of_origin.clear()]:
            self.drop(one)

    def dial(self, origin: Origin, timeout_s: float | None) -> Connection:
        """Open a connection; blocks for name lookup, TCP, proxy and TLS. A place must have been reserved.

        Raises what urllib3, ssl and socket raise.
        """
        # Where no descriptor is to be had, names are not found and modules not imported, for other reasons as it seems.
        socket.socket().close()
        proxy = proxy_for(origin, self._proxy)
        made = connection(origin, proxy, timeout_s, self._tls, self._proxy_security.context)
        try:
            made.connect()
            sock: socket.socket = made.sock
            made.sock = None  # it is ours now
        finally:
            made.close()
        return self._opened(sock, origin, absolute=proxy is not None and origin.scheme == "http")

    def _opened(self, sock: socket.socket, origin: Origin, *, absolute: bool = False) -> Connection:
        self.opened += 1
        CONNECTIONS.add()
        freed = partial(_free, weakref.ref(self), self._open, origin)
        return Connection(sock, origin, absolute, self.latency(origin), freed)

    def latency(self, origin: Origin) -> Latency:
        """What is known of how fast it answers."""
        return self._latencies.setdefault(origin, Latency())

    def proxy_fields(self, origin: Origin) -> dict[str, str]:
        """Header fields for a proxy that sees the requests themselves."""
        proxy = proxy_for(origin, self._proxy) if origin.scheme == "http" else None
        return {} if proxy is None else proxy.fields

    def secrets(self, origin: Origin) -> Iterator[str]:
        """What no message may show of the way there."""
        try:
            proxy = proxy_for(origin, self._proxy)
        except Error:  # the environment is wrong by now; it says so itself, and quotes nothing
            return
        if proxy is not None:
            yield from secrets_of_fields(proxy.fields)

    def _tls(self) -> ssl.SSLContext:
        with self.lock:
            if self._context is None:
                self._context = self._security.context()
            return self._context

    def stats(self) -> dict[str, int]:
        """connections_opened: so far; connections_idle, connections_open: now."""
        with self.lock:
            idle = sum(map(len, self._idle.values()))
            return {
                "connections_opened": self.opened,
                "connections_idle": idle,
                "connections_open": sum(self._open.values()),
            }


def _free(pool: "weakref.ref[ConnectionPool]", counted: dict[Origin, int], origin: Origin) -> None:
    """A connection is closed, by whomever. counted: where it was; in a forked child the parent's are not."""
    of = pool()
    if of is not None and of._open is counted:
        of.free(origin)


class _Serial:
    """Servers that keep connections alive and serve one at a time: an idle connection keeps all others waiting.

    So a new connection that has been silent for long has idle ones closed, those of other pools too, and while it waits
    none is kept idle. A server that answers promptly each time after that is known to be one for a while. Any thread; a
    count that two threads change at once may be wrong, which costs a connection.
    """

    def __init__(self) -> None:
        self._silent: dict[Origin, int] = {}
        self._closed: dict[Origin, float] = {}
        self._proofs: dict[Origin, int] = {}
        self._until: dict[Origin, float] = {}

    def keeps_waiting(self, origin: Origin) -> bool:
        """Whether an idle connection may keep another one waiting."""
        if not (self._silent or self._until):
            return False
        return origin in self._silent or time.monotonic() < self._until.get(origin, 0.0)

    def fell_silent(self, origin: Origin) -> None:
        """A new connection has had no answer for _SERIAL_S."""
        self._silent[origin] = self._silent.get(origin, 0) + 1
        self.close_idle(origin)

    def close_idle(self, origin: Origin) -> None:
        """Close what may keep others waiting."""
        if sum([pool.close_idle(origin) for pool in _pools()]):
            self._closed[origin] = time.monotonic()

    def ended_silence(self, origin: Origin, *, answered: bool) -> None:
        """One of those has an answer, or is given up."""
        left = self._silent.pop(origin, 1) - 1
        if left > 0:
            self._silent[origin] = left
        closed = self._closed.pop(origin, None)
        if answered and (closed is None or time.monotonic() - closed > _PROMPT_S):
            self._proofs.pop(origin, None)  # it answers when it likes
        elif answered:
            self._proofs[origin] = self._proofs.get(origin, 0) + 1
            if self._proofs[origin] >= _PROOFS:
                self._until[origin] = time.monotonic() + _SERIAL_FOR_S
        for pool in _pools():
            pool.look_again()


SERIAL = _Serial()
"""Of this process."""
_POOLS: "weakref.WeakSet[ConnectionPool]" = weakref.WeakSet()
_POOLS_LOCK = threading.RLock()


def _pools() -> list[ConnectionPool]:
    with _POOLS_LOCK:
        return list(_POOLS)


def is_silent(silent_s: float) -> bool:
    """Whether a new connection without an answer for so long may wait for an idle one."""
    return silent_s >= _SERIAL_S


def _forget_all() -> None:
    global _POOLS_LOCK
    _POOLS_LOCK = threading.RLock()
    for pool in list(_POOLS):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
