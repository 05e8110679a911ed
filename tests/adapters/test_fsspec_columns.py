"""Parquet files that learn which columns are read."""

import io
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from faults.machine import need_module
from servers.scripted import Asked, Scripted, reply, scripted, with_suffixes

import rangeio

need_module("urllib3")
need_module("fsspec")
np = need_module("numpy")
pa = need_module("pyarrow")
pq = need_module("pyarrow.parquet")
ds = need_module("pyarrow.dataset")
rf = need_module("rangeio.fsspec")

GROUPS, COLUMNS, ROWS = 12, 10, 1500


@cache
def table() -> Any:
    chance = np.random.default_rng(3)
    return pa.table({f"c{place}": chance.random(GROUPS * ROWS) for place in range(COLUMNS)})


@cache
def parquet(**options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink, row_group_size=ROWS, compression=None, **options)
    return sink.getvalue()


def chunks(data: bytes) -> list[list[tuple[int, int]]]:
    """(start, stop) of each chunk, by row group."""
    metadata = pq.read_metadata(io.BytesIO(data))
    found = []
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(place) for place in range(metadata.num_columns)]
        starts = [min(c.dictionary_page_offset or c.data_page_offset, c.data_page_offset) for c in columns]
        found.append([(s, s + c.total_compressed_size) for s, c in zip(starts, columns, strict=True)])
    return found


class Read:
    """A file opened on a server, read as pyarrow does; `sent` says how many requests each read sent."""

    def __init__(self, server: Scripted, file: Any, data: bytes) -> None:
        self.server, self.file, self.data = server, file, data
        self.sent: list[int] = []

    def footer(self) -> None:
        self.file.seek(0, 2)
        self.file.seek(len(self.data) - 65_536)
        assert bytes(self.file.read_buffer(65_536)) == self.data[-65_536:]
        self.server.asked.clear()

    def read(self, start: int, stop: int) -> None:
        before = len(self.server.asked)
        self.file.seek(start)
        assert bytes(self.file.read_buffer(stop - start)) == self.data[start:stop]
        self.sent.append(len(self.server.asked) - before)

    @property
    def fetched(self) -> int:
        self.check_once()
        return sum(stop - start for start, stop in self.ranges)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [asked.range for asked in self.server.asked if asked.range is not None]

    def check_once(self) -> None:
        """No byte was fetched twice."""
        placed = sorted(self.ranges)
        assert all(before[1] <= after[0] for before, after in pairwise(placed))


@pytest.fixture
def opened() -> Iterator[Callable[..., Read]]:
    with ExitStack() as stack:

        def opened(data: bytes, **options: Any) -> Read:
            server = stack.enter_context(scripted(lambda asked: with_suffixes(data, asked)))
            fs = rf.HttpFileSystem(skip_instance_cache=True)
            return Read(server, stack.enter_context(fs.open(server.url + "/x", **options)), data)

        yield opened


def test_the_next_row_groups_come_together(opened: Any) -> None:
    data = parquet()
    read, places = opened(data), chunks(data)
    read.footer()
    wanted = [1, 4, 7]
    for group in places[:-1]:
        for column in wanted:
            read.read(*group[column])
    assert read.sent[:3] == [1, 1, 1]
    assert read.sent[3] == 1 + 3  # as many bytes as were read before
    assert read.sent[4:6] == [0, 0]
    assert sum(sent > 0 for sent in read.sent[3:]) <= 4
    whole = sum(group[column][1] - group[column][0] for group in places[:-1] for column in wanted)
    last = sum(places[-1][column][1] - places[-1][column][0] for column in wanted)
    assert whole <= read.fetched <= whole + last


def test_without_learning(opened: Any) -> None:
    data = parquet()
    read, places = opened(data, columns=False), chunks(data)
    read.footer()
    for group in places[:5]:
        for column in (1, 4, 7):
            read.read(*group[column])
    assert sum(read.sent) >= 10
    assert set(read.sent) <= {0, 1}  # of 48 KiB, which may have the next one too


def test_a_guess_is_no_larger_than_what_was_read(opened: Any) -> None:
    """Reads of one column that skip row groups: what was guessed wrongly stops the guessing."""
    data = parquet()
    read, places = opened(data), chunks(data)
    read.footer()
    for group in places[::5]:
        read.read(*group[2])
    asked = sum(group[2][1] - group[2][0] for group in places[::5])
    assert read.fetched <= 2 * asked


def test_joined_reads(opened: Any) -> None:
    """pyarrow joins chunks that are close, and what lies between them."""
    data = parquet()
    read, places = opened(data), chunks(data)
    read.footer()
    for group in places[:6]:
        read.read(group[2][0], group[4][1])
        read.read(*group[8])
    assert read.sent[:2] == [1, 1]
    assert read.sent[3] == 0
    read.check_once()


def test_reads_across_row_groups(opened: Any) -> None:
    data = parquet()
    read, places = opened(data), chunks(data)
    read.footer()
    for group in range(0, 8, 2):
        read.read(places[group][0][0], places[group + 1][-1][1])
    read.read(places[8][3][0], places[9][2][1])
    read.check_once()


def test_other_columns_later(opened: Any) -> None:
    data = parquet()
    read, places = opened(data), chunks(data)
    read.footer()
    chance = random.Random(1)
    for group in places[:-1]:
        columns = [0, 3, 9] if group in places[:3] else [1, 5]
        for column in chance.sample(columns, len(columns)):
            read.read(*group[column])
    read.check_once()


