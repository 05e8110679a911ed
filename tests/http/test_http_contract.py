"""The contract of every Reader, over HTTP: each real server, plain and TLS, sync and async."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import DATA, Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.fixtures import SITES, Sites
from servers.program import LONG_AGO, program

import _uring
import rangeio

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")


Keep = Callable[[Any], Any]


class TestHttp(HttpContract):
    @pytest.fixture(params=SITES)
    def make(self, request: pytest.FixtureRequest, reactor: _uring.Reactor, sites: Sites, keep: Keep) -> Make:
        site = sites(request.param)

        def make(data: bytes) -> rangeio.Reader:
            url = site.put(f"object{len(data)}", data)
            reader: rangeio.Reader = keep(rangeio.open(url, reactor=reactor, **site.options))
            return reader

        return make


# Each server under one loop, and one server under each loop.
AWAITED = [(site, "asyncio") for site in SITES]
AWAITED += [(f"nginx-{scheme}", loop) for scheme in ("http", "https") for loop in LOOPS if loop != "asyncio"]


class TestHttpAsync(HttpContract):
    @pytest.fixture(params=AWAITED, ids="-".join)
    def make(
        self, request: pytest.FixtureRequest, reactor: _uring.Reactor, sites: Sites, keep: Keep
    ) -> Iterator[Make]:
        need_module(request.param[1])
        site, loop = sites(request.param[0]), Loop(request.param[1])

        def make(data: bytes) -> Any:
            url = site.put(f"object{len(data)}", data)
            return Asking(keep(rangeio.open_async(url, reactor=reactor, **site.options)), loop)

        yield make
        loop.close()


def test_untrusted_certificate(sites: Sites) -> None:
    url = sites("nginx-https").put("data", DATA)
    with rangeio.open(url) as reader, pytest.raises(rangeio.ConnectionFailedError) as caught:
        reader.read_at(0, 10)
    assert (caught.value.status, caught.value.attempts) == ("permanent", 1)
    with rangeio.open(url, verify=False) as reader:
        assert reader.read_at(0, 10) == DATA[:10]


@pytest.mark.parametrize(
    "place", ["nginx-http/untagged", "nginx-http/moved", "apache-http/moved", "caddy-http/moved"]
)
def test_variants(sites: Sites, place: str) -> None:
    name, _, folder = place.partition("/")
    site = sites(name)
    site.put("data", DATA)
    with rangeio.open(f"{site.url}/{folder}/data") as reader:
        assert reader.read_ranges([(0, 10), (100_000, 100_010)], gap=None) == [
            DATA[:10],
            DATA[100_000:100_010],
        ]


def test_nginx_without_ranges(sites: Sites) -> None:
    site = sites("nginx-http")
    site.put("data", DATA)
    with rangeio.open(f"{site.url}/plain/data") as reader:
        assert reader.read_range() == DATA
        with pytest.raises(rangeio.RangeNotSupportedError):
            reader.read_at(5, 10)
    with (
        rangeio.open(f"{site.url}/silent/", retry=1) as reader,
        pytest.raises(rangeio.ConnectionFailedError),
    ):
        reader.read_at(0, 1)


@pytest.mark.parametrize("site", SITES)
def test_a_changed_object_is_refused(sites: Sites, site: str) -> None:
    """Each server's own idea of a version is enough to tell: never the bytes of two."""
    place = sites(site)
    with rangeio.open(place.put("changing", DATA), **place.options) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        place.put("changing", DATA[::-1], LONG_AGO + 5)
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_at(10, 10)


def test_apache_is_not_sure_of_what_is_fresh(sites: Sites) -> None:
    """The ETag of a file changed within this second is weak, so Last-Modified and size are the pin."""
    site = sites("apache-http")
    url = site.put("fresh", DATA, int(time.time()) + 3600)
    with rangeio.open(url, chunk=50_000) as reader:
        assert reader.read_range() == DATA
        assert "last-modified" in reader.capability.pin


@pytest.mark.parametrize("place", ["nginx-http/gzipped", "apache-http/deflated", "caddy-http/encoded"])
def test_servers_that_could_encode_are_asked_not_to(sites: Sites, place: str) -> None:
    name, _, folder = place.partition("/")
    site = sites(name)
    site.put("zeros", bytes(100_000))
    with rangeio.open(f"{site.url}/{folder}/zeros") as reader:
        assert reader.read_range() == bytes(100_000)


@pytest.mark.parametrize("site", SITES)
def test_an_object_of_many_gigabytes(sites: Sites, site: str) -> None:
    """Offsets that no 32 bits hold, with a sign or without; the file is a hole but for these bytes."""
    place = sites(site)
    url, size = place.put("huge", b""), (9 << 30) + 5
    known = [2**31, 2**32, 2**33, size]
    path = place.www / "huge"
    with path.open("r+b") as file:
        for at in known:
            file.seek(at - 5)
            file.write(b"%010d" % at if at < size else b"%05d" % 7)
    with rangeio.open(url, chunk=4, **place.options) as reader:
        assert reader.stat().size == size
        assert reader.read_ranges([(at - 5, at + 5) for at in known], gap=None) == [
            b"%010d" % at if at < size else b"%05d" % 7 for at in known
        ]
        assert reader.read_at(2**32 - 5, 10) == b"%010d" % (1 << 32)
    path.unlink()


@pytest.mark.parametrize("site", SITES)
def test_keys_of_every_kind(sites: Sites, site: str) -> None:
    place = sites(site)
    operator = rangeio.Operator(place.url.partition(":")[0], root=place.url, **place.options)
    for name in ("a b", "a+b", "a%20b", "a#b", "a?b=c", "ü&=;@!$'(),~"):
        place.put(name, name.encode())
        with operator.open(name) as reader:
            assert reader.read_range() == name.encode()
    with operator.open("absent") as reader, pytest.raises(rangeio.NotFoundError):
        reader.read_at(0, 1)


def test_a_server_that_a_wheel_brings_must_be_there_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANGEIO_CI", raising=False)
    for wheel in ("", "some-wheel"):
        with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
            program("no-such-server", wheel=wheel)
    monkeypatch.setenv("RANGEIO_CI", "1")
    with pytest.raises(pytest.skip.Exception):
        program("no-such-server")
    with pytest.raises(pytest.fail.Exception, match="pip install some-wheel"):
        program("no-such-server", wheel="some-wheel")
