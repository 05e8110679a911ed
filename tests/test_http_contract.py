"""The contract of every Reader, over HTTP: each real server, plain and TLS, sync and async."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import _uring
import rangeio
from awaited import LOOPS, Awaited, Loop
from contract import DATA, RANGES, RESULTS, Make, ReaderContract
from faults.machine import need_module
from servers.fixtures import SITES, Sites
from servers.program import LONG_AGO, program

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")


Keep = Callable[[Any], Any]


class HttpContract(ReaderContract):
    """What is asked of a server is not known before: the size, above all."""

    @pytest.fixture(params=["pool"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        """The memory is the same whatever reads files; one is enough."""
        name: str = request.param
        return name

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"gap": None},
            {"gap": 50},
            {"gap": "auto"},
            {"gap": 2**40, "max_merged": None},
            {"max_merged": 1},
            {"chunk": 10_000},
            {"chunk": 70_000, "concurrent": 2},
            {"concurrent": 1},
            {"gap": None, "chunk": 100_000, "concurrent": 64},
        ],
        ids=str,
    )
    def test_read_ranges(self, reader: rangeio.Reader, options: Any) -> None:
        assert reader.read_ranges(RANGES, **options) == RESULTS
        assert reader.read_ranges(RANGES, on_error="return", **options) == RESULTS
        found = dict(reader.iter_ranges(iter(RANGES), **options))
        assert [found[index] for index in range(len(RANGES))] == RESULTS

    def test_plan(self, reader: rangeio.Reader) -> None:
        assert reader.stat().size == len(DATA)
        super().test_plan(reader)

    def test_size_and_stat(self, reader: rangeio.Reader) -> None:
        assert reader.stat().size == len(DATA)
        super().test_size_and_stat(reader)

    def test_empty_object(self, make: Make) -> None:
        assert make(b"").stat().size == 0
        super().test_empty_object(lambda data: asked(make(data)))


def asked(reader: rangeio.Reader) -> rangeio.Reader:
    """The reader, with its size known."""
    reader.stat()
    return reader


class TestHttp(HttpContract):
    @pytest.fixture(params=SITES)
    def make(self, request: pytest.FixtureRequest, reactor: _uring.Reactor, sites: Sites, keep: Keep) -> Make:
        site = sites(request.param)

        def make(data: bytes) -> rangeio.Reader:
            url = site.put(f"object{len(data)}", data)
            reader: rangeio.Reader = keep(rangeio.open(url, reactor=reactor, **site.options))
            return reader

        return make


class Asking(Awaited):
    """As Awaited; its size is asked for where an AsyncReader says that it does not know it yet."""

    @property
    def size(self) -> int | None:
        known = self.reader.size
        asked_for: int | None = self._run("stat").size if known is None else known
        return asked_for

    def slice(self, *args: Any) -> "Asking":
        return Asking(self.reader.slice(*args), self.loop)

    def __reduce__(self) -> tuple[Any, ...]:
        return Asking, (self.reader, self.loop)


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
