"""`rangeio.parquet`: the same rows as pyarrow's own reader, and only the bytes they need."""

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from faults.threads import wait_for_end, wait_until
from pages import run_page
from servers.s3 import S3Server
from servers.scripted import Answer, Asked, Scripted, honest, reply, scripted

import rangeio

pa = need_module("pyarrow")
pq = need_module("pyarrow.parquet")
dataset = need_module("pyarrow.dataset")
np = need_module("numpy")

import rangeio.parquet as parquet  # noqa: E402
from rangeio.parquet.reading import reading_of  # noqa: E402
from rangeio.parquet.windows import Sizes, _Fetch  # noqa: E402

ROWS, GROUP = 4_000, 500
TAIL = 65_536


def rows(first: int = 0, count: int = ROWS) -> Any:
    numbers = np.arange(first, first + count)
    return pa.table(
        {
            "id": numbers,
            "price": pa.array([None if i % 7 == 0 else i / 8 for i in numbers.tolist()]),
            "name": [f"name {i % 50}" for i in numbers.tolist()],
            "place": [{"x": i, "y": {"z": str(i)}} for i in numbers.tolist()],
            "tags": [[i, i + 1] for i in numbers.tolist()],
            "dotted.name": numbers.astype("i4"),
            "noise": np.random.default_rng(first).random(count),
        },
        metadata={"made by": "a test"},
    )


def packed(table: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **{"row_group_size": GROUP, **options})
    return bytes(sink.getvalue())


DATA = packed(rows())
FOOTER = pq.read_metadata(pa.BufferReader(DATA))


def chunk(group: int, column: int) -> tuple[int, int]:
    told = FOOTER.row_group(group).column(column)
    start = told.dictionary_page_offset or told.data_page_offset
    return start, start + told.total_compressed_size


@contextmanager
def served(files: dict[str, bytes], also: Callable[[Asked], Answer | None] = lambda _: None) -> Iterator[Any]:
    """A server of files that knows suffix ranges. also: what it answers instead, sometimes."""

    def script(asked: Asked) -> Answer:
        instead = also(asked)
        if instead is not None:
            return instead
        data = files.get(unquote(asked.target[1:]))
        if data is None:
            return reply(404)
        field = asked.fields.get("range", "")
        if not field.startswith("bytes=-"):
            return honest(data, asked)
        start = max(0, len(data) - int(field[7:]))
        return reply(
            206, data[start:], ETag='"v1"', Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}"
        )

    with scripted(script) as server:
        yield server


def url(server: Scripted, name: str = "a.parquet") -> str:
    return f"{server.url}/{name}"


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.parquet").write_bytes(DATA)
    return str(tmp_path / "a.parquet")


# --- rows ----------------------------------------------------------------------------------------------------

ASKED: list[Any] = [
    None,
    ["id"],
    ["noise", "id"],
    ["place"],
    ["tags", "price", "name"],
    ["dotted.name"],
    [],
]
FILTERS: list[Any] = [
    None,
    [("id", ">", 3_210)],
    [("id", ">", 3_210), ("price", "<", 450.0)],
    [[("id", "<", 10)], [("name", "in", ["name 3", "name 4"]), ("id", ">=", 3_900)]],
    [("id", "<", 0)],
    dataset.field("price").is_null() & (dataset.field("id") < 700),
    dataset.field("dotted.name") == 77,
]


def test_rows_are_those_of_pyarrow(path: str) -> None:
    for columns in ASKED:
        for filters in FILTERS:
            expected = pq.read_table(path, columns=columns, filters=filters)
            found = parquet.read_table(path, columns, filters)
            assert found.shape == expected.shape, (columns, filters)
            assert found.equals(expected.select(found.column_names), check_metadata=True), (columns, filters)
            scanned = parquet.scan(path, columns, filters, batch_size=1_000).read_all()
            assert scanned.equals(found) or not columns


def test_fields_of_structs(path: str) -> None:
    """The condition may need other fields than are asked for."""
    found = parquet.read_table(path, ["place.y.z", "id"], dataset.field("place", "x") < 3)
    assert found.to_pylist() == [{"place": {"y": {"z": str(i)}}, "id": i} for i in range(3)]
    assert parquet.read_table(path, ["place.x"]).to_pylist() == [{"place": {"x": i}} for i in range(ROWS)]


