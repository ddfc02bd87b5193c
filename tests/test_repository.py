"""Files for people and services around the code agree with it: version, citation, hooks, workflows, the image."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHONS = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]


def steps(workflow: Path) -> list[dict]:
    """All steps of a workflow's jobs."""
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


def test_the_version_is_the_same_everywhere():
    newest = re.search(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"] == str(CITATION["version"])


def test_the_changelog_keeps_its_format():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_has_what_its_schema_requires_and_the_papers():
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys()
    assert CITATION["license"] == PROJECT["license"]
    papers = {reference["url"] for reference in CITATION["references"]}
    assert len(papers) == 3
    assert all(url in (ROOT / "README.md").read_text() for url in papers)
    assert all({"type", "title", "authors"} <= reference.keys() for reference in CITATION["references"])


def test_the_repositorys_address_stands_in_one_place():
    """Others repeat that of pyproject.toml, and have none while it has none."""
    address = PROJECT.get("urls", {}).get("Repository")
    assert CITATION.get("repository-code") == address


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_and_files_that_exist(workflow):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    called = [word for command in commands for word in re.findall(r"\bmake ([a-z -]+?)(?= [A-Z]+=|$)", command)]
    assert {target for words in called for target in words.split()} <= targets
    assert all((ROOT / path).is_file() for command in commands for path in re.findall(r"\.ci/\w+", command))
    assert any("make" in command or ".ci/" in command for command in commands)


def test_workflows_have_every_python_that_is_promised():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["unit"]["strategy"]["matrix"]["python"] == PYTHONS
    (setup,) = [step for step in jobs["wheel"]["steps"] if "setup-python" in step.get("uses", "")]
    assert setup["with"]["python-version"].split() == PYTHONS


def test_hooks_are_local_and_of_the_development_environment():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    development = " ".join(PROJECT["optional-dependencies"]["dev"])
    packages = {"check-added-large-files": "pre-commit-hooks"}  # the package of a command, where it has another name
    for hook in repository["hooks"]:
        command = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"{packages.get(command, command)}>=" in development
        assert hook["language"] == "system"


def test_templates_are_forms_that_github_reads():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.stem != "config":
            assert {"name", "description", "body"} <= form.keys()
            assert len({field["id"] for field in form["body"]}) == len(form["body"])


@pytest.mark.parametrize(
    ("checker", "paths"), [("actionlint", WORKFLOWS), ("hadolint", [ROOT / "docker" / "Dockerfile"])]
)
def test_linters_of_other_languages_find_nothing(checker, paths):
    if shutil.which(checker) is None:
        pytest.skip(f"there is no {checker} on this machine")
    done = subprocess.run([checker, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_holds_what_the_wheel_is_built_from():
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert {path for path in copied if not (ROOT / path).exists()} == set()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*(path.split("/")[0] for path in wheel["packages"]), *wheel["force-include"], *PROJECT["license-files"]}
    assert needed | {PROJECT["readme"], "pyproject.toml"} <= copied
