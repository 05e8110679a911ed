"""S3 against servers that people run: SeaweedFS and JuiceFS's gateway, which check signatures, and peers that err."""

import asyncio
import hashlib
import http.client
import json
import random
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.s3 import BUCKET, DOMAIN, S3Server, moto

import rangeio
from rangeio.cli import main
from rangeio.s3.signing import LONGEST_S

need_module("urllib3")

DATA = random.Random(4).randbytes(300_000)
GOOD = ["seaweedfs", "juicefs"]
ERRING = ["rclone", "moto", "s3rver"]
ALL = [*GOOD, *ERRING]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


on = pytest.mark.parametrize


def operator_of(server: S3Server, **options: Any) -> rangeio.Operator:
    return rangeio.Operator("s3", **{"bucket": BUCKET, **server.options, **options})


# --- keys ----------------------------------------------------------------------------------------------------

KEYS = [
    "plain",
    "a/b/c.bin",
    "with space",
    "plus+plus",
    "100%",
    "%41 is no A",
    "#fragment?query=1&b=2",
    "é ü 日本 🎈",
    "quote'\"<>",
    "(a)[b]{c}!*;:@=,$~",
]
# What AWS stores as it is, and file systems cannot.
STRANGE_KEYS = ["a//b", "./dots/../c", "back\\slash", "/first", "last/", "tab\there", "\x01"]


@on("server", ALL, indirect=True)
def test_keys(server: S3Server) -> None:
    """Each is written by boto3, found by its name, read, listed and read by a signed URL."""
    kept = KEYS + (STRANGE_KEYS if server.name == "moto" else [])
    for key in kept:
        server.put(f"keys/{key}", key.encode())
    operator = operator_of(server, root="keys")
    for key in kept:
        assert operator.stat(key).size == len(key.encode())
        assert operator.open(key).read_at(0, 1000) == key.encode()
        with rangeio.open(operator.presign(key)) as reader:
            assert reader.read_range() == key.encode()
    # The bucket also has what other tests of the session keep there.
    assert [stat.path for stat in operator.list() if stat.path in kept] == sorted(kept)


@on("server", [*GOOD, "rclone", "moto"], indirect=True)
def test_an_empty_object(server: S3Server) -> None:
    with rangeio.open(server.put("nothing", b""), **server.options) as reader:
        assert reader.read_at(0, 10) == b""
        assert (reader.size, reader.stat().size) == (0, 0)
        assert reader.read_range() == b""
        assert reader.read_ranges([(0, 5), (7, 9)]) == [b"", b""]


def asked_plainly(server: S3Server, key: str, **fields: str) -> tuple[int, str | None, int]:
    """The status, Content-Range and length of what a server sends, by a client that knows no better."""
    url = urlsplit(operator_of(server).presign(key))
    with closing(http.client.HTTPConnection(url.netloc)) as connection:
        connection.request("GET", f"{url.path}?{url.query}", headers=fields)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Content-Range"), len(reply.read())


def test_the_errors_of_peers(rclone: S3Server, s3rver: S3Server) -> None:
    """That they are as these tests and docs/s3-tests.md take them."""
    for server in (rclone, s3rver):
        server.put("peer", DATA)
    span = f"bytes 5-9/{len(DATA)}"
    assert asked_plainly(rclone, "peer", Range="bytes=5-9") == (200, span, 5)
    assert asked_plainly(rclone, "peer", Range="bytes=5-9", **{"If-Match": '"other"'}) == (200, span, 5)
    assert asked_plainly(s3rver, "peer", Range="bytes=0-0")[2] == len(DATA)
    assert asked_plainly(s3rver, "peer", Range="bytes=5-9", **{"If-Match": '"other"'}) == (206, span, 5)


def test_an_empty_object_that_is_cut(s3rver: S3Server) -> None:
    """Its response says that the object has no bytes, announces one, and is cut: there are none."""
    uri = s3rver.put("nothing", b"")
    with rangeio.open(uri, **s3rver.options, retry=1) as reader:
        assert reader.stat().size == 0
        assert reader.read_range() == b""
    with rangeio.open(uri, **s3rver.options, retry=1) as reader:
        assert reader.read_at(0, 10) == b""


@on("server", ALL, indirect=True)
def test_ends(server: S3Server) -> None:
    """End past the end, start at it and past it, all of it, in parts."""
    with rangeio.open(server.put("ends", DATA), **server.options, chunk=70_000) as reader:
        assert reader.read_at(len(DATA) - 5, 100) == DATA[-5:]
        assert reader.read_at(len(DATA), 10) == reader.read_at(len(DATA) + 99, 10) == b""
        assert reader.read_range() == DATA
        assert reader.read_range(rangeio.Suffix(9)) == DATA[-9:]
        assert reader.read_ranges([(0, 1), (5, 9), (100_000, 299_999)], gap=None) == [
            DATA[:1], DATA[5:9], DATA[100_000:299_999],
        ]  # fmt: skip


