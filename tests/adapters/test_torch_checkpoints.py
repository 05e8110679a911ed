"""`DcpReader`: what torch.distributed.checkpoint saved comes back as by torch's own reader, by fewer requests."""

import dataclasses
import io
import multiprocessing
import pickle
import shutil
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from faults.child import FORKS, Lab, code
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server
from servers.scripted import Answer, Asked, Scripted, reply, scripted, with_suffixes

import rangeio

torch = need_module("torch", "test-frameworks")
dcp = need_module("torch.distributed.checkpoint", "test-frameworks")

from torch.distributed.checkpoint import _extension  # noqa: E402

from rangeio.adapters.torch import DcpReader, checkpoints  # noqa: E402
from rangeio.adapters.torch.stored import HEAD, stored  # noqa: E402

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]

LARGE = (300, 200)  # float32: 240 kB, read into its place
DTYPES = ["float64", "float16", "bfloat16", "int8", "uint8", "bool", "complex64", "float8_e4m3fn", "uint16"]


def state(fill: float = 1.0) -> dict[str, Any]:
    """All kinds of values. fill: 0 for what is loaded into."""
    count = torch.arange(60_000, dtype=torch.float32) * fill
    return {
        "large": count.reshape(LARGE).clone(),
        "parameter": torch.nn.Parameter(count.reshape(200, 300) + fill),
        "transposed": (count.reshape(LARGE) + 2 * fill).T,
        "part": (count.reshape(LARGE) - fill)[:, 10:90],
        "scalar": torch.tensor(3.5 * fill),
        "empty": torch.empty(0, 4),
        "number": 7 * fill,
        "nested": {
            "text": "text" * int(fill),
            "list": [torch.ones(3) * fill, {"deep": torch.ones(2, 2) * fill}],
        },
        **{name: (count[:50] * 0.1).to(getattr(torch, name)).reshape(5, 10) for name in DTYPES},
    }


def is_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            is_same(found[name], expected[name]) for name in expected
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same, found, expected))
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and found.tolist() == expected.tolist()
    return bool(found == expected)


def save(folder: Path, values: Any, **options: Any) -> Path:
    writer = dcp.FileSystemWriter(folder, **options)
    dcp.save(values, storage_writer=writer)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("saved"), state())


@contextmanager
def served(folder: Path) -> Iterator[Scripted]:
    def script(asked: Asked) -> Answer:
        path = folder / asked.target.removeprefix("/step/")
        return with_suffixes(path.read_bytes(), asked) if path.is_file() else reply(404)

    with scripted(script) as server:
        yield server


