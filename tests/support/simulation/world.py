"""The clock, the driver and the connections of a simulation. Everything that happens is drawn from one seeded dice."""

import heapq
import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rangeio.http.connection import Connection
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.urls import Origin

Callback = Callable[[], object]


class Clock:
    """In place of the module `time`. Only the simulation moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.7e9 + self.now


@dataclass
class World:
    """What may happen next: `step` lets one thing happen. trace: the latest things that did, for people."""

    dice: random.Random
    clock: Clock
    steps: int = 0
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=60))
    _due: list[tuple[float, int, Callback]] = field(default_factory=list)
    _order: Any = field(default_factory=count)

    def later(self, seconds: float, what: Callback) -> None:
        heapq.heappush(self._due, (self.clock.now + seconds, next(self._order), what))

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.now - 1000:.4f} {text}")

    def step(self) -> bool:
        """Whether anything was left to happen. Time passes until it does."""
        if not self._due:
            return False
        at, _, what = heapq.heappop(self._due)
        self.clock.now = max(self.clock.now, at)
        self.steps += 1
        what()
        return True


class SimulatedSocket:
    """Our end of a connection. The server's end puts bytes into `arrived`, and `ended` after the last of them."""

    _numbers = count(1_000_000)

    def __init__(self, world: World, server: "ServerEnd") -> None:
        self._world = world
        self.server = server
        self.number = next(SimulatedSocket._numbers)
        self.arrived = bytearray()
        self.ended: type[OSError] | bool = False
        self.closed = False
        self.driver: SimulatedDriver | None = None

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def setblocking(self, blocks: bool) -> None:
        pass  # what is called says itself that it does not wait (MSG_DONTWAIT)

    def settimeout(self, seconds: float | None) -> None:
        assert seconds == 0.0

    def readable(self) -> bool:
        return bool(self.arrived) or self.ended is not False

    def recv(self, most: int, flags: int = 0) -> bytes:
        space = bytearray(most)
        return bytes(space[: self._receive(memoryview(space), peek=bool(flags & socket.MSG_PEEK))])

    def recv_into(self, memory: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        assert len(memory) > 0, "a receive into nothing would be taken for the end"
        return self._receive(memory, peek=False)

    def _receive(self, memory: memoryview, *, peek: bool) -> int:
        if self.closed:
            raise OSError(9, "it was closed")
        if not self.arrived:
            if self.ended is False:
                raise BlockingIOError
            if self.ended is True:
                return 0
            raise self.ended
        # The kernel may hand over less than there is.
        most = self._world.dice.choice([len(memory), len(memory), 1, 7, 100])
        taken = self.arrived[: min(len(memory), most)]
        memory[: len(taken)] = taken
        if not peek:
            del self.arrived[: len(taken)]
        return len(taken)

    def send(self, data: Any, flags: int = 0) -> int:
        if self.closed:
            raise OSError(9, "it was closed")
        dice = self._world.dice
        if self.ended not in (False, True):
            raise ConnectionResetError
        if dice.random() < 0.02:
            raise BlockingIOError
        sent = len(data) if dice.random() < 0.97 else dice.randrange(len(data)) + 1
        self.server.hear(bytes(data[:sent]))
        return sent

    def close(self) -> None:
        self.closed = True
        self.server.gone = True


class ServerEnd:
    """The other end: told what was sent, it lets the bytes of a script arrive piece by piece."""

    def __init__(self, world: World, serve: Callable[["ServerEnd", bytes], None]) -> None:
        self.world, self._serve = world, serve
        self.sock: Any = None
        self.gone = False
        self.served = 0
        self.state: dict[str, Any] = {}
        self._heard = b""
        self._free_at = 0.0

    def hear(self, data: bytes) -> None:
        self._heard += data
        while b"\r\n\r\n" in self._heard:
            head, _, self._heard = self._heard.partition(b"\r\n\r\n")
            self.served += 1
            self._serve(self, head)

    def send(self, data: bytes, wait_s: float = 0.0, drip_s: float = 0.0) -> None:
        """In pieces, in order, after what was to be sent before."""
        dice = self.world.dice
        at = 0
        while at < len(data):
            size = dice.choice([len(data), len(data), 1, 30, 200, 1000])
            self._after(wait_s if at == 0 else drip_s, self._arrive(data[at : at + size]))
            at += size

    def end(self, how: type[OSError] | bool = True, wait_s: float = 0.0) -> None:
        """No more comes."""

        def ends() -> None:
            if self.sock.ended is False:
                if how is not True:
                    self.sock.arrived.clear()  # a reset throws away what was not received
                self.sock.ended = how
                self._tell()

        self._after(wait_s, ends)

    def _after(self, wait_s: float, what: Callback) -> None:
        self._free_at = max(self._free_at, self.world.clock.now) + wait_s + self.world.dice.random() * 1e-4
        self.world.later(self._free_at - self.world.clock.now, what)

    def _arrive(self, piece: bytes) -> Callback:
        def arrives() -> None:
            if not self.gone and self.sock.ended is False:
                self.sock.arrived += piece
                self._tell()

        return arrives

    def _tell(self) -> None:
        if self.sock.driver is not None:
            self.sock.driver.came(self.sock.number)


class SimulatedDriver:
    """A driver whose callbacks come when the world says so: late, twice, or for nothing."""

    def __init__(self, world: World, sockets: dict[int, SimulatedSocket]) -> None:
        self._world, self._sockets = world, sockets
        self.watched: dict[int, Callback] = {}
        self.offloaded = 0
        self.closed = False

    def watch(self, fd: int, callback: Callback) -> None:
        assert fd not in self.watched, "watched twice"
        assert fd in self._sockets, "watched after it was closed"
        self.watched[fd] = callback
        sock = self._sockets[fd]
        assert not sock.closed, "watched after it was closed"
        sock.driver = self
        if sock.readable():
            self.came(fd)
        elif self._world.dice.random() < 0.02:
            self._world.later(self._world.dice.random() * 1e-3, self._wake(fd))  # a spurious wake-up

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd, None)
        self._sockets[fd].driver = None

    def came(self, fd: int) -> None:
        self._world.later(self._world.dice.choice([0.0, 0.0, 1e-5, 1e-3]), self._wake(fd))

    def _wake(self, fd: int) -> Callback:
        def wakes() -> None:
            callback = self.watched.get(fd)
            if callback is None:
                return
            callback()
            sock = self._sockets.get(fd)
            if fd in self.watched and sock is not None and sock.readable():
                self.came(fd)  # level-triggered

        return wakes

    def later(self, seconds: float, callback: Callback) -> None:
        self._world.later(seconds + self._world.dice.choice([0, 0, 1e-4, 0.3]), callback)

    def post(self, callback: Callback) -> None:
        if self.closed:
            raise RuntimeError("the loop has ended")
        self._world.later(0.0, callback)

    def listen(self) -> None:
        pass

    def offload(self, work: Callback, done: Any, lost: Any, *, alone: bool) -> None:
        self.offloaded += 1

        def ends() -> None:
            self.offloaded -= 1
            try:
                result: Any = work()
            except Exception as error:
                result = error
            if self.closed:
                lost(result)
            else:
                self._world.later(0.0, lambda: done(result))

        slow = self._world.dice.random() < 0.02
        self._world.later(self._world.dice.choice([0.0, 1e-3, 0.05]) + 20 * slow, ends)


class SimulatedPool(ConnectionPool):
    """The pool as it is, but for connections: they lead to a server of the simulation, or nowhere."""

    def __init__(self, world: World, serve: Callable[[ServerEnd, bytes], None], **bounds: int) -> None:
        super().__init__(Security(), "", **bounds)
        self._world, self._serve = world, serve
        self.sockets: dict[int, SimulatedSocket] = {}
        self.refusing = 0.0

    def dial(self, origin: Origin, timeout_s: float | None) -> Connection:
        if self._world.dice.random() < self.refusing:
            raise ConnectionRefusedError(111, "simulated")
        server = ServerEnd(self._world, self._serve)
        sock = server.sock = SimulatedSocket(self._world, server)
        self.sockets[sock.number] = sock
        return self._opened(sock, origin)  # type: ignore[arg-type]
