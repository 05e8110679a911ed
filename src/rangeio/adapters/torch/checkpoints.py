"""`DcpReader`: reads checkpoints of torch.distributed.checkpoint from any service."""

import io
import os
import pickle
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, pairwise
from typing import Any, TypeVar

import torch
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from rangeio.adapters.torch.stored import HEAD, Stored, stored
from rangeio.errors import Error
from rangeio.operator import Operator
from rangeio.reader import Reader
from rangeio.results import ended_early
from rangeio.services.registry import WITHOUT_NETWORK, located

_WINDOW = 64 << 20
"""Most bytes of a checkpoint in memory of our own at once, unless one item is larger."""

_PLACED = 1 << 30
"""Most bytes that are on their way into tensors at once; a planner may allocate these for the time."""

_IN_PLACE, _IN_PLACE_FAR = 64 << 10, 4 << 20
"""From this size on a tensor is read into its place, which takes a small read first; over a network a request."""

_FILES_AT_ONCE = 8
_CONCURRENT_FAR = 32
"""Requests in flight of one file, unless `concurrent` is given. There may be one file only, and all of it is wanted."""


class DcpReader(FileSystemReader):
    """A StorageReader: ``torch.distributed.checkpoint.load(state, storage_reader=DcpReader("s3://bucket/step-1000"))``.

    uri: the folder of the checkpoint; options: as of `Operator`. What torch's FileSystemWriter and FsspecWriter write
    with torch.save, also by rank, sharded otherwise, or with extensions (`_extension_registry=`). ``checkpoint_id=`` of
    load and `reset` name another folder, which is read with the same options.

    All items of a file are read together, and over a network those of eight files, by 32 requests for each unless
    `concurrent` is given. A contiguous part of a tensor
    is read straight into the tensor of the caller, if that is in CPU memory, contiguous, and of the same dtype; only
    that part is fetched. Others pass through at most 64 MiB, or the largest of them. ObjectChangedError if a file is
    replaced meanwhile.

    Load only what you trust: as with torch's own reader, metadata and values that are not tensors are pickles.
    """

    def __init__(
        self, uri: str | os.PathLike[str], *, _extension_registry: Any = None, **options: Any
    ) -> None:
        super().__init__("", *([] if _extension_registry is None else [_extension_registry]))
        self._options = options
        self._open(uri)

    def _open(self, uri: str | os.PathLike[str]) -> None:
        self._operator = _operator(os.fsdecode(uri), self._options)
        self.path = os.fsdecode(uri)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin with a new checkpoint, or the same anew."""
        super().reset()
        if checkpoint_id:
            self._open(checkpoint_id)

    def __getstate__(self) -> dict[str, Any]:
        """Without secrets: the options are kept for `reset`, beside the Operator."""
        kept = self._operator.options
        options = {name: kept[name] for name in self._options if name in kept}
        return {**self.__dict__, "_options": options}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path or a URI of a service."""
        try:
            located(checkpoint_id)
        except Error:
            return False
        return True

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata of the checkpoint; of one rank, if `rank` is given. One request."""
        rank = kwargs.get("rank")
        with self._operator.open(".metadata" if rank is None else f"__{rank}.metadata") as reader:
            metadata: Metadata = pickle.loads(reader.read_range())
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        """Read all items. It is done when the call returns."""
        files: dict[str, list[_Item]] = {}
        for request in plan.items:
            place = self.storage_data[request.storage_index]
            files.setdefault(place.relative_path, []).append(_Item(request, place))
        transforms = getattr(self, "transforms", None)  # older versions of torch have none
        planning = _Planning(planner, transforms)

        def load(path: str) -> None:
            with self._operator.open(path) as reader:
                _File(reader, planning).load(sorted(files[path], key=_Item.by_place))

        if len(files) < 2 or self._operator.scheme in WITHOUT_NETWORK:
            for path in files:
                load(path)
        else:
            with ThreadPoolExecutor(min(len(files), _FILES_AT_ONCE), "rangeio-dcp") as pool:
                for _ in pool.map(load, files):
                    pass
        done: Future[None] = Future()
        done.set_result(None)
        return done


class _Item:
    """One value to load, and its place in a file. target: where a tensor goes."""

    def __init__(self, request: ReadItem, place: Any) -> None:
        self.request = request
        self.offset, self.length = int(place.offset), int(place.length)
        self.extensions = getattr(place, "transform_descriptors", None) or ()
        self.is_tensor = request.type != LoadItemType.BYTE_IO
        self.is_archive = self.is_tensor and not self.extensions
        self.target: torch.Tensor | None = None
        if self.offset < 0 or self.length < 0:
            raise ValueError(f"{request.storage_index}: no place in a file: {self.offset}, {self.length}")

    def by_place(self) -> tuple[int, int]:
        return self.offset, self.length

    def part(self, found: Stored | None) -> tuple[int, int] | None:
        """(start, length) in the file of the bytes that the target consists of; None if they are not contiguous."""
        if found is None or self.target is None or not _is_plain(self.target, found.dtype):
            return None
        lengths = tuple(self.request.lengths)
        part = found.part(tuple(self.request.storage_offsets), lengths)
        if part is None or tuple(self.target.shape) != lengths:
            return None
        return self.offset + part[0], part[1]


_AnyItem = TypeVar("_AnyItem", _Item, tuple[_Item, Stored | None])


class _Planning:
    """A planner, which knows nothing of threads, and the extensions of a checkpoint."""

    def __init__(self, planner: LoadPlanner, transforms: Any) -> None:
        self._planner, self._transforms, self._lock = planner, transforms, threading.Lock()

    def resolve(self, item: _Item) -> None:
        """Ask for the tensor that an item is loaded into."""
        if item.target is None:
            with self._lock:
                item.target = self._planner.resolve_tensor(item.request).detach()

    def commit(self, item: _Item) -> None:
        """Say that it has been loaded."""
        with self._lock:
            self._planner.commit_tensor(item.request, item.target)
        item.target = None

    def load(self, item: _Item, data: Any) -> None:
        """Load an item from its bytes."""
        request = item.request
        stream: Any = io.BytesIO(data)
        if self._transforms is not None:
            stream = self._transforms.transform_load_stream(request, item.extensions, stream)
        if not item.is_tensor:
            with self._lock:
                self._planner.load_bytes(request, io.BytesIO(stream.read(-1)))
            return
        seekable = stream if stream.seekable() else io.BytesIO(stream.read(-1))
        tensor = torch.load(seekable, map_location="cpu", weights_only=True)
        self._copy(item, narrow_tensor_by_index(tensor, request.storage_offsets, request.lengths))

    def copy(self, item: _Item, data: torch.Tensor, found: Stored) -> None:
        """Load a tensor from the bytes of its archive."""
        self.resolve(item)
        part = item.part(found)
        if part is not None and item.target is not None:
            start = part[0] - item.offset
            _bytes_of(item.target).copy_(data[start : start + part[1]])
            self.commit(item)
            return
        # In memory of its own, because what is in the midst of a file is not aligned.
        whole = data[found.start : found.start + found.nbytes].clone().view(found.dtype).view(found.shape)
        self._copy(item, narrow_tensor_by_index(whole, item.request.storage_offsets, item.request.lengths))

    def _copy(self, item: _Item, tensor: torch.Tensor) -> None:
        self.resolve(item)
        assert item.target is not None
        if item.target.size() != tensor.size():
            index = item.request.storage_index
            raise ValueError(
                f"{index}: the tensor has {item.target.size()}, and the checkpoint {tensor.size()}"
            )
        item.target.copy_(tensor)
        self.commit(item)


class _File:
    """One open file of a checkpoint."""

    def __init__(self, reader: Reader, planning: _Planning) -> None:
        self._reader, self._planning = reader, planning
        self._least = _IN_PLACE if reader.capability.positioned else _IN_PLACE_FAR

    def load(self, items: list[_Item]) -> None:
        """Load items, in order of their places."""
        large = [item for item in items if item.is_archive and item.length >= self._least]
        small = [item for item in items if not (item.is_archive and item.length >= self._least)]
        heads = self._reader.read_ranges(
            [(item.offset, item.offset + min(HEAD, item.length)) for item in large], gap=None
        )
        known = [(item, stored(head, item.length)) for item, head in zip(large, heads, strict=True)]
        del heads
        windows, others = _windows(small, _WINDOW), []
        for group in _windows(known, _PLACED):
            others += self._read(group, next(windows, []))
        for window in chain(windows, _windows(others, _WINDOW)):
            self._read([], window)

    def _read(self, known: list[tuple[_Item, Stored | None]], window: list[_Item]) -> list[_Item]:
        """Load those that can be read into their places and the items of a window, all at once; returns the others."""
        placed, places, others = [], [], []
        for item, found in known:
            if found is not None:
                self._planning.resolve(item)
            part = item.part(found)
            if part is None or item.target is None:
                others.append(item)
            else:
                placed.append(item)
                places.append((_bytes_of(item.target).numpy(), part[0]))
        bounds = [*pairwise([0, *accumulate(item.length for item in window)])]
        data = torch.empty(bounds[-1][1] if bounds else 0, dtype=torch.uint8)
        memory = memoryview(data.numpy())
        places += [
            (memory[start:end], item.offset) for item, (start, end) in zip(window, bounds, strict=True)
        ]
        self._fill(places)
        places.clear()
        for item in placed:
            self._planning.commit(item)
        for item, (start, end) in zip(window, bounds, strict=True):
            found = stored(memory[start : min(start + HEAD, end)], item.length) if item.is_archive else None
            if found is None:
                self._planning.load(item, memory[start:end])
            else:
                self._planning.copy(item, data[start:end], found)
        return others

    def _fill(self, places: list[tuple[Any, int]]) -> None:
        counts = self._reader.read_ranges_into(places) if places else []
        for (memory, offset), count in zip(places, counts, strict=True):
            if count < len(memory):
                raise ended_early(self._reader.path, offset, len(memory), count)


def _windows(items: Iterable[_AnyItem], most: int) -> Iterator[list[_AnyItem]]:
    """Items, or items and what is known of them, in groups of at most `most` bytes, or of one item."""
    window: list[_AnyItem] = []
    held = 0
    for item in items:
        length = item.length if isinstance(item, _Item) else item[0].length
        if window and held + length > most:
            yield window
            window, held = [], 0
        window.append(item)
        held += length
    if window:
        yield window


def _is_plain(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor is its memory: bytes that are read there are its values."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == dtype
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _operator(uri: str, options: dict[str, Any]) -> Operator:
    """The service of a folder, to which paths are relative."""
    if located(uri)[0] not in WITHOUT_NETWORK:
        options = {"concurrent": _CONCURRENT_FAR, **options}
    if uri.startswith(("http://", "https://")):
        return Operator("http", **{"root": uri, **options})
    return Operator.from_uri(uri, **options)
