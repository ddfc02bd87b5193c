"""An extension of griffe that makes Markdown of our docstrings, with the shapes that stand beside arguments."""

import inspect
import re
import textwrap
from typing import Any

from griffe import Attribute, Class, Docstring, Extension, Function, Module, Object

SOURCE = re.compile(r"\[\d+\] ")  # a line that cites: [0] ...
# a line that begins an entry of its own, if the line before has ended: `name`: ..., name: ..., Raises ...
ENTRY = re.compile(r"`[^`]+`(, `[^`]+`)*: |[a-z_]\w*: |Raises |Returns ")
ENDED = (".", ":", ";", ")")
ARGUMENT = re.compile(r"^    \*{0,2}(\w+): .*?(?:,|\S)  # (.+)$", re.MULTILINE)
RETURNED = re.compile(r"^\) -> .*:  # (.+)$", re.MULTILINE)
FIELD = re.compile(r".*?  # (.+)")


def to_markdown(text: str) -> str:
    """Returns a docstring as Markdown: each entry on a line of its own, indented examples as code, and `<` as text."""
    lines: list[str] = []
    in_code = False
    for line in inspect.cleandoc(text).splitlines():
        before = lines[-1] if lines else ""
        indented = line.startswith("    ")
        if in_code and line and not indented:
            lines += ["```", ""]
            in_code = False
        elif indented and not in_code and re.match(r"Examples?:$", before):
            lines += ["", "```python"]
            in_code = True
        if in_code:
            lines.append(line.removeprefix("    "))
            continue
        if before and (SOURCE.match(line) or (before.endswith(ENDED) and ENTRY.match(line))):
            lines[-1] = f"{before}  "  # a line break
        lines.append(escaped(line))
    return "\n".join([*lines, "```"] if in_code else lines)


def escaped(line: str) -> str:
    """Returns a line in which nothing but code and addresses is markup."""
    parts = re.split(r"(`[^`]*`|https?://\S*[\w/])", line)
    return "".join(
        part if part.startswith("`") else f"<{part}>" if part.startswith("http") else re.sub(r"[<*_]", escape, part)
        for part in parts
    )


def escape(found: re.Match[str]) -> str:
    """Returns a character as text."""
    return "&lt;" if found[0] == "<" else f"\\{found[0]}"


def comments_of(source: str) -> list[str]:
    """Returns what the comments beside a function's arguments and its result say, as entries of a docstring."""
    end = re.search(r"^\).*$", source, re.MULTILINE)
    if end is None:  # a signature of one line
        return []
    entries = [f"`{name}`: {comment}" for name, comment in ARGUMENT.findall(source[: end.start()])]
    return entries + [f"returns {comment}" for comment in RETURNED.findall(end[0])]


class DocstringMarkdown(Extension):
    """Rewrites the docstrings of what is loaded; a comment beside an attribute becomes its docstring."""

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Called by griffe with the loaded package."""
        self.rewrite(pkg)

    def rewrite(self, node: Object) -> None:
        """Rewrites the docstrings of an object and of its members."""
        if node.docstring is not None:
            node.docstring.value = to_markdown(node.docstring.value)
        if isinstance(node, Function):
            self.add_comments(node)
        if isinstance(node, Attribute) and node.docstring is None and isinstance(node.parent, Class):
            comment = FIELD.fullmatch(node.source.rstrip()) if node.source.count("\n") == 0 else None
            if comment:
                node.docstring = Docstring(escaped(comment[1]), parent=node)
        for member in node.members.values():
            if not member.is_alias:
                self.rewrite(member)

    def add_comments(self, node: Function) -> None:
        """Adds the shapes of arguments to the docstring of a function."""
        entries = comments_of(textwrap.dedent(node.source))
        if entries and node.docstring is not None:
            shapes = "  \n".join(escaped(entry) for entry in entries)
            node.docstring.value = f"{node.docstring.value}\n\n{shapes}"
