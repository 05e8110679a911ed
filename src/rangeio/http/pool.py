"""Connections: opened by urllib3, kept alive, given to one read at a time, and bounded per server and in all.

urllib3 is here for what a connection needs before the first byte: TLS and its certificates, proxies, SNI, name lookup.
Requests and replies are not its business.
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
from typing import Any, Protocol, TypeAlias

from rangeio.errors import ConfigInvalidError, Error
from rangeio.http.address import Origin
from rangeio.http.pace import Pace
from rangeio.http.proxies import connection, parse_proxy, proxy_for
from rangeio.http.redaction import secrets_of_fields
from rangeio.http.wire import Wire
from rangeio.traffic import CONNECTIONS

# Servers close idle connections after 5 s (Apache) to 75 s (nginx); S3 after some 20 s.
_IDLE_S = 60.0
PER_HOST = 64
IN_ALL = 256
# A new connection that had no answer for so long may wait for an idle one: see _Serial. Such a server is one that has
# answered so often, one time after the other, so soon after idle connections were closed.
_SERIAL_S = 1.0
_PROMPT_S = 0.1
_PROOFS = 3
_SERIAL_FOR_S = 300.0
# A line that has not moved for so long may wait for itself: who has the connections may be an iteration that nobody
# goes on with, or a loop whose thread waits in the line. Its first one gets a connection beyond the bounds.
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


Heir: TypeAlias = Callable[[Wire | None], None]
"""Called once, from any thread, with a connection that is its own now; with None when it may look for one again."""


class Held:
    """How many connections an iteration holds. count: set by who runs it."""

    __slots__ = ("__weakref__", "count")

    def __init__(self) -> None:
        self.count: Callable[[], int] = lambda: 0


class Keeper(Protocol):
    """Who keeps idle connections beside the pool."""

    def give_back_idle(self) -> None:
        """Give them to the pool, now and from any thread."""

    def forget(self) -> None:
        """In a forked child: they are the parent's."""


