"""`RecordDataset`: the records of one object as a map-style dataset; `collate`: its batches without a copy."""

import math
import os
import socket
from collections.abc import Callable, Iterable
from operator import index as whole_number
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch.multiprocessing import get_sharing_strategy
from torch.utils.data import Dataset, default_collate, get_worker_info

from rangeio.errors import ObjectChangedError
from rangeio.operator import open as open_reader
from rangeio.reader import Reader


class RecordDataset(Dataset[Any]):
    """The records of one object: `dataset[i]` is a tensor, or what `transform` makes of it.

    uri: a path or URI, with `options` as of `rangeio.open`. dtype, shape: of one record; without dtype bytes, as
    torch.uint8. offset: where the first record begins. count: how many there are; by default as many as fill the
    object, ValueError if something is left.

    offsets: for records of different lengths, in place of dtype, shape and count: n + 1 integers, record i being the
    bytes from offsets[i] to offsets[i + 1]; or n pairs (start, stop). They count from `offset`. The records are 1-D
    tensors of torch.uint8.

    A DataLoader hands over the indices of a batch at once: all its records are in flight together. Records are
    writable, and no two share bytes; those of one batch may share memory. The dataset pickles as URI and options
    (without secrets) and `offsets`, and reads in workers that were forked or spawned, as in threads. ObjectChangedError
    if the object is not the one that was opened, also in a worker; another machine compares no modification time.

    Opening asks for the size: one request over a network.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        shape: Iterable[SupportsIndex] = (),
        offset: SupportsIndex = 0,
        count: SupportsIndex | None = None,
        offsets: Any = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
        **options: Any,
    ) -> None:
        self.shape = tuple(map(whole_number, shape))
        self.dtype = torch.uint8 if dtype is None else dtype
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"dtype must be a torch.dtype, not {type(dtype).__name__}")
        if offsets is not None and (dtype is not None or self.shape or count is not None):
            raise ValueError("offsets= stands in place of dtype=, shape= and count=")
        self.transform = transform
        self._length = math.prod(self.shape) * self.dtype.itemsize
        self._offset = whole_number(offset)
        if self._offset < 0 or min(self.shape, default=1) < 1:
            raise ValueError(f"offset= must not be negative, and shape= positive: {offset}, {self.shape}")
        self._spans = None if offsets is None else _spans(offsets, self._offset)
        self._reader: Reader = open_reader(uri, **options)
        self._pinned = options.get("pin", True)
        stat = self._reader.stat()
        self._count = self._counted(stat.size, None if count is None else whole_number(count))
        self._version = _Version(stat.size, stat.pin, self._reader.capability.positioned)
        self._unchecked = False
        self._collated = False

    def _counted(self, size: int | None, count: int | None) -> int:
        """The number of records. ValueError if the object does not have that many."""
        path = self._reader.path
        if self._spans is not None:
            last = int(self._spans.max(initial=0))
            if size is not None and last > size:
                raise ValueError(f"{path!r}: a record ends at {last:,}, and the object has {size:,} bytes")
            return len(self._spans)
        if size is None:
            if count is None:
                raise ValueError(f"{path!r} has no known size; pass count=")
            return count
        there, rest = divmod(size - self._offset, self._length)
        if there < 0 or (count is None and rest):
            what = f"records of {self._length:,} bytes do not fill the {size - self._offset:,} from {self._offset:,}"
            raise ValueError(f"{path!r}: {what}; pass count= to leave the rest")
        if count is not None and not 0 <= count <= there:
            raise ValueError(f"{path!r}: the object has {there:,} whole records, not {count:,}")
        return there if count is None else count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: SupportsIndex) -> Any:
        (item,) = self.__getitems__([whole_number(index)])
        return item

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[Any]:
        """The records of a batch, read at once. IndexError if there is no such record."""
        rows = np.fromiter(map(whole_number, indices), np.int64)
        if not len(rows):
            return []
        rows = np.where(rows < 0, rows + self._count, rows)
        if rows.min() < 0 or rows.max() >= self._count:
            raise IndexError(f"a record of {self._count} is out of range")
        self._check_version()
        items = self._fixed(rows) if self._spans is None else self._parts(self._spans[rows])
        return items if self.transform is None else [self.transform(item) for item in items]

    def _fixed(self, rows: Any) -> list[Any]:
        learned = self._collated and get_worker_info() is not None
        offsets, length = self._offset + rows * self._length, len(rows) * self._length
        if learned and hasattr(os, "memfd_create") and get_sharing_strategy() == "file_descriptor":
            data = _written(self._reader.read_batch(offsets, self._length), length)
        else:
            data = _shared(length) if learned else torch.empty(length, dtype=torch.uint8)
            self._reader.read_batch(offsets, self._length, out=data.numpy())
        whole = data.view(self.dtype).view(len(rows), *self.shape)
        return _Batch(whole, self, lazy=learned and self.transform is None)

    def _parts(self, spans: Any) -> list[torch.Tensor]:
        """Each copied into memory of its own: records that overlap or repeat share that of the request."""
        return _Parts(_owned(buffer) for buffer in self._reader.read_ranges(spans, exact=True))

    def _check_version(self) -> None:
        """After unpickling, once: the object that was opened here must be the one that was counted."""
        if self._unchecked:
            stat = self._reader.stat()
            found = _Version(stat.size, stat.pin, self._reader.capability.positioned)
            if self._pinned and not self._version.is_same(found):
                path = self._reader.path
                raise ObjectChangedError(f"{path!r} has changed since the dataset was made", path=path)
            self._unchecked = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unchecked": True, "_collated": False}

    def __repr__(self) -> str:
        return f"<RecordDataset {self._reader.path!r}, {self._count} records>"


class _Version:
    """What tells whether two processes have opened the same object."""

    def __init__(self, size: int | None, pin: str, is_file: bool) -> None:
        # A pin of a file has its device and times, which are others on a machine that has a copy of it.
        self.size, self.pin, self.host = size, pin, socket.gethostname() if is_file else ""

    def is_same(self, other: "_Version") -> bool:
        return self.size == other.size and (self.host != other.host or self.pin == other.pin)


class _Unread:
    """What a `_Batch` holds before it is used as a list; no tensor, so that code in C that looks refuses it."""


_UNREAD = _Unread()


class _Batch(list[Any]):
    """The records of a batch as a list, and as the tensor that they are rows of.

    lazy: the rows are made when the list is used. A row costs as much as its read, and `collate` wants none.
    """

    def __init__(self, whole: torch.Tensor, dataset: RecordDataset, *, lazy: bool) -> None:
        super().__init__([_UNREAD] * len(whole) if lazy else whole.unbind(0))
        self.whole, self.dataset, self._lazy = whole, dataset, lazy

    def _read(self) -> None:
        if self._lazy:
            self._lazy = False
            self[:] = self.whole.unbind(0)

    def __getitem__(self, index: Any) -> Any:
        self._read()
        return super().__getitem__(index)

    def __iter__(self) -> Any:
        self._read()
        return super().__iter__()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([*self],)


def collate(items: list[Any]) -> Any:
    """For a DataLoader over a `RecordDataset`: ``DataLoader(dataset, collate_fn=collate)``.

    A batch is one tensor, which was read in one call. From the second batch of a worker process on it lies in the
    shared memory in which it goes to the main process. Records of `offsets=` become a list. With a
    `transform`, and for other datasets, it is torch's default_collate.
    """
    if type(items) is _Batch:
        if (
            get_worker_info() is not None
        ):  # a worker serves one DataLoader, so this holds for all of its batches
            items.dataset._collated = True
        return items.whole
    if type(items) is _Parts:
        return [*items]
    return default_collate(items)


class _Parts(list[Any]):
    """Records of different lengths, which no tensor can hold."""


def _spans(offsets: Any, first: int) -> Any:
    """The (start, stop) of each record in the object."""
    places = np.asarray(offsets)
    if places.dtype.kind not in "iu" and places.size:
        raise TypeError(f"offsets= must be integers, not {places.dtype}")
    places = places.astype(np.int64) + first
    if places.ndim == 1:
        places = np.stack([places[:-1], places[1:]], 1) if len(places) else places.reshape(0, 2)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError("offsets= must be n + 1 integers or n pairs")
    if places.min(initial=0) < 0 or (places[:, 1] < places[:, 0]).any():
        raise ValueError("offsets= must not be negative, nor decrease")
    return places


def _shared(length: int) -> torch.Tensor:
    """Memory that another process can map."""
    storage = torch.UntypedStorage._new_shared(length)
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (length,))


def _written(data: Any, length: int) -> torch.Tensor:
    """The same with this content. Written by its descriptor, and never touched here: a page fault for each 4 KiB of new
    memory takes longer than to read them from the page cache and to copy them.
    """
    descriptor, done = os.memfd_create("rangeio-batch"), 0
    try:
        with memoryview(data).cast("B") as view:
            while done < length:
                done += os.write(descriptor, view[done:])
        storage = torch.UntypedStorage._new_shared_fd_cpu(descriptor, length)  # has a descriptor of its own
    finally:
        os.close(descriptor)
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (length,))


def _owned(buffer: Any) -> torch.Tensor:
    if not len(buffer):
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(buffer), dtype=torch.uint8)
