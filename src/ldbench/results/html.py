"""One page of everything, which needs nothing else: no request leaves it, no script but its own runs in it, and names are only ever text."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from ldbench.results.leaderboards import Board
from ldbench.results.payload import payload
from ldbench.results.published import PaperTable
from ldbench.results.table import Table

PAGE = files("ldbench.results") / "page"
SCRIPTS = (
    "dom.js",
    "state.js",
    "provenance.js",
    "table.js",
    "svg.js",
    "scatter.js",
    "curves.js",
    "predictions.js",
    "sheets.js",
    "published.js",
    "main.js",
)


def render(
    boards: Sequence[Board],
    predictions: Sequence[Table],
    published: Sequence[PaperTable],
    sheets: Mapping[str, Sequence[Path]],
    made: str,
) -> str:
    """The page. `sheets`: record id -> PNG files to show, which are put into it; `made`: when, for people."""
    style = (PAGE / "style.css").read_text()
    script = "(() => {\n'use strict';\n" + "\n".join((PAGE / name).read_text() for name in SCRIPTS) + "\n})();\n"
    policy = f"default-src 'none'; img-src data:; style-src {allowed(style)}; script-src {allowed(script)}; base-uri 'none'; form-action 'none'"
    parts = {
        "POLICY": policy,
        "STYLE": style,
        "SCRIPT": script,
        "DATA": embedded(payload(boards, predictions, published, sheets, made)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], (PAGE / "page.html").read_text())


def allowed(text: str) -> str:
    """How a content security policy names the one inline text that it lets in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded(content: object) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
