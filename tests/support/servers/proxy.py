"""A TCP proxy before a real server, which does to connections what networks, servers and balancers do on bad days.

It knows no HTTP: a fault strikes after so many bytes that the server has sent, under TLS those of the handshake too.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fault:
    """What happens to one connection, once `after` bytes from the server have passed.

    refuse: it breaks as soon as it is there. reset: it breaks. close: it ends, as if that were all. stall: nothing more
    comes. drip: a byte every `pace_s`, until `lasts` have come. flip: the next byte arrives as another. answer: the
    first request gets `data` and never reaches the server; later ones do.
    """

    kind: Literal["refuse", "reset", "close", "stall", "drip", "flip", "answer"]
    after: int = 0
    data: bytes = b""
    pace_s: float = 0.01
    lasts: int = 100


Script = Callable[[int], Fault | None]


def first(count: int, fault: Fault) -> Script:
    """It strikes so many connections, and no more."""
    return lambda number: fault if number < count else None


def refusal(status: int, **fields: str) -> Fault:
    """A balancer's own answer to the one request of a connection, with the header fields."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    head = f"HTTP/1.1 {status} Busy\r\nContent-Length: 5\r\nConnection: close\r\n{''.join(lines)}\r\n"
    return Fault("answer", data=head.encode() + b"later")


class Proxy:
    """Listens on `port`. script: the fault of each connection, counted from 0; `connections` of them so far.

    reached: set once a fault has struck.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.script: Script = lambda number: None
        self.connections = 0
        self.reached = threading.Event()
        self.port = 0

    @property
    def open(self) -> int:
        """Connections of clients that neither side has ended."""
        return len(self._open)

    def listen(self) -> None:
        """Take connections, again on the same port after `refuse`."""
        self._do(self._listen())

    def refuse(self) -> None:
        """Break all connections, and refuse new ones."""
        self._do(self._refuse())

    def half_close(self) -> None:
        """Say on each connection that nothing more will come, but leave it open."""
        self._do(self._half_close())

    def close(self) -> None:
        """End everything."""
        self.refuse()
        self._do(self._wait_for_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self) -> None:
        """For the thread that all of it happens in."""
        self._loop.run_forever()
        self._loop.close()

    def _do(self, work: "asyncio._CoroutineLike[None]") -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            self._reset(writer)

    async def _half_close(self) -> None:
        for writer in list(self._open):
            sock: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):  # the client has gone
                sock.shutdown(socket.SHUT_WR)

    async def _wait_for_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the turn in which the sockets are closed

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault, self.connections = self.script(self.connections), self.connections + 1
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if fault is not None and fault.kind == "refuse":
                self._reset(writer)
                raise ConnectionResetError
            if fault is not None and fault.kind == "answer":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(fault.data)
                fault = None
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            requests = asyncio.create_task(self._pass(reader, upstream))
            replies = asyncio.create_task(self._replies(answers, writer, fault))
            await asyncio.wait([requests, replies], return_when=asyncio.FIRST_COMPLETED)
            requests.cancel()
            replies.cancel()
        for end in filter(None, (writer, upstream)):
            end.close()
        self._open.discard(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(65_536):
                if fault is not None and passed + len(data) > fault.after:
                    writer.write(data[: fault.after - passed])
                    data = await self._strike(fault, writer, data[fault.after - passed :])
                    fault = None
                passed += len(data)
                writer.write(data)
                await writer.drain()

    async def _strike(self, fault: Fault, writer: asyncio.StreamWriter, data: bytes) -> bytes:
        """What is to be passed on; OSError or cancellation if nothing is."""
        await writer.drain()
        self.reached.set()
        if fault.kind == "reset":
            self._reset(writer)
        elif fault.kind == "stall":
            await asyncio.get_running_loop().create_future()
        elif fault.kind == "drip":
            for at in range(min(fault.lasts, len(data))):
                writer.write(data[at : at + 1])
                await asyncio.sleep(fault.pace_s)
            return data[fault.lasts :]
        elif fault.kind == "flip":
            return bytes([data[0] ^ 1]) + data[1:]
        raise ConnectionAbortedError

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """Before the server that listens on port `target` of loopback."""
    made = Proxy(target)
    thread = threading.Thread(target=made.run, name="proxy", daemon=True)
    thread.start()
    made.listen()
    try:
        yield made
    finally:
        made.close()
        thread.join()
