"""Whose keys sign: given ones, a callable's, those of environment, files and botocore; and that nobody sees them."""

import asyncio
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio
from rangeio.awaitables import pause
from rangeio.s3.endpoint import Endpoint
from rangeio.s3.settings import Settings
from rangeio.s3.signing import Keys

need_module("urllib3")

DATA = bytes(range(256)) * 100
SECRET, TOKEN = "secret/of+the-tests", "token/of+the-tests"


def signed_by(asked: Asked) -> str | None:
    """The access key id that a request is signed with; None if it is not."""
    value = asked.fields.get("authorization")
    return None if value is None else value.partition("Credential=")[2].partition("/")[0]


@pytest.fixture
def server() -> Iterator[Any]:
    with scripted(lambda asked: honest(DATA, asked)) as running:
        yield running


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine the tests run on."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["with botocore", "without"])
def botocore(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Installed, or hidden from imports as if it were not."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "botocore.session", None)
    else:
        need_module("botocore.session")
    name: str = request.param
    return name


def write(folder: Path, credentials: str = "", config: str = "") -> None:
    (folder / ".aws").mkdir(exist_ok=True)
    (folder / ".aws" / "credentials").write_text(credentials)
    (folder / ".aws" / "config").write_text(config)


# --- what is given -------------------------------------------------------------------------------------------


def test_given_keys(server: Any) -> None:
    with rangeio.open(
        "s3://bucket/key", endpoint_url=server.url, access_key_id="AKID", secret_access_key=SECRET
    ) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert signed_by(server.asked[0]) == "AKID"
    assert "x-amz-security-token" not in server.asked[0].fields
    assert server.asked[0].target == "/bucket/key"


def test_session_token(server: Any) -> None:
    given = {"access_key_id": "AKID", "secret_access_key": SECRET, "session_token": TOKEN}
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, **given) as reader:
        reader.read_at(5, 10)
    fields = server.asked[0].fields
    assert fields["x-amz-security-token"] == TOKEN
    assert "host;x-amz-content-sha256;x-amz-date;x-amz-security-token" in fields["authorization"]


def test_anonymous(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is signed, whatever the environment has."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, anonymous=True) as reader:
        reader.read_at(5, 10)
    assert not {"authorization", "x-amz-date", "x-amz-content-sha256"} & set(server.asked[0].fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_key_id": "AKID"},
        {"secret_access_key": SECRET},
        {"session_token": TOKEN},
        {"access_key_id": "AKID", "secret_access_key": SECRET, "anonymous": True},
        {"access_key_id": "AKID", "secret_access_key": SECRET, "credentials": dict},
        {"credentials": {"access_key_id": "AKID"}},
        {"access_key_id": "AK\r\nID", "secret_access_key": SECRET},
        {"access_key_id": "AKID", "secret_access_key": SECRET, "session_token": "a\nHost: b"},
        {"anonymous": True, "addressing": "sideways"},
        {"anonymous": True, "endpoint_url": "http://me:secret/of+the-tests@host"},
        {"anonymous": True, "region": "evil.example.org/"},
        {"anonymous": True, "bucket": "evil.example.org/"},
        {"anonymous": True, "headers": {"Range": "bytes=0-1"}},
    ],
    ids=str,
)
def test_wrong_options(wrong: Any) -> None:
    """Refused when they are given, and shown to nobody."""
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.Operator("s3", **wrong).open("bucket/key").read_at(0, 1)
    assert SECRET not in str(caught.value)
    assert TOKEN not in str(caught.value)


# --- a callable ----------------------------------------------------------------------------------------------


def made(number: int, **more: Any) -> dict[str, Any]:
    return {"access_key_id": f"AK{number}", "secret_access_key": SECRET, **more}


class Source:
    """Gives new keys each time, and counts."""

    def __init__(self, **more: Any) -> None:
        self.calls = 0
        self.more = more

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return made(self.calls, **self.more)


