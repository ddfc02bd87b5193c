"""Hooks of mkdocs: pages of the reference made from what they describe, and links that lead out of docs/.

`mkdocs.yml` names this file. At each build it writes, into the site alone,

- a page for each config group, from the yamls of `conf/`;
- a page of the commands, from `ldbench.__main__.COMMANDS` and the yaml of each;
- a page for each package of `src/ldbench`, which mkdocstrings fills from the docstrings.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docstring_markdown import escaped
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

from ldbench.__main__ import COMMANDS
from ldbench.config.compose import conf_dir

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ldbench"
CONF = conf_dir()
LINK_OUT = re.compile(r"\[`?([^\]`]+)`?\]\(\.\./[^)]+\)")  # from a page of docs/ to a file outside
ON_GITHUB = re.compile(r"The site that `make docs` builds.*?(?=\n\n)", re.DOTALL)
BELOW_THE_REST = "---\nsearch:\n  boost: 0.3\n---\n"  # a search finds pages that explain before those that list
REFERENCE = """- [Commands](reference/commands.md): which commands there are, and which settings each takes.
- [Config groups](reference/config/index.md): every option of every group, with its defaults.
- [Python API](reference/api/index.md): every public module, class and function."""

GROUPS = {
    "backbone": "a generator's network",
    "budget": "the fixed budget of the small generator that some measurements train",
    "callbacks": "what a training logs and saves beside its result",
    "course": "how a generator is trained: steps, batch size, optimizer, weight averages",
    "data": "labeled images in two splits",
    "discriminator": "the network of an adversarial loss term",
    "distribution": "metrics of sets of images, on the features of an extractor",
    "experiments": "whole compositions, such as a paper's recipe",
    "extractor": "the networks whose features sets of images are compared on",
    "generator": "macros that choose all parts of a generator",
    "generator_loss": "losses on the tokens inside a backbone, for training alone",
    "guidance": "a field that follows labels more closely",
    "hydra/launcher": "where the runs of a sweep are started",
    "hydra/sweeper": "what checks and orders the runs of a sweep",
    "interpolant": "the path from noise to data",
    "job": "measurements",
    "logger": "where a training is logged besides its CSV file",
    "loss": "terms of a tokenizer's training loss",
    "mask": "how many patches are hidden from a tokenizer's encoder",
    "metric": "numbers for each image, from originals and reconstructions",
    "network": "the small classifier of a dataset, trained on first use unless it comes with the package",
    "objective": "what a backbone learns",
    "optimizer": "optimizers and their schedules",
    "paths": "where results are stored",
    "protocol": "how something is measured",
    "sampler": "from noise to latents along a field",
    "size": "the papers' sizes of backbones",
    "stage": "one phase of a tokenizer's training",
    "teacher": "features of images that a loss term uses as targets",
    "times": "the distribution of training times",
    "tokenizer": "image to latent, and latent to image",
    "trainer": "devices, precision and other settings of a training that are no recipe",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the generated pages to the section Reference of the navigation, and makes anchors as GitHub does."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    reference.append({"Commands": "reference/commands.md"})
    groups = {"Overview": "reference/config/index.md"} | {
        group: config_path(group) for group in sorted(config_groups())
    }
    reference.append({"Config groups": [{title: path} for title, path in groups.items()]})
    packages = {"Overview": "reference/api/index.md"} | {name: api_path(name) for name in packages_of_modules()}
    reference.append({"Python API": [{title: path} for title, path in packages.items()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for path, text in reference_pages():
        files.append(File.generated(config, path, content=BELOW_THE_REST + text))
    return files


def on_page_markdown(markdown: str, page: Page, **kwargs: Any) -> str:
    """Shows a link to a file outside of docs/ as the file's name, and links the reference where it is mentioned."""
    if page.file.src_uri == "index.md":
        return ON_GITHUB.sub(REFERENCE, markdown)
    return LINK_OUT.sub(r"`\1`", markdown) if "/" not in page.file.src_uri else markdown


def reference_pages() -> Iterator[tuple[str, str]]:
    """Yields every generated page: its path in docs/, and its Markdown."""
    yield "reference/commands.md", commands_page()
    groups = config_groups()
    yield "reference/config/index.md", groups_page(groups)
    for group, options in groups.items():
        yield config_path(group), group_page(group, options)
    modules = packages_of_modules()
    yield "reference/api/index.md", packages_page(modules)
    for name, members in modules.items():
        yield api_path(name), package_page(name, members)


