"""The planner, against what it promises: every small case, then random large ones. The oracle is slicing of bytes.

All of it for the compiled planner and for the one in Python.
"""

import itertools
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import _uring
from rangeio import ranges as planned
from rangeio.errors import NotFoundError
from rangeio.ranges import (
    OPEN,
    Range,
    Suffix,
    UnprovenSize,
    bounds,
    bounds_of_many,
    check,
    lay_out,
    make_plan,
    needs_size,
    scatter,
    split,
)
from rangeio.results import Counters, Cutting

Pairs = list[tuple[int, int]]


PLANNERS = ["_uring.pure.planning", *([] if _uring.extension_error() else ["_uring.planning"])]


@pytest.fixture(scope="module", autouse=True, params=PLANNERS)
def planner(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What plans in these tests."""
    module = import_module(request.param)
    usual, planned.planning = planned.planning, module
    yield module
    planned.planning = usual


def arrays(pairs: Pairs) -> tuple[Any, Any]:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()


def obvious(pairs: Pairs, gap: int) -> Pairs:
    """What coalesce does without max_merged, as one would write it on a board."""
    merged: Pairs = []
    for start, stop in sorted(pair for pair in pairs if pair[0] < pair[1]):
        if merged and start - merged[-1][1] <= gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def check_plan(pairs: Pairs, gap: int | None, max_merged: int | None) -> None:
    """The exact properties of a plan."""
    layout = lay_out(*arrays(pairs), gap=gap, max_merged=max_merged)
    starts, stops = layout.starts.tolist(), layout.stops.tolist()
    requests = list(zip(starts, stops, strict=True))
    assert layout.lengths.tolist() == [stop - start for start, stop in requests]
    assert layout.nbytes == min(OPEN, sum(stop - start for start, stop in requests if stop != OPEN))
    if layout.assigned is None:
        assert requests == pairs
        requests = sorted(pair for pair in pairs if pair[0] < pair[1])
    else:
        check_assigned(pairs, requests, layout.assigned.tolist())
    if gap is None:
        assert layout.assigned is None
        return
    for (_, stop), (start, _) in itertools.pairwise(requests):
        assert start >= stop, "a byte is fetched twice"
        assert max_merged is not None or start - stop > gap
    if max_merged is None:
        assert requests == obvious(pairs, gap)
    else:
        check_bound(pairs, requests, gap, max_merged)


def check_assigned(pairs: Pairs, requests: Pairs, assigned: list[int]) -> None:
    """Each range lies in its request; and something was merged, or they would be as they were."""
    assert requests == sorted(requests)
    assert {start for start, _ in requests} <= {start for start, _ in pairs}
    assert {stop for _, stop in requests} <= {stop for _, stop in pairs}
    assert len(requests) < sum(start < stop for start, stop in pairs)
    for (start, stop), request in zip(pairs, assigned, strict=True):
        if start == stop:
            assert request == -1
        else:
            assert requests[request][0] <= start < stop <= requests[request][1]


def check_bound(pairs: Pairs, requests: Pairs, gap: int, max_merged: int) -> None:
    """Beyond max_merged only what overlaps is joined; and no request could have taken in the next cluster."""
    clusters = obvious_clusters(pairs)
    assert obvious(requests, gap) == obvious(pairs, gap)
    for index, (start, stop) in enumerate(requests):
        inside = [cluster for cluster in clusters if start <= cluster[0] and cluster[1] <= stop]
        assert inside[0][0] == start
        assert inside[-1][1] == stop
        assert len(inside) == 1 or stop - start <= max_merged
        if index + 1 < len(requests) and requests[index + 1][0] - stop <= gap:
            following = next(cluster for cluster in clusters if cluster[0] == requests[index + 1][0])
            assert following[1] - start > max_merged


def obvious_clusters(pairs: Pairs) -> Pairs:
    """Ranges joined only where they share a byte."""
    return obvious(pairs, -1)


SMALL = [(start, stop) for start in range(7) for stop in range(start, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("gap", [None, 0, 1, 2])
@pytest.mark.parametrize("max_merged", [None, 1, 3])
def test_every_small_plan(gap: int | None, max_merged: int | None) -> None:
    """All lists of up to three ranges on six bytes, in every order."""
    for count in range(3):
        for pairs in itertools.product(SMALL, repeat=count):
            check_plan(list(pairs), gap, max_merged)
    for triple in itertools.combinations_with_replacement(SMALL, 3):
        check_plan(list(triple), gap, max_merged)
        check_plan([triple[2], triple[0], triple[1]], gap, max_merged)


place = st.one_of(st.integers(0, 60), st.integers(0, OPEN))
pair = st.tuples(place, place).map(lambda ends: (min(ends), max(ends)))


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    pairs=st.lists(pair, max_size=25),
    gap=st.one_of(st.none(), st.integers(0, 20), st.integers(0, OPEN)),
    max_merged=st.one_of(st.none(), st.integers(1, 40), st.integers(1, OPEN)),
)
def test_large_plans(pairs: Pairs, gap: int | None, max_merged: int | None) -> None:
    """Anywhere below 2**63: nothing overflows."""
    check_plan(pairs, gap, max_merged)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 70), st.integers(0, 70)).map(lambda p: (min(p), max(p))), max_size=12
    ),
    size=st.integers(0, 64),
    gap=st.sampled_from([None, 0, 1, 5, 100]),
    max_merged=st.sampled_from([None, 1, 10]),
)
def test_results_are_slices(pairs: Pairs, size: int, gap: int | None, max_merged: int | None) -> None:
    """R0, with replies that end where the object does, and the size known or not."""
    data = bytes(range(size))
    for known in (size, None):
        layout = lay_out(*bounds_of_many(pairs, known), gap=gap, max_merged=max_merged)
        replies: Any = [
            Bytes(data[start:stop]) for start, stop in zip(layout.starts, layout.stops, strict=True)
        ]
        assert (
            scatter(layout, replies, lambda: Bytes(b""))
            == [  # type: ignore[arg-type, return-value]
                data[start:stop] for start, stop in pairs
            ]
        )
        cutting = Cutting(layout, "raise", Counters())
        found: dict[int, Any] = dict.fromkeys(cutting.empty, b"")
        for request, reply in reversed(list(enumerate(replies))):
            found |= cutting.take(request, reply)
        assert [found[index] for index in range(len(pairs))] == [data[start:stop] for start, stop in pairs]


class Bytes(bytes):
    """What cutting needs of a Buffer."""

    def __getitem__(self, index: Any) -> Any:
        return Bytes(super().__getitem__(index))

    def compact(self) -> "Bytes":
        return self


@given(start=st.integers(0, 100), length=st.integers(0, 100), chunk=st.one_of(st.none(), st.integers(1, 40)))
def test_split(start: int, length: int, chunk: int | None) -> None:
    """The pieces are the range, none is empty, none is longer than chunk, and none could be longer."""
    pieces = split(start, start + length, chunk)
    assert [byte for first, last in pieces for byte in range(first, last)] == list(
        range(start, start + length)
    )
    assert all(0 < last - first <= (chunk or length) for first, last in pieces)
    assert all(last - first == chunk for first, last in pieces[:-1])


def test_an_open_end_is_not_split() -> None:
    assert split(5, OPEN, 10) == [(5, OPEN)]


SPELLINGS = [
    (None, (0, 100)),
    ((3, 8), (3, 8)),
    ([3, 8], (3, 8)),
    ((3, None), (3, 100)),
    ((3, 1000), (3, 100)),
    ((300, 1000), (100, 100)),
    (slice(None), (0, 100)),
    (slice(3, None), (3, 100)),
    (slice(None, 8, 1), (0, 8)),
    (range(8), (0, 8)),
    (range(3, 8), (3, 8)),
    (Suffix(8), (92, 100)),
    (Suffix(0), (100, 100)),
    (Suffix(1000), (0, 100)),
    (np.array([3, 8]), (3, 8)),
    ((np.uint64(3), np.int8(8)), (3, 8)),
    ((False, True), (0, 1)),
]


@pytest.mark.parametrize(("spelling", "meaning"), SPELLINGS, ids=[repr(item) for item, _ in SPELLINGS])
def test_spellings(spelling: Any, meaning: tuple[int, int]) -> None:
    assert bounds(spelling, 100) == meaning
    starts, stops = bounds_of_many([spelling, (1, 2)], 100)
    assert ((starts[0], stops[0]), (starts[1], stops[1])) == (meaning, (1, 2))


def test_unknown_size() -> None:
    assert bounds((3, None), None) == (3, OPEN)
    assert bounds((3, 8), None) == (3, 8)
    assert bounds(None, None) == (0, OPEN)
    assert bounds(slice(5, None), None) == (5, OPEN)
    with pytest.raises(ValueError, match="not known"):
        bounds(Suffix(3), None)
    assert needs_size([(0, 1), Suffix(3)])
    assert not needs_size([(0, 1), None, slice(3)])
    assert not needs_size(np.array([[0, 1]]))


@pytest.mark.parametrize(
    ("n", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError), (2**63, OverflowError)]
)
def test_wrong_suffixes(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Suffix(n)


def test_errors_name_the_range() -> None:
    """Of a plain list, a mixed one and an array alike."""
    for ranges in ([(0, 1), (5, 3)], [None, (5, 3)], np.array([[0, 1], [5, 3]])):
        with pytest.raises(ValueError, match=r"ranges\[1\]: start 5 is after stop 3"):
            bounds_of_many(ranges, 100)
    with pytest.raises(TypeError, match=r"ranges\[2\]"):
        bounds_of_many([(0, 1), (5, 7), (5.0, 9)], 100)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="is not a range"):
        bounds_of_many((0, 100), None)  # type: ignore[arg-type]


def test_the_plan_tells_what_is_sent() -> None:
    layout = lay_out(
        *bounds_of_many([(0, 10), (12, 20), (40, 40), (15, 30), (100, 200)], 150), gap=2, max_merged=None
    )
    plan = make_plan("x", layout, origin=1000, chunk=20, concurrent=2)
    assert plan.requests == [
        ("x", 1000, 20),
        ("x", 1020, 10),
        ("x", 1100, 20),
        ("x", 1120, 20),
        ("x", 1140, 10),
    ]
    assert plan.assigned == [0, 0, None, 0, 2]
    assert (plan.bytes_requested, plan.bytes_fetched) == (83, 80)
    assert (plan.largest_request, plan.parallel) == (20, 2)
    assert plan.read_amplification == pytest.approx(80 / 83)
    assert "5 ranges -> 5 requests" in repr(plan)


def test_a_plan_of_nothing() -> None:
    plan = make_plan("x", lay_out(*bounds_of_many([], 10), gap=0, max_merged=1), chunk=None, concurrent=None)
    assert (plan.requests, plan.assigned, plan.read_amplification, plan.parallel) == ([], [], 0.0, 0)


def test_a_plan_of_unknown_length() -> None:
    layout = lay_out(*bounds_of_many([(0, 10), (100, None)], None), gap=0, max_merged=None)
    plan = make_plan("x", layout, chunk=5, concurrent=None)
    assert plan.requests == [("x", 0, 5), ("x", 5, 5), ("x", 100, None)]
    assert (plan.bytes_requested, plan.bytes_fetched) == (10, 10)


number = st.one_of(st.integers(-3, 70), st.sampled_from([OPEN - 1, OPEN, OPEN + 1, 2**64]))
spelling: Any = st.one_of(
    st.tuples(number, st.one_of(number, st.none())),
    st.lists(number, max_size=3),
    st.builds(slice, number, number),
    st.builds(Suffix, st.integers(0, 70)),
    st.tuples(st.booleans(), st.integers(0, 70).map(np.int32)),
    st.none(),
    st.sampled_from([(0.5, 1), ("0", "1"), "01", range(3, 9), np.array([3, 8])]),
)


def outcome(work: Any) -> Any:
    try:
        return work()
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(
    spellings=st.one_of(
        st.lists(spelling, max_size=4), st.lists(st.tuples(number, number), max_size=8).map(tuple)
    ),
    size=st.sampled_from([None, 0, 30, 60, UnprovenSize(30)]),
)
def test_many_mean_what_each_means(spellings: list[Range], size: int | None) -> None:
    """Of the first wrong one the error, else the numbers of each; checked without a size first, too."""
    expected = outcome(lambda: [bounds(item, size) for item in spellings])
    starts_stops = outcome(lambda: bounds_of_many(spellings, size))
    if isinstance(expected, type):
        assert starts_stops is expected
        return
    assert list(zip(*(array.tolist() for array in starts_stops), strict=True)) == expected
    later = check(spellings).within(size)
    assert [array.tolist() for array in later] == [array.tolist() for array in starts_stops]


@given(
    pairs=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=8),
    kind=st.sampled_from(["i1", "i8", "u8", ">i8", "u4"]),
    size=st.sampled_from([None, 30]),
)
def test_arrays_of_ranges(pairs: Pairs, kind: str, size: int | None) -> None:
    """Of any integers, in any layout, aligned or not; they are not changed."""
    ordered = [(min(pair), max(pair)) for pair in pairs]
    table = np.array(ordered, kind).reshape(-1, 2)
    packed = np.zeros(len(table), [("odd", "u1"), ("pair", kind, 2)])
    packed["pair"] = table
    for array in (table, table[::-1][::-1], np.asfortranarray(table), packed["pair"]):
        array.flags.writeable = False
        starts, stops = bounds_of_many(array, size)
        assert list(zip(starts.tolist(), stops.tolist(), strict=True)) == [
            bounds(pair, size) for pair in ordered
        ]
        assert array.tolist() == table.tolist()


def test_an_index_that_changes_the_list(planner: Any) -> None:
    """What code runs while numbers are taken is the caller's, and may do anything."""

    class Clearing:
        def __index__(self) -> int:
            del ranges[1:]
            return 3

    ranges: list[Any] = [(0, 1), (Clearing(), 5), (7, 8)]
    found = planner.pairs(ranges)
    assert found is None or [array.tolist() for array in found] == [[0, 3, 7], [1, 5, 8]]


@given(
    ranges=st.lists(st.tuples(st.integers(0, OPEN), st.integers(0, OPEN)), max_size=8),
    part=pair,
)
def test_a_part_of_an_object(planner: Any, ranges: Pairs, part: tuple[int, int]) -> None:
    first, last = part
    starts, lengths = planner.shifted(*arrays(ranges), first, last - first)
    for start, length, place, want in zip(*arrays(ranges), starts.tolist(), lengths.tolist(), strict=True):
        assert first <= place <= place + want <= last
        assert place == min(first + int(start), last)
        assert want == min(int(length), last - place)


def test_who_came_short(planner: Any) -> None:
    starts, stops = arrays([(0, 3), (0, 3), (5, 5), (9, OPEN), (0, 3)])
    assert planner.shorter([b"abc", b"ab", b"", b"", NotFoundError("gone")], starts, stops) == [1]
    assert planner.total_bytes([b"abc", b"", b"de"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("apart", [4096, 8192, 1_000_000], ids=["touching", "apart", "beyond max_merged"])
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_planning_is_fast(apart: int, order: str) -> None:
    """100,000 ranges in well under a second even on a busy machine: nothing is quadratic, nothing loops per range."""
    length = apart if apart == 1_000_000 else 4096
    pairs = [(index * apart, index * apart + length) for index in range(100_000)]
    if order == "shuffled":
        np.random.default_rng(0).shuffle(pairs)
        pairs = [(int(start), int(stop)) for start, stop in pairs]
    began = time.process_time()
    layout = lay_out(*bounds_of_many(pairs, None), gap=0, max_merged=1 << 20)
    assert time.process_time() - began < 0.5
    assert layout.starts.size == (391 if apart == 4096 else 100_000)
