"""`rangeio.adapters.safetensors`: tensors and parts against those of the package, requests, errors, memory."""

import json
import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.child import Lab, code
from faults.machine import need_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import run_page
from servers import hf_server
from servers.s3 import S3Server
from servers.scripted import Answer, Asked, Scripted, honest, reply, scripted

import rangeio
from rangeio.adapters import safetensors as ours

theirs = need_module("safetensors")
from safetensors.numpy import save, save_file  # noqa: E402

MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"]
DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"]


def packed(header: Any, data: bytes = b"") -> bytes:
    """A file of a header, as an object or as its text."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [*offsets]}


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


TENSORS: dict[str, Any] = {
    name: (np.frombuffer(random_bytes(2 * 3 * 4 * np.dtype(kind).itemsize), kind) % 2 == 0)
    if kind == "?"
    else np.frombuffer(random_bytes(2 * 3 * 4 * np.dtype(kind).itemsize), kind)
    for name, kind in zip(KINDS, DTYPES, strict=True)
}
TENSORS = {name: array.reshape(2, 3, 4) for name, array in TENSORS.items()}
TENSORS |= {"none": np.empty((0, 3), "f4"), "scalar": np.array(3.5, "f4"), "wide": np.arange(8, dtype="i2")}
FILE = save(TENSORS, {"made": "by a test"})


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.safetensors").write_bytes(FILE)
    return str(tmp_path / "a.safetensors")


def same(found: Any, expected: Any) -> None:
    """Equal in dtype, shape and bytes, NaN or not; of numpy or of torch."""
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    bits = [as_bytes(array) for array in (found, expected)]
    assert bits[0] == bits[1]


def as_bytes(array: Any) -> bytes:
    if isinstance(array, np.ndarray):
        return array.tobytes()
    torch = sys.modules["torch"]
    return bytes(array.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


# --- whole tensors -------------------------------------------------------------------------------------------


def test_arrays_are_those_of_safetensors(path: str) -> None:
    with theirs.safe_open(path, "np") as expected, ours.safe_open(path, "np") as file:
        assert file.keys() == expected.keys()
        assert file.offset_keys() == expected.offset_keys()
        assert file.metadata() == expected.metadata() == {"made": "by a test"}
        for name in expected.keys():  # noqa: SIM118
            same(file.get_tensor(name), expected.get_tensor(name))
            assert file.get_slice(name).get_shape() == expected.get_slice(name).get_shape()
            assert file.get_slice(name).get_dtype() == expected.get_slice(name).get_dtype()
        whole = file.get_tensors()
        assert [*whole] == expected.offset_keys()
        for name, array in whole.items():
            same(array, TENSORS[name])
            assert array.flags.writeable
            assert array.flags.aligned
    assert ours.load_file(path, framework="np", names=["wide", "I8"]).keys() == {"wide", "I8"}


@pytest.mark.frameworks
def test_tensors_are_those_of_safetensors(tmp_path: Path) -> None:
    torch = need_module("torch", "test-frameworks")
    from safetensors.torch import save_file as save_tensors

    names = (
        "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2"
    )
    kinds = [getattr(torch, name) for name in (*names.split(), "float32", "uint64", "complex64", "bool")]
    tensors = {}
    for kind in kinds:
        count = 24 * torch.empty(0, dtype=kind).element_size()
        raw = torch.frombuffer(bytearray(random_bytes(count)), dtype=torch.uint8)
        tensors[str(kind)] = ((raw & 1) if kind is torch.bool else raw).view(kind).reshape(2, 3, 4)
    path = tmp_path / "a.safetensors"
    save_tensors({**tensors, "none": torch.empty(2, 0), "scalar": torch.tensor(2.5)}, path)
    with theirs.safe_open(path, "pt") as expected, ours.safe_open(path) as file:
        for name in expected.keys():  # noqa: SIM118
            same(file.get_tensor(name), expected.get_tensor(name))
            if name != str(torch.float4_e2m1fn_x2):
                part = (slice(None), slice(1, None), 2)
                if expected.get_slice(name).get_shape() == [2, 3, 4]:
                    same(file.get_slice(name)[part], expected.get_slice(name)[part])
        for name, tensor in file.get_tensors().items():
            same(tensor, expected.get_tensor(name))
        with pytest.raises(rangeio.UnsupportedError, match="F4"):
            file.get_slice(str(torch.float4_e2m1fn_x2))[0]
    loaded = ours.load_file(path)
    loaded["torch.float32"].fill_(1)  # no warning, and nothing of the others
    same(loaded["torch.bfloat16"], tensors["torch.bfloat16"])
    on_meta = ours.load_file(path, "meta")
    assert {(tensor.device.type, tensor.shape) for tensor in on_meta.values()} >= {("meta", (2, 3, 4))}


def test_types_that_numpy_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("ml_dtypes")
    path = tmp_path / "a.safetensors"
    content = {"a": entry("BF16", [2], 0, 4), "b": entry("F8_E5M2", [2], 4, 6), "c": entry("F4", [2], 6, 7)}
    path.write_bytes(packed(content, b"\x80\x3f\x00\xc0\x3c\xc0\x12"))
    with ours.safe_open(path, "np") as file:
        assert file.get_tensor("a").astype("f4").tolist() == [1, -2]
        assert file.get_tensor("b").astype("f4").tolist() == [1, -2]
        with pytest.raises(rangeio.UnsupportedError, match="'c' is F4"):
            file.get_tensor("c")
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        with pytest.raises(ImportError, match=r"pip install 'rangeio\[safetensors\]'"):
            file.get_tensor("a")


def test_the_package_is_imported_when_it_is_used(auto_lab: Lab, path: str) -> None:
    program = code("""
        import sys
        import rangeio
        assert not [name for name in sys.modules if name.startswith("rangeio.adapters.safetensors")]
        sys.modules["torch"] = None
        from rangeio.adapters.safetensors import load_file
        assert len(load_file(sys.argv[1], framework="np")) == 16
        assert not {"safetensors", "ml_dtypes"} & set(sys.modules)
        try:
            load_file(sys.argv[1])
        except ImportError as error:
            say(told=str(error))
    """)
    assert "pip install 'rangeio[torch]'" in auto_lab.run(program, path).facts()["told"]


# --- parts ---------------------------------------------------------------------------------------------------


@st.composite
def boxes(draw: Any) -> tuple[tuple[int, ...], Any]:
    """A shape, and a basic index of it."""
    shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
    items: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        number = st.integers(-size, size - 1)
        edge = st.none() | st.integers(-size - 2, size + 2)
        items.append(draw(number | st.builds(slice, edge, edge, st.sampled_from([None, 1, 1, 2, 5]))))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), None)
    if draw(st.booleans()):
        items.append(Ellipsis)
    return shape, items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@MANY
@given(boxes(), st.sampled_from(["u1", "<f4", "<c8"]))
def test_parts_are_those_of_numpy(tmp_path: Path, box: Any, kind: str) -> None:
    shape, index = box
    whole = np.arange(int(np.prod(shape))).astype(kind).reshape(shape)
    save_file({"before": np.zeros(3, "u1"), "a": whole}, tmp_path / "a")
    with ours.safe_open(tmp_path / "a", "np") as file:
        found = file.get_slice("a")[index]
        same(np.asarray(found), np.asarray(whole[index]))


def test_wrong_indices(path: str) -> None:
    with ours.safe_open(path, "np") as file:
        part = file.get_slice("F32")
        for index in (2, -3, (0, 0, 0, 0), (..., ...), (0, 3)):
            with pytest.raises(IndexError):
                part[index]
        for index in ([0, 1], True, "a", 1.5, np.array([0])):
            with pytest.raises(TypeError, match="only integers, slices"):
                part[index]
        with pytest.raises(ValueError, match="positive"):
            part[::-1]
        with pytest.raises(IndexError):
            file.get_slice("scalar")[0]
        for call in (file.get_slice, file.get_tensor, lambda name: file.get_tensors(["F32", name])):
            with pytest.raises(KeyError, match="absent"):
                call("absent")
        with pytest.raises(TypeError, match="get_tensor"):
            file.get_tensors("F32")


# --- requests ------------------------------------------------------------------------------------------------


@contextmanager
def served(files: dict[str, bytes], also: Any = lambda _: None) -> Iterator[Scripted]:
    def script(asked: Asked) -> Answer:
        given: Answer | None = also(asked)
        data = files.get(asked.target[1:])
        return given if given is not None else reply(404) if data is None else honest(data, asked)

    with scripted(script) as server:
        yield server


MATRIX = np.frombuffer(random_bytes(4 << 20), "<f4").reshape(1024, 1024)
MODEL = save(
    {"norm": np.ones(100, "f4"), "matrix": MATRIX, "bias": np.ones(50, "f4"), "small": np.ones(9, "f4")}
)
BEGIN = len(MODEL) - MATRIX.nbytes - 159 * 4


def ranges_of(server: Scripted) -> list[tuple[int, int]]:
    """Those after the header."""
    assert {asked.method for asked in server.asked} == {"GET"}
    found = [asked.range for asked in server.asked[1:]]
    return sorted(one for one in found if one is not None)


def place(name: str) -> tuple[int, int]:
    header = json.loads(MODEL[8:BEGIN])
    start, stop = header[name]["data_offsets"]
    return BEGIN + start, BEGIN + stop


def test_only_what_is_named_is_requested() -> None:
    """One request for the header, one for each tensor; none for the size. Small neighbours are one."""
    with served({"m": MODEL}) as server:
        found = ours.load_file(f"{server.url}/m", framework="np", names=["matrix"])
        same(found["matrix"], MATRIX)
        assert ranges_of(server) == [place("matrix")]
    with served({"m": MODEL}) as server:
        found = ours.load_file(f"{server.url}/m", framework="np", names=["small", "bias", "norm"])
        assert [(name, array.sum()) for name, array in found.items()] == [
            ("small", 9),
            ("bias", 50),
            ("norm", 100),
        ]
        assert place("norm")[1] == place("small")[0]
        assert ranges_of(server) == [place("bias"), (place("norm")[0], place("small")[1])]


def test_a_long_header_is_two_requests() -> None:
    data = save({f"tensor {i:05}": np.array([i]) for i in range(2_000)})
    with served({"m": data}) as server, ours.safe_open(f"{server.url}/m", "np") as file:
        assert len(server.asked) == 2
        second = server.asked[1].range
        assert second == (65_536, 8 + int.from_bytes(data[:8], "little"))
        assert file.get_tensor("tensor 01234").tolist() == [1234]


def test_requests_of_parts() -> None:
    """Rows are one request; columns that are a fourth of a row are read with what is between them, others alone."""
    start = place("matrix")[0]
    with served({"m": MODEL}) as server, ours.safe_open(f"{server.url}/m", "np") as file:
        part = file.get_slice("matrix")
        same(part[100:200], MATRIX[100:200])
        assert ranges_of(server) == [(start + 100 * 4096, start + 200 * 4096)]
        del server.asked[1:]
        same(part[:, 256:512], MATRIX[:, 256:512])
        fetched = ranges_of(server)
        assert len(fetched) <= 2
        assert sum(stop - start for start, stop in fetched) <= 4 << 20
        del server.asked[1:]
        same(part[:16, 7:9], MATRIX[:16, 7:9])
        assert len(fetched := ranges_of(server)) == 16
        assert {stop - start for start, stop in fetched} == {8}


def test_a_tensor_of_the_hub() -> None:
    """A tensor of a model that is not downloaded: its header and its bytes."""
    with hf_server.hub() as hub:
        uri = hub.put("model.safetensors", MODEL)
        with ours.safe_open(uri, "np", endpoint_url=hub.site.url, anonymous=True) as file:
            same(file.get_slice("matrix")[5:7], MATRIX[5:7])
        fetched = [asked.range for asked in hub.storage.asked if asked.range]
        assert sum(stop - start for start, stop in fetched) < 100_000


def test_on_s3(seaweedfs: S3Server) -> None:
    uri = seaweedfs.put("model/m.safetensors", MODEL)
    for name, found in ours.load_file(uri, framework="np", **seaweedfs.options).items():
        same(found, {**TENSORS, "matrix": MATRIX}.get(name, found))
    index = {"weight_map": {"matrix": "m.safetensors"}}
    seaweedfs.put("model/model.safetensors.index.json", json.dumps(index).encode())
    there = uri.replace("m.safetensors", "model.safetensors.index.json")
    same(ours.load_sharded(there, framework="np", **seaweedfs.options)["matrix"], MATRIX)


# --- memory of the caller ------------------------------------------------------------------------------------


def test_out_is_filled_in_place(path: str) -> None:
    places = {name: np.empty_like(TENSORS[name]) for name in ("F32", "I8", "scalar", "none", "BOOL")}
    found = ours.load_file(path, framework="np", out=places)
    assert [*found] == [*places]
    for name, array in found.items():
        assert array is places[name]
        same(array, TENSORS[name])
    both = ours.load_file(path, framework="np", names=["wide", "F32"], out={"F32": places["F32"]})
    assert both["F32"] is places["F32"]
    same(both["wide"], TENSORS["wide"])


def test_out_of_torch(path: str) -> None:
    torch = need_module("torch")
    place = torch.empty(2, 3, 4)
    shared = torch.empty(8, dtype=torch.int16).share_memory_()
    wanted = torch.nn.Parameter(torch.empty(2, 3, 4, dtype=torch.float64))
    found = ours.load_file(path, out={"F32": place, "wide": shared, "F64": wanted})
    assert found["F32"] is place
    assert place.numpy().tobytes() == TENSORS["F32"].tobytes()
    assert shared.tolist() == [*range(8)]
    assert wanted.detach().numpy().tobytes() == TENSORS["F64"].tobytes()
    wrong = {
        "dtype": torch.empty(2, 3, 4, dtype=torch.int32),
        "shape": torch.empty(2, 12),
        "contiguous": torch.empty(4, 3, 2).permute(2, 1, 0),
        "device": torch.empty(2, 3, 4, device="meta"),
        "kind": np.empty((2, 3, 4), "f4"),
    }
    for tensor in wrong.values():
        with pytest.raises(ValueError, match="'F32' cannot be filled"):
            ours.load_file(path, out={"F32": tensor})


def test_out_that_does_not_fit(path: str) -> None:
    read_only = np.empty((2, 3, 4), "f4")
    read_only.flags.writeable = False
    turned = np.empty((4, 3, 2), "f4").T
    for array in (
        np.empty((2, 3, 4), "f8"),
        np.empty((3, 2, 4), "f4"),
        np.empty(24, "f4"),
        read_only,
        turned,
        [0],
    ):
        with pytest.raises(ValueError, match="'F32' cannot be filled"):
            ours.load_file(path, framework="np", out={"F32": array})
    place = np.empty((2, 3, 4), "f4")
    with pytest.raises(KeyError, match="absent"):
        ours.load_file(path, framework="np", out={"absent": place})
    with pytest.raises(ValueError, match="not among the names"):
        ours.load_file(path, framework="np", names=["I8"], out={"F32": place})
    with pytest.raises(ValueError, match="overlap"):
        ours.load_file(path, framework="np", out={"F32": place, "I32": place.view("i4")})


@pytest.mark.parametrize("shift", range(1, 9))
@pytest.mark.parametrize("direct", [True, False])
def test_tensors_are_aligned(tmp_path: Path, shift: int, direct: bool) -> None:
    """Whatever the length of the header, and in whatever order the tensors are."""
    large = np.arange(1 << 18)
    parts = [large.astype("u1"), large.astype("<f8"), large[:3].astype("u1"), large.astype("<i2"), large[:1]]
    content, at = {}, 0
    for number, part in enumerate(parts):
        name = {"u1": "U8", "f8": "F64", "i2": "I16", "i8": "I64"}[part.dtype.str[1:]]
        content[str(number)] = entry(name, [*part.shape], at, at + part.nbytes)
        at += part.nbytes
    raw = json.dumps(content)
    raw += " " * (-len(raw) % 8 + shift)
    data = packed(raw.encode(), b"".join(part.tobytes() for part in parts))
    (tmp_path / "a").write_bytes(data)
    for names in (None, ["0", "1", "3", "4"]):
        for name, found in ours.load_file(tmp_path / "a", framework="np", names=names, direct=direct).items():
            assert found.flags.aligned
            same(found, parts[int(name)])


def test_dropped_tensors_free_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole file those of one block when all of them are dropped, by name each alone."""
    tensors = {name: np.full(1 << 19, number, "f8") for number, name in enumerate("abcdef")}
    save_file(tensors, tmp_path / "m")
    monkeypatch.setattr(ours, "_GROUP", 9 << 20)
    before = rangeio.stats()["bytes_live"]
    found = ours.load_file(tmp_path / "m", framework="np")
    groups = rangeio.stats()["bytes_live"] - before
    for name in "abcd":
        same(found.pop(name), tensors[name])
    left = rangeio.stats()["bytes_live"] - before
    assert left <= groups // 2
    assert found["f"].base is not None
    del found
    assert rangeio.stats()["bytes_live"] == before


