"""Launchers of other packages, where their extras are installed."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ldbench import cli
from ldbench.config.compose import conf_dir
from ldbench.sweeps.points import validate_slurm_tasks

SUBMITIT = "hydra_plugins.hydra_submitit_launcher"
RAY = "hydra_plugins.hydra_ray_launcher"


def need(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.skip("a launcher is an extra: pip install 'ldbench[slurm]' or 'ldbench[ray]'")


@pytest.mark.parametrize(
    ("module", "launcher", "target"),
    [
        (SUBMITIT, "slurm", f"{SUBMITIT}.submitit_launcher.SlurmLauncher"),
        pytest.param(SUBMITIT, "submitit_slurm", f"{SUBMITIT}.submitit_launcher.SlurmLauncher", marks=pytest.mark.slow),
        pytest.param(SUBMITIT, "submitit_local", f"{SUBMITIT}.submitit_launcher.LocalLauncher", marks=pytest.mark.slow),
        (RAY, "ray", f"{RAY}.ray_launcher.RayLauncher"),
    ],
)
def test_another_launcher_replaces_ours(module: str, launcher: str, target: str) -> None:
    need(module)
    words = [
        sys.executable,
        "-m",
        "ldbench.train",
        "--cfg",
        "hydra",
        "-p",
        "hydra.launcher",
        f"hydra/launcher={launcher}",
    ]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"_target_: {target}" in output
    assert "jobs: 1" not in output.splitlines()


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Returns the head of the submission file that submitit would write for two points, given some overrides."""
    need(SUBMITIT)
    import submitit

    for program in ("srun", "sbatch"):  # submitit requires them to exist
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    texts: list[str] = []

    def map_array(self: Any, task: Callable, *columns: Any) -> list[Any]:
        texts.append(self._executor._make_submission_file_text("the command", "0"))
        return [SimpleNamespace(results=lambda: [None]) for _ in columns[0]]

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", map_array)

    def submit(*overrides: str) -> str:
        with hydra.initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            cfg = hydra.compose("train", [*overrides, f"hydra.sweep.dir={tmp_path}/sweep"], return_hydra_config=True)
        OmegaConf.set_readonly(cfg.hydra, False)
        cfg.hydra.job.name = "train"
        launcher = hydra.utils.instantiate(cfg.hydra.launcher)
        launcher.setup(hydra_context=None, task_function=None, config=cfg)
        launcher.launch([["seed=0"], ["seed=1"]], initial_job_idx=0)
        return texts[-1]

    return submit


def test_slurm_gets_a_task_and_a_gpu_for_each_process_that_shares_a_training(
    submitted: Callable[..., str],
) -> None:
    submission = submitted(
        "hydra/launcher=slurm",
        "trainer=ddp",
        "trainer.devices=4",
        "hydra.launcher.nodes=2",
        "hydra.launcher.partition=gpu",
    )
    for line in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--partition=gpu", "--time=1440"):
        assert f"#SBATCH {line}\n" in submission


def test_submitits_own_options_reach_slurm_unchanged(submitted: Callable[..., str]) -> None:
    words = ("nodes=2", "tasks_per_node=3", "gpus_per_node=3", "cpus_per_task=8", "timeout_min=30")
    submission = submitted("hydra/launcher=submitit_slurm", *(f"hydra.launcher.{word}" for word in words))
    for line in ("--nodes=2", "--ntasks-per-node=3", "--gpus-per-node=3", "--cpus-per-task=8", "--time=30"):
        assert f"#SBATCH {line}\n" in submission


@pytest.mark.parametrize(
    ("tasks", "nodes", "message"),
    [(1, 1, r"tasks_per_node=1 .* trainer\.devices=4"), (4, 1, r"nodes=1 .* trainer\.num_nodes=2")],
)
def test_another_number_of_processes_than_share_a_training_is_refused(tasks: int, nodes: int, message: str) -> None:
    launcher: DictConfig = OmegaConf.create(
        {"_target_": f"{SUBMITIT}.submitit_launcher.SlurmLauncher", "tasks_per_node": tasks, "nodes": nodes}
    )
    cfg: DictConfig = OmegaConf.create({"trainer": {"devices": 4, "num_nodes": 2}})
    with pytest.raises(ValueError, match=message):
        validate_slurm_tasks(launcher, cfg)
    launcher.tasks_per_node, launcher.nodes = 4, 2
    validate_slurm_tasks(launcher, cfg)
    validate_slurm_tasks(OmegaConf.create({"_target_": "hydra_plugins.ldbench.LocalLauncher", "jobs": 2}), cfg)


def test_several_processes_may_share_a_training_of_a_sweep_if_slurm_starts_them() -> None:
    cfg: DictConfig = OmegaConf.create({"trainer": {"devices": 4}})
    for launcher, mode in (("SlurmLauncher", RunMode.MULTIRUN), ("LocalLauncher", RunMode.RUN)):
        cli.validate_sweep_devices(
            OmegaConf.create({"mode": mode, "launcher": {"_target_": f"{SUBMITIT}.submitit_launcher.{launcher}"}}), cfg
        )
    local: DictConfig = OmegaConf.create(
        {"mode": RunMode.MULTIRUN, "launcher": {"_target_": f"{SUBMITIT}.submitit_launcher.LocalLauncher"}}
    )
    with pytest.raises(ValueError, match=r"would start the sweep again\. Set trainer\.devices=1"):
        cli.validate_sweep_devices(local, cfg)


@pytest.mark.slow
def test_a_sweep_runs_on_submitits_local_executor(small_overrides: list[str], tmp_path: Path) -> None:
    need(SUBMITIT)
    words = [*small_overrides, "hydra/launcher=submitit_local", "tokenizer.seed=0,1", f"paths.root={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "ldbench.train", "-m", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("artifacts/tokenizers/vmae-*/manifest.json"))) == 2
    assert len(list(tmp_path.glob("records/reconstruct-*.json"))) == 2
