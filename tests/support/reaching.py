"""Which attributes our modules declare, and which attributes of other objects they use; for test_tidy.py.

Python is parsed. Cython is searched with regular expressions, without strings and comments: all names in a .pxd file
count as declared, and so do all functions and all attributes of `self`.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

OURS = {"_uring", "rangeio"}
OWN = ("self", "cls", "super()")
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
TEXTS_AND_COMMENTS = re.compile(r"""\"{3}(?s:.*?)\"{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*""")
CYTHON_OWNER = re.compile(r"(?:[A-Za-z_][\w.]*)?(?:[A-Za-z_]\w*|[\[(][^\[\]()]*[\])])$")
CYTHON_FUNCTION = r"^\s*(?:def|cdef|cpdef)\b[^(\n=]*?(\w+)\("


class Touch(NamedTuple):
    line: int
    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"


def bare(cython: str) -> str:
    """The code without strings and comments. Line numbers do not change."""
    return TEXTS_AND_COMMENTS.sub(lambda found: '""' + "\n" * found[0].count("\n"), cython)


@cache
def declared(path: Path) -> frozenset[str]:
    """Names of functions, classes, variables assigned in a module or class body, and attributes of `self`."""
    if path.suffix == ".py":
        return frozenset(python_names(ast.parse(path.read_text())))
    text = bare(path.read_text())
    if path.suffix == ".pxd":
        return frozenset(re.findall(r"\w+", text))
    patterns = (r"\bself\.(\w+)", r"\bclass\s+(\w+)", CYTHON_FUNCTION, r"^(\w+)\s*=")
    return frozenset(name for pattern in patterns for name in re.findall(pattern, text, re.MULTILINE))


def python_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in OWN:
            yield node.attr
        if isinstance(node, ast.Module | ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.Assign | ast.AnnAssign):
                    yield from (name.id for name in ast.walk(item) if isinstance(name, ast.Name))


@cache
def touches(path: Path) -> tuple[Touch, ...]:
    """Attributes used of objects other than `self` and foreign modules, and private names imported from our modules."""
    found = python_touches if path.suffix == ".py" else cython_touches
    return tuple(touch for touch in found(path.read_text()) if touch.owner not in OWN)


def python_touches(text: str) -> Iterator[Touch]:
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    foreign = {alias.asname or alias.name.split(".")[0] for node in imports for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if owner.split(".")[0] not in foreign - OURS and node.attr not in NAMED_TUPLES:
                yield Touch(node.lineno, owner, node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            yield from (Touch(node.lineno, f"{node.module}", name) for name in private)


def cython_touches(text: str) -> Iterator[Touch]:
    for number, line in enumerate(bare(text).splitlines(), 1):
        if re.match(r"\s*(?:from|import|cimport)\b", line):
            continue
        for dot in re.finditer(r"\.([A-Za-z_]\w*)", line):
            owner = CYTHON_OWNER.search(line, 0, dot.start())
            if owner:  # else the point of a number, or the dots of an import
                yield Touch(number, owner[0], dot[1])
