"""`rangeio.adapters.numpy`: arrays and parts of them against numpy, requests, hostile files."""

import io
import multiprocessing
import pickle
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.child import Lab, code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from pages import run_page
from servers.scripted import Scripted, honest, scripted

import rangeio
from rangeio.adapters.numpy import open_npy, open_npz

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TABLE = np.arange(10_000 * 32, dtype="<i4").reshape(10_000, 32)
HEADER = 128


def packed(array: Any, version: Any = None) -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, np.asanyarray(array), version)
    return sink.getvalue()


def same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", TABLE)
    return tmp_path / "a.npy"


RECORD = np.dtype(
    [("id", "<i4"), ("at", "M8[us]"), ("place", [("x", ">f8"), ("y", "f2", (2,))]), ("name", "U3")]
)
WIDE = np.dtype([(f"a field with a long name {i:04}", "i1") for i in range(200)])
KINDS: dict[str, Any] = {
    "scalar": np.array(2.5),
    "empty": np.empty((0, 3), "i8"),
    "empty inside": np.empty((3, 0), "f4"),
    "big endian": np.arange(60).astype(">u2").reshape(5, 4, 3),
    "bool": np.arange(60).reshape(5, 12) % 3 == 0,
    "datetime": np.arange(60).astype("M8[ms]").reshape(5, 12),
    "timedelta": np.arange(60).astype("m8[D]").reshape(20, 3),
    "texts": np.array([["a", "\u00e4bc"], ["", "d"]]),
    "bytes": np.array([b"abc", b"d"]),
    "nothing in an item": np.empty((3, 2), "S0"),
    "void": np.frombuffer(b"abcdef" * 4, "V6"),
    "complex": np.arange(8).astype("c16"),
    "long double": np.arange(8).astype("g"),
    "structured": np.frombuffer(bytes(range(200)) * RECORD.itemsize, RECORD)[:120].reshape(40, 3),
    "a long header": np.zeros(4, WIDE),
    "one dimension": np.arange(1000),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_arrays(tmp_path: Path, kind: str, order: Any) -> None:
    expected = np.asarray(KINDS[kind], order=order)
    for version in ((1, 0), (2, 0), (3, 0)):
        if kind != "a long header" or version != (1, 0):
            (tmp_path / "a").write_bytes(packed(expected, version))
            with open_npy(tmp_path / "a") as found:
                assert (found.shape, found.dtype, found.ndim) == (
                    expected.shape,
                    expected.dtype,
                    expected.ndim,
                )
                assert (found.size, found.nbytes) == (expected.size, expected.nbytes)
                assert found.fortran_order == (not expected.flags.c_contiguous)
                same(np.asarray(found), expected)
                assert np.asarray(found).flags.writeable
                if expected.ndim and len(expected):
                    same(found[-1], expected[-1])
                    same(np.asarray([*found]), np.asarray([*expected]))


def test_conversion(path: Path) -> None:
    with open_npy(path) as found:
        assert np.asarray(found, "f8").dtype == "f8"
        assert np.asarray(found).flags.aligned
        assert len(found) == 10_000
        with pytest.raises(ValueError, match="copy"):
            np.array(found, copy=False)
    with open_npy(rangeio.from_bytes(packed(KINDS["scalar"]))) as found:
        assert found[()] == 2.5
        with pytest.raises(TypeError):
            len(found)
        with pytest.raises(IndexError):
            found[0]
    with open_npy(rangeio.from_bytes(packed(KINDS["structured"]))) as found:
        same(found["place"], KINDS["structured"]["place"])


# --- parts ---------------------------------------------------------------------------------------------------


@st.composite
def parts(draw: Any) -> tuple[Any, Any]:
    """An array and an index of it: basic, or with a list, an array or a mask in one place or in several."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    array = np.arange(
        int(np.prod(shape)),
        dtype=draw(st.sampled_from(["<i4", ">i2", "u1"])) if np.prod(shape) < 200 else "<i4",
    )
    items: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        number = st.integers(-size, size - 1)
        edge = st.none() | st.integers(-size - 2, size + 2)
        step = st.sampled_from([None, 1, 2, 3, -1, -2])
        several = st.lists(number, min_size=2, max_size=2) | arrays_of.arrays(
            np.int16, (3, 2), elements=number
        )
        mask = arrays_of.arrays(np.bool_, (size,))
        items.append(draw(number | st.builds(slice, edge, edge, step) | several | mask))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), draw(st.sampled_from([None, Ellipsis])))
    return array.reshape(shape), items[0] if len(items) == 1 else tuple(items)


@MANY
@given(parts(), st.sampled_from("CF"))
def test_parts_are_those_of_numpy(tmp_path: Path, part: Any, order: Any) -> None:
    array, index = np.asarray(part[0], order=order), part[1]
    np.save(tmp_path / "a.npy", array)
    with open_npy(tmp_path / "a.npy") as found:
        try:
            expected = array[index]
        except IndexError:
            with pytest.raises(IndexError):
                found[index]
        else:
            same(found[index], expected)


def test_wrong_indices(path: Path) -> None:
    with open_npy(path) as found:
        for index in (10_000, [3, -10_001], (0, 32), (0, 0, 0), 1.5, "a", [True] * 9):
            with pytest.raises(IndexError):
                TABLE[index]
            with pytest.raises((IndexError, TypeError)):
                found[index]
        same(found[[]], TABLE[[]])
        same(found[np.array(3)], TABLE[np.array(3)])
        same(found[True], TABLE[True])
        same(found[TABLE > 319_990], TABLE[TABLE > 319_990])


# --- requests ------------------------------------------------------------------------------------------------


def requested(server: Scripted) -> list[tuple[int, int]]:
    found = [asked.range for asked in server.asked]
    assert {asked.method for asked in server.asked} <= {"GET"}
    del server.asked[:]
    return sorted(one for one in found if one is not None)


def test_only_the_rows_are_requested() -> None:
    data = packed(TABLE)
    with scripted(lambda asked: honest(data, asked)) as server, open_npy(server.url) as found:
        assert len(requested(server)) == 1  # the header; it tells the size
        same(found[17], TABLE[17])
        assert requested(server) == [(HEADER + 17 * 128, HEADER + 18 * 128)]
        same(found[50:99], TABLE[50:99])
        assert requested(server) == [(HEADER + 50 * 128, HEADER + 99 * 128)]
        same(found[[900, -1, 3, 900]], TABLE[[900, -1, 3, 900]])
        rows = sorted([900, 9_999, 3, 900])
        assert requested(server) == [(HEADER + row * 128, HEADER + (row + 1) * 128) for row in rows]
        mask = np.zeros(10_000, bool)
        mask[[1, 7_000]] = True
        same(found[mask], TABLE[mask])
        assert len(requested(server)) == 2
        same(found[5, 3:4], TABLE[5, 3:4])
        assert requested(server) == [(HEADER + 5 * 128 + 12, HEADER + 5 * 128 + 16)]
        same(found[:0], TABLE[:0])
        assert requested(server) == []
        same(found[5:9_000:4_000], TABLE[5:9_000:4_000])
        assert requested(server) == [
            (HEADER + row * 128, HEADER + (row + 1) * 128) for row in (5, 4_005, 8_005)
        ]


def test_columns_in_fortran_order() -> None:
    data = packed(np.asfortranarray(TABLE))
    with scripted(lambda asked: honest(data, asked)) as server, open_npy(server.url) as found:
        requested(server)
        same(found[:, 3], TABLE[:, 3])
        assert requested(server) == [(HEADER + 3 * 40_000, HEADER + 4 * 40_000)]


# --- npz -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    save(path, table=TABLE, other=KINDS["structured"], **{"a/b": KINDS["big endian"]})
    with np.load(path) as expected, open_npz(path) as arrays:
        assert arrays.files == expected.files
        assert len(arrays) == 3
        assert "table" in arrays
        for name, array in arrays.items():
            same(np.asarray(array), expected[name])
        same(arrays["table"][10:20], TABLE[10:20])
        same(np.asarray(arrays["table.npy"]), TABLE)
        with pytest.raises(KeyError, match="absent"):
            arrays["absent"]
        with pickle.loads(pickle.dumps(arrays)) as again:
            same(again["table"][3], TABLE[3])


def test_a_stored_member_is_read_in_place() -> None:
    sink = io.BytesIO()
    np.savez(sink, before=TABLE, table=TABLE)
    with scripted(lambda asked: honest(sink.getvalue(), asked)) as server, open_npz(server.url) as arrays:
        assert len(requested(server)) <= 3
        table = arrays["table"]
        assert len(requested(server)) == 1
        same(table[100:101], TABLE[100:101])
        (one,) = requested(server)
        assert sink.getvalue()[slice(*one)] == TABLE[100].tobytes()


# --- hostile files -------------------------------------------------------------------------------------------


def of_header(text: str | bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return b"\x93NUMPY" + version + len(raw).to_bytes(2 if version[:1] == b"\1" else 4, "little") + raw + data


def described(descr: Any = "<i4", shape: Any = (2,), fortran_order: Any = False) -> str:
    return repr({"descr": descr, "fortran_order": fortran_order, "shape": shape})


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "another format": b"PK\3\4" + bytes(100),
    "only the magic": b"\x93NUMPY",
    "cut in its length": b"\x93NUMPY\1\0\x80",
    "cut in its header": packed(TABLE)[:100],
    "cut in its data": packed(TABLE)[:-1],
    "without data": packed(TABLE)[:HEADER],
    "version 0": of_header(described(), bytes(8), b"\0\0"),
    "version 9": of_header(described(), bytes(8), b"\x09\0"),
    "a header over 1 MiB": of_header(b" " * (1 << 20) + described().encode(), bytes(8), b"\2\0"),
    "a header longer than the file": b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100),
    "no header": of_header("", bytes(8)),
    "no literal": of_header("open('/etc/passwd')", bytes(8)),
    "half of a dict": of_header("{'descr': '<i4',", bytes(8)),
    "nested deeply": of_header("[" * 60_000, bytes(8)),
    "many signs": of_header("-" * 60_000 + "1", bytes(8)),
    "a key less": of_header("{'descr': '<i4', 'shape': (2,)}", bytes(8)),
    "a key more": of_header("{'descr': '<i4', 'shape': (2,), 'fortran_order': False, 'x': 1}", bytes(8)),
    "keys that are lists": of_header("{[]: 1}", bytes(8)),
    "objects": of_header(described("|O"), bytes(16)),
    "objects in a field": of_header(described([("a", "|O")]), bytes(16)),
    "no dtype": of_header(described("what"), bytes(8)),
    "a dtype that is a number": of_header(described(5), bytes(8)),
    "a dtype that is None": of_header(described(None), bytes(16)),
    "a dtype of lists": of_header(described([[], []]), bytes(8)),
    "an array in an item": of_header(described(("<i4", (2,)), (1,)), bytes(8)),
    "a huge item": of_header(described("S2147483647"), bytes(8)),
    "a negative size": of_header(described("<i4", (-1, -2)), bytes(8)),
    "a shape that is a list": of_header(described("<i4", [2]), bytes(8)),
    "a shape of floats": of_header(described("<i4", (2.0,)), bytes(8)),
    "a shape of booleans": of_header(described("<i4", (True, 2)), bytes(8)),
    "sixty-five dimensions": of_header(described("<i4", (1,) * 65), bytes(8)),
    "overflow": of_header(described("<i4", (1 << 32, 1 << 32)), bytes(8)),
    "overflow to nothing": of_header(described("<i4", (1 << 62, 4)), bytes(8)),
    "impossible, but empty": of_header(described("<i4", (0, 1 << 40, 1 << 40)), b""),
    "an order that is a number": of_header(described("<i4", (2,), 1), bytes(8)),
    "not UTF-8": of_header(b"\xff" + described().encode(), bytes(8), b"\3\0"),
    "a NUL": of_header(described() + "\0", bytes(8)),
    "many digits": of_header(
        "{'descr': '<i4', 'fortran_order': False, 'shape': (" + "9" * 5_000 + ",)}", bytes(8)
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers(tmp_path: Path, case: str) -> None:
    (tmp_path / "bad").write_bytes(HOSTILE[case])
    with pytest.raises(ValueError, match=r"bad' cannot be read as arrays"):
        open_npy(tmp_path / "bad")


@MANY
@given(st.data())
def test_damaged_files(tmp_path: Path, data: Any) -> None:
    """A file of which some bytes are others is read as numpy reads it, or refused."""
    damaged = bytearray(packed(TABLE[:9]))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, HEADER - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(damaged)
    try:
        with open_npy(tmp_path / "a") as found:
            array = np.asarray(found)
    except ValueError as error:
        if "cannot be read as arrays" not in str(error):
            raise
    else:
        same(array, np.load(tmp_path / "a"))


def zipped(data: bytes, **fields: Any) -> bytes:
    """A zip file with one member, whose entry in the list has these fields."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", fields.pop("method", zipfile.ZIP_STORED)) as file:
        file.writestr("a.npy", data)
        for name, value in fields.items():
            setattr(file.filelist[0], name, value)
    return sink.getvalue()