MEMORY = """
    import resource, sys
    import numpy as np
    import rangeio
    from rangeio.adapters.safetensors import load_file, safe_open

    def resident():
        with open("/proc/self/status") as status:
            facts = dict(line.split(":", 1) for line in status)
        return [int(facts[name].split()[0]) << 10 for name in ("VmHWM", "VmRSS", "RssFile")]

    def measured(way):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak is from now on
        before = resident()
        kept = way()
        after = resident()
        peak = after[0] - before[1] - max(0, after[2] - before[2])
        return peak / sum(array.nbytes for array in kept)

    path, direct = sys.argv[1], sys.argv[2] == "True"
    load_file(path, framework="np", names=["a"], direct=direct)
    say(whole=measured(lambda: [*load_file(path, framework="np", direct=direct).values()]))
    say(named=measured(lambda: [*load_file(path, framework="np", names=list("bcd"), direct=direct).values()]))
    with safe_open(path, "np", direct=direct) as file:
        say(column=measured(lambda: [file.get_slice("d")[:, :2048]]))
"""


@pytest.mark.parametrize("direct", [False, True])
def test_peak_memory(auto_lab: Lab, tmp_path: Path, direct: bool) -> None:
    """At most a twentieth more than what is returned: what the kernel counted as resident."""
    large = np.zeros((2048, 4096), "f4")
    save_file({"a": large[:10], "b": large[:1500], "c": large[:1111], "d": large}, tmp_path / "m")
    facts = auto_lab.run(code(MEMORY), tmp_path / "m", direct, RANGEIO_POISON="0").facts()
    assert facts.pop("column") <= (2.05 if direct else 1.05)  # 8 MiB of records go by way of 12 MiB
    assert max(facts.values()) <= 1.05, facts


