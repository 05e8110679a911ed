"""The shape of the source itself: imports go down, functions stay on a screen, names mean something, no leftovers.

A check that the code outgrew is not loosened here: the code is cut, or `ALLOWED` takes the one case with its reason.
"""

import ast
import builtins
import os
import re
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from socket import socket

import numpy as np
import pytest
from faults.machine import need
from reaching import OWN, Touch, cython_touches, declared, python_touches, touches

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
BENCH = ROOT / "benchmarks"
PACKAGES = (SRC / "_uring", SRC / "rangeio", BENCH / "rangeio_bench")
ABOVE_THE_CORE = PACKAGES[1:]
TEXT = {
    ".py",
    ".pyi",
    ".pyx",
    ".pxd",
    ".h",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".in",
    ".html",
    ".css",
    ".js",
    ".sh",
    "",
}

MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 500
MOST_RECIPE_LINES = 4
ALLOWED: dict[str, str] = {}  # "path:name" or "path" -> why it may be longer; only ever gets shorter

BANNED = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc", "tools"}


def sources(*suffixes: str, under: Path | tuple[Path, ...] = PACKAGES) -> list[Path]:
    """Files with one of these suffixes."""
    paths = [
        path for folder in ((under,) if isinstance(under, Path) else under) for path in folder.rglob("*")
    ]
    return sorted(path for path in paths if path.suffix in suffixes and "__pycache__" not in path.parts)


def folders() -> set[str]:
    return {path.name for package in PACKAGES for path in package.rglob("*") if path.is_dir()}


def project_files() -> Iterator[Path]:
    """Every text file that belongs to the project."""
    top = (path for path in ROOT.iterdir() if path.name != ".git")  # a file in a work tree beside the first
    yield from (path for path in top if path.is_file() and path.suffix in TEXT)
    for folder in ("src", "tests", "bench", "benchmarks", "docs", "examples", "tools", ".ci", ".github"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder).parts[:-1]
            hidden = any(part in ("__pycache__", "data", "report") or part.startswith(".") for part in inside)
            if path.is_file() and path.suffix in TEXT and not hidden:
                yield path


def name_of(path: Path) -> str:
    """Dotted module name of a file of a package."""
    root = SRC if path.is_relative_to(SRC) else BENCH
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- imports -------------------------------------------------------------------------------------------------

# Lowest first; a module imports only from floors below its own. A package stands for all its modules, which may import
# each other as long as that makes no circle.
FLOORS = (
    "_uring",
    "rangeio.logs",
    "rangeio.errors rangeio.locks rangeio.threads rangeio.awaitables rangeio.events rangeio.notebook",
    "rangeio.ranges rangeio.budget rangeio.in_flight rangeio.policy rangeio.reading rangeio.counters",
    "rangeio.option_types rangeio.options rangeio.pickled",
    "rangeio.service rangeio.results",
    "rangeio.destinations rangeio.jobs",
    "rangeio.http",
    "rangeio.azure rangeio.hf rangeio.s3 rangeio.stores",
    "rangeio.gcs rangeio.hdfs",
    "rangeio.adapters.async_files rangeio.adapters.cached rangeio.adapters.files rangeio.services"
    " rangeio.async_ranges rangeio.streams rangeio.slices rangeio.suffixes",
    "rangeio.reader",
    "rangeio.async_reader",
    "rangeio.from_here rangeio.from_stores rangeio.operator",
    "rangeio.adapters",
    "rangeio.parquet",
    "rangeio.polars",
    "rangeio",
    "rangeio.fsspec rangeio.obspec",
    "rangeio.arrow",
    "rangeio.cli.console rangeio.cli.machine rangeio.cli.sizes",
    "rangeio.cli.range_syntax",
    "rangeio_bench",
    "rangeio.cli",
    "rangeio.__main__",
)
# The same inside the core, .pyx and .py together.
CORE_FLOORS = (
    "kernel poison errors",
    "arguments pickling records pure.windows",
    "arenas filesystems holding http1 liburing plain_memory process pure pure.buffer pure.connections pure.descriptor"
    " pure.http1 pure.planning waiters",
    "mapping residency",
    "connections event_loops memory pure.workers request",
    "coop cursor planning pure.coop pure.open_file ring sweep transfer workers",
    "engine pure.file transfer_set",
    "loop_reads open_file pure.reactor read_files steady",
    "prefetch reads transfers",
    "iteration reads_into",
    "file",
    "reactor",
    "__init__",
)