# ---- config groups


def config_groups() -> dict[str, list[Path]]:
    """Returns the yaml of every option, by config group."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(CONF.iterdir()):
        for below in (folder, *sorted(folder.iterdir())) if folder.is_dir() else ():
            options = sorted(below.glob("*.yaml")) if below.is_dir() else []
            if options:
                found[below.relative_to(CONF).as_posix()] = options
    return found


def config_path(group: str) -> str:
    """Returns the path of a group's page."""
    return f"reference/config/{group.replace('/', '-')}.md"


def description_of(text: str) -> str:
    """Returns the first comment line of a yaml, without its `@package`."""
    lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and "@package" not in line]
    return lines[0].rstrip(":") if lines else ""


def groups_page(groups: dict[str, list[Path]]) -> str:
    """Returns the page that lists the config groups."""
    rows = [
        f"| [`{group}`]({Path(config_path(group)).name}) | {GROUPS[group]} | {len(options)} |"
        for group, options in groups.items()
    ]
    return "\n".join(
        [
            "# Config groups",
            "",
            "This page answers: which config groups are there?",
            "",
            "A group is a folder of `conf/`, an option a file in it: `tokenizer=vmae` chooses",
            "`conf/tokenizer/vmae.yaml`, and `tokenizer.seed=1` changes a value that the file sets.",
            "[Commands](../commands.md) says which groups each command takes. A value that a yaml leaves to you is",
            "`???`; `${...}` refers to another value.",
            "",
            "| group | what | options |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def group_page(group: str, options: list[Path]) -> str:
    """Returns the page of a config group: a table of its options, then each with its yaml."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in options}
    rows = [f"| [`{name}`](#{name.lower()}) | {as_cell(description_of(text))} |" for name, text in texts.items()]
    lines = [
        f"# {group}",
        "",
        f"This page answers: which options has `{group}=`, and what do they set by default?",
        "",
        f"The group `{group}`: {GROUPS[group]}.",
        "",
        *("| option | what |", "|---|---|", *rows, ""),
    ]
    for name, text in texts.items():
        built = re.findall(r"^ *_target_: (ldbench\.[\w.]+)$", text, re.MULTILINE)
        classes = ", ".join(f"[`{target}`][{target}]" for target in dict.fromkeys(built) if is_public(target))
        lines += [f"## {name}", ""]
        lines += [f"Builds {classes}.", ""] if classes else []
        lines += [f'```yaml title="conf/{group}/{name}.yaml"', text.rstrip(), "```", ""]
    return "\n".join(lines)


def as_cell(text: str) -> str:
    """Returns text as a cell of a table, in which nothing but code and addresses is markup."""
    return re.sub(r"([|\[\]])", r"\\\1", escaped(text))


def is_public(target: str) -> bool:
    """Returns whether a dotted name of ours stands on a page of the Python API under this name."""
    module, _, name = target.rpartition(".")
    path = ROOT / "src" / Path(*module.split("."))
    source = path.with_suffix(".py")
    return (
        source.is_file() and re.search(rf"^(class|def) {name}\b", source.read_text(encoding="utf-8"), re.M) is not None
    )


# ---- commands


def commands_page() -> str:
    """Returns the page of the commands: usage, groups, keys and examples of each entry point."""
    lines = [
        "# Commands",
        "",
        "This page answers: which commands are there, and which settings does each take?",
        "",
        "`ldbench NAME` is the same as `python -m ldbench.NAME`. Settings are [Hydra](https://hydra.cc) overrides:",
        "`GROUP=OPTION` chooses a file of a [config group](config/index.md), `KEY=VALUE` sets a value.",
        "`--help` lists the groups with their options, `--cfg job` prints the whole config.",
        "",
    ]
    for command in COMMANDS:
        configured = (CONF / f"{command}.yaml").is_file()
        lines += command_section(command) if configured else plain_section(command)
    shared = (CONF / "entry.yaml").read_text(encoding="utf-8")
    lines += ["## Keys of every command with a config", "", "```yaml", own_keys(shared), "```", ""]
    return "\n".join(lines)


def command_section(command: str) -> list[str]:
    """Returns the section of one entry point."""
    text = (CONF / f"{command}.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    shown = raw["hydra"]["help"]
    footer = shown["footer"].splitlines()
    examples = [line.strip() for line in footer if line.startswith("  ")]
    remarks = [line for line in footer[1:] if not line.startswith("  ")]
    usage = re.search(r"usage: (.+)", shown.get("template", "")) or re.search(
        r"usage: (.+)", (CONF / "entry.yaml").read_text(encoding="utf-8")
    )
    assert usage is not None
    rows = [f"| {group} | {default} |" for group, default in choices(text)]
    return [
        f"## {command}",
        "",
        f"{shown['header']}".replace(f"python -m ldbench.{command}", f"`python -m ldbench.{command}`"),
        "",
        "```text",
        usage[1].replace("${hydra.help.app_name}", f"ldbench.{command}"),
        "```",
        "",
        *(
            ["Groups, with the option that each has by default:", "", "| group | default |", "|---|---|"]
            if rows
            else []
        ),
        *(*rows, ""),
        *("Keys, with their defaults:", "", "```yaml", own_keys(text), "```", ""),
        *("Examples:", "", "```bash", *examples, "```", ""),
        *remarks,
        "",
    ]


def plain_section(command: str) -> list[str]:
    """Returns the section of an entry point without a config: what it is for, and its own help."""
    words = [sys.executable, "-m", f"ldbench.{command}", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [f"## {command}", "", f"`ldbench {command}`: {COMMANDS[command]}.", "", "```text", shown.strip(), "```", ""]


def choices(text: str) -> Iterator[tuple[str, str]]:
    """Yields the groups of a command's yaml with their default options, as cells of a table."""
    groups = config_groups()
    for entry in yaml.safe_load(text)["defaults"]:
        if not isinstance(entry, dict):
            continue
        ((key, value),) = entry.items()
        key = key.removeprefix("override ").removeprefix("optional ")
        group = key.partition("@")[0]
        if group not in groups:
            continue
        page = Path(config_path(group)).relative_to("reference").as_posix()
        if value is None:
            shown = "none"
        elif "$" in value:
            shown = f"that of the name of `{value.strip('${}')}=`"
        else:
            shown = f"[`{value}`]({page}#{value})"
        yield f"[`{key}`]({page})", shown


def own_keys(text: str) -> str:
    """Returns the part of a command's yaml that sets its own keys, with comments."""
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    return "".join(block for block in blocks[1:] if not block.startswith(("defaults:", "hydra:"))).strip()


# ---- Python API


def packages_of_modules() -> dict[str, list[str]]:
    """Returns the dotted names of all public modules, by the package whose page they stand on; packages come first."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        package = ".".join(parts[:-1])
        if parts[-1] == "__init__":
            found.setdefault(package, []).insert(0, package)
        elif not any(part.startswith("_") for part in parts):
            found.setdefault(package, []).append(".".join(parts))
    return dict(sorted(found.items()))


def api_path(package: str) -> str:
    """Returns the path of a package's page."""
    return f"reference/api/{package}.md"


def packages_page(modules: dict[str, list[str]]) -> str:
    """Returns the page that lists the packages."""
    rows = [f"| [`{name}`]({Path(api_path(name)).name}) | {as_cell(first_line(name))} |" for name in modules]
    return "\n".join(
        [
            "# Python API",
            "",
            "This page answers: which packages and modules are there?",
            "",
            "The functions for users are those of [`ldbench`](ldbench.md), see [From Python](../../python-api.md).",
            "Everything else is for those who read or extend the code ([Architecture](../../architecture.md)).",
            "",
            *("| package | what |", "|---|---|", *rows, ""),
        ]
    )


def first_line(package: str) -> str:
    """Returns the first sentence of a package's docstring."""
    path = PACKAGE.parent / Path(*package.split(".")) / "__init__.py"
    text = path.read_text(encoding="utf-8")
    docstring = re.match(r'"""(.+?)(?:"""|\n\n)', text, re.DOTALL)
    return " ".join(docstring[1].split()) if docstring else ""


def package_page(name: str, modules: list[str]) -> str:
    """Returns the page of a package, which mkdocstrings fills."""
    return "\n".join(
        [
            f"# {name}",
            "",
            f"This page answers: what do the modules of `{name}` hold?",
            "",
            *(line for module in modules for line in (f"::: {module}", "")),
        ]
    )