# --- hostile files -------------------------------------------------------------------------------------------

ONE = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "shorter than its length": b"\x08\0\0",
    "a header over 100 MB": (100_000_001).to_bytes(8, "little") + bytes(100),
    "a header of 2**63": (1 << 63).to_bytes(8, "little") + bytes(100),
    "a header longer than the file": packed(ONE, b"x")[:40],
    "no JSON": packed(b"{'a': 1}"),
    "no header": packed(b""),
    "a list": packed(b"[]"),
    "a number": packed(b"3"),
    "not UTF-8": packed(b'{"\xff":' + ONE[5:], b"x"),
    "half a surrogate pair": packed(b'{"\\ud800":' + ONE[5:], b"x"),
    "UTF-16": packed(ONE.decode().encode("utf-16"), b"x"),
    "nested deeply": packed(b"[" * 200_000),
    "objects nested deeply": packed(b'{"a":' * 200_000),
    "a number of many digits": packed(b'{"a":' + b"9" * 5_000 + b"}"),
    "NaN": packed(b'{"a":NaN}'),
    "a name twice": packed(ONE[:-1] + b"," + ONE[1:], b"x"),
    "a field twice": packed(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "an entry that is no object": packed({"a": [0, 1]}),
    "no dtype": packed({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x"),
    "no shape": packed({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"x"),
    "no offsets": packed({"a": {"dtype": "U8", "shape": [1]}}, b"x"),
    "an unknown dtype": packed({"a": entry("U128", [1], 0, 16)}, bytes(16)),
    "a dtype that is a list": packed({"a": entry(["U8"], [1], 0, 1)}, b"x"),
    "a shape of floats": packed({"a": entry("U8", [1.0], 0, 1)}, b"x"),
    "a shape of booleans": packed({"a": entry("U8", [True], 0, 1)}, b"x"),
    "a shape that is a number": packed({"a": entry("U8", 1, 0, 1)}, b"x"),
    "a negative dimension": packed({"a": entry("U8", [-1, -1], 0, 1)}, b"x"),
    "a hundred dimensions": packed({"a": entry("U8", [1] * 100, 0, 1)}, b"x"),
    "one offset": packed({"a": entry("U8", [1], 0)}, b"x"),
    "three offsets": packed({"a": entry("U8", [1], 0, 1, 1)}, b"x"),
    "offsets that are texts": packed({"a": entry("U8", [1], "0", "1")}, b"x"),
    "offsets past the end": packed({"a": entry("U8", [2], 0, 2)}, b"x"),
    "offsets far past the end": packed({"a": entry("U8", [1 << 60], 0, 1 << 60)}, b"x"),
    "overlapping": packed({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"xyz"),
    "the same bytes": packed({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 0, 2)}, b"xy"),
    "a hole": packed({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"xyz"),
    "a hole at the beginning": packed({"a": entry("U8", [1], 1, 2)}, b"xy"),
    "backwards": packed({"a": entry("U8", [1], 1, 0)}, b"x"),
    "negative": packed({"a": entry("U8", [2], -1, 1)}, b"xy"),
    "fewer bytes than the shape": packed({"a": entry("F32", [2], 0, 4)}, bytes(4)),
    "more bytes than the shape": packed({"a": entry("F32", [1], 0, 8)}, bytes(8)),
    "half a byte": packed({"a": entry("F4", [3], 0, 2)}, bytes(2)),
    "overflow": packed({"a": entry("U8", [1 << 32, 1 << 32], 0, 0)}),
    "overflow to the right size": packed({"a": entry("U8", [1 << 63, 2, 1], 0, 0)}),
    "impossible, but empty": packed({"a": entry("U8", [0, 1 << 40, 1 << 40], 0, 0)}),
    "bytes left over": packed(ONE, b"xy"),
    "bytes and no tensors": packed(b"{}", b"x"),
    "metadata that is a list": packed({"__metadata__": []}),
    "metadata of numbers": packed({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers(tmp_path: Path, case: str) -> None:
    (tmp_path / "bad").write_bytes(HOSTILE[case])
    with pytest.raises(ValueError, match=r"bad' is not a valid safetensors file") as caught:
        ours.load_file(tmp_path / "bad", framework="np")
    assert len(str(caught.value)) < 1_000


def test_valid_but_unusual(tmp_path: Path) -> None:
    """As the package reads them."""
    path = tmp_path / "a"
    for content, data in (
        (b"{}", b""),
        (b'{"__metadata__":null}', b""),
        (b"  " + ONE + b"     ", b"x"),
        (ONE[:-2] + b',"more":1}}', b"x"),
        ({"b": entry("U8", [0], 0, 0), "a": entry("U8", [1], 0, 1), "c": entry("U8", [3, 0], 1, 1)}, b"x"),
        ({"": entry("BOOL", [], 0, 1), "\u00e4 \U0001f600": entry("C64", [1, 1], 1, 9)}, bytes(9)),
    ):
        path.write_bytes(packed(content, data))
        with theirs.safe_open(path, "np") as expected, ours.safe_open(path, "np") as file:
            assert file.keys() == expected.keys()
            assert file.metadata() == expected.metadata()
            for name, array in file.get_tensors().items():
                same(array, expected.get_tensor(name))


@MANY
@given(st.data())
def test_damaged_files(tmp_path: Path, data: Any) -> None:
    """A file of which some bytes are others is read as the package reads it, or refused."""
    begin = 8 + int.from_bytes(FILE[:8], "little")
    damaged = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, begin - 1))] = data.draw(
            st.sampled_from(b'\0 "0123456789[]{},:abU8\xff')
        )
    cut = data.draw(st.sampled_from([0, 0, 1, 40]))
    path = tmp_path / "a"
    path.write_bytes(bytes(damaged[: len(damaged) - cut]))
    try:
        found = ours.load_file(path, framework="np")
    except ValueError as error:
        if "not a valid safetensors file" not in str(error):
            raise
    else:
        with theirs.safe_open(path, "np") as expected:
            assert found.keys() == {*expected.keys()}
            for name, array in found.items():
                same(array, expected.get_tensor(name))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
offsets = st.integers(-2, 20) | st.integers(1 << 60, 1 << 70)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "F4", "BF16", "X"]) | json_values,
        "shape": st.lists(offsets, max_size=3) | json_values,
        "data_offsets": st.lists(offsets, max_size=3) | json_values,
    }
)


