"""The reads: ranges of one file or many whole files, and the check of their results.

Every choice is made by a seeded generator, so two runs on the same file read the same bytes in the same order.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 4382  # the number of OpenDAL's RFC
RECORD = 4096
SMALL_FILE = 16 << 10
_TRUTH_PIECE = 1 << 20
_SPOTS, _SPOT = 32, 16 << 10


@dataclass(frozen=True)
class Work:
    """The reads of one run. `path` is the file, or the folder of the files in `names`."""

    path: Path
    offsets: list[int]
    lengths: list[int]
    names: list[str] = field(default_factory=list)

    @property
    def reads(self) -> int:
        """The number of reads."""
        return len(self.offsets)

    @cached_property
    def nbytes(self) -> int:
        """The total number of bytes."""
        return sum(self.lengths)

    @property
    def length(self) -> int:
        """Bytes of each read, if all have the same size."""
        return self.lengths[0]

    @cached_property
    def array(self) -> npt.NDArray[np.int64]:
        """The offsets as an array."""
        return np.array(self.offsets, dtype=np.int64)

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(start, stop) of each read."""
        return [(offset, offset + length) for offset, length in zip(self.offsets, self.lengths, strict=True)]

    def first(self, reads: int) -> "Work":
        """Only the first `reads` reads."""
        return Work(self.path, self.offsets[:reads], self.lengths[:reads], self.names[:reads])

    def check(self, result: Any, *, thorough: bool) -> None:
        """Compare the result of a run with the file: all of it, or 32 samples. Raises WrongBytesError."""
        pieces = _pieces(result, self.lengths)
        with _Truth(self.path, self.names) as truth:
            if thorough:
                for index, piece in enumerate(pieces):
                    truth.compare(index, self.offsets[index], piece)
                return
            dice = random.Random(SEED)
            for _ in range(_SPOTS):
                index = dice.randrange(self.reads)
                at = dice.randrange(self.lengths[index])
                truth.compare(index, self.offsets[index] + at, pieces[index][at : at + _SPOT])


class WrongBytesError(Exception):
    """A contender returned bytes that differ from the file, so its time is meaningless."""


