"""`as_file(cache=)`: the same bytes as any file, what it requests, what it keeps."""

import io
import multiprocessing
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from file_calls import same_call
from servers.scripted import Asked, Scripted, honest, reply, scripted, with_suffixes

import rangeio
from rangeio.adapters.cached.pieces import Pieces, cut, united
from rangeio.adapters.cached.strides import Runs, Strides

need_module("urllib3")

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 256 * KIB
DATA = random.Random(6).randbytes(12 * MIB)


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[Scripted, rangeio.Reader]]]:
    """A server of these bytes, and a Reader."""
    with ExitStack() as stack:

        def serve(data: bytes = DATA, **options: Any) -> tuple[Scripted, rangeio.Reader]:
            server = stack.enter_context(scripted(lambda asked: with_suffixes(data, asked)))
            return server, stack.enter_context(rangeio.open(server.url + "/x", **options))

        yield serve


# --- pieces --------------------------------------------------------------------------------------------------


def test_pieces_are_the_bytes_that_were_put() -> None:
    chance = random.Random(1)
    data = DATA[:10_000]
    pieces = Pieces(3_000)
    for _ in range(1_000):
        start = chance.randrange(len(data))
        stop = min(len(data), start + chance.choice([1, 10, 500, 2_000, 4_000]))
        if chance.random() < 0.4:
            pieces.put(start, data[start:stop])
        found, missing = pieces.find(start, stop)
        held = sum(len(part) for _, part in pieces.find(0, len(data))[0])
        assert held <= 3_000
        assert all(bytes(part) == data[at : at + len(part)] for at, part in found)
        lacking = {place for first, last in missing for place in range(first, last)}
        there = {place for at, part in found for place in range(max(at, start), min(at + len(part), stop))}
        assert lacking | there == set(range(start, stop))
        assert not lacking & there
        assert all(pieces.has(place) == (place in there) for place in (start, stop - 1))
        if not missing:
            assert bytes(cut(found, start, stop)) == data[start:stop]


def test_what_was_not_used_for_longest_goes() -> None:
    pieces = Pieces(30)
    for start in (0, 10, 20):
        pieces.put(start, bytes(10))
    pieces.find(0, 1)
    pieces.put(30, bytes(10))
    assert [start for start, _ in pieces.find(0, 100)[0]] == [0, 20, 30]
    pieces.put(0, bytes(31))
    assert [start for start, _ in pieces.find(0, 100)[0]] == [0, 20, 30]


def test_united() -> None:
    assert united([(5, 7), (0, 2), (2, 3), (6, 9), (4, 4)]) == [(0, 3), (5, 9)]


def test_two_equal_distances_tell_the_next_places() -> None:
    strides = Strides()
    assert [strides.after(at) for at in (5_000_000, 6_000_001)] == [[], []]
    assert strides.after(7_000_002) == [8_000_003 + 1_000_001 * step for step in range(4)]
    assert len(strides.after(12_000_007 + 500)) == 8, "a little later than expected"
    assert len(strides.after(21_000_016 + 500)) == 16
    assert len(strides.after(38_000_033 + 500)) == 16
    assert strides.after(100_000_000) == []
    assert len(strides.after(101_000_001)) == 4, "a known distance"


def test_rows_in_turn() -> None:
    strides = Strides()
    places = [base + step * 1_000_000 for step in range(3) for base in (10, 40_000_300, 80_000_007)]
    assert [len(strides.after(at)) for at in places] == [0] * 6 + [4] * 3
    assert len(strides.after(10 + 7 * 1_000_000)) == 8
    backwards = Strides()
    assert [backwards.after(at) for at in (3_000_000, 2_000_000, 1_000_000)] == [[], [], [0]]


def test_runs() -> None:
    runs = Runs()
    for start in (0, 1000, 2000):
        for step in range(3):
            assert runs.goes_on(start + 100 * step, start + 100 * step + 100) == (step > 0)
    assert not runs.goes_on(5000, 5100)
    assert runs.likely() == 300


