"""Launchers of other packages, where their extras are installed."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "launcher", "target"),
    [
        ("hydra_plugins.hydra_submitit_launcher", "submitit_slurm", "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"),
        ("hydra_plugins.hydra_submitit_launcher", "submitit_local", "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"),
        ("hydra_plugins.hydra_ray_launcher", "ray", "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"),
    ],
)
def test_another_launcher_takes_the_place_of_ours(module: str, launcher: str, target: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.skip(f"{launcher} is an extra: pip install 'ldbench[slurm]' or 'ldbench[ray]'")
    words = [sys.executable, "-m", "ldbench.train", "--cfg", "hydra", "-p", "hydra.launcher", f"hydra/launcher={launcher}"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"_target_: {target}" in told
    assert "jobs: 1" not in told.splitlines()
