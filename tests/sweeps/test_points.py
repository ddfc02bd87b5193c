"""The points of a sweep are checked together, as starts of their own would be, before any begins."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ldbench import run, train
from ldbench.pipeline import tokenizer_plan
from ldbench.sweeps import processes
from ldbench.sweeps.points import labels_of
from ldbench.sweeps.schedule import Schedule

FAR = Path("/nowhere")
Swept = Callable[..., tuple[Schedule, list[list[str]]]]


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Swept:
    """Gives the steps that a command line's sweep would have, and the command of each, without starting any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # what is wrong is raised to the caller
    monkeypatch.delenv("LDBENCH_SHORT_ERRORS", raising=False)

    def sweep(*words: str, entry=train) -> tuple[Schedule, list[list[str]]]:
        seen: list = []

        def note(waves, *, command, **_) -> None:
            seen.append((waves, [list(command(step)) for step in waves.steps]))

        monkeypatch.setattr(processes, "run", note)
        monkeypatch.setattr(sys, "argv", ["ldbench", *words])
        entry.main()
        (found,) = seen
        return found

    return sweep


@pytest.mark.slow
def test_a_matrix_builds_each_tokenizer_once_and_each_cell_is_a_command_of_its_own(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        tokenizer_plan, "make_data", lambda *given, whole=tokenizer_plan.make_data: opened.append(1) or whole(*given)
    )
    waves, commands = swept("experiments=matrix_digits", "seed=1", "generator.max_steps=9", "hydra.launcher.jobs=2")
    firsts = [step for step in waves.steps if step.is_first]
    assert [step.label.rpartition("-")[0] for step in firsts] == [
        "tokenizer vmae",
        "tokenizer maetok",
        "tokenizer vavae",
    ]
    assert len(waves.steps) == 3 + 9
    assert len(opened) == 3, "data are opened once for each tokenizer"
    assert commands[0][2] == "ldbench.prepare"
    assert commands[-1][1:3] == ["-m", "ldbench.train"]
    said = ["tokenizer=vavae", "generator=lightningdit", "experiments=matrix_digits", "seed=1", "generator.max_steps=9"]
    assert commands[-1][3:] == ["--config-name", "train", "hydra.launcher.jobs=2", "hydra.mode=RUN", *said]
    assert waves.steps[-1].label == "tokenizer=vavae generator=lightningdit"


def test_the_command_line_wins_over_the_lists_of_an_experiment(swept: Swept) -> None:
    waves, _ = swept("experiments=matrix_digits", "tokenizer=vmae", "generator=sit,dit")
    assert [step.label for step in waves.steps[1:]] == ["generator=sit", "generator=dit"]


def test_jobs_of_one_tokenizer_share_it_and_the_latents_that_one_of_them_wants(swept: Swept) -> None:
    waves, commands = swept("-m", "job=reconstruct,gmm", "tokenizer=vmae,maetok", entry=run)
    assert [step.is_first for step in waves.steps] == [True, True, False, False, False, False]
    assert "job=gmm" in commands[0]
    assert commands[0][2:5] == ["ldbench.prepare", "--config-name", "run"]
    assert commands[2][2] == "ldbench.run"


@pytest.mark.slow
def test_a_folder_of_configs_is_handed_on(swept: Swept, tmp_path: Path) -> None:
    (tmp_path / "mine" / "tokenizer").mkdir(parents=True)
    (tmp_path / "mine" / "tokenizer" / "own.yaml").write_text("defaults: [vmae, _self_]\nname: own\n")
    for words in (["--config-dir", "mine"], ["hydra.searchpath=[file://mine]"]):
        waves, commands = swept("-m", *words, "tokenizer=own,vmae", "seed=0,1")
        assert sum(step.is_first for step in waves.steps) == 2
        handed = {word.removeprefix("file://") for word in commands[0]}
        assert handed & {str(tmp_path / "mine"), words[-1]}


def test_all_mistakes_are_told_together_each_with_its_points(swept: Swept) -> None:
    with pytest.raises(ValueError, match=r"of 6 points of this sweep, 4 cannot be") as told:
        swept("-m", "tokenizer=vmea,vmae,vavea", "generator=sit,dit")
    assert "There is no tokenizer=vmea. Did you mean vmae?" in str(told.value)
    assert "There is no tokenizer=vavea. Did you mean vavae?" in str(told.value)
    assert "  in tokenizer=vmea generator=sit\n  in tokenizer=vmea generator=dit" in str(told.value)
    assert "in tokenizer=vmae" not in str(told.value)


def test_parts_that_do_not_fit_are_told_before_any_point_begins(swept: Swept) -> None:
    with pytest.raises(ValueError, match=r"of 4 points of this sweep, 1 cannot be") as told:
        swept("-m", "generator=sit,dit", "sampler=ancestral,euler", "generator.backbone.patch_size=1", "tokenizer=vmae")
    assert "variance-preserving" in str(told.value)
    assert str(told.value).endswith("  in generator=sit sampler=ancestral")


def test_sizes_that_a_latent_does_not_have_are_told_of_its_tokenizer(swept: Swept) -> None:
    with pytest.raises(ValueError, match=r"of 2 points of this sweep, 1 cannot be.\n\npatch_size 8") as told:
        swept("-m", "tokenizer=vmae,identity", "generator=sit", "generator.backbone.patch_size=8")
    assert str(told.value).endswith("  in tokenizer=vmae")


def test_a_missing_artifact_is_told(swept: Swept) -> None:
    with pytest.raises(ValueError, match=r"/nowhere is no complete artifact"):
        swept("-m", "tokenizer=artifact", f"tokenizer.path={FAR}", "seed=0,1", "generator=sit")


@pytest.mark.parametrize("jobs", ["0", "two", "true", "1.5"])
def test_a_number_of_processes_that_is_none_is_told(swept: Swept, jobs: str) -> None:
    with pytest.raises(ValueError, match=r"^hydra\.launcher\.jobs must be a whole number of at least 1"):
        swept("-m", "seed=0,1", f"hydra.launcher.jobs={jobs}")


def test_words_that_all_points_have_are_no_label() -> None:
    assert labels_of([["a=1", "c=1"], ["a=2", "c=1"]]) == ["a=1", "a=2"]
    assert labels_of([["a=1", "c=1"]]) == ["a=1 c=1"]
