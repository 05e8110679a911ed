"""`rangeio.adapters.torch`: records for DataLoaders, and checkpoints of torch.save."""

import io
import pickle
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from faults.child import FORKS, Lab, code
from faults.machine import need_module
from pages import blocks
from servers.scripted import scripted, with_suffixes

import rangeio

np = need_module("numpy")
torch = need_module("torch", "test-frameworks")

from torch.utils.data import DataLoader, Subset  # noqa: E402

from rangeio.adapters.torch import RecordDataset, collate, load  # noqa: E402

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings(FORKS)]

COUNT, SHAPE = 300, (3, 8)
VALUES = np.arange(COUNT * 24, dtype="f4").reshape(COUNT, *SHAPE)
DATA = VALUES.tobytes()
BOUNDS = [0, 5, 5, 1_000, 1_001, 20_000]


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "records").write_bytes(DATA)
    return str(tmp_path / "records")


def floats(where: str, **more: Any) -> RecordDataset:
    return RecordDataset(where, dtype=torch.float32, shape=SHAPE, **more)


# --- records -------------------------------------------------------------------------------------------------


def test_records_are_those_of_the_file(path: str) -> None:
    dataset = floats(path)
    assert len(dataset) == COUNT
    for index in (0, 7, COUNT - 1, -1, -COUNT, torch.tensor(5), np.int64(6)):
        assert np.array_equal(dataset[index], VALUES[int(index)])
    items = dataset.__getitems__([9, -1, 9])
    assert [item.shape for item in items] == [SHAPE] * 3
    assert np.array_equal(torch.stack(items), VALUES[[9, -1, 9]])
    assert dataset.__getitems__([]) == []
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            dataset[index]
        with pytest.raises(IndexError):
            dataset.__getitems__([0, index])
    for wrong in (1.5, "1", slice(3)):
        with pytest.raises(TypeError):
            dataset[wrong]  # type: ignore[index]


def test_records_are_the_callers(path: str) -> None:
    dataset = floats(path)
    first, second, third = dataset.__getitems__([4, 4, 5])
    first.fill_(-1)
    assert np.array_equal(second, VALUES[4])
    assert np.array_equal(third, VALUES[5])
    assert np.array_equal(dataset[4], VALUES[4])


DTYPES = ["uint8", "int16", "bfloat16", "float8_e4m3fn", "float64", "bool", "complex64"]


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name: str, tmp_path: Path) -> None:
    dtype = getattr(torch, name)
    values = torch.arange(60).remainder(2).to(dtype).reshape(10, 6)
    (tmp_path / "a").write_bytes(bytes(values.reshape(-1).view(torch.uint8).numpy()))
    dataset = RecordDataset(tmp_path / "a", dtype=dtype, shape=(6,))
    found = torch.stack(dataset.__getitems__([3, 9]))
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), values[[3, 9]].view(torch.uint8))
    scalars = RecordDataset(tmp_path / "a", dtype=dtype)
    assert (len(scalars), scalars[1].shape, scalars[1].dtype) == (60, (), dtype)


def test_without_a_dtype_they_are_bytes(path: str) -> None:
    assert bytes(RecordDataset(path, shape=(96,))[3].numpy()) == DATA[288:384]


def test_a_part_of_the_object(path: str) -> None:
    assert len(floats(path, offset=96 * 10)) == COUNT - 10
    dataset = floats(path, offset=8, count=50)
    assert len(dataset) == 50
    assert bytes(dataset[-1].numpy()) == DATA[8 + 49 * 96 : 8 + 50 * 96]
    assert len(floats(path, count=0)) == 0


WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"shape": (7,)}, ValueError),  # does not fill the file
    ({"shape": (0,)}, ValueError),
    ({"shape": (-1,)}, ValueError),
    ({"offset": -1}, ValueError),
    ({"offset": len(DATA) + 1}, ValueError),
    ({"count": len(DATA) + 1}, ValueError),
    ({"count": -1}, ValueError),
    ({"dtype": np.float32}, TypeError),
    ({"offsets": [0, 4], "count": 1}, ValueError),
    ({"offsets": [0, 4], "dtype": torch.uint8}, ValueError),
    ({"offsets": [4, 0]}, ValueError),
    ({"offsets": [-4, 0]}, ValueError),
    ({"offsets": [0, len(DATA) + 1]}, ValueError),
    ({"offsets": [[[1]]]}, ValueError),
    ({"offsets": [0.5, 1]}, TypeError),
    ({"chnk": 1}, rangeio.ConfigInvalidError),
]


@pytest.mark.parametrize(("arguments", "error"), WRONG)
def test_wrong_arguments(path: str, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        RecordDataset(path, **arguments)


def test_no_such_object(tmp_path: Path) -> None:
    with pytest.raises(rangeio.NotFoundError):
        floats(str(tmp_path / "none"))


def test_a_size_that_only_reading_tells() -> None:
    with pytest.raises(ValueError, match="count="):
        RecordDataset("/proc/self/status", shape=(4,))
    assert bytes(RecordDataset("/proc/self/status", shape=(5,), count=1)[0].numpy()) == b"Name:"


@pytest.mark.parametrize("pairs", [False, True])
def test_records_of_different_lengths(path: str, pairs: bool) -> None:
    offsets: Any = [*pairwise(BOUNDS)] if pairs else BOUNDS
    dataset = RecordDataset(path, offsets=offsets, offset=3)
    assert len(dataset) == 5
    for item, (start, stop) in zip(dataset.__getitems__(range(5)), pairwise(BOUNDS), strict=True):
        assert item.dtype == torch.uint8
        assert bytes(item.numpy()) == DATA[start + 3 : stop + 3]
    assert len(dataset[1]) == 0
    assert len(RecordDataset(path, offsets=[])) == 0
    assert [len(item) for item in collate(dataset.__getitems__([4, 0]))] == [18_999, 5]


def test_records_that_overlap_share_nothing(path: str) -> None:
    dataset = RecordDataset(path, offsets=[(0, 100), (50, 150), (0, 100)])
    first, second, third = dataset.__getitems__([0, 1, 2])
    first.zero_()
    assert bytes(second.numpy()) == DATA[50:150]
    assert bytes(third.numpy()) == DATA[:100]


def test_a_transform(path: str) -> None:
    dataset = floats(path, transform=lambda item: item[0].sum())
    assert dataset[2] == VALUES[2, 0].sum()
    batch = collate(dataset.__getitems__([1, 2]))
    assert np.array_equal(batch, VALUES[1:3, 0].sum(1))


def test_a_batch_is_a_list_and_a_tensor(path: str) -> None:
    items = floats(path).__getitems__([1, 5])
    assert np.array_equal(collate(items), VALUES[[1, 5]])
    assert [type(item) for item in items] == [torch.Tensor] * 2
    assert type(pickle.loads(pickle.dumps(items))) is list
    assert torch.equal(collate([torch.zeros(2), torch.ones(2)]), torch.tensor([[0.0, 0], [1, 1]]))


def test_requests() -> None:
    """HEAD when it is opened, then the records of a batch."""
    with scripted(lambda asked: with_suffixes(DATA, asked)) as server:
        dataset = floats(f"{server.url}/a", gap=None)
        assert [asked.method for asked in server.asked] == ["HEAD"]
        indices = [5, 250, 100, 17]
        assert np.array_equal(torch.stack(dataset.__getitems__(indices)), VALUES[indices])
        asked = sorted(one.range[0] for one in server.asked[1:] if one.range)
        assert asked == sorted(index * 96 for index in indices)
        with closing(pickle.loads(pickle.dumps(dataset))._reader) as there:
            assert there.read_at(0, 4) == DATA[:4]


def test_pickles_are_small_and_without_secrets(path: str) -> None:
    dataset = floats(path)
    assert len(pickle.dumps(dataset)) < 4_000
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[3], VALUES[3])
    bounds = np.arange(0, 10_001, 10)
    several = RecordDataset(path, offsets=bounds)
    assert len(pickle.dumps(several)) < 4_000 + 2 * bounds.nbytes
    with scripted(lambda asked: with_suffixes(DATA, asked)) as server:
        told = floats(f"{server.url}/a", bearer_token="S3cret")
        assert b"S3cret" not in pickle.dumps(told)
        assert "S3cret" not in repr(told)