# --- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0, 64 << 10, 1 << 40])
@pytest.mark.parametrize("window", [1, 64 << 20])
def test_values(saved: Path, least: int, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are read into their places or not, and whatever the windows."""
    monkeypatch.setattr(checkpoints, "_IN_PLACE", least)
    monkeypatch.setattr(checkpoints, "_WINDOW", window)
    monkeypatch.setattr(checkpoints, "_PLACED", window * 4)
    found = state(0)
    dcp.load(found, storage_reader=DcpReader(saved))
    assert is_same(found, state())


def test_values_are_those_of_torchs_reader(saved: Path) -> None:
    ours, theirs = state(0), state(0)
    for found in ours, theirs:  # dtypes are changed, and parts of tensors are loaded into
        found["large"] = torch.zeros(LARGE, dtype=torch.float16)
        found["parameter"] = torch.zeros(300, 300)[50:250]
        found["bfloat16"] = torch.zeros(20, 20, dtype=torch.float64)[3:8, 10:]
        del found["nested"], found["int8"]
    planner = dcp.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load(ours, storage_reader=DcpReader(saved), planner=planner)
    dcp.load(theirs, storage_reader=dcp.FileSystemReader(saved))
    assert is_same(ours, theirs)
    assert ours["large"].sum() != 0


def test_a_planner_that_makes_the_tensors(saved: Path) -> None:
    class Making(dcp.DefaultLoadPlanner):  # type: ignore[misc]
        def resolve_tensor(self, read_item: Any) -> Any:
            return torch.empty_like(super().resolve_tensor(read_item))

        def commit_tensor(self, read_item: Any, tensor: Any) -> None:
            made[read_item.dest_index.fqn] = tensor

    made: dict[str, Any] = {}
    values = {"large": torch.zeros(LARGE), "scalar": torch.zeros(())}
    dcp.load(values, storage_reader=DcpReader(saved), planner=Making())
    assert is_same(made, {name: state()[name] for name in values})
    assert values["scalar"] == 0


def test_other_folders(saved: Path, tmp_path: Path) -> None:
    reader = DcpReader(tmp_path)
    found = state(0)
    dcp.load(found, checkpoint_id=str(saved), storage_reader=reader)
    assert is_same(found, state())
    assert reader.checkpoint_id == str(saved)
    for where, known in {str(saved): True, "s3://bucket/step": True, "nonsense://x": False}.items():
        assert DcpReader.validate_checkpoint_id(where) is known


def test_metadata_of_each_rank(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "step")
    (tmp_path / "step" / ".metadata").rename(tmp_path / "step" / "__0.metadata")
    found = state(0)
    dcp.load(found, storage_reader=DcpReader(tmp_path / "step"))
    assert is_same(found, state())


class Packed(_extension.StreamTransformExtension):  # type: ignore[misc, name-defined]
    """zlib."""

    @staticmethod
    def registry_name() -> str:
        return "packed"

    @staticmethod
    def from_descriptor(version: str) -> "Packed":
        return Packed()

    def get_descriptor(self) -> str:
        return "packed/1"

    def transform_to(self, output: IO[bytes]) -> IO[bytes]:
        class Sink(io.BytesIO):
            def close(self) -> None:
                output.write(zlib.compress(self.getvalue()))
                super().close()

        return Sink()

    def transform_from(self, input: IO[bytes]) -> IO[bytes]:
        return io.BytesIO(zlib.decompress(input.read()))


def test_extensions(tmp_path: Path) -> None:
    save(tmp_path / "step", state(), _extensions=[Packed()])
    registry = _extension.ExtensionRegistry()
    registry.register(Packed)
    found = state(0)
    dcp.load(found, storage_reader=DcpReader(tmp_path / "step", _extension_registry=registry))
    assert is_same(found, state())


# --- what is known of an archive -----------------------------------------------------------------------------


def archive(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["float32", *DTYPES])
def test_archives_of_one_tensor(dtype: str) -> None:
    for shape in ((), (3, 4), (70_000,), (2, 1, 1, 1, 1, 1, 1, 3)):
        values = torch.rand(shape).to(getattr(torch, dtype))
        data = archive(values)
        found = stored(data[:HEAD], len(data))
        assert found is not None
        assert (found.dtype, found.shape) == (values.dtype, shape)
        content = data[found.start : found.start + found.nbytes]
        assert content == bytes(values.reshape(-1).view(torch.uint8).numpy())
        assert stored(data[:HEAD], found.start + found.nbytes - 1) is None


class Other(torch.Tensor):  # type: ignore[misc, name-defined]
    pass


OTHERS = {
    "transposed": torch.zeros(3, 4).T,
    "parameter": torch.nn.Parameter(torch.zeros(3)),
    "conjugate": torch.zeros(3, dtype=torch.complex64).conj(),
    "two": [torch.zeros(3), torch.zeros(4)],
    "a number": 3,
    "sparse": torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_archives_are_left_to_torch(name: str) -> None:
    data = archive(OTHERS[name])
    assert stored(data[:HEAD], len(data)) is None


def test_damaged_archives_are_left_to_torch() -> None:
    data = archive(torch.zeros(3, 4))
    place = data.index(sys.byteorder.encode())
    swapped = data[:place] + b"middle" + data[place + 6 :]
    for one in (
        b"",
        data[:20],
        data[100:],
        bytes(HEAD),
        swapped,
        archive(1, _use_new_zipfile_serialization=False),
    ):
        assert stored(one[:HEAD], len(data)) is None
    for place in range(0, 700, 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        found = stored(damaged[:HEAD], len(data))
        assert found is None or found.start + found.nbytes <= len(data)


def test_parts_of_a_stored_tensor() -> None:
    found = checkpoints.Stored(torch.float32, (4, 5, 6), 1_000)
    cases: dict[tuple[Any, Any], Any] = {
        ((0, 0, 0), (4, 5, 6)): (1_000, 480),
        ((1, 0, 0), (2, 5, 6)): (1_120, 240),
        ((3, 2, 0), (1, 2, 6)): (1_000 + 4 * (90 + 12), 48),
        ((3, 2, 4), (1, 1, 2)): (1_000 + 4 * (90 + 12 + 4), 8),
        ((0, 0, 0), (2, 4, 6)): None,
        ((0, 0, 0), (4, 5, 5)): None,
        ((3, 0, 0), (2, 5, 6)): None,  # past the end
        ((-1, 0, 0), (1, 5, 6)): None,
        ((0, 0), (4, 5)): None,
    }
    for (offsets, lengths), part in cases.items():
        assert found.part(offsets, lengths) == part


# --- over a network ------------------------------------------------------------------------------------------


def test_requests(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata; then what lies side by side in one (before and after the empty tensor, which needs none of it); a
    large tensor in two, of its head and of its bytes.
    """
    with served(saved) as server:
        found = state(0)
        dcp.load(found, storage_reader=DcpReader(f"{server.url}/step"))
        assert is_same(found, state())
        assert len(server.asked) == 3
    monkeypatch.setattr(checkpoints, "_IN_PLACE_FAR", 100_000)
    with served(saved) as server:
        rows, reader, planner = torch.zeros(LARGE), DcpReader(f"{server.url}/step"), dcp.DefaultLoadPlanner()
        metadata = reader.read_metadata()
        planner.set_up_planner({"large": rows}, metadata, True)
        reader.set_up_storage_reader(metadata, True)
        (item,) = planner.create_local_plan().items
        places = {"storage_offsets": torch.Size((50, 0)), "dest_offsets": torch.Size((80, 0))}
        item = dataclasses.replace(item, lengths=torch.Size((100, 200)), **places)
        reader.read_data(dcp.LoadPlan([item]), planner).wait()
        assert torch.equal(rows[80:180], state()["large"][50:150])
        assert not rows[:80].any()
        ranges = [asked.range for asked in server.asked[1:] if asked.range]
        assert [stop - start for start, stop in ranges] == [HEAD, rows[:100].nbytes]


def test_concurrent_limits_the_requests_of_a_file(saved: Path) -> None:
    with served(saved) as server:
        found = state(0)
        dcp.load(found, storage_reader=DcpReader(f"{server.url}/step", concurrent=2, chunk=1000))
        assert is_same(found, state())
        assert len(server.asked) > 100
        assert server.connections <= 2


def test_on_s3(saved: Path, seaweedfs: S3Server) -> None:
    for file in saved.iterdir():
        seaweedfs.put(f"checkpoint/step-1/{file.name}", file.read_bytes())
    found = state(0)
    where = f"s3://{BUCKET}/checkpoint/step-1"
    dcp.load(found, storage_reader=DcpReader(where, **seaweedfs.options))
    assert is_same(found, state())


def test_failures(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(dcp.api.CheckpointException, match="No such file"):
        dcp.load(state(0), storage_reader=DcpReader(tmp_path / "none"))
    shutil.copytree(saved, tmp_path / "step")
    (file,) = (tmp_path / "step").glob("*.distcp")
    data = file.read_bytes()
    for least in (0, len(data)):
        file.write_bytes(data[:least] or data[: len(data) // 2])
        if least:
            file.unlink()
        with pytest.raises(dcp.api.CheckpointException) as caught:
            dcp.load(state(0), storage_reader=DcpReader(tmp_path / "step"))
        kind = rangeio.NotFoundError if least else rangeio.UnexpectedEofError
        assert [type(error) for error in caught.value.failures.values() for error in [error[0]]] == [kind]
    with pytest.raises(rangeio.ConfigInvalidError):
        DcpReader("s3://bucket/step", regoin="x")


def _restored(reader: DcpReader) -> bool:
    torch.set_num_threads(1)  # a fork does not copy the threads of OpenMP
    found = state(0)
    dcp.load(found, storage_reader=reader, no_dist=True)
    return is_same(found, state())


@pytest.mark.filterwarnings(FORKS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_in_a_child(saved: Path, method: Any) -> None:
    """A reader travels, and goes on reading where it was made."""
    with served(saved) as server:
        reader = DcpReader(f"{server.url}/step", bearer_token="S3cret")
        assert _restored(reader)
        assert b"S3cret" not in pickle.dumps(reader)
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            assert pool.submit(_restored, reader).result(60)
        assert _restored(reader)


def test_a_replaced_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two requests for it: the tensors are not of two versions."""
    monkeypatch.setattr(checkpoints, "_IN_PLACE_FAR", 100_000)
    data = {path.name: path.read_bytes() for path in saved.iterdir()}

    def script(asked: Asked) -> Answer:
        name = asked.target.removeprefix("/step/")
        return with_suffixes(data[name], asked, '"old"' if asked.number < 2 else '"new"')

    with scripted(script) as server, pytest.raises(dcp.api.CheckpointException) as caught:
        dcp.load(state(0), storage_reader=DcpReader(f"{server.url}/step"))
    assert {type(error[0]) for error in caught.value.failures.values()} == {rangeio.ObjectChangedError}


MEMORY = """
    import sys, warnings
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed.checkpoint as dcp
    from rangeio.adapters.torch import DcpReader

    def resident(name):
        with open("/proc/self/status") as status:
            facts = dict(line.split(":", 1) for line in status)
        return int(facts[name].split()[0]) << 10

    # What is imported, and begun, by the first load; and all pages of the tensors.
    dcp.load({"small": torch.ones(8)}, storage_reader=DcpReader(sys.argv[1]), no_dist=True)
    found = {f"tensor {i}": torch.full((16 << 20,), 0, dtype=torch.uint8) for i in range(8)}
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak is from now on
    before = resident("VmRSS")
    dcp.load(found, storage_reader=DcpReader(sys.argv[1]), no_dist=True)
    more = resident("VmHWM") - before
    same = all(bool((tensor == i + 1).all()) for i, tensor in enumerate(found.values()))
    say(more=more, same=same)
"""


def test_memory_beside_the_tensors(auto_lab: Lab, tmp_path: Path) -> None:
    """At most 64 MiB, for 128 MiB of tensors, which are read into their places."""
    tensors = {f"tensor {i}": torch.full((16 << 20,), i + 1, dtype=torch.uint8) for i in range(8)}
    save(tmp_path / "step", {**tensors, "small": torch.zeros(8)})
    child = auto_lab.start(code(MEMORY), tmp_path / "step", RANGEIO_POISON="0").finish(120)
    facts = {name: value for line in child.said for name, value in line.items()}
    assert facts.get("same") is True, child.stderr
    assert facts["more"] <= 64 << 20


# --- ranks ---------------------------------------------------------------------------------------------------

RANKS = """
    import sys, warnings
    import rangeio.adapters.torch as adapter
    before = "torch.distributed.checkpoint" in sys.modules  # it takes as long as torch, and workers do not need it
    assert adapter.DcpReader.__name__ in adapter.__all__
    from pathlib import Path
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    import torch.multiprocessing as mp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
    from rangeio.adapters.torch import DcpReader

    torch.set_num_threads(1)  # a fork does not copy the threads of OpenMP
    WHOLE = torch.arange(60_000, dtype=torch.float32).reshape(300, 200)
    ODD = torch.arange(21, dtype=torch.int64).reshape(7, 3)

    def rank(number, folder):
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
        mesh = init_device_mesh("cpu", (2,))
        def spread(placement, factor):
            tensors = {"whole": WHOLE * factor, "odd": ODD * factor}
            spread = {name: distribute_tensor(tensor, mesh, [placement]) for name, tensor in tensors.items()}
            return {**spread, "step": 3 * factor}

        dcp.save(spread(Shard(0), 1), checkpoint_id=f"{folder}/step")
        for placement in (Shard(0), Shard(1), Replicate()):
            found = spread(placement, 0)
            dcp.load(found, storage_reader=DcpReader(f"{folder}/step"))
            assert torch.equal(found["whole"].full_tensor(), WHOLE), placement
            assert torch.equal(found["odd"].full_tensor(), ODD), placement
            assert found["step"] == 3
        mine = {"of this rank": torch.full((100, 300), float(number))}
        dcp.save(mine, checkpoint_id=f"{folder}/alone", use_collectives=False)
        dist.barrier()
        found = {"of this rank": torch.zeros(100, 300)}
        dcp.load(found, storage_reader=DcpReader(f"{folder}/alone"))
        assert torch.equal(found["of this rank"], mine["of this rank"])
        dist.destroy_process_group()

    if __name__ == "__main__":
        mp.start_processes(rank, (sys.argv[1],), 2, start_method="fork")
        found = {"whole": torch.zeros(300, 200), "odd": torch.zeros(7, 3, dtype=torch.int64), "step": 0}
        dcp.load(found, storage_reader=DcpReader(f"{sys.argv[1]}/step"), no_dist=True)
        same = torch.equal(found["whole"], WHOLE) and torch.equal(found["odd"], ODD)
        say(same=same, step=found["step"], before=before,
            files=sorted(path.name for path in Path(sys.argv[1], "alone").iterdir()))
"""


def test_ranks_that_shard_otherwise(auto_lab: Lab, tmp_path: Path) -> None:
    """DTensors saved by two ranks; loaded by two, sharded as before, by columns or not at all, and by one."""
    outcome = auto_lab.start(code(RANKS), tmp_path).finish(120)
    facts = {name: value for line in outcome.said for name, value in line.items()}
    assert facts, outcome.stderr
    assert (facts["same"], facts["step"], facts["before"]) == (True, 3, False)
    assert {"__0.metadata", "__1.metadata"} <= {*facts["files"]}


def test_files_of_several_ranks_over_a_network(tmp_path: Path) -> None:
    """One file for each tensor; all are read at once."""
    values = {f"tensor {i}": torch.full((1_000,), float(i)) for i in range(12)}
    save(tmp_path / "step", values, single_file_per_rank=False)
    assert len([*(tmp_path / "step").glob("*.distcp")]) == 12
    with served(tmp_path / "step") as server:
        found = {name: torch.zeros(1_000) for name in values}
        dcp.load(found, storage_reader=DcpReader(f"{server.url}/step"))
        assert is_same(found, values)