class Pool:
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
        # Connections that event loops keep for themselves, by the id of the loop; see standing.py.
        self.standings: weakref.WeakValueDictionary[int, Keeper] = weakref.WeakValueDictionary()
        # Iterations, and what they hold. One that is suspended is gone on with when its consumer likes.
        self._iterations: weakref.WeakKeyDictionary[Generator[Any, None, None], Held] = (
            weakref.WeakKeyDictionary()
        )
        self._begin()
        with _POOLS_LOCK:
            _POOLS.add(self)

    def _begin(self) -> None:
        self.lock = threading.RLock()
        self._idle: dict[Origin, deque[Wire]] = {}
        self._open: dict[Origin, int] = {}
        self.waiting: dict[Origin, deque[Heir]] = {}
        self._moved = 0.0  # when somebody left a line last, or began one
        self._paces: dict[Origin, Pace] = {}

    def forget(self) -> None:
        """In a forked child: the connections are the parent's. Closing them here does not end them there."""
        inherited = [wire for idle in self._idle.values() for wire in idle]
        for idle in self._idle.values():
            idle.clear()  # whoever holds it finds nothing in it any more
        for keeper in self._keepers():
            keeper.forget()
        self.standings.clear()
        self._begin()
        for wire in inherited:
            wire.close()

    def idle(self, origin: Origin) -> deque[Wire]:
        """Those that are idle, the one used last at the end; always the same deque. `lock` guards it."""
        found = self._idle.get(origin)
        return self._idle.setdefault(origin, deque()) if found is None else found

    def peek(self, origin: Origin) -> Wire | None:
        """The one that `take` would look at first."""
        with self.lock:
            idle = self._idle.get(origin)
            return idle[-1] if idle else None

    def take(self, origin: Origin, tick_s: float | None = None) -> Wire | None:
        """An idle connection, the one used last, that is alive and has brought nothing. tick_s: see `Wire.block`."""
        while True:
            with self.lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                wire = idle.pop()
            if time.monotonic() - wire.idle_since < _IDLE_S and wire.is_quiet():
                wire.block(tick_s)
                return wire
            self.drop(wire)

    def reserve(
        self, origin: Origin, *, waited: bool = False, force: bool = False, first: bool = False
    ) -> bool:
        """Whether one more may be opened; if so its place is taken. waited: it is its turn, others wait in line. force:
        whatever the bounds say; for who waits in a line that is stuck. first: of a call that has no other one; it does
        not wait for iterations that rest.
        """
        with self.lock:
            force = force or (first and self._rest_holds_all(origin))
            if not (force or waited) and self.waiting.get(origin):
                return False
            # Whoever asks for a place has looked for an idle connection, or does not trust one.
            if not force and self._open.get(origin, 0) >= self._per_host and not self._evict([origin]):
                return False
            if not force and sum(self._open.values()) >= self._in_all and not self._evict(self._idle):
                return False
            self._open[origin] = self._open.get(origin, 0) + 1
            return True

    def iterates(self, iteration: "Generator[Any, None, None]", held: Held) -> None:
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
        idle = (wires[0] for origin in origins if (wires := self._idle.get(origin)))
        oldest = min(idle, key=lambda wire: wire.idle_since, default=None)
        if oldest is None:
            return False
        self._idle[oldest.origin].popleft()
        self.drop(oldest)
        return True

    def free(self, origin: Origin) -> None:
        """Give a reserved place back."""
        with self.lock:
            self._open[origin] = max(0, self._open.get(origin, 0) - 1)
        self.wake(origin)

    def unwanted(self, origin: Origin, outcome: Any) -> None:
        """A connection was opened, or not, when nobody waited for it any more. From any thread."""
        if isinstance(outcome, Wire):
            self.give_back(outcome)
        else:
            self.free(origin)

    def wake(self, origin: Origin) -> None:
        """Tell one of those who wait to look again: one for this origin, else for any."""
        if not self.waiting:
            return
        with self.lock:
            lines = [origin, *self.waiting]
            heir = next((self._first(line) for line in lines if line in self.waiting), None)
        if heir is not None:
            heir(None)

    def _first(self, origin: Origin) -> "Heir | None":
        """The first of a line, who leaves it; for a caller that has the lock."""
        line = self.waiting.get(origin)
        if line is None:
            return None
        self._moved = time.monotonic()
        heir = line.popleft()
        if not line:
            del self.waiting[origin]
        return heir

    def leave(self, origin: Origin, heir: "Heir") -> bool:
        """Wait in line no longer; whether it was in it still. Else it is called, or was."""
        with self.lock:
            line = self.waiting.get(origin, ())
            found = heir in line
            if found:
                line.remove(heir)  # type: ignore[union-attr]
                if not line:
                    del self.waiting[origin]
        return found

    def is_stuck(self) -> bool:
        """Whether nobody has left a line for long. Who is told so takes a place by force, and then it is not."""
        with self.lock:
            now = time.monotonic()
            stuck = now - self._moved > _STUCK_S
            if stuck:
                self._moved = now
        return stuck

    def drop(self, wire: Wire) -> None:
        """Close a connection that was taken. That frees its place."""
        wire.close()

    def give_back(self, wire: Wire) -> None:
        """The connection is idle now, or another one's who waits for it: were it to lie here in between, whoever reads
        all the time would have it again. It is closed if nobody reads any more, or others wait for its place.
        """
        wire.idle_since = time.monotonic()
        with self.lock:
            heir = self._first(wire.origin) if self.waiting else None
            crowded = bool(self.waiting) and sum(self._open.values()) >= self._in_all
            kept = self.users > 0 and not crowded and wire.is_open and not SERIAL.keeps_waiting(wire.origin)
            if kept and heir is None:
                self.idle(wire.origin).append(wire)
        if heir is not None:
            heir(wire)
        elif not kept:
            self.drop(wire)

    def when_free(self, origin: Origin, heir: "Heir", *, waited: bool = False) -> None:
        """Wait in line for a connection, or a place. waited: it has, and goes to where it was."""
        with self.lock:
            room = self._open.get(origin, 0) < self._per_host and sum(self._open.values()) < self._in_all
            line = self.waiting.get(origin)
            ready = bool(self._idle.get(origin)) or (room and (waited or not line))
            if not ready:
                if not self.waiting:
                    self._moved = time.monotonic()
                line = self.waiting.setdefault(origin, deque())
                line.appendleft(heir) if waited else line.append(heir)
        if ready:  # it became so since the caller looked
            heir(None)
        else:
            self._reclaim()

    def is_short(self, origin: Origin) -> bool:
        """Whether connections should be given back at once: somebody waits, nobody reads, or the server serves one."""
        return bool(self.waiting) or self.users <= 0 or SERIAL.keeps_waiting(origin)

    def close_idle(self, origin: Origin) -> int:
        """Close those that are idle; how many there were."""
        self._reclaim()
        with self.lock:
            idle = self._idle.get(origin, ())
            wires = [idle.pop() for _ in range(len(idle))]  # type: ignore[union-attr]
        for wire in wires:
            self.drop(wire)
        return len(wires)

    def _reclaim(self) -> None:
        for keeper in self._keepers():
            keeper.give_back_idle()

    def _keepers(self) -> list[Keeper]:
        # `valuerefs` copies at once; an iteration would see those that other threads add meanwhile.
        return [keeper for ref in self.standings.valuerefs() if (keeper := ref()) is not None]

    def use(self) -> None:
        """One more that reads."""
        with self.lock:
            self.users += 1

    def unuse(self) -> None:
        """One less; with the last one, idle connections are closed."""
        with self.lock:
            self.users -= 1
            idle = [wire for wires in self._idle.values() for wire in wires] if self.users <= 0 else []
            if idle:
                for wires in self._idle.values():
                    wires.clear()
        for wire in idle:
            self.drop(wire)
        if self.users <= 0:
            self._reclaim()

    def dial(self, origin: Origin, timeout_s: float | None) -> Wire:
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

    def _opened(self, sock: socket.socket, origin: Origin, *, absolute: bool = False) -> Wire:
        self.opened += 1
        CONNECTIONS.add()
        freed = partial(_free, weakref.ref(self), self._open, origin)
        return Wire(sock, origin, absolute, self.pace(origin), freed)

    def pace(self, origin: Origin) -> Pace:
        """What is known of how fast it answers."""
        return self._paces.setdefault(origin, Pace())

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


def _free(pool: "weakref.ref[Pool]", counted: dict[Origin, int], origin: Origin) -> None:
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
        with _POOLS_LOCK:
            pools = list(_POOLS)
        if sum([pool.close_idle(origin) for pool in pools]):
            self._closed[origin] = time.monotonic()

    def ended_silence(self, origin: Origin, *, answered: bool) -> None:
        """One of those has an answer, or is given up."""
        left = self._silent.pop(origin, 1) - 1
        if left > 0:
            self._silent[origin] = left
        closed = self._closed.pop(origin, None)
        if not answered:
            return
        if closed is None or time.monotonic() - closed > _PROMPT_S:
            self._proofs.pop(origin, None)  # it answers when it likes
            return
        self._proofs[origin] = self._proofs.get(origin, 0) + 1
        if self._proofs[origin] >= _PROOFS:
            self._until[origin] = time.monotonic() + _SERIAL_FOR_S


SERIAL = _Serial()
"""Of this process."""
_POOLS: "weakref.WeakSet[Pool]" = weakref.WeakSet()
_POOLS_LOCK = threading.RLock()


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