@on("server", GOOD, indirect=True)
def test_parts_of_an_upload(server: S3Server) -> None:
    """Across the border of two parts, and all of it under an ETag that is no hash of the content."""
    parts = [random.Random(7).randbytes(5 << 20), DATA]
    begun = server.client.create_multipart_upload(Bucket=BUCKET, Key="parts")
    done = []
    for number, data in enumerate(parts, 1):
        where = {"Bucket": BUCKET, "Key": "parts", "UploadId": begun["UploadId"], "PartNumber": number}
        done.append({"PartNumber": number, "ETag": server.client.upload_part(Body=data, **where)["ETag"]})
    upload = {"MultipartUpload": {"Parts": done}, "UploadId": begun["UploadId"]}
    server.client.complete_multipart_upload(Bucket=BUCKET, Key="parts", **upload)
    whole = b"".join(parts)
    with rangeio.open(f"s3://{BUCKET}/parts", **server.options, chunk=1 << 20) as reader:
        assert reader.read_at((5 << 20) - 10, 20) == whole[(5 << 20) - 10 : (5 << 20) + 10]
        assert reader.read_range() == whole
        etag = reader.stat().etag
        assert etag is not None
        assert etag.endswith('-2"')


@on("server", GOOD, indirect=True)
def test_a_large_object(server: S3Server) -> None:
    data = random.Random(9).randbytes(40 << 20)
    with rangeio.open(server.put("large", data), **server.options) as reader:
        assert hashlib.sha256(reader.read_range()).digest() == hashlib.sha256(data).digest()
        assert reader.stats["requests"] == 0  # those are of planned reads
        streamed = hashlib.sha256()
        for piece in reader.stream(chunk=3 << 20):
            streamed.update(piece)
        assert streamed.digest() == hashlib.sha256(data).digest()
    server.client.delete_object(Bucket=BUCKET, Key="large")


@on("server", GOOD, indirect=True)
def test_many_objects(server: S3Server) -> None:
    """One range of each, over few connections, and an error in its place."""
    for number in range(20):
        server.put(f"many/{number}", DATA[number:])
    operator = operator_of(server)
    jobs: list[Any] = [(f"many/{number}", (5, 15)) for number in range(20)]
    expected = [DATA[number + 5 : number + 15] for number in range(20)]
    assert operator.read_ranges(jobs) == expected

    async def main() -> Any:
        return await operator.read_ranges_async([*jobs, ("many/none", (0, 1))], on_error="return")

    found = asyncio.run(main())
    assert found[:20] == expected
    assert isinstance(found[20], rangeio.NotFoundError)


@on("server", GOOD, indirect=True)
@on("loop", LOOPS)
def test_reads_at_once(server: S3Server, loop: str) -> None:
    need_module(loop)
    uri = server.put("at once", DATA)

    async def main() -> None:
        async with rangeio.open_async(uri, **server.options) as reader:
            wanted = [(i * 1000, i * 1000 + 500) for i in range(200)]
            assert await reader.read_ranges(wanted, gap=None) == [DATA[a:b] for a, b in wanted]
            async for index, buffer in reader.iter_ranges(wanted[:20], gap=None):
                assert buffer == DATA[slice(*wanted[index])]

    run_on(loop, main)


# --- who asks ------------------------------------------------------------------------------------------------

STRANGERS: list[tuple[str, dict[str, Any], str]] = [
    ("wrong secret", {"secret_access_key": "another"}, "SignatureDoesNotMatch"),
    ("unknown key", {"access_key_id": "nobody"}, "InvalidAccessKeyId"),
]


@on("server", ["seaweedfs", "juicefs", "rclone"], indirect=True)
@on(("options", "code"), [row[1:] for row in STRANGERS], ids=[row[0] for row in STRANGERS])
def test_strangers(server: S3Server, options: Any, code: str) -> None:
    uri = server.put("kept", DATA)
    with rangeio.open(uri, **{**server.options, **options}) as reader:
        for call in (lambda: reader.read_at(0, 10), reader.stat):
            with pytest.raises(rangeio.UnauthenticatedError, match=code) as caught:
                call()
            assert (caught.value.http_status, caught.value.status) == (403, "permanent")
            assert caught.value.request_id or server.name == "rclone"
    with pytest.raises(rangeio.UnauthenticatedError, match=code):
        next(operator_of(server, **options).list())