def floor_of(name: str, floors: tuple[str, ...]) -> tuple[int, str]:
    """(floor, the entry that stands for it); `rangeio` itself stands for no other module."""
    entries = {entry: level for level, line in enumerate(floors) for entry in line.split()}
    entry = name
    while entry not in entries or (entry == "rangeio" != name):
        entry, dot, _ = entry.rpartition(".")
        assert dot, f"{name} has no floor: give it one in test_tidy.py"
    return entries[entry], entry


def imported(path: Path) -> set[str]:
    """Our own modules that a .py file imports, wherever: in functions and under TYPE_CHECKING too."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            wholes = [f"{origin}.{alias.name}" for alias in node.names]
            found |= {whole if whole in modules() else origin for whole in wholes}
    ours = {package.name for package in PACKAGES}
    return {name for name in found if name.split(".")[0] in ours} - {name_of(path)}


def cimported(path: Path) -> set[str]:
    """The same of a .pyx or .pxd file."""
    text = path.read_text()
    found = set(re.findall(r"^\s*from\s+((?:_uring|rangeio)\.\w+)\s+c?import", text, re.MULTILINE))
    for names in re.findall(r"^\s*from\s+_uring\s+c?import\s+([\w, ]+)", text, re.MULTILINE):
        found |= {f"_uring.{name.strip()}" for name in names.split(",")}
    found |= set(re.findall(r"^\s*c?import\s+((?:_uring|rangeio)[\w.]*)", text, re.MULTILINE))
    return found - {name_of(path)}


@cache
def modules() -> frozenset[str]:
    return frozenset(name_of(path) for path in sources(".py", ".pyx", ".pxd"))


def graph() -> dict[str, set[str]]:
    """Each of our modules, and what it imports."""
    edges: dict[str, set[str]] = {name: set() for name in modules()}
    for path in sources(".py", ".pyx", ".pxd"):
        edges[name_of(path)] |= imported(path) if path.suffix == ".py" else cimported(path)
    return edges


def test_imports_go_down() -> None:
    faults = []
    for name, origins in graph().items():
        if name.split(".")[0] == "_uring":
            continue
        floor, entry = floor_of(name, FLOORS)
        for origin in origins:
            below, other = floor_of(origin, FLOORS)
            if below >= floor and other != entry:
                faults.append(f"{name} (floor {floor}) imports {origin} (floor {below})")
    assert not faults, "\n".join(faults)


def test_imports_of_the_core_go_down() -> None:
    """And it knows nothing of rangeio."""
    faults = []
    for name, origins in graph().items():
        if name.split(".")[0] == "_uring":
            floor, _ = floor_of(name.partition(".")[2] or "__init__", CORE_FLOORS)
            for origin in origins:
                if (
                    origin.split(".")[0] != "_uring"
                    or floor_of(origin.partition(".")[2], CORE_FLOORS)[0] >= floor
                ):
                    faults.append(f"{name} imports {origin}")
    assert not faults, "\n".join(faults)


def test_the_door_alone_knows_the_bench() -> None:
    """An installed rangeio is without it."""
    inside = {
        name
        for name, origins in graph().items()
        if any(origin.startswith("rangeio_bench") for origin in origins)
    }
    assert {name for name in inside if not name.startswith("rangeio_bench")} == {"rangeio.cli.bench"}


def test_imports_make_no_circle() -> None:
    TopologicalSorter(graph()).prepare()


# --- sizes ---------------------------------------------------------------------------------------------------


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def cython_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of each def, cdef and cpdef, by indentation: from its header to its last deeper line."""
    lines = path.read_text().splitlines()
    for start, line in enumerate(lines):
        header = re.match(r"(\s*)(?:def|cdef|cpdef)\b(?! class)[^=]*?(\w+)\(.*$", line)
        if not header or (
            line.rstrip().endswith((";", ",")) and "):" not in line and not line.rstrip().endswith(("(", ","))
        ):
            continue
        last = start
        for i in range(start + 1, len(lines)):
            text = lines[i]
            if (
                text.strip()
                and len(text) - len(text.lstrip()) <= len(header[1])
                and not text.lstrip().startswith(")")
            ):
                break
            if text.strip():
                last = i
        yield header[2], last - start + 1


C_FUNCTION = re.compile(r"^( *)(?=\w)[^\n;={}]*?\b(\w+)\([^;{}]*\)\s*\{$.*?^\1\}", re.MULTILINE | re.DOTALL)