def test_another_version(path: str) -> None:
    """The dataset reads what was counted: here, and where it was unpickled."""
    dataset = floats(path)
    packed = pickle.dumps(dataset)
    Path(path).write_bytes(DATA[96:] + DATA[:96] + DATA)
    with pytest.raises(rangeio.ObjectChangedError):
        dataset.__getitems__(range(50))
    with pytest.raises(rangeio.ObjectChangedError):
        pickle.loads(packed)[0]


# --- DataLoaders ---------------------------------------------------------------------------------------------


def watched(items: Any) -> Any:
    """`collate`, and how the batch was read: whether its rows were made, and whether its memory is shared."""
    rows = {type(item) for item in list.__iter__(items)}
    return collate(items), rows == {torch.Tensor}, items.whole.is_shared()


def epochs(loader: Any) -> Iterator[Any]:
    for _ in range(2):
        yield torch.cat([*loader])


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_workers(way: str, path: str) -> None:
    """Several epochs, with workers that stay, while the parent reads too."""
    dataset = floats(path)
    options: Any = {"batch_size": 32, "multiprocessing_context": way, "num_workers": 1 + (way == "fork")}
    loader = DataLoader(dataset, collate_fn=collate, persistent_workers=True, **options)
    for found in epochs(loader):
        assert np.array_equal(found, VALUES)
        assert np.array_equal(dataset[3], VALUES[3])
    if way == "fork":
        part = Subset(dataset, [5, 3, 299])
        assert np.array_equal(next(iter(DataLoader(part, **options))), VALUES[[5, 3, 299]])
        several = RecordDataset(path, offsets=BOUNDS)
        (batch,) = DataLoader(several, **options, collate_fn=collate)
        assert [len(item) for item in batch] == [5, 0, 995, 1, 18_999]
        shuffled = torch.cat([*DataLoader(dataset, shuffle=True, **options)])
        assert np.array_equal(shuffled[shuffled[:, 0, 0].argsort()], VALUES)


def test_a_worker_reads_into_shared_memory(path: str) -> None:
    """From its second batch on, and makes no rows that nobody wants. The parent has not learned it."""
    dataset = floats(path)
    loader = DataLoader(dataset, 100, collate_fn=watched, num_workers=1, multiprocessing_context="fork")
    batches = [*loader]
    assert [batch[1:] for batch in batches] == [(True, False), (False, True), (False, True)]
    assert np.array_equal(torch.cat([batch[0] for batch in batches]), VALUES)
    assert not collate(dataset.__getitems__([0])).is_shared()
    assert [batch[1:] for batch in DataLoader(dataset, 100, collate_fn=watched)] == [(True, False)] * 3


def either(items: Any) -> Any:
    """Uses `collate` for the first batch only, and then the records."""
    if list.__getitem__(items, 0) is items[0]:
        return collate(items)
    return torch.stack([item + 1 for item in items])


def test_a_batch_of_rows_that_are_made_late_is_a_list(path: str) -> None:
    """Also in a worker whose batches went to `collate` before."""
    loader = DataLoader(floats(path), 150, collate_fn=either, num_workers=1, multiprocessing_context="fork")
    first, second = loader
    assert np.array_equal(first, VALUES[:150])
    assert np.array_equal(second, VALUES[150:] + 1)