def test_another_file_of_the_same_version(opened: Any) -> None:
    """A footer longer than what is read at once is known to the file system's next file."""
    chance = np.random.default_rng(1)
    wide = pa.table({f"a_long_name_of_a_column_{place}": chance.random(1000) for place in range(400)})
    sink = io.BytesIO()
    pq.write_table(wide, sink, row_group_size=100, compression=None)
    data = sink.getvalue()
    length = int.from_bytes(data[-8:-4], "little")
    assert length > 65_536
    read, places = opened(data), chunks(data)
    read.footer()
    read.read(len(data) - 8 - length, len(data) - 8)
    with read.file.fs.open(read.file.path) as file:
        again = Read(read.server, file, data)
        again.footer()
        for group in places[:2]:
            for column in (50, 150, 250):
                again.read(*group[column])
        assert again.sent[3:] == [4, 0, 0]


def test_what_was_served_is_dropped(opened: Any) -> None:
    data = parquet()
    read, places = opened(data), chunks(data)
    read.footer()
    before = rangeio.stats()["bytes_live"]
    for group in places[:-1]:
        for column in (1, 4, 7):
            read.read(*group[column])
    kept = sum(places[-1][column][1] - places[-1][column][0] for column in (1, 4, 7))
    assert rangeio.stats()["bytes_live"] - before <= 2 * kept


def test_a_guess_has_a_most(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = parquet()
    read, places = opened(data), chunks(data)
    one = places[0][1][1] - places[0][1][0]
    monkeypatch.setattr("rangeio.fsspec.columns.MOST", one)
    read.footer()
    for group in places[:8]:
        for column in (1, 4, 7):
            read.read(*group[column])
    assert max(read.sent) <= 1 + 2  # what is kept counts half


def test_another_version_under_the_same_path() -> None:
    """Of the same size: its chunks are elsewhere."""
    first = parquet()
    other = io.BytesIO()
    pq.write_table(
        table().select([f"c{place}" for place in reversed(range(COLUMNS))]),
        other,
        row_group_size=ROWS // 2,
        compression=None,
    )
    longer = max(len(first), len(other.getvalue()))
    versions = [filled(first, longer), filled(other.getvalue(), longer)]
    current = [0]
    fs = rf.HttpFileSystem(skip_instance_cache=True)
    with scripted(lambda asked: with_suffixes(versions[current[0]], asked, f'"{current[0]}"')) as server:
        for turn in (0, 1, 0):
            current[0] = turn
            with fs.open(server.url + "/x") as file:
                assert pq.read_table(file, columns=["c1", "c7"]).equals(table().select(["c1", "c7"]))
            with fs.open(server.url + "/x") as file:
                file.read(1)
                current[0] = 1 - turn
                file.seek(len(first) // 2)
                with pytest.raises(rangeio.ObjectChangedError):
                    file.read(100_000)


def filled(data: bytes, size: int) -> bytes:
    """A Parquet file made longer, by bytes before its footer that nothing refers to."""
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return data[:end] + bytes(size - len(data)) + data[end:]


def test_a_failed_guess_is_nobodys_error() -> None:
    data = parquet()
    places = chunks(data)
    bad = places[1][4][0]

    def script(asked: Asked) -> Any:
        broken = asked.range is not None and asked.range[0] == bad and script.on  # type: ignore[attr-defined]
        return reply(500) if broken else with_suffixes(data, asked)

    script.on = False  # type: ignore[attr-defined]
    fs = rf.HttpFileSystem(retry=1, skip_instance_cache=True)
    with scripted(script) as server, fs.open(server.url + "/x") as file:
        read = Read(server, file, data)
        read.footer()
        read.read(*places[0][1])
        read.read(*places[0][4])
        script.on = True  # type: ignore[attr-defined]
        read.read(*places[1][1])
        with pytest.raises(OSError, match="500"):
            read.read(*places[1][4])
        script.on = False  # type: ignore[attr-defined]
        read.read(*places[1][4])


@pytest.mark.parametrize("pre_buffer", [True, False])
@pytest.mark.parametrize("columns", [["c1", "c4", "c7"], ["c2", "c3"], ["c9"], None])
def test_pyarrow(opened: Any, pre_buffer: bool, columns: list[str] | None) -> None:
    read = opened(parquet())
    found = pq.ParquetFile(read.file, pre_buffer=pre_buffer).read(columns=columns)
    assert found.equals(table().select(columns) if columns else table())
    read.check_once()


@pytest.mark.parametrize("options", [{"use_dictionary": True, "data_page_size": 2000}, {"version": "1.0"}])
def test_other_writers(opened: Any, options: dict[str, Any]) -> None:
    data = parquet(**options)
    read = opened(data)
    assert pq.read_table(read.file, columns=["c0", "c8"]).equals(table().select(["c0", "c8"]))


def test_a_dataset_with_filters() -> None:
    data = parquet()
    with scripted(lambda asked: with_suffixes(data, asked)) as server:
        fs = rf.HttpFileSystem(skip_instance_cache=True)
        dataset = ds.dataset(server.url + "/x", filesystem=fs)
        few = dataset.to_table(columns=["c1", "c5"], filter=ds.field("c3") > 0.99)
        assert few.equals(table().filter(pa.compute.greater(table()["c3"], 0.99)).select(["c1", "c5"]))
