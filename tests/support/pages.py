"""The programs in pages of the documentation, run as they stand there."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, language: str) -> Iterator[tuple[int, str]]:
    """The line before each block of a language, and the block; tabs indent theirs."""
    text = (ROOT / page).read_text()
    for found in re.finditer(rf"^( *)```{language}\n(.*?)^\1```", text, re.M | re.S):
        yield text.count("\n", 0, found.start(2)), textwrap.dedent(found[2])


def run_programs(page: str, names: dict[str, Any]) -> int:
    """Run the programs of a page, one after the other, in one module of `names`. Returns how many there are."""
    count = 0
    for line, program in blocks(page, "python"):
        exec(compile("\n" * line + program, ROOT / page, "exec"), names)
        count += 1
    return count


def run_page(name: str, names: dict[str, Any] | None = None) -> int:
    """The same for a page in docs/."""
    return run_programs(f"docs/{name}", {} if names is None else names)
