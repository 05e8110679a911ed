"""Schemes, and services of other distributions."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rangeio
from rangeio import Operator
from rangeio.services.registry import located, schemes, service_class

PACKAGE = Path(rangeio.__file__).parent
SOURCE = '''
from rangeio.service import Location, Service
from rangeio.services.memory import MemoryService


class Constant(MemoryService):
    """Each object holds its own name."""

    scheme = "constant"
    option_names = ("prefix",)
    object_option_names = ("upper",)

    def __init__(self, reactor, prefix=""):
        super().__init__(reactor)
        self._prefix = prefix

    @classmethod
    def locate(cls, scheme, rest):
        prefix, _, path = rest.partition("/")
        return Location({"prefix": prefix}, path)

    def open(self, path, options):
        text = f"{self._prefix}:{path}"
        text = text.upper() if options.own.get("upper") else text
        self._objects = {path: text.encode()}
        return super().open(path, options)
'''


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution that registers two services, one of which cannot be imported."""
    (tmp_path / "constant_service.py").write_text(SOURCE)
    info = tmp_path / "constant_service-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: constant-service\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rangeio.services]\nconstant = constant_service:Constant\nabsent = no_such_module:Service\n"
        "s3 = constant_service:Constant\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("constant_service", None)


@pytest.mark.usefixtures("other")
def test_a_service_of_another_distribution() -> None:
    with rangeio.open("constant://one/two") as reader:
        assert reader.read_at(0, 100) == b"one:two"
    with rangeio.open("constant://one/two", upper=True) as reader:
        assert reader.read_at(0, 100) == b"ONE:TWO"
    operator = Operator("constant", prefix="a", upper=True)
    assert operator.open("b").read_at(0, 100) == b"A:B"
    assert operator.open("b", upper=False).read_at(0, 100) == b"a:b"
    assert "constant" in schemes()


@pytest.mark.usefixtures("other")
def test_wrong_options_of_it() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="did you mean 'upper'"):
        rangeio.open("constant://one/two", uper=True)
    with pytest.raises(rangeio.ConfigInvalidError, match="no place for prefix="):
        rangeio.open("constant://one/two", prefix="x")
    with pytest.raises(rangeio.ConfigInvalidError, match="unknown option"):
        rangeio.open(b"some/file", upper=True)


@pytest.mark.usefixtures("other")
def test_one_that_cannot_be_imported() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=r"'absent' \(no_such_module:Service\) cannot be"):
        rangeio.open("absent://x")


@pytest.mark.usefixtures("other")
def test_ours_stay_ours() -> None:
    assert service_class("s3").__module__ == "rangeio.services.s3"
    assert schemes().count("s3") == 1


def test_what_an_unknown_scheme_is_told() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match=r"known: file, memory, http, https, s3.* or a path"):
        located("gopher://x")
    with pytest.raises(rangeio.ConfigInvalidError, match="unknown service 'gopher'"):
        Operator("gopher")


@pytest.mark.parametrize(
    "path", [*(PACKAGE / "cli").glob("*.py"), PACKAGE / "operator.py"], ids=lambda path: path.name
)
def test_who_knows_no_service_by_name(path: Path) -> None:
    """What only some services have is a method of `Service`. Files are what a URI without a scheme names."""
    tree = ast.parse(path.read_text())
    said = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    services = {name.rpartition(".")[2] for name in modules if name.startswith("rangeio.services.")}
    assert not said & {*schemes()} - {"fs"}
    assert services <= {"registry", "local", "memory"}


def test_own_options_are_not_those_of_others() -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="unknown option"):
        rangeio.open("s3://bucket/key", own={})
