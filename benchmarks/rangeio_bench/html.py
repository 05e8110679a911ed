"""HTML from Python with one function, which closes all tags and escapes all text."""

from html import escape

TIMES = "\N{MULTIPLICATION SIGN}"


class Markup(str):
    """Text that is already HTML."""


def el(tag: str, *inner: str, **attributes: str | float) -> Markup:
    """``el("p", "a < b", cls="lead")``: a plain str is escaped, Markup is not.

    cls is the class; left, width and colour make a style, the first two in percent.
    """
    style = "".join(
        f"{name}:{attributes.pop(name):.2f}%;"
        for name in ("left", "width")
        if name in attributes and tag != "svg"
    )
    if "colour" in attributes:
        style += f"background:{attributes.pop('colour')}"
    if style:
        attributes["style"] = style
    named = "".join(f' {_NAMES.get(name, name)}="{escape(str(value))}"' for name, value in attributes.items())
    text = join(*inner)
    return Markup(f"<{tag}{named}>" if tag in _VOID else f"<{tag}{named}>{text}</{tag}>")


_NAMES = {"cls": "class"}
_VOID = ("meta",)


def join(*parts: str) -> Markup:
    """All parts in a row, escaped as `el` does."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))
