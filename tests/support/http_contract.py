"""The contract of a Reader over HTTP, for each HTTP service."""

from typing import Any

import pytest
from awaited import Awaited
from contract import DATA, RANGES, RESULTS, Make, ReaderContract

import _uring
import rangeio


class HttpContract(ReaderContract):
    """Facts that come from the server, mainly the size, are unknown before the first request."""

    @pytest.fixture(params=["pool"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        """The backend that reads files does not matter here; one is enough."""
        name: str = request.param
        return name

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"gap": None},
            {"gap": 50},
            {"gap": "auto"},
            {"gap": 2**40, "max_merged": None},
            {"max_merged": 1},
            {"chunk": 10_000},
            {"chunk": 70_000, "concurrent": 2},
            {"concurrent": 1},
            {"gap": None, "chunk": 100_000, "concurrent": 64},
        ],
        ids=str,
    )
    def test_read_ranges(self, reader: rangeio.Reader, options: Any) -> None:
        assert reader.read_ranges(RANGES, **options) == RESULTS
        assert reader.read_ranges(RANGES, on_error="return", **options) == RESULTS
        found = dict(reader.iter_ranges(iter(RANGES), **options))
        assert [found[index] for index in range(len(RANGES))] == RESULTS

    def test_plan(self, reader: rangeio.Reader) -> None:
        assert reader.stat().size == len(DATA)
        super().test_plan(reader)

    def test_size_and_stat(self, reader: rangeio.Reader) -> None:
        assert reader.stat().size == len(DATA)
        super().test_size_and_stat(reader)

    def test_what_is_counted(self, reader: rangeio.Reader, reactor: _uring.Reactor) -> None:
        """Reads and their bytes, as those of files; whoever makes them: the core, the engine, a store's library."""
        for read, reads, nbytes in (
            (lambda: reader.read_at(10, 1000), 1, 1000),
            (lambda: reader.read_at(20, 100_000), 1, 100_000),
            (lambda: reader.read_into(bytearray(50), 7), 1, 50),
            (lambda: reader.read_ranges([(0, 10), (50_000, 50_020)], gap=None), 2, 30),
            (lambda: dict(reader.iter_ranges([(0, 10), (50_000, 50_020)], gap=None)), 2, 30),
            (lambda: reader.read_ranges_into([(bytearray(9), 0), (bytearray(8), 60_000)]), 2, 17),
            (lambda: reader.read_batch([0, 50_000], 40), 2, 80),
        ):
            before, own = reactor.stats(), reader.stats
            read()
            after = reactor.stats()
            found = [after[name] - before[name] for name in ("reads", "bytes_asked", "bytes_fetched")]
            assert found == [reads, nbytes, nbytes]
            planned = reader.stats["bytes_fetched"] - own["bytes_fetched"]
            assert planned in (0, nbytes)  # of planned reads only

    def test_empty_object(self, make: Make) -> None:
        assert make(b"").stat().size == 0
        super().test_empty_object(lambda data: asked(make(data)))


def asked(reader: rangeio.Reader) -> rangeio.Reader:
    """The reader, after its size has become known."""
    reader.stat()
    return reader


class Asking(Awaited):
    """As Awaited, but requests the size if the AsyncReader does not know it yet."""

    @property
    def size(self) -> int | None:
        known = self.reader.size
        asked_for: int | None = self._run("stat").size if known is None else known
        return asked_for

    def slice(self, *args: Any) -> "Asking":
        return Asking(self.reader.slice(*args), self.loop)

    def __reduce__(self) -> tuple[Any, ...]:
        return Asking, (self.reader, self.loop)
