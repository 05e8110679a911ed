"""Memory of the caller's own for arrays, and its filling: what the adapters for numpy and safetensors share."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

import _uring
from rangeio.errors import UnsupportedError
from rangeio.operator import open as open_object
from rangeio.reader import Reader
from rangeio.results import ended_early

Bytes = npt.NDArray[np.uint8]
Pairs = list[tuple[Bytes, int]]

PHASE = 4096
"""O_DIRECT reads in place where the place in the file and in memory are the same modulo this (at most)."""
_LARGE = 1 << 20
_LARGEST = 64 << 20  # of this size 4 KiB more do not matter, although huge pages make 2 MiB of them
_HUGE = 2 << 20
_SMALL = 64 << 10
# Bytes of what is read at once by `fill` and then copied to its places.
_JOINED = 4 << 20


def fresh(count: int, offset: int = 0, direct: bool = False) -> Bytes:
    """`count` bytes of writable memory, aligned for 8-byte items, for bytes from `offset` in a file.

    Large memory is the reactor's, which has huge pages and is recycled. Where O_DIRECT may read it, it lies in its page
    as the file does, if that aligns it for items. direct: whether the file is read by O_DIRECT whatever its size.
    """
    if count < (_LARGE if direct else _LARGEST):
        return _recycled(count)
    whole = _recycled(count + PHASE)
    phase = (offset if offset % 8 == 0 else 0) - whole.ctypes.data
    return whole[phase % PHASE :][:count]


def _recycled(count: int) -> Bytes:
    reactor = _uring.default_reactor()
    wasted = -count % _HUGE
    if (
        count < _LARGE or wasted * 32 > count or str(reactor.backend) == "python"
    ):  # whose writable memory would be a copy
        return np.empty(count, np.uint8)
    return reactor.allocate(count).numpy(np.uint8, writable=True)


def fill(reader: Reader, pairs: Pairs) -> None:
    """Fill each array from its offset, all at once, or raise UnexpectedEofError. One call of `read_ranges_into`.

    Over a network, small neighbours are one request, which goes by way of memory of its own.
    """
    copies: list[tuple[Bytes, Bytes]] = []
    if not reader.capability.positioned:
        pairs, copies = _joined(pairs)
    counts = reader.read_ranges_into(pairs)
    for (place, offset), count in zip(pairs, counts, strict=True):
        if count < len(place):
            raise ended_early(reader.path, offset, len(place), count)
    for place, found in copies:
        place[:] = found


def _joined(pairs: Pairs) -> tuple[Pairs, list[tuple[Bytes, Bytes]]]:
    """The reads to make, and what to copy afterwards."""
    reads: Pairs = []
    copies: list[tuple[Bytes, Bytes]] = []
    for group in _neighbours(sorted(pairs, key=lambda pair: pair[1])):
        if len(group) == 1:
            reads += group
            continue
        start = group[0][1]
        staging = np.empty(group[-1][1] + len(group[-1][0]) - start, np.uint8)
        reads.append((staging, start))
        copies += [(place, staging[offset - start :][: len(place)]) for place, offset in group]
    return reads, copies


def _neighbours(pairs: Pairs) -> Iterable[Pairs]:
    """Small ones that touch, together; all others alone."""
    group: Pairs = []
    for place, offset in pairs:
        if group:
            start, end = group[0][1], group[-1][1] + len(group[-1][0])
            if end != offset or len(place) > _SMALL or offset + len(place) - start > _JOINED:
                yield group
                group = []
        group.append((place, offset))
        if len(place) > _SMALL:
            yield group
            group = []
    if group:
        yield group


def size_of(reader: Reader) -> int:
    """The size of an object of which something was read. UnsupportedError if nothing tells it."""
    size = reader.size
    if size is None:
        message = f"{reader.path!r}: its size is not known, so its content cannot be checked"
        raise UnsupportedError(message, path=reader.path)
    return size


def opened(source: Any, options: dict[str, Any]) -> Reader:
    """A Reader of the adapter's own, of a URI or of a Reader, which stays open when this one is closed."""
    if isinstance(source, Reader):
        if options:
            raise TypeError(f"a Reader is open already: it leaves no place for {', '.join(options)}")
        return source.slice(0)
    return open_object(source, **options)
