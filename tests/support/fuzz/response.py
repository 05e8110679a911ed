"""One response of arbitrary bytes, received in arbitrary pieces: what the engine takes of it, against what it may take.

An input is a line of numbers, as in the corpus, and the bytes of the response. `test_http_fuzz.py` goes through the
corpus, `python -m fuzz` on from there.
"""

import http.client
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rangeio.errors import Error
from rangeio.http import validation
from rangeio.http.heads import BadResponse, Head
from rangeio.http.response_parser import SCRATCH, Body, ConnectionEnded, ResponseParser

# Of other lines email.parser makes the end of the head.
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ -~\t]*")
CORPUS = Path(__file__).parent / "corpus"
UNTOUCHED = 0xEE
MOST = 4096


@dataclass(frozen=True)
class Asked:
    """A request for bytes `at` to `stop`, of a read up to `limit`. sizes: of the pieces that the response comes in."""

    at: int
    stop: int
    limit: int
    on_no_range: Any
    cap: int
    sizes: tuple[int, ...]

    @classmethod
    def parse(cls, line: bytes) -> "Asked":
        """Whatever the line holds, some request."""
        numbers = [sum(line[index::7]) * (index + 1) % 1021 for index in range(7)]
        words = line.split()
        for index, word in enumerate(words[:7]):
            if word.isdigit() and len(word) < 6:
                numbers[index] = int(word)
        at, length, more, policy, cap, *sizes = numbers
        stop = at % MOST + 1 + length % MOST
        policies = ("error", "slice", "download")
        pieces = tuple(1 + size % SCRATCH for size in sizes)
        return cls(at % MOST, stop, stop + more % MOST, policies[policy % 3], cap, pieces)


@dataclass
class Taken:
    """What came of a response: bytes in their place, or why not. place: offset of their first in the object."""

    error: BaseException | None
    found: Any = None
    place: int = 0
    memory: bytes = b""
    filled: int = 0
    reusable: bool = False
    used: int = 0


class Receiver:
    """A ResponseParser whose judge is `validation.judge` alone, and memory that shows what was written."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.found: Any = None
        self.memory = bytearray()

    def judge(self, head: Head) -> Body:
        asked = self.asked
        if head.status not in validation.BRINGING:
            return Body(memoryview(bytearray(64)))
        self.found = found = validation.judge(
            head, asked.at, asked.stop, asked.limit, asked.on_no_range, asked.cap
        )
        if isinstance(found, validation.End):
            return Body(memoryview(bytearray()))
        if found.open:
            return Body(memoryview(bytearray()), found.skip, self.grow)
        place = 0 if found.all else asked.at
        assert place <= found.stop or found.stop <= place, found
        self.memory = bytearray([UNTOUCHED]) * max(0, min(found.stop - place, 1 << 20))
        if found.stop - place > 1 << 20:
            raise BadResponse("more than this fuzzer holds")
        return Body(memoryview(self.memory), found.skip, whole=True)

    def grow(self, needed: int) -> memoryview:
        place = 0 if self.found.all else self.asked.at
        room = min(needed, max(0, self.asked.limit - place))
        if room > len(self.memory):
            self.memory = self.memory + bytearray([UNTOUCHED]) * (room - len(self.memory))
        return memoryview(self.memory)

    def receive(self, data: bytes, sizes: tuple[int, ...]) -> Taken:
        exchange = ResponseParser(memoryview(bytearray(SCRATCH)), self.judge)
        used = turn = 0
        try:
            while not exchange.done:
                space = exchange.space()
                assert len(space) > 0, "a receive into nothing"
                piece = data[used : used + min(len(space), sizes[turn % len(sizes)])]
                space[: len(piece)] = piece
                used, turn = used + len(piece), turn + 1
                exchange.received(len(piece))
        except (BadResponse, Error, ConnectionEnded) as error:
            return Taken(error, self.found)
        place = 0 if getattr(self.found, "all", False) else self.asked.at
        return Taken(None, self.found, place, bytes(self.memory), exchange.filled, exchange.reusable, used)


def check(data: bytes) -> None:
    """AssertionError if the engine takes what it may not."""
    line, _, response = data.partition(b"\n")
    asked = Asked.parse(line)
    taken = Receiver(asked).receive(response, asked.sizes)
    at_once = Receiver(asked).receive(response, (1 << 20,))
    assert type(taken.error) is type(at_once.error), f"it depends on the pieces: {taken}, {at_once}"
    assert (taken.memory[: taken.filled], taken.filled) == (
        at_once.memory[: at_once.filled],
        at_once.filled,
    ), "the bytes depend on the pieces"
    if taken.error is not None or not isinstance(taken.found, validation.Take):
        return
    if not taken.found.open:
        assert taken.filled == len(taken.memory), "a hole"
    whole = body_by_another(response)
    if whole is None:
        return
    # What is in the memory is what another parser finds at that place of the body.
    bytes_taken = taken.memory[: taken.filled]
    assert whole[taken.found.skip : taken.found.skip + taken.filled] == bytes_taken, (
        f"not the bytes of the body: {bytes_taken[:40]!r}"
    )


class _Sock:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BufferedIOBase:
        return io.BytesIO(self._data)


def body_by_another(response: bytes) -> bytes | None:
    """The body as the standard library reads it; None where it does not, or makes something of what is no HTTP."""
    lines = response.partition(b"\r\n\r\n")[0].split(b"\r\n")
    if not all(_FIELD.fullmatch(line) for line in lines[1:]) or len({line.lower() for line in lines}) < len(
        lines
    ):
        return None
    try:
        other = http.client.HTTPResponse(_Sock(response))  # type: ignore[arg-type]
        other.begin()
        if other.status < 200:
            return None
        return other.read()
    except (http.client.HTTPException, ValueError, OSError, OverflowError, MemoryError):
        return None


def corpus() -> list[Path]:
    return sorted(CORPUS.iterdir())
