"""gs:// against servers of others: gcp-storage-emulator, and SeaweedFS for the signatures of HMAC keys."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.program import Program, free_port, running
from servers.s3 import BUCKET, S3Server

import rangeio

DATA = bytes(range(256)) * 1200
NAMES = ["plain", "a/b/c.bin", "with space", "plus+plus", "é ü 日本", "100%", "%41 is no A", "#?&="]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL. Filled by Google's own client."""
    need_module("gcp_storage_emulator")
    storage, credentials = need_module("google.cloud.storage"), need_module("google.auth.credentials")
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--in-memory", "--default-bucket", "bucket"]
    started = Program(command, port, tmp_path_factory.mktemp("emulator") / "log", at_once=True)
    with running(started):
        url = f"http://127.0.0.1:{port}"
        client = storage.Client(
            project="p", credentials=credentials.AnonymousCredentials(), client_options={"api_endpoint": url}
        )
        for name in NAMES:
            client.bucket("bucket").blob(name).upload_from_string(DATA)
        client.bucket("bucket").blob("empty").upload_from_string(b"")
        client.close()
        yield url


@pytest.fixture
def bucket(emulator: str, monkeypatch: pytest.MonkeyPatch) -> rangeio.Operator:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.removeprefix("http://"))
    return rangeio.Operator("gs", bucket="bucket")


@pytest.mark.parametrize("name", NAMES)
def test_ranges(bucket: rangeio.Operator, name: str) -> None:
    with bucket.open(name) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_at(len(DATA) - 5, 10) == DATA[-5:]
        assert reader.read_at(len(DATA), 10) == b""
        assert reader.read_at(len(DATA) + 10, 10) == b""
        assert reader.read_range(rangeio.Suffix(7)) == DATA[-7:]
        assert reader.read_ranges([(0, 5), (9000, 9100)], gap=0) == [DATA[:5], DATA[9000:9100]]
        assert reader.stat().size == len(DATA)


@pytest.mark.parametrize("loop", LOOPS)
def test_ranges_awaited(bucket: rangeio.Operator, loop: str) -> None:
    need_module(loop)

    async def main() -> None:
        async with bucket.open_async("plain", chunk=100_000) as reader:
            assert await reader.read_range() == DATA
            assert await reader.read_at(len(DATA), 1) == b""

    run_on(loop, main)


def test_an_empty_object(bucket: rangeio.Operator) -> None:
    with bucket.open("empty") as reader:
        assert reader.read_at(0, 10) == b""
        assert reader.read_range() == b""


def test_nothing_there(bucket: rangeio.Operator) -> None:
    with bucket.open("none") as reader, pytest.raises(rangeio.NotFoundError):
        reader.read_at(0, 1)


def test_lists(bucket: rangeio.Operator) -> None:
    """It lists by the JSON API only."""
    found = {entry.path: entry.size for entry in bucket.list("")}
    assert found == {**dict.fromkeys(NAMES, len(DATA)), "empty": 0}
    assert [entry.path for entry in bucket.list("a", delimiter="/")] == ["a/"]


# --- signatures of HMAC keys, which SeaweedFS checks ---------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_hmac_signatures(seaweedfs: S3Server, name: str) -> None:
    """It speaks S3, as Google's XML API does for programs with such keys."""
    seaweedfs.put(name, DATA)
    options: dict[str, Any] = {
        "access_key_id": seaweedfs.access_key_id,
        "secret_access_key": seaweedfs.secret_access_key,
    }
    bucket = rangeio.Operator("gs", bucket=BUCKET, endpoint_url=seaweedfs.url, **options)
    with bucket.open(name) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.stat().size == len(DATA)
    assert name in {entry.path for entry in bucket.list("")}
    wrong = {**options, "secret_access_key": "another"}
    with (
        rangeio.open(f"gs://{BUCKET}/{name}", endpoint_url=seaweedfs.url, **wrong) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="SignatureDoesNotMatch"),
    ):
        reader.read_at(0, 1)
