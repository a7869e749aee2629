"""References made from the declarations: the command line's from its options, Python's from signatures and docstrings.

Nothing here knows a command, an option or a function by name.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer

import diffscope
from diffscope.cli.app import build_app

# --- the command line


def command_pages() -> dict[str, str]:
    """Name of a command → its page, in the order of `diffscope --help`; under `index` the list of them."""
    root: Any = typer.main.get_command(build_app())
    context = root.make_context("diffscope", [], resilient_parsing=True)
    commands = {name: root.commands[name] for name in root.list_commands(context)}
    listed = [f"[`{name}`]({name}.md)\n:   {command.get_short_help_str(200)}\n" for name, command in commands.items()]
    index = "\n".join(["# Command line", "", text_of(root.help), "", *listed])
    return {"index": index, **{name: command_page(name, command, context) for name, command in commands.items()}}


def command_page(name: str, command: Any, parent: Any) -> str:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    usage = " ".join(["diffscope", name, *command.collect_usage_pieces(context)])
    parts = [f"# {name}", "", *_help_of(command.help), "", "```text", usage, "```", ""]
    for heading, params in _grouped(command.get_params(context)).items():
        parts += [f"## {heading}", "", *(entry for param in params for entry in _option(param, context))]
    return "\n".join(parts)


def _help_of(text: str) -> Iterator[str]:
    """Paragraphs of a command's help, the example at their end as a block."""
    explanation, _, example = inspect.cleandoc(text).partition("Example:")
    yield text_of(explanation)
    if example:
        yield f"\n```console\n$ {' '.join(example.split())}\n```"


def _grouped(params: list[Any]) -> dict[str, list[Any]]:
    """Parameters by the heading that the help gives them, in its order; those without one come last."""
    groups: dict[str, list[Any]] = {"Arguments": []}
    for param in params:
        if not getattr(param, "hidden", False):
            own = getattr(param, "rich_help_panel", None)
            usual = "Arguments" if param.param_type_name == "argument" else "Options"
            groups.setdefault(own or usual, []).append(param)
    without = groups.pop("Options", [])
    return {heading: found for heading, found in {**groups, "Options": without}.items() if found}


def _option(param: Any, context: Any) -> list[str]:
    """As the help says it, for a list of definitions."""
    record = param.get_help_record(context)
    if record is None:
        return []
    spelled, explained = (" ".join(part.split()) for part in record)
    spelled = re.sub(r" <[^>]+>", "", spelled)  # a type where the option has no name for its value
    explained = re.sub(r" *\[(required|(?:env var|default): .*)\]$", _extra, explained)
    return [f"`{spelled}`", f":   {escaped(explained)}", ""]


def _extra(found: re.Match[str]) -> str:
    """What the help says in brackets, as a sentence."""
    said = re.sub(r"default: \((.*)\)", r"default: \1", found[1])
    return f" {said[0].upper()}{said[1:]}."


# --- Python

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "Note")