@pytest.mark.parametrize("most", [1, 1 << 30])
def test_names_with_dots(tmp_path: Path, most: int) -> None:
    """Columns "a" and "a.b", in any order, and a field b of a column a beside a column "a.b"."""
    place = tmp_path / "a.parquet"
    flat = {"a.b": [1, 2], "a": ["x", None], "c": [{"d": 1, "d.e": 2, "l": [1]}] * 2, "c.d": [5, 6]}
    tables = [pa.table(flat), pa.table(dict(reversed(flat.items()))), pa.table({"a": [{"b": 1}], "a.b": [7]})]
    for table in tables:
        pq.write_table(table, place)
        for columns in (None, ["a"], ["a.b"], ["a.b", "a"]):
            reading = reading_of(str(place), columns, None, True, None, {})
            expected = table if columns is None else table.select(columns)
            assert pa.concat_tables(reading.tables(Sizes(most, most))).equals(expected), columns
            assert parquet.scan(place, columns).read_all().equals(expected), columns
    pq.write_table(pa.table({"a.b": [1, 2]}), place)
    with pytest.raises(KeyError, match="'a'"):
        parquet.read_table(place, ["a"])


def test_without_threads(path: str) -> None:
    assert parquet.read_table(path, use_threads=False).equals(rows())
    assert parquet.scan(path, use_threads=False).read_all().equals(rows())


@pytest.mark.parametrize("most", [1, 3_000, 20_000, 1 << 30])
def test_windows_of_any_size(path: str, most: int) -> None:
    """Row groups that are larger are divided by columns; many small ones are fetched together."""
    reading = reading_of(path, ["noise", "place", "id"], [("id", ">", 700)], True, None, {})
    expected = pq.read_table(path, columns=["noise", "place", "id"], filters=[("id", ">", 700)])
    tables = [*reading.tables(Sizes(most, most))]
    assert pa.concat_tables(tables).equals(expected)
    reading = reading_of(path, None, None, True, None, {})
    assert pa.Table.from_batches(reading.batches(Sizes(most, most), None)).equals(rows())


def test_a_reader_stays_open(path: str) -> None:
    with rangeio.open(path) as reader:
        assert parquet.read_table(reader, ["id"]).num_rows == ROWS
        assert parquet.metadata(reader).num_rows == ROWS
        assert not reader.closed
    whole = b"before" + DATA
    assert parquet.read_table(rangeio.from_bytes(whole).slice(6)).equals(rows())


def test_empty_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(rows().slice(0, 0), path)
    assert parquet.read_table(path).equals(rows().slice(0, 0))
    assert parquet.scan(path).read_all().equals(rows().slice(0, 0))
    assert parquet.plan(path).requests == []


# --- requests ------------------------------------------------------------------------------------------------


def fetched(server: Scripted) -> list[tuple[int, int]]:
    """The ranges after the footer."""
    assert server.asked[0].fields["range"] == f"bytes=-{TAIL}"
    found = [asked.range for asked in server.asked[1:]]
    return sorted(one for one in found if one is not None)


def test_only_what_is_needed_is_fetched() -> None:
    """One request for the footer, one for each chunk where nothing is merged, of the row groups that may match."""
    with served({"a.parquet": DATA}) as server:
        found = parquet.read_table(url(server), ["id", "name"], [("id", ">", 3_210)], gap=None)
        assert found.num_rows == ROWS - 3_211
        assert fetched(server) == sorted(chunk(group, column) for group in (6, 7) for column in (0, 2))
        assert {asked.fields.get("if-match") for asked in server.asked[1:]} == {'"v1"'}
        assert {asked.method for asked in server.asked} == {"GET"}


@pytest.mark.parametrize("way", ["table", "scan"])
def test_the_plan_is_what_is_sent(way: str) -> None:
    with served({"a.parquet": DATA}) as server:
        planned = parquet.plan(url(server), ["id", "noise"])
        assert len(server.asked) == 1
        if way == "table":
            parquet.read_table(url(server), ["id", "noise"])
        else:
            parquet.scan(url(server), ["id", "noise"]).read_all()
        del server.asked[0]
        sent = fetched(server)
        assert sent == sorted((start, start + length) for _, start, length in planned.requests if length)
        assert planned.bytes_fetched == sum(stop - start for start, stop in sent)
        wanted = sum(chunk(g, c)[1] - chunk(g, c)[0] for g in range(8) for c in (0, FOOTER.num_columns - 1))
        assert planned.bytes_requested == wanted


