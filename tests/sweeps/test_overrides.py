"""Words that name several values are told apart, in sweeps only."""

import pytest

from ldbench.sweeps.overrides import split_sweep_overrides


def test_the_first_of_several_values_stands_for_them() -> None:
    words = [
        "-m",
        "generator=dit,sit",
        "generator.max_steps=9",
        "seed=range(0,3)",
        "+a=choice(4,5)",
        "job.labels=[1,2]",
        "~callbacks.samples",
    ]
    first, swept = split_sweep_overrides(words)
    assert first == [
        "-m",
        "generator=dit",
        "generator.max_steps=9",
        "seed=0",
        "+a=4",
        "job.labels=[1,2]",
        "~callbacks.samples",
    ]
    assert swept == ["generator=dit,sit", "seed=range(0,3)", "+a=choice(4,5)"]


@pytest.mark.parametrize(
    "words", [["generator=dit,sit"], ["experiments=vmae_digits", "seed=0,1"], ["hydra.launcher.jobs=2"]]
)
def test_without_a_sweep_all_stays_for_hydra_to_judge(words: list[str]) -> None:
    assert split_sweep_overrides(words) == (words, [])


def test_an_experiment_may_be_a_sweep() -> None:
    assert split_sweep_overrides(["experiments=matrix_digits", "seed=0,1"]) == (
        ["experiments=matrix_digits", "seed=0"],
        ["seed=0,1"],
    )


@pytest.mark.parametrize(
    "word", ["generator=[", "seed=interval(0,1)", "x=glob(*)", "hydra.launcher.jobs=1,2", "--config-dir=a,b"]
)
def test_what_cannot_be_counted_stays_for_hydra_to_judge(word: str) -> None:
    assert split_sweep_overrides(["-m", word]) == (["-m", word], [])
