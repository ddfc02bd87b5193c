"""Overrides with several values are split off, in sweeps only."""

import pytest

from ldbench.sweeps.overrides import split_sweep_overrides


def test_the_first_of_several_values_replaces_them() -> None:
    overrides = [
        "-m",
        "generator=dit,sit",
        "generator.max_steps=9",
        "seed=range(0,3)",
        "+a=choice(4,5)",
        "job.labels=[1,2]",
        "~callbacks.samples",
    ]
    first, swept = split_sweep_overrides(overrides)
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
    "overrides", [["generator=dit,sit"], ["experiments=vmae_digits", "seed=0,1"], ["hydra.launcher.jobs=2"]]
)
def test_without_a_sweep_all_overrides_stay_for_hydra_to_judge(overrides: list[str]) -> None:
    assert split_sweep_overrides(overrides) == (overrides, [])


def test_an_experiment_may_be_a_sweep() -> None:
    assert split_sweep_overrides(["experiments=matrix_digits", "seed=0,1"]) == (
        ["experiments=matrix_digits", "seed=0"],
        ["seed=0,1"],
    )


@pytest.mark.parametrize(
    "override", ["generator=[", "seed=interval(0,1)", "x=glob(*)", "hydra.launcher.jobs=1,2", "--config-dir=a,b"]
)
def test_what_cannot_be_enumerated_stays_for_hydra_to_judge(override: str) -> None:
    assert split_sweep_overrides(["-m", override]) == (["-m", override], [])