@dataclass
class Docstring:
    """A docstring in Google's form."""

    text: str = ""
    entries: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Section → (name, explanation); a section of prose has one entry without a name."""


def api_page() -> str:
    """All public names of the package, then the classes of ours that they return."""
    public = {name: getattr(diffscope, name) for name in public_names()}
    returned = {
        cls.__name__: cls for thing in public.values() for cls in _returned_classes(thing) if cls not in public.values()
    }
    parts = ["# Python", "", text_of(inspect.getdoc(diffscope) or ""), ""]
    for name, thing in public.items():
        parts += described(f"diffscope.{name}", thing)
    if returned:
        parts += ["# What comes back", ""]
    for name, cls in sorted(returned.items()):
        parts += described(name, cls)
    return "\n".join(parts)


def public_names() -> list[str]:
    """What `dir(diffscope)` shows that can be called."""
    return [
        name
        for name in dir(diffscope)
        if not name.startswith("_") and callable(getattr(diffscope, name)) and not inspect.ismodule(name)
    ]


def described(name: str, thing: Any) -> list[str]:
    """A function or a class: signature, docstring, and a class's fields, properties and methods."""
    parts = [f"## {escaped(name)}", "", "```python", signature_of(name, thing), "```", ""]
    parts += sections(inspect.getdoc(thing))
    if inspect.isclass(thing):
        fields = field_texts(thing)
        parts += [entry for key, text in fields.items() for entry in (f"`{key}`", _definition(text), "")]
        for key, member in _members(thing):
            parts += [f"### {escaped(name.rpartition('.')[2])}.{escaped(key)}", ""]
            if callable(member):
                parts += ["```python", signature_of(key, member), "```", ""]
            parts += sections(inspect.getdoc(member))
    return parts


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of its own that say what they are for."""
    for key, member in vars(cls).items():
        plain = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        is_shown = (key == "__call__" or not key.startswith("_")) and inspect.getdoc(plain)
        if is_shown and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield key, plain


def signature_of(name: str, thing: Any) -> str:
    """On a line, or a line a parameter."""
    signature = inspect.signature(thing)
    if inspect.isclass(thing):
        signature = signature.replace(return_annotation=signature.empty)
    whole = f"{name}{_unquoted(str(signature))}"
    if len(whole) <= 80:
        return whole
    lines, keyword_only = list[str](), False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            lines, keyword_only = [*lines, "    *,"], True
        lines.append(f"    {_unquoted(str(parameter))},")
    returns = signature.return_annotation
    arrow = "" if returns is signature.empty else f" -> {_unquoted(inspect.formatannotation(returns))}"
    return "\n".join([f"{name}(", *lines, f"){arrow}"])


def _unquoted(text: str) -> str:
    """Annotations as they are written: `from __future__ import annotations` makes strings of them."""
    text = re.sub(r"(?<=: )'([^']*)'(?=[,)=]| =|$)", r"\1", text)
    text = re.sub(r"(?<=-> )'([^']*)'$", r"\1", text)
    return re.sub(r"^'([^']*)'$", r"\1", text)


def sections(docstring: str | None) -> list[str]:
    """Markdown of a docstring."""
    parsed = parse(docstring or "")
    parts = [text_of(parsed.text), ""] if parsed.text else []
    for section, entries in parsed.entries.items():
        if section.startswith("Example"):
            parts += ["```python", *(text for _, text in entries), "```", ""]
            continue
        parts += [f"**{section}**", ""]
        for name, text in entries:
            parts += [f"`{name}`", _definition(text), ""] if name else [text_of(text), ""]
    return parts


def parse(docstring: str) -> Docstring:
    """The sections of Google's form: a heading with a colon, what belongs to it indented."""
    found, current = Docstring(), ""
    lines: dict[str, list[str]] = {"": []}
    for line in docstring.splitlines():
        heading = re.fullmatch(r"(\w+):", line)
        if heading and heading[1] in SECTIONS:
            current = heading[1]
        elif current and line and not line.startswith(" "):
            current = ""
        if not (heading and heading[1] in SECTIONS):
            lines.setdefault(current, []).append(line)
    found.text = "\n".join(lines.pop("")).strip()
    for section, body in lines.items():
        text = textwrap.dedent("\n".join(body)).strip("\n")
        named = section in ("Args", "Attributes", "Raises")
        found.entries[section] = _entries(text) if named else [("", text)]
    return found


def _entries(text: str) -> list[tuple[str, str]]:
    """`name: what it is`, its further lines indented; a type in parentheses belongs to the name."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        match = re.match(r"(\*{0,2}\w[\w.]*(?:, \*{0,2}\w+)*(?: \([^)]*\))?): (.*)", line)
        if match:
            found.append((match[1], match[2]))
        elif found and line.strip():
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def field_texts(cls: type) -> dict[str, str]:
    """Annotated fields of a class's body and the strings beneath them."""
    (body,) = (node for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body)
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            text = _string(following)
            found[f"{node.target.id}: {ast.unparse(node.annotation)}"] = text or ""
    return found


def _string(node: ast.stmt | None) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return None


def _returned_classes(thing: Any) -> Iterator[type]:
    """Classes of ours in what a function, or a class when it is called, returns."""
    called = getattr(thing, "__call__", thing) if inspect.isclass(thing) else thing  # noqa: B004
    returned = inspect.signature(called).return_annotation
    if isinstance(returned, str):
        try:
            returned = typing.get_type_hints(called).get("return")
        except (NameError, TypeError):  # an annotation that only a type checker can read
            return
    for cls in (returned, *typing.get_args(returned)):
        if inspect.isclass(cls) and cls.__module__.startswith("diffscope."):
            yield cls


# --- text


def _definition(text: str) -> str:
    return ":   " + (escaped(" ".join(text.split())) or "\N{NO-BREAK SPACE}")


def text_of(text: str) -> str:
    """Paragraphs as Markdown; indented lines are a block of code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        is_code = all(line.startswith("    ") for line in paragraph.splitlines() if line.strip())
        parts.append(paragraph if is_code else escaped(paragraph))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Plain text in which Markdown and HTML find nothing of theirs; code between backticks stays code."""
    pieces = re.split(r"(`[^`]+`|https?://\S+)", text)
    return "".join(
        piece if piece.startswith(("`", "http")) else re.sub(r"([\\*_<>\[\]|#])", r"\\\1", piece) for piece in pieces
    )
