"""Where huggingface_hub keeps what it has downloaded. Source: its constants.py and file_download.py."""

import os
import re

from rangeio.hf.repository import COMMIT, Repository

_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def home() -> str:
    """The folder of huggingface_hub on this machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(os.environ.get("HF_HOME") or os.path.join(cache, "huggingface"))


def snapshot(repository: Repository, path: str) -> str | None:
    """Where a file of a commit is, if it was downloaded. None for a branch or tag: it may mean another commit by now.
    ConfigInvalidError if no file can have this path.
    """
    commit = repository.revision
    if commit is None or not COMMIT.fullmatch(commit):
        return None
    repository.file(path)  # it cannot lead out of the folder
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    folder = f"{repository.kind}/{repository.name}".replace("/", "--")
    return os.path.join(_expanded(cache or os.path.join(home(), "hub")), folder, "snapshots", commit, path)


def etag(snapshot: str) -> str | None:
    """The ETag of the hub for a file there: a snapshot is a link to it, by this name. None on file systems without
    links.
    """
    try:
        name = os.path.basename(os.readlink(snapshot))
    except OSError:
        return None
    return f'"{name}"' if _BLOB.fullmatch(name) else None


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))
