"""README and docs/ are correct: commands and overrides compose, names and links exist, numbers are those of records."""

import ast
import importlib
import itertools
import json
import os
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

import ldbench
from ldbench.__main__ import COMMANDS
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry, conf_dir
from ldbench.core.tokenizer import Tokenizer
from ldbench.new import parse, validate, write_package
from ldbench.pipeline import pipeline

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "plugin-templates" not in path.parts
}
LINKED = {**PAGES} | {
    name: (ROOT / name).read_text()
    for name in ("notebooks/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
}
RECORDS = ROOT / "experiments" / "matrix_digits" / "records"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OVERRIDE = re.compile(r"(~[a-z][\w/@.]*|\+{0,2}[a-z][\w/@.]*=\S+)$")
# a metric's name, a key's end
NOT_OVERRIDES = {"eps=0", "gmm/score/k=50", "gmm/nll_per_dim/k=50", "teaches=projection"} | {
    *("smoothness/ssim/eps=0.1", "smoothness/rfd_digits/eps=0.2", "latents/dct_energy/rho=0.25"),
    "smoothness/rfd_fashion_mnist/eps=0.3",
}
NOT_INSTALLED = {"hydra/launcher=ray"}
GROUPS = ("tokenizer", "data", "experiments")  # every option of these stands on a page
# what an override is added to; None: a page's own plug-in
NEEDS = {"~tokenizer.losses.hog": ["tokenizer=maetok"], "tokenizer=blocks": None, "plugins=[blocks]": None}
NEEDS |= {"tokenizer=mine": None}
# config groups of a generator
PARTS = {"generator", "backbone", "size", "interpolant", "times", "objective", "sampler", "guidance", "latents"}


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks in some languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def spans(text: str) -> list[str]:
    """The code within lines of text."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def shown(pages: dict[str, str], pattern: str) -> set[tuple[str, str]]:
    """What code on a page, in blocks or in lines, names: (page, name)."""
    return {
        (page, name)
        for page, text in pages.items()
        for code in (*blocks(text, "bash", "python"), *spans(text))
        for name in re.findall(pattern, code)
    }


def commands(text: str) -> list[list[str]]:
    """The command lines of a page, split as in a shell: [entry point, its arguments ...]."""
    lines = [line for block in blocks(text, "bash", "console") for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in [
        *(line.removeprefix("$ ") for line in lines),
        *(span for span in spans(text) if span.startswith("python -m ldbench")),
    ]:
        if "ldbench." not in line or line.startswith("#"):
            continue
        words = shlex.split(line, comments=True)
        entries = [
            place
            for place, (flag, word) in enumerate(itertools.pairwise(words))
            if flag == "-m" and word.startswith("ldbench.")
        ]
        found += [[words[place + 1].removeprefix("ldbench."), *words[place + 2 :]] for place in entries]
    return [command for command in found if "<" not in command[0]]


def single(words: list[str]) -> list[list[str]]:
    """A sweep's overrides as single runs, in which each listed value occurs once; one run if it is no sweep."""
    parsed = OverridesParser.create().parse_overrides(words)
    values = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [word]
        for word, override in zip(words, parsed, strict=True)
    ]
    return [[column[place % len(column)] for column in values] for place in range(max(map(len, values), default=1))]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plug-ins that pages show."""
    folder = tmp_path_factory.mktemp("plugin")
    for block in (block for text in PAGES.values() for block in blocks(text, "python", "yaml")):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", block)
        if name:
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(block)
    write_package("tokenizer", "mine", folder / "new")
    return folder


def test_the_readme_is_short_and_it_and_the_index_list_every_page() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150
    pages = {page.removeprefix("docs/") for page in PAGES} - {"README.md", "index.md"}
    table = PAGES["README.md"].split("## Where to read on")[1]
    assert pages == set(re.findall(r"\[[^\]]+\]\(docs/([\w/-]+\.md)\)", table)) - {"index.md"}
    assert pages == set(re.findall(r"^- \[.+?\]\(([\w/-]+\.md)\)", PAGES["docs/index.md"], flags=re.MULTILINE))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", "docs/index.md")])
def test_a_page_begins_with_its_question(page: str) -> None:
    assert re.match(r"# .+\n\nThis page answers: .+\?", PAGES[page])


@pytest.mark.parametrize("page", PAGES)
def test_every_command_composes(page: str, plugin: Path, thorough: bool) -> None:
    for entry, *words in commands(PAGES[page]):
        assert entry in COMMANDS
        if entry == "new":
            validate(*parse(words))
            continue
        foreign = any(word.startswith("hydra.searchpath=") or word == "tokenizer=blocks" for word in words)
        searchpath = [str(plugin / "my_conf")] if foreign else []
        searchpath += [str(plugin / "new" / "src" / "ldbench_mine" / "conf")] if "tokenizer=mine" in words else []
        overrides = [word for word in words if not word.startswith(("-", "hydra.searchpath=")) and word != "job"]
        runs = single(overrides)
        for run in runs if thorough else runs[-1:]:
            assert ldbench.compose(entry, run, searchpath=searchpath)


def overrides() -> Iterator[str]:
    """The overrides that pages show within lines, without commands."""
    for text in PAGES.values():
        for span in spans(text):
            if all(OVERRIDE.match(word) for word in span.removeprefix("-m ").split(" ")) and span not in NOT_OVERRIDES:
                yield span.removeprefix("-m ")


def context(words: list[str]) -> tuple[str, list[str]]:
    """The entry point that knows some overrides, and the options that have their keys, unless these are among them."""
    keys = [re.split(r"[=@]", word.lstrip("+~"), maxsplit=1)[0] for word in words]
    roots = {re.split(r"[./]", key)[0] for key in keys}
    known = {
        entry: set(ldbench.compose(entry)) | set(Registry().options(entry))
        for entry in ("leaderboard", "hub", "doctor")
    }
    named = (entry for entry in known if roots <= known[entry] - {"data", "paths", "trainer"})
    entry = "run" if "job" in roots else next(named, "train")
    base = ["generator=sit"] if entry == "run" or PARTS & roots else []
    for group in ("job", "data", "logger", "tokenizer"):
        asked = {key.split(".")[1] for key in keys if key.startswith(f"{group}.")} - {
            "model",
            "stages",
            "losses",
            "seed",
            "name",
        }
        if asked and group not in keys:
            base += [next(f"{group}={name}" for name, raw in Registry().options(group).items() if asked <= raw.keys())]
    return entry, [option for option in base if option.partition("=")[0] not in keys]


@pytest.mark.parametrize(
    "override", sorted(set(overrides()) - NOT_INSTALLED - {word for word, base in NEEDS.items() if base is None})
)
def test_every_override_composes(override: str) -> None:
    words = override.split(" ")
    group, _, name = override.partition("=")
    if (conf_dir() / group).is_dir() and name.isidentifier():  # tests/contracts compose every option
        assert name in Registry().options(group)
        return
    entry, base = context(words)
    for run in single(words):
        assert ldbench.compose(entry, [*base, *NEEDS.get(override, []), *run])


def test_there_are_commands_and_overrides_to_check() -> None:
    assert len([command for text in PAGES.values() for command in commands(text)]) >= 60
    assert len(set(overrides())) >= 80


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_on_a_page(group: str) -> None:
    named = {
        name
        for text in PAGES.values()
        for code in (*spans(text), *blocks(text, "bash"))
        for name in re.findall(r"\w+", code)
    }
    assert not Registry().options(group).keys() - named


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_options_name_options(page: str) -> None:
    for group, rows in re.findall(r"^\| `(\w+)=` \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGES[page], flags=re.MULTILINE):
        named = {name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
        assert named <= Registry().options(group).keys()


def test_the_parts_of_a_generator_are_the_options_of_their_groups() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGES["docs/generators.md"], flags=re.MULTILINE
    )
    assert len(rows) == 7
    for group, named, *chosen in rows:
        known = Registry().options(group).keys()
        options = {option for pattern in re.findall(r"`(.+?)`", named) for option in expanded(pattern)}
        assert options <= known
        assert "papers'" in named or options == known, group
        for macro, option in zip(("dit", "sit", "lightningdit", "ditdh"), chosen, strict=True):
            defaults = Registry().options("generator")[macro]["defaults"]
            assert group == "size" or {f"override /{group}": option.strip("`")} in defaults


def expanded(pattern: str) -> list[str]:
    """a_{b,c} -> a_b, a_c."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = shown(LINKED, r"\bmake ([a-z][a-z-]*)")
    assert len(named) >= 10
    assert not [(page, target) for page, target in named if target not in targets]
    assert targets - {"help"} <= {target for _, target in named}