def _pieces(result: Any, lengths: list[int]) -> list[memoryview]:
    """One view per read, from a list of buffers or from one buffer with all of them in sequence."""
    if isinstance(result, (list, tuple)):
        pieces = [memoryview(piece).cast("B") for piece in result]
        if [piece.nbytes for piece in pieces] != lengths:
            raise WrongBytesError("the lengths of the results differ from those requested")
        return pieces
    whole = memoryview(result)
    whole = whole if whole.format == "B" and whole.ndim == 1 else whole.cast("B")
    if whole.nbytes != sum(lengths):
        raise WrongBytesError(f"{whole.nbytes} bytes instead of {sum(lengths)}")
    stops = np.cumsum(lengths).tolist()
    return [whole[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]


class _Truth:
    """The bytes of the file, read with os.preadv, independently of the contenders."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._folder, self._names = path, names
        self._fd = -1 if names else os.open(path, os.O_RDONLY)
        self._scratch = np.empty(_TRUTH_PIECE, np.uint8)

    def __enter__(self) -> "_Truth":
        return self

    def __exit__(self, *error: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def compare(self, index: int, offset: int, piece: memoryview) -> None:
        if self._names:
            whole = (self._folder / self._names[index]).read_bytes()
            same = bytes(piece) == whole[offset : offset + piece.nbytes]
        else:
            same = all(self._same(offset + at, part) for at, part in _parts(piece))
        if not same:
            raise WrongBytesError(f"read {index}: {piece.nbytes} bytes from {offset} differ from the file's")

    def _same(self, offset: int, part: memoryview) -> bool:
        expected = self._scratch[: part.nbytes]
        return os.preadv(self._fd, [expected.data], offset) == part.nbytes and np.array_equal(
            expected, np.frombuffer(part, np.uint8)
        )


def _parts(piece: memoryview) -> Iterator[tuple[int, memoryview]]:
    for at in range(0, piece.nbytes, _TRUTH_PIECE):
        yield at, piece[at : at + _TRUTH_PIECE]


def random_records(path: Path, size: int, count: int, *, salt: int = 0, length: int = RECORD) -> Work:
    """`count` records of 4 KiB, none adjacent to another, so that merging cannot make reads faster."""
    slots = size // (2 * length)
    chosen = np.random.default_rng(SEED + salt)
    picked = (
        chosen.choice(slots, count, replace=False) if count <= slots else chosen.integers(slots, size=count)
    )
    return Work(path, (picked * (2 * length)).tolist(), [length] * count)


def whole_file(path: Path, size: int, block: int = 0) -> Work:
    """The first `size` bytes, as one read or in blocks (the last may be shorter)."""
    block = block or size
    offsets = list(range(0, size, block))
    return Work(path, offsets, [min(block, size - offset) for offset in offsets])


def column_chunks(path: Path, size: int, count: int = 2000) -> Work:
    """`count` ranges, like a Parquet reader's requests for a few columns of many row groups.

    8 KiB to 256 KiB, 60 KiB on average: 120 MB for 2,000. They come in clusters of 40 (a row group); in a cluster a
    chunk follows its neighbour at once or after some unread columns (a gap of up to 64 KiB). Starts are not aligned.
    """
    per_group = 40
    groups = max(1, count // per_group)
    dice = random.Random(SEED)
    offsets, lengths = [], []
    for group in range(groups):
        offset = group * (size // groups) + dice.randrange(4096)
        limit = (group + 1) * (size // groups)
        for _ in range(per_group):
            length = int((8 << 10) * 32 ** (dice.random() ** 1.3))
            gap = dice.choice((0, 0, 1, 2)) * dice.randrange(1, 32 << 10)
            if offset + length > limit:  # the file is too small for all ranges: fewer are read
                break
            offsets.append(offset)
            lengths.append(length)
            offset += length + gap
    return Work(path, offsets, lengths)


def far_columns(path: Path, size: int, count: int = 500) -> Work:
    """`count` ranges of 16 KiB to 512 KiB, 120 KiB on average, like columns of a wide table that is mostly not read.

    Two of five follow their neighbour at once, one after a gap of up to 64 KiB, two after one of up to 3 MiB.
    """
    dice, offset = random.Random(SEED), random.Random(SEED).randrange(4096)
    offsets, lengths = [], []
    for _ in range(count):
        length = int((16 << 10) * 32 ** (dice.random() ** 1.3))
        if offset + length > size:  # as in column_chunks
            break
        offsets.append(offset)
        lengths.append(length)
        offset += length + dice.choice(
            (0, 0, dice.randrange(64 << 10), *[dice.randrange(64 << 10, 3 << 20)] * 2)
        )
    return Work(path, offsets, lengths)


def tensors(path: Path, size: int, count: int = 290) -> Work:
    """`count` ranges of 4 KiB to 8 MiB, 1 MiB on average, in order and apart: some tensors of a model in one file."""
    dice = random.Random(SEED)
    lengths = [int(4096 * 2048 ** dice.random()) for _ in range(count)]
    if (total := sum(lengths)) > size // 2:
        lengths = [max(1, length * (size // 2) // total) for length in lengths]
    spare = size - sum(lengths)
    gaps = sorted(dice.randrange(spare) for _ in range(count))
    offsets, before = [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        offsets.append(gap + before)
        before += length
    return Work(path, offsets, lengths)


def small_files(folder: Path, count: int) -> Work:
    """`count` files of 16 KiB in random order."""
    names = [f"{number // 1000:02d}/{number:05d}.bin" for number in range(count)]
    random.Random(SEED).shuffle(names)
    return Work(folder, [0] * count, [SMALL_FILE] * count, names)
