"""`ObjectFile`: positions of threads, requests that it sends, and what reads through it."""

import io
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from file_calls import same_call
from servers.scripted import Asked, Scripted, reply, scripted, with_suffixes

import rangeio

need_module("urllib3")
need_module("fsspec")
rf = need_module("rangeio.fsspec")

DATA = random.Random(5).randbytes(3 << 20)
TEXT = b"".join(b"line %d\n" % number for number in range(30_000))


@pytest.fixture
def served() -> Iterator[Callable[[bytes], tuple[Scripted, Any, str]]]:
    """A server of these bytes, a file system, and the URL."""
    with ExitStack() as stack:

        def serve(data: bytes) -> tuple[Scripted, Any, str]:
            server = stack.enter_context(scripted(lambda asked: with_suffixes(data, asked)))
            return server, rf.HttpFileSystem(skip_instance_cache=True), server.url + "/x"

        yield serve


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "x").write_bytes(DATA)
    with rf.PosixFileSystem().open(str(tmp_path / "x")) as file:
        yield file


# --- requests ------------------------------------------------------------------------------------------------


def test_opening_sends_nothing_and_a_read_no_head(served: Any) -> None:
    server, fs, url = served(DATA)
    with fs.open(url) as file:
        assert not server.asked
        assert file.read(10) == DATA[:10]
        assert file.size == len(DATA)
        assert [(asked.method, asked.range) for asked in server.asked] == [("GET", (0, 48 << 10))]
        assert file.details["size"] == len(DATA)


@pytest.mark.parametrize("count", [8, 100, 64 << 10, 200_000])
def test_the_end_is_one_request(served: Any, count: int) -> None:
    server, fs, url = served(DATA)
    with fs.open(url) as file:
        assert file.seek(-count, 2) == len(DATA) - count
        assert file.read() == DATA[-count:]
        assert file.read() == b""
        assert [asked.fields["range"] for asked in server.asked] == [f"bytes=-{max(count, 64 << 10)}"]


def test_size_first_then_the_end(served: Any) -> None:
    """As pyarrow does it."""
    server, fs, url = served(DATA)
    with fs.open(url) as file:
        before = file.tell()
        assert file.seek(0, 2) == len(DATA)
        file.seek(before)
        file.seek(len(DATA) - 65_536)
        assert file.read(65_536) == DATA[-65_536:]
        assert len(server.asked) == 1