def test_callable_is_asked_once(server: Any) -> None:
    """For all who wait, and not before the first request."""
    begun = threading.Barrier(8)
    source = Source()
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=source) as reader:
        assert source.calls == 0

        def read() -> None:
            begun.wait()
            assert reader.read_at(5, 10) == DATA[5:15]

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert source.calls == 1
    assert {signed_by(asked) for asked in server.asked} == {"AK1"}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_callable_holds_no_loop(server: Any, loop: str) -> None:
    """It is asked on another thread, once for all reads that wait, while other tasks go on."""
    need_module(loop)
    released = threading.Event()
    source = Source()

    def slow() -> dict[str, Any]:
        assert released.wait(30)  # for ever, if the loop were held
        return source()

    async def read() -> None:
        async with rangeio.open_async("s3://bucket/key", endpoint_url=server.url, credentials=slow) as reader:
            wanted = [(i * 100, i * 100 + 10) for i in range(8)]
            found = await reader.read_ranges(wanted, gap=None)
            assert found == [DATA[start:stop] for start, stop in wanted]

    async def release() -> None:
        await pause(0.02)
        released.set()

    async def main() -> None:
        if loop == "trio":
            async with need_module("trio").open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(release)
        else:
            await asyncio.gather(read(), release())

    run_on(loop, main)
    assert source.calls == 1


@pytest.mark.parametrize(
    ("left_s", "calls"),
    [(3600, 1), (61, 1), (5, 1), (-5, 1), (None, 1)],
)
def test_refresh_before_expiry(server: Any, left_s: float | None, calls: int) -> None:
    """Before the end; keys that live for less than a minute, or not any more, are not renewed for each request."""
    expires = None if left_s is None else datetime.now(timezone.utc) + timedelta(seconds=left_s)
    source = Source(expires_at=expires)
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=source) as reader:
        for _ in range(3):
            reader.read_at(5, 10)
    assert source.calls == calls


@pytest.mark.slow
def test_refresh_when_the_time_comes(server: Any) -> None:
    """Good for 2.2 s: after half of that new ones are asked for, while the old ones still are."""
    calls: list[float] = []

    def source() -> dict[str, Any]:
        calls.append(time.time())
        return made(len(calls), expires_at=time.time() + 2.2)

    with rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=source) as reader:
        while len(calls) < 2:
            reader.read_at(5, 10)
    assert calls[1] - calls[0] >= 1


@pytest.mark.parametrize("loop", ["sync", *LOOPS])
@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "TokenRefreshRequired"])
def test_refused_keys_are_renewed_once(loop: str, code: str) -> None:
    """ExpiredToken comes with status 400."""
    source = Source()

    def answer(asked: Asked) -> Answer:
        if signed_by(asked) == "AK1":
            return reply(400, f"<Error><Code>{code}</Code></Error>".encode())
        return honest(DATA, asked)

    with scripted(answer) as server:
        options: Any = {"endpoint_url": server.url, "credentials": source}
        if loop == "sync":
            with rangeio.open("s3://bucket/key", **options) as reader:
                assert reader.read_at(5, 10) == DATA[5:15]
        else:
            need_module(loop)

            async def main() -> None:
                async with rangeio.open_async("s3://bucket/key", **options) as reader:
                    assert await reader.read_at(5, 10) == DATA[5:15]

            run_on(loop, main)
    assert source.calls == 2


def test_refused_for_good() -> None:
    source = Source()
    with (
        scripted(lambda _: reply(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")) as server,
        rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=source) as reader,
    ):
        with pytest.raises(rangeio.UnauthenticatedError, match="InvalidAccessKeyId") as caught:
            reader.read_at(0, 1)
        assert source.calls == 2
        assert caught.value.http_status == 403


def test_denied_is_not_a_matter_of_keys() -> None:
    """A bucket full of what may not be read does not become a request for keys for each object."""
    source = Source()
    with (
        scripted(lambda _: reply(403, b"<Error><Code>AccessDenied</Code></Error>")) as server,
        rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=source) as reader,
    ):
        with pytest.raises(rangeio.PermissionDeniedError):
            reader.read_at(0, 1)
        assert source.calls == len(server.asked) == 1