@on("server", GOOD, indirect=True)
def test_nobody(server: S3Server) -> None:
    uri = server.put("kept", DATA)
    own = {"access_key_id": None, "secret_access_key": None, "anonymous": True}
    with (
        rangeio.open(uri, **{**server.options, **own}) as reader,
        pytest.raises(PermissionError, match="AccessDenied"),
    ):
        reader.read_at(0, 10)


@on("server", ALL, indirect=True)
def test_what_is_not_there(server: S3Server) -> None:
    with pytest.raises(FileNotFoundError, match="NoSuchKey"):
        operator_of(server).open("not there").read_at(0, 1)
    with pytest.raises(FileNotFoundError, match=r"NoSuchBucket|NoSuchKey"):
        operator_of(server, bucket="no-such-bucket").open("key").read_at(0, 1)
    with pytest.raises(FileNotFoundError):
        operator_of(server).stat("not there")
    with pytest.raises(FileNotFoundError):
        next(operator_of(server, bucket="no-such-bucket").list())


@on("server", ["seaweedfs", "juicefs", "rclone"], indirect=True)
@on("ahead_s", [-7200.0, 7200.0])
def test_a_wrong_clock(server: S3Server, ahead_s: float) -> None:
    """As if this machine's clock were two hours off: the server refuses, and its time is taken."""
    server.put("kept", DATA)
    for call in (
        lambda operator: operator.open("kept").read_at(0, 10),
        lambda operator: operator.stat("kept"),
        lambda operator: next(operator.list()),
    ):
        operator: Any = operator_of(server)
        operator._service._account.skew_s = ahead_s
        call(operator)
        assert abs(operator._service._account.skew_s) < 60
        call(operator)


def test_a_wrong_region(juicefs: S3Server) -> None:
    """The gateway insists on its region, and says which it is."""
    uri = juicefs.put("kept", DATA)
    with rangeio.open(uri, **{**juicefs.options, "region": "us-east-1"}) as reader:
        assert reader.stat().size == len(DATA)
        assert reader.read_at(5, 10) == DATA[5:15]
    operator = operator_of(juicefs, region="us-east-1")
    assert next(operator.list("kept")).path == "kept"
    with rangeio.open(operator.presign("kept")) as reader:  # for the region that was learned
        assert reader.read_at(5, 10) == DATA[5:15]


@on("server", GOOD, indirect=True)
def test_the_bucket_in_the_host_name(server: S3Server) -> None:
    """Nobody resolves that name, so the server is its own proxy; it checks the signature, which covers the name."""
    server.put("hosted/a b+c/é", DATA)
    where = {"endpoint_url": f"http://{DOMAIN}", "addressing": "virtual", "proxy": server.url}
    operator = operator_of(server, **where)
    assert operator.stat("hosted/a b+c/é").size == len(DATA)
    assert operator.open("hosted/a b+c/é").read_at(5, 10) == DATA[5:15]
    assert [stat.path for stat in operator.list("hosted/")] == ["hosted/a b+c/é"]
    assert operator.presign("hosted/a b").startswith(f"http://{BUCKET}.{DOMAIN}/hosted/a%20b?")
    with rangeio.open(operator.presign("hosted/a b+c/é"), proxy=server.url) as reader:
        assert reader.read_range() == DATA
    with pytest.raises(rangeio.UnauthenticatedError, match="SignatureDoesNotMatch"):
        operator_of(server, **where, secret_access_key="another").open("hosted/a b+c/é").read_at(0, 1)


# --- versions and conditions ---------------------------------------------------------------------------------


@on("server", ["seaweedfs", "moto"], indirect=True)
def test_versions(server: S3Server) -> None:
    """JuiceFS and rclone keep none."""
    bucket = "with-versions"
    server.client.create_bucket(Bucket=bucket)
    server.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    numbers = [
        server.client.put_object(Bucket=bucket, Key="key", Body=data)["VersionId"] for data in (DATA, b"new")
    ]
    operator = operator_of(server, bucket=bucket)
    assert operator.stat("key").version == numbers[1]
    assert operator.open("key").read_range() == b"new"
    assert operator.open("key", version=numbers[0]).read_range() == DATA
    assert operator.stat("key", version=numbers[0]).version == numbers[0]
    with rangeio.open(operator.presign("key", version=numbers[0])) as reader:
        assert reader.read_range() == DATA
    server.client.delete_object(Bucket=bucket, Key="key")
    with pytest.raises(rangeio.NotFoundError):
        operator.open("key").read_at(0, 1)
    assert operator.open("key", version=numbers[1]).read_range() == b"new"
    with pytest.raises((rangeio.NotFoundError, rangeio.UnexpectedError)):
        operator.open("key", version="no-such-version").read_at(0, 1)


