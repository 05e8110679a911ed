"""What every Reader must do, whatever service and backend it reads from. A subclass gives the fixture `make`.

The oracle is slicing of bytes: the end of the object, empty ranges, wrong arguments, closed readers, the order of
effects. What only files can do is in test_files.py.
"""

import ctypes
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rangeio
from rangeio import Suffix
from rangeio.ranges import bounds

Make = Callable[[bytes], rangeio.Reader]

DATA = random.Random(4382).randbytes(200_003)
SIZE = len(DATA)
HUGE = 2**63

NEGATIVE = [-1, -(2**70), np.int64(-5)]
NOT_INTEGERS = [1.0, 0.5, "1", b"1", None, np.float64(2), [1], 1j]
TOO_LARGE = [HUGE, 2**64, 2**100, np.uint64(HUGE)]
WRONG = [
    *((value, ValueError) for value in NEGATIVE),
    *((value, TypeError) for value in NOT_INTEGERS),
    *((value, OverflowError) for value in TOO_LARGE),
]

MIXED: list[tuple[Any, bytes]] = [
    ((0, 100), DATA[:100]),
    ((50, 200), DATA[50:200]),
    ((200, 250), DATA[200:250]),
    ((0, 100), DATA[:100]),
    ((SIZE - 10, SIZE + 100), DATA[-10:]),
    ((SIZE, SIZE + 1), b""),
    ((SIZE + 1000, SIZE + 2000), b""),
    ((7, 7), b""),
    (Suffix(10), DATA[-10:]),
    (Suffix(0), b""),
    (Suffix(SIZE + 5), DATA),
    (slice(3, 9), DATA[3:9]),
    (slice(None, 5), DATA[:5]),
    (slice(SIZE - 3, None), DATA[-3:]),
    (range(4, 8), DATA[4:8]),
    (range(4, 4), b""),
    ((np.int64(1), np.uint8(3)), DATA[1:3]),
    ([2, 4], DATA[2:4]),
    (np.array([5, 6]), DATA[5:6]),
    ((100_000, None), DATA[100_000:]),
    (None, DATA),
    ((3, HUGE - 1), DATA[3:]),
]
RANGES = [wanted for wanted, _ in MIXED]
RESULTS = [expected for _, expected in MIXED]

WRONG_RANGES = [
    ((5, 3), ValueError),
    ((-1, 3), ValueError),
    ((0, -1), ValueError),
    (slice(0, 10, 2), ValueError),
    (slice(-5, None), ValueError),
    (range(0, 10, 3), ValueError),
    (range(9, 0, -1), ValueError),
    ((1, 2, 3), ValueError),
    ((1,), ValueError),
    ((0.0, 5), TypeError),
    ((0, 5.0), TypeError),
    (slice(0.0, 5), TypeError),
    ((None, 5), TypeError),
    ("ab", TypeError),
    (b"ab", TypeError),
    (5, TypeError),
    ({0, 5}, TypeError),
    ((0, HUGE), OverflowError),
    ((HUGE, None), OverflowError),
]