@MANY
@given(st.dictionaries(st.text(max_size=3), entries | json_values, max_size=3), st.binary(max_size=20))
def test_invented_headers(tmp_path: Path, content: Any, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(packed(content, data))
    try:
        with ours.safe_open(path, "np") as file:
            names = file.keys()
    except ValueError as error:
        if "not a valid safetensors file" not in str(error):
            raise
    else:
        with theirs.safe_open(path, "np") as expected:
            assert expected.keys() == names


def test_hostile_files_take_no_memory(tmp_path: Path, auto_lab: Lab) -> None:
    """They are refused where there is no memory for what they claim: the address space is limited."""
    for number, data in enumerate(HOSTILE.values()):
        (tmp_path / str(number)).write_bytes(data)
    program = code("""
        import resource, sys
        import rangeio
        from rangeio.adapters.safetensors import load_file
        rangeio.from_bytes(b"abc").read_at(0, 2)
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (96 << 20),) * 2)
        refused = 0
        for number in range(int(sys.argv[2])):
            try:
                load_file(f"{sys.argv[1]}/{number}", framework="np")
            except ValueError:
                refused += 1
        say(refused=refused)
    """)
    assert auto_lab.run(program, tmp_path, len(HOSTILE)).facts() == {"refused": len(HOSTILE)}


# --- shards --------------------------------------------------------------------------------------------------


def sharded(folder: Path) -> Path:
    """A model of two files, one of them in a folder below."""
    (folder / "more").mkdir()
    save_file({"a": TENSORS["F32"], "b": TENSORS["I8"]}, folder / "1 of 2.safetensors")
    save_file({"c": TENSORS["F64"], "d": TENSORS["wide"]}, folder / "more" / "2.safetensors")
    files = {"a": "1 of 2.safetensors", "c": "more/2.safetensors", "b": "1 of 2.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def test_sharded(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    for uri in (index, index.as_uri()):
        found = ours.load_sharded(uri, framework="np")
        assert [*found] == ["a", "c", "b"]
        same(found["c"], TENSORS["F64"])
    assert [*ours.load_sharded(index, ["b"], framework="np")] == ["b"]
    with pytest.raises(KeyError, match="'d'"):
        ours.load_sharded(index, ["d"], framework="np")
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.*")}
    quoted = {name.replace(" ", "%20") + "?key=1": data for name, data in files.items()}
    with served(quoted) as server:
        found = ours.load_sharded(f"{server.url}/{index.name}?key=1", framework="np")
        same(found["a"], TENSORS["F32"])
        assert len(server.asked) == 1 + 2 + 2
        del server.asked[:]
        ours.load_sharded(f"{server.url}/{index.name}?key=1", ["c"], framework="np")
        assert len(server.asked) == 1 + 1 + 1


OUTSIDE = ["../a", "/etc/passwd", "a/../../b", "", ".", "a//b", "a\\..\\b", "http://host/a", "a\0b", 3, None]


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_that_leaves_its_folder(tmp_path: Path, name: Any) -> None:
    index = sharded(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "1 of 2.safetensors", "x": name}}))
    with pytest.raises(ValueError, match="outside of its folder"):
        ours.load_sharded(index, ["a"], framework="np")


