"""Every text file is UTF-8 by statement, whatever the locale of a machine is."""

import ast
from pathlib import Path

import pytest

import ldbench

TEXT = {"read_text", "write_text"}
FILES = sorted(Path(ldbench.__file__).parent.rglob("*.py"))


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text: of `open` and `Path.open` if no mode says that it is bytes."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in TEXT:
        return True
    modes = [
        arg.value
        for arg in (*call.args, *(k.value for k in call.keywords if k.arg == "mode"))
        if isinstance(arg, ast.Constant)
    ]
    owner = getattr(getattr(call.func, "value", None), "id", "")
    known = name == "open" and owner not in ("Image", "LatentStore", "os", "archive", "tarfile", "webbrowser")
    return known and not any(isinstance(mode, str) and "b" in mode for mode in modes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_file_has_an_encoding(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    missing = [
        call.lineno
        for call in calls
        if opens_text(call) and not any(keyword.arg == "encoding" for keyword in call.keywords)
    ]
    assert missing == []
