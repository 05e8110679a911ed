"""What a type checker sees: our own code under mypy --strict, a caller's example, and the stub of the native core."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults.child import Lab, code

from rangeio.option_types import ObjectOptions, OpenOptions
from rangeio.options import OPTION_NAMES
from rangeio.services.registry import service_class

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

OUR_SCHEMES = ("fs", "memory", "http", "s3", "gs", "az", "hf", "webhdfs", "hdfs")

EXAMPLE = """
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import rangeio


def tensors(path: str) -> list[npt.NDArray[np.float32]]:
    with rangeio.open(path) as reader:
        assert_type(reader, rangeio.Reader)
        head = reader.read_at(0, 8)
        assert_type(head, rangeio.Buffer)
        count = int.from_bytes(bytes(head[:4]), "little")
        whole: int = len(head)
        first = head[0]
        buffers = reader.read_ranges([(0, 100), slice(8, 16), range(3, 5), rangeio.Suffix(4), (7, None)])
        assert_type(buffers, list[rangeio.Buffer])
        for index, buffer in reader.iter_ranges([(0, 10)]):
            assert_type(index, int)
            assert_type(buffer, rangeio.Buffer)
        space = bytearray(100)
        assert_type(reader.read_into(space, 5), int)
        assert_type(reader.read_into(memoryview(space)), int)
        table = reader.read_batch(np.array([0, 256], dtype=np.int64), 256)
        # memoryview: before Python 3.12 numpy's stubs know no other exporter of memory than a fixed list.
        floats: npt.NDArray[Any] = np.frombuffer(memoryview(table), dtype="<f4")
        assert len(floats)
        assert_type(reader.size, int | None)
        plan = reader.plan([(0, 10)])
        wasted: float = plan.read_amplification
        return [buffer.numpy(np.float32) for buffer in buffers[:count]]


async def closed() -> bool:
    with rangeio.Operator("fs", root=".") as operator:
        assert_type(operator, rangeio.Operator)
    async with rangeio.Operator("memory", objects={"a": b"1"}) as operator:
        assert_type(await operator.read_ranges_async([("a", None)]), list[rangeio.Buffer])
    await operator.aclose()
    return operator.closed


def failing(path: str) -> int | None:
    try:
        rangeio.open(path).read_exact(0, 10)
    except rangeio.NotFoundError as error:
        as_builtin: FileNotFoundError = error
        return as_builtin.errno
    except rangeio.Error as error:
        return error.offset
    return None


assert_type(str(rangeio.backend()), str)
counters: dict[str, int] = rangeio.stats()
"""

REVEALED = """
import rangeio

reveal_type(rangeio.Reader.read_at)
reveal_type(rangeio.open("x").read_into)
reveal_type(rangeio.open_async("x").read_batch)


class Louder(rangeio.Reader):
    def read_at(self, offset: object, limit: object) -> rangeio.Buffer:
        return super().read_at(0, 1)
"""

MISTAKES = """
import rangeio