def c_functions(path: Path) -> Iterator[tuple[str, int]]:
    """In headers, and in the C that stands in Cython."""
    for found in C_FUNCTION.finditer(path.read_text()):
        yield found[2], found[0].count("\n") + 1


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of each."""
    if path.suffix in (".pyx", ".pxd"):
        yield from cython_functions(path)
    if path.suffix in (".pyx", ".pxd", ".h"):
        yield from c_functions(path)
    else:
        yield from python_functions(path)


def programs() -> list[Path]:
    """Python without a suffix."""
    return [
        path
        for path in sorted((ROOT / "tools").iterdir())
        if path.is_file() and "python" in path.read_text().partition("\n")[0]
    ]


def test_functions_fit_a_screen() -> None:
    others = [
        path for folder in ("tests", "bench", "examples") for path in sources(".py", under=ROOT / folder)
    ]
    faults = [
        f"{shown(path)}:{name} has {lines} lines"
        for path in [*sources(".py", ".pyx", ".pxd", ".h"), *others, *programs(), ROOT / "setup.py"]
        for name, lines in functions(path)
        if lines > MOST_FUNCTION_LINES and f"{shown(path)}:{name}" not in ALLOWED
    ]
    assert not faults, "\n".join(faults)


# A function f of six lines each.
SIX = {
    "a.py": "def f():\n    if x:\n        y\n\n\n    z\n\n\nafter = 1\n",
    "b.pyx": "cdef int f(\n    int x,\n) except -1:\n    y\n\n    z\n\n\nafter = 1\n",
    "c.pyx": "class C:\n    cdef int *f(self, int x=1) noexcept nogil:\n        y\n\n\n\n        z\n    after: int\n",
    "d.pxd": "cdef inline bint f(int x) noexcept nogil:\n    a\n    b\n    c\n    d\n    e\ncdef int after\n",
    "e.pyx": 'cdef extern from *:\n    """\n    int f() {\n        if (x) {\n    a:\n        }\n        ;\n    }\n',
    "f.h": "static inline int\nf(int x) {\n  a;\n  b;\n  c;\n  d;\n}\nint after;\n",
}


