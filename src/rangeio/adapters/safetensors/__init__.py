"""Tensors of safetensors files, by the same names as in the package safetensors, from any URI.

    with safe_open("s3://bucket/model.safetensors", framework="pt") as f:
        weight = f.get_tensor("weight")
        rows = f.get_slice("embedding")[1000:2000]
    tensors = load_file("model.safetensors")
    tensors = load_sharded("hf://org/repo/model.safetensors.index.json", ["lm_head.weight"])

framework "pt" needs torch; "np" needs ml_dtypes (``pip install 'rangeio[safetensors]'``) for bfloat16 and float8.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rangeio.adapters.arrays import Pairs, fill, fresh, opened
from rangeio.adapters.boxes import read_box, select
from rangeio.adapters.safetensors.frames import Frame, frame_for
from rangeio.adapters.safetensors.header import BITS, Tensor, read_header
from rangeio.adapters.safetensors.shards import Shards
from rangeio.errors import UnsupportedError
from rangeio.reader import Reader

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["load_file", "load_sharded", "safe_open"]

# The memory that tensors of a whole file share: what is kept as long as one of them is.
_GROUP = 256 << 20


class safe_open:
    """One open safetensors file. Threads may share it. Pickles as URI and options, without secrets.

    uri: a URI or path, or a Reader, which stays open. framework: ``"pt"`` for torch, ``"np"`` for numpy. device: of
    torch; tensors are read into memory and moved there by `Tensor.to`. options: those of `rangeio.open`.

    Cost: a request for the header (a second one if it is longer than 64 KiB), then one for each tensor, all in flight;
    over a network small ones that follow each other are one request. ValueError if the file is not valid, which is
    checked before anything is read or allocated for a tensor. Every call may raise what a Reader raises, such as
    ObjectChangedError if the object was replaced since its header was read.

    Tensors are the caller's own and writable. No call returns memory of another one.
    """

    def __init__(self, uri: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> None:
        self._frame: Frame = frame_for(framework, device)
        self._begin(opened(uri, options), framework, device)

    def _begin(self, reader: Reader, framework: str, device: Any) -> None:
        """Read the header. Owns the Reader."""
        self._reader, self._framework, self._device = reader, framework, device
        try:
            self._header = read_header(self._reader)
        except BaseException:
            self._reader.close()
            raise

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._header.tensors)

    def offset_keys(self) -> list[str]:
        """The names of the tensors in the order of the file."""
        return [*self._header.tensors]

    def metadata(self) -> dict[str, str] | None:
        """The free texts of the header; None if it has none."""
        return None if self._header.metadata is None else dict(self._header.metadata)

    def get_tensor(self, name: str) -> Any:
        """One tensor, whole. KeyError if there is none of this name."""
        return self.get_tensors([name])[name]

    def get_tensors(
        self, names: Iterable[str] | None = None, out: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Many tensors by name, all read at once.

        names: default those of `out`, or all in the order of the file. All tensors of a file share blocks of memory of
        up to 256 MiB; dropping all tensors of a block frees it. If only some are named, each has memory of its own, and
        only their bytes are requested. out: tensors of the caller to be filled and returned, such as pinned or
        shared memory; contiguous, in memory, of the same dtype and shape, else ValueError before anything is read.
        After an error their content is undefined.
        """
        wanted = self._wanted(names, out)
        given = {} if out is None else dict(out)
        if unknown := [name for name in given if name not in wanted]:
            raise ValueError(f"out has {unknown[0]!r}, which is not among the names")
        if given and self._frame.device is not None:
            raise ValueError("out is filled where it is: pass no device")
        placed: dict[str, Any] = {}
        pairs: Pairs = []
        for name, tensor in given.items():
            pairs.append((self._frame.memory_of(tensor, wanted[name]), wanted[name].start))
            placed[name] = tensor
        direct = self._reader.capability.direct
        groups = self._groups([one for name, one in wanted.items() if name not in given])
        for group in groups:
            memory = fresh(group[-1].stop - group[0].start, group[0].start, direct)
            for one in group:
                data = memory[one.start - group[0].start :][: one.nbytes]
                placed[one.name] = self._frame.tensor(data, one, one.shape)
            pairs.append((memory, group[0].start))
            if self._frame.device is not None:
                fill(self._reader, pairs)
                placed.update({one.name: self._frame.moved(placed[one.name]) for one in group})
                pairs.clear()
                del memory, data
        fill(self._reader, pairs)
        return {name: placed[name] for name in wanted}

    def _wanted(self, names: Iterable[str] | None, out: Mapping[str, Any] | None) -> dict[str, Tensor]:
        known = self._header.tensors
        if isinstance(names, str):
            raise TypeError(f"names must be several names; for one tensor: get_tensor({names!r})")
        if names is None and out is None:
            return known
        return {name: self._described(name) for name in (out or () if names is None else names)}

    def _described(self, name: str) -> Tensor:
        found = self._header.tensors.get(name)
        if found is None:
            raise KeyError(f"{self._reader.path!r} has no tensor {name!r}")
        return found

    def _groups(self, wanted: list[Tensor]) -> list[list[Tensor]]:
        """Tensors that share memory: of a whole file those that follow each other and stay aligned, else none."""
        whole = len(wanted) == len(self._header.tensors)
        groups: list[list[Tensor]] = []
        for one in sorted(wanted, key=lambda one: (one.start, one.stop)):
            first = groups[-1][0].start if groups else 0
            if whole and groups and one.stop - first <= _GROUP and (one.start - first) % one.item == 0:
                groups[-1].append(one)
            else:
                groups.append([one])
        return groups

    def get_slice(self, name: str) -> "Slice":
        """A tensor of which indexing reads a part. KeyError if there is none of this name."""
        return Slice(self._described(name), self._read_part)

    def _read_part(self, one: Tensor, index: Any) -> Any:
        if BITS[one.dtype] < 8:
            raise UnsupportedError(f"tensor {one.name!r} is {one.dtype}, of which parts are not read")
        box = select(index, one.shape)
        data = read_box(self._reader, one.start, one.item, box)
        return self._frame.moved(self._frame.tensor(data, one, box.counts)[(*box.selector, ...)])

    def close(self) -> None:
        """Close the file; tensors stay valid."""
        self._reader.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rangeio.safe_open {self._reader.path!r} {len(self._header.tensors)} tensors>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._reader, self._framework, self._device)


