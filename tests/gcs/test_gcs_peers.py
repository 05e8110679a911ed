"""The scripted Cloud Storage against clients of others: what it demands they send, and they read it right."""

import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest
from faults.machine import need_module
from servers.gcs_keys import service_account
from servers.gcs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, GcsServer
from servers.scripted import Scripted, scripted

DATA = bytes(range(256)) * 40
KEY = "a b/+%41ü"
NAMES = [KEY, *(f"many/{number:02}" for number in range(7)), "z"]


@pytest.fixture
def store() -> GcsServer:
    made = GcsServer(page=3)
    for name in NAMES:
        made.put(name, DATA if name == KEY else b"other")
    return made


@pytest.fixture
def server(store: GcsServer) -> Iterator[Scripted]:
    with scripted(store.answer) as running:
        yield running


# --- google-cloud-storage ------------------------------------------------------------------------------------


@pytest.fixture
def google(server: Scripted) -> Iterator[Any]:
    storage = need_module("google.cloud.storage")
    credentials = need_module("google.oauth2.service_account").Credentials
    held = credentials.from_service_account_info(
        service_account(), scopes=["https://www.googleapis.com/auth/devstorage.read_only"]
    ).with_always_use_jwt_access(True)
    client = storage.Client(project="project", credentials=held, client_options={"api_endpoint": server.url})
    yield client
    client.close()


def test_google_reads(google: Any) -> None:
    blob = google.bucket("bucket").blob(KEY)
    assert blob.download_as_bytes() == DATA
    assert blob.download_as_bytes(start=5, end=14) == DATA[5:15]
    blob.reload()
    assert blob.size == len(DATA)
    with pytest.raises(need_module("google.api_core.exceptions").NotFound):
        google.bucket("bucket").blob("none").download_as_bytes()


def test_google_asks_for_generations(google: Any, store: GcsServer) -> None:
    old = int(store.generation(KEY))
    store.put(KEY, b"newer")
    blob = google.bucket("bucket").blob(KEY, generation=old)
    assert blob.download_as_bytes() == DATA
    with pytest.raises(need_module("google.api_core.exceptions").PreconditionFailed):
        google.bucket("bucket").blob(KEY).download_as_bytes(if_generation_match=old)


def test_google_lists(google: Any) -> None:
    assert [blob.name for blob in google.list_blobs("bucket")] == NAMES
    found = google.list_blobs("bucket", delimiter="/")
    assert [blob.name for blob in found] == ["z"]
    assert found.prefixes == {"a b/", "many/"}


def test_google_presigns(google: Any, server: Scripted) -> None:
    """For GET only, as that is what its server then sees."""
    url = (
        google.bucket("bucket")
        .blob(KEY)
        .generate_signed_url(datetime.timedelta(seconds=60), version="v4", api_access_endpoint=server.url)
    )
    urllib3 = need_module("urllib3")
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", url).data == DATA
        refused = pool.request("GET", url[:-2] + ("00" if url[-2:] != "00" else "11"))
        assert refused.status == 403
        assert b"SignatureDoesNotMatch" in refused.data


# --- obstore -------------------------------------------------------------------------------------------------


@pytest.fixture
def obstore(server: Scripted) -> Any:
    """Its own tokens: it signs them with the key of the service account."""
    GCSStore = need_module("obstore.store").GCSStore
    return GCSStore(
        "bucket",
        service_account_key=json.dumps({**service_account(), "gcs_base_url": server.url}),
        client_options={"allow_http": True},
    )


def test_obstore_reads(obstore: Any) -> None:
    assert bytes(obstore.get(KEY).bytes()) == DATA
    assert bytes(obstore.get_range(KEY, start=5, end=15)) == DATA[5:15]
    head = obstore.head(KEY)
    assert head["size"] == len(DATA)
    assert [bytes(part) for part in obstore.get_ranges(KEY, starts=[0, 200], ends=[9, 300])] == [
        DATA[0:9],
        DATA[200:300],
    ]
    with pytest.raises(FileNotFoundError):
        obstore.get("none")


def test_obstore_asks_for_one_version(obstore: Any, store: GcsServer) -> None:
    etag = obstore.head(KEY)["e_tag"]
    store.put(KEY, b"newer")
    with pytest.raises(Exception, match="PreconditionFailed"):
        obstore.get(KEY, options={"if_match": etag})


def test_obstore_lists(obstore: Any) -> None:
    found = [entry["path"] for page in obstore.list() for entry in page]
    assert found == NAMES
    assert obstore.list_with_delimiter()["common_prefixes"] == ["a b", "many"]


def test_obstore_presigns(obstore: Any) -> None:
    """A plain name, as it does not quote "%" in the URL; and for Google's host, whatever its endpoint is."""
    url = need_module("obstore").sign(obstore, "GET", "many/03", datetime.timedelta(seconds=60))
    with need_module("urllib3").PoolManager() as pool:
        assert pool.request("GET", url, headers={"Host": "storage.googleapis.com"}).data == b"other"


# --- HMAC keys -----------------------------------------------------------------------------------------------


def test_boto3_reads_with_hmac_keys(server: Scripted) -> None:
    """Google's documented way for programs that speak S3: their signature, region auto."""
    config = need_module("botocore.config").Config(
        s3={"addressing_style": "path"}, response_checksum_validation="when_required"
    )
    client = need_module("boto3").client(
        "s3",
        endpoint_url=server.url,
        region_name="auto",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=config,
    )
    found = client.get_object(Bucket="bucket", Key=KEY, Range="bytes=5-14")["Body"].read()
    assert found == DATA[5:15]
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket", MaxKeys=100)["Contents"]]
    assert names == NAMES[:3]
    client.close()


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 403),
        ({"Authorization": "Bearer of-nobody"}, 401),
        ({"Authorization": "Bearer a.b.c"}, 401),
        ({"Authorization": "Basic YTpi"}, 400),
    ],
    ids=str,
)
def test_others_are_refused(server: Scripted, given: dict[str, str], status: int) -> None:
    with need_module("urllib3").PoolManager() as pool:
        answer = pool.request("GET", server.url + "/bucket/z", headers=given)
    assert answer.status == status
    assert b"other" not in answer.data