def test_a_long_footer_is_two_requests() -> None:
    """The second ends where the first began."""
    wide = pa.table({f"column {i:05}": [i] for i in range(2_000)})
    data = packed(wide)
    with served({"a.parquet": data}) as server:
        assert parquet.metadata(url(server)).num_columns == 2_000
        assert len(server.asked) == 2
        second = server.asked[1].range
        assert second is not None
        assert second[1] == len(data) - TAIL
        assert second[0] == len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def test_metadata_is_that_of_pyarrow(path: str) -> None:
    assert parquet.metadata(path).equals(FOOTER)


def test_a_scan_reads_two_windows_ahead() -> None:
    """Not more, however long the consumer takes: the rest is not requested before it goes on."""
    with served({"a.parquet": DATA}) as server:
        reading = reading_of(url(server), ["noise"], None, True, None, {})
        with closing(reading.batches(Sizes(1, 1), None)) as batches:
            next(batches)
            wait_until(lambda: len(server.asked) >= 1 + 2)
            wait_for_end(_Fetch._run)
            assert len(server.asked) == 1 + 2
            next(batches)


def test_a_table_requests_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row group is a window here. It counts until it is decoded; then the next is requested."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    monkeypatch.setattr(sys.modules["rangeio.parquet.windows"], "start_thread", start)
    one = chunk(0, FOOTER.num_columns - 1)
    size = one[1] - one[0]
    with served({"a.parquet": DATA}) as server:
        reading = reading_of(url(server), ["noise"], None, False, None, {})
        with closing(reading.tables(Sizes(1, 1, 4 * size + size // 2))) as tables:
            next(tables)
            for thread in threads:
                thread.join()
            assert len(server.asked) == 1 + 4
            assert sum(table.num_rows for table in tables) == ROWS - GROUP
        assert len(server.asked) == 1 + 8


def test_a_scan_holds_two_windows(tmp_path: Path) -> None:
    group = (1 << 20) // 8 - 1_000  # a chunk fits into 1 MiB of memory
    numbers = pa.table({"x": np.random.default_rng(1).random(10 * group)})
    pq.write_table(numbers, tmp_path / "a", row_group_size=group, compression=None, use_dictionary=False)
    before = rangeio.stats()["bytes_live"]
    reading = reading_of(str(tmp_path / "a"), None, None, True, None, {})
    held = []
    with closing(reading.batches(Sizes(1 << 20, 1 << 20), None)) as batches:
        for _ in batches:
            held.append(rangeio.stats()["bytes_live"] - before)
    assert 0 < max(held) <= 2 << 20
    assert rangeio.stats()["bytes_live"] == before


def test_leaving_a_scan_stops_its_requests() -> None:
    """A window with many requests, one after the other, of which the server holds one back."""
    held = threading.Event()
    reached = threading.Event()

    def also(asked: Asked) -> Answer | None:
        if asked.range == chunk(1, 0):
            reached.set()
            held.wait(30)
        return None

    with served({"a.parquet": DATA}, also) as server:
        reading = reading_of(url(server), ["id", "noise"], None, True, None, {"gap": None, "concurrent": 1})
        batches = reading.batches(Sizes(9_000, 18_000), None)  # one row group, then two
        next(batches)
        assert reached.wait(30)
        batches.close()
        before = len(server.asked)
        held.set()
        wait_for_end(_Fetch._run)
        assert len(server.asked) <= before + 1


def test_the_reader_of_a_scan_lets_go(path: str) -> None:
    reader = parquet.scan(path, batch_size=10)
    reader.read_next_batch()
    del reader  # the fixture `nothing_left` sees what is open


def read(way: str, source: Any, **options: Any) -> Any:
    return (
        parquet.read_table(source, **options)
        if way == "table"
        else parquet.scan(source, **options).read_all()
    )


# --- errors --------------------------------------------------------------------------------------------------


def test_missing_columns(path: str) -> None:
    for columns, filters in ((["none"], None), (["id", "place.none"], None), (None, [("none", "=", 1)])):
        for call in (parquet.read_table, parquet.scan, parquet.plan):
            with pytest.raises(KeyError, match=r"none.*a\.parquet|a\.parquet.*none"):
                call(path, columns, filters)
    with pytest.raises(rangeio.ConfigInvalidError, match="name their columns"):
        parquet.read_table(path, None, pa.compute.field(0) > 3)


def test_a_directory_without_its_slash(seaweedfs: S3Server) -> None:
    """It is one object, which is missing; the error says how a directory is named."""
    folder = seaweedfs.put("no-slash/a.parquet", DATA).removesuffix("/a.parquet")
    for call in (parquet.read_table, parquet.scan, parquet.plan, parquet.metadata):
        with pytest.raises(
            rangeio.NotFoundError, match="if it is a directory, it must end in a slash"
        ) as caught:
            call(folder, **seaweedfs.options)
        assert caught.value.path.endswith("no-slash")
    assert parquet.read_table(folder + "/", ["id"], **seaweedfs.options).num_rows == ROWS
    with served({}) as server, pytest.raises(rangeio.NotFoundError, match="http lists none"):
        parquet.read_table(url(server, "folder"))
    with pytest.raises(rangeio.NotFoundError) as caught:
        parquet.read_table([folder + "/a.parquet", folder + "/none.parquet"], **seaweedfs.options)
    assert "slash" in str(caught.value)


def test_wrong_arguments(path: str) -> None:
    for columns in ("id", "price"):
        with pytest.raises(TypeError, match="list of names"):
            parquet.read_table(path, columns)  # type: ignore[arg-type]
    for source in (DATA, bytearray(DATA), io.BytesIO(DATA)):
        with pytest.raises(TypeError, match="from_bytes"):
            parquet.read_table(source)  # type: ignore[arg-type]
    for size in (0, -1):
        with pytest.raises(ValueError, match="batch_size"):
            parquet.scan(path, batch_size=size)
    with pytest.raises(ValueError, match="of one file"):
        parquet.metadata([path, path])
    assert parquet.read_table(iter([path, path]), ["id"]).num_rows == 2 * ROWS


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"no Parquet file, but long enough")
    (tmp_path / "empty.parquet").write_bytes(b"")
    start, stop = chunk(0, 0)
    (tmp_path / "bad.parquet").write_bytes(DATA[:start] + b"\xff" * (stop - start) + DATA[stop:])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + DATA[-3_000:])
    for name in ("no", "empty", "bad", "cut"):
        for call in (parquet.read_table, lambda path: parquet.scan(path).read_all()):
            with pytest.raises((ValueError, OSError), match=rf"{name}\.parquet"):
                call(tmp_path / f"{name}.parquet")
    with pytest.raises(rangeio.NotFoundError, match="absent"):
        parquet.read_table(tmp_path / "absent.parquet")
    with pytest.raises(rangeio.ConfigInvalidError, match="hive"):
        parquet.read_table(tmp_path / "bad.parquet", partitioning="Hive")
    with pytest.raises(rangeio.ConfigInvalidError, match="did you mean 'gap'"):
        parquet.read_table(tmp_path / "bad.parquet", gab=3)


@pytest.mark.parametrize("way", ["table", "scan"])
def test_a_replaced_object(way: str) -> None:
    """Between its footer and its chunks. The error comes through pyarrow as it is."""

    def also(asked: Asked) -> Answer | None:
        return None if asked.range is None else honest(DATA, asked, '"v2"')

    failing = pytest.raises(rangeio.ObjectChangedError, match=r"a\.parquet")
    with served({"a.parquet": DATA}, also) as server, failing:
        read(way, url(server))


@pytest.mark.parametrize("way", ["table", "scan"])
def test_a_server_that_fails(way: str) -> None:
    def also(asked: Asked) -> Answer | None:
        return reply(500) if asked.range == chunk(7, 0) else None

    with served({"a.parquet": DATA}, also) as server, pytest.raises(rangeio.ServerError, match=r"a\.parquet"):
        read(way, url(server), gap=None, retry=1)


# --- several files -------------------------------------------------------------------------------------------

TREE = {
    "year=2024/month=1/a.parquet": rows(0, 100),
    "year=2024/month=2/a.parquet": rows(100, 100),
    "year=2025/month=1/a b.parquet": rows(200, 100),
    "year=2025/month=__HIVE_DEFAULT_PARTITION__/b.parquet": rows(300, 100),
}


@pytest.fixture
def tree(tmp_path: Path) -> str:
    for name, table in TREE.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(packed(table))
    (tmp_path / "tree" / "_SUCCESS").write_bytes(b"")
    (tmp_path / "tree" / "year=2024" / ".hidden").write_bytes(b"")
    return str(tmp_path / "tree")


CONDITIONS: list[Any] = [
    None,
    [("year", "=", 2024)],
    [("year", ">", 2024), ("id", "<", 210)],
    [("month", "in", [1, 3])],
    [[("month", "=", 2)], [("id", "=", 5)]],
    dataset.field("month").is_null(),
]


@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_hive(tree: str, number: int) -> None:
    filters = CONDITIONS[number]
    for columns in (None, ["month", "id"], ["noise"]):
        expected = pq.read_table(tree, columns=columns, filters=filters)
        for found in (
            parquet.read_table(tree, columns, filters, partitioning="hive"),
            parquet.scan(tree + "/", columns, filters, partitioning="hive").read_all(),
            parquet.read_table(tree + "/*/*/*.parquet", columns, filters, partitioning="hive"),
            parquet.read_table(tree + "/**", columns, filters, partitioning="hive"),
        ):
            assert found.schema.equals(expected.schema)
            assert found.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize(
    "values",
    [
        "01 2",
        "-2147483648 0",
        "2147483647",
        "2147483648",
        "\u0663",
        "+1 1_0",
        "1 ",
        "a%2Fb a+b",
        "x=y",
        "-0 -",
        "1.5",
    ],
)
def test_values_of_hive_have_the_types_of_pyarrow(tmp_path: Path, values: str) -> None:
    for value in values.split(" "):
        (tmp_path / f"a%20key={value}").mkdir()
        pq.write_table(pa.table({"id": [1]}), tmp_path / f"a%20key={value}" / "a.parquet")
    expected = pq.read_table(tmp_path)
    found = parquet.read_table(tmp_path, partitioning="hive")
    assert found.schema.equals(expected.schema)
    assert found.to_pylist() == expected.to_pylist()


def test_files_that_their_paths_exclude_are_not_opened(tree: str) -> None:
    for name in ("year=2025/month=1/a b.parquet", "year=2024/month=2/a.parquet"):
        Path(tree, name).write_bytes(b"not read")
    found = parquet.read_table(tree, ["id"], [("year", "=", 2024), ("month", "=", 1)], partitioning="hive")
    assert found.column("id").to_pylist() == [*range(100)]


def test_lists_and_patterns(tree: str) -> None:
    files = [os.path.join(tree, name) for name in TREE]
    assert parquet.read_table(files, ["id"]).column("id").to_pylist() == [*range(400)]
    assert parquet.read_table([files[2], Path(files[0])], ["id"])["id"].to_pylist() == [
        *range(200, 300),
        *range(100),
    ]
    assert parquet.read_table(tree, ["id"])["id"].to_pylist() == [*range(400)]
    assert parquet.read_table(tree + "/year=2024/*/a.*", ["id"])["id"].to_pylist() == [*range(200)]
    assert parquet.read_table(tree + "/*/month=[12]/*", ["id"])["id"].to_pylist() == [*range(300)]
    with rangeio.open(files[1]) as reader:
        assert parquet.read_table([reader, files[0]], ["id"])["id"].to_pylist() == [
            *range(100, 200),
            *range(100),
        ]
    with pytest.raises(rangeio.NotFoundError):
        parquet.read_table(tree + "/*.parquet")
    with pytest.raises(rangeio.ConfigInvalidError, match="no source"):
        parquet.read_table([])
    os.mkdir(tree + "/none")
    for partitioning in ("hive", None):
        with pytest.raises(rangeio.NotFoundError, match="no files"):
            parquet.read_table(tree + "/none", partitioning=partitioning)
    assert len(parquet.plan(files, ["id"]).requests) == 4


def test_files_that_differ(tmp_path: Path) -> None:
    """The first says which columns there are."""
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]}), tmp_path / "1.parquet")
    pq.write_table(
        pa.table({"c": pa.array([3.5], "f4"), "d": [1], "a": pa.array([3], "i4")}), tmp_path / "2.parquet"
    )
    found = parquet.read_table(str(tmp_path), filters=[("a", ">", 1)])
    assert found.to_pylist() == [{"a": 2, "b": "y", "c": 1.5}, {"a": 3, "b": None, "c": 3.5}]
    pq.write_table(pa.table({"a": ["no number"]}), tmp_path / "3.parquet")
    with pytest.raises(pa.ArrowInvalid, match=r"3\.parquet"):
        parquet.read_table(str(tmp_path))