def _reopened(reader: Reader, framework: str, device: Any) -> safe_open:
    found = safe_open.__new__(safe_open)
    found._frame = frame_for(framework, device)
    found._begin(reader, framework, device)
    return found


class Slice:
    """A tensor of which parts are read: ``f.get_slice("a")[10:20, ..., 0]``.

    An index is what numpy calls basic: integers, slices, an Ellipsis, None; steps must be positive. What is contiguous
    is one read. Of other parts the runs of bytes are read at once; where they are at most four times their length
    apart, with what is between them (of a local file only if they are also within 4 KiB).
    """

    def __init__(self, one: Tensor, read: Callable[[Tensor, Any], Any]) -> None:
        self._one, self._read = one, read

    def get_shape(self) -> list[int]:
        """The shape, as in the header."""
        return [*self._one.shape]

    def get_dtype(self) -> str:
        """The name of the dtype in the format, such as ``"BF16"``."""
        return self._one.dtype

    def __getitem__(self, index: Any) -> Any:
        return self._read(self._one, index)


def load_file(
    uri: Any,
    device: Any = "cpu",
    *,
    names: Iterable[str] | None = None,
    out: Mapping[str, Any] | None = None,
    framework: str = "pt",
    **options: Any,
) -> dict[str, Any]:
    """The tensors of a file by name. See `safe_open` and its `get_tensors`."""
    with safe_open(uri, framework, device, **options) as file:
        return file.get_tensors(names, out)


def load_sharded(
    index_json_uri: Any,
    names: Iterable[str] | None = None,
    *,
    framework: str = "pt",
    device: Any = "cpu",
    **options: Any,
) -> dict[str, Any]:
    """The tensors of a model that is divided into files, which ``model.safetensors.index.json`` names.

    names: only these, KeyError for one that is not there; only the files that have them are opened, up to eight at a
    time over a network. options: for the index and the files. ValueError if the index is not valid, names a file that
    is not in its folder or below, or a tensor that its file does not have.
    """
    shards = Shards(index_json_uri, options)

    def load(uri: str, wanted: list[str]) -> dict[str, Any]:
        with safe_open(uri, framework, device, **options) as file:
            if missing := {*wanted}.difference(file.keys()):
                raise ValueError(f"{uri!r} has no tensor {min(missing)!r}, which {shards.path!r} names")
            return file.get_tensors(wanted)

    return shards.load(names, load)
