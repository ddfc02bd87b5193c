"""The points of a sweep are validated together, like runs of their own, before any of them starts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ldbench import run, train
from ldbench.pipeline import tokenizer_plan
from ldbench.sweeps import processes
from ldbench.sweeps.points import build_labels
from ldbench.sweeps.schedule import Schedule

FAR = Path("/nowhere")
Sweep = Callable[..., tuple[Schedule, list[list[str]]]]


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """Returns the schedule of a command line's sweep and the command of each task, without starting any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # mistakes are raised to the caller
    monkeypatch.delenv("LDBENCH_SHORT_ERRORS", raising=False)

    def sweep(*words: str, entry=train) -> tuple[Schedule, list[list[str]]]:
        calls: list = []

        def record(schedule, *, command, **_) -> None:
            calls.append((schedule, [list(command(task)) for task in schedule.tasks]))

        monkeypatch.setattr(processes, "run", record)
        monkeypatch.setattr(sys, "argv", ["ldbench", *words])
        entry.main()
        (call,) = calls
        return call

    return sweep


@pytest.mark.slow
def test_a_matrix_builds_each_tokenizer_once_and_each_cell_is_a_command_of_its_own(
    swept: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        tokenizer_plan, "open_data", lambda cfg, whole=tokenizer_plan.open_data: opened.append(1) or whole(cfg)
    )
    schedule, commands = swept("experiments=matrix_digits", "seed=1", "generator.max_steps=9", "hydra.launcher.jobs=2")
    shared = [task for task in schedule.tasks if task.is_shared]
    assert [task.label.rpartition("-")[0] for task in shared] == [
        "tokenizer vmae",
        "tokenizer maetok",
        "tokenizer vavae",
    ]
    assert len(schedule.tasks) == 3 + 9
    assert len(opened) == 3, "data are opened once for each tokenizer"
    assert commands[0][2] == "ldbench.prepare"
    assert commands[-1][1:3] == ["-m", "ldbench.train"]
    overrides = [
        "tokenizer=vavae",
        "generator=lightningdit",
        "experiments=matrix_digits",
        "seed=1",
        "generator.max_steps=9",
    ]
    assert commands[-1][3:] == ["--config-name", "train", "hydra.launcher.jobs=2", "hydra.mode=RUN", *overrides]
    assert schedule.tasks[-1].label == "tokenizer=vavae generator=lightningdit"


def test_the_command_line_wins_over_the_lists_of_an_experiment(swept: Sweep) -> None:
    schedule, _ = swept("experiments=matrix_digits", "tokenizer=vmae", "generator=sit,dit")
    assert [task.label for task in schedule.tasks[1:]] == ["generator=sit", "generator=dit"]


def test_jobs_of_one_tokenizer_share_it_and_the_latents_that_one_of_them_needs(swept: Sweep) -> None:
    schedule, commands = swept("-m", "job=reconstruct,gmm", "tokenizer=vmae,maetok", entry=run)
    assert [task.is_shared for task in schedule.tasks] == [True, True, False, False, False, False]
    assert "job=gmm" in commands[0]
    assert commands[0][2:5] == ["ldbench.prepare", "--config-name", "run"]
    assert commands[2][2] == "ldbench.run"


@pytest.mark.slow
def test_a_folder_of_configs_is_passed_on(swept: Sweep, tmp_path: Path) -> None:
    (tmp_path / "mine" / "tokenizer").mkdir(parents=True)
    (tmp_path / "mine" / "tokenizer" / "own.yaml").write_text("defaults: [vmae, _self_]\nname: own\n")
    for words in (["--config-dir", "mine"], ["hydra.searchpath=[file://mine]"]):
        schedule, commands = swept("-m", *words, "tokenizer=own,vmae", "seed=0,1")
        assert sum(task.is_shared for task in schedule.tasks) == 2
        arguments = {word.removeprefix("file://") for word in commands[0]}
        assert arguments & {str(tmp_path / "mine"), words[-1]}


def test_all_mistakes_are_reported_together_each_with_its_points(swept: Sweep) -> None:
    with pytest.raises(ValueError, match=r"4 of the 6 points of this sweep are invalid") as error:
        swept("-m", "tokenizer=vmea,vmae,vavea", "generator=sit,dit")
    assert "There is no tokenizer=vmea. Did you mean vmae?" in str(error.value)
    assert "There is no tokenizer=vavea. Did you mean vavae?" in str(error.value)
    assert "  in tokenizer=vmea generator=sit\n  in tokenizer=vmea generator=dit" in str(error.value)
    assert "in tokenizer=vmae" not in str(error.value)


def test_incompatible_parts_are_reported_before_any_point_starts(swept: Sweep) -> None:
    with pytest.raises(ValueError, match=r"1 of the 4 points of this sweep are invalid") as error:
        swept("-m", "generator=sit,dit", "sampler=ancestral,euler", "generator.backbone.patch_size=1", "tokenizer=vmae")
    assert "variance-preserving" in str(error.value)
    assert str(error.value).endswith("  in generator=sit sampler=ancestral")


def test_sizes_that_a_latent_does_not_have_are_reported_with_its_tokenizer(swept: Sweep) -> None:
    with pytest.raises(ValueError, match=r"1 of the 2 points of this sweep are invalid.\n\npatch_size 8") as error:
        swept("-m", "tokenizer=vmae,identity", "generator=sit", "generator.backbone.patch_size=8")
    assert str(error.value).endswith("  in tokenizer=vmae")


def test_a_missing_artifact_is_reported(swept: Sweep) -> None:
    with pytest.raises(ValueError, match=r"/nowhere is no complete artifact"):
        swept("-m", "tokenizer=artifact", f"tokenizer.path={FAR}", "seed=0,1", "generator=sit")


@pytest.mark.parametrize(
    "jobs", ["0", *(pytest.param(jobs, marks=pytest.mark.slow) for jobs in ("two", "true", "1.5"))]
)
def test_an_invalid_number_of_processes_is_reported(swept: Sweep, jobs: str) -> None:
    with pytest.raises(ValueError, match=r"^hydra\.launcher\.jobs must be a whole number of at least 1"):
        swept("-m", "seed=0,1", f"hydra.launcher.jobs={jobs}")


def test_overrides_that_all_points_have_are_no_label() -> None:
    assert build_labels([["a=1", "c=1"], ["a=2", "c=1"]]) == ["a=1", "a=2"]
    assert build_labels([["a=1", "c=1"]]) == ["a=1 c=1"]
