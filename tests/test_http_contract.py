"""The contract of every Reader, over HTTP: nginx, plain and TLS, sync and async."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import _uring
import rangeio
from awaited import LOOPS, Awaited, Loop
from contract import DATA, RANGES, RESULTS, Make, ReaderContract
from servers.nginx import Nginx, nginx

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture
def keep() -> Iterator[Callable[[Any], Any]]:
    """Takes a reader, hands it back, and closes it after the test."""
    readers: list[Any] = []

    def keep(reader: Any) -> Any:
        readers.append(reader)
        return reader

    yield keep
    for reader in readers:
        reader.close()


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
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, plain: Nginx, keep: Keep) -> Make:
        return lambda data: keep(rangeio.open(plain.put(f"object{len(data)}", data), reactor=reactor))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, str]]:
    """nginx over TLS, and the file of the authority that vouches for it."""
    trustme = pytest.importorskip("trustme", reason="trustme is not installed (pip install trustme)")
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "cert.pem"))
    with nginx(folder / "nginx", folder / "cert.pem") as server:
        yield server, str(folder / "ca.pem")


class TestHttps(HttpContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, secure: tuple[Nginx, str], keep: Keep) -> Make:
        server, authority = secure
        return lambda data: keep(
            rangeio.open(server.put(f"object{len(data)}", data), reactor=reactor, ca_file=authority)
        )


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    pytest.importorskip(request.param)
    made = Loop(request.param)
    yield made
    made.close()


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


class TestHttpAsync(HttpContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, plain: Nginx, keep: Keep, loop: Loop) -> Make:
        def make(data: bytes) -> Any:
            url = plain.put(f"object{len(data)}", data)
            return Asking(keep(rangeio.open_async(url, reactor=reactor)), loop)

        return make


class TestHttpsAsync(HttpContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, secure: tuple[Nginx, str], keep: Keep, loop: Loop) -> Make:
        server, authority = secure

        def make(data: bytes) -> Any:
            url = server.put(f"object{len(data)}", data)
            return Asking(keep(rangeio.open_async(url, reactor=reactor, ca_file=authority)), loop)

        return make


def test_untrusted_certificate(secure: tuple[Nginx, str]) -> None:
    url = secure[0].put("data", DATA)
    with rangeio.open(url) as reader, pytest.raises(rangeio.ConnectionFailedError) as caught:
        reader.read_at(0, 10)
    assert (caught.value.status, caught.value.attempts) == ("permanent", 1)
    with rangeio.open(url, verify=False) as reader:
        assert reader.read_at(0, 10) == DATA[:10]


@pytest.mark.parametrize("folder", ["untagged", "moved"])
def test_nginx_variants(plain: Nginx, folder: str) -> None:
    plain.put("data", DATA)
    with rangeio.open(f"{plain.url}/{folder}/data") as reader:
        assert reader.read_ranges([(0, 10), (100_000, 100_010)], gap=None) == [
            DATA[:10],
            DATA[100_000:100_010],
        ]


def test_nginx_without_ranges(plain: Nginx) -> None:
    plain.put("data", DATA)
    with rangeio.open(f"{plain.url}/plain/data") as reader:
        assert reader.read_range() == DATA
        with pytest.raises(rangeio.RangeNotSupportedError):
            reader.read_at(5, 10)
    with (
        rangeio.open(f"{plain.url}/silent/", retry=1) as reader,
        pytest.raises(rangeio.ConnectionFailedError),
    ):
        reader.read_at(0, 1)
