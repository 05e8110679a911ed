"""URIs, options, roots, and one call over many objects."""

import doctest
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.child import Lab
from faults.data import pattern, write_pattern
from faults.machine import need_module

import _uring
import rangeio
from rangeio import Operator, Suffix
from rangeio.cli import main
from rangeio.services.registry import located

OBJECTS = {"a": b"0123456789", "b/c": b"abcdef", "b/d": b"", "e": bytes(100_000)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The objects as files."""
    root = tmp_path / "root"
    for name, data in OBJECTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(params=["fs", "memory"])
def operator(request: pytest.FixtureRequest, reactor: _uring.Reactor, root: Path) -> Operator:
    """The same objects in each service."""
    own: dict[str, Any] = {"root": root} if request.param == "fs" else {"objects": OBJECTS}
    return Operator(request.param, reactor=reactor, **own)


# --- URIs ----------------------------------------------------------------------------------------------------

URIS = [
    ("data/model.bin", ("fs", "data/model.bin")),
    ("/tmp/x", ("fs", "/tmp/x")),
    ("./a b%20c", ("fs", "./a b%20c")),
    ("", ("fs", "")),
    (Path("/tmp/x"), ("fs", "/tmp/x")),
    (b"/tmp/\xff", ("fs", os.fsdecode(b"/tmp/\xff"))),
    ("file:///tmp/x", ("fs", "/tmp/x")),
    ("FILE:///tmp/x", ("fs", "/tmp/x")),
    ("file://localhost/tmp/x", ("fs", "/tmp/x")),
    ("file:///tmp/a%20b%3F%23%25", ("fs", "/tmp/a b?#%")),
    ("file:///tmp/%ff", ("fs", os.fsdecode(b"/tmp/\xff"))),
    ("C:\\data\\x", ("fs", "C:\\data\\x")),
    ("C:/data/x", ("fs", "C:/data/x")),
    ("C://data/x", ("fs", "C://data/x")),
    ("a:b", ("fs", "a:b")),
    ("memory://key", ("memory", "key")),
    ("memory://b/c%20d", ("memory", "b/c d")),
]


@pytest.mark.parametrize(("uri", "meaning"), URIS, ids=[str(uri) for uri, _ in URIS])
def test_uris(uri: Any, meaning: tuple[str, str]) -> None:
    scheme, options, path = located(uri)
    assert (scheme, path) == meaning
    assert not options


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gopher://x/y", "unknown scheme 'gopher'.* entry point group 'rangeio.services'"),
        ("file://server/share", "not of 'server'"),
        ("file:///a?b", "%3F"),
        ("file:///a#b", "%23"),
    ],
)
def test_wrong_uris(uri: str, said: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=said):
        rangeio.open(uri)


def test_no_password_in_messages() -> None:
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.open("ftp://user:secret@host/x?signature=secret")
    assert "secret" not in str(caught.value)
    assert "file, memory" in str(caught.value)


def test_examples() -> None:
    assert doctest.testmod(rangeio.operator).failed == 0


def test_open_by_uri(reactor: _uring.Reactor, root: Path) -> None:
    assert rangeio.open((root / "b" / "c").as_uri(), reactor=reactor).read_to_end() == b"abcdef"
    assert rangeio.open("memory://b/c", objects=OBJECTS, reactor=reactor).read_to_end() == b"abcdef"
    assert rangeio.open(os.fspath(root / "a"), root=None, reactor=reactor).read_at(2, 3) == b"234"


def test_from_uri(reactor: _uring.Reactor, root: Path) -> None:
    for uri in (root.as_uri(), os.fspath(root), root):
        assert Operator.from_uri(uri, reactor=reactor).open("b/c").read_at(0, 3) == b"abc"
    assert Operator.from_uri("memory://", objects=OBJECTS, reactor=reactor).open("a").size == 10
    with pytest.raises(rangeio.ConfigInvalidError, match="no path"):
        Operator.from_uri("memory://a")


def test_files_import_nothing_of_networks(auto_lab: Lab, root: Path) -> None:
    """`import rangeio` would cost nearly twice the time."""
    program = """
import sys, rangeio
assert rangeio.open(sys.argv[1]).read_at(0, 3) == b"012"
networks = ("rangeio.http", "rangeio.s3", "rangeio.services.http", "urllib3", "xml.etree", "botocore")
say(found=[name for name in sys.modules if name.startswith(networks)])
"""
    assert auto_lab.run(program, root / "a").facts() == {"found": []}


# --- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Operator("fss"), "unknown service 'fss'; did you mean 'fs'"),
        (lambda: Operator("nowhere"), "known: .*fs, .*http, https, .*memory, .*s3"),
        (lambda: Operator("nowhere"), "entry point group 'rangeio.services'"),
        (lambda: Operator("fs", rot="/tmp"), "did you mean 'root'"),
        (lambda: Operator("memory", root="/tmp"), "unknown option of 'memory' 'root'"),
        (lambda: Operator("fs", chunk=0), "chunk must be at least 1"),
        (lambda: Operator("fs", concurrent="4"), "concurrent must be a whole number"),
        (lambda: Operator("memory", objects={"a": b""}).open("a", gaps=1), "did you mean 'gap'"),
        (lambda: rangeio.open("x", pinned=True), "did you mean 'pin'"),
        (lambda: rangeio.from_bytes(b"", chunks=1), "did you mean 'chunk'"),
        (lambda: rangeio.from_fd(0, direct="maybe"), "direct must be"),
    ],
)
def test_wrong_options(make: Any, said: str) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=said) as caught:
        make()
    assert isinstance(caught.value, ValueError)


MISSPELT = [
    ("s3://bucket/key", "endpoint", "endpoint_url"),
    ("s3://bucket/key", "regoin", "region"),
    ("s3://bucket/key", "access_key", "access_key_id"),
    ("s3://bucket/key", "concurent", "concurrent"),
    ("http://127.0.0.1:1/x", "header", "headers"),
    ("https://127.0.0.1:1/x", "bearer", "bearer_token"),
    ("https://127.0.0.1:1/x", "retries", "retry"),
    ("memory://key", "object", "objects"),
    ("some/path", "roots", "root"),
    ("some/path", "chunks", "chunk"),
]


@pytest.mark.parametrize(("uri", "wrong", "near"), MISSPELT)
def test_misspelt_options(
    uri: str, wrong: str, near: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every way in knows the service's own options and the general ones, given or not."""
    scheme = located(uri).scheme
    calls: list[Any] = [
        lambda: rangeio.open(uri, **{wrong: "x"}),
        lambda: rangeio.open_async(uri, **{wrong: "x"}),
        lambda: Operator(scheme, **{wrong: "x"}),
    ]
    said = f"unknown option of {scheme!r} {wrong!r}; did you mean {near!r}?"
    for call in calls:
        with pytest.raises(rangeio.ConfigInvalidError, match=re.escape(said)):
            call()
    copying = ["cp", uri, str(tmp_path / "copy"), "-o", f"{wrong}=x"]
    for arguments in (["cat", uri, "-o", f"{wrong}=x"], ["stat", uri, "-o", f"{wrong}=x"], copying):
        assert main(arguments) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


def test_options_that_are_not_the_objects() -> None:
    """What the URI of an object names is no option beside it; what is the Operator's is not given to one object."""
    with pytest.raises(rangeio.ConfigInvalidError, match="contains the bucket and the whole path"):
        rangeio.open("s3://bucket/key", bucket="x")
    with pytest.raises(rangeio.ConfigInvalidError, match=r"known: .*\bregion\b") as caught:
        rangeio.open("s3://bucket/key", buckets="x")
    assert "bucket" not in str(caught.value).partition("known: ")[2].split(", ")
    operator = Operator("memory", objects=OBJECTS)
    for call in (operator.open, operator.open_async, operator.stat):
        with pytest.raises(rangeio.ConfigInvalidError, match="'objects' is an option of the whole Operator"):
            call("a", objects={})


def test_options_are_inherited(operator: Operator) -> None:
    """From the service's defaults, by the Operator's, the object's, to the call's."""
    ranges = [(0, 2), (4, 6)]
    assert len(operator.open("a").plan(ranges).requests) == 2
    assert len(operator.open("a", gap=2).plan(ranges).requests) == 1
    assert len(operator.open("a", gap=2).plan(ranges, gap=1).requests) == 2
    assert len(operator.open("a").plan(ranges, gap=2, chunk=1).requests) == 6
    wide = Operator("memory", objects=OBJECTS, gap=2)
    assert len(wide.open("a").plan(ranges).requests) == 1
    assert len(wide.open("a", gap=None).plan(ranges).requests) == 2


def test_gap_auto_of_what_is_near(operator: Operator, root: Path) -> None:
    """No request is saved by reading what nobody wants."""
    for reader in (operator.open("a", gap="auto"), rangeio.open(root / "a", gap="auto")):
        plan = reader.plan([(0, 2), (2, 4), (5, 6)])
        assert plan.gap == 0
        assert [request[1:] for request in plan.requests] == [(0, 4), (5, 1)]


# --- roots ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../outside", "b/../../outside", "b/..", "..", "/etc/passwd", "a/../a"])
def test_no_way_out(root: Path, reactor: _uring.Reactor, path: str) -> None:
    (root.parent / "outside").write_bytes(b"secret")
    operator = Operator("fs", root=root, reactor=reactor)
    calls: list[Any] = [
        lambda: operator.open(path),
        lambda: operator.stat(path),
        lambda: list(operator.list(path + "/")),
        lambda: operator.read_ranges([("a", (0, 1)), (path, (0, 1))]),
    ]
    for call in calls:
        with pytest.raises(rangeio.PermissionDeniedError, match="root"):
            call()


def test_names_with_dots_are_fine(root: Path, reactor: _uring.Reactor) -> None:
    (root / "..hidden").write_bytes(b"1")
    (root / "x...y").write_bytes(b"2")
    operator = Operator("fs", root=root, reactor=reactor)
    assert operator.open("..hidden").read_to_end() == b"1"
    assert operator.open("./x...y").read_to_end() == b"2"


def test_a_relative_root_stays_where_it_was(
    root: Path, reactor: _uring.Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    operator = Operator("fs", root="b", reactor=reactor)
    monkeypatch.chdir("/")
    assert operator.open("c").read_to_end() == b"abcdef"


# --- one object, and all of them -----------------------------------------------------------------------------


def test_open_and_stat(operator: Operator) -> None:
    for name, data in OBJECTS.items():
        assert operator.open(name).read_to_end() == data
        assert (operator.stat(name).path, operator.stat(name).size) == (name, len(data))
    for call in (operator.open, operator.stat):
        with pytest.raises(rangeio.NotFoundError):
            call("nothing")


def test_exists(operator: Operator) -> None:
    """Directories are no objects, nor is what would be below a file."""
    expected = {"a": True, "b/c": True, "b/d": True, "b": False, "a/x": False, "nothing": False}

    async def main() -> dict[str, bool]:
        return {path: await operator.exists_async(path) for path in expected}

    assert {path: operator.exists(path) for path in expected} == expected
    for loop in LOOPS:
        need_module(loop)
        assert run_on(loop, main) == expected
    for call in (operator.exists, operator.exists_async):
        with pytest.raises(rangeio.ConfigInvalidError, match="nonsense"):
            call("a", nonsense=1)
    assert [*operator.diagnosis()] == []


def test_exists_tells_other_errors(root: Path, reactor: _uring.Reactor) -> None:
    with pytest.raises(rangeio.PermissionDeniedError):
        Operator("fs", root=root, reactor=reactor).exists("../outside")


@pytest.mark.parametrize("prefix", ["", "b", "b/", "b/c", "a", "x", "b/x", "e"])
def test_list(operator: Operator, prefix: str) -> None:
    found = list(operator.list(prefix))
    assert [(stat.path, stat.size) for stat in found] == [
        (name, len(data)) for name, data in sorted(OBJECTS.items()) if name.startswith(prefix)
    ]


@pytest.mark.parametrize(
    ("prefix", "delimiter", "paths"),
    [
        ("", "/", ["a", "b/", "e"]),
        ("b", "/", ["b/"]),
        ("b/", "/", ["b/c", "b/d"]),
        ("nothing", "/", []),
        ("", "c", ["a", "b/c", "b/d", "e"]),
        ("b", "c", ["b/c", "b/d"]),
    ],
)
@pytest.mark.parametrize("loop", ["sync", *LOOPS])
def test_list_to_a_delimiter(
    operator: Operator, loop: str, prefix: str, delimiter: str, paths: list[str]
) -> None:
    """What lies deeper stands there once, as a prefix."""
    if loop == "sync":
        found = list(operator.list(prefix, delimiter))
    else:
        need_module(loop)

        async def main() -> Any:
            return [stat async for stat in operator.list_async(prefix, delimiter)]

        found = run_on(loop, main)
    assert [stat.path for stat in found] == paths
    for stat in found:
        assert stat.is_prefix == stat.path.endswith(delimiter)
        assert (stat.size is None) == stat.is_prefix


def test_list_of_strange_directories(root: Path, reactor: _uring.Reactor) -> None:
    """In the order of the paths, without links to directories, FIFOs and broken links."""
    (root / "circle").symlink_to(root)
    (root / "broken").symlink_to("nothing")
    (root / "link").symlink_to("a")
    os.mkfifo(root / "fifo")
    (root / "b.x").write_bytes(b"")
    operator = Operator("fs", root=root, reactor=reactor)
    assert [stat.path for stat in operator.list()] == ["a", "b.x", "b/c", "b/d", "e", "link"]
    assert [*operator.list("nowhere/")] == []


def test_list_without_a_root(root: Path, reactor: _uring.Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator("fs", reactor=reactor)
    assert [stat.path for stat in operator.list(f"{root}/b/")] == [f"{root}/b/c", f"{root}/b/d"]
    monkeypatch.chdir(root)
    assert [stat.path for stat in operator.list()] == sorted(OBJECTS)


# --- many objects in one call --------------------------------------------------------------------------------

JOBS: list[tuple[str, Any]] = [
    ("a", (2, 5)),
    ("b/c", None),
    ("b/c", (1, 3)),
    ("b/d", (0, 10)),
    ("e", (99_990, None)),
    ("a", Suffix(2)),
    ("b/c", slice(100, 200)),
    ("e", (5, 5)),
]
ANSWERS = [b"234", b"abcdef", b"bc", b"", bytes(10), b"89", b"", b""]


@pytest.mark.parametrize("options", [{}, {"gap": None}, {"chunk": 2}, {"gap": 100, "concurrent": 1}], ids=str)
def test_read_ranges(operator: Operator, options: Any) -> None:
    assert operator.read_ranges(JOBS, **options) == ANSWERS
    assert operator.read_ranges(iter(JOBS), on_error="return", **options) == ANSWERS
    assert operator.read_ranges([]) == []


@pytest.mark.parametrize("direct", [True, False])
def test_read_ranges_direct(root: Path, reactor: _uring.Reactor, direct: bool) -> None:
    assert Operator("fs", root=root, reactor=reactor, direct=direct).read_ranges(JOBS) == ANSWERS


def test_some_fail(operator: Operator) -> None:
    jobs = [("a", (0, 1)), ("nothing", (0, 1)), ("gone", (0, 1)), ("gone", (5, 9)), ("b/c", (0, 1))]
    found = operator.read_ranges(jobs, on_error="return")
    assert [isinstance(result, rangeio.NotFoundError) for result in found] == [False, True, True, True, False]
    assert [result.index for result in found if isinstance(result, rangeio.Error)] == [1, 2, 3]
    assert (found[0], found[4]) == (b"0", b"a")
    with pytest.raises(rangeio.NotFoundError, match="nothing") as caught:
        operator.read_ranges(jobs)
    assert caught.value.index == 1


def test_arguments_before_any_io(operator: Operator) -> None:
    for wrong, error in [
        ((5, 3), ValueError),
        ((0.5, 1), TypeError),
        ((0, 2**63), OverflowError),
        (7, TypeError),
    ]:
        with pytest.raises(error, match=r"jobs\[1\]"):
            operator.read_ranges([("nothing", (0, 1)), ("a", wrong)])  # type: ignore[list-item]
    for no_pair in ("a", ("a",), ("a", (0, 1), 5), (5, (0, 1)), None):
        for read in (operator.read_ranges, operator.read_ranges_async):
            with pytest.raises(TypeError, match=r"jobs\[1\]"):
                read([("nothing", (0, 1)), no_pair])  # type: ignore[list-item,operator]
    with pytest.raises(rangeio.ConfigInvalidError):
        operator.read_ranges([("a", (0, 1))], gapp=1)  # type: ignore[call-overload]
    with pytest.raises(rangeio.ConfigInvalidError):
        operator.read_ranges([("a", (0, 1))], on_error="no")  # type: ignore[call-overload]


def test_kinds_of_files(reactor: _uring.Reactor, root: Path) -> None:
    """In one call as one by one: directories and FIFOs are refused, made-up and empty files read."""
    os.mkfifo(root / "fifo")
    operator = Operator("fs", reactor=reactor)
    paths = [root, root / "fifo", "/proc/version", root / "b" / "d", root / "a"]
    found = operator.read_ranges([(path, (0, 10)) for path in paths], on_error="return")
    assert isinstance(found[0], rangeio.IsDirectoryError)
    assert isinstance(found[1], rangeio.UnsupportedError)
    assert found[2:] == [Path("/proc/version").read_bytes()[:10], b"", b"0123456789"]


@pytest.mark.slow
def test_many_files(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Far more than may be open at once."""
    count = 3000
    for index in range(count):
        (tmp_path / str(index)).write_bytes(b"%d" % index * 10)
    operator = Operator("fs", root=tmp_path, reactor=reactor)
    found = operator.read_ranges([(str(index), None) for index in range(count)])
    assert found == [b"%d" % index * 10 for index in range(count)]
    found = operator.read_ranges([(str(index), (1, 9)) for index in range(count)])
    assert found == [(b"%d" % index * 10)[1:9] for index in range(count)]


def test_whole_files(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Of every size around pages and pieces."""
    sizes = [0, 1, 4095, 4096, 4097, 65_536, 65_537, 1_000_003]
    for size in sizes:
        write_pattern(tmp_path / str(size), size)
    operator = Operator("fs", root=tmp_path, reactor=reactor)
    assert operator.read_ranges([(str(size), None) for size in sizes]) == [pattern(0, size) for size in sizes]
    assert operator.read_ranges([(str(size), (3, 5000)) for size in sizes]) == [
        pattern(0, size)[3:5000] for size in sizes
    ]


# --- elsewhere -----------------------------------------------------------------------------------------------


def test_pickles(operator: Operator) -> None:
    """As its configuration; a Reader of it too."""
    twin = pickle.loads(pickle.dumps(operator))
    assert repr(twin) == repr(operator)
    assert twin.open("b/c").read_to_end() == b"abcdef"
    reader = pickle.loads(pickle.dumps(operator.open("b/c", gap=3)))
    assert reader.read_ranges([(0, 1), (3, 4)]) == [b"a", b"d"]
    assert len(reader.plan([(0, 1), (4, 5)]).requests) == 1


def test_a_pickled_path_is_absolute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have another current directory."""
    monkeypatch.chdir(root)
    text = pickle.dumps(rangeio.open("a"))
    monkeypatch.chdir("/")
    assert pickle.loads(text).read_at(0, 2) == b"01"


def test_shown(operator: Operator) -> None:
    assert repr(operator).startswith("<rangeio.Operator ")
    assert "0123456789" not in repr(operator)


def test_of_the_process(root: Path) -> None:
    """backend(), stats() and the version are of the whole process."""
    before = rangeio.stats()
    with rangeio.open(root / "a") as reader:
        assert reader.read_at(0, 5) == b"01234"
        assert reader.capability.backend == str(rangeio.backend())
    after = rangeio.stats()
    assert after["reads"] == before["reads"] + 1
    assert after["bytes_fetched"] == before["bytes_fetched"] + 5
    assert rangeio.backend().reason
    assert isinstance(rangeio.__version__, str)
    with pytest.raises(AttributeError, match="nothing"):
        rangeio.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert all(hasattr(rangeio, name) for name in rangeio.__all__)


def test_the_same_service_with_other_options(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    operator = Operator("fs", root=str(tmp_path), gap=1)
    other = operator.with_options(gap=2, pin=False)
    assert operator.options == {"root": str(tmp_path), "gap": 1}
    assert (
        pickle.loads(pickle.dumps(other)).options
        == other.options
        == {**operator.options, "gap": 2, "pin": False}
    )
    with other.open("a") as reader:
        assert reader.capability.pin == ""
        assert reader.read_at(0, 9) == b"data"
    for wrong in ({"root": "x"}, {"gpa": 3}):
        with pytest.raises(rangeio.ConfigInvalidError):
            operator.with_options(**wrong)
    secret = Operator("s3", bucket="bucket", region="r", access_key_id="AKID", secret_access_key="SECRET")
    assert "secret_access_key" not in secret.with_options(gap=3).options