@pytest.mark.parametrize(
    "given",
    [
        None,
        "AKID",
        {},
        {"access_key_id": "AKID"},
        made(1, expires_at=datetime(2030, 1, 1)),  # without a time zone, which is the point
        made(1, expires_at="tomorrow"),
        made(1, expiration=5),
        {"access_key_id": 5, "secret_access_key": SECRET},
    ],
    ids=str,
)
def test_what_a_callable_may_return(server: Any, given: Any) -> None:
    with (
        rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=lambda: given) as reader,
        pytest.raises(rangeio.ConfigInvalidError) as caught,
    ):
        reader.read_at(0, 1)
    assert SECRET not in str(caught.value)
    assert not server.asked


def test_a_callable_that_fails(server: Any) -> None:
    def source() -> Any:
        raise OSError("the vault is closed")

    with (
        rangeio.open("s3://bucket/key", endpoint_url=server.url, credentials=source) as reader,
        pytest.raises(rangeio.UnauthenticatedError) as caught,
    ):
        reader.read_at(0, 1)
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(rangeio.UnauthenticatedError, match="OSError"):
        rangeio.Operator("s3", credentials=source).presign("bucket/key")


# --- environment and files -----------------------------------------------------------------------------------


def read_with(server: Any, **options: Any) -> str | None:
    """Who a read is signed by."""
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, **options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    return signed_by(server.asked[-1])


CREDENTIALS = f"""
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = {SECRET}
# a comment
[other]
aws_access_key_id=AKOTHER
aws_secret_access_key={SECRET}
aws_session_token={TOKEN}
"""
CONFIG = f"""
[default]
region = eu-north-1
[profile other]
region = ap-south-2
endpoint_url = https://other.example.org
s3 =
    addressing_style = path
[profile inline]
aws_access_key_id = AKINLINE
aws_secret_access_key = {SECRET}
services = mine
use_dualstack_endpoint = true
ca_bundle = /etc/bundle.pem
[services mine]
s3 =
    endpoint_url = https://s3.example.org:8443
[profile role]
role_arn = arn:aws:iam::123456789012:role/reader
source_profile = default
"""


def test_environment(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, botocore: str) -> None:
    write(tmp_path, CREDENTIALS, CONFIG)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    assert read_with(server) == "AKENV"
    assert server.asked[-1].fields["x-amz-security-token"] == TOKEN
    assert read_with(server, profile="other") == "AKOTHER"


def test_files(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, botocore: str) -> None:
    write(tmp_path, CREDENTIALS, CONFIG)
    assert read_with(server) == "AKDEFAULT"
    assert "/eu-north-1/s3/aws4_request" in server.asked[-1].fields["authorization"]
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert read_with(server) == "AKOTHER"
    assert "/ap-south-2/" in server.asked[-1].fields["authorization"]
    assert read_with(server, profile="inline") == "AKINLINE"
    (tmp_path / "elsewhere").write_text(CREDENTIALS.replace("AKOTHER", "AKMOVED"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "elsewhere"))
    assert read_with(server) == "AKMOVED"


def test_rotated_file(tmp_path: Path, botocore: str) -> None:
    """What a file holds is read again when it is refused."""
    write(tmp_path, CREDENTIALS)

    def answer(asked: Asked) -> Answer:
        if signed_by(asked) == "AKDEFAULT":
            write(tmp_path, CREDENTIALS.replace("AKDEFAULT", "AKROTATED"))
            return reply(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
        return honest(DATA, asked)

    with scripted(answer) as server:
        assert read_with(server) == "AKROTATED"


def test_no_keys(server: Any, botocore: str) -> None:
    with (
        rangeio.open("s3://bucket/key", endpoint_url=server.url) as reader,
        pytest.raises(rangeio.UnauthenticatedError, match="anonymous=True"),
    ):
        reader.read_at(0, 1)
    assert not server.asked


def test_what_needs_botocore(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, CREDENTIALS, CONFIG)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with (
        rangeio.open("s3://bucket/key", endpoint_url=server.url, profile="role") as reader,
        pytest.raises(rangeio.ConfigInvalidError, match="role_arn; pip install botocore"),
    ):
        reader.read_at(0, 1)


def test_a_process_by_botocore(server: Any, tmp_path: Path) -> None:
    """botocore's chain: keys that a program prints, with an expiry, asked for again before it."""
    need_module("botocore.session")
    count = tmp_path / "count"
    script = tmp_path / "keys.py"
    script.write_text(
        "import datetime, json, sys\n"
        f"with open({str(count)!r}, 'a') as calls: calls.write('x')\n"
        "end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)\n"
        f"print(json.dumps(dict(Version=1, AccessKeyId='AKPROC', SecretAccessKey={SECRET!r},"
        f" SessionToken={TOKEN!r}, Expiration=end.isoformat())))\n"
    )
    write(tmp_path, config=f"[profile made]\ncredential_process = {sys.executable} {script}\n")
    for _ in range(2):
        assert read_with(server, profile="made") == "AKPROC"
    operator = rangeio.Operator("s3", endpoint_url=server.url, profile="made", bucket="bucket")
    for key in "abc":
        operator.open(key).read_at(0, 1)
    assert signed_by(server.asked[-1]) == "AKPROC"
    assert count.read_text() == "xxx"  # once for each service


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"access_key_id": "AKID", "secret_access_key": SECRET}, "access_key_id= and secret_access_key="),
        ({"credentials": dict}, "credentials="),
        ({"anonymous": True}, "anonymous=True"),
    ],
)
def test_diagnosis_of_options(options: Any, said: str) -> None:
    found = dict(rangeio.Operator("s3", region="eu-west-1", **options).diagnosis())
    assert found == {"endpoint": "Amazon", "region": "eu-west-1", "credentials": said}