# --- load ----------------------------------------------------------------------------------------------------

STATE = {f"layer {i}": torch.arange(20_000) + i for i in range(24)} | {"step": 7}


def saved(state: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def is_state(found: Any) -> bool:
    return found.keys() == STATE.keys() and all(
        torch.equal(torch.as_tensor(found[name]), torch.as_tensor(STATE[name])) for name in STATE
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_load_local(zipped: bool, tmp_path: Path) -> None:
    """Also the format of before torch 1.6."""
    (tmp_path / "a.pt").write_bytes(saved(STATE, _use_new_zipfile_serialization=zipped))
    assert is_state(load(tmp_path / "a.pt"))
    assert load(str(tmp_path / "a.pt"), map_location="meta")["layer 3"].device.type == "meta"


def test_load_from_a_server() -> None:
    """Few requests: the end, then the rest from the front."""
    for data in (saved(STATE), saved(STATE, _use_new_zipfile_serialization=False), saved({"step": 7})):
        with scripted(lambda asked, data=data: with_suffixes(data, asked)) as server:
            found = load(f"{server.url}/a.pt")
            assert is_state(found) or found == {"step": 7}
            assert len(server.asked) == (1 if len(data) < 65_536 else 2)


def test_load_with_a_long_table() -> None:
    """The table of contents is longer than what is read of the end."""
    state = {str(i): torch.full((40,), i) for i in range(1_200)}
    data = saved(state)
    with scripted(lambda asked: with_suffixes(data, asked)) as server:
        found = load(f"{server.url}/a.pt")
        assert all(torch.equal(found[name], state[name]) for name in state)
        assert len(server.asked) <= 8


def test_load_in_pieces() -> None:
    data = saved(STATE)
    with scripted(lambda asked: with_suffixes(data, asked)) as server:
        assert is_state(load(f"{server.url}/a.pt", chunk=300_000))
        assert sum(stop - start for start, stop in (one.range for one in server.asked if one.range)) < len(
            data
        )


def test_load_of_a_replaced_object() -> None:
    """Between the end and the front."""
    data = saved(STATE)

    def script(asked: Any) -> Any:
        return with_suffixes(data, asked, '"new"' if asked.number else '"old"')

    with scripted(script) as server, pytest.raises(rangeio.ObjectChangedError):
        load(f"{server.url}/a.pt")


class Hostile:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of a checkpoint has run')",)


def test_load_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved({"x": Hostile()}))
    with pytest.raises(pickle.UnpicklingError):
        load(tmp_path / "a.pt")


def test_load_fails_as_it_should(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved(STATE)[:-70_000])
    with pytest.raises(RuntimeError):
        load(tmp_path / "a.pt")
    with pytest.raises(rangeio.NotFoundError):
        load(tmp_path / "b.pt")
    with pytest.raises(rangeio.UnsupportedError, match=r"torch\.load"):
        load(tmp_path / "a.pt", mmap=True)
    with pytest.raises(rangeio.ConfigInvalidError):
        load(tmp_path / "a.pt", map_loc="cpu")


# --- the package ---------------------------------------------------------------------------------------------


def test_without_torch(auto_lab: Lab) -> None:
    program = code("""
        import sys
        import rangeio
        assert not [name for name in sys.modules if name.startswith(("torch", "rangeio.adapters.torch"))]
        sys.modules["torch"] = None
        try:
            import rangeio.adapters.torch
        except ImportError as error:
            say(told=str(error))
    """)
    assert "pip install 'rangeio[torch]'" in auto_lab.run(program).facts()["told"]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.filterwarnings("ignore::FutureWarning:torch")
def test_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs in docs/torch.md, as they stand there."""
    monkeypatch.chdir(tmp_path)
    programs = [*blocks("docs/torch.md", "python")]
    assert len(programs) == 3
    for _, program in programs:
        exec(compile(program, "torch.md", "exec"), {"__name__": "__main__"})