reader = rangeio.open("x")
reader.read_at(0.5, 10)
reader.read_at("0", 10)
reader.read_at(0)
reader.read_into(b"read-only is for run time", "0")
reader.read_range(7)
reader.seek(0)
rangeio.open(7)
rangeio.open("x", verson="1")
rangeio.open_async("x", gap="wide")
rangeio.Operator("s3", buckett="b")
rangeio.Operator("s3").open("key", chnk=1)
"""


def run(*arguments: str, folder: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    settings = {**os.environ, **environ}
    return subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, timeout=300, check=False
    )


def mypy(path: Path) -> list[str]:
    """Lines of mypy --strict on one file that uses rangeio as an installed package."""
    config = path.with_name("mypy.ini")
    config.write_text("[mypy]\nstrict = True\n")
    arguments = [
        "mypy",
        "--config-file",
        str(config),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        "--no-error-summary",
    ]
    return run(*arguments, str(path), folder=path.parent, MYPYPATH=str(ROOT / "src")).stdout.splitlines()


def test_source_is_strictly_typed() -> None:
    result = run("mypy")
    assert result.returncode == 0, result.stdout


def test_a_caller_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(EXAMPLE)
    assert mypy(path) == []


def test_the_first_lines_of_the_readme_are_typed(tmp_path: Path) -> None:
    path = tmp_path / "readme.py"
    path.write_text((ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0])
    assert mypy(path) == []


def test_the_types_of_options_are_those_of_the_options() -> None:
    """Of objects, and of the services that come with rangeio: the same names."""
    services = [service_class(scheme) for scheme in OUR_SCHEMES]
    of_objects = {*OPTION_NAMES, *(name for service in services for name in service.object_option_names)}
    assert {*ObjectOptions.__annotations__} == of_objects
    of_services = {name for service in services for name in service.option_names}
    assert {*OpenOptions.__annotations__} - of_objects == of_services


def test_reading_methods_are_methods(tmp_path: Path) -> None:
    """With names of parameters, and to be overridden: to an editor, too, they are no variables."""
    path = tmp_path / "revealed.py"
    path.write_text(REVEALED)
    found = [line.partition('type is "')[2] for line in mypy(path)]
    assert [text.startswith(("def (", "Overload(def (")) for text in found] == [True] * 3
    names = [re.findall(r"(\w+): ", text) for text in found]
    assert names == [["self", "offset", "limit"], ["buffer", "offset"], ["offsets", "length", "out"] * 2]


def test_mistakes_are_found(tmp_path: Path) -> None:
    """Each call that fails at run time is an error of its line; the lines before are none."""
    path = tmp_path / "mistakes.py"
    path.write_text(MISTAKES)
    lines = {int(line.split(":")[1]) for line in mypy(path) if ": error:" in line}
    first = MISTAKES.splitlines().index("reader.read_at(0.5, 10)") + 1
    assert lines == set(range(first, len(MISTAKES.splitlines()) + 1))


def test_the_stub_tells_the_truth() -> None:
    lists = [
        "--allowlist",
        str(ROOT / "tests" / "support" / "stubtest-allowlist.txt"),
        "--ignore-unused-allowlist",
    ]
    options = ["--mypy-config-file", str(ROOT / "pyproject.toml"), "--ignore-missing-stub", "--concise"]
    result = run("mypy.stubtest", "_uring", *options, *lists, folder=ROOT / "src")
    assert result.returncode == 0, result.stdout + result.stderr


SURFACE = """
    import inspect, sys
    import rangeio, _uring

    reactor = _uring.default_reactor()
    objects = {"Reactor": reactor, "File": reactor.open(sys.argv[0]), "Buffer": reactor.allocate(10)}

    def parameters(value):
        if not callable(value):
            return "property"
        try:
            return [name for name in inspect.signature(value).parameters]
        except ValueError:
            return "unknown"

    for name, thing in objects.items():
        for attribute in sys.argv[1].split():
            owner, _, member = attribute.partition(".")
            if owner == name:
                say(**{attribute: parameters(getattr(thing, member)) if hasattr(thing, member) else "missing"})
"""


def stub_members() -> dict[str, list[str] | str]:
    """Every public member of the classes that the backends implement: its parameters, or "property"."""
    members: dict[str, list[str] | str] = {}
    tree = ast.parse((ROOT / "src" / "_uring" / "__init__.pyi").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner in (node for node in classes if node.name in ("Reactor", "File", "Buffer")):
        for item in owner.body:
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                arguments = [*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs]
                names = [argument.arg for argument in arguments if argument.arg != "self"]
                members[f"{owner.name}.{item.name}"] = "property" if item.decorator_list else names
    return members


def test_every_backend_has_the_surface(lab: Lab) -> None:
    """The names of the stub, and their parameters where the implementation tells them."""
    expected = stub_members()
    found = lab.run(code(SURFACE), " ".join(expected)).facts()
    assert found.keys() == expected.keys()
    known = {name: value for name, value in expected.items() if found[name] != "unknown"}
    extra = {"Buffer.tobytes": [[], ["order"]]}  # numpy's parameter, where the Buffer is an array
    wrong = {name: found[name] for name in known if found[name] not in extra.get(name, [expected[name]])}
    assert wrong == {}
