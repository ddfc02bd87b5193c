"""The leaderboard as one self-contained page: no requests, no other scripts, and names as text only."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from ldbench.results.image_comparison import ImageComparison
from ldbench.results.leaderboards import Leaderboard
from ldbench.results.payload import payload
from ldbench.results.provenance_payload import provenance_of
from ldbench.results.published import PaperTable
from ldbench.results.table import Table

PAGE = files("ldbench.results") / "page"
SCRIPTS = (
    "dom.js",
    "state.js",
    "provenance.js",
    "rows.js",
    "table.js",
    "svg.js",
    "scatter.js",
    "curves.js",
    "text_tables.js",
    "comparisons.js",
    "sheets.js",
    "published.js",
    "main.js",
)


def render(
    boards: Sequence[Leaderboard],
    predictions: Sequence[Table],
    published: Sequence[PaperTable],
    sheets: Mapping[str, Sequence[Path]],
    created: str,
    comparisons: Sequence[tuple[Leaderboard, ImageComparison]] = (),
) -> str:
    """The page. `sheets`: record id -> PNG files, which are embedded; `created`: the time to show; `comparisons`:
    images of the models of leaderboards side by side.
    """
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    script = (
        "(() => {\n'use strict';\n"
        + "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
        + "\n})();\n"
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {policy_source(style)}; script-src {policy_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "STYLE": style,
        "SCRIPT": script,
        "PROVENANCE": script_json(provenance_of(boards)),
        "DATA": script_json(payload(boards, predictions, published, sheets, created, comparisons)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (PAGE / "page.html").read_text(encoding="utf-8"))


def policy_source(text: str) -> str:
    """The source of a content security policy that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def script_json(content: object) -> str:
    """JSON for a script element: nothing in it ends the element or starts a comment."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
