"""Models of several files: the index, ``model.safetensors.index.json``, and the files beside it."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from rangeio.adapters.arrays import opened, size_of
from rangeio.adapters.safetensors.header import MOST_HEADER, short, strict_json
from rangeio.services.registry import located

# Files that are read at a time over a network.
_AT_ONCE = 8

Load = Callable[[str, list[str]], dict[str, Any]]


class Shards:
    """The index of a model."""

    def __init__(self, uri: Any, options: dict[str, Any]) -> None:
        """Read and check the index. ValueError if it is not valid."""
        self._uri = os.fsdecode(uri)
        with opened(self._uri, options) as reader:
            self.path = reader.path
            self._far = not reader.capability.positioned
            raw = reader.read_at(0, MOST_HEADER + 1).tobytes()
            if max(len(raw), size_of(reader)) > MOST_HEADER:
                raise ValueError(f"{self.path!r} is longer than {MOST_HEADER} bytes")
        try:
            self._file_of = _weight_map(raw)
        except ValueError as error:
            raise ValueError(f"{self.path!r} is not a valid index of safetensors: {error}") from None

    def load(self, names: Iterable[str] | None, load: Load) -> dict[str, Any]:
        """What `load` makes of the URI of each file and its names, in the order of the names."""
        wanted = [*self._file_of] if names is None else [*dict.fromkeys(names)]
        by_file: dict[str, list[str]] = {}
        for name in wanted:
            if name not in self._file_of:
                raise KeyError(f"{self.path!r} has no tensor {name!r}")
            by_file.setdefault(self._file_of[name], []).append(name)
        found: dict[str, Any] = {}
        jobs = [(beside(self._uri, file), some) for file, some in by_file.items()]
        if self._far and len(jobs) > 1:
            pool = ThreadPoolExecutor(min(_AT_ONCE, len(jobs)), "rangeio-safetensors")
            try:
                for part in pool.map(lambda job: load(*job), jobs):
                    found.update(part)
            finally:
                pool.shutdown(cancel_futures=True)
        else:
            for job in jobs:
                found.update(load(*job))
        return {name: found[name] for name in wanted}


def _weight_map(raw: bytes) -> dict[str, str]:
    names = strict_json(raw).get("weight_map")
    if not isinstance(names, dict):
        raise ValueError("it has no object weight_map")
    for file in names.values():
        if not isinstance(file, str) or not _is_inside(file):
            raise ValueError(f"it names a file outside of its folder: {short(str(file))}")
    return names


def _is_inside(name: str) -> bool:
    """Whether a relative path has only plain names."""
    plain = name.isprintable() and "\\" not in name and "://" not in name
    return plain and not {"", ".", ".."}.intersection(name.split("/"))


def beside(uri: str, name: str) -> str:
    """The URI of the file `name` in the folder of another one."""
    scheme, _, path = located(uri)
    if scheme == "fs":
        return os.path.join(os.path.dirname(path), name)
    if scheme in ("http", "https"):
        url = urlsplit(uri)
        folder = url.path.rpartition("/")[0]
        return urlunsplit((url.scheme, url.netloc, f"{folder}/{quote(name)}", url.query, ""))
    return f"{uri.rpartition('/')[0]}/{name}"
