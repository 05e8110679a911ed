"""The Reader's own work, seen from a Source that records what is sent and fails where it is told to."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.data import pattern, write_pattern
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import _uring
import rangeio
from rangeio import Suffix
from rangeio.options import Options
from rangeio.ranges import split
from rangeio.service import Stat
from rangeio.services.memory import MemorySource

DATA = pattern(0, 1000)


class Recorder(MemorySource):
    """Writes down every request; fails those that touch a bad byte; may not know its size."""

    def __init__(
        self, reactor: _uring.Reactor, bad: set[int], status: Any = "permanent", sized: bool = True
    ) -> None:
        super().__init__(reactor, "recorded", DATA)
        self.bad, self.status, self.sized = bad, status, sized
        self.sent: list[tuple[int, int]] = []
        self.stats_asked = 0

    @property
    def size(self) -> int | None:
        return super().size if self.sized else None

    def stat(self) -> Stat:
        self.stats_asked += 1
        return super().stat()

    def _fetch_one(self, start: int, length: int, chunk: int | None) -> _uring.Buffer:
        for first, last in split(start, start + length, chunk):
            self.sent.append((first, last - first))
            if hit := self.bad & set(range(first, min(last, len(DATA)))):
                raise rangeio.UnexpectedError(
                    f"byte {min(hit)} is bad", status=self.status, offset=start, limit=length
                )
        return super()._fetch_one(start, length, chunk)

    def fetch(
        self, starts: Any, lengths: Any, *, chunk: int | None, concurrent: int | None
    ) -> list[_uring.Buffer]:
        results = []
        for index, result in self.fetch_each(starts, lengths, chunk=chunk, concurrent=concurrent):
            if isinstance(result, rangeio.Error):
                result.index = index
                raise result
            results.append(result)
        return results

    def fetch_each(
        self, starts: Any, lengths: Any, *, chunk: int | None, concurrent: int | None
    ) -> Iterator[tuple[int, Any]]:
        self._check_open(None, None)
        for index, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            try:
                yield index, self._fetch_one(start, length, chunk)
            except rangeio.Error as error:
                yield index, error.with_traceback(None)


@pytest.fixture
def reactor() -> _uring.Reactor:
    """Any will do: nothing here depends on the backend."""
    return _uring.default_reactor()


def reader_of(source: Recorder, **options: Any) -> rangeio.Reader:
    return rangeio.Reader(source, Options().updated(options))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(st.integers(0, 1010), st.integers(0, 60)), max_size=12),
    gap=st.sampled_from([None, 0, 5, 100]),
    max_merged=st.sampled_from([None, 1, 64]),
    chunk=st.sampled_from([None, 7, 50]),
)
def test_the_plan_is_what_is_sent(
    reactor: _uring.Reactor, pairs: Any, gap: int | None, max_merged: int | None, chunk: int | None
) -> None:
    """Request for request, in order."""
    source = Recorder(reactor, set())
    reader = reader_of(source, gap=gap, max_merged=max_merged, chunk=chunk)
    ranges = [(start, start + length) for start, length in pairs]
    plan = reader.plan(ranges)
    assert source.sent == []
    assert reader.read_ranges(ranges) == [DATA[start:stop] for start, stop in ranges]
    assert source.sent == [(offset, length) for _, offset, length in plan.requests]
    assert sum(length for _, length in source.sent) == plan.bytes_fetched


def test_nothing_is_sent_for_nothing(reactor: _uring.Reactor) -> None:
    source = Recorder(reactor, set())
    reader = reader_of(source)
    assert reader.read_ranges([(5, 5), (1000, 2000), Suffix(0), (5000, None)]) == [b""] * 4
    assert source.sent == []


def test_the_size_is_asked_for_when_needed(reactor: _uring.Reactor) -> None:
    source = Recorder(reactor, set(), sized=False)
    reader = reader_of(source)
    assert reader.read_ranges([(0, 5), (990, None), (995, 2000)]) == [DATA[:5], DATA[990:], DATA[995:]]
    assert source.stats_asked == 0
    assert reader.read_ranges([(0, 5), Suffix(10)]) == [DATA[:5], DATA[-10:]]
    assert reader.read_range(Suffix(3)) == DATA[-3:]
    assert source.stats_asked == 2
    assert reader.size == 1000


# --- failures of some ranges ---------------------------------------------------------------------------------

RANGES = [(0, 100), (100, 200), (205, 300), (290, 400), (600, 600), (700, 710)]
EXPECTED = [DATA[start:stop] for start, stop in RANGES]


def test_a_gap_may_fail(reactor: _uring.Reactor) -> None:
    """Bytes that nobody asked for, fetched only to merge, fail nobody."""
    for read in (
        lambda reader: reader.read_ranges(RANGES),
        lambda reader: reader.read_ranges(RANGES, on_error="return"),
        lambda reader: [buffer for _, buffer in sorted(reader.iter_ranges(RANGES), key=lambda pair: pair[0])],
    ):
        assert read(reader_of(Recorder(reactor, {202, 500}), gap=1000, max_merged=None)) == EXPECTED


@pytest.mark.parametrize("gap", [None, 0, 10, 1000])
def test_only_what_touches_a_fault_fails(reactor: _uring.Reactor, gap: int | None) -> None:
    """Byte 295 is in two ranges. Whatever was merged, these two fail and no other."""
    reader = reader_of(Recorder(reactor, {295}), gap=gap)
    found = reader.read_ranges(RANGES, on_error="return")
    assert [isinstance(result, rangeio.UnexpectedError) for result in found] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert [result.index for result in found if isinstance(result, rangeio.Error)] == [2, 3]
    assert [result for result in found if not isinstance(result, rangeio.Error)] == EXPECTED[:2] + EXPECTED[
        4:
    ]
    with pytest.raises(rangeio.UnexpectedError, match="byte 295") as caught:
        reader.read_ranges(RANGES)
    assert caught.value.index == 2
    with pytest.raises(rangeio.UnexpectedError) as caught:
        list(reader.iter_ranges(RANGES))
    assert caught.value.index in (2, 3)
    assert dict(reader.iter_ranges(RANGES, on_error="return")).keys() == set(range(6))


def test_what_may_pass_is_not_asked_twice(reactor: _uring.Reactor) -> None:
    """A temporary failure has had its retries below; asking range by range would only multiply them."""
    source = Recorder(reactor, {295}, status="persistent")
    reader = reader_of(source, gap=10)
    with pytest.raises(rangeio.UnexpectedError) as caught:
        reader.read_ranges(RANGES)
    assert caught.value.index == 0
    assert len(source.sent) == 1
    found = reader.read_ranges(RANGES, on_error="return")
    assert [isinstance(result, rangeio.Error) for result in found] == [True, True, True, True, False, False]
    assert [result.index for result in found[:4]] == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_counters(reactor: _uring.Reactor) -> None:
    reader = reader_of(Recorder(reactor, set()), gap=10)
    assert set(reader.stats.values()) == {0}
    reader.read_ranges(RANGES)
    once = dict(reader.stats)
    assert once == {"ranges": 6, "requests": 2, "bytes_requested": 415, "bytes_fetched": 410}
    assert len(list(reader.iter_ranges([wanted for wanted in RANGES if wanted[0] < wanted[1]]))) == 5
    assert reader.stats == {"ranges": 11, "requests": 4, "bytes_requested": 830, "bytes_fetched": 820}


# --- many at once --------------------------------------------------------------------------------------------


def test_sixty_four_threads(backend: str, tmp_path: Path) -> None:
    """One Reader, every kind of read, all right."""
    nbytes = 2_000_000
    path = write_pattern(tmp_path / "data", nbytes)
    reactor = _uring.Reactor(backend=backend)  # type: ignore[arg-type]
    reader = rangeio.open(path, reactor=reactor)
    wrong: list[object] = []
    start = threading.Barrier(64)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        start.wait()
        for _ in range(10):
            places = [int(place) for place in random.integers(0, nbytes - 100_000, 8)]
            at = places[0]
            table = reader.read_batch(places, 100)
            space = bytearray(1000)
            reader.read_into(space, at)
            right = [
                reader.read_at(at, 4096) == pattern(at, at + 4096),
                reader.read_at(at, 100_000) == pattern(at, at + 100_000),
                reader.read_ranges([(place, place + 500) for place in places])
                == [pattern(place, place + 500) for place in places],
                bytes(table) == b"".join(pattern(place, place + 100) for place in places),
                space == pattern(at, at + 1000),
            ]
            if not all(right):
                wrong.append((seed, places, right))

    threads = [threading.Thread(target=run, args=(work, seed, wrong)) for seed in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    reader.close()
    assert (
        reactor.stats()["in_flight"] == reactor.stats()["buffers_live"] == reactor.stats()["files_open"] == 0
    )
    reactor.close()


def run(work: Any, seed: int, failures: list[object]) -> None:
    try:
        work(seed)
    except BaseException as error:
        failures.append(error)


def test_close_under_reads(backend: str, tmp_path: Path) -> None:
    """Reads under way complete or were never begun: right bytes or ClosedError, nothing else."""
    path = write_pattern(tmp_path / "data", 1_000_000)
    reactor = _uring.Reactor(backend=backend)  # type: ignore[arg-type]
    for _ in range(10):
        reader = rangeio.open(path, reactor=reactor)
        wrong: list[object] = []
        begun = threading.Barrier(5)

        def work(_: int, reader: rangeio.Reader = reader, wrong: Any = wrong, begun: Any = begun) -> None:
            begun.wait()
            try:
                for at in range(0, 800_000, 1000):
                    if reader.read_at(at, 100_000) != pattern(at, at + 100_000):
                        wrong.append(at)
            except rangeio.ClosedError:
                pass

        threads = [threading.Thread(target=run, args=(work, seed, wrong)) for seed in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        reader.close()
        for thread in threads:
            thread.join()
        assert wrong == []
    assert reactor.stats()["files_open"] == reactor.stats()["in_flight"] == 0
    reactor.close()