def dates(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(time.time() + seconds, timezone.utc), usegmt=True)


@on("server", ALL, indirect=True)
def test_conditions(server: S3Server) -> None:
    """rclone ignores most of them; what its reply tells decides then."""
    server.put("conditional", DATA)
    operator = operator_of(server)
    etag = operator.stat("conditional").etag
    fine: list[Any] = [
        {"if_match": etag},
        {"if_none_match": '"other"'},
        {"if_modified_since": dates(-7200)},
        {"if_unmodified_since": dates(7200)},
    ]
    for options in fine:
        assert operator.open("conditional", **options).read_at(5, 10) == DATA[5:15]
    refused: list[Any] = [
        ({"if_match": '"other"'}, rangeio.ConditionNotMatchError),
        ({"if_none_match": etag}, rangeio.NotModifiedError),
        ({"if_unmodified_since": dates(-7200)}, rangeio.ConditionNotMatchError),
    ]
    for options, kind in refused:
        with pytest.raises(kind) as caught:
            operator.open("conditional", **options).read_at(5, 10)
        assert type(caught.value) is kind


@on("server", ALL, indirect=True)
def test_an_object_that_changes(server: S3Server) -> None:
    """The version that was opened, or an error: also where the server ignores If-Match."""
    uri = server.put("changing", DATA)
    with (
        rangeio.open(uri, **server.options) as reader,
        rangeio.open(uri, **server.options, pin=False) as loose,
    ):
        assert reader.read_at(0, 10) == loose.read_at(0, 10) == DATA[:10]
        server.put("changing", DATA[::-1])
        for call in (lambda: reader.read_at(0, 10), lambda: reader.read_ranges([(5, 9)]), reader.stat):
            with pytest.raises(rangeio.ObjectChangedError):
                call()
        assert loose.read_at(0, 10) == DATA[::-1][:10]


# --- listings ------------------------------------------------------------------------------------------------

MANY = [f"pages/{number:04}" for number in range(1100)] + ["pages/deep/a", "pages/deep/b"]


@on("server", GOOD, indirect=True)
@pytest.mark.slow
def test_pages(server: S3Server) -> None:
    """More than a server sends at once, sync and under each loop."""
    for key in MANY:
        server.client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    operator = operator_of(server)
    found = list(operator.list("pages/"))
    assert [stat.path for stat in found] == sorted(MANY)
    assert {stat.size for stat in found} == {len(key) for key in MANY}
    assert all(abs(stat.mtime_ns / 1e9 - time.time()) < 3600 for stat in found if stat.mtime_ns)
    assert found[0].etag == operator.stat(found[0].path).etag
    rolled = [stat.path for stat in operator.list("pages/", "/")]
    assert rolled == sorted([*MANY[:1100], "pages/deep/"])
    for loop in LOOPS:
        need_module(loop)

        async def main() -> list[str]:
            return [stat.path async for stat in operator.list_async("pages/")]

        assert run_on(loop, main) == sorted(MANY)


@on("server", ALL, indirect=True)
def test_prefixes(server: S3Server) -> None:
    for key in ("tree/a/1", "tree/a/2", "tree/b", "tree/c c/3"):
        server.put(key, key.encode())
    operator = operator_of(server)
    assert [(stat.path, stat.is_prefix) for stat in operator.list("tree/", "/")] == [
        ("tree/a/", True),
        ("tree/b", False),
        ("tree/c c/", True),
    ]
    assert list(operator.list("tree/nothing")) == []


# --- presigned URLs ------------------------------------------------------------------------------------------


@on("server", ALL, indirect=True)
def test_presigned(server: S3Server) -> None:
    """Read by the plain http service, which asks for the size with one byte, because HEAD is not what was signed."""
    server.put("signed", DATA)
    url = operator_of(server).presign("signed", 60)
    with rangeio.open(url, chunk=70_000) as reader:
        assert reader.size == len(DATA)
        assert reader.read_range() == DATA
        assert reader.read_ranges([(5, 9), (200_000, 200_005)], gap=None) == [
            DATA[5:9],
            DATA[200_000:200_005],
        ]
        assert "X-Amz" not in repr(reader)


