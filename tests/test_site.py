"""The site of docs/ builds without warnings and network, its links lead somewhere, and its reference is complete."""

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from ldbench.__main__ import COMMANDS
from ldbench.config.compose import conf_dir
from tests import built_site

pytest.importorskip("mkdocs", reason="pip install 'ldbench[docs]'")
pytest.importorskip("mkdocstrings", reason="pip install 'ldbench[docs]'")

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def site(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The folder of the built site, one for all processes of a test run."""
    return made_once("site", built_site.build)


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[key] for key in ("id", "name") if key in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        elif tag == "link" and "href" in known:
            self.loaded.append(known["href"])
        if "src" in known:
            self.loaded.append(known["src"])


@cache
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site by its path; 404.html, which is shown at any address, is left out."""
    return {
        path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html")) if path.name != "404.html"
    }


def module_of(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_the_build_has_nothing_to_say(site: Path) -> None:
    assert (site / "build.log").read_text() == ""
    assert len(pages(site)) > 80


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    written = {
        path.relative_to(ROOT / "docs").with_suffix(".html")
        for path in (ROOT / "docs").rglob("*.md")
        if "plugin-templates" not in path.parts
    }
    assert {site / path for path in written} <= pages(site).keys()


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    broken, checked = [], 0
    for path, page in pages(site).items():
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages(site) and anchor not in pages(site)[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken
    assert checked > 1000


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {link for page in pages(site).values() for link in page.loaded}
    assert not [link for link in loaded if urlsplit(link).scheme not in ("", "data") or link.startswith("//")]
    sheets = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)'\"]+", sheets)


def test_every_option_is_in_the_reference_with_its_yaml(site: Path) -> None:
    reference = module_of("build_reference")
    groups = {path.parent.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")} - {"."}
    groups |= {"experiments"}  # a link, which rglob does not follow
    assert set(reference.GROUPS) == set(reference.config_groups()) == groups
    for group in groups:
        options = {path.stem: path.read_text(encoding="utf-8") for path in (conf_dir() / group).glob("*.yaml")}
        page = site / "reference" / "config" / f"{group.replace('/', '-')}.html"
        assert options
        assert options.keys() <= pages(site)[page].anchors
        markdown = reference.group_page(group, [conf_dir() / group / f"{name}.yaml" for name in options])
        for name, text in options.items():
            assert text.rstrip() in markdown
            assert reference.description_of(text), f"{group}/{name}.yaml does not say what it is"


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = pages(site)[site / "reference" / "commands.html"]
    assert set(COMMANDS) <= page.anchors
    markdown = module_of("build_reference").commands_page()
    for command in COMMANDS:
        assert re.search(rf"^```text\n(usage: )?(python -m ldbench\.|ldbench ){command} ", markdown, re.MULTILINE)
    assert "candidates: 200" in markdown


def public_names() -> Iterator[str]:
    """The public modules, and their public classes and functions, as ruff's D1 knows them."""
    for path in sorted((SOURCE / "ldbench").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            yield ".".join(parts)
            yield from members(ast.parse(path.read_text(encoding="utf-8")), ".".join(parts))


def members(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    """The public classes, functions and methods below a node."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from members(child, f"{prefix}.{child.name}")


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    anchors = {anchor for path, page in pages(site).items() if path.parent.name == "api" for anchor in page.anchors}
    names = set(public_names())
    assert len(names) > 2000
    assert not sorted(names - anchors)


def test_a_docstring_becomes_markdown() -> None:
    to_markdown = module_of("docstring_markdown").to_markdown
    assert to_markdown("A path.\n\n    `t`: times, a * b.\n    `n`: a number.") == (
        "A path.\n\n`t`: times, a \\* b.  \n`n`: a number."
    )
    assert to_markdown("A loss, eq. 1 of [0].\n\n[0] A, https://a.org/x_y(1)2 (b)\n[1] B (http://b.org).") == (
        "A loss, eq. 1 of [0].\n\n[0] A, <https://a.org/x_y(1)2> (b)  \n[1] B (<http://b.org>)."
    )
    assert to_markdown("Runs.\n\nExample:\n    run(**a)\n\nSee <name>, `<digest>`.") == (
        "Runs.\n\nExample:\n\n```python\nrun(**a)\n\n```\n\nSee &lt;name>, `<digest>`."
    )


def test_shapes_beside_arguments_join_the_docstring() -> None:
    source = (
        "def f(\n    z: Tensor,  # (B, N, C)\n    *,\n    n: int = 2,\n) -> Tensor:  # (B,)\n    a: int = 1  # no\n"
    )
    assert module_of("docstring_markdown").comments_of(source) == ["`z`: (B, N, C)", "returns (B,)"]
    assert module_of("docstring_markdown").comments_of("def f(z):\n    a: int = 1  # no\n") == []
