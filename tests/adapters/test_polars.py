"""`rangeio.polars`: queries have the results that polars' own reader has, and fetch no more than they need."""

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.scripted import scripted, with_suffixes

import rangeio

pl = need_module("polars")
pa = need_module("pyarrow")
pq = need_module("pyarrow.parquet")
np = need_module("numpy")

import rangeio.polars  # noqa: E402
from rangeio.polars.predicates import pushed  # noqa: E402

ROWS = 2_000
DAY = datetime.date(2020, 1, 1)


def table(count: int = ROWS) -> Any:
    numbers = range(count)
    return pa.table(
        {
            "id": [*numbers],
            "half": [math.nan if i % 11 == 3 else None if i % 11 == 5 else i / 2 for i in numbers],
            "name": [None if i % 13 == 0 else f"name {i % 40:02}" for i in numbers],
            "even": [None if i % 17 == 0 else i % 2 == 0 for i in numbers],
            "day": [DAY + datetime.timedelta(i // 10) for i in numbers],
            "time": pa.array([i * 1_000_000 for i in numbers], pa.timestamp("us")),
            "place": [{"x": i, "y": str(i)} for i in numbers],
            "small": pa.array([i % 100 for i in numbers], pa.int8()),
        }
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("polars") / "a.parquet"
    pq.write_table(table(), found, row_group_size=250)
    return str(found)


c = pl.col
QUERIES: dict[str, Any] = {
    "all": lambda frame: frame,
    "columns": lambda frame: frame.select("name", "id"),
    "rows": lambda frame: frame.filter(c("id") > 1_900).select("name"),
    "first rows": lambda frame: frame.head(300),
    "first of some": lambda frame: frame.filter(c("id") > 700).head(3),
    "some of the first": lambda frame: frame.head(700).filter(c("id") > 650),
    "no rows": lambda frame: frame.filter(c("id") > 5_000),
    "a count": lambda frame: frame.select(pl.len()),
    "a count of some": lambda frame: frame.filter(c("day") > DAY + datetime.timedelta(50)).select(pl.len()),
    "a field": lambda frame: frame.select(c("place").struct.field("x").sum()),
    "groups": lambda frame: frame.group_by("name").agg(c("id").sum()).sort("name"),
    "joined": lambda frame: frame.join(frame.filter(c("id") < 5).select("id"), on="id").sort("id"),
    "what arrow cannot": lambda frame: frame.filter(c("name").str.ends_with("7") & (c("id") < 100)),
}


@pytest.fixture
def let_go() -> Iterator[None]:
    """polars releases a source that it has left at one of its next calls."""
    yield
    for _ in range(2_000):
        pl.DataFrame({"a": [1]}).lazy().collect()
        if not rangeio.stats()["files_open"]:
            break


@pytest.mark.usefixtures("let_go")
@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_queries(path: str, name: str, engine: Any) -> None:
    query = QUERIES[name]
    expected = query(pl.scan_parquet(path)).collect()
    assert query(rangeio.polars.scan_parquet(path)).collect(engine=engine).equals(expected)


def test_a_query_goes_on_with_the_file_that_told_the_schema(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_module("urllib3")
    data = Path(path).read_bytes()

    with scripted(lambda asked: with_suffixes(data, asked)) as server:
        frame = rangeio.polars.scan_parquet(f"{server.url}/a.parquet")

        def footers(query: Any) -> int:
            before = len(server.asked)
            assert query.collect().equals(query.collect())
            return sum(asked.range is None for asked in server.asked[before:])

        assert footers(frame.select("id")) == 2  # of the two queries; the schema took none of its own
        assert footers(frame.head(3)) == 2
        monkeypatch.setattr(rangeio.polars, "_SPARE_S", 0.0)
        again = rangeio.polars.scan_parquet(f"{server.url}/a.parquet")
        assert footers(again.select("id")) == 3


def test_directories(tmp_path: Path) -> None:
    for year in (2024, 2025):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(table(50), tmp_path / f"year={year}" / "a.parquet")
    (tmp_path / "year=2024" / "a.parquet").write_bytes((tmp_path / "year=2025" / "a.parquet").read_bytes())
    frame = rangeio.polars.scan_parquet(str(tmp_path), partitioning="hive")
    assert frame.collect_schema()["year"] == pl.Int32
    assert frame.select("year", "id").collect().rows() == [
        (year, i) for year in (2024, 2025) for i in range(50)
    ]
    (tmp_path / "year=2026").mkdir()
    (tmp_path / "year=2026" / "a.parquet").write_bytes(b"not read")
    frame = rangeio.polars.scan_parquet(str(tmp_path), partitioning="hive")
    assert frame.filter(c("year") == 2025).select("id").collect().height == 50


def test_excluded_row_groups_are_not_read(path: str, tmp_path: Path) -> None:
    """They hold garbage here."""
    data = bytearray(Path(path).read_bytes())
    footer = pq.read_metadata(path)
    for group in range(8):
        for column in range(footer.num_columns):
            told = footer.row_group(group).column(column)
            if group != 6 or told.path_in_schema not in ("id", "name"):
                start = told.dictionary_page_offset or told.data_page_offset
                data[start : start + told.total_compressed_size] = b"\xff" * told.total_compressed_size
    (tmp_path / "b.parquet").write_bytes(data)
    frame = rangeio.polars.scan_parquet(str(tmp_path / "b.parquet"))
    found = frame.filter(c("id").is_between(1_510, 1_520), c("name").str.len_bytes() > 0).select("name")
    assert found.collect().height == 11 - sum(i % 13 == 0 for i in range(1_510, 1_521))


def test_sources_of_all_kinds(path: str) -> None:
    """Each query reads them again."""
    with rangeio.open(path) as reader:
        for source in (Path(path), reader, [path, reader], iter([path, reader])):
            frame = rangeio.polars.scan_parquet(source)
            heights = {frame.collect().height for _ in range(2)}
            assert heights <= {ROWS, 2 * ROWS}
            assert len(heights) == 1
        assert not reader.closed


@pytest.mark.usefixtures("let_go")
def test_the_first_rows_are_not_the_whole_file(tmp_path: Path) -> None:
    """Row groups as large as a first window: the later ones are not fetched."""
    need_module("urllib3")
    group = (4 << 20) // 8
    numbers = pa.table({"id": np.arange(6 * group)})
    options = {"row_group_size": group, "compression": None, "use_dictionary": False}
    pq.write_table(numbers, tmp_path / "a.parquet", **options)
    data = (tmp_path / "a.parquet").read_bytes()
    with scripted(lambda asked: with_suffixes(data, asked)) as server:

        def fetched() -> int:
            found = sum(stop - start for start, stop in filter(None, server.ranges))
            server.asked.clear()
            return found

        frame = rangeio.polars.scan_parquet(f"{server.url}/a.parquet")
        assert frame.head(3).collect()["id"].to_list() == [0, 1, 2]
        assert fetched() < 4 * 8 * group
        assert frame.filter(c("id") == group).collect().height == 1
        assert fetched() < 2 * 8 * group


def test_errors_come_through(tmp_path: Path) -> None:
    frame = rangeio.polars.scan_parquet(str(tmp_path / "absent.parquet"))
    with pytest.raises((rangeio.NotFoundError, pl.exceptions.ComputeError), match="absent"):
        frame.collect()


# --- predicates ----------------------------------------------------------------------------------------------

_VALUES: dict[str, Any] = {
    "id": st.integers(-5, 2_005),
    "half": st.one_of(st.floats(-5, 1_005), st.just(math.nan), st.just(math.inf), st.integers(0, 1_000)),
    "name": st.sampled_from(["name 00", "name 07", "name 2", "", "z"]),
    "day": st.dates(DAY, DAY + datetime.timedelta(200)),
    "time": st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(1970, 1, 2)),
    "small": st.integers(-300, 300),
}


@st.composite
def predicates(draw: Any, depth: int = 3) -> Any:
    kind = draw(
        st.sampled_from(["compare", "compare", "between", "in", "null", "bool", "odd", "and", "or", "not"])
    )
    if depth and kind in ("and", "or"):
        left, right = draw(predicates(depth - 1)), draw(predicates(depth - 1))
        return left & right if kind == "and" else left | right
    if depth and kind == "not":
        return ~draw(predicates(depth - 1))
    name = draw(st.sampled_from([*_VALUES]))
    value = _VALUES[name]
    if kind == "between":
        closed = draw(st.sampled_from(["both", "left", "right", "none"]))
        return c(name).is_between(draw(value), draw(value), closed=closed)
    if kind == "in":
        value = st.floats(-5, 1_005) if name == "half" else value  # polars makes no list of both kinds
        return c(name).is_in(draw(st.lists(st.one_of(value, st.none()), max_size=4)))
    if kind == "null":
        return draw(st.sampled_from([c(name).is_null(), c(name).is_not_null(), c("even").is_null()]))
    if kind == "bool":
        return draw(st.sampled_from([c("even"), c("even") == True]))  # noqa: E712
    if kind == "odd":
        return draw(st.sampled_from([c("id") * 2 > 700, c("name").str.contains("1"), c("id") > c("half")]))
    operation = draw(st.sampled_from(["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]))
    if draw(st.booleans()):
        return getattr(c(name), operation)(pl.lit(draw(value)))
    return getattr(pl.lit(draw(value)), operation)(c(name))


FRAME = pl.from_arrow(table(300))
SCHEMA = table(300).schema


@settings(max_examples=300, deadline=None)
@given(predicates())
def test_conditions_lose_no_row(predicate: Any) -> None:
    try:
        expected = FRAME.filter(predicate)
    except pl.exceptions.PolarsError:
        return  # values out of the range of a type
    condition = pushed(predicate, SCHEMA)
    if condition is not None:
        kept = pl.from_arrow(table(300).filter(condition))
        assert kept.filter(predicate).equals(expected), str(condition)


@pytest.mark.parametrize(
    ("predicate", "condition"),
    [
        (c("id") > 5, "(id > 5)"),
        (pl.lit(5) > c("id"), "(id < 5)"),
        ((c("id") > 5) & c("name").str.contains("x"), "(id > 5)"),
        ((c("id") > 5) | c("name").str.contains("x"), None),
        (c("half") > 5.0, None),
        (c("half") < 5.0, "(half < 5)"),
        (~(c("half") < 5.0), "invert((half < 5))"),
        (c("day") == DAY, "(day == 2020-01-01)"),
        (c("even"), "even"),
        (c("name").is_null(), "is_null(name, {nan_is_null=false})"),
    ],
)
def test_what_is_left_to_arrow(predicate: Any, condition: str | None) -> None:
    found = pushed(predicate, SCHEMA)
    assert (None if found is None else str(found)) == condition


def test_without_polars(auto_lab: Lab) -> None:
    program = code("""
        import sys
        sys.modules["polars"] = None
        try:
            import rangeio.polars
        except ImportError as error:
            say(told=str(error))
    """)
    assert "pip install 'rangeio[polars]'" in auto_lab.run(program).facts()["told"]