@on("server", ["seaweedfs", "juicefs", "rclone"], indirect=True)
def test_presigned_and_refused(server: S3Server) -> None:
    """Expired, altered, or for another object."""
    server.put("signed", DATA)
    operator: Any = operator_of(server)
    url = operator.presign("signed", LONGEST_S)
    operator._service._account.skew_s = -7200.0
    expired = operator.presign("signed", 60)
    for wrong in (expired, url.replace("Signature=", "Signature=0"), url.replace("/signed?", "/kept?")):
        with (
            rangeio.open(wrong) as reader,
            pytest.raises((PermissionError, rangeio.UnexpectedError)) as caught,
        ):
            reader.read_at(0, 10)
        assert "X-Amz" not in str(caught.value)


# --- temporary keys ------------------------------------------------------------------------------------------


def test_temporary_keys(tmp_path: Path) -> None:
    """Keys that a token service has issued; moto, told to, checks signature and token. Three calls are free."""
    with moto(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="3") as server:
        role, allowed = "reader", {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        iam, tokens = server.aws("iam"), server.aws("sts")
        with closing(iam), closing(tokens):
            trusted = json.dumps({"Version": "2012-10-17", "Statement": []})
            arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
            policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
            iam.put_role_policy(RoleName=role, PolicyName="all", PolicyDocument=policy)
            issued = tokens.assume_role(RoleArn=arn, RoleSessionName="tests")["Credentials"]
        given = {
            "access_key_id": issued["AccessKeyId"],
            "secret_access_key": issued["SecretAccessKey"],
            "session_token": issued["SessionToken"],
        }
        server.access_key_id, server.secret_access_key = given["access_key_id"], given["secret_access_key"]
        server.connect(aws_session_token=given["session_token"])
        uri = server.put("for a time", DATA)
        where = {"endpoint_url": server.url, "region": server.region}
        fresh = {**given, "expires_at": issued["Expiration"]}
        for options in (given, {"credentials": lambda: fresh}):
            with rangeio.open(uri, **where, **options) as reader:
                assert reader.read_at(5, 10) == DATA[5:15]
        assert [stat.path for stat in rangeio.Operator("s3", bucket=BUCKET, **where, **given).list()] == [
            "for a time"
        ]
        for wrong in ({"secret_access_key": "another"}, {"session_token": "another"}):
            with rangeio.open(uri, **where, **{**given, **wrong}) as reader, pytest.raises(PermissionError):
                reader.read_at(5, 10)


# --- connections ---------------------------------------------------------------------------------------------


@on("server", GOOD, indirect=True)
def test_an_operator_shares_its_connections(server: S3Server) -> None:
    for number in range(5):
        server.put(f"shared/{number}", DATA)
    operator: Any = operator_of(server)
    for stat in operator.list("shared/"):
        assert operator.open(stat.path).read_at(0, 100) == DATA[:100]
    assert operator._service.access.pool.stats()["connections_opened"] == 1


# --- the command line and the documentation -------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Server], None]:
    """Puts where a server is, and who asks, where the AWS tools look for it."""

    def tell(server: S3Server) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        monkeypatch.setenv("AWS_REGION", server.region)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)

    return tell


@on("server", GOOD, indirect=True)
def test_command_line(
    server: S3Server, environment: Any, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    environment(server)
    uri = server.put("command/a b", DATA)
    server.put("command/c", b"")
    assert main(["ls", f"s3://{BUCKET}/command/"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert [line.endswith(name) for line, name in zip(lines, ["command/a b", "command/c"], strict=True)] == [
        True
    ] * 2
    assert main(["cat", uri, "--range", "5-15", "--force"]) == 0
    assert capfdbinary.readouterr().out == DATA[5:15]
    assert main(["cp", uri, str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy").read_bytes() == DATA
    assert main(["stat", f"{uri} not there"]) == 1


@on("server", GOOD, indirect=True)
def test_the_documentation(server: S3Server, environment: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The program in docs/s3.md, as it stands there; keys, region and endpoint are those of the environment."""
    environment(server)
    data = random.Random(3).randbytes(5 << 20)
    server.put("tables/weights.bin", data)
    server.put("tables/old/weights.bin", data[:100])
    text = (Path(__file__).parents[2] / "docs" / "s3.md").read_text()
    code = text.partition("## Ten lines")[2].partition("```python\n")[2].partition("```")[0]
    seen: dict[str, Any] = {}
    exec(compile(code, "s3.md", "exec"), seen)
    assert capsys.readouterr().out.splitlines() == ["tables/old/ None", f"tables/weights.bin {len(data)}"]
    assert seen["head"] == data[:8]
    assert seen["columns"] == [data[4096:8192], data[1 << 20 : 3 << 20]]
    assert seen["weights"].tobytes() == data
    with rangeio.open(seen["url"]) as reader:
        assert reader.read_range() == data
