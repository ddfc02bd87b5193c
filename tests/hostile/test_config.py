"""Untrusted config folders on the search path, and overrides: no tag is built, no alias fills the memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf.errors import OmegaConfBaseException

import ldbench
from ldbench.config.compose import Registry
from ldbench.config.error_messages import error_message

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))]
)

YAML: dict[str, str | bytes] = {
    "a call of os.system": "a: !!python/object/apply:os.system ['touch TRAP']",
    "an object": "a: !!python/object/new:subprocess.Popen [['touch', 'TRAP']]",
    "a module": "a: !!python/module:antigravity ''",
    "a name of Python": "a: !!python/name:os.system ''",
    "a tag of its own": "a: !evil 1",
    "aliases that fill the memory": LAUGHS,
    "an alias of itself": "a: &a [*a]",
    "aliases merged into each other": "a: &a {x: 1}\nb: {<<: [" + ", ".join(["*a"] * 40) + "]}",
    "a key twice": "a: 1\nb: 2\na: 3",
    "a key twice inside": "a:\n  b: 1\n  b: 2",
    "endless nesting": "a: " + "[" * 5000,
    "nesting to the bottom": "a: " + "[" * 200 + "]" * 200,
    "a tab": "a:\tb:\n\t- c",
    "another alphabet": b"\xff\xfea\x00",
    "a list": "- 1\n- 2",
    "a number": "3",
    "two documents": "a: 1\n---\nb: 2",
    "two million bytes": "# " + "x" * 2_000_000,
    "a sign that is no text": "a: \x07",
    "quotes that do not end": 'a: "b',
}


def written(folder: Path, text: str | bytes, trap: Path) -> Path:
    path = folder / "sampler" / "strange.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.replace("TRAP", str(trap)).encode())
    return path


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
def test_a_yaml(text: str | bytes, tmp_path: Path, trap: Path, refused) -> None:
    path = written(tmp_path, text, trap)
    refused(lambda: Registry([f"file://{tmp_path}"]).options("sampler"), path)
    refused(lambda: ldbench.compose("train", ["sampler=strange"], searchpath=[str(tmp_path)]), path)
    refused(lambda: ldbench.compose("train", [], searchpath=[str(tmp_path)]), path)


@pytest.mark.parametrize(
    "overrides", [["hydra.searchpath=[file://{}]"], ["--config-dir", "{}"]], ids=["search path", "config dir"]
)
def test_a_command_line_with_aliases_that_fill_the_memory(overrides: list[str], tmp_path: Path, trap: Path) -> None:
    written(tmp_path, LAUGHS, trap)
    arguments = [override.format(tmp_path) for override in overrides]
    command = [sys.executable, "-m", "ldbench.doctor", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 2
    assert "more than 30 aliases, in line 5" in done.stderr
    assert "Traceback" not in done.stderr


OVERRIDES: dict[str, Callable[[Path], list[str]]] = {
    "a component outside": lambda trap: ["sampler=../../../../tmp/x"],
    "a protocol outside": lambda trap: ["protocol=../../etc/passwd"],
    "a group that is not there": lambda trap: ["os=system"],
    "a data set that is not there": lambda trap: ["data=<script>"],
    "a number that is a program": lambda trap: ["seed=${oc.env:NOWHERE}"],
    "an interpolation of Python": lambda trap: ["paths.root=${eval:open('" + str(trap) + "','w')}"],
    "an override that does not end": lambda trap: ["paths.root='"],
    "brackets that do not end": lambda trap: ["+x=[[[[["],
}


@pytest.mark.parametrize("overrides", OVERRIDES.values(), ids=OVERRIDES.keys())
def test_an_override(overrides: Callable[[Path], list[str]], trap: Path, record_property) -> None:
    with pytest.raises((ValueError, OmegaConfBaseException)) as answer:  # what entry points catch and print
        str(ldbench.compose("train", overrides(trap)).seed)
    record_property("message", error_message(answer.value))
    assert error_message(answer.value).replace("\n", "").isprintable()


COMPONENTS = ["os.system", "../sampler/heun", "", "heun.yaml", "/etc/passwd", "\x00", "__class__", "a" * 10_000]


@pytest.mark.parametrize(
    "name", COMPONENTS, ids=["dotted", "path", "nothing", "file", "absolute", "zero", "dunder", "long"]
)
def test_a_component(name: str, refused) -> None:
    refused(lambda: Registry().component("sampler", name), "Known: ")


@pytest.mark.parametrize("group", ["..", "/etc", "os", "hydra", "", "paths", "experiments"])
def test_a_group(group: str, refused) -> None:
    refused(lambda: Registry().component(group, "heun"), "Known: ")
