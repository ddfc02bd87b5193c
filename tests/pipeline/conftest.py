"""The training of a tiny SiT, made once for all tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pipeline.generator_trainings import SMALL, latents

import ldbench
from ldbench.pipeline import get_generator
from ldbench.pipeline.generator_plan import GeneratorPlan, plan_generator


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., GeneratorPlan]:
    """Plans a tiny SiT under a root of its own; overrides are added to its config."""

    def make(*overrides: str) -> GeneratorPlan:
        return plan_generator(ldbench.compose("train", [*SMALL, f"paths.root={tmp_path}", *overrides]), latents())

    return make


@pytest.fixture
def trained(made_once, tmp_path: Path) -> None:
    """Puts what the training of the tiny SiT leaves under this test's root."""

    def fill(root: Path) -> None:
        get_generator.train_plan(plan_generator(ldbench.compose("train", [*SMALL, f"paths.root={root}"]), latents()))

    shutil.copytree(made_once("sit", fill), tmp_path, dirs_exist_ok=True, symlinks=True)
