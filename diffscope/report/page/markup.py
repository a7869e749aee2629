"""HTML from Python: elements whose text is escaped, wherever it comes from."""

from __future__ import annotations

from html import escape

from diffscope.names import visible


class Markup(str):
    """HTML as it stands; any other text is escaped where it becomes part of an element."""


def element(name: str, *children: str, **attributes: str | bool | None) -> Markup:
    """An element with its children.

    Args:
        name: Of the tag.
        children: Elements as they are, and texts, which are escaped and in which hidden characters are shown.
        attributes: An underscore at the end, as in `class_`, is left off, others stand for hyphens; True is an
            attribute without a value, and False or None is left out.
    """
    given = {
        key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value not in (None, False)
    }
    said = "".join(
        f" {key}" if value is True else f' {key}="{escape(visible(str(value)))}"' for key, value in given.items()
    )
    inside = "".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup(f"<{name}{said}>" if name in VOID else f"<{name}{said}>{inside}</{name}>")


VOID = ("img", "input", "meta", "br")
"""Elements that have no end."""
