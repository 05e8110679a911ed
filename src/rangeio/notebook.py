"""What notebooks show of plans and counters (`_repr_html_`): tables without styles and scripts."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in HTML; all texts are escaped."""
    from html import escape  # not with `import rangeio`: it brings every name of HTML

    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(_cell(value, escape) for value in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object, escape: Callable[[str], str]) -> str:
    if isinstance(value, int):
        return f'<td style="text-align:right">{value:,}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"


class Stats(dict[str, int]):
    """Counters by name; a notebook shows them as a table."""

    def __init__(self, title: str, *groups: Mapping[str, int]) -> None:
        for group in groups:
            self.update(group)
        self.title = title

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def _repr_html_(self) -> str:
        return table(self.title, ("counter", "value"), self.items())
