"""What the servers of a simulation answer: honestly, or in a way that servers fail, drawn for each request."""

import random
import re
from dataclasses import dataclass, field
from functools import lru_cache

from simulation.world import ServerEnd, World

SIZE = 1003


@lru_cache(maxsize=200)
def content(version: int, size: int = SIZE) -> bytes:
    """The bytes of a version; no two versions have an equal byte at any offset."""
    return bytes((offset * 7 + version * 83) % 251 for offset in range(size))


@dataclass
class Faults:
    """How likely each is, for one run of the simulation."""

    odd: float = 0.0
    """Another answer than the honest one."""
    breaks: float = 0.0
    """The connection ends, or stalls, amid the answer."""
    stray: float = 0.0
    """Bytes that nobody asked for follow."""
    changes: float = 0.0
    """The object becomes another version."""
    slow: float = 0.0


@dataclass
class SimulatedServer:
    """One object, of which each request may find another version. validator: how versions are told apart."""

    world: World
    faults: Faults
    validator: str = "strong"
    sends_ranges: bool = True
    version: int = 1
    requests: int = 0
    redirects: int = 0
    answers: dict[str, int] = field(default_factory=dict)

    def serve(self, end: ServerEnd, head: bytes) -> None:
        dice, faults = self.world.dice, self.faults
        self.requests += 1
        if dice.random() < faults.changes:
            self.version += 1
        data, ending = self.answer(head)
        wait_s = dice.choice([0.0, 1e-4, 0.01])
        if dice.random() < faults.slow:
            wait_s = dice.choice([0.5, 3.0, 40.0])
        drip_s = dice.choice([0.0, 0.0, 1e-3]) if dice.random() > faults.slow / 4 else 2.0
        if dice.random() < faults.breaks:
            data = data[: dice.randrange(len(data) + 1)]
            ending = dice.choice(["close", "reset", "stall"])
        end.send(data, wait_s, drip_s)
        if ending == "close":
            end.end(True)
        elif ending == "reset":
            end.end(ConnectionResetError)
        elif ending == "keep" and dice.random() < faults.stray:
            end.send(self.stray(), dice.choice([0.0, 1e-3, 0.2]))
            if dice.random() < 0.5:
                end.end(True)

    def stray(self) -> bytes:
        """Bytes that no request is for: a response to nobody, or less. They may come when the next request is on its
        way already; so none of them is a response that this request could have, after which the connection goes on:
        nobody could tell.
        """
        dice = self.world.dice
        closing = [reply(status, fields=["Connection: close"]) for status in (400, 408)]
        return dice.choice([b"\n", *closing, content(99)[: dice.randrange(1, 200)]])

    def answer(self, head: bytes) -> tuple[bytes, str]:
        """The bytes, and what becomes of the connection after them."""
        method = head.split(b" ", 1)[0].decode()
        found = re.search(rb"\r\nRange: bytes=(\d+)-(\d+)", head)
        match = re.search(rb"\r\nIf-Match: ([^\r]*)", head)
        if match is not None and match[1] != self.etag().encode() and self.world.dice.random() < 0.9:
            return self._counted("412", reply(412)), "keep"
        if method == "HEAD":
            return self._head()
        if self.world.dice.random() < self.faults.odd:
            return self._odd(*self._bounds(found))
        return self._honest(*self._bounds(found)), "keep"

    def _counted(self, name: str, data: bytes) -> bytes:
        self.answers[name] = self.answers.get(name, 0) + 1
        return data

    def etag(self) -> str:
        return {"strong": '"v{}"', "weak": 'W/"v{}"', "none": ""}[self.validator].format(self.version)

    def _fields(self) -> list[str]:
        return [f"ETag: {self.etag()}"] if self.etag() else []

    def _bounds(self, found: "re.Match[bytes] | None") -> tuple[int, int]:
        return (0, SIZE) if found is None else (int(found[1]), int(found[2]) + 1)

    def _head(self) -> tuple[bytes, str]:
        dice = self.world.dice
        if dice.random() < self.faults.odd:
            odd = [
                reply(405),
                reply(200, fields=["Content-Length: 0"]),
                reply(503),
                reply(200, fields=[], sized=False),
            ]
            return self._counted("HEAD, odd", dice.choice(odd)), dice.choice(["keep", "close"])
        return self._counted("HEAD", reply(200, fields=[*self._fields(), f"Content-Length: {SIZE}"])), "keep"

    def _honest(self, start: int, stop: int) -> bytes:
        if not self.sends_ranges:
            return self._counted("200", reply(200, content(self.version), self._fields()))
        if start >= SIZE:
            return self._counted("416", reply(416, fields=[f"Content-Range: bytes */{SIZE}"]))
        return self._counted("206", self._partial(start, min(stop, SIZE)))

    def _partial(self, start: int, stop: int, total: str = str(SIZE)) -> bytes:
        fields = [*self._fields(), f"Content-Range: bytes {start}-{stop - 1}/{total}"]
        return reply(206, content(self.version)[start:stop], fields)

    def _odd(self, start: int, stop: int) -> tuple[bytes, str]:
        """None of these lies about which bytes it brings; some bring fewer than they announce."""
        dice = self.world.dice
        last = min(stop, SIZE)
        if start >= SIZE:
            return self._counted("416, odd", reply(dice.choice([416, 503, 404]))), "keep"
        short = dice.randrange(start, last) + 1
        body = content(self.version)
        ways: dict[str, tuple[bytes, str]] = {
            "short": (self._partial(start, short), "keep"),
            "long": (self._partial(max(0, start - 8), min(SIZE, last + 8)), "keep"),
            "no total": (self._partial(start, last, "*"), "keep"),
            "chunked": (chunked(self._partial(start, last), dice), "keep"),
            "chunked, short": (chunked(self._partial(start, short), dice), "keep"),
            "chunked, ends early": (chunked(self._partial(start, last), dice, cut=1), "keep"),
            "200": (reply(200, body, self._fields()), "keep"),
            "200, chunked": (chunked(reply(200, body, self._fields()), dice), "keep"),
            "200, no length": (reply(200, body, self._fields(), sized=False), "close"),
            "206, no length": (unsized(self._partial(start, last)), "close"),
            "416, no size": (reply(416 if stop > SIZE else 503), "keep"),
            "204": (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "keep"),
            "503": (reply(503, b"later"), dice.choice(["keep", "close"])),
            "429": (reply(429, fields=["Retry-After: 1"]), "keep"),
            "404": (reply(404, b"gone"), "keep"),
            "302": (reply(302, fields=["Location: /elsewhere"]), "keep"),
            "302, no place": (reply(302, fields=["Location: //["]), "keep"),
            "400, close": (reply(400, fields=["Connection: close"]), "close"),
            "408, close": (reply(408, fields=["Connection: close"]), "close"),
            "100 before": (b"HTTP/1.1 100 Continue\r\n\r\n" + self._partial(start, last), "keep"),
            "folded": (self._partial(start, last).replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n", 1), "keep"),
            "closing": (self._partial(start, last).replace(b"\r\n", b"\r\nConnection: close\r\n", 1), "close"),
            "garbage": (dice.randbytes(dice.randrange(1, 300)), dice.choice(["keep", "close"])),
            "far date": (reply(503, fields=["Date: Mon, 1 Jan 99999 00:00:00 GMT", "Retry-After: x"]), "keep"),
            "elsewhere": (self._partial(max(0, start - 1), max(1, start)), "keep"),
            "multipart": (reply(206, b"--x", ["Content-Type: multipart/byteranges; boundary=x"]), "keep"),
            "encoded": (reply(200, body, [*self._fields(), "Content-Encoding: gzip"]), "keep"),
        }  # fmt: skip
        name = dice.choice(list(ways))
        self.answers[name] = self.answers.get(name, 0) + 1
        return ways[name]


def reply(status: int, body: bytes = b"", fields: "list[str] | None" = None, *, sized: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status} Word", *(fields or [])]
    if sized and not any(line.startswith("Content-Length") for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def unsized(answer: bytes) -> bytes:
    return re.sub(rb"\r\nContent-Length: \d+", b"", answer, count=1)


def chunked(answer: bytes, dice: random.Random, cut: int = 0) -> bytes:
    """The same in chunks; the last `cut` bytes are left away, in good form."""
    head, _, body = unsized(answer).partition(b"\r\n\r\n")
    body = body[: len(body) - cut]
    pieces = []
    while body:
        size = dice.randrange(1, len(body) + 1)
        pieces.append(b"%x\r\n%b\r\n" % (size, body[:size]))
        body = body[size:]
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"
