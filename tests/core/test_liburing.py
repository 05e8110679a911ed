"""How liburing is found at run time: in which order, what each candidate must show, and that every reason is kept."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from faults.child import Lab, code
from faults.machine import need, need_backend

import _uring

LOOK = code("""
    import sys, _uring
    reactor = _uring.Reactor(backend="auto")
    found = reactor.backend
    file = reactor.open(sys.argv[1])
    say(name=found.name, library=found.liburing, tried=found.tried, reason=found.reason)
    say(right=bytes(file.read_many([5, 90_000], [9, 70_000])[1]) == pattern(90_000, 160_000))
    say(run=[name for name in sys.modules if name.startswith("pyuring")])
""")
ELSEWHERE = code("""
    import os, sys, _uring.liburing
    _uring.liburing.__file__ = os.path.join(sys.argv[2], "liburing.so")
""")
HIDE = code("""
    import sys
    sys.path[:] = [folder for folder in sys.path if "site-packages" not in folder]
""")


@pytest.fixture
def look(auto_lab: Lab, pattern_file: Path) -> Lab:
    need_backend("uring")
    return auto_lab


def test_pyurings_comes_first_and_none_of_its_code_runs(look: Lab, pattern_file: Path) -> None:
    spec = importlib.util.find_spec("pyuring")
    need(spec is not None and spec.origin, "needs pyuring")
    facts = look.run(LOOK, pattern_file).facts()
    assert facts["name"] == "uring"
    assert spec is not None
    assert spec.origin is not None
    assert Path(facts["library"]).is_relative_to(Path(spec.origin).parent)
    assert facts["tried"] == [[facts["library"], "works"]]
    assert (facts["right"], facts["run"]) == (True, [])


def test_our_own_comes_before_all(look: Lab, pattern_file: Path, tmp_path: Path) -> None:
    """In a wheel of `make wheels` one lies beside the module that looks for it."""
    spec = importlib.util.find_spec("pyuring")
    need(spec is not None and spec.origin, "needs pyuring")
    assert spec is not None
    assert spec.origin is not None
    (theirs,) = (Path(spec.origin).parent / "lib").glob("liburingwrap.so")
    shutil.copy(theirs, tmp_path / "liburing.so.2")
    facts = look.run(ELSEWHERE + LOOK, pattern_file, tmp_path).facts()
    assert facts["tried"] == [[str(tmp_path / "liburing.so.2"), "works"]]
    assert facts["right"]


def test_then_the_systems_then_none(look: Lab, pattern_file: Path) -> None:
    """Whether this system has one or not: it was asked, and what came of it is told."""
    facts = look.run(HIDE + LOOK, pattern_file).facts()
    [(path, outcome)] = facts["tried"]
    assert path == "liburing.so.2"
    if outcome == "works":
        assert (facts["name"], facts["library"]) == ("uring", path)
    else:
        assert (facts["name"], facts["library"]) == ("pool", "")
        assert path in facts["reason"]
        assert outcome in facts["reason"]
    assert facts["right"]


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("/nowhere/liburing.so.2", "No such file"),
        (__file__, "invalid ELF header"),
        ("libc.so.6", "has no symbol io_uring_queue_init_params"),
    ],
    ids=["missing", "not a library", "another library"],
)
def test_one_that_does_not_do_is_told_of(look: Lab, pattern_file: Path, library: str, said: str) -> None:
    """RANGEIO_LIBURING names the only candidate; reads go on without a ring."""
    facts = look.run(LOOK, pattern_file, RANGEIO_LIBURING=library).facts()
    [(path, outcome)] = facts["tried"]
    assert (path, facts["name"], facts["right"]) == (library, "pool", True)
    assert said in outcome
    assert said in facts["reason"]


def test_the_one_that_is_named_is_taken(look: Lab, pattern_file: Path) -> None:
    library = _uring.Reactor(backend="uring").backend.liburing
    facts = look.run(LOOK, pattern_file, RANGEIO_LIBURING=library).facts()
    assert (facts["name"], facts["tried"], facts["right"]) == ("uring", [[library, "works"]], True)


def test_a_library_is_proved_by_an_entry(look: Lab, pattern_file: Path) -> None:
    """The self-test at load: setup is allowed, and the NOP never gets through."""
    program = code("refuse(errno.EPERM, 'io_uring_enter')\n", LOOK)
    facts = look.run(program, pattern_file).facts()
    assert (facts["name"], facts["right"]) == ("pool", True)
    assert all(outcome != "works" for _, outcome in facts["tried"])