def test_diagnosis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, botocore: str) -> None:
    """Where keys were found, in the order in which they are looked for, and nothing of them."""
    operator = rangeio.Operator("s3", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(rangeio.UnauthenticatedError, match="no AWS credentials"):
        [*operator.diagnosis()]
    write(tmp_path, f"[default]\naws_access_key_id = AKID\naws_secret_access_key = {SECRET}\n")
    chain = "botocore (shared-credentials-file)"
    files = chain if botocore == "with botocore" else "the profile 'default' in the shared files"
    assert dict(operator.diagnosis())["credentials"] == files
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = dict(operator.diagnosis())
    assert found["credentials"] == "AWS_ACCESS_KEY_ID and related variables"
    assert found["endpoint"] == "http://127.0.0.1:9"
    assert SECRET not in f"{found}"


def test_a_broken_file_is_not_quoted(tmp_path: Path) -> None:
    write(tmp_path, f"[default]\naws_secret_access_key {SECRET}\n")
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        Settings().keys_of_files()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, CREDENTIALS, CONFIG)
    plain, other, inline = Settings(), Settings("other"), Settings("inline")
    assert (plain.region(), plain.endpoint_url(), plain.addressing()) == ("eu-north-1", None, None)
    assert (other.region(), other.endpoint_url()) == ("ap-south-2", "https://other.example.org")
    assert (other.addressing(), other.dualstack()) == ("path", False)
    assert inline.endpoint_url() == "https://s3.example.org:8443"
    assert (inline.dualstack(), inline.ca_file()) == (True, "/etc/bundle.pem")
    assert other.keys_of_files() == Keys("AKOTHER", SECRET, TOKEN)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://all.example.org")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    assert (inline.endpoint_url(), plain.region()) == ("https://all.example.org", "us-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert (plain.endpoint_url(), plain.region()) == ("https://s3.example.org", "us-west-2")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert plain.endpoint_url() is None


@pytest.mark.parametrize(
    "config",
    [
        "[default]\nregion: eu-north-1\nendpoint_url: {url}\n",
        "[default]\nregion = eu-north-1\nendpoint_url = {url}\n",
        "[default]\nregion:eu-north-1\nendpoint_url={url}\ns3:\n  addressing_style = path\n",
        "[profile default]\nregion = eu-north-1 \nservices: own\n[services own]\ns3 =\n  endpoint_url = {url}\n",
    ],
)
def test_delimiters(server: Any, tmp_path: Path, config: str) -> None:
    """Either of configparser's, as botocore reads them; a URL has a colon as well."""
    write(
        tmp_path,
        f"[default]\naws_access_key_id: AKCOLON\naws_secret_access_key:{SECRET}",
        config.format(url=server.url),
    )
    with rangeio.open("s3://bucket/key") as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert signed_by(server.asked[-1]) == "AKCOLON"
    assert "/eu-north-1/s3/aws4_request" in server.asked[-1].fields["authorization"]


