"""`rangeio.adapters.hdf5`, and h5py, h5netcdf and xarray over `as_file(cache=)`."""

import gc
import random
import shutil
import unittest
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faults.child import Lab, code
from faults.machine import need_module
from pages import run_page
from servers.scripted import Asked, Scripted, honest, reply, scripted

import rangeio

need_module("urllib3")
h5py = need_module("h5py")
np = need_module("numpy")

from rangeio.adapters import hdf5  # noqa: E402

SELECTIONS = [
    np.s_[()],
    np.s_[...],
    np.s_[:],
    np.s_[40:90, 10:70],
    np.s_[5],
    np.s_[-1, 3],
    np.s_[np.int64(7), -20:],
    np.s_[..., 7],
    np.s_[3, ...],
    np.s_[10:20, ..., 5:6],
    np.s_[-30:-10],
    np.s_[95:1000, :],
    # h5py alone:
    np.s_[::3, 1:50:7],
    np.s_[[1, 5, 70]],
    np.s_[20:10],
    np.s_[100:],
]
WRONG = [np.s_[200], np.s_[-101], np.s_[1, 2, 3], np.s_["name"], np.s_[..., ...], np.s_[::-1], None, 1.5]


def fill(path: Path) -> None:
    rng = np.random.default_rng(3)
    data = rng.integers(0, 1000, (100, 80))
    with h5py.File(path, "w") as file:
        file.create_dataset("contiguous", data=data)
        file.create_dataset("chunked", data=data, chunks=(16, 16))
        file.create_dataset(
            "gzip", data=data, chunks=(30, 7), compression="gzip", shuffle=True, fletcher32=True
        )
        file.create_dataset("lzf", data=data, chunks=(1, 80), compression="lzf")
        file.create_dataset("records", data=data[:, :2].astype("i4,f8"), chunks=(9, 1))
        file.create_dataset("strings", data=[[f"text {i}"] * 2 for i in range(100)], chunks=(10, 1))
        sparse = file.create_dataset("sparse", (100, 80), "f4", chunks=(20, 20), fillvalue=-7)
        sparse[30:50, 30:50] = 1
        file.create_dataset("unwritten", (100, 80), "f4")
        late = file.create_dataset("growing", (0, 80), "i8", chunks=(8, 8), maxshape=(None, 80))
        late.resize(100, axis=0)
        late[:77] = data[:77]
        file.create_dataset("cube", data=rng.random((100, 80, 3)), chunks=(50, 40, 2))
        file.create_dataset("line", data=rng.random(5000), chunks=(64,))
        file["scalar"] = 3.5
        file["text"] = "scalar text"
        file["empty"] = h5py.Empty("f4")
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4, 3))
        h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_INT32, space, compact)
        file["compact"][...] = np.arange(12).reshape(4, 3)
        layout = h5py.VirtualLayout((100, 80), "i8")
        layout[:50] = h5py.VirtualSource(".", "chunked", (100, 80))[50:]
        file.create_virtual_dataset("virtual", layout, fillvalue=-1)
        file["soft"] = h5py.SoftLink("/chunked")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("hdf5") / "original.h5"
    fill(path)
    return path


Opened = Callable[..., Any]


