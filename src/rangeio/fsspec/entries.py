"""What fsspec's `info`, `ls` and `find` return, made of `Stat`."""

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, TypeAlias

from rangeio.service import Stat

Entry: TypeAlias = dict[str, Any]


def file_entry(name: str, stat: Stat) -> Entry:
    """The entry of an object."""
    seconds = None if stat.mtime_ns is None else stat.mtime_ns / 1e9
    return {
        "name": name,
        "size": stat.size,
        "type": "file",
        "mtime": seconds,
        "LastModified": None if seconds is None else datetime.fromtimestamp(seconds, tz=timezone.utc),
        "ETag": stat.etag,
        "etag": stat.etag,
        "version_id": stat.version,
    }


def directory_entry(name: str) -> Entry:
    """The entry of a directory, which in a store is a common prefix of keys."""
    return {"name": name, "size": 0, "type": "directory"}


def listed(found: Iterable[Stat], folder: str) -> list[Entry]:
    """The entries of one directory. folder: its path, with a slash at the end."""
    entries: dict[str, Entry] = {}
    for stat in found:
        name = stat.path.rstrip("/")
        if stat.path == folder or not name:
            continue  # the object that stands for the directory itself
        is_folder = stat.is_prefix or stat.path.endswith("/")
        if is_folder:
            entries.setdefault(name, directory_entry(name))
        else:
            entries[name] = file_entry(name, stat)
    return [entries[name] for name in sorted(entries)]


def flat(found: Iterable[Stat], folder: str, maxdepth: int | None, withdirs: bool) -> dict[str, Entry]:
    """The entries of a listing without a delimiter. folder: what is listed, with a slash at the end."""
    entries: dict[str, Entry] = {}
    any_found = False
    for stat in found:
        any_found = True
        parts = stat.path[len(folder) :].split("/")
        if withdirs:
            for depth in range(1, len(parts)):
                if (maxdepth is None or depth <= maxdepth) and parts[depth - 1]:
                    name = folder + "/".join(parts[:depth])
                    entries.setdefault(name, directory_entry(name))
        if parts[-1] and (maxdepth is None or len(parts) <= maxdepth):
            entries[stat.path] = file_entry(stat.path, stat)
    if withdirs and any_found and folder.rstrip("/"):
        name = folder.rstrip("/")
        entries[name] = directory_entry(name)
    return {name: entries[name] for name in sorted(entries)}
