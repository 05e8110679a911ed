"""Amazon's own hosts, played on loopback behind a proxy: which one is asked, and who of them gets a signature."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, Everybody, Script, everybody, honest, reply

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 100
KEYS: Any = {"access_key_id": "AKID", "secret_access_key": "secret", "session_token": "token"}
HOSTS = [
    "*.s3.us-east-1.amazonaws.com",
    "*.s3.eu-west-1.amazonaws.com",
    "s3.eu-west-1.amazonaws.com",
    "*.s3.dualstack.eu-west-1.amazonaws.com",
    "data.s3-eu-west-1.amazonaws.com",
    "amazonaws.com.example.org",
]


@pytest.fixture
def amazon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function from a script to the proxy and the options of a reader."""
    for name in (
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_CONFIG_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with ExitStack() as stack:

        def start(script: Script) -> tuple[Everybody, dict[str, Any]]:
            server, options = stack.enter_context(everybody(script, HOSTS, tmp_path))
            return server, {**KEYS, **options}

        yield start


def scope(asked: Asked) -> str:
    """The region a request is signed for, empty if it is not signed."""
    value = asked.fields.get("authorization", "")
    return value.partition("Credential=")[2].split("/")[2] if value else ""


def hosts(server: Everybody) -> list[tuple[str, str]]:
    return [(asked.fields["host"], scope(asked)) for asked in server.asked]


@pytest.mark.parametrize(
    ("uri", "options", "host", "target"),
    [
        ("s3://data/a b", {"region": "eu-west-1"}, "data.s3.eu-west-1.amazonaws.com", "/a%20b"),
        ("s3://with.dots/a", {"region": "eu-west-1"}, "s3.eu-west-1.amazonaws.com", "/with.dots/a"),
        (
            "s3://data/a",
            {"region": "eu-west-1", "dualstack": True},
            "data.s3.dualstack.eu-west-1.amazonaws.com",
            "/a",
        ),
        (
            "s3://data/a",
            {"region": "eu-west-1", "addressing": "path"},
            "s3.eu-west-1.amazonaws.com",
            "/data/a",
        ),
        ("s3://data/a", {}, "data.s3.us-east-1.amazonaws.com", "/a"),
    ],
)
def test_hosts(amazon: Any, uri: str, options: Any, host: str, target: str) -> None:
    server, given = amazon(lambda asked: honest(DATA, asked))
    with rangeio.open(uri, **given, **options) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert hosts(server) == [(host, options.get("region", "us-east-1"))]
    assert server.asked[0].target == target


@pytest.mark.parametrize("way", ["sync", *LOOPS])
def test_the_host_of_another_region(amazon: Any, way: str) -> None:
    """Asked for where it says, signed for there, and remembered."""

    def script(asked: Asked) -> Answer:
        if "us-east-1" in asked.fields["host"]:
            return reply(301, x_amz_bucket_region="eu-west-1")
        return honest(DATA, asked)

    server, given = amazon(script)
    if way == "sync":
        with rangeio.open("s3://data/key", **given) as reader:
            assert reader.stat().size == len(DATA)
            assert reader.read_range() == DATA
    else:
        need_module(way)

        async def main() -> None:
            async with rangeio.open_async("s3://data/key", **given) as reader:
                assert (await reader.stat()).size == len(DATA)
                assert await reader.read_range() == DATA

        run_on(way, main)
    first, *others = hosts(server)
    assert first == ("data.s3.us-east-1.amazonaws.com", "us-east-1")
    assert set(others) == {("data.s3.eu-west-1.amazonaws.com", "eu-west-1")}


REDIRECTS = [
    ("https://data.s3-eu-west-1.amazonaws.com/key", True),
    ("https://data.s3.dualstack.eu-west-1.amazonaws.com/key", True),
    ("https://s3.amazonaws.com/data/key", True),
    ("https://data-s3.eu-west-1.elb.amazonaws.com/key", False),
    ("https://s3-1.eu-west-1.elb.amazonaws.com/key", False),
    ("https://abc.execute-api.eu-west-1.amazonaws.com/key", False),
    ("https://data.s3-eu-west-1.amazonaws.com.example.org/key", False),
    ("https://amazonaws.com.example.org/key", False),
]


@pytest.mark.parametrize(("location", "signed"), REDIRECTS)
def test_who_gets_a_signature(amazon: Any, location: str, signed: bool) -> None:
    """A young bucket is redirected to another host of Amazon's; nobody else learns who asks, nor does the open wire."""

    def script(asked: Asked) -> Answer:
        first = asked.fields["host"] == "data.s3.us-east-1.amazonaws.com"
        return reply(307, Location=location) if first else honest(DATA, asked)

    server, given = amazon(script)
    with rangeio.open("s3://data/key", **given, verify=False) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    told = server.asked[1]
    assert told.fields["host"] == location.split("/")[2]
    assert ("authorization" in told.fields) == ("x-amz-security-token" in told.fields) == signed


def test_a_redirect_to_plain_http(amazon: Any) -> None:
    """It is not followed, so that nobody reads along: neither who asks nor the bytes."""
    location = "http://data.s3-eu-west-1.amazonaws.com/key"
    server, given = amazon(lambda _: reply(307, Location=location))
    with (
        rangeio.open("s3://data/key", **given, verify=False) as reader,
        pytest.raises(rangeio.UnsupportedError, match="from https to http"),
    ):
        reader.read_at(5, 10)
    assert len(server.asked) == 1


def test_a_host_without_its_certificate(amazon: Any) -> None:
    """A region that a server makes up leads to a host that cannot prove itself."""
    server, given = amazon(lambda asked: reply(301, x_amz_bucket_region="us-nowhere-7"))
    with (
        rangeio.open("s3://data/key", **given) as reader,
        pytest.raises(rangeio.ConnectionFailedError) as caught,
    ):
        reader.read_at(0, 1)
    assert caught.value.status == "permanent"
    assert len(server.asked) == 1