def test_sequential_reads_are_read_ahead(served: Any) -> None:
    server, fs, url = served(DATA)
    with fs.open(url) as file:
        found = [file.read(1000) for _ in range(1 + len(DATA) // 1000)]
        assert b"".join(found) == DATA
        lengths = [stop - start for start, stop in server.ranges]  # type: ignore[misc]
        assert len(lengths) < 8
        assert lengths[:3] == [48 << 10, 192 << 10, 768 << 10]


def test_far_reads_fetch_nothing_between_them(served: Any) -> None:
    server, fs, url = served(DATA)
    with fs.open(url) as file:
        for at in (2_000_000, 100_000, 1_000_000):
            file.seek(at)
            assert file.read(10) == DATA[at : at + 10]
        file.seek(500_000)
        assert file.read(100_000) == DATA[500_000:600_000]
        places = [2_000_000, 100_000, 1_000_000]
        assert server.ranges == [*((at, at + (48 << 10)) for at in places), (500_000, 600_000)]


@pytest.mark.parametrize("options", [{"cache_type": "none"}, {"block_size": 0}])
def test_without_read_ahead(served: Any, options: dict[str, Any]) -> None:
    server, fs, url = served(DATA)
    with fs.open(url, **options) as file:
        assert [file.read(5), file.read(5)] == [DATA[:5], DATA[5:10]]
        assert server.ranges == [(0, 5), (5, 10)]


def test_a_large_read_uses_many_connections(served: Any) -> None:
    data = DATA * 4
    server, fs, url = served(data)
    with fs.open(url) as file:
        file.read(1)
        file.seek(0)
        assert file.read(len(data)) == data
        assert len(server.asked) >= 10


def test_a_chunk_of_the_caller_stays(served: Any) -> None:
    server, _, url = served(DATA * 3)
    fs = rf.HttpFileSystem(chunk=5 << 20, skip_instance_cache=True)
    with fs.open(url) as file:
        file.read(1)
        assert file.read(len(DATA) * 3) == (DATA * 3)[1:]
    assert len(fs.cat_file(url, 0, 9 << 20)) == 9 << 20
    assert len(server.asked) == 1 + 2 + 2


def test_a_failed_read_leaves_the_position() -> None:
    def script(asked: Asked) -> Any:
        return reply(403) if asked.number == 1 else with_suffixes(DATA, asked)

    with scripted(script) as server:
        file = rf.HttpFileSystem(retry=1).open(server.url + "/x")
        file.read(5)
        file.seek(1_000_000)
        with pytest.raises(PermissionError):
            file.read(10)
        assert file.tell() == 1_000_000
        assert file.read(10) == DATA[1_000_000:1_000_010]


def test_a_missing_object_is_told_by_the_first_read() -> None:
    with scripted(lambda asked: reply(404)) as server:
        file = rf.HttpFileSystem().open(server.url + "/x")
        with pytest.raises(FileNotFoundError):
            file.read(1)


# --- as a file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["local", "far"])
def test_random_reads_are_those_of_bytes_io(where: str, served: Any, tmp_path: Path) -> None:
    if where == "far":
        _, fs, path = served(DATA)
    else:
        (tmp_path / "x").write_bytes(DATA)
        fs, path = rf.PosixFileSystem(), str(tmp_path / "x")
    chance = random.Random(9)
    with fs.open(path) as file:
        right = io.BytesIO(DATA)
        for _ in range(300):
            count = chance.choice([0, 1, 7, 100, 9_000, 70_000])
            if chance.random() < 0.5:
                place = chance.choice([0, 5, len(DATA) - 10, len(DATA) + 5, chance.randrange(len(DATA))])
                assert file.seek(place) == right.seek(place)
            same_call(
                file, right, chance.choice(["read", "readinto", "read_buffer", "readline", "peek"]), count
            )


def test_positions(local: Any) -> None:
    with pytest.raises(OSError, match="before the start"):
        local.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        local.seek(0, 5)
    assert local.seek(10) == 10
    assert local.seek(5, 1) == 15
    assert local.seek(len(DATA) + 10) == len(DATA) + 10
    assert local.read(5) == b""
    assert local.tell() == len(DATA) + 10
    assert local.seek(-3, 2) == len(DATA) - 3
    assert local.read() == DATA[-3:]
    assert local.readable()
    assert local.seekable()
    assert not local.writable()
    local.close()
    for call in (local.read, local.tell, local.readline, lambda: local.size, local.read_buffer):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_lines_and_text(served: Any) -> None:
    server, fs, url = served(TEXT)
    assert list(fs.open(url)) == TEXT.splitlines(keepends=True)
    before = len(server.asked)
    assert before < 6
    with fs.open(url, "r", encoding="ascii") as file:
        assert file.read() == TEXT.decode()
    with fs.open(url, "rt") as file:
        assert file.readline() == "line 0\n"


def test_compression(served: Any) -> None:
    import gzip

    _, fs, url = served(gzip.compress(TEXT))
    assert fs.open(url, compression="gzip").read() == TEXT


def test_pickled_with_its_position(local: Any) -> None:
    local.read(100)
    again = pickle.loads(pickle.dumps(local))
    assert again.read(10) == DATA[100:110] == local.read(10)
    assert again.fs == local.fs
    assert (again.path, again.mode, again.name) == (local.path, "rb", local.path)


def test_read_buffer_copies_nothing(local: Any) -> None:
    assert isinstance(local.read_buffer(1 << 20), rangeio.Buffer)


def test_zip_and_pandas(served: Any, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a", TEXT)
    _, fs, url = served((tmp_path / "z").read_bytes())
    with zipfile.ZipFile(fs.open(url)) as archive:
        assert archive.read("a") == TEXT
    pandas = need_module("pandas")
    csv = b"a,b\n" + b"1,2\n" * 1000
    _, fs, url = served(csv)
    assert pandas.read_csv(fs.open(url))["b"].sum() == 2000


# --- threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["local", "far"])
def test_nine_threads_share_a_handle(where: str, served: Any, tmp_path: Path) -> None:
    """As duckdb does: each seeks and reads, without a lock."""
    if where == "far":
        _, fs, path = served(DATA)
    else:
        (tmp_path / "x").write_bytes(DATA)
        fs, path = rf.PosixFileSystem(), str(tmp_path / "x")
    file = fs.open(path)

    def read(seed: int) -> bool:
        chance = random.Random(seed)
        for _ in range(60):
            at, count = chance.randrange(len(DATA)), chance.choice([1, 100, 60_000])
            file.seek(at)
            if file.read(count) != DATA[at : at + count]:
                return False
        return True

    with ThreadPoolExecutor(9) as pool:
        assert all(pool.map(read, range(9)))


def test_a_seek_belongs_to_the_next_read_of_its_thread(local: Any) -> None:
    local.seek(100)

    def elsewhere() -> None:
        local.seek(5_000)
        assert local.read(10) == DATA[5_000:5_010]

    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()
    assert local.tell() == 100
    assert local.read(10) == DATA[100:110]
    assert local.read(10) == DATA[110:120]


def test_a_file_is_handed_over(local: Any) -> None:
    local.seek(100)
    local.read(10)
    found = []
    other = threading.Thread(target=lambda: found.append(local.read(10)))
    other.start()
    other.join()
    assert found == [DATA[110:120]]
    assert local.read(10) == DATA[120:130]


def test_blockcache_keeps_blocks(served: Any, tmp_path: Path) -> None:
    server, fs, url = served(DATA)
    with fs.open(url, cache_type="blockcache") as file:
        for at in (300_000, 2_000_000, 400_000, 2_000_100):
            file.seek(at)
            assert file.read(10) == DATA[at : at + 10]
        again = pickle.loads(pickle.dumps(file))
        assert again.read(10) == DATA[2_000_110:2_000_120]
        block = 256 << 10
        assert server.ranges == [(at * block, (at + 1) * block) for at in (1, 7, 7)]
    (tmp_path / "x").write_bytes(DATA)
    with rf.PosixFileSystem().open(str(tmp_path / "x"), cache_type="blockcache") as file:
        assert file.read(10) == DATA[:10]