# --- requests ------------------------------------------------------------------------------------------------


def test_opening_sends_nothing_and_small_reads_fetch_blocks(served: Any) -> None:
    server, reader = served()
    file = reader.as_file(cache=8 * MIB)
    assert not server.asked
    assert file.seek(0, 2) == len(DATA)
    for at in (5, 100_000, BLOCK - 10, 100):
        file.seek(at)
        assert file.read(10) == DATA[at : at + 10]
    assert server.ranges == [(0, BLOCK)]
    file.seek(5 * MIB + 7)
    assert file.read(20) == DATA[5 * MIB + 7 :][:20]
    assert server.ranges[1:] == [(5 * MIB, 5 * MIB + BLOCK)]


def test_large_reads_fetch_what_was_asked(served: Any) -> None:
    server, reader = served()
    file = reader.as_file(cache=8 * MIB)
    for at in (7, 3 * MIB + 1, 7, 3 * MIB + 1):
        file.seek(at)
        assert file.read(64 * KIB) == DATA[at : at + 64 * KIB]
    assert server.ranges == [(at, at + 64 * KIB) for at in (7, 3 * MIB + 1)]


def test_what_is_missing_comes_at_once(served: Any) -> None:
    """And only that."""
    server, reader = served()
    file = reader.as_file(cache=8 * MIB)
    for at in (2 * MIB, 3 * MIB):
        file.seek(at)
        file.read(64 * KIB)
    before = len(server.asked)
    file.seek(1 * MIB)
    assert file.read(3 * MIB) == DATA[MIB : 4 * MIB]
    missing = [(1 * MIB, 2 * MIB), (2 * MIB + 64 * KIB, 3 * MIB), (3 * MIB + 64 * KIB, 4 * MIB)]
    assert [part for part in united(server.ranges[before:]) if part[1] <= 4 * MIB + 1] == missing


