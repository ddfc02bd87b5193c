"""Checks of the installation: Python, packages, the pair of torch and torchvision, and the config tree."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from ldbench.checks.finding import Finding, counted, first_line

if TYPE_CHECKING:
    from ldbench.config.compose import Registry

OLDEST_PYTHON = (3, 11)
TIMEOUT = 180  # seconds for importing torchvision, from a cold network drive too
PROBE = "import torch, torchvision; torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)"


def check_python(found: Sequence[int]) -> list[Finding]:
    """Whether this Python, such as (3, 12, 1), is new enough."""
    version_found, oldest = ".".join(map(str, found)), ".".join(map(str, OLDEST_PYTHON))
    if tuple(found) >= OLDEST_PYTHON:
        return [Finding("ok", "python", version_found)]
    return [
        Finding(
            "broken",
            "python",
            f"{version_found} is older than {oldest}",
            f"Install Python {oldest} or newer, and ldbench under it.",
        )
    ]


def check_packages() -> list[Finding]:
    """Whether all required packages are installed, in versions that ldbench supports."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in requires("ldbench") or []]
    except PackageNotFoundError:
        return [
            Finding(
                "broken", "packages", "ldbench is on the path, but not installed", "In its folder: pip install -e ."
            )
        ]
    required = [
        requirement
        for requirement in required
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    findings = []
    for requirement in required:
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            what = (
                f"{requirement.name} is not installed"
                if found is None
                else f"{requirement.name} is {found}, and ldbench needs {requirement.specifier}"
            )
            findings.append(
                Finding("broken", "packages", what, f'pip install "{requirement.name}{requirement.specifier}"')
            )
    return findings or [
        Finding("ok", "packages", f"all {len(required)} required packages, ldbench {installed('ldbench')}")
    ]


def check_torchvision() -> list[Finding]:
    """Whether torch and torchvision work together, tested in a separate process."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        what = f"importing torch and torchvision was not done after {TIMEOUT} s"
        cure = "Try again when the machine is idle; on a network drive, move the environment to a local requirement."
        return [Finding("broken", "torchvision", what, cure)]
    return [judge_torchvision(done, torch=installed("torch") or "none", torchvision=installed("torchvision") or "none")]


def judge_torchvision(done: subprocess.CompletedProcess[str], *, torch: str, torchvision: str) -> Finding:
    """The finding on these two versions, from the outcome of the probe."""
    together = f"torch {torch} and torchvision {torchvision}"
    build = torch.partition("+")[2]
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    cure = (
        f"Install both from the same index, of the same build: pip install --force-reinstall torch torchvision{index}"
    )
    if "operator torchvision::nms does not exist" in done.stderr:
        return Finding(
            "broken", "torchvision", f"{together} do not fit together: operator torchvision::nms does not exist", cure
        )
    if done.returncode != 0:
        last = (
            [line for line in done.stderr.splitlines() if line.strip()]
            or [f"the process ended with status {done.returncode}"]
        )[-1]
        return Finding("broken", "torchvision", f"{together} do not work: {last}", cure)
    if build != torchvision.partition("+")[2]:
        return Finding("warning", "torchvision", f"{together} work, but are different builds", cure)
    return Finding("ok", "torchvision", f"{together} work together")


def check_config(registry: "Registry | None" = None) -> list[Finding]:
    """Whether the config tree exists, and `train` composes."""
    from ldbench.config.compose import Registry, conf_dir

    folder = conf_dir()
    if not folder.is_dir():
        return [
            Finding(
                "broken",
                "config",
                f"there is no config tree at {folder}",
                "Install ldbench again, or restore its conf/ folder.",
            )
        ]
    try:
        (registry or Registry()).compose("train")
    except ValueError as error:
        return [
            Finding(
                "broken",
                "config",
                f"train does not compose: {first_line(error)}",
                f"Undo what was changed in {folder}.",
            )
        ]
    return [Finding("ok", "config", f"train composes from {folder}")]


def check_plugins() -> list[Finding]:
    """Which plug-ins are installed, and whether their config folders can be used."""
    from ldbench.config.compose import Registry
    from ldbench.config.installed import installed as installed_plugins

    try:
        plugins = installed_plugins()
    except ValueError as error:
        return [Finding("broken", "plug-ins", first_line(error), "Mend its entry point, or uninstall it.")]
    if not plugins:
        return [Finding("ok", "plug-ins", "none installed")]
    findings = []
    ours = Registry()
    for plugin in plugins:
        if not plugin.folder.is_dir():
            what = f"{plugin} has no config folder {plugin.folder}"
            findings.append(Finding("broken", "plug-ins", what, f"pip install --force-reinstall {plugin.package}"))
            continue
        hidden = [f"{group}={name}" for group, name in plugin.options() if name in ours.files(group)]
        if hidden:
            what = f"{plugin} has {', '.join(hidden)}, which ldbench has too: ours counts"
            findings.append(Finding("warning", "plug-ins", what, "Rename the yaml in the package."))
        else:
            findings.append(Finding("ok", "plug-ins", f"{plugin}: {counted(len(plugin.options()), 'option')}"))
    return findings


def installed(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