@pytest.fixture(params=["far", "local"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens a copy of a file, on a server or here."""
    with ExitStack() as stack:

        def make(path: Path, **options: Any) -> Any:
            if request.param == "local":
                return stack.enter_context(hdf5.open(shutil.copy(path, tmp_path / "copy.h5"), **options))
            data = path.read_bytes()
            server = stack.enter_context(scripted(lambda asked: honest(data, asked)))
            return stack.enter_context(hdf5.open(server.url + "/x.h5", **options))

        yield make


@pytest.fixture
def far() -> Iterator[Callable[[bytes], Scripted]]:
    with ExitStack() as stack:
        yield lambda data: stack.enter_context(scripted(lambda asked: honest(data, asked)))


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:
        return type(error)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, type) or isinstance(other, type):
        return one is other
    if isinstance(one, h5py.Empty):
        return bool(one == other)
    alike = type(one) is type(other) and np.asarray(one).dtype == np.asarray(other).dtype
    return alike and np.shape(one) == np.shape(other) and bool(np.all(np.asarray(one) == np.asarray(other)))


# --- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [40_000, 64 << 20])
def test_every_layout_and_selection(opened: Opened, original: Path, cache: int) -> None:
    """What h5py reads from the path, also if the chunks do not fit into the cache together."""
    with h5py.File(original) as right, opened(original, cache=cache) as file:
        assert list(file) == list(right)
        for name in right:
            for selection in SELECTIONS:
                expected = outcome(lambda: right[name][selection])  # noqa: B023
                assert same(outcome(lambda: hdf5.read(file[name], selection)), expected), (name, selection)  # noqa: B023
            assert same(file[name][()], right[name][()])
        for selection in WRONG:
            expected = outcome(lambda: right["chunked"][selection])  # noqa: B023
            assert same(outcome(lambda: hdf5.read(file["chunked"], selection)), expected), selection  # noqa: B023
        mask = right["chunked"][()] > 500
        assert same(hdf5.read(file["chunked"], mask), right["chunked"][mask])
        assert same(hdf5.read(file["records"], "f0"), right["records"]["f0"])


def test_items_that_are_arrays(opened: Opened, tmp_path: Path) -> None:
    """Also if their chunks do not fit into the cache together."""
    values = np.arange(60_000, dtype="f4").reshape(20_000, 3)
    with h5py.File(tmp_path / "arrays.h5", "w") as made:
        made.create_dataset("a", (20_000,), dtype=np.dtype(("f4", (3,))), chunks=(100,))[...] = values
    with opened(tmp_path / "arrays.h5", cache=1 << 17) as file:
        assert same(hdf5.read(file["a"]), values)
        assert same(hdf5.read(file["a"], slice(9, 19_990)), values[9:19_990])


def test_random_boxes(opened: Opened, original: Path) -> None:
    chance = random.Random(2)
    with h5py.File(original) as right, opened(original, cache=30_000) as file:
        for _ in range(60):
            name = chance.choice(["cube", "gzip", "growing", "sparse", "contiguous"])
            box = tuple(
                slice(*sorted(chance.choices(range(length + 1), k=2))) for length in right[name].shape
            )
            assert same(hdf5.read(file[name], box), right[name][box]), (name, box)


def test_what_is_of_no_file_of_ours_is_indexed(original: Path) -> None:
    with h5py.File(original) as file:
        assert same(hdf5.read(file["chunked"], np.s_[3:50]), file["chunked"][3:50])


def test_a_user_block(opened: Opened, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=1024) as file:
        file.create_dataset("x", data=np.arange(10_000), chunks=(100,))
        file["y"] = np.arange(10_000).reshape(100, 100)
    with opened(tmp_path / "x.h5") as file:
        assert (hdf5.read(file["x"], np.s_[150:9_000]) == np.arange(150, 9_000)).all()
        assert (hdf5.read(file["y"], np.s_[5:9, 4:6]) == file["y"][5:9, 4:6]).all()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_index_of_chunks(opened: Opened, tmp_path: Path, libver: str) -> None:
    """B-trees, and what newer versions have: arrays, one chunk, no index."""
    data = np.random.default_rng(1).random((60, 40))
    kinds: dict[str, dict[str, Any]] = {
        "fixed": {},
        "extensible": {"maxshape": (None, 40)},
        "both": {"maxshape": (None, None)},
        "filtered": {"compression": "gzip"},
    }
    with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
        for name, options in kinds.items():
            file.create_dataset(name, data=data, chunks=(7, 9), **options)
        file.create_dataset("single", data=data, chunks=(60, 40), compression="gzip")
    with opened(tmp_path / "x.h5", cache=20_000) as file:
        for name in [*kinds, "single"]:
            assert (hdf5.read(file[name], np.s_[3:55, 4:]) == data[3:55, 4:]).all(), name


# --- requests ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """40 chunks of 256 KiB, and 60 small datasets."""
    path = tmp_path_factory.mktemp("hdf5") / "large.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "x", data=np.random.default_rng(1).random((1280, 1024), np.float64), chunks=(256, 128)
        )
        file.create_dataset("rows", data=np.random.default_rng(2).random((512, 1024), np.float64))
        for number in range(60):
            file.create_dataset(f"small/{number:02}", data=np.arange(20_000), chunks=(5_000,))
    data: bytes = path.read_bytes()
    return data


def test_chunks_come_at_once(far: Any, large: bytes) -> None:
    server = far(large)
    with hdf5.open(server.url + "/x") as file:
        assert len(server.asked) == 1
        dataset = file["x"]
        infos = [dataset.id.get_chunk_info(index) for index in range(40)]
        before = len(server.asked)
        found = hdf5.read(dataset, np.s_[100:700, 200:300])
        wanted = [info for info in infos if info.chunk_offset[0] < 700 and info.chunk_offset[1] in (128, 256)]
        fetched = rangeio_ranges(server, before)
        assert fetched == united((info.byte_offset, info.byte_offset + info.size) for info in wanted)
        before = len(server.asked)
        assert same(dataset[100:700, 200:300], found)
        assert same(hdf5.read(dataset, np.s_[100:700, 200:300]), found)
        assert len(server.asked) == before, "they are kept"


def test_rows_come_at_once(far: Any, large: bytes) -> None:
    server = far(large)
    with hdf5.open(server.url + "/x") as file:
        dataset = file["rows"]
        origin = dataset.id.get_offset()
        before = len(server.asked)
        hdf5.read(dataset, np.s_[300:310, 5:9])
        assert rangeio_ranges(server, before) == [
            (origin + (300 * 1024 + 5) * 8, origin + (309 * 1024 + 9) * 8)
        ]


def test_a_walk_is_few_requests(far: Any, large: bytes) -> None:
    server = far(large)
    with hdf5.open(server.url + "/x") as file:
        found = {name: (item.shape, item.dtype) for name, item in file["small"].items()}
        assert len(found) == 60
        assert len(server.asked) < 45


def rangeio_ranges(server: Scripted, before: int) -> list[tuple[int, int]]:
    """What was requested since, joined where it touches."""
    return united(part for part in server.ranges[before:] if part is not None)


def united(ranges: Any) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


# --- refusals and failures -----------------------------------------------------------------------------------


def test_other_files_are_refused(opened: Opened, tmp_path: Path) -> None:
    """h5py would look for them in the same object, whose name its driver does not know; or in a local file."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(5)
    (tmp_path / "raw").write_bytes(b"secret")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3)
        file["link"] = h5py.ExternalLink("other.h5", "x")
        file["missing"] = h5py.ExternalLink("none.h5", "x")
        file.create_dataset("raw", (6,), "u1", external=[(str(tmp_path / "raw"), 0, 6)])
        layout = h5py.VirtualLayout((5,), "i8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (5,))
        file.create_virtual_dataset("virtual", layout, fillvalue=-1)
    with opened(tmp_path / "x.h5") as file:
        for name in ("link", "missing"):
            with pytest.raises(rangeio.UnsupportedError, match="another file"):
                file[name]
        with pytest.raises(rangeio.UnsupportedError, match="another file"):
            file["virtual"][()]
        for name in ("raw", "virtual"):
            with pytest.raises(rangeio.UnsupportedError, match="other files"):
                hdf5.read(file[name], np.s_[1:3])
        assert list(hdf5.read(file["x"])) == [0, 1, 2]


def test_two_versions_are_never_mixed(large: bytes) -> None:
    etags = ['"a"', '"b"']
    with (
        scripted(lambda asked: honest(large, asked, etags[0])) as server,
        hdf5.open(server.url + "/x") as file,
    ):
        dataset = file["x"]
        hdf5.read(dataset, np.s_[:10, :10])
        etags.pop(0)
        for read in (lambda: hdf5.read(dataset, np.s_[:, 900:]), lambda: dataset[:, 900:]):
            with pytest.raises(rangeio.ObjectChangedError):
                read()


def test_a_server_that_is_down_is_an_error(large: bytes) -> None:
    down = [False]

    def script(asked: Asked) -> Any:
        return reply(503) if down[0] else honest(large, asked)

    retry = rangeio.Retry(attempts=1)
    with scripted(script) as server, hdf5.open(server.url + "/x", retry=retry) as file:
        dataset = file["x"]
        dataset.id.get_num_chunks()
        down[0] = True
        for read in (
            lambda: hdf5.read(dataset, np.s_[:, 900:]),
            lambda: dataset[:, 900:],
            lambda: file["rows"],
        ):
            with pytest.raises(rangeio.Error) as caught:
                read()
            assert caught.value.http_status == 503
        down[0] = False
        assert dataset[1000:, 900:].all()


def test_what_is_no_hdf5_file(far: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="signature"):
        hdf5.open(far(b"x" * 5_000).url + "/x")
    with pytest.raises(rangeio.NotFoundError):
        hdf5.open(tmp_path / "missing.h5")
    with pytest.raises(rangeio.ConfigInvalidError):
        hdf5.open(tmp_path / "missing.h5", wrong=1)
    with pytest.raises(ValueError):
        hdf5.open(far(b"x").url + "/x", cache=-1)


def test_a_cut_file_is_an_error(far: Any, large: bytes, tmp_path: Path) -> None:
    (tmp_path / "cut.h5").write_bytes(large[: len(large) // 2])
    for where in (far(large[: len(large) // 2]).url + "/x", tmp_path / "cut.h5"):
        with pytest.raises(OSError, match="truncated"):
            hdf5.open(where)


# --- one file, many users ------------------------------------------------------------------------------------


def test_it_closes_what_it_opened(far: Any, large: bytes) -> None:
    server = far(large)
    with rangeio.open(server.url + "/x") as reader:
        for where in (server.url + "/x", reader):
            file = hdf5.open(where)
            dataset = file["x"]
            file.close()
            assert not dataset
        assert reader.read_at(1, 3) == b"HDF"
        with pytest.raises(TypeError, match="options"):
            hdf5.open(reader, gap=1)
    del file, dataset
    gc.collect()
    assert not hdf5._DRIVEN


def test_threads_share_a_file(opened: Opened, original: Path) -> None:
    with h5py.File(original) as file:
        right = {name: file[name][()] for name in ("gzip", "chunked", "cube", "lzf")}
    with opened(original, cache=100_000) as file:

        def read(seed: int) -> bool:
            chance = random.Random(seed)
            for _ in range(20):
                name = chance.choice([*right])
                box = tuple(slice(*sorted(chance.sample(range(n + 1), k=2))) for n in right[name].shape)
                way = chance.choice([hdf5.read, lambda dataset, box: dataset[box]])
                if not (way(file[name], box) == right[name][box]).all():
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(4)))


def test_a_collection_in_another_thread(large: bytes) -> None:
    """h5py's lock is held while the read waits, and letting go of a dataset takes it."""
    shelf: list[Any] = []

    def script(asked: Asked) -> Any:
        if shelf:
            dead = [shelf.pop()]
            dead.append(dead)
            del dead
            _ = [[] for _ in range(10_000)]  # would begin a collection
        return honest(large, asked)

    with scripted(script) as server, hdf5.open(server.url + "/x") as file:
        dataset = file["x"]
        shelf.append(file["rows"])
        assert dataset[700:, 700:].all()
        assert not shelf
        assert gc.isenabled()


CHILD = """
    import os, sys
    from rangeio.adapters import hdf5

    file = hdf5.open(sys.argv[1])
    say(before=int(file["chunked"][3, 4]))
"""


def test_a_process_that_ends_without_closing(auto_lab: Lab, original: Path) -> None:
    """HDF5 would call Python once more, after its end."""
    ending = "    dataset = file['gzip']; del file; say(after=int(dataset[1, 1]))\n"
    facts = auto_lab.run(code(CHILD, ending), original).facts()
    assert set(facts) == {"before", "after"}


def test_a_forked_child_reads(auto_lab: Lab, far: Any, original: Path) -> None:
    program = """
        pid = os.fork()
        value = int(hdf5.read(file["gzip"], (slice(5, 90), 3)).sum())
        if not pid:
            os._exit(value % 200)
        say(child=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), value=value % 200)
        file.close()
    """
    facts = auto_lab.run(code(CHILD, program), far(original.read_bytes()).url + "/x").facts()
    assert facts["child"] == facts["value"]


def test_it_is_imported_when_used(auto_lab: Lab) -> None:
    program = """
        import sys
        import rangeio
        loaded = [name for name in sys.modules if name.startswith(("h5py", "rangeio.adapters.hdf5"))]
        sys.modules["h5py"] = None
        try:
            import rangeio.adapters.hdf5
        except ImportError as error:
            say(loaded=loaded, told=str(error))
    """
    facts = auto_lab.run(code(program)).facts()
    assert facts["loaded"] == []
    assert "pip install 'rangeio[hdf5]'" in facts["told"]


# --- other readers of such files -----------------------------------------------------------------------------


def file_of(data: bytes, stack: ExitStack, where: str) -> Any:
    if where == "memory":
        return rangeio.from_bytes(data).as_file(cache=1 << 20)
    server = stack.enter_context(scripted(lambda asked: honest(data, asked)))
    return stack.enter_context(rangeio.open(server.url + "/x")).as_file(cache=1 << 20)


@pytest.mark.parametrize("where", ["far", "memory"])
def test_of_h5py_itself(where: str) -> None:
    """h5py's tests of file objects, which write with their own and read with ours."""
    from h5py.tests.test_file2 import TestFileObj

    with ExitStack() as stack:

        class Ours(TestFileObj):  # type: ignore[misc]
            def check_read(self, fileobj: Any) -> None:
                fileobj.seek(0)
                super().check_read(file_of(fileobj.read(), stack, where))

        result = unittest.TestResult()
        # What is left open on purpose warns.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unittest.defaultTestLoader.loadTestsFromTestCase(Ours).run(result)
            gc.collect()
        assert not [*result.errors, *result.failures]
        assert result.testsRun >= 8


def nexus(path: Path) -> None:
    """As instruments write it: groups with classes, links, events."""
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        for bank in range(5):
            events = entry.create_group(f"bank{bank}_events")
            events.attrs["NX_class"] = "NXevent_data"
            for name in ("event_id", "event_time_offset"):
                data = np.arange(bank, 3000 + bank, dtype="u4")
                events.create_dataset(name, data=data, chunks=(1024,), maxshape=(None,), compression="gzip")
        entry["data"] = h5py.SoftLink("/entry/bank3_events")


def test_a_nexus_file(far: Any, tmp_path: Path) -> None:
    nexus(tmp_path / "x.nxs")
    with hdf5.open(far((tmp_path / "x.nxs").read_bytes()).url + "/x.nxs") as file:
        assert file["entry/bank0_events"].attrs["NX_class"] == "NXevent_data"
        assert (hdf5.read(file["entry/data/event_id"], np.s_[100:2500]) == np.arange(103, 2503)).all()


@pytest.mark.parametrize("where", ["far", "memory"])
def test_xarray_by_h5netcdf(where: str, tmp_path: Path) -> None:
    need_module("h5netcdf")
    xarray = need_module("xarray")
    made = xarray.Dataset(
        {
            "t": (("time", "x"), np.random.default_rng(1).random((50, 40))),
            "name": ("x", [f"n{i}" for i in range(40)]),
        },
        {"time": np.arange(50), "x": np.linspace(0, 1, 40)},
        {"title": "made"},
    )
    made.to_netcdf(
        tmp_path / "x.nc", engine="h5netcdf", encoding={"t": {"chunksizes": (10, 10), "zlib": True}}
    )
    with ExitStack() as stack:
        file = file_of((tmp_path / "x.nc").read_bytes(), stack, where)
        with xarray.open_dataset(file, engine="h5netcdf") as found:
            assert found.t[5:20, 3].values.tolist() == made.t[5:20, 3].values.tolist()
            assert found.isel(x=[1, 5, 7]).load().equals(made.isel(x=[1, 5, 7]))
            assert found.load().identical(made)


# --- the page ------------------------------------------------------------------------------------------------


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs in docs/hdf5.md, as they stand there."""
    need_module("h5netcdf")
    need_module("xarray")
    monkeypatch.chdir(tmp_path)
    assert run_page("hdf5.md")
