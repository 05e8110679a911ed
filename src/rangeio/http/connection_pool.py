"""The connection pool: connections opened by urllib3, kept alive, lent to one attempt at a time, and limited per server
and in total.

urllib3 only does what a connection needs before the first byte: TLS and certificates, proxies, SNI, name lookup. It
does not handle requests and responses.
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
from rangeio.http.proxies import connection, is_private, parse_proxy, proxy_for
from rangeio.http.redaction import secrets_of_fields
from rangeio.http.urls import Origin

PER_HOST = 64
IN_ALL = 256
# A new connection without a response for _SERIAL_S may wait for an idle one: see _Serial. A server counts as serial for
# _SERIAL_FOR_S if it responded _PROOFS times in a row within _PROMPT_S after idle connections were closed.
_SERIAL_S = 1.0
_PROMPT_S = 0.1
_PROOFS = 3
_SERIAL_FOR_S = 300.0
# A queue that has not moved for this long may be deadlocked: a paused iteration may hold the connections, or a loop
# whose thread waits in the queue. The first in the queue then gets a connection beyond the limits.
_STUCK_S = 1.0


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when it is deleted: ssl does not do that if a reset arrives before the handshake (CPython 3.11)."""

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Security:
    """The TLS settings. Files are read when the first connection is opened.

    ca_file: trusted certificates instead of the system's. client_cert: a file with certificate and key, or a tuple of
    both files, or of both files and the password of the key. verify: False disables the check of server certificates.
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
                # Without a password OpenSSL would ask the terminal and wait.
                made.load_cert_chain(certificate or "", key, password or "")
            # Without a free descriptor, OpenSSL silently omits the system's certificates.
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
"""Called once, from any thread: with a connection that now belongs to the receiver, or with None to try again."""


class HeldConnections:
    """The number of connections that an iteration holds. count: set by the code that runs the iteration."""

    __slots__ = ("__weakref__", "count")

    def __init__(self) -> None:
        self.count: Callable[[], int] = lambda: 0


class ConnectionPool:
    """Idle connections by origin, and the number of all connections. Thread-safe; empty in a forked child.

    proxy: the URL of a proxy for all requests, "" for none, None for the environment (HTTP_PROXY, HTTPS_PROXY,
    ALL_PROXY, NO_PROXY, also in lower case). An https:// proxy supports http:// URLs only.
    """

    def __init__(
        self, security: Security, proxy: str | None, *, per_host: int = PER_HOST, in_all: int = IN_ALL
    ) -> None:
        self._security = security
        self._proxy = proxy
        if proxy:
            parse_proxy(proxy)  # so that an invalid URL is an error of the options
        # A client certificate is for servers; the login for a proxy is in its URL.
        self._proxy_security = replace(security, client_cert=None)
        self._per_host, self._in_all = per_host, in_all
        self._context: ssl.SSLContext | None = None
        self.opened = 0
        self.users = 0
        # Iterations and their connections. The consumer of a suspended iteration may resume it at any time.
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
        self._moved = 0.0  # when a queue was last left or started
        self._latencies: dict[Origin, Latency] = {}

    def forget(self) -> None:
        """In a forked child: drop the parent's connections. Closing them here does not close them in the parent."""
        inherited = [one for idle in self._idle.values() for one in idle.clear()]
        self._begin()
        for one in inherited:
            one.close()

    def idle(self, origin: Origin) -> IdleConnections:
        """The idle connections of an origin; always the same object."""
        found = self._idle.get(origin)
        if found is None:
            with self.lock:
                found = self._idle.setdefault(origin, IdleConnections())
                self._mark_wanted()
        return found

    def peek(self, origin: Origin) -> Connection | None:
        """The connection that `take` would check first."""
        found: Connection | None = self.idle(origin).peek()
        return found

    def take(self, origin: Origin) -> Connection | None:
        """The most recently used idle connection that is alive and has received nothing; None if there is none."""
        idle = self.idle(origin)
        while True:
            connection: Connection | None = idle.take()
            if connection is None:
                return None
            if connection.idle_s < MOST_IDLE_S and connection.is_quiet():
                return connection
            self.drop(connection)

    def _mark_wanted(self) -> None:
        """Mark the stacks whose returned connections must go through `give_back`. The caller holds the lock."""
        for origin, idle in list(self._idle.items()):
            idle.wanted = bool(self._waiting) or self.users <= 0 or SERIAL.keeps_waiting(origin)

    def reserve(
        self, origin: Origin, *, waited: bool = False, force: bool = False, first: bool = False
    ) -> bool:
        """Reserve a slot for one more connection; returns whether it was possible.

        waited: the caller was first in the queue. force: ignore the limits, because the queue is stuck. first: the call
        has no other connection, so it does not wait for paused iterations.
        """
        with self.lock:
            force = force or (first and self._rest_holds_all(origin))
            if not (force or waited) and self._waiting.get(origin):
                return False
            # The caller has found no idle connection, or does not want one.
            if not force and self._open.get(origin, 0) >= self._per_host and not self._evict([origin]):
                return False
            if not force and sum(self._open.values()) >= self._in_all and not self._evict(self._idle):
                return False
            self._open[origin] = self._open.get(origin, 0) + 1
            return True

    def iterates(self, iteration: "Generator[Any, None, None]", held: HeldConnections) -> None:
        """Register an iteration, which may hold connections between two results."""
        with self.lock:
            self._iterations[iteration] = held

    def _rest_holds_all(self, origin: Origin) -> bool:
        """Whether there would be a slot without the connections of suspended iterations."""
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
        """Close the connection to one of these origins that has been idle longest; returns whether there was one."""
        idle = [found for origin in origins if (found := self._idle.get(origin))]
        oldest = max(idle, key=IdleConnections.longest_s, default=None)
        connection = None if oldest is None else oldest.take_oldest()
        if connection is None:
            return False
        self.drop(connection)
        return True

    def free(self, origin: Origin) -> None:
        """Release a reserved slot."""
        with self.lock:
            self._open[origin] = max(0, self._open.get(origin, 0) - 1)
        self.wake(origin)

    def unwanted(self, origin: Origin, outcome: Any) -> None:
        """Handle a connection, or the failure to open one, that nothing waits for any more. From any thread."""
        if isinstance(outcome, Connection):
            self.give_back(outcome)
        else:
            self.free(origin)

    def wake(self, origin: Origin) -> None:
        """Notify one queued attempt to try again: one for this origin, otherwise for any."""
        if not self._waiting:
            return
        with self.lock:
            queues = [origin, *self._waiting]
            on_free = next((self._first(queue) for queue in queues if queue in self._waiting), None)
        if on_free is not None:
            on_free(None)

    def _first(self, origin: Origin) -> "OnFree | None":
        """Remove the first of a queue. The caller holds the lock."""
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
        """Leave the queue; returns whether it was still queued. Otherwise `on_free` is or was called."""
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
        """Whether no queue has moved for long. If so, the caller reserves a slot by force."""
        with self.lock:
            now = time.monotonic()
            stuck = now - self._moved > _STUCK_S
            if stuck:
                self._moved = now
        return stuck

    def drop(self, connection: Connection) -> None:
        """Close a connection that was taken. This releases its slot."""
        connection.close()

    def give_back(self, connection: Connection) -> None:
        """Return a connection: to the first attempt in the queue, or to the idle ones. Directly to the queue, because
        otherwise a caller that reads continuously would take it again. Close it if the pool has no users any more, or
        if others wait for its slot.
        """
        origin = connection.origin
        with self.lock:
            on_free = self._first(origin) if self._waiting else None
            crowded = bool(self._waiting) and sum(self._open.values()) >= self._in_all
            idle, blocks = self.idle(origin), SERIAL.keeps_waiting(origin)
            kept = self.users > 0 and not crowded and connection.is_open and not blocks
            if kept and on_free is None:
                idle.keep(connection)
            if self._waiting or idle.wanted or not kept:  # else nothing has changed
                self._mark_wanted()
        if on_free is not None:
            on_free(connection)
        elif not kept:
            self.drop(connection)

    def when_free(self, origin: Origin, on_free: "OnFree", *, waited: bool = False) -> None:
        """Wait in the queue for a connection or a slot. waited: it was first in the queue and returns there."""
        with self.lock:
            room = self._open.get(origin, 0) < self._per_host and sum(self._open.values()) < self._in_all
            queue = self._waiting.get(origin)
            if not self._waiting:
                self._moved = time.monotonic()
            # Queue first, so that connections returned from now on come here; those returned before are found below.
            queue = self._waiting.setdefault(origin, deque())
            self._mark_wanted()
            ready = bool(self.idle(origin)) or (room and (waited or not queue))
            if not ready:
                queue.appendleft(on_free) if waited else queue.append(on_free)
            elif not queue:
                del self._waiting[origin]
                self._mark_wanted()
        if ready:  # one became free since the caller checked
            on_free(None)

    def close_idle(self, origin: Origin) -> int:
        """Close the idle connections of an origin; returns their number."""
        self.look_again()
        connections = self.idle(origin).clear()
        for one in connections:
            self.drop(one)
        return len(connections)

    def look_again(self) -> None:
        """Check again whether idle connections may be kept."""
        with self.lock:
            self._mark_wanted()

    def use(self) -> None:
        """Add a user of the pool."""
        with self.lock:
            self.users += 1
            self._mark_wanted()

    def unuse(self) -> None:
        """Remove a user of the pool. The last one closes the idle connections."""
        with self.lock:
            self.users -= 1
            self._mark_wanted()
            idle = list(self._idle.values()) if self.users <= 0 else []
        for one in [one for of_origin in idle for one in of_origin.clear()]:
            self.drop(one)

    def dial(self, origin: Origin, timeout_s: float | None) -> Connection:
        """Open a connection; blocks for name lookup, TCP, proxy and TLS. A slot must have been reserved.

        Raises the errors of urllib3, ssl and socket.
        """
        # Without a free descriptor, name lookups and imports fail with misleading errors: fail here instead.
        socket.socket().close()
        proxy = proxy_for(origin, self._proxy)
        made = connection(origin, proxy, timeout_s, self._tls, self._proxy_security.context)
        try:
            made.connect()
            sock: socket.socket = made.sock
            made.sock = None  # this pool owns it now
        finally:
            made.close()
        return self._opened(sock, origin, absolute=proxy is not None and origin.scheme == "http")

    def _opened(self, sock: socket.socket, origin: Origin, *, absolute: bool = False) -> Connection:
        self.opened += 1
        CONNECTIONS.add()
        freed = partial(_free, weakref.ref(self), self._open, origin)
        return Connection(sock, origin, absolute, self.latency(origin), freed)

    def latency(self, origin: Origin) -> Latency:
        """The measured latency and speed of an origin."""
        return self._latencies.setdefault(origin, Latency())

    def is_private(self, origin: Origin) -> bool:
        """Whether nobody else can read what is sent there."""
        return is_private(origin, self._proxy)

    def proxy_fields(self, origin: Origin) -> dict[str, str]:
        """Header fields for a proxy that receives the requests themselves."""
        proxy = proxy_for(origin, self._proxy) if origin.scheme == "http" else None
        return {} if proxy is None else proxy.fields

    def secrets(self, origin: Origin) -> Iterator[str]:
        """Secrets of the proxy for an origin, which no message may show."""
        try:
            proxy = proxy_for(origin, self._proxy)
        except Error:  # the environment has become invalid; its own error contains no secrets
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
    """Release the slot of a closed connection. counted: the dict that counts it; a forked child has a new one, so it
    does not count the parent's connections.
    """
    of = pool()
    if of is not None and of._open is counted:
        of.free(origin)