def test_structs_that_differ(tmp_path: Path) -> None:
    pq.write_table(pa.table({"s": [{"x": 1, "y": 2}]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"s": [{"y": 5}, None]}), tmp_path / "2.parquet")
    found = parquet.read_table(str(tmp_path), ["s.x"])
    assert found.to_pylist() == [{"s": {"x": 1}}, {"s": {"x": None}}, {"s": None}]


def test_a_url_is_one_file() -> None:
    """Whatever its query, which may contain a signature; the names of its folders may contain values."""
    with served({"year=2024/a.parquet": DATA, "a.parquet?of=*&next=/": DATA}) as server:
        found = parquet.read_table(url(server, "year=2024/a.parquet"), ["year"], partitioning="hive")
        assert found.group_by("year").aggregate([([], "count_all")]).to_pylist() == [
            {"year": 2024, "count_all": ROWS}
        ]
        assert parquet.metadata(url(server, "a.parquet?of=*&next=/")).equals(FOOTER)
        for name in ("folder/", "*.parquet"):
            with pytest.raises(rangeio.UnsupportedError, match="listing"):
                parquet.read_table(url(server, name))


def test_many_small_files_at_once() -> None:
    """The footers of the next files are requested while the first are read."""
    files = {f"{number}.parquet": packed(rows(number * 10, 10)) for number in range(40)}
    with served(files) as server:
        names = [url(server, name) for name in files]
        assert parquet.read_table(names, ["id"])["id"].to_pylist() == [*range(400)]
        assert server.connections > 1