def test_sequential_reads_double(served: Any) -> None:
    server, reader = served()
    file = reader.as_file(cache=32 * MIB)
    found = [file.read(16 * KIB) for _ in range(len(DATA) // (16 * KIB))]
    assert b"".join(found) == DATA
    assert server.ranges[:4] == [
        (0, BLOCK),
        (BLOCK, 2 * BLOCK),
        (2 * BLOCK, 4 * BLOCK),
        (4 * BLOCK, 8 * BLOCK),
    ]
    assert len(server.asked) < 16


def test_most_that_is_read_ahead(served: Any) -> None:
    server, reader = served()
    file = reader.as_file(cache=32 * MIB, buffer_size=MIB)
    while file.read(100 * KIB):
        pass
    assert max(stop - start for start, stop in server.ranges) <= MIB


def test_equal_distances_fetch_the_next_at_once(served: Any) -> None:
    server, reader = served()
    file = reader.as_file(cache=8 * MIB)
    counts = []
    for at in range(100_001, 11_000_000, 700_001):
        file.seek(at)
        assert file.read(100) == DATA[at : at + 100]
        counts.append(len(server.asked))
    waits = [later - before for before, later in zip([0, *counts], counts, strict=False) if later > before]
    assert waits[:4] == [1, 1, 5, 9]
    assert len(waits) == 4


def test_near_misses_fetch_more(served: Any) -> None:
    """In whichever order."""
    server, reader = served()
    file = reader.as_file(cache=32 * MIB)
    places = [*range(4 * MIB, 12 * MIB, 300_000)]
    for pair in zip(places[1::2], places[::2], strict=False):
        for at in pair:
            file.seek(at)
            assert file.read(10) == DATA[at : at + 10]
    assert len(server.asked) < len(places) // 2


def test_rows_of_chunks_are_learned(served: Any) -> None:
    server, reader = served()
    file = reader.as_file(cache=16 * MIB)
    size = 64 * KIB
    waits = []
    for row in range(4):
        before = len(server.asked)
        for chunk in range(3):
            file.seek(row * 3 * MIB + chunk * size)
            assert file.read(size) == DATA[row * 3 * MIB + chunk * size :][:size]
        waits.append(len(server.asked) - before)
    assert waits == [2, 2, 1, 1]


# --- as a file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [300 * KIB, 2 * MIB, 64 * MIB])
def test_random_reads_are_those_of_bytes_io(served: Any, cache: int) -> None:
    start, stop = 1003, 3 * MIB + 77
    _, reader = served()
    chance = random.Random(cache)
    with reader.as_file((start, stop), cache=cache) as file:
        right = io.BytesIO(DATA[start:stop])
        for _ in range(150):
            count = chance.choice([0, 1, 7, 100, 9_000, 70_000, 400_000])
            if chance.random() < 0.6:
                place = chance.choice([0, 5, stop - start - 10, stop, chance.randrange(stop - start)])
                assert file.seek(place) == right.seek(place)
            same_call(file, right, chance.choice(["read", "readinto", "readline", "read1", "peek"]), count)
        assert file.seek(-5, 2) == right.seek(-5, 2)
        found = file.read()
        assert type(found) is bytes
        assert found == right.read()


def test_a_line_is_not_longer_than_asked(served: Any) -> None:
    """What is held after a peek ends within the line."""
    _, reader = served(b"x" * 200_000)
    file = reader.as_file(cache=8 * MIB, buffer_size=1)
    file.seek(64 * KIB + 5)
    file.read(70_000)
    file.seek(0)
    file.read(64 * KIB)
    file.seek(64 * KIB - 5)
    assert file.readline(7) == b"x" * 7
    assert file.tell() == 64 * KIB + 2


def test_files_and_memory_ignore_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    with rangeio.open(tmp_path / "x") as reader, reader.as_file(cache=MIB) as file:
        assert type(file) is io.BufferedReader
        assert file.read(100) == DATA[:100]
    assert type(rangeio.from_bytes(b"abc").as_file(cache=MIB)) is io.BufferedReader


@pytest.mark.parametrize("cache", [MIB, 64 * MIB])
def test_a_read_of_more_than_there_is_memory(served: Any, cache: int) -> None:
    _, reader = served()
    with reader.as_file(cache=cache) as file:
        assert file.read(1 << 60) == DATA
        assert file.read(1 << 60) == b""


def test_arguments(served: Any) -> None:
    _, reader = served()
    for wrong in ({"cache": -1}, {"cache": MIB, "buffer_size": 0}):
        with pytest.raises(ValueError):
            reader.as_file(**wrong)
    with pytest.raises(TypeError):
        reader.as_file(cache="1 MiB")
    assert type(reader.as_file(cache=0)) is not type(reader.as_file(cache=MIB))
    with reader.as_file(cache=MIB) as file, pytest.raises(io.UnsupportedOperation):
        file.fileno()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    assert reader.read_at(0, 3) == DATA[:3], "the Reader stays open"
    file = reader.as_file(rangeio.Suffix(10), cache=MIB)
    assert file.read() == DATA[-10:]
    file = reader.as_file(cache=MIB)
    reader.close()
    with pytest.raises(rangeio.ClosedError):
        file.read(1)


def test_pickled_with_its_position(served: Any) -> None:
    server, reader = served(bearer_token="S3cret")
    file = reader.as_file((10, None), cache=MIB)
    file.seek(100)
    text = pickle.dumps(file)
    assert len(text) < 2_000
    assert b"S3cret" not in text
    assert "S3cret" not in repr(file)
    again = pickle.loads(text)
    before = len(server.asked)
    assert [again.read(5), again.read(5)] == [DATA[110:115], DATA[115:120]]
    assert len(server.asked) == before + 1


def _next_bytes(file: Any) -> bytes:
    return bytes(file.read(9))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_in_a_child(served: Any, method: Any) -> None:
    _, reader = served()
    file = reader.as_file(cache=MIB)
    file.seek(5 * MIB)
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(_next_bytes, file).result(30) == DATA[5 * MIB :][:9]
    assert file.read(9) == DATA[5 * MIB :][:9]


MEMORY = """
    import random, sys
    import rangeio

    def resident(name):
        with open("/proc/self/status") as status:
            facts = dict(line.split(":", 1) for line in status)
        return int(facts[name].split()[0]) << 10

    url, cache, in_order = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "in order"
    with rangeio.open(url) as reader, reader.as_file(cache=cache) as file:
        file.read(300_000)  # what is imported, and threads that are begun, with the first requests
    with rangeio.open(url) as reader, reader.as_file(cache=cache) as file:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")  # the peak is from now on
        before, total, chance = resident("VmRSS"), 0, random.Random(1)
        size = file.size
        if in_order:
            while got := len(file.read(200_000)):
                total += got
        for _ in range(0 if in_order else 600):
            count = chance.choice([10, 1_000, 70_000, 400_000, 1 << 20])
            file.seek(chance.randrange(size - count))
            total += len(file.read(count))
        say(peak=resident("VmHWM") - before, total=total)
"""


@pytest.mark.parametrize("cache", [2 * MIB, 32 * MIB])
@pytest.mark.parametrize("way", ["in order", "anywhere"])
def test_peak_memory(served: Any, auto_lab: Lab, way: str, cache: int) -> None:
    """The cache and 24 MiB, while much more than that is read: what the kernel counted as resident."""
    server, _ = served(DATA * 16)
    facts = auto_lab.run(code(MEMORY), server.url + "/x", cache, way, RANGEIO_POISON="0").facts()
    assert facts["total"] > 100 * MIB
    assert facts["peak"] <= cache + 24 * MIB


def test_threads_share_a_handle(served: Any) -> None:
    _, reader = served()
    file = reader.as_file(cache=2 * MIB)
    start = threading.Barrier(6)

    def read(seed: int) -> bool:
        chance = random.Random(seed)
        start.wait()
        for _ in range(25):
            at, count = chance.randrange(len(DATA)), chance.choice([1, 100, 60_000, 300_000])
            file.seek(at)
            if file.read(count) != DATA[at : at + count]:
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(6)))


