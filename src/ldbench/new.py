"""python -m ldbench.new KIND=NAME: writes a package with a plug-in, which trains, is measured and ranked at once."""

import ast
import keyword
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ldbench.config import installed
from ldbench.config.compose import conf_dir

KINDS = ("tokenizer", "backbone", "loss", "metric", "job")
GROUPS = {"backbone": ("backbone", "generator")}  # the config groups of a kind, where they are not its own alone
PLACEHOLDER = "example"  # the templates' name, which is replaced by the given one
VALUES = ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf")  # what YAML or Hydra takes for no text
USAGE = f"python -m ldbench.new {{{'|'.join(KINDS)}}}=NAME [folder=DIR]"
FIRST_COMMANDS = {  # after it is installed
    "tokenizer": "python -m ldbench.train tokenizer={name}",
    "backbone": "python -m ldbench.train tokenizer=vmae generator={name}",
    "loss": "python -m ldbench.train tokenizer=ae +loss@tokenizer.losses.{name}={name}",
    "metric": "python -m ldbench.run job=reconstruct tokenizer=vmae 'protocol.reconstruction=[psnr,{name}]'",
    "job": "python -m ldbench.run job={name} tokenizer=vmae",
}


def write_package(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes a package with the plug-in `name` to a new folder and returns its files, relative to it.

    Raises ValueError, with what to do, for an unknown kind, a name that cannot be one, and a folder that exists.
    """
    validate(kind, name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        complete = Path(scratch) / folder.name
        for template in (templates() / "common", templates() / kind):
            for path in sorted(template.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    target = complete / renamed(path.relative_to(template).as_posix(), name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    text = renamed(path.read_text(encoding="utf-8"), name)
                    target.write_text(align_comments(text) if path.suffix == ".md" else text, encoding="utf-8")
        os.rename(complete, folder)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def validate(kind: str, name: str, folder: Path) -> None:
    """Raises ValueError for what `write_package` cannot write."""
    if kind not in KINDS:
        raise ValueError(f"There is no template for {kind!r}. Choose one of {', '.join(KINDS)}: {USAGE}")
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", name):
        raise ValueError(
            f"{kind}={name} cannot be the name of a Python module and of a package. Choose small letters, digits and "
            "underscores that begin with a letter and end with a letter or digit, such as my_blocks."
        )
    if keyword.iskeyword(name) or keyword.iskeyword(title_of(name)):
        raise ValueError(f"{kind}={name} is a word of Python itself. Choose another name, such as my_{name}.")
    if name in VALUES:
        raise ValueError(
            f"{kind}={name} would be read as a value and not as a name. Choose another one, such as my_{name}."
        )
    if title_of(name) in names_in_template(kind):
        raise ValueError(
            f"{kind}={name} would name its class {title_of(name)}, which the template uses for something else. Choose "
            f"another name, such as my_{name}."
        )
    for group in GROUPS.get(kind, (kind,)):
        taken = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
        taken += [option for plugin in installed.installed() for of, option in plugin.options() if of == group]
        if name in taken:
            raise ValueError(f"There is a {group}={name} already. Choose another name.")
    if folder.exists():
        raise ValueError(f"{folder} exists. Remove it, or choose another one with folder=DIR.")


def templates() -> Path:
    """The folder of the templates: inside the installed package, or under `docs` in a checkout."""
    packaged = Path(__file__).parent / "plugin_templates"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "docs" / "plugin-templates"


def names_in_template(kind: str) -> set[str]:
    """The names of classes and values in the Python files of a template, except its own class."""
    found: set[str] = set()
    for path in (templates() / kind).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                found.add(node.asname or node.name)
    return found - {title_of(PLACEHOLDER)}


def title_of(name: str) -> str:
    """The name of a plug-in's class."""
    return "".join(part.capitalize() for part in name.split("_"))


def renamed(text: str, name: str) -> str:
    """A template's text or path with the plug-in's name in place of the template's, all in one pass."""
    names = {
        f"ldbench-{PLACEHOLDER}": f"ldbench-{name.replace('_', '-')}",
        PLACEHOLDER: name,
        title_of(PLACEHOLDER): title_of(name),
    }
    return re.sub("|".join(names), lambda match: names[match[0]], text)


def align_comments(text: str) -> str:
    """A page whose commands have their comments in one column in each block, whatever the names' lengths."""

    def aligned(match: re.Match[str]) -> str:
        lines = [re.split(r" +(?=# )", line, maxsplit=1) for line in match[0].splitlines()]
        width = max((len(line[0]) for line in lines if len(line) == 2), default=0)
        return "\n".join(f"{line[0]:{width}}  {line[1]}" if len(line) == 2 else line[0] for line in lines)

    return re.sub(r"(?<=```bash\n)(?:.|\n)*?(?=\n```)", aligned, text)


def parse(arguments: Sequence[str]) -> tuple[str, str, Path]:
    """The kind, the name and the folder of a command line. Raises ValueError for any other."""
    given = dict(text.partition("=")[::2] for text in arguments)
    kinds = [key for key in given if key != "folder"]
    if len(kinds) != 1 or len(given) != len(arguments) or not given[kinds[0]]:
        raise ValueError(f"Expected one kind and its name, got {' '.join(arguments) or 'nothing'}: {USAGE}")
    name = given[kinds[0]]
    return kinds[0], name, Path(given.get("folder") or f"ldbench-{name.replace('_', '-')}").expanduser()


def main() -> None:
    """Runs the command line."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & {*arguments}:
        sys.stdout.write(f"usage: {USAGE}\n\n{__doc__}\n")
        sys.exit(0 if arguments else 2)
    try:
        kind, name, folder = parse(arguments)
        files = write_package(kind, name, folder)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    lines = [f"Wrote {folder}:", *(f"  {path}" for path in files), "", "Next:"]
    lines += [
        f"  edit {folder / 'src' / f'ldbench_{name}' / f'{name}.py'} and its yaml",
        f"  pip install --editable '{folder}[test]'",
        f"  pytest {folder}",
        f"  {FIRST_COMMANDS[kind].format(name=name)}",
        f"  {folder / 'README.md'} has more",
    ]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