def test_every_file_exists() -> None:
    named = shown(LINKED, r"(?<![\w/.])((?:tests|conf|experiments|src|notebooks|docs)/[\w./-]*)")
    assert len(named) >= 20
    assert not [(page, path) for page, path in named if not (ROOT / path).exists()]


def test_every_name_of_the_package_exists() -> None:
    named = shown(LINKED, r"\bldbench(?:\.\w+)+")
    assert len(named) >= 20
    for page, name in named:
        try:
            assert pkgutil.resolve_name(name) is not None
        except (ImportError, AttributeError) as error:
            raise AssertionError(f"{page} names {name}") from error


@pytest.mark.parametrize("page", LINKED)
def test_every_link_leads_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", LINKED[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.is_file(), target
        if anchor:
            assert anchor in anchors(path.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_python_parses(page: str) -> None:
    for block in blocks(PAGES[page], "python"):
        ast.parse(block)


def test_figures_are_those_of_the_records() -> None:
    checked = 0
    for text in PAGES.values():
        for block in blocks(text, ""):
            for shown_record in re.split(r"^(?=Measured)", block, flags=re.MULTILINE):
                path = re.match(r"Measured.*: records/(\S+\.json)", shown_record)
                if path is None:
                    continue
                metrics = json.loads((RECORDS / path[1]).read_text())["metrics"]
                for name, value, interval in re.findall(
                    r"^  (\S+) +([-\d.e]+)(?:  \(95 % interval (.+)\))?$", shown_record, flags=re.MULTILINE
                ):
                    checked += 1
                    assert float(value) == pytest.approx(metrics[name]["value"], rel=1e-3), name
                    if interval:
                        ends = [float(end) for end in interval.split(" to ")]
                        assert ends == pytest.approx(
                            [metrics[name]["low"], metrics[name]["high"]], rel=1e-3, abs=1e-9
                        ), name
    assert checked >= 30


def test_the_plugin_of_the_page_encodes_and_decodes(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(os.fspath(plugin))
    importlib.invalidate_caches()
    cfg = ldbench.compose("train", ["tokenizer=blocks"], searchpath=[str(plugin / "my_conf")])
    tokenizer = instantiate(cfg.tokenizer.model, image_size=cfg.tokenizer.image_size)
    assert isinstance(tokenizer, Tokenizer)
    images = torch.zeros(2, 3, 32, 32)
    assert tokenizer.decode(tokenizer.encode(images).mean).shape == tokenizer(images).images.shape == images.shape
    with pytest.raises(ValueError, match="does not support masks"):
        tokenizer(images, mask_ratio=0.5)


def test_the_metric_of_the_page_is_zero_for_equal_images_and_the_step_of_an_edge(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(os.fspath(plugin))
    importlib.invalidate_caches()
    metric = instantiate(Registry((str(plugin / "my_conf"),)).option("metric", "edges"))
    flat, edge = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8)  # (B, C, H, W) each
    edge[..., 4:] = 255  # one of the 7 steps in each row
    assert metric(edge, edge).tolist() == [0]
    assert metric(edge, flat).tolist() == pytest.approx([1 / 14])


def test_the_mistake_that_is_shown_is_answered_so(tmp_path: Path) -> None:
    ((entry, *words),) = [
        command for command in commands(PAGES["docs/getting-started.md"]) if "tokenizer.model.patch_size=7" in command
    ]
    with pytest.raises(ValueError, match="does not divide") as answered:
        pipeline.train(ldbench.compose(entry, [*words, f"paths.root={tmp_path}"]))
    assert str(answered.value) in PAGES["docs/getting-started.md"]


def test_the_architecture_page_lists_every_package() -> None:
    source = ROOT / "src" / "ldbench"
    table = PAGES["docs/architecture.md"].split("| level |")[1].split("\n\n")[0]
    packages = {path.name for path in source.iterdir() if (path / "__init__.py").is_file()}
    assert set(re.findall(r"`(\w+)/`", table)) == packages
    modules = set(re.findall(r"`(\w+)`", "".join(row.split("|")[2] for row in table.splitlines()[2:])))
    assert not [name for name in modules if not (source / f"{name}.py").is_file()]