class ReaderContract:
    """Inherit, and define the fixture `make`: a function that returns a Reader of an object with the given bytes."""

    BASE = 0
    """The position of the Reader's offset 0 in the object."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    @pytest.fixture
    def reader(self, make: Make) -> rangeio.Reader:
        return make(DATA)

    # --- one range -------------------------------------------------------------------------------------------

    def test_read_at(self, reader: rangeio.Reader) -> None:
        for limit in (1, 4096, 65_536, 65_537, 150_000):
            for offset in (0, 1, 511, 4096, 50_003):
                assert reader.read_at(offset, limit) == DATA[offset : offset + limit]

    def test_read_at_the_end(self, reader: rangeio.Reader) -> None:
        """Fewer bytes only at the end; none past it."""
        for offset in (SIZE, SIZE - 1, SIZE - 9, SIZE - 4096, SIZE - 100_001):
            for limit in (1, 10, 100_000, HUGE - 1):
                assert reader.read_at(offset, limit) == DATA[offset : offset + limit]

    def test_read_past_the_end(self, reader: rangeio.Reader) -> None:
        """Empty, without allocating memory for missing bytes."""
        for offset in (SIZE + 1, SIZE + 4096, 2**40, HUGE - 1):
            for limit in (1, 100_000, HUGE - 1):
                assert reader.read_at(offset, limit).nbytes == 0

    def test_limit_zero(self, reader: rangeio.Reader) -> None:
        for offset in (0, 5, SIZE, SIZE + 1, HUGE - 1):
            assert len(reader.read_at(offset, 0)) == 0

    def test_keywords_and_integers(self, reader: rangeio.Reader) -> None:
        assert reader.read_at(offset=3, limit=4) == DATA[3:7]
        assert reader.read_at(np.int64(3), np.uint16(4)) == DATA[3:7]
        assert reader.read_at(True, True) == DATA[1:2]

    def test_wrong_numbers(self, reader: rangeio.Reader) -> None:
        """Refused before any I/O, for any value of the other argument."""
        for value, error in WRONG:
            self.refuse_number(reader, value, error)

    def refuse_number(self, reader: rangeio.Reader, value: Any, error: type[Exception]) -> None:
        calls: list[Callable[[], object]] = [
            lambda: reader.read_at(value, 1),
            lambda: reader.read_at(0, value),
            lambda: reader.read_at(value, 0),
            lambda: reader.read_exact(value, 1),
            lambda: reader.read_exact(0, value),
            lambda: reader.read_into(bytearray(4), value),
            lambda: reader.read_to_end(value),
            lambda: reader.read_range((value, None)),
            lambda: reader.slice(value, None),
            lambda: reader.read_batch([0, value], 4),
            lambda: reader.read_batch([0], value),
        ]
        for call in calls:
            with pytest.raises(error):
                call()

    def test_empty_object(self, make: Make) -> None:
        reader = make(b"")
        assert reader.size == 0
        assert reader.read_at(0, 100) == reader.read_to_end() == reader.read_range() == b""
        assert reader.read_ranges([(0, 5), Suffix(3), None, (9, 10)]) == [b""] * 4
        assert reader.read_into(bytearray(5)) == 0
        assert np.asarray(reader.read_batch([], 4)).shape == (0, 4)
        with pytest.raises(rangeio.UnexpectedEofError):
            reader.read_batch([0], 1)

    def test_read_exact(self, reader: rangeio.Reader) -> None:
        assert reader.read_exact(SIZE - 5, 5) == DATA[-5:]
        assert reader.read_exact(SIZE, 0) == b""
        with pytest.raises(EOFError) as caught:
            reader.read_exact(SIZE - 5, 6)
        assert isinstance(caught.value, rangeio.UnexpectedEofError)
        assert (caught.value.offset, caught.value.limit) == (self.BASE + SIZE - 5, 6)
        assert "5 of 6" in str(caught.value)

    def test_read_range(self, reader: rangeio.Reader) -> None:
        for wanted, expected in MIXED:
            assert reader.read_range(wanted) == expected, wanted

    def test_wrong_ranges(self, reader: rangeio.Reader) -> None:
        for wanted, error in WRONG_RANGES:
            self.refuse_range(reader, wanted, error)

    def refuse_range(self, reader: rangeio.Reader, wanted: Any, error: type[Exception]) -> None:
        calls: list[Callable[[], object]] = [
            lambda: reader.read_range(wanted),
            lambda: reader.read_ranges([(0, 1), wanted]),
            lambda: reader.iter_ranges([(0, 1), wanted]),
            lambda: reader.plan([wanted]),
        ]
        for call in calls:
            with pytest.raises(error):
                call()
        with pytest.raises(error, match=r"ranges\[1\]"):
            reader.read_ranges([(0, 1), wanted, (9, 8)])

    def test_read_to_end(self, reader: rangeio.Reader) -> None:
        assert reader.read_to_end() == DATA
        assert reader.read_to_end(SIZE - 7) == DATA[-7:]
        assert reader.read_to_end(SIZE + 7) == b""

    # --- into memory of the caller ---------------------------------------------------------------------------

    def test_read_into(self, reader: rangeio.Reader) -> None:
        space = bytearray(1000)
        assert reader.read_into(space, 77) == 1000
        assert space == DATA[77:1077]
        assert reader.read_into(memoryview(space)[10:20]) == 10
        assert space == DATA[77:87] + DATA[:10] + DATA[97:1077]

    @pytest.mark.parametrize("nbytes", [10, 100_000, SIZE + 5])
    def test_read_into_at_the_end(self, reader: rangeio.Reader, nbytes: int) -> None:
        """Fewer bytes than requested only here; the rest of the destination is unchanged."""
        space = bytearray(b"-" * nbytes)
        offset = max(0, SIZE - nbytes + 5)
        got = reader.read_into(space, offset)
        assert got == SIZE - offset
        assert space == DATA[offset:] + b"-" * (nbytes - got)
        assert reader.read_into(space, SIZE) == reader.read_into(space, SIZE + 99) == 0

    def test_read_into_arrays(self, reader: rangeio.Reader) -> None:
        table = np.zeros((10, 5), dtype="<f4")
        assert reader.read_into(table, 8) == 200
        assert table.tobytes() == DATA[8:208]
        record = np.zeros(3, dtype=[("a", "u1"), ("b", "<u4")])
        assert reader.read_into(record) == 15
        assert record.tobytes() == DATA[:15]
        assert reader.read_into(bytearray()) == reader.read_into(np.empty(0, "f4")) == 0

    def test_read_into_refuses(self, reader: rangeio.Reader) -> None:
        """Before any I/O: a read-only destination, a non-contiguous one, and an object without a buffer."""
        frozen = np.zeros(8, "u1")
        frozen.flags.writeable = False
        for wrong in (bytes(8), memoryview(bytes(8)), frozen, "text", 5, None):
            with pytest.raises(TypeError):
                reader.read_into(wrong)  # type: ignore[arg-type]
        space = np.full(16, 7, "u1")
        for gappy in (space[::2], np.asfortranarray(np.zeros((3, 3)))[:, :2], memoryview(space)[::-1]):
            with pytest.raises(BufferError):
                reader.read_into(gappy)
        assert set(space.tolist()) == {7}

    @pytest.mark.parametrize("count", [4, 20_000])
    def test_read_into_memory_that_holds_pointers(self, reader: rangeio.Reader, count: int) -> None:
        """Refused and unchanged: bytes of the object used as pointers would crash the process."""
        objects = np.full(count, "kept", object)
        records = np.array([(7, "kept")] * count, [("O", "i8"), ("b", object)])
        nested = np.array([((7, "kept"), 8)] * count, [("a", [("b", "i8"), ("c", object)]), ("d", "u1")])
        pointers = (ctypes.c_char_p * count)(b"kept")
        addresses = (ctypes.POINTER(ctypes.c_int) * count)()
        functions = (ctypes.CFUNCTYPE(None) * count)()
        for wrong in (objects, records, nested, pointers, addresses, functions, memoryview(objects)):
            with pytest.raises(TypeError, match="pointers"):
                reader.read_into(wrong)  # type: ignore[arg-type]
        assert objects[0] == objects[-1] == records["b"][-1] == nested["a"]["c"][-1] == "kept"
        assert pointers[0] == b"kept"
        assert not addresses[0]
        assert not functions[0]

    def test_read_into_numbers_of_all_kinds(self, reader: rangeio.Reader) -> None:
        """Also arrays that numpy does not export as a memoryview, and field names that look like formats."""
        kinds: list[Any] = ["?", "f2", "c8", "c16", "g", "M8[s]", "m8[us]", "S9", "U3", "V5", "u8"]
        kinds += [[("O", "i8"), ("P", "c16")], [("at", "M8[ns]"), ("z", "f4", (2, 3))]]
        for kind in kinds:
            for count in (7, 9000):
                array = np.zeros(count, kind)
                assert reader.read_into(array, 3) == min(array.nbytes, SIZE - 3), kind
                assert array.tobytes()[: SIZE - 3] == DATA[3 : 3 + array.nbytes]

    # --- into memory of the caller, many at once -------------------------------------------------------------

    @pytest.mark.parametrize(
        "options", [{}, {"concurrent": 1}, {"chunk": 50_000, "on_error": "return"}], ids=str
    )
    def test_read_ranges_into(self, reader: rangeio.Reader, options: Any) -> None:
        """Each lands in its own memory, whatever the order, and whatever else is read there; the rest is unchanged."""
        pool = bytearray(b"-" * 500_000)
        space, expected = memoryview(pool), bytearray(pool)
        wanted = [
            (100_001, 70_000, 7),
            (0, 5, 80_000),
            (SIZE - 3, 10, 80_005),
            (5, 4096, 90_000),
            (5, 4096, 100_000),
        ]
        wanted += [
            (SIZE, 9, 110_000),
            (2**40, 9, 110_009),
            (9, 0, 120_000),
            (HUGE - 1, 50, 130_000),
            (0, SIZE, 200_000),
        ]
        wanted += [(4101, 1000, 94_096), (1, 1, 120_001), (0, 100, 499_900)]
        got = reader.read_ranges_into([(space[at : at + n], start) for start, n, at in wanted], **options)
        assert got == [len(DATA[start : start + n]) for start, n, _ in wanted]
        for start, n, at in wanted:
            expected[at : at + len(DATA[start : start + n])] = DATA[start : start + n]
        assert pool == expected
        assert reader.read_ranges_into([], **options) == []
        assert reader.read_ranges_into(iter([(bytearray(), 3)]), **options) == [0]

    def test_read_ranges_into_arrays(self, reader: rangeio.Reader) -> None:
        kinds: list[Any] = ["f2", "c16", "M8[s]", [("a", "u1"), ("b", "<u4")], "u1"]
        arrays = [np.zeros((3, 5), kind) for kind in kinds]
        assert reader.read_ranges_into((array, np.int64(7)) for array in arrays) == [a.nbytes for a in arrays]
        assert [array.tobytes() for array in arrays] == [DATA[7 : 7 + array.nbytes] for array in arrays]

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_read_ranges_into_equivalence(self, reader: rangeio.Reader, data: st.DataObject) -> None:
        """As `read_into` of each, also where ranges follow each other in the object and in memory, or one of both."""
        follow = st.sampled_from([None, None, 0, 1, 512])
        sizes = st.sampled_from([0, 1, 5, 511, 512, 600, 4096, 70_001])
        spare, start, at = data.draw(st.integers(0, 600)), data.draw(st.integers(0, SIZE)), 0
        places = []
        for n in data.draw(st.lists(sizes, max_size=6)):
            start += (
                skip
                if (skip := data.draw(follow)) is not None
                else data.draw(st.integers(-start, SIZE - start + 9))
            )
            at += data.draw(st.sampled_from([0, 0, 3]))
            places.append((start, n, at))
            start, at = start + n, at + n
        places = data.draw(st.permutations(places))
        pool = np.full(spare + at + 10, 45, np.uint8)
        expected = pool.copy()
        got = reader.read_ranges_into([(pool[spare + at : spare + at + n], start) for start, n, at in places])
        assert got == [len(DATA[start : start + n]) for start, n, _ in places]
        for (start, _, at), count in zip(places, got, strict=True):
            expected[spare + at : spare + at + count] = np.frombuffer(DATA[start : start + count], np.uint8)
        assert bytes(pool) == bytes(expected)

    def test_read_ranges_into_refuses(self, reader: rangeio.Reader) -> None:
        """Before any I/O, naming the first that is wrong; nothing is read then."""
        space = np.full(64, 7, "u1")
        good, frozen = (space[:8], 0), space[8:16].view()
        frozen.flags.writeable = False
        refused: list[tuple[Any, type[Exception]]] = [
            *(((wrong, 0), TypeError) for wrong in (bytes(8), frozen, "text", 5, None, np.zeros(3, object))),
            *(((wrong, 0), BufferError) for wrong in (space[8:32:2], memoryview(space)[40:8:-1])),
            *(((space[8:16], value), error) for value, error in WRONG),
            *((wrong, TypeError) for wrong in (5, space[8:16], (space[8:16],), (space[8:16], 0, 0), None)),
            ((space[7:9], 0), ValueError),
            ((space[:8], 100), ValueError),
        ]
        for wrong, error in refused:
            with pytest.raises(error, match=r"destinations\[1\]"):
                reader.read_ranges_into([good, wrong, (space[16:24], 0)])
        with pytest.raises(ValueError, match=r"destinations\[0\] and destinations\[2\] overlap"):
            reader.read_ranges_into([(space[8:16], 0), (space[30:40], 5), (space[:9], 0)])
        for options in ({"on_error": "ignore"}, {"concurrent": 0}, {"gap": 5}):
            with pytest.raises(rangeio.ConfigInvalidError):
                reader.read_ranges_into([good], **options)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            reader.read_ranges_into(None)  # type: ignore[arg-type]
        assert set(space.tolist()) == {7}

    def test_memory_is_let_go(self, reader: rangeio.Reader) -> None:
        """After reads and after errors: a bytearray that is lent cannot change its size."""
        spaces = [bytearray(10), bytearray(100_000), bytearray(5)]
        assert reader.read_ranges_into([(space, 3) for space in spaces]) == [10, 100_000, 5]
        assert reader.read_batch([1, 2], 5, spaces[0]) is spaces[0]
        for space in spaces:
            space.append(0)
        reader.close()
        with pytest.raises(rangeio.ClosedError) as kept:
            reader.read_ranges_into([(space, 3) for space in spaces])
        for space in spaces:
            space.append(0)
        del kept

    # --- many ranges -----------------------------------------------------------------------------------------

    OPTIONS = [
        {},
        {"gap": None},
        {"gap": 50},
        {"gap": "auto"},
        {"gap": 2**40, "max_merged": None},
        {"max_merged": 1},
        {"chunk": 1000},
        {"chunk": 7, "gap": 10**6},
        {"chunk": 70_000, "concurrent": 2},
        {"concurrent": 1},
        {"gap": None, "chunk": 100_000, "concurrent": 64},
    ]

    @pytest.mark.parametrize("gap", [None, 100_000])
    def test_exact_ranges(self, reader: rangeio.Reader, gap: int | None) -> None:
        """Each range is complete or an error. Open-ended ranges and Suffix are never short."""
        good = [
            (5, 105),
            (SIZE - 10, SIZE),
            (SIZE, SIZE),
            (SIZE - 5, None),
            (2**40, None),
            slice(3, 4),
            rangeio.Suffix(9),
        ]
        expected = [DATA[5:105], DATA[-10:], b"", DATA[-5:], b"", DATA[3:4], DATA[-9:]]
        for ranges, bytes_of in ((good, expected), (good[:5], expected[:5])):
            assert reader.read_ranges(ranges, gap=gap, exact=True) == bytes_of
        assert reader.read_ranges([], exact=True) == []
        for bad in ((SIZE - 5, SIZE + 1), (SIZE, SIZE + 1), (2**40, 2**40 + 7)):
            with pytest.raises(rangeio.UnexpectedEofError) as raised:
                reader.read_ranges([*good, bad, (0, 10), bad], gap=gap, exact=True)
            assert (raised.value.index, raised.value.offset) == (len(good), self.BASE + bad[0])
            assert raised.value.limit == bad[1] - bad[0]
            got = reader.read_ranges([bad, *good, bad], gap=gap, exact=True, on_error="return")
            assert got[1:-1] == expected
            assert [type(got[at]) for at in (0, -1)] == [rangeio.UnexpectedEofError] * 2
            assert [getattr(got[at], "index", None) for at in (0, -1)] == [0, len(got) - 1]

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_read_ranges(self, reader: rangeio.Reader, options: Any) -> None:
        """R0: in the given order, each equal to read_range of that range, however requests are merged."""
        ranges = RANGES if options.get("chunk", 1000) > 7 else RANGES[:9]
        expected = RESULTS[: len(ranges)]
        assert reader.read_ranges(ranges, **options) == expected
        assert reader.read_ranges(ranges, on_error="return", **options) == expected
        assert [reader.read_range(wanted) for wanted in ranges] == expected
        found = dict(reader.iter_ranges(iter(ranges), **options))
        assert [found[index] for index in range(len(ranges))] == expected

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_equivalence(self, reader: rangeio.Reader, data: st.DataObject) -> None:
        """R0 for ranges near the end of the object, where merging and splitting could fail."""
        place = st.integers(SIZE - 60, SIZE + 20)
        pair = st.tuples(place, place).map(lambda ends: (min(ends), max(ends)))
        wanted = st.one_of(pair, st.builds(Suffix, st.integers(0, 60)), st.tuples(place, st.none()))
        ranges = data.draw(st.lists(wanted, max_size=8))
        options: Any = {
            "gap": data.draw(st.sampled_from([None, 0, 1, 3, 1000])),
            "max_merged": data.draw(st.sampled_from([None, 1, 10, 1000])),
            "chunk": data.draw(st.sampled_from([None, 1, 7, 1000])),
            "concurrent": data.draw(st.sampled_from([None, 1, 3])),
        }
        expected = [DATA[slice(*bounds(item, SIZE))] for item in ranges]
        assert reader.read_ranges(ranges, **options) == expected
        found = dict(reader.iter_ranges(ranges, **options))
        assert [found[index] for index in range(len(ranges))] == expected

    def test_arrays_of_ranges(self, reader: rangeio.Reader) -> None:
        pairs = [(5, 10), (0, 3), (SIZE - 2, SIZE + 9), (4, 4)]
        expected = [DATA[start:stop] for start, stop in pairs]
        for kind in (np.int64, np.int32, np.uint64, ">i8"):
            assert reader.read_ranges(np.array(pairs, dtype=kind)) == expected
        assert reader.read_ranges(np.asfortranarray(pairs)) == expected
        assert reader.read_ranges(np.empty((0, 2), np.int64)) == []
        assert reader.read_ranges(tuple(pairs)) == expected
        for wrong, error in [
            (np.array([[0.0, 1.0]]), TypeError),
            (np.array([[0, 1, 2]]), ValueError),
            (np.array([0, 1]), ValueError),
            (np.array([[0, 1], [3, 2]]), ValueError),
            (np.array([[0, 1], [-3, 2]]), ValueError),
            (np.array([[0, HUGE]], dtype=np.uint64), OverflowError),
        ]:
            with pytest.raises(error):
                reader.read_ranges(wrong)

    def test_no_ranges(self, reader: rangeio.Reader) -> None:
        assert reader.read_ranges([]) == []
        assert list(reader.iter_ranges([])) == []
        assert reader.read_ranges([(5, 5), Suffix(0)]) == [b"", b""]
        assert reader.plan([(5, 5), Suffix(0)]).requests == []

    def test_many_ranges(self, reader: rangeio.Reader) -> None:
        """Unsorted and overlapping; 100,000 are in test_files.py."""
        starts = np.random.default_rng(1).integers(0, SIZE + 100, 10_000)
        table = np.stack([starts, starts + starts % 61], axis=1)
        found = reader.read_ranges(table)
        assert all(
            buffer == DATA[start:stop] for buffer, (start, stop) in zip(found, table.tolist(), strict=True)
        )

    def test_results_are_independent(self, reader: rangeio.Reader) -> None:
        """If two results share bytes, one can be released and the other stays valid."""
        first, second, inner = reader.read_ranges([(0, 1000), (0, 1000), (300, 600)])
        first.release()
        assert (second, inner) == (DATA[:1000], DATA[300:600])

    def test_small_results_pin_little(self, reader: rangeio.Reader) -> None:
        """A small slice of a large merged request does not keep all of it alive."""
        whole, small = reader.read_ranges([(0, 150_000), (100, 200)])
        assert small.nbytes_pinned <= 8192
        assert whole.nbytes_pinned >= 150_000

    def test_on_error(self, reader: rangeio.Reader) -> None:
        with pytest.raises(rangeio.ConfigInvalidError, match="on_error"):
            reader.read_ranges([(0, 1)], on_error="ignore")  # type: ignore[call-overload]
        with pytest.raises(rangeio.ConfigInvalidError, match="on_error"):
            reader.iter_ranges([(0, 1)], on_error="ignore")  # type: ignore[call-overload]

    def test_wrong_options(self, reader: rangeio.Reader) -> None:
        wrong: list[tuple[Any, str]] = [
            ({"gapp": 1}, "did you mean 'gap'"),
            ({"pin": False}, "unknown option 'pin'"),
            ({"gap": -1}, "gap"),
            ({"gap": 1.5}, "gap"),
            ({"gap": "far"}, "'auto'"),
            ({"chunk": 0}, "chunk"),
            ({"max_merged": 0}, "max_merged"),
            ({"concurrent": 0}, "concurrent"),
            ({"concurrent": HUGE}, "concurrent"),
        ]
        for options, said in wrong:
            for call in (reader.read_ranges, reader.iter_ranges, reader.plan):
                with pytest.raises(rangeio.ConfigInvalidError, match=said):
                    call([(0, 1)], **options)

    def test_iteration_may_stop(self, reader: rangeio.Reader) -> None:
        iteration = reader.iter_ranges([(i * 100, i * 100 + 50) for i in range(1000)], concurrent=4)
        index, buffer = next(iteration)
        assert buffer == DATA[index * 100 : index * 100 + 50]
        iteration.close()  # type: ignore[attr-defined]
        assert list(iteration) == []

    def test_plan(self, reader: rangeio.Reader) -> None:
        plan = reader.plan([(0, 10), (20, 30), (5, 15), (40, 40), (SIZE - 5, SIZE + 5)], gap=0)
        requests = [(offset - self.BASE, length) for _, offset, length in plan.requests]
        assert requests == [(0, 15), (20, 10), (SIZE - 5, 5)]
        assert plan.assigned == [0, 1, 0, None, 2]
        assert (plan.bytes_requested, plan.bytes_fetched, plan.largest_request) == (35, 30, 15)
        assert plan.read_amplification == pytest.approx(30 / 35)

    def test_prefetch_is_a_hint(self, reader: rangeio.Reader) -> None:
        """It reads nothing into the process, and what is read afterwards is the same."""
        ranges = [(5, 100), (0, SIZE), (7, 7), (SIZE - 5, SIZE + 50), rangeio.Suffix(10), None]
        assert reader.prefetch(ranges) is None
        assert reader.prefetch([]) is None
        assert reader.read_at(5, 95) == DATA[5:100]
        with pytest.raises(ValueError, match="ranges\\[1\\]"):
            reader.prefetch([(0, 5), (9, 3)])
        reader.close()
        with pytest.raises(rangeio.ClosedError):
            reader.prefetch([(0, 5)])

    # --- records ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("length", [1, 4, 512, 70_000])
    def test_read_batch(self, reader: rangeio.Reader, length: int) -> None:
        offsets = [100_000, 0, 7, 7, SIZE - length]
        for given_as in (list, tuple, np.array, iter):
            table = reader.read_batch(given_as(offsets), length)
            assert table.shape == np.asarray(table).shape == (5, length)
            assert [bytes(row) for row in table] == [DATA[at : at + length] for at in offsets]

    def test_batches_of_nothing(self, reader: rangeio.Reader) -> None:
        assert reader.read_batch([], 16).shape == (0, 16)
        assert reader.read_batch([1, SIZE + 5], 0).shape == (2, 0)

    def test_batch_past_the_end(self, reader: rangeio.Reader) -> None:
        for offset, length in [(SIZE - 3, 4), (SIZE, 1), (SIZE - 10, 70_000), (HUGE - 1, 5)]:
            with pytest.raises(rangeio.UnexpectedEofError, match="record 1") as caught:
                reader.read_batch([0, offset], length)
            assert caught.value.limit == length
        with pytest.raises(rangeio.UnexpectedEofError):
            reader.read_batch([0], 2**62)  # before allocating memory

    @pytest.mark.parametrize("length", [1, 8, 512, 70_000])
    def test_read_batch_out(self, reader: rangeio.Reader, length: int) -> None:
        """Into memory of the caller, which is the result, wherever it lies."""
        offsets = [100_000, 0, 7, 7, SIZE - length, 512, 1024, 3, 4, 5]
        expected = b"".join(DATA[at : at + length] for at in offsets)
        for shift in (0, 1, 512):
            pool = np.full(10 * length + 600, 45, np.uint8)
            out = pool[shift : shift + 10 * length].reshape(10, length)
            assert reader.read_batch(offsets, length, out) is out
            assert bytes(pool) == b"-" * shift + expected + b"-" * (600 - shift)
        flat = bytearray(10 * length)
        assert reader.read_batch(offsets, length, out=flat) is flat
        assert flat == expected
        assert reader.read_batch([], 16, out=bytearray()) == bytearray()

    def test_read_batch_out_refuses(self, reader: rangeio.Reader) -> None:
        space = np.full((4, 8), 7, "u1")
        for wrong, error in (
            (bytes(16), TypeError),
            (5, TypeError),
            (np.zeros(2, object), TypeError),
            (space[:, :4], BufferError),
            (space, ValueError),
            (space[:1], ValueError),
            (bytearray(), ValueError),
        ):
            with pytest.raises(error):
                reader.read_batch([0, 9], 8, out=wrong)
        with pytest.raises(rangeio.UnexpectedEofError, match="record 1"):
            reader.read_batch([0, SIZE - 3], 8, out=space[:2])
        assert set(space.ravel()[16:].tolist()) == {7}

    def test_wrong_offsets(self, reader: rangeio.Reader) -> None:
        tables = [[[0, 1]], np.zeros((2, 2), int)]
        for offsets in (5, None, "12", b"12", [0, 1.5], np.array([0.5]), [0, None], *tables):
            with pytest.raises((TypeError, ValueError)):
                reader.read_batch(offsets, 4)

    # --- attributes, and close -------------------------------------------------------------------------------

    def test_size_and_stat(self, reader: rangeio.Reader) -> None:
        assert reader.size == reader.stat().size == SIZE
        assert reader.path in repr(reader)
        assert str(SIZE) in repr(reader)

    def test_within(self, reader: rangeio.Reader) -> None:
        """A Reader of the same object; closing it leaves the first one open."""
        hurried = reader.slice(100, 1100).within(60)
        assert hurried.read_to_end() == DATA[100:1100]
        assert hurried.within(None).read_ranges([(0, 5), (5, 9)]) == [DATA[100:105], DATA[105:109]]
        hurried.close()
        assert hurried.closed
        assert reader.within(60).read_at(7, 7) == reader.read_at(7, 7) == DATA[7:14]
        with pytest.raises(rangeio.ConfigInvalidError):
            reader.within(-1)

    def test_slice(self, reader: rangeio.Reader) -> None:
        part = reader.slice(100, 1100)
        assert part.size == part.stat().size == 1000
        assert part.read_to_end() == DATA[100:1100]
        assert part.read_at(990, 100) == part.read_range(Suffix(10)) == DATA[1090:1100]
        assert part.read_ranges([(0, 5), (995, 2000), (1000, 1001), (2000, None)]) == [
            DATA[100:105],
            DATA[1095:1100],
            b"",
            b"",
        ]
        inner = part.slice(10, 5000).slice(5)
        assert (inner.size, inner.read_at(0, 5)) == (985, DATA[115:120])
        assert reader.slice(SIZE - 5, None).read_to_end() == DATA[-5:]
        assert reader.slice(SIZE + 5, SIZE + 9).size == 0
        assert reader.slice(5, 5).read_to_end() == b""
        with pytest.raises(rangeio.UnexpectedEofError):
            part.read_batch([0, 997], 4)
        table, space = bytearray(8), bytearray(b"-" * 20)
        assert part.read_batch([996, 0], 4, out=table) is table
        assert table == DATA[1096 : 1104 - 4] + DATA[100:104]
        wanted = [(memoryview(space)[:8], 996), (memoryview(space)[8:12], 0), (memoryview(space)[12:], 1000)]
        assert part.read_ranges_into(wanted) == [4, 4, 0]
        assert space == DATA[1096:1100] + b"----" + DATA[100:104] + b"--------"
        with pytest.raises(ValueError, match="8 bytes"):
            part.read_batch([996, 0], 4, out=bytearray(9))

    def test_closing_a_slice(self, reader: rangeio.Reader) -> None:
        part, other = reader.slice(0, 10), reader.slice(5)
        part.close()
        with pytest.raises(rangeio.ClosedError):
            part.read_at(0, 1)
        assert reader.read_at(0, 1) == DATA[:1]
        reader.close()
        assert other.closed
        with pytest.raises(rangeio.ClosedError):
            other.read_at(0, 1)

    def test_closed(self, reader: rangeio.Reader) -> None:
        """Every read is refused at once; Buffers stay valid."""
        kept = reader.read_at(0, 100)
        kept_batch = reader.read_batch([0, 1], 10)
        reader.close()
        reader.close()
        assert reader.closed
        calls: list[Callable[[], object]] = [
            lambda: reader.read_at(0, 10),
            lambda: reader.read_at(0, 0),
            lambda: reader.read_at(0, 100_000),
            lambda: reader.read_exact(0, 0),
            lambda: reader.read_into(bytearray(3)),
            lambda: reader.read_range((0, 3)),
            lambda: reader.read_ranges([(0, 3)]),
            lambda: reader.read_ranges([(0, 3)], on_error="return"),
            lambda: reader.read_ranges([]),
            lambda: reader.iter_ranges([(0, 3)]),
            lambda: reader.read_batch([0], 3),
            lambda: reader.read_batch([0], 3, bytearray(3)),
            lambda: reader.read_ranges_into([(bytearray(3), 0)]),
            lambda: reader.read_ranges_into([(bytearray(3), 0)], on_error="return"),
            lambda: reader.read_ranges_into([]),
            lambda: reader.stat(),
        ]
        for call in calls:
            with pytest.raises(rangeio.ClosedError) as caught:
                call()
            assert isinstance(caught.value, ValueError)
        assert "closed" in repr(reader)
        assert kept == DATA[:100]
        assert bytes(kept_batch) == DATA[:10] + DATA[1:11]

    def test_arguments_are_checked_first(self, reader: rangeio.Reader) -> None:
        """On a closed Reader, an invalid argument is still reported as such."""
        reader.close()
        with pytest.raises(TypeError):
            reader.read_at(0.5, 1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="negative"):
            reader.read_at(-1, 1)

    def test_context(self, make: Make) -> None:
        with make(DATA) as reader:
            assert reader.read_at(0, 3) == DATA[:3]
        assert reader.closed

    def test_pickle(self, reader: rangeio.Reader) -> None:
        for original in (reader, reader.slice(10, 30)):
            with pickle.loads(pickle.dumps(original)) as copy:
                assert copy.size == original.size
                assert copy.read_range() == original.read_range()

    def test_pickle_methods(self, reader: rangeio.Reader) -> None:
        """As with a process pool: a method of the Reader is pickled, and called in the other process."""
        for original in (reader, reader.slice(0), reader.within(60), reader.slice(7, 4007).slice(3)):
            if not isinstance(original, rangeio.Reader):
                pytest.skip("an AsyncReader: see test_async")
            first = original.read_at(0, 200)
            for protocol in (2, pickle.HIGHEST_PROTOCOL):

                def sent(name: str, of: Any = original, protocol: int = protocol) -> Any:
                    return pickle.loads(pickle.dumps(getattr(of, name), protocol))

                assert sent("read_at")(5, 100) == sent("read_exact")(5, 100) == first[5:105]
                assert bytes(sent("read_batch")([50, 3], 8)) == bytes(first[50:58]) + bytes(first[3:11])
                assert sent("read_ranges_into")([(bytearray(5), 7)]) == [5]
                assert sent("read_ranges")([(0, 9), (20, 29)]) == [first[:9], first[20:29]]
                space = bytearray(20)
                assert sent("read_into")(space, 60) == 20
                assert space == first[60:80]
                again = pickle.loads(pickle.dumps(sent("read_at")))  # a second hop, to a third process
                assert again(1, 2) == first[1:3]

    def test_reader_may_die_first(self, make: Make) -> None:
        buffer = make(DATA).read_at(5, 5)
        array = np.frombuffer(make(DATA).read_at(0, 100_000), "u1")
        assert buffer == DATA[5:10]
        assert array.tobytes() == DATA[:100_000]