class _Serial:
    """Servers that keep connections alive but serve one at a time: an idle connection blocks all others.

    If a new connection is silent for long, idle connections to the server are closed, including those of other pools,
    and none is kept while it waits. A server that then responds promptly each time counts as serial for a while.
    Thread-safe; a count that two threads change at once may be wrong, which costs one connection.
    """

    def __init__(self) -> None:
        self._silent: dict[Origin, int] = {}
        self._closed: dict[Origin, float] = {}
        self._proofs: dict[Origin, int] = {}
        self._until: dict[Origin, float] = {}

    def keeps_waiting(self, origin: Origin) -> bool:
        """Whether an idle connection to this origin may block another one."""
        if not (self._silent or self._until):
            return False
        return origin in self._silent or time.monotonic() < self._until.get(origin, 0.0)

    def fell_silent(self, origin: Origin) -> None:
        """A new connection has had no response for _SERIAL_S."""
        self._silent[origin] = self._silent.get(origin, 0) + 1
        self.close_idle(origin)

    def close_idle(self, origin: Origin) -> None:
        """Close the idle connections to this origin in all pools."""
        if sum([pool.close_idle(origin) for pool in _pools()]):
            self._closed[origin] = time.monotonic()

    def ended_silence(self, origin: Origin, *, answered: bool) -> None:
        """A silent connection has received its response, or was abandoned."""
        left = self._silent.pop(origin, 1) - 1
        if left > 0:
            self._silent[origin] = left
        closed = self._closed.pop(origin, None)
        if answered and (closed is None or time.monotonic() - closed > _PROMPT_S):
            self._proofs.pop(origin, None)  # the response did not depend on the idle connections
        elif answered:
            self._proofs[origin] = self._proofs.get(origin, 0) + 1
            if self._proofs[origin] >= _PROOFS:
                self._until[origin] = time.monotonic() + _SERIAL_FOR_S
        for pool in _pools():
            pool.look_again()


SERIAL = _Serial()
"""The serial servers known to this process."""
_POOLS: "weakref.WeakSet[ConnectionPool]" = weakref.WeakSet()
_POOLS_LOCK = threading.RLock()


def _pools() -> list[ConnectionPool]:
    with _POOLS_LOCK:
        return list(_POOLS)


def is_silent(silent_s: float) -> bool:
    """Whether a new connection without a response for this long may wait for an idle one."""
    return silent_s >= _SERIAL_S


def _forget_all() -> None:
    global _POOLS_LOCK
    _POOLS_LOCK = threading.RLock()
    for pool in list(_POOLS):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