def test_a_wrong_index(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    for text in ("", "[]", "{}", '{"weight_map":[]}', '{"weight_map":{"a":"x","a":"y"}}'):
        index.write_text(text)
        with pytest.raises(ValueError, match="not a valid index"):
            ours.load_sharded(index, framework="np")
    index.write_text('{"weight_map":{"x":"1 of 2.safetensors"}}')
    with pytest.raises(ValueError, match="no tensor 'x'"):
        ours.load_sharded(index, framework="np")
    index.write_text('{"weight_map":{"x":"absent.safetensors"}}')
    with pytest.raises(rangeio.NotFoundError, match=r"absent\.safetensors"):
        ours.load_sharded(index, framework="np")


# --- errors, processes ---------------------------------------------------------------------------------------


def test_a_replaced_object() -> None:
    """Between its header and its tensors."""

    def also(asked: Asked) -> Answer | None:
        return honest(MODEL, asked, '"v2"') if asked.number else None

    with served({"m": MODEL}, also) as server, ours.safe_open(f"{server.url}/m", "np") as file:
        for call in (
            file.get_tensors,
            lambda: file.get_tensor("norm"),
            lambda: file.get_slice("matrix")[:, 1],
        ):
            with pytest.raises(rangeio.ObjectChangedError):
                call()


def test_a_changed_file(path: str) -> None:
    with ours.safe_open(path, "np") as file:
        Path(path).write_bytes(FILE[:-1])
        with pytest.raises(rangeio.ObjectChangedError):
            file.get_tensors()


def test_servers_that_fail() -> None:
    def also(asked: Asked) -> Answer | None:
        return reply(500) if asked.number else None

    with served({"m": MODEL}, also) as server:
        file = ours.safe_open(f"{server.url}/m", "np", retry=1)
        with file, pytest.raises(rangeio.ServerError):
            file.get_tensor("matrix")
    with pytest.raises(rangeio.NotFoundError), served({}) as server:
        ours.load_file(f"{server.url}/m", framework="np")


def test_arguments(path: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="'pt' or 'np'"):
        ours.safe_open(path, "flax")
    with pytest.raises(rangeio.ConfigInvalidError, match="device"):
        ours.safe_open(path, "np", "cuda")
    with pytest.raises(rangeio.ConfigInvalidError, match="did you mean 'gap'"):
        ours.safe_open(path, "np", gab=1)
    with rangeio.open(path) as reader:
        with ours.safe_open(reader, "np") as file:
            assert file.get_tensor("wide").tolist() == [*range(8)]
        assert not reader.closed
        with pytest.raises(TypeError, match="gap"):
            ours.safe_open(reader, "np", gap=1)
    file.close()
    with pytest.raises(rangeio.ClosedError):
        file.get_tensor("wide")
    assert "16 tensors" in repr(file)


def test_no_secrets_travel() -> None:
    with served({"m": MODEL}) as server:
        with ours.safe_open(f"{server.url}/m", "np", bearer_token="S3cret") as file:
            travelled = pickle.dumps(file)
        assert b"S3cret" not in travelled
        assert len(travelled) < 1_000
        with pickle.loads(travelled) as again:
            same(again.get_tensor("matrix"), MATRIX)


def _total(file: Any) -> float:
    return float(file.get_slice("matrix")[3:5].view("u1").sum())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_in_a_child(tmp_path: Path, method: Any) -> None:
    (tmp_path / "m").write_bytes(MODEL)
    context = multiprocessing.get_context(method)
    with ours.safe_open(tmp_path / "m", "np") as file:
        with ProcessPoolExecutor(1, context) as pool:
            assert pool.submit(_total, file).result(30) == MATRIX[3:5].view("u1").sum()
        assert file.get_tensor("small").sum() == 9


def test_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs in docs/safetensors.md, as they stand there."""
    need_module("torch")
    monkeypatch.chdir(tmp_path)
    assert run_page("safetensors.md")
