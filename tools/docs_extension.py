"""For the documentation site: what docstrings say about arguments becomes a list, and names in them become links.

A docstring of this project names an argument or a field at the start of a sentence: ``gap: bytes between two ranges``.
mkdocstrings loads this as an extension of griffe, which reads the sources.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

PAGES = Path(__file__).resolve().parents[1] / "docs" / "api"
# A sentence that begins with names and a colon. What precedes it has ended.
TERM = re.compile(r"(?:^|(?<=[.;:)] ))(\w+(?:, \w+)*): ")
# What follows the arguments and is about the whole call begins like this.
GENERAL = re.compile(
    r"(?<=[.)] )(?=(?:Any thread|Argument errors|Closing|Cost|Files and|Pickles|Raises|Retries|Source|The first"
    r"|The limits|The result|To open|TypeError|UnsupportedError|ValueError)\b)"
)
CODE = re.compile(r"``.+?``|`[^`]+`|\b[A-Z]\w+Error\b")


def shown() -> dict[str, bool]:
    """The public names that the pages of the reference show, and whether with their members."""
    said = "\n".join(page.read_text() for page in PAGES.glob("*.md"))
    found = re.findall(r"^::: rangeio\.(\w+)\n(    options:.*)?", said + "\n", re.M)
    return {name: "members: false" not in options for name, options in found}


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when its package has been read."""

    def __init__(self) -> None:
        self.shown = shown()
        self.members: dict[str, set[str]] = {}

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe."""
        things = [*walk(pkg)]
        for thing, owner in things:
            if thing is owner and self.shown.get(owner.name):
                told = {name for name, each in owner.all_members.items() if each.has_docstring}
                self.members.setdefault(owner.name, set()).update(told)
        for thing, owner in things:
            if thing.docstring is not None:
                text = listed(thing.docstring.value, names_of(thing))
                thing.docstring.value = self.linked(text, "" if owner is None else owner.name)

    def linked(self, text: str, owner: str) -> str:
        """The same with links to what has an anchor on the pages."""

        def link(found: re.Match[str]) -> str:
            name = found[0].strip("`")
            if name in self.members.get(owner, ()):
                return f"[`{name}`][rangeio.{owner}.{name}]"
            first, _, rest = name.removeprefix("rangeio.").partition(".")
            if first not in self.shown:
                return found[0]
            target = f"{first}.{rest}" if rest in self.members.get(first, ()) else first
            return f"[`{name}`][rangeio.{target}]"

        lines = (line if line.startswith("    ") else CODE.sub(link, line) for line in text.split("\n"))
        return "\n".join(lines)


def walk(module: griffe.Module) -> Iterator[tuple[Any, griffe.Class | None]]:
    """Each class and function of a package, and the class it is a member of."""
    for member in list(module.members.values()):
        if member.is_alias:
            continue
        if isinstance(member, griffe.Module):
            yield from walk(member)
        elif isinstance(member, griffe.Class):
            yield member, member
            yield from ((each, member) for each in member.members.values() if not each.is_alias)
        else:
            yield member, None


def names_of(thing: Any) -> set[str]:
    """What its docstring may describe: arguments of a function, fields and arguments of a class."""
    if isinstance(thing, griffe.Function):
        return {parameter.name for parameter in thing.parameters}
    if isinstance(thing, griffe.Class):
        made = thing.members.get("__init__")
        given = {each.name for each in made.parameters} if isinstance(made, griffe.Function) else set()
        return {*thing.members, *given}
    return set()


def listed(text: str, names: Iterable[str]) -> str:
    """`text` with a list in place of the sentences about `names`."""
    known = set(names)
    return "\n\n".join(
        part if part.startswith("    ") else in_lines(" ".join(part.split()), known)
        for part in text.split("\n\n")
    )


def in_lines(paragraph: str, known: set[str]) -> str:
    """One paragraph, with a list from its first term on."""
    terms = [found for found in TERM.finditer(paragraph) if known.issuperset(found[1].split(", "))]
    if not terms:
        return paragraph
    after = GENERAL.search(paragraph, terms[-1].end())
    last = len(paragraph) if after is None else after.start()
    ends = [found.start() for found in terms[1:]] + [last]
    lines = [paragraph[: terms[0].start()].strip(), ""]
    for found, end in zip(terms, ends, strict=True):
        shown_names = ", ".join(f"**{name}**" for name in found[1].split(", "))
        lines.append(f"- {shown_names}: {paragraph[found.end() : end].strip()}")
    return "\n".join([*lines, "", paragraph[last:]]).strip()
