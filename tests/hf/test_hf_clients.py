"""The scripted hub serves huggingface_hub as it serves rangeio, so that what both are told is no invention of ours."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.machine import need_module
from servers import hf_server
from servers.hf_server import TOKEN, Hub

import rangeio

need_module("urllib3")
need_module("huggingface_hub")

DATA = bytes(range(256)) * 100
PROGRAM = """
import json, sys
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

found = {}
for path in ("folder/large", "small"):
    at = get_hf_file_metadata(hf_hub_url("owner/name", path))
    data = open(hf_hub_download("owner/name", path), "rb").read()
    found[path] = [at.etag, at.size, at.commit_hash, data.hex()]
found["tree"] = [
    [entry.path, getattr(entry, "size", None)] for entry in HfApi().list_repo_tree("owner/name", recursive=True)
]
for kind, words in {
    EntryNotFoundError: ("owner/name", "none"),
    RevisionNotFoundError: ("owner/name", "small", "none"),
    RepositoryNotFoundError: ("owner/none", "a"),
    GatedRepoError: ("owner/gated", "a"),
}.items():
    try:
        get_hf_file_metadata(hf_hub_url(words[0], words[1], revision="".join(words[2:]) or None))
    except kind:
        found[kind.__name__] = True
json.dump(found, sys.stdout)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hf_server.hub() as made:
        yield made


def test_huggingface_hub_is_told_the_same(hub: Hub, tmp_path: Path) -> None:
    hub.page = 2
    hub.put("folder/large", DATA)
    hub.put("small", b"small")
    hub.put("a", b"", "owner/gated")
    hub.repo().private = hub.repo("owner/gated").gated = True
    environ = {
        "HF_ENDPOINT": hub.site.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", PROGRAM]
    child = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    theirs: dict[str, Any] = json.loads(child.stdout)
    operator = rangeio.Operator("hf", repo="owner/name", bearer_token=TOKEN, **hub.options)
    for path, data in {"folder/large": DATA, "small": b"small"}.items():
        stat = operator.stat(path)
        ours = [(stat.etag or "").strip('"'), stat.size, stat.version, operator.open(path).read_range()]
        assert ours == [*theirs[path][:3], data]
        assert bytes.fromhex(theirs[path][3]) == data
    assert {path for path, _ in theirs["tree"]} == {"folder", "folder/large", "small"}
    assert {(stat.path, stat.size) for stat in operator.list()} <= {tuple(entry) for entry in theirs["tree"]}
    refused = {name for name in theirs if name.endswith("Error")}
    assert refused == {
        "EntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
        "GatedRepoError",
    }