def test_a_broken_file_of_which_nothing_is_needed(server: Any, tmp_path: Path) -> None:
    write(tmp_path, "nonsense", "[default]\nnonsense without a delimiter\n")
    given: Any = {"endpoint_url": server.url, "addressing": "path", "region": "eu-west-1"}
    keys: Any = {"access_key_id": "AKID", "secret_access_key": SECRET}
    with rangeio.open("s3://bucket/key", **given, **keys) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    for lacking in ("region", "addressing"):
        less = {name: value for name, value in given.items() if name != lacking}
        with pytest.raises(rangeio.ConfigInvalidError, match="cannot be read"):
            rangeio.open("s3://bucket/key", **less, **keys)
    with rangeio.open("s3://bucket/key", **given) as reader, pytest.raises(rangeio.Error):
        reader.read_at(0, 1)


# --- what cannot be sent -------------------------------------------------------------------------------------

NAMES = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
GOOD = {"access_key_id": "AKID", "secret_access_key": SECRET, "session_token": TOKEN}
BROKEN = {
    "a line break at its end": "hidden\n",
    "CR LF": "hidden\r\nX-Injected: 1",
    "a line that goes on": "hidden\n  X-Injected: 1",
    "NUL": "hid\0den",
    "delete": "hid\x7fden",
    "not Latin-1": "hid\u20acden",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["options", "callable", "environment", "files"])
def test_keys_that_cannot_be_sent(
    server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    name: str,
    how: str,
    botocore: str,
) -> None:
    """Whatever their source: refused in words that do not show them, before anything is sent. White space at the ends
    of what comes from outside of the program is no part of it.
    """
    keys = {**GOOD, name: BROKEN[how]}
    options: Any = {"endpoint_url": server.url, "region": "us-east-1", "retry": 1}
    if source == "options":
        options |= keys
    elif source == "callable":
        options["credentials"] = lambda: keys
    elif source == "environment":
        if "\0" in keys[name]:
            return  # the environment cannot hold it
        for key, value in keys.items():
            monkeypatch.setenv(NAMES[key], value)
    elif how == "CR LF":
        return  # in a file it is the end of the line
    else:
        write(
            tmp_path,
            "[default]\n" + "".join(f"{NAMES[key].lower()} = {value}\n" for key, value in keys.items()),
        )

    def read() -> Any:
        with rangeio.open("s3://bucket/key", **options) as reader:
            return reader.read_at(5, 10)

    outside = source in ("environment", "files")
    if (outside and how == "a line break at its end") or (
        name == "secret_access_key" and how == "not Latin-1"
    ):
        assert read() == DATA[5:15]
        assert (signed_by(server.asked[0]) == "hidden") == (name == "access_key_id")
        return
    with pytest.raises(rangeio.ConfigInvalidError, match=name) as caught:
        read()
    assert not server.asked
    assert "hid" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE"])
