"""File contents that tell where each byte belongs: word i (8 bytes) holds i times an odd constant."""

from pathlib import Path

import numpy as np

ODD = np.uint64(0x9E3779B97F4A7C15)


def pattern(start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a pattern file of any size."""
    words = np.arange(start // 8, -(-stop // 8), dtype=np.uint64) * ODD
    return words.astype("<u8").tobytes()[start % 8 : start % 8 + stop - start]


def write_pattern(path: Path, nbytes: int) -> Path:
    path.write_bytes(pattern(0, nbytes))
    return path