# --- servers -------------------------------------------------------------------------------------------------


def test_on_nginx(sites: Any) -> None:
    site = sites("nginx-http")
    (site.www / "table.parquet").write_bytes(DATA)
    address = f"{site.url}/table.parquet"
    assert parquet.read_table(address).equals(rows())
    assert parquet.scan(address, ["id"], [("id", "<", 600)]).read_all()["id"].to_pylist() == [*range(600)]


def test_on_s3(seaweedfs: S3Server) -> None:
    for name, table in TREE.items():
        uri = seaweedfs.put(f"parquet/{name}", packed(table))
    options = seaweedfs.options
    assert parquet.read_table(uri, **options).equals(TREE[name])
    top = uri.partition("parquet/")[0] + "parquet"
    for source in (top, top + "/", top + "/**/*.parquet"):
        found = parquet.read_table(
            source, ["id", "year"], [("year", "=", 2025)], partitioning="hive", **options
        )
        assert found.to_pylist() == [{"id": i, "year": 2025} for i in range(200, 400)]
    with pytest.raises(rangeio.NotFoundError):
        parquet.read_table(f"{top}/none", **options)


# --- the package ---------------------------------------------------------------------------------------------


def test_without_pyarrow(auto_lab: Lab) -> None:
    program = code("""
        import sys
        import rangeio
        assert not [name for name in sys.modules if name.startswith(("pyarrow", "polars", "rangeio.parquet"))]
        sys.modules["pyarrow"] = None
        try:
            import rangeio.parquet
        except ImportError as error:
            say(told=str(error))
    """)
    assert "pip install 'rangeio[parquet]'" in auto_lab.run(program).facts()["told"]


def test_in_a_forked_child(path: str) -> None:
    """A scan that began before the fork goes on: its threads are not there, so it reads itself."""
    reader = parquet.scan(path, ["id"], batch_size=100, use_threads=False)
    reader.read_next_batch()
    child = os.fork()
    if child == 0:
        os._exit(0 if reader.read_all().num_rows == ROWS - 100 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs in docs/parquet.md, as they stand there."""
    need_module("polars")
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    assert run_page("parquet.md", seen) == 2
    assert seen["rows"] == 100_000


def test_a_value_that_looks_like_a_numbered_column() -> None:
    with rangeio.Operator("memory", objects={"a": DATA}).open("a") as reader:
        for wanted in ([("name", "=", "FieldPath(")], dataset.field("name") == 'a"FieldPath('):
            assert parquet.read_table(reader, ["id"], wanted).num_rows == 0
