"""ldbench.new writes packages whose own tests pass at once, and refuses what cannot be a plug-in without a trace."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import ldbench
from ldbench import new
from ldbench.new import KINDS, parse, validate, write_package
from tests.installing import install


def run_own_tests(kind: str, folder: Path, *arguments: str) -> None:
    """Writes a new package of a kind, and runs the tests that came with it."""
    write_package(kind, "mine_2", folder / "package")
    run_tests(folder / "package", folder / "site", *arguments)


def run_tests(package: Path, site: Path, *arguments: str) -> None:
    """Installs a package into a folder and runs its tests."""
    install(package, site)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_own_tests_that_train_nothing(kind, tmp_path):
    run_own_tests(kind, tmp_path, "-k", "not it_trains and not it_is_measured")


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_trains_and_is_measured_at_once(kind, tmp_path):
    run_own_tests(kind, tmp_path)


@pytest.mark.parametrize("arguments", [["-k", "not it_trains"], pytest.param([], marks=[pytest.mark.slow])])
def test_the_network_of_the_tutorial_passes_the_packages_own_tests(arguments, tmp_path):
    page = Path(__file__).parents[1] / "docs" / "tutorials" / "your-own-tokenizer.md"
    write_package("tokenizer", "mine", tmp_path / "ldbench-mine")
    files = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.+?)```", page.read_text(), flags=re.DOTALL)
    assert [Path(name).suffix for name, _ in files] == [".py", ".yaml"]
    for name, text in files:
        assert (tmp_path / name).is_file()
        (tmp_path / name).write_text(text)
    run_tests(tmp_path / "ldbench-mine", tmp_path / "site", *arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_template_is_left(kind, tmp_path):
    files = write_package(kind, "mine", tmp_path / "here")
    assert Path("src/ldbench_mine/mine.py") in files
    assert not [path for path in files if "example" in (tmp_path / "here" / path).read_text().lower() + str(path)]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("name", ["my_example", "example_2", "example", "block", "a__b"])
def test_every_name_is_replaced_once(name, tmp_path):
    for kind in ("tokenizer", "loss"):
        write_package(kind, name, tmp_path / kind)
        project = tomllib.loads((tmp_path / kind / "pyproject.toml").read_text())["project"]
        assert Requirement(project["name"]).name == f"ldbench-{name.replace('_', '-')}"
        assert project["entry-points"]["ldbench.plugins"] == {name: f"ldbench_{name}:conf"}
        title = "".join(map(str.capitalize, name.split("_")))
        module = (tmp_path / kind / "src" / f"ldbench_{name}" / f"{name}.py").read_text()
        assert re.findall(r"^class (\w+)", module, flags=re.MULTILINE) == [title]


def test_what_is_read_as_a_value_is_refused_and_nothing_else():
    for word in ["null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "y", "n", "e5", "x", "infinity"]:
        command = ldbench.compose("run", ["job=reconstruct", f"protocol.reconstruction=[psnr,{word}]"])
        is_text = yaml.safe_load(word) == word and list(command.protocol.reconstruction) == ["psnr", word]
        assert (word in new.VALUES) != is_text, word


@pytest.mark.parametrize("name", ["a", "of_a_very_long_name"])
def test_comments_of_commands_stand_in_one_column_whatever_the_name(name, tmp_path):
    for kind in KINDS:
        write_package(kind, name, tmp_path / kind)
        page = (tmp_path / kind / "README.md").read_text()
        blocks = [block.split("```")[0].splitlines() for block in page.split("```bash\n")[1:]]
        columns = [{line.index("  # ") + 2 for line in lines if "  # " in line} for lines in blocks]
        assert columns
        assert all(len(found) <= 1 for found in columns), page


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("sampler", "mine", "There is no template for 'sampler'. Choose one of tokenizer, backbone, loss, metric, job"),
        ("tokenizer", "my-blocks", "my-blocks cannot be the name of a Python module"),
        ("tokenizer", "blocks_", "blocks_ cannot be the name of a Python module and of a package"),
        ("tokenizer", "class", "class is a word of Python itself"),
        ("tokenizer", "none", "none is a word of Python itself. Choose another name, such as my_none"),
        *(
            ("metric", word, f"{word} would be read as a value")
            for word in ("null", "yes", "no", "on", "off", "nan", "inf")
        ),
        ("loss", "true", "true is a word of Python itself"),
        ("loss", "~", "cannot be the name of a Python module"),
        ("backbone", "block", "would name its class Block, which the template uses for something else"),
        ("tokenizer", "posterior", "would name its class Posterior, which the template uses"),
        ("tokenizer", "value_error", "would name its class ValueError, which the template uses"),
        ("loss", "y", "would name its class Y, which the template uses"),
        ("job", "path", "would name its class Path, which the template uses"),
        ("tokenizer", "vmae", "There is a tokenizer=vmae already"),
        ("backbone", "sit", "There is a generator=sit already"),
    ],
)
def test_what_cannot_be_a_plugin_is_refused(kind, name, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        validate(kind, name, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ValueError, match="exists"):
        write_package("tokenizer", "mine", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(new.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_package("job", "mine", tmp_path / "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["tokenizer"], ["tokenizer=a", "job=b"], ["folder=a"], ["tokenizer="]])
def test_other_command_lines_are_told_what_is_expected(arguments):
    with pytest.raises(ValueError, match="Expected one kind and its name"):
        parse(arguments)


def test_the_command_says_what_to_do_next_and_loads_no_torch(tmp_path):
    code = "import sys; from ldbench import new; new.main(); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "tokenizer=mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "edit ldbench-mine/src/ldbench_mine/mine.py" in done.stdout
    assert "pip install --editable 'ldbench-mine[test]'" in done.stdout
    assert "  python -m ldbench.train tokenizer=mine\n" in done.stdout
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "ldbench-mine exists. Remove it, or choose another one with folder=DIR.\n"