@pytest.mark.parametrize("name", SIX)
def test_sizes_are_seen(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(SIX[name])
    assert dict(functions(path))["f"] == 6


def test_files_stay_small() -> None:
    faults = []
    for path in sources(".py", ".pyx", ".pxd", ".pyi", ".h"):
        lines = len(path.read_text().splitlines())
        if lines > MOST_FILE_LINES and shown(path) not in ALLOWED:
            faults.append(f"{shown(path)} has {lines} lines: has it a second reason to change?")
    assert not faults, "\n".join(faults)


def test_allowances_are_still_needed() -> None:
    for entry in ALLOWED:
        path, _, name = entry.partition(":")
        if name:
            sizes = [lines for found, lines in functions(ROOT / path) if found == name]
            assert max(sizes, default=0) > MOST_FUNCTION_LINES, entry
        else:
            assert len((ROOT / path).read_text().splitlines()) > MOST_FILE_LINES, entry


def test_make_targets_stay_short() -> None:
    for target in re.split(r"\n(?=\S)", (ROOT / "Makefile").read_text()):
        recipe = [line for line in target.splitlines() if line.startswith("\t")]
        assert len(recipe) <= MOST_RECIPE_LINES, target


# --- reaching into others -------------------------------------------------------------------------------------

# "module .attribute" -> why it is touched today; only ever gets shorter.
REACHES = {
    "_uring.pure.open_file .lock": "users of a file and counters change at once; Process is to have a method for it",
    "rangeio.locks ._lock": "it is there to make that lock, and a new one in a forked child",
    "rangeio.from_here ._opened": "from_bytes_async and from_fd_async open at once, which is nothing for users",
    "rangeio.services.http_many ._read": "it was cut out of http_source",
    "rangeio.services.http_many ._each": "the same",
    "rangeio_bench.baselines ._mmap": "numpy's: a memmap shows its mapping in no other way",
}
# Attributes that say nothing of whose an object is.
EVERYDAY = {
    name
    for kind in (
        str,
        bytes,
        memoryview,
        list,
        dict,
        set,
        deque,
        slice,
        OSError,
        socket,
        AbstractEventLoop,
        os,
        os.path,
        np.dtype,
    )
    for name in dir(kind)
}


@cache
def declared_by(module: str) -> frozenset[str]:
    return frozenset[str]().union(
        *(declared(path) for path in sources(".py", ".pyx", ".pxd") if name_of(path) == module)
    )


@cache
def only_above_the_core() -> frozenset[str]:
    """What objects of rangeio have, and none of the core."""
    above = {name for name in modules() if not name.startswith(("_uring", "rangeio.bench", "rangeio.cli"))}
    names = frozenset[str]().union(*map(declared_by, above))
    return names.difference(
        EVERYDAY, *map(declared_by, (name for name in modules() if name.startswith("_uring")))
    )


def why_not(module: str, touch: Touch) -> str:
    """Why this module should not touch that attribute; empty if it may."""
    if touch.name.startswith("__") or touch.name in declared_by(module):
        return ""
    if touch.name.startswith("_"):
        return "is private to another module"
    if re.fullmatch(r"(?:\w+_)?lock", touch.name):
        return "is another module's lock: it should have a method that takes it"
    if module.startswith("_uring") and touch.name in only_above_the_core():
        return "is known to rangeio only"
    return ""


def reached() -> Iterator[tuple[str, str]]:
    """("module .attribute", what is wrong with it) of each that should not be."""
    for path in sources(".py", ".pyx", ".pxd"):
        for touch in touches(path):
            if reason := why_not(name_of(path), touch):
                yield f"{name_of(path)} .{touch.name}", f"{shown(path)}:{touch.line}: {touch} {reason}"


def test_no_module_reaches_into_another() -> None:
    faults = [fault for key, fault in reached() if key not in REACHES]
    assert not faults, "\n".join(faults)


def test_what_may_be_reached_still_is() -> None:
    assert not REACHES.keys() - {key for key, _ in reached()}, "take these out of REACHES"


@pytest.mark.parametrize(
    ("module", "suffix", "text", "found"),
    [
        ("_uring.steady", ".pyx", "with pool.lock:", "pool.lock"),
        ("_uring.steady", ".pyx", "    lock = self.pool.lock  # of others.lock", "self.pool.lock"),
        ("_uring.steady", ".pyx", "if pool._waiting:", "pool._waiting"),
        ("_uring.loop_reads", ".pyx", "connections[i].origin = 0", "connections[i].origin"),
        ("_uring.loop_reads", ".pyx", "fd = connection.sock.fileno()", "connection.sock"),
        ("_uring.workers", ".pyx", "pthread_mutex_lock(&crew.lock)", ""),
        ("_uring.steady", ".pyx", 'self._waiting = "pool._waiting"', ""),
        ("rangeio.slices", ".py", "def f(pool):\n    with pool.lock: pass", "pool.lock"),
        (
            "rangeio.slices",
            ".py",
            "def f(pool):\n    return pool.connections._lock",
            "pool.connections._lock",
        ),
        ("rangeio.slices", ".py", "from rangeio.ranges import _cut", "rangeio.ranges._cut"),
        ("rangeio.slices", ".py", "import os\nos._exit(self._waiting)", ""),
    ],
)
def test_reaching_is_seen(module: str, suffix: str, text: str, found: str) -> None:
    seen = python_touches(text) if suffix == ".py" else cython_touches(text)
    assert [str(touch) for touch in seen if touch.owner not in OWN and why_not(module, touch)] == [
        found
    ] * bool(found)


# --- names and words -----------------------------------------------------------------------------------------


def test_no_module_without_a_meaning() -> None:
    names = {path.stem for path in sources(".py", ".pyx")} | folders()
    assert not names & BANNED


def public_functions(tree: ast.Module) -> Iterator[tuple[int, str, ast.AST]]:
    """What a user can call by name: functions and classes of the module, methods of its classes; and the module."""
    yield 1, "the module", tree
    for node in tree.body:
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and not node.name.startswith("_"):
            yield node.lineno, node.name, node
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith(
                        "_"
                    ):
                        yield item.lineno, f"{node.name}.{item.name}", item


def is_overload(node: ast.AST) -> bool:
    return "overload" in {
        getattr(mark, "id", getattr(mark, "attr", "")) for mark in getattr(node, "decorator_list", [])
    }


def protocol_methods() -> set[str]:
    """What a Protocol of ours says about a method need not be said again by each class that has it."""
    names = set()
    for path in sources(".py", under=ABOVE_THE_CORE):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "Protocol" in {
                getattr(base, "id", "") for base in node.bases
            }:
                names |= {
                    item.name
                    for item in node.body
                    if isinstance(item, ast.FunctionDef) and ast.get_docstring(item)
                }
    return names


def test_public_functions_have_docstrings() -> None:
    faults = []
    said = protocol_methods()
    for path in sources(".py", under=ABOVE_THE_CORE):
        for line, name, node in public_functions(ast.parse(path.read_text())):
            documented = ast.get_docstring(node) or is_overload(node)  # type: ignore[arg-type]
            if not documented and name.rpartition(".")[2] not in said:
                faults.append(f"{shown(path)}:{line} {name}")
    assert not faults, "\n".join(faults)


def test_every_pyx_declares_itself() -> None:
    missing = [shown(path) for path in sources(".pyx") if not path.with_suffix(".pxd").exists()]
    assert not missing


def names_of_python(path: Path) -> set[str]:
    """Whatever has a name in a file, or is a name as a text: an option."""
    found = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        texts = [getattr(node, field, None) for field in ("id", "attr", "name", "arg", "value")]
        found |= {text for text in texts if isinstance(text, str)}
    return found


def test_docstrings_name_what_there_is() -> None:
    """What stands in them between backticks is in the sources, or a builtin."""
    known = set(dir(builtins)) | folders()
    for path in sources(".py", ".pyx", ".pxd", ".pyi", ".h"):
        known |= names_of_python(path) if path.suffix == ".py" else set(re.findall(r"\w+", path.read_text()))
    faults = []
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sources(".py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented)]
        for text in filter(None, map(ast.get_docstring, nodes)):
            named = set(re.findall(r"(?<!`)`([A-Za-z_]\w*)`(?!`)", text))
            faults += [f"{shown(path)}: {name}" for name in sorted(named - known)]
    assert not faults, "\n".join(faults)


# Those of http/ have a list of their own, further down; those of the others are a command or a workload each.
NOT_LISTED = (
    "rangeio.http",
    "rangeio_bench",
    "rangeio.cli",
    "rangeio.__main__",
    "_uring.pure.http1",
)


def test_the_architecture_has_every_module() -> None:
    listed = (ROOT / "docs" / "architecture.md").read_text().partition("\n## The path of a read")[0]
    names = {name for name in modules() if not name.startswith(NOT_LISTED)} - {"_uring", "rangeio"}
    missing = [name for name in names if not re.search(rf"\b{name.rpartition('.')[2]}\b", listed)]
    assert not missing, ", ".join(sorted(missing))


LEFTOVERS = {
    "a task without a date, which is TODO(2026-11-30)": r"\b(?:TODO|FIXME|XXX|HACK)\b(?!\(\d{4}-\d\d-\d\d\))",
    "a debugger": r"\bbreakpoint\(\)|\bpdb\.set_trace",
    "a merge mark": r"^(?:<{7} |={7}$|>{7} )",
    "a paper that is not here": r"\bdesign's\b|\bstyle notes\b|\bproject's card\b",
    "a path of one machine": r"(?<![\w.}$])/(?:home|root|Users|work)/\w",
}


@pytest.mark.parametrize("what", LEFTOVERS)
def test_no_leftovers(what: str) -> None:
    faults = []
    for path in project_files():
        if path == Path(__file__).resolve() or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if re.search(LEFTOVERS[what], line):
                faults.append(f"{shown(path)}:{number}: {line.strip()[:100]}")
    assert not faults, f"{what}:\n" + "\n".join(faults)


def test_comments_fit_a_line() -> None:
    """As ruff has it for Python, where it looks."""
    for path in (ROOT / "pyproject.toml", ROOT / "Makefile"):
        comments = [line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]
        assert max(map(len, comments)) <= 120


def test_tests_import_from_no_test() -> None:
    """What several tests use is in tests/support."""
    pattern = re.compile(r"^\s*(?:from|import) (?:test_|conftest)", re.M)
    faults = [shown(p) for p in sources(".py", under=ROOT / "tests") if pattern.search(p.read_text())]
    assert not faults, ", ".join(faults)


# A test waits for events. A slow file system or server sleeps, and so does who counts: nothing tells that a counter has
# changed.
SLEEPERS = {"tests/support/faults/stalling.py", "tests/support/servers/scripted.py", "tests/conftest.py"}


def test_tests_do_not_sleep() -> None:
    sleeping = {
        shown(p) for p in sources(".py", under=ROOT / "tests") if re.search(r"\btime\.sleep\(", p.read_text())
    }
    assert sleeping - {"tests/project/test_tidy.py"} <= SLEEPERS


# --- the package ---------------------------------------------------------------------------------------------


def test_typed_packages() -> None:
    for package in ("_uring", "rangeio"):
        assert (SRC / package / "py.typed").exists()


def test_one_version() -> None:
    import rangeio

    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared
    need(rangeio.__version__ != "0+unknown", "rangeio is not installed here, only on the path")
    assert rangeio.__version__ == declared[1]
    bench = (BENCH / "pyproject.toml").read_text()
    assert f'\nversion = "{declared[1]}"\n' in bench
    assert f'"rangeio=={declared[1]}"' in bench
    headings = re.findall(r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:1] in (["Unreleased"], [declared[1]])