def test_white_space_of_the_environment(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    write(tmp_path, CREDENTIALS, CONFIG)
    value = {"AWS_ENDPOINT_URL": server.url, "AWS_PROFILE": "other"}.get(variable, "eu-north-1")
    monkeypatch.setenv(variable, f" {value}\n")
    settings = Settings()
    assert value in (settings.region(), settings.endpoint_url(), settings.profile)


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": "us-east-1\n"},
        {"region": "us-east-1\r\nX-Injected: 1"},
        {"bucket": "bucket\n"},
        {"headers": {"x-amz-request-payer": "requester\r\nX-Injected: 1"}},
        {"endpoint_url": "http://ho\x01st"},
    ],
    ids=str,
)
def test_other_options_that_cannot_be_sent(wrong: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.Operator("s3", **{"bucket": "bucket", **GOOD, **wrong})


@pytest.mark.parametrize("options", [{"version": "1\n2"}, {"if_match": '"a"\r\nX-Injected: 1'}], ids=str)
def test_options_of_objects_that_cannot_be_sent(server: Any, options: Any) -> None:
    operator = rangeio.Operator("s3", bucket="bucket", endpoint_url=server.url, **GOOD)
    for opened in (operator.open, operator.open_async):
        with pytest.raises(rangeio.ConfigInvalidError):
            opened("key", **options)


@pytest.mark.parametrize(
    "name", ["X-Amz-Content-Sha256", "x-amz-date", "X-AMZ-SECURITY-TOKEN", "authorization", "Authorization"]
)
def test_what_a_signature_consists_of(server: Any, name: str) -> None:
    """Twice it would contradict itself; who signs nothing may say what he likes."""
    with pytest.raises(rangeio.ConfigInvalidError, match="part of the signature"):
        rangeio.open("s3://bucket/key", endpoint_url=server.url, headers={name: "value"}, **GOOD)
    with pytest.raises(rangeio.ConfigInvalidError, match="part of the signature"):
        rangeio.open("s3://bucket/key", endpoint_url=server.url, headers={name: "value"})
    with rangeio.open(
        "s3://bucket/key", endpoint_url=server.url, headers={name: "value"}, anonymous=True
    ) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert server.asked[-1].fields[name.lower()] == "value"


def test_a_name_is_signed_once(server: Any) -> None:
    headers = {"X-Amz-Request-Payer": "requester", "USER-AGENT": "me/1"}
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, headers=headers, **GOOD) as reader:
        reader.read_at(0, 1)
    names = [line.partition(":")[0].lower() for line in server.asked[-1].lines[1:]]
    assert len(names) == len(set(names))
    signed = (
        server.asked[-1].fields["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    )
    assert signed == sorted(set(signed))
    assert "x-amz-request-payer" in signed


def test_endpoint_of_the_environment(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    with rangeio.open("s3://bucket/key", anonymous=True) as reader:
        assert reader.read_at(0, 5) == DATA[:5]


# --- where buckets are ---------------------------------------------------------------------------------------

AMAZON: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "data", "eu-west-1", "https://data.s3.eu-west-1.amazonaws.com/k"),
    ({}, "data", "us-east-1", "https://data.s3.us-east-1.amazonaws.com/k"),
    ({}, "with.dots", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/with.dots/k"),
    ({}, "Old_Name", "us-east-1", "https://s3.us-east-1.amazonaws.com/Old_Name/k"),
    ({"addressing": "path"}, "data", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/data/k"),
    ({"dualstack": True}, "data", "eu-west-1", "https://data.s3.dualstack.eu-west-1.amazonaws.com/k"),
    ({}, "data", "cn-north-1", "https://data.s3.cn-north-1.amazonaws.com.cn/k"),
    ({}, "data", "eusc-de-east-1", "https://data.s3.eusc-de-east-1.amazonaws.eu/k"),
    ({}, "with.dots", "eusc-de-east-1", "https://s3.eusc-de-east-1.amazonaws.eu/with.dots/k"),
    (
        {"dualstack": True},
        "data",
        "eusc-de-east-1",
        "https://data.s3.dualstack.eusc-de-east-1.amazonaws.eu/k",
    ),
    ({}, "data", "us-gov-west-1", "https://data.s3.us-gov-west-1.amazonaws.com/k"),
    ({"url": "http://127.0.0.1:9000"}, "data", "x", "http://127.0.0.1:9000/data/k"),
    ({"url": "http://127.0.0.1:9000/s3/"}, "data", "x", "http://127.0.0.1:9000/s3/data/k"),
    (
        {"url": "https://s3.example.org", "addressing": "virtual"},
        "data",
        "x",
        "https://data.s3.example.org/k",
    ),
]


@pytest.mark.parametrize(("options", "bucket", "region", "url"), AMAZON, ids=[row[3] for row in AMAZON])
def test_addresses(options: Any, bucket: str, region: str, url: str) -> None:
    assert Endpoint(**options).address(bucket, "k", region).url == url


@pytest.mark.parametrize("addressing", ["path", "virtual"])
def test_keys_in_addresses(addressing: Any) -> None:
    endpoint = Endpoint("http://host", addressing)
    for key, path in {
        "a b+c": "a%20b%2Bc",
        "100%#?&=": "100%25%23%3F%26%3D",
        "é/ü": "%C3%A9/%C3%BC",
        "%41": "%2541",
        "a//b/": "a//b/",
        "bad\udcff": "bad%FF",
        "/a": "/a",
        "~-_.": "~-_.",
    }.items():
        assert endpoint.address("data", key, "x").url.endswith(
            f"{'data' if addressing == 'path' else 'host'}/{path}"
        )


# --- nobody sees them ----------------------------------------------------------------------------------------


def test_secrets_are_nowhere(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In no repr, pickle, plan, message and log; signatures neither."""
    caplog.set_level(logging.DEBUG)
    keys: Any = {"access_key_id": "AKIDHIDDEN", "secret_access_key": SECRET, "session_token": TOKEN}
    operator = rangeio.Operator("s3", bucket="bucket", endpoint_url=server.url, **keys)
    reader = operator.open("key")
    assert reader.read_at(5, 10) == DATA[5:15]
    assert reader.path == "s3://bucket/key"
    seen: list[Callable[[], object]] = [
        lambda: repr(operator),
        lambda: repr(reader),
        lambda: vars(operator._service)["_account"],
        lambda: operator._service._account.ring.keys,  # type: ignore[attr-defined]
        lambda: reader.plan([(0, 10)]),
        lambda: reader.stat(),
        lambda: reader.capability,
        lambda: pickle.dumps(operator),
        lambda: pickle.dumps(reader),
        lambda: pickle.dumps(operator.open_async("key")),
        lambda: caplog.text,
    ]
    signature = server.asked[0].fields["authorization"].rpartition("=")[2]
    for look in seen:
        text = str(look())
        for secret in (SECRET, TOKEN, "AKIDHIDDEN", signature):
            assert secret not in text


def test_secrets_are_in_no_error() -> None:
    """Not even when the server quotes the request back, or fails while its reply is under way."""
    keys: Any = {"access_key_id": "AKIDHIDDEN", "secret_access_key": SECRET, "session_token": TOKEN}

    def quoting(asked: Asked) -> Answer:
        text = "&#10;".join(f"{name}: {value}" for name, value in asked.fields.items())
        body = f"<Error><Code>SignatureDoesNotMatch</Code><Message>Sent: {text}</Message></Error>"
        return reply(403, body.encode())

    for script in (
        quoting,
        lambda _: Answer(b"HTTP/1.1 200 OK\r\nBroken\r\n\r\n"),
        lambda _: Answer(b"", "reset"),
    ):
        with (
            scripted(script) as server,
            rangeio.open("s3://bucket/key", endpoint_url=server.url, retry=1, **keys) as reader,
            pytest.raises(rangeio.Error) as caught,
        ):
            reader.read_at(0, 1)
        shown = [
            str(caught.value),
            repr(caught.value),
            repr(caught.value.context),
            str(pickle.dumps(caught.value)),
        ]
        for secret in (SECRET, TOKEN, "AKIDHIDDEN", "AWS4-HMAC"):
            assert not any(secret in text for text in shown)


def test_pickles_find_their_own_keys(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that were given do not travel: the other side uses what it has."""
    keys: Any = {"access_key_id": "AKHERE", "secret_access_key": SECRET}
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, **keys) as reader:
        sent = pickle.dumps(reader)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKTHERE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pickle.loads(sent) as copy:
        assert copy.read_at(0, 3) == DATA[:3]
    assert signed_by(server.asked[-1]) == "AKTHERE"


def test_customer_keys_do_not_travel(server: Any) -> None:
    headers = {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": SECRET,
        "x-amz-request-payer": "requester",
    }
    operator = rangeio.Operator("s3", bucket="b-1", endpoint_url=server.url, headers=headers, anonymous=True)
    operator.open("key").read_at(0, 1)
    assert server.asked[0].fields["x-amz-server-side-encryption-customer-key"] == SECRET
    sent = pickle.dumps(operator)
    assert SECRET.encode() not in sent
    assert b"requester" in sent


def test_extra_fields_are_signed(server: Any) -> None:
    keys: Any = {"access_key_id": "AKID", "secret_access_key": SECRET}
    headers = {"x-amz-request-payer": "requester", "X-Trace": "7"}
    with rangeio.open("s3://bucket/key", endpoint_url=server.url, headers=headers, **keys) as reader:
        reader.read_at(0, 1)
    fields = server.asked[0].fields
    assert (fields["x-amz-request-payer"], fields["x-trace"]) == ("requester", "7")
    assert (
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-request-payer," in fields["authorization"]
    )
