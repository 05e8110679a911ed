"""What an installation is made of, where there is no compiler, and where pyuring has no wheel."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from faults.machine import need, need_module

ROOT = Path(__file__).resolve().parents[2]
FALSE = shutil.which("false")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project with a single module to compile."""
    need_module("setuptools")
    need_module("Cython")
    need(shutil.which("cc") or shutil.which("gcc"), "needs a C compiler")
    for name in (
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "src/_uring/cursor.py",
        "src/_uring/cursor.pxd",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(project: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RANGEIO_")}
    return subprocess.run(
        [sys.executable, *words], cwd=project, capture_output=True, text=True, env={**inherited, **environ}
    )


def compiled(project: Path, **environ: str) -> tuple[bool, list[str]]:
    """Whether building went well, and the extension modules that came of it."""
    done = run(project, "setup.py", "build_ext", "--build-lib", "lib", RANGEIO_DEBUG="1", **environ)
    return done.returncode == 0, [path.name.partition(".")[0] for path in project.glob("lib/**/*.so")]


def test_a_compiler(project: Path) -> None:
    assert compiled(project) == (True, ["cursor"])


@pytest.mark.parametrize("compiler", ["fails", "is missing"])
def test_no_compiler(project: Path, compiler: str) -> None:
    """Then rangeio is pure Python; for `make` it is an error."""
    need(FALSE, "needs the program false")
    command = str(FALSE) if compiler == "fails" else str(project / "nowhere" / "cc")
    assert compiled(project, CC=command) == (True, [])
    assert compiled(project, CC=command, RANGEIO_REQUIRE_EXT="1") == (False, [])


def test_one_module_that_does_not_compile(project: Path) -> None:
    """There are none then, also of those that were there from a build before: they import each other."""
    assert compiled(project) == (True, ["cursor"])
    (project / "src" / "_uring" / "bad.pyx").write_text(
        'cdef extern from "nowhere.h":\n    int x\nprint(x)\n'
    )
    (project / "src" / "_uring" / "bad.pxd").write_text("")
    assert compiled(project) == (True, [])


def copy_folder(name: str, project: Path) -> None:
    """Without what was built, or installed from there."""
    built = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "*.so")
    shutil.copytree(ROOT / name, project / name, ignore=built, dirs_exist_ok=True)


def test_the_tests_and_the_bench_travel_whole(project: Path) -> None:
    """Whoever has the sdist can run them, on all that they are made of."""
    for name in ("tests", "benchmarks"):
        copy_folder(name, project)
    shutil.copy(ROOT / "MANIFEST.in", project)
    done = run(project, "setup.py", "-q", "sdist", RANGEIO_NO_EXT="1")
    assert done.returncode == 0, done.stderr
    (packed,) = project.glob("dist/*.tar.gz")
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = (*project.glob("tests/**/*"), *project.glob("benchmarks/**/*"))
    assert {str(path.relative_to(project)) for path in folders if path.is_file()} <= names


def test_what_is_installed(project: Path) -> None:
    """The bench, tests and tools are for who has the sources."""
    for name in ("src", "benchmarks", "bench", "tools"):
        copy_folder(name, project)
    assert (
        run(project, "setup.py", "-q", "build_py", "--build-lib", "lib", RANGEIO_NO_EXT="1").returncode == 0
    )
    assert sorted(path.name for path in (project / "lib").iterdir()) == ["_uring", "rangeio"]
    assert not list(project.glob("lib/**/*bench*/**/*"))


ASK = """
import json, runpy, sys
from packaging import tags

kind = json.loads(sys.argv.pop())
sys.implementation.name = kind.get("implementation", "cpython")
if "platform" in kind:
    version = tuple(kind["version"])
    tags.sys_tags = lambda: tags.cpython_tags(version, kind.get("abis"), [kind["platform"]])
sys.argv = ["setup.py", "-q", "--version"]
made = runpy.run_path("setup.py")
print(json.dumps([made["requirements"](), len(made["extensions"]())]))
"""


def asked(project: Path, kind: dict[str, object], **environ: str) -> tuple[bool, int]:
    """Whether pyuring is asked for, and how many modules are compiled, by a Python of that kind."""
    done = run(project, "-c", ASK, json.dumps(kind), **environ)
    assert done.returncode == 0, done.stderr
    requirements, modules = json.loads(done.stdout.splitlines()[-1])
    assert requirements[0].startswith("numpy")
    return any(item.startswith("pyuring") for item in requirements), modules


GLIBC, MUSL = "manylinux_2_17_x86_64", "musllinux_1_2_x86_64"
PYTHONS = [
    ({"version": (3, 10), "platform": GLIBC}, True),
    ({"version": (3, 13), "platform": GLIBC}, True),
    ({"version": (3, 9), "platform": GLIBC}, False),
    ({"version": (3, 14), "platform": GLIBC}, False),
    ({"version": (3, 13), "platform": GLIBC, "abis": ["cp313t"]}, False),
    ({"version": (3, 11), "platform": MUSL}, False),
    ({"version": (3, 11), "platform": "manylinux_2_17_i686"}, False),
    ({"version": (3, 11), "platform": "manylinux_2_17_aarch64"}, False),
]


@pytest.mark.parametrize(("kind", "wanted"), PYTHONS, ids=str)
def test_pyuring_is_asked_for_where_it_has_a_wheel(
    project: Path, kind: dict[str, object], wanted: bool
) -> None:
    """Elsewhere nothing could be installed: there is no source that builds."""
    assert asked(project, kind, RANGEIO_NO_EXT="1") == (wanted, 0)


def test_pyuring_is_not_asked_for_where_we_bring_our_own(project: Path) -> None:
    """As `make wheels` does; it is in the wheel then."""
    kind: dict[str, object] = {"version": (3, 11), "platform": GLIBC}
    assert asked(project, kind, RANGEIO_NO_EXT="1")[0]
    for name in ("liburing.so.2", "liburing.LICENSE"):
        (project / "src" / "_uring" / name).write_text("")
    assert not asked(project, kind, RANGEIO_NO_EXT="1")[0]
    assert (
        run(project, "setup.py", "-q", "build_py", "--build-lib", "lib", RANGEIO_NO_EXT="1").returncode == 0
    )
    assert {path.name for path in project.glob("lib/_uring/liburing.*")} >= {
        "liburing.so.2",
        "liburing.LICENSE",
    }


def test_nothing_is_compiled_for_another_python(project: Path) -> None:
    """PyPy: the modules are CPython's."""
    assert asked(project, {})[1] == 1
    assert asked(project, {"implementation": "pypy"})[1] == 0
