"""Files that huggingface_hub has downloaded are read where they are, if the revision cannot mean others."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from os import environ
from pathlib import Path
from typing import Any

import pytest
from awaited import by_each
from faults.machine import need_module
from servers.hf_server import TOKEN, Hub, hub

import rangeio

need_module("urllib3")

LARGE, SMALL = b"0123456789" * 500, b"small"


@pytest.fixture
def site() -> Any:
    with hub() as made:
        made.put("a/large", LARGE)
        made.put("small", SMALL)
        yield made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path / "hub"


def commit_of(site: Hub, name: str = "owner/name") -> str:
    return site.repo(name).refs["main"]


def put(cache: Path, site: Hub, path: str, data: bytes, name: str = "models--owner--name") -> Path:
    """As huggingface_hub does: a blob, by the hash that is its ETag, and a link to it for the commit."""
    etag = rangeio.open(f"hf://owner/name/{path}", **site.options).stat().etag
    assert etag
    blob = cache / name / "blobs" / etag.strip('"')
    link = cache / name / "snapshots" / commit_of(site) / path
    for folder in (blob.parent, link.parent):
        folder.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(blob)
    site.site.asked.clear()
    site.storage.asked.clear()
    return link


def is_quiet(site: Hub) -> bool:
    return not site.site.asked and not site.storage.asked


@pytest.mark.parametrize("path", ["a/large", "small"])
@pytest.mark.parametrize("way", ["sync", "asyncio"])
def test_a_commit_is_read_without_a_request(site: Hub, cache: Path, path: str, way: str) -> None:
    data = LARGE if path == "a/large" else SMALL
    expected = rangeio.open(f"hf://owner/name/{path}", **site.options).stat()
    put(cache, site, path, data)
    uri = f"hf://owner/name@{commit_of(site)}/{path}"

    def check(open_reader: Callable[..., Any]) -> None:
        for reader in (
            open_reader(uri, **site.options),
            open_reader(f"hf://owner/name/{path}", version=commit_of(site)),
        ):
            assert reader.read_at(1, 3) == data[1:4]
            assert reader.read_ranges([(0, 2), (3, None)]) == [data[:2], data[3:]]
            assert reader.read_range(rangeio.Suffix(2)) == data[-2:]
            stat = reader.stat()
            assert (stat.size, stat.etag, stat.version, stat.pin, stat.mtime_ns, stat.path) == (
                len(data),
                expected.etag,
                commit_of(site),
                expected.pin,
                None,
                uri,
            )
            assert reader.path in (uri, f"hf://owner/name/{path}")
            reader.close()

    for _ in by_each(way, lambda open_reader: Once(open_reader, check)):
        pass
    assert is_quiet(site)


class Once:
    def __init__(self, open_reader: Any, check: Any) -> None:
        check(open_reader)

    def close(self) -> None:
        pass


def test_a_branch_asks_the_hub(site: Hub, cache: Path) -> None:
    """It may have moved. So do a tag, part of a hash, another commit, conditions, and another size."""
    put(cache, site, "a/large", b"not asked for" * 100)
    old = commit_of(site)
    site.repo().refs["v1"] = old
    for revision in ("main", "v1"):
        with rangeio.open(f"hf://owner/name@{revision}/a/large", **site.options) as reader:
            assert reader.read_range() == LARGE
    with pytest.raises(rangeio.ConditionNotMatchError):
        rangeio.open(f"hf://owner/name@{old}/a/large", if_match='"x"', **site.options).read_at(0, 1)
    with rangeio.open(f"hf://owner/name@{old}/a/large", size=len(LARGE), **site.options) as reader:
        assert reader.read_range() == LARGE
    with pytest.raises(rangeio.NotFoundError):
        rangeio.open(f"hf://owner/name@{old[:12]}/a/large", **site.options).read_at(0, 1)
    site.put("a/large", LARGE[::-1])
    with rangeio.open(f"hf://owner/name@{commit_of(site)}/a/large", **site.options) as reader:
        assert reader.read_range() == LARGE[::-1]


def test_what_is_not_there_is_asked_for(site: Hub, cache: Path) -> None:
    """A file that was not downloaded, a folder, a link to nothing; and a path that leaves the cache is refused."""
    link = put(cache, site, "small", SMALL)
    at = f"hf://owner/name@{commit_of(site)}"
    assert rangeio.open(f"{at}/a/large", **site.options).read_at(0, 3) == LARGE[:3]
    (link.parent / "a" / "large").mkdir(parents=True)
    assert rangeio.open(f"{at}/a/large", **site.options).read_at(0, 3) == LARGE[:3]
    link.resolve().unlink()
    assert rangeio.open(f"{at}/small", **site.options).read_at(0, 3) == SMALL[:3]
    with pytest.raises(rangeio.NotFoundError):
        rangeio.open(f"{at}/none", **site.options).read_at(0, 3)
    (cache / "secret").write_bytes(SMALL)
    for path in ("../../../secret", "/small", ""):
        with pytest.raises(rangeio.ConfigInvalidError):
            rangeio.open(f"{at}/{path}", **site.options).read_at(0, 3)


def test_many_files_of_an_operator(site: Hub, cache: Path) -> None:
    """Those that are there need no request."""
    put(cache, site, "small", SMALL)
    operator = rangeio.Operator("hf", repo=f"owner/name@{commit_of(site)}", **site.options)
    found = operator.read_ranges(
        [("small", (1, 3)), ("a/large", (1, 3)), ("small", None), ("none", None)], on_error="return"
    )
    assert found[:3] == [SMALL[1:3], LARGE[1:3], SMALL]
    assert type(found[3]) is rangeio.NotFoundError
    assert not [asked for asked in site.site.asked if "small" in asked.target]
    memory = [bytearray(2), bytearray(2)]
    assert operator.read_ranges_into([("small", memory[0], 1), ("a/large", memory[1], 1)]) == [2, 2]
    assert memory == [SMALL[1:3], LARGE[1:3]]
    assert operator.stat("small").version == commit_of(site)
    assert operator.exists("small")


def test_it_is_pinned_and_travels(site: Hub, cache: Path) -> None:
    link = put(cache, site, "small", SMALL)
    reader = rangeio.open(
        f"hf://owner/name@{commit_of(site)}/small", bearer_token=TOKEN, endpoint_url="https://h.invalid"
    )
    packed = pickle.dumps(reader)
    assert TOKEN.encode() not in packed
    assert pickle.loads(packed).read_range() == SMALL
    link.resolve().write_bytes(b"other and longer")
    with pytest.raises(rangeio.ObjectChangedError):
        reader.stat()


@pytest.mark.parametrize("kind", ["", "datasets/", "spaces/"])
@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_is_that_of_huggingface_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, kind: str, variable: str
) -> None:
    """Where it looks, by its own function."""
    need_module("huggingface_hub")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(variable, "~/place/$HOSTTYPE_OF_NONE")
    commit = "c" * 40
    program = f"""
import os
from huggingface_hub import constants, file_download
folder = file_download.repo_folder_name(repo_id="owner/name", repo_type={(kind or "models/")[:-2]!r})
print(os.path.join(constants.HF_HUB_CACHE, folder, "snapshots", {commit!r}, "deep/file"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environ}, check=True, capture_output=True, text=True
    )
    theirs = Path(done.stdout.strip())
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(SMALL)
    with rangeio.open(
        f"hf://{kind}owner/name@{commit}/deep/file", endpoint_url="https://h.invalid"
    ) as reader:
        assert reader.read_range() == SMALL
        assert (reader.stat().etag, reader.stat().version) == (None, commit), "it is no link"
