"""The header of a safetensors file: JSON, of which nothing is believed before it is checked.

Source: the format's description in the README of https://github.com/huggingface/safetensors.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rangeio.adapters.arrays import size_of
from rangeio.reader import Reader

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""The data types of the format, and the bits of an item."""
MOST_HEADER = 100_000_000
_MOST_DIMENSIONS = 64  # of numpy
_MOST_BYTES = 1 << 62
_MOST_SHOWN = 80
# Bytes of the first request: the headers of most models.
_FIRST = 64 << 10


class Tensor(NamedTuple):
    """One tensor of a file: its bytes are `start` to `stop` of the file. shape: as in the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Of the file, and in memory."""
        return self.stop - self.start

    @property
    def item(self) -> int:
        """Bytes of an item, and what its place is to be a multiple of; 1 if items are smaller."""
        return max(1, BITS[self.dtype] // 8)


class Header(NamedTuple):
    """The tensors in the order of the file, by name, and the free texts (None if there are none)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] | None


def read_header(reader: Reader) -> Header:
    """Read and check the header: one request, a second one if it is longer than 64 KiB.

    ValueError if this is no safetensors file, or one that contradicts itself.
    """
    begin = reader.read_at(0, _FIRST).tobytes()  # the traceback of an error would hold the Buffer
    size = size_of(reader)
    if len(begin) < 8:
        raise _refusal(reader, "it is shorter than 8 bytes")
    length = int.from_bytes(begin[:8], "little")
    if length > MOST_HEADER:
        raise _refusal(reader, f"its header is {length} bytes long, more than {MOST_HEADER}")
    if 8 + length > size:
        raise _refusal(reader, f"its header is {length} bytes long, but the file {size}")
    raw = begin[8 : 8 + length]
    if len(raw) < length:
        raw += reader.read_exact(8 + len(raw), length - len(raw)).tobytes()
    try:
        return parse(raw, size - 8 - length)
    except ValueError as error:
        raise _refusal(reader, str(error)) from None


def _refusal(reader: Reader, reason: str) -> ValueError:
    return ValueError(f"{reader.path!r} is not a valid safetensors file: {reason}")


def parse(raw: bytes, nbytes: int) -> Header:
    """The header of a file with `nbytes` after it. ValueError if it is not valid."""
    content = strict_json(raw)
    metadata = content.pop("__metadata__", None)
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise ValueError("its __metadata__ is not an object")
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its __metadata__ has values that are not strings")
    tensors = [_tensor(name, entry, 8 + len(raw)) for name, entry in content.items()]
    tensors.sort(key=lambda one: (one.start, one.stop))
    end = 8 + len(raw)
    for one in tensors:
        if one.start != end:
            kind = "overlaps another" if one.start < end else "leaves a hole before it"
            raise ValueError(f"tensor {short(one.name)} {kind}")
        end = one.stop
    if end != 8 + len(raw) + nbytes:
        what = "is cut off" if end > 8 + len(raw) + nbytes else "has bytes that belong to no tensor"
        raise ValueError(f"it {what}: its tensors end at {end}, the file at {8 + len(raw) + nbytes}")
    return Header({one.name: one for one in tensors}, metadata)


def strict_json(raw: bytes) -> dict[str, Any]:
    """One JSON object. ValueError if it is anything else, or has a name twice."""
    try:
        content = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except UnicodeError:
        raise ValueError("its JSON is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"its JSON is wrong: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("its JSON is not an object")
    try:
        "".join(content).encode("utf-8")
    except UnicodeError:
        raise ValueError("its JSON has a name with half of a surrogate pair") from None
    return content


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"its JSON has the name {short(name)} twice")
        found[name] = value
    return found


def short(name: str) -> str:
    """A name as messages show it: a hostile one may have megabytes."""
    return repr(name if len(name) <= _MOST_SHOWN else name[:_MOST_SHOWN] + "...")


def _no_constant(text: str) -> None:
    raise ValueError(f"its JSON is wrong: {text} is not a value")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _tensor(name: str, entry: Any, begin: int) -> Tensor:
    """One entry. begin: where the bytes of all tensors begin."""
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {short(name)} is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {short(name)} has an unknown dtype {short(str(dtype))}")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise ValueError(f"the shape of tensor {short(name)} is not a list of whole numbers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ValueError(f"the offsets of tensor {short(name)} are not two whole numbers")
    start, stop = offsets
    if start > stop:
        raise ValueError(f"the offsets of tensor {short(name)} go backwards")
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"tensor {short(name)} has {len(shape)} dimensions, more than {_MOST_DIMENSIONS}")
    # Without zeros, which would hide that the other dimensions are impossible.
    if stop >= _MOST_BYTES or math.prod(filter(None, shape)) >= _MOST_BYTES:
        raise ValueError(f"the shape or the offsets of tensor {short(name)} are too large")
    if math.prod(shape) * BITS[dtype] != 8 * (stop - start):
        raise ValueError(
            f"tensor {short(name)} has {stop - start} bytes, which are not those of its shape and dtype"
        )
    return Tensor(name, dtype, tuple(shape), begin + start, begin + stop)
