"""zarr's own tests of stores, with a writer behind ours."""

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from faults.machine import need_module
from servers.s3 import BUCKET, S3Server

if sys.version_info < (3, 11):
    pytest.skip("zarr 3.1 needs Python 3.11", allow_module_level=True)
need_module("urllib3")
need_module("zarr")
theirs = need_module("zarr.testing.store")
buffers = need_module("zarr.core.buffer")
ours = need_module("rangeio.adapters.zarr")

# What these write with is not ours.
WRITING = (
    "test_set",
    "test_delete",
    "test_clear",
    "test_serializable",
    "test_store_read_only",
    "test_sync_async",
)


class Written(ours.ZarrStore):  # type: ignore[misc, name-defined]
    """Our store, whose `set` goes another way: the tests put the keys there by it."""

    async def set(self, key: str, value: Any) -> None:
        if self.read_only:
            await super().set(key, value)
        put(self, key, value.to_bytes())

    def set_sync(self, key: str, value: Any) -> None:
        put(self, key, value.to_bytes())


SERVERS: dict[str, S3Server] = {}


def put(store: Any, key: str, data: bytes) -> None:
    place = str(store)
    if place.startswith("s3://"):
        SERVERS["s3"].put(f"{place.removeprefix(f's3://{BUCKET}/')}/{key}", data)
        return
    path = Path(place, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class Reading(theirs.StoreTests):  # type: ignore[misc, name-defined]
    """The parts of the suite that read."""

    store_cls = Written
    buffer_cls = buffers.cpu.Buffer

    async def set(self, store: Any, key: str, value: Any) -> None:
        put(store, key, value.to_bytes())

    async def get(self, store: Any, key: str) -> Any:
        raise AssertionError("only tests of writing look behind the store")

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> Any:
        return Written(**open_kwargs, read_only=False)

    @pytest.fixture
    def store_not_open(self, open_kwargs: dict[str, Any]) -> Any:
        return Written(**open_kwargs)

    def test_store_eq(self, store: Any, store_kwargs: dict[str, Any]) -> None:
        super().test_store_eq(store, {**store_kwargs, "read_only": False})

    def test_store_repr(self, store: Any) -> None:
        assert repr(store) == f"ZarrStore({str(store)!r}, read_only=False)"

    def test_store_supports_writes(self, store: Any) -> None:
        assert not store.supports_writes

    def test_store_supports_listing(self, store: Any) -> None:
        assert store.supports_listing


def without_writing(kind: Any) -> Any:
    """The class without the tests that look at what the store has written."""
    for name in [name for name in dir(theirs.StoreTests) if name.startswith(WRITING)]:
        setattr(kind, name, None)
    return pytest.mark.anyio(pytest.mark.usefixtures("anyio_backend")(kind))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@without_writing
class TestOfFiles(Reading):
    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"where": tmp_path}


@without_writing
class TestOfObjects(Reading):
    @pytest.fixture
    def store_kwargs(self, seaweedfs: S3Server) -> dict[str, Any]:
        SERVERS["s3"] = seaweedfs
        return {"where": f"s3://{BUCKET}/{uuid4().hex}", **seaweedfs.options}
