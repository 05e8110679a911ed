"""What torch.save wrote of one tensor: where its bytes are, known from the first 2 KiB of the archive."""

import io
import math
import pickle
import struct
import sys
from dataclasses import dataclass
from typing import Any

import torch

HEAD = 2048
"""The bytes of the beginning that suffice, whatever the shape."""

# Of a zip, as torch writes it: an entry is stored, and its size follows it.
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_MAGIC, _AFTER, _DESCRIPTOR, _UNSIZED = b"PK\x03\x04", b"PK\x07\x08", 16, 1 << 3
_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}


@dataclass(frozen=True)
class Stored:
    """A contiguous tensor in an archive. start: of its bytes in the archive."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """The length of its bytes."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def part(self, offsets: tuple[int, ...], lengths: tuple[int, ...]) -> tuple[int, int] | None:
        """(start, length) in the archive of a part that is contiguous there; None if it is not, or lies outside."""
        if len(offsets) != len(self.shape) or len(lengths) != len(self.shape):
            return None
        first, stride, whole = 0, self.dtype.itemsize, True
        for size, offset, length in zip(
            reversed(self.shape), reversed(offsets), reversed(lengths), strict=True
        ):
            if offset < 0 or length < 0 or offset + length > size or not (whole or length == 1):
                return None
            whole = whole and length == size
            first += offset * stride
            stride *= size
        return self.start + first, math.prod(lengths) * self.dtype.itemsize


def stored(head: Any, length: int) -> Stored | None:
    """The tensor of an archive of `length` bytes, by the first of them; None if torch.load has to read it."""
    try:
        return _stored(bytes(head), length)
    except Exception:  # whatever a pickle may raise: torch.load says what is wrong
        return None


def _stored(head: bytes, length: int) -> Stored | None:
    name, start = _entry(head, 0)
    file = io.BytesIO(head)
    file.seek(start)
    dtype, shape, first = _Recorder(file).load()
    end, native = file.tell(), False
    while True:
        name, start = _entry(head, end + _DESCRIPTOR)
        if name == "data/0":
            found = Stored(dtype, shape, start + first * dtype.itemsize)
            return found if native and found.start + found.nbytes <= length else None
        end = head.index(_AFTER, start)  # the other entries are short, and no text in them looks like that
        native = native or (name == "byteorder" and head[start:end] == sys.byteorder.encode())


def _entry(head: bytes, place: int) -> tuple[str, int]:
    """The name of the entry whose header is there, and where its content begins. ValueError if torch writes no such."""
    magic, _, flags, method, *_, names, extra = _LOCAL_HEADER.unpack_from(head, place)
    if magic != _MAGIC or method or not flags & _UNSIZED:
        raise ValueError("not an archive of torch.save")
    start = place + _LOCAL_HEADER.size
    return head[start : start + names].decode().partition("/")[2], start + names + extra


class _Recorder(pickle.Unpickler):
    """Reads (dtype, shape, first element) of the one tensor, and makes nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        found = getattr(torch, name, None)
        if module != "torch" or not isinstance(found, torch.dtype):
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a plain tensor")
        return found

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage" or key != "0":
            raise pickle.UnpicklingError("not the first storage")
        return dtype


def _plain(
    dtype: Any, first: int, shape: Any, strides: Any, *_: Any
) -> tuple[torch.dtype, tuple[int, ...], int]:
    """`torch._utils._rebuild_tensor_v2`. ValueError if the tensor is not contiguous."""
    metadata = _[2:]
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            raise ValueError("not contiguous")
        step *= size
    if any(metadata) or first < 0 or min(shape, default=0) < 0 or not isinstance(dtype, torch.dtype):
        raise ValueError("not a plain tensor")
    return dtype, tuple(shape), first


def _typed(
    _: Any, first: int, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *more: Any
) -> Any:
    """`torch._utils._rebuild_tensor_v3`, of dtypes that have no storage of their own."""
    return _plain(dtype, first, shape, strides, grad, hooks, *more)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _plain,
    ("torch._utils", "_rebuild_tensor_v3"): _typed,
    ("torch.storage", "UntypedStorage"): None,
    **{("torch", name): dtype for name, dtype in _TYPES.items()},
}
