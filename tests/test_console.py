"""The console: commands with a line each, the version, and completion in real shells."""

import importlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ldbench.__main__ import COMMANDS, describe
from ldbench.completion import SCRIPTS, completion_script


def console(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ldbench", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell whose `ldbench` is this package."""
    script = tmp_path / "bin" / "ldbench"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ldbench "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}


def shell(name: str, text: str, environment: dict[str, str]) -> list[str]:
    """What a shell prints, by words."""
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} on this machine")
    done = subprocess.run([name, "-c", text], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_command_is_an_entry_point_with_a_line():
    for command in COMMANDS:
        assert callable(importlib.import_module(f"ldbench.{command}").main)
        assert f"  {command} " in describe()


def test_the_version_is_that_of_the_package_and_a_wrong_command_is_named():
    assert console("--version").stdout == f"ldbench {version('ldbench')}\n"
    assert console("--help").stdout == describe()
    wrong = console("trian")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("There is no command 'trian'.")


def test_an_unknown_shell_is_named():
    with pytest.raises(ValueError, match=r"no completion for 'tcsh'. Choose one of bash, zsh, fish"):
        completion_script("tcsh")
    assert console("completion", "tcsh").returncode == 2
    assert console("completion", "--help").stdout.startswith("usage: ldbench completion {bash|zsh|fish}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ldbench tr", ["train"]),
        ("ldbench train tokenizer=vmae_fas", ["vmae_fashion"]),  # bash replaces what follows the =
        ("ldbench train tokenizer=vmae trainer.deter", ["trainer.deterministic="]),
        ("ldbench run job=smo", ["smoothness"]),
        ("ldbench new tok", ["tokenizer="]),
        ("ldbench completion z", ["zsh"]),
    ],
)
def test_bash_completes(line, expected, on_path):
    text = f"{completion_script('bash')}\nCOMP_LINE='{line}' COMP_POINT={len(line)}\n_ldbench; echo ${{COMPREPLY[@]}}"
    assert shell("bash", text, on_path) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ldbench tr", ["train"]),
        ("ldbench train tokenizer=vmae_fas", ["tokenizer=vmae_fashion"]),
        ("ldbench run tokenizer=vmae job=smo", ["job=smoothness"]),
        ("ldbench new tok", ["tokenizer="]),
    ],
)
def test_fish_completes(line, expected, on_path):
    assert shell("fish", f"{completion_script('fish')}\ncomplete -C '{line}'", on_path) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ldbench tr", "train"),
        ("ldbench train tokenizer=vmae_fas", "tokenizer=vmae_fashion"),
        ("ldbench run tokenizer=vmae job=smo", "job=smoothness"),
    ],
)
def test_zsh_completes(line, expected, on_path):
    """Its candidates, by a stand-in for zsh's `compadd`, which works in an interactive line alone."""
    words = line.split(" ")
    compadd = (
        "compadd() { [[ $argv[-1] == open || $argv[-1] == whole ]] && print -l -- ${(P)argv[-1]} }\ncompdef() { : }\n"
    )
    text = f"{compadd}{completion_script('zsh')}\nwords=({line}) CURRENT={len(words)}\n_ldbench"
    found = shell("zsh", text, on_path)
    assert expected in [word for word in found if word.startswith(words[-1])]


def test_there_is_a_script_for_each_shell_that_is_promised():
    assert set(SCRIPTS) == {"bash", "zsh", "fish"}
    for name in SCRIPTS:
        assert "@" not in completion_script(name).replace("[@]", "")
