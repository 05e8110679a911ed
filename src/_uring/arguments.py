"""Checks of arguments: offsets, lengths, and memory to read into."""

import operator
import re
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer as SupportsBuffer

OFFSET_MAX = 2**63 - 1
"""Largest offset, length and end: off_t is signed. A range that would end beyond it is cut there."""


def byte_index(value: SupportsIndex, name: str) -> int:
    """`value` as a plain int from 0 to 2**63 - 1. TypeError for floats, ValueError below, OverflowError above."""
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    if number > OFFSET_MAX:
        raise OverflowError(f"{name} must be below 2**63, got {number}")
    return number


def byte_array(values: Any, name: str) -> "npt.NDArray[np.int64]":
    """`values` as a one-dimensional C-contiguous int64 array. Each value must pass the checks of `byte_index`.

    Always a copy, so that the caller may change its array while an async read is in flight.
    """
    if not isinstance(values, np.ndarray):
        if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
            raise TypeError(f"{name} must be a sequence of integers, not {type(values).__name__}")
        values = values if isinstance(values, (list, tuple)) else list(values)
        try:
            # array("q") refuses floats and accepts anything with __index__, at a quarter of the cost of a Python loop.
            numbers = np.frombuffer(array("q", values), dtype=np.int64)
        except OverflowError:
            numbers = np.array([byte_index(value, name) for value in values])  # raises for the first
    elif values.dtype.kind not in "iub":
        raise TypeError(f"{name} must be integers, not {values.dtype}")
    elif values.dtype.kind == "u" and values.size and int(values.max()) > OFFSET_MAX:
        raise OverflowError(f"{name}: all values must be below 2**63, got {values.max()}")
    else:
        numbers = np.array(values, dtype=np.int64, order="C")
    if numbers.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {numbers.ndim}")
    if numbers.size and (least := int(numbers.min())) < 0:
        raise ValueError(f"{name} must not be negative, got {least}")
    return numbers


def byte_arrays(starts: Any, lengths: Any) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]":
    """The checked arguments of a batch: two arrays of the same size."""
    first, second = byte_array(starts, "starts"), byte_array(lengths, "lengths")
    if first.size != second.size:
        raise ValueError(f"starts and lengths differ in size: {first.size} and {second.size}")
    return first, second


# Matches objects, pointers, functions, and C strings by reference in a buffer format (PEP 3118). Zf, Zd and Zg are
# complex numbers. Field names are enclosed in colons.
_POINTERS = re.compile(r"[OPz&]|X\{|Z(?![fdg])")
_NAMES = re.compile(r":[^:]*:")


def check_plain(format: str) -> None:
    """TypeError if memory of this format holds pointers: file bytes used as a pointer would crash the process."""
    if _POINTERS.search(_NAMES.sub("", format)):
        raise TypeError(
            f"the destination holds objects or pointers (format {format!r}); read into bytes or numbers instead"
        )


def writable_bytes(destination: "SupportsBuffer") -> memoryview:
    """The memory of `destination` as bytes, for writing. TypeError unless it is writable and holds plain numbers,
    BufferError unless it is C-contiguous.
    """
    try:
        view = memoryview(destination)
    except ValueError:
        # numpy has no buffer format for dates, which are plain numbers, nor for StringDType, which holds pointers.
        if not isinstance(destination, np.ndarray):
            raise
        if destination.dtype.hasobject:
            check_plain("O")
        view = destination.view(np.ndarray).view(f"V{destination.itemsize}").data
    if view.format != "B":
        check_plain(view.format)
    if view.readonly:
        raise TypeError(f"the destination must be writable; this {type(destination).__name__} is read-only")
    if not view.c_contiguous:
        raise BufferError("the destination must be C-contiguous; copy it, or read into a contiguous part")
    if view.nbytes == 0:
        return memoryview(bytearray())
    # Through numpy, because memoryview.cast() refuses formats it does not support, such as those of records.
    return np.frombuffer(view, dtype=np.uint8).data


def whole_table(out: "SupportsBuffer | None", count: int, length: int) -> memoryview | None:
    """`writable_bytes` of memory for `count` records of `length` bytes. None of None. ValueError for another size."""
    if out is None:
        return None
    view = writable_bytes(out)
    if len(view) != count * length:
        raise ValueError(
            f"out must have {count * length} bytes, for {count} records of {length}, not {len(view)}"
        )
    return view


def one_destination(item: Any, name: str, index: int) -> tuple[memoryview, int]:
    """The view and the offset of a pair of a buffer and an offset. Errors name it: ``name[index]``."""
    try:
        destination, offset = item
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}[{index}]: a {type(item).__name__} is not a pair of a buffer and an offset"
        ) from None
    try:
        return writable_bytes(destination), byte_index(offset, "offset")
    except (TypeError, ValueError, OverflowError, BufferError) as error:
        raise type(error)(f"{name}[{index}]: {error}") from None


def refuse_overlap(name: str, first: int, second: int) -> None:
    """Raise the error of two destinations that share memory."""
    raise ValueError(
        f"{name}[{first}] and {name}[{second}] overlap in memory, so the bytes there would depend on which is read last"
    )
