"""What of the credentials another process has: callables, profiles and files travel, given keys do not."""

import asyncio
import multiprocessing
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from awaited import run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 16
SECRET = "S3cret/of+the+tests"
KEYS: dict[str, Any] = {"access_key_id": "AKGIVEN", "secret_access_key": SECRET}


def proof(asked: Asked) -> str:
    """All of a request that may say who asks."""
    return f"{asked.fields.get('authorization', '')} {asked.target}"


def answer(asked: Asked) -> Answer:
    """Bytes for whoever knows a secret, or signs."""
    known = any(name in proof(asked) for name in ("T0ken", "Credential=AK", "sig=", "T3JpZ2lu"))
    return honest(DATA, asked) if known else reply(403)


@pytest.fixture
def server() -> Iterator[Any]:
    with scripted(answer) as running:
        yield running


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine the tests run on."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "HF_", "HADOOP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def keys() -> Mapping[str, str]:
    return KEYS


async def keys_later() -> Mapping[str, str]:
    await asyncio.sleep(0)
    return KEYS


def token() -> Mapping[str, str]:
    return {"bearer_token": "T0ken"}


async def token_later() -> Mapping[str, str]:
    await asyncio.sleep(0)
    return token()


async def fields_later() -> Mapping[str, str]:
    await asyncio.sleep(0)
    return {"Authorization": "Bearer T0ken"}


def of(scheme: str, url: str, **options: Any) -> rangeio.Operator:
    """An Operator of this service at the scripted server."""
    where: dict[str, Any] = {
        "s3": {"bucket": "bucket", "endpoint_url": url},
        "gs": {"bucket": "bucket", "endpoint_url": url},
        "az": {"container": "container", "endpoint_url": f"{url}/account"},
        "hf": {"repo": "owner/name", "endpoint_url": url},
        "http": {"root": url},
        "webhdfs": {"cluster": url.removeprefix("http://")},
    }[scheme]
    return rangeio.Operator(scheme, **where, retry=1, **options)


GIVEN: list[tuple[str, dict[str, Any], str]] = [
    ("s3", KEYS, "access_key_id=, secret_access_key= stayed .* profile= and credentials_file="),
    ("gs", KEYS, "access_key_id=, secret_access_key= stayed .* service_account="),
    ("gs", {"bearer_token": "T0ken"}, "bearer_token= stayed"),
    ("az", {"account_key": "T3JpZ2luYWw="}, "account_key= stayed"),
    ("az", {"sas_token": "sv=1&sig=T0ken"}, "sas_token= stayed"),
    ("hf", {"bearer_token": "T0ken"}, "bearer_token= stayed .* HF_TOKEN"),
    ("http", {"bearer_token": "T0ken"}, "bearer_token= stayed"),
    ("http", {"auth": ("user", "T0ken")}, "auth= stayed"),
    ("http", {"headers": {"X-Key": "T0ken"}}, "headers= stayed"),
    ("webhdfs", {"delegation_token": "T0ken"}, "delegation_token= stayed .* kerberos=True"),
]