# --- failures ------------------------------------------------------------------------------------------------


def test_two_versions_are_never_mixed() -> None:
    versions = [DATA, bytes(len(DATA))]

    def script(asked: Asked) -> Any:
        return honest(versions[0], asked, f'"{len(versions)}"')

    with scripted(script) as server, rangeio.open(server.url + "/x") as reader:
        file = reader.as_file(cache=MIB)
        assert file.read(100) == DATA[:100]
        versions.pop(0)
        assert file.read(100) == DATA[100:200], "it is kept"
        file.seek(BLOCK - 50)
        with pytest.raises(rangeio.ObjectChangedError):
            file.read(100)
        assert file.tell() == BLOCK - 50


def test_a_failed_read_can_be_repeated() -> None:
    broken = [False]

    def script(asked: Asked) -> Any:
        return reply(403) if broken[0] else with_suffixes(DATA, asked)

    with scripted(script) as server, rangeio.open(server.url + "/x") as reader:
        file = reader.as_file(cache=4 * MIB)
        file.read(10)
        broken[0] = True
        file.seek(MIB)
        with pytest.raises(rangeio.PermissionDeniedError):
            file.read(10)
        broken[0] = False
        assert file.read(10) == DATA[MIB : MIB + 10]


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK, BLOCK + 1])
def test_small_objects(served: Any, size: int) -> None:
    _, reader = served(DATA[:size])
    file = reader.as_file(cache=MIB)
    assert file.read() == DATA[:size]
    assert file.read(1) == b""
    assert file.seek(0, 2) == size
    assert file.seek(size + 100) == size + 100
    assert file.read(5) == b""