HOSTILE_ZIPS: dict[str, bytes] = {
    "empty": b"",
    "a .npy file": packed(TABLE),
    "cut off": zipped(packed(TABLE))[:-30],
    "a list of nothing": b"PK\5\6" + b"\xff" * 18,
    "a member elsewhere": zipped(packed(TABLE), header_offset=40),
    "a member past the end": zipped(packed(TABLE), file_size=1 << 40),
    "a member that is cut": zipped(packed(TABLE), file_size=1000),
    "encrypted": zipped(packed(TABLE), flag_bits=1),
    "a bomb": zipped(packed(TABLE), method=zipfile.ZIP_DEFLATED, file_size=1 << 40),
    "a bomb of bzip2": zipped(packed(TABLE), method=zipfile.ZIP_BZIP2),
    "a bomb of lzma": zipped(packed(TABLE), method=zipfile.ZIP_LZMA),
    "another checksum": zipped(packed(TABLE), method=zipfile.ZIP_DEFLATED, CRC=1),
    "an unknown method": zipped(packed(TABLE), compress_type=99),
    "no array": zipped(b"abc"),
    "objects": zipped(HOSTILE["objects"], method=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_hostile_zips(tmp_path: Path, case: str) -> None:
    (tmp_path / "bad").write_bytes(HOSTILE_ZIPS[case])
    with pytest.raises(ValueError, match="cannot be read as arrays"), open_npz(tmp_path / "bad") as arrays:
        arrays["a"]


# --- errors, processes ---------------------------------------------------------------------------------------


def test_changed_objects(path: Path) -> None:
    with open_npy(path) as found:
        path.write_bytes(packed(TABLE[:100]))
        for read in (lambda: found[9_999], lambda: np.asarray(found), lambda: found[[1, 2]]):
            with pytest.raises(rangeio.ObjectChangedError):
                read()
    data, etag = packed(TABLE), ['"v1"']
    with scripted(lambda asked: honest(data, asked, etag[0])) as server, open_npy(server.url) as found:
        etag[0] = '"v2"'
        with pytest.raises(rangeio.ObjectChangedError):
            found[3]


def test_readers_and_options(path: Path) -> None:
    with rangeio.open(path) as reader:
        with open_npy(reader) as found:
            assert "int32" in repr(found)
        assert not reader.closed
    with pytest.raises(rangeio.ClosedError):
        found[0]
    with pytest.raises(rangeio.NotFoundError):
        open_npy(path.with_name("absent"))
    with pytest.raises(rangeio.ConfigInvalidError, match="did you mean 'gap'"):
        open_npz(path, gab=1)


def _row(found: Any) -> Any:
    return found[17]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_in_a_child(path: Path, method: Any) -> None:
    with open_npy(path) as found:
        assert len(pickle.dumps(found)) < 1_000
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            same(pool.submit(_row, found).result(30), TABLE[17])
        same(found[18], TABLE[18])


def test_no_secrets_travel() -> None:
    data = packed(TABLE)
    with scripted(lambda asked: honest(data, asked)) as server:
        found = open_npy(server.url, bearer_token="S3cret")
        travelled = pickle.dumps(found)
        assert b"S3cret" not in travelled
        assert "S3cret" not in repr(found)
        with pickle.loads(travelled) as again:
            same(again[17], TABLE[17])


def test_it_is_imported_when_it_is_used(auto_lab: Lab) -> None:
    program = code("""
        import sys
        import rangeio
        say(found=[name for name in sys.modules if name.startswith("rangeio.adapters.numpy")])
    """)
    assert auto_lab.run(program).facts() == {"found": []}


def test_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs in docs/numpy.md, as they stand there."""
    monkeypatch.chdir(tmp_path)
    assert run_page("numpy.md")