@pytest.mark.parametrize(
    ("scheme", "given", "said"), GIVEN, ids=[f"{row[0]}-{next(iter(row[1]))}" for row in GIVEN]
)
def test_given_keys_do_not_travel(
    scheme: str, given: dict[str, Any], said: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the other process names what it lacks, and what to do; also after one more journey, and awaited."""
    monkeypatch.setitem(__import__("sys").modules, "azure.identity", None)
    here = of(scheme, server.url, **given)
    sent = pickle.dumps(here)
    for secret in (SECRET, "T0ken", "T3JpZ2luYWw"):
        assert secret.encode() not in sent
    there = pickle.loads(pickle.dumps(pickle.loads(sent)))
    told = "keys given by argument do not travel: " + said
    with pytest.raises((rangeio.PermissionDeniedError, rangeio.UnauthenticatedError), match=told) as caught:
        there.open("file").read_at(0, 1)
    assert not any(secret in str(caught.value) for secret in (SECRET, "T0ken", "T3JpZ2luYWw"))

    async def awaited() -> None:
        await pickle.loads(pickle.dumps(here.open_async("file"))).read_at(0, 1)

    with pytest.raises((rangeio.PermissionDeniedError, rangeio.UnauthenticatedError), match=told):
        asyncio.run(awaited())


def test_errors_here_say_nothing_of_it() -> None:
    with (
        scripted(lambda _: reply(403)) as server,
        pytest.raises(rangeio.PermissionDeniedError) as caught,
    ):
        of("s3", server.url, **KEYS).open("key").read_at(0, 1)
    assert "travel" not in str(caught.value)


def test_presigning_says_it_too(server: Any) -> None:
    there = pickle.loads(pickle.dumps(of("s3", server.url, **KEYS)))
    with pytest.raises(rangeio.UnauthenticatedError, match="do not travel"):
        there.presign("key")


CALLABLES = [
    ("s3", keys),
    ("s3", keys_later),
    ("gs", token),
    ("gs", token_later),
    ("az", token),
    ("az", token_later),
    ("http", fields_later),
]


@pytest.mark.parametrize(("scheme", "given"), CALLABLES, ids=lambda value: getattr(value, "__name__", value))
def test_callables_travel(scheme: str, given: Any, server: Any) -> None:
    """By their names; those that are awaited, too, from reads of both kinds."""
    here = of(scheme, server.url, credentials=given)
    there = pickle.loads(pickle.dumps(here))
    assert bytes(there.open("file").read_at(1, 3)) == DATA[1:4]

    async def awaited() -> bytes:
        async with pickle.loads(pickle.dumps(here)).open_async("file") as reader:
            pickle.loads(pickle.dumps(here)).open("file").read_at(
                0, 1
            )  # blocks this loop: not that of the callable
            return bytes(await reader.read_at(1, 3))

    assert asyncio.run(awaited()) == DATA[1:4]
    need_module("trio")
    assert run_on("trio", awaited) == DATA[1:4]


def _first(reader: rangeio.Reader) -> tuple[bytes, str]:
    try:
        return bytes(reader.read_at(0, 4)), ""
    except rangeio.Error as error:
        return b"", str(error)


def test_spawned_processes(server: Any, tmp_path: Path) -> None:
    """What the rules of pickles are for: processes that start anew."""
    file = tmp_path / "keys"
    file.write_text(f"[mine]\naws_access_key_id = AKFILE\naws_secret_access_key = {SECRET}\n")
    ways: list[dict[str, Any]] = [{"credentials": keys}, {"credentials_file": file, "profile": "mine"}, KEYS]
    readers = [of("s3", server.url, **way).open("key") for way in ways]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (first, _), (second, _), (third, said) = pool.map(_first, readers)
    assert (first, second, third) == (DATA[:4], DATA[:4], b"")
    assert "keys given by argument do not travel" in said


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "hf", "http"])
def test_functions_without_a_name(scheme: str, server: Any) -> None:
    operator = of(scheme, server.url, credentials=lambda: keys())
    with pytest.raises(pickle.PicklingError, match=r"credentials= is .*<lambda>.* top of a module"):
        pickle.dumps(operator)
    cloudpickle = need_module("cloudpickle")
    assert cloudpickle.loads(cloudpickle.dumps(operator)).scheme == scheme


def test_objects_of_botocore(server: Any) -> None:
    """They get their keys themselves, and hold secrets."""
    module = need_module("botocore.credentials")
    here = of("s3", server.url, credentials=module.Credentials("AKBOTO", SECRET, "the-token"))
    assert bytes(here.open("key").read_at(0, 2)) == DATA[:2]
    assert server.asked[-1].fields["x-amz-security-token"] == "the-token"
    sent = pickle.dumps(here)
    assert SECRET.encode() not in sent
    with pytest.raises(rangeio.UnauthenticatedError, match="credentials= stayed"):
        pickle.loads(sent).open("key").read_at(0, 1)

    class Awaited:
        """As those of aiobotocore."""

        async def get_frozen_credentials(self) -> Any:
            return SimpleNamespace(access_key="AKAIO", secret_key=SECRET, token=None)

    assert bytes(of("s3", server.url, credentials=Awaited()).open("key").read_at(0, 2)) == DATA[:2]
    assert "AKAIO" in server.asked[-1].fields["authorization"]


def test_a_file_of_keys(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the only place that is looked at, and read again when its keys are refused."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    file = tmp_path / "keys"
    with pytest.raises(rangeio.UnauthenticatedError, match="has no keys for the profile 'default'"):
        of("s3", server.url, credentials_file=file).open("key").read_at(0, 1)
    file.write_text(f"[default]\naws_access_key_id = AKFILE\naws_secret_access_key = {SECRET}\n")
    of("s3", server.url, credentials_file=file).open("key").read_at(0, 1)
    assert "Credential=AKFILE" in server.asked[-1].fields["authorization"]
    with pytest.raises(rangeio.ConfigInvalidError, match="set only one of"):
        of("s3", server.url, credentials_file=file, **KEYS)


def test_failing_coroutines(server: Any) -> None:
    async def fail() -> Mapping[str, str]:
        raise RuntimeError("secretly")

    with pytest.raises(rangeio.UnauthenticatedError, match="RuntimeError") as caught:
        of("s3", server.url, credentials=fail).open("key").read_at(0, 1)
    assert "secretly" not in str(caught.value)
