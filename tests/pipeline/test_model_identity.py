"""Identities: what is a seed of a model and what another model; what is measured of which weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

import ldbench
from ldbench.artifacts import store
from ldbench.metrics.reconstruction import PSNR
from ldbench.pipeline import pipeline
from ldbench.pipeline.recipe import model_digest
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.results import records
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.records import Record

GENERATOR = {
    "kind": "generator",
    "keywords": {"backbone": {"component": "sit", "latent": {"channels": 4}}, "normaliser": {"channels": 4}},
    "upstream": {"tokenizer": "aa", "data": "bb"},
    "latents": {"flips": False},
    "numerics": {"threads": 1, "devices": 1, "precision": "fp32"},
    "seed": 0,
}


def tokenizer_model(*overrides: str) -> str:
    return model_digest(plan_tokenizer(ldbench.compose("train", ["trainer.accelerator=cpu", *overrides])).recipe)


@pytest.mark.parametrize(
    "overrides",
    [
        ["tokenizer.seed=5"],
        ["trainer.threads=2"],
        ["paths.root=elsewhere"],
        ["trainer.workers=2"],
        ["trainer.devices=2", "trainer.strategy=ddp"],
    ],
)
def test_seeds_threads_and_places_are_of_one_model(overrides: list[str]) -> None:
    assert tokenizer_model(*overrides) == tokenizer_model()


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer=debug"],
        ["trainer.limit_steps=2"],
        ["trainer.precision=bf16"],
        ["trainer.compile=true"],
        ["trainer.overfit_batches=1"],
        ["tokenizer.model.width=48"],
        ["data.subset=0.5"],
        ["data.subset=0.5", "data.seed=1"],
        ["trainer.devices=2", "trainer.strategy=ddp", "trainer.adaptive=local"],
    ],
)
def test_whatever_else_changes_a_number_makes_another_model(overrides: list[str]) -> None:
    assert tokenizer_model(*overrides) != tokenizer_model()
    if overrides[-1] == "data.seed=1":
        assert tokenizer_model(*overrides) != tokenizer_model(overrides[0])


def test_a_generator_is_one_model_on_any_tokenizer_and_another_with_other_latents() -> None:
    same = {
        "seed": {**GENERATOR, "seed": 1},
        "tokenizer": {**GENERATOR, "upstream": {"tokenizer": "cc", "data": "bb"}},
        "threads": {**GENERATOR, "numerics": {**GENERATOR["numerics"], "threads": 4}},
        "statistics": {**GENERATOR, "keywords": {**GENERATOR["keywords"], "normaliser": {"channels": 8}}},
    }
    other = {
        "data": {**GENERATOR, "upstream": {"tokenizer": "aa", "data": "cc"}},
        "latents": {**GENERATOR, "latents": {"flips": True}},
        "precision": {**GENERATOR, "numerics": {**GENERATOR["numerics"], "precision": "bf16"}},
        "init": {**GENERATOR, "init": "dd"},
    }
    assert {name: model_digest(recipe) == model_digest(GENERATOR) for name, recipe in {**same, **other}.items()} == {
        **dict.fromkeys(same, True),
        **dict.fromkeys(other, False),
    }


CELL = [
    *("generator=sit", "generator.max_steps=4", "generator.batch_size=8", "generator.optimizer.warmup_steps=2"),
    *("generator.backbone.width=24", "generator.backbone.depth=1", "generator.backbone.num_heads=2"),
    *("sampler=euler", "sampler.num_steps=2", "callbacks={}", "protocol.num_samples=20"),
]


@pytest.fixture
def compose(small_overrides: list[str], tmp_path: Path) -> Callable[..., DictConfig]:
    return lambda *overrides: ldbench.compose("train", [*small_overrides, f"paths.root={tmp_path}", *overrides])


def records_of(root: Path, job: str) -> list[Record]:
    return [records.read(path) for path in sorted((root / "records").glob(f"{job}-*.json"))]


def retrained_elsewhere(folder: Path) -> None:
    """Gives an artifact the weights that its recipe might have on another machine."""
    model = store.load(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-4)
    manifest, config = store.read_manifest(folder), store.read_config(folder)
    blueprint = store.Blueprint(config["group"], config["component"], config["keywords"])
    shutil.rmtree(folder)
    store.save(model, folder, blueprint, recipe=config["recipe"], digest=manifest["digest"], provenance={})


@pytest.mark.trains
def test_two_artifacts_of_one_recipe_with_other_weights_are_never_mixed(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    generator = pipeline.train(compose(*CELL))
    (tokenizer,) = (tmp_path / "artifacts" / "tokenizers").glob("vmae-*")
    first = store.content_key(tokenizer)
    retrained_elsewhere(tokenizer)
    second = store.content_key(tokenizer)
    with pytest.raises(ValueError, match="trained on a tokenizer of the same recipe and other weights") as refused:
        pipeline.train(compose(*CELL))
    assert first[:16] in str(refused.value)
    assert second[:16] in str(refused.value)
    shutil.rmtree(generator)
    with pytest.raises(ValueError, match="is a training on latents of other weights of the tokenizer"):
        pipeline.train(compose(*CELL))
    shutil.rmtree(tmp_path / "runs" / generator.name)
    assert pipeline.train(compose(*CELL)) == generator, "the recipe is the same"
    stores = list((tmp_path / "artifacts" / "latents").glob("vmae-digits-train-*"))
    keys = {json.loads((folder / "manifest.json").read_text())["contents"]["tokenizer_key"] for folder in stores}
    assert keys == {first, second}
    for job in ("reconstruct", "generate"):
        one, other = records_of(tmp_path, job)
        assert one.artifacts == other.artifacts
        assert one.models == other.models
        assert one.id != other.id
    boards = build_leaderboards([*records_of(tmp_path, "reconstruct"), *records_of(tmp_path, "generate")])
    assert [(len(board.rows), board.rows[0].superseded) for board in boards] == [(1, 1), (1, 1)]


@pytest.mark.trains
def test_a_raised_revision_of_a_metric_is_measured_anew_and_never_ranked_with_the_old_one(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.train(compose())
    pipeline.train(compose())
    assert len(records_of(tmp_path, "reconstruct")) == 1
    monkeypatch.setattr(PSNR, "revision", 99)
    pipeline.train(compose())
    found = records_of(tmp_path, "reconstruct")
    assert len(found) == 2
    assert found[0].models == found[1].models
    assert len(build_leaderboards(found)) == 2


@pytest.mark.trains
def test_a_trial_run_beside_the_full_one_is_a_row_of_its_own(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    pipeline.train(compose())
    pipeline.train(compose("trainer.limit_steps=1"))
    pipeline.train(compose("tokenizer.seed=1"))
    (board,) = build_leaderboards(records_of(tmp_path, "reconstruct"))
    assert sorted(row.cells["psnr"].summary.seeds for row in board.rows) == [1, 2]
    assert any("limit_steps=1" in row.model.label for row in board.rows)


@pytest.mark.slow
@pytest.mark.trains
def test_an_artifact_that_is_opened_counts_by_its_weights_wherever_it_lies(
    small: Callable[..., DictConfig], tmp_path: Path
) -> None:
    tokenizer = pipeline.train(small())
    moved = shutil.copytree(tokenizer, tmp_path / "moved" / tokenizer.name)
    other = shutil.copytree(tokenizer, tmp_path / "other" / tokenizer.name)
    retrained_elsewhere(other)

    def opened(root: Path, folder: Path) -> DictConfig:
        own = ["tokenizer=artifact", f"tokenizer.path={folder}", f"paths.root={root}"]
        return ldbench.compose("train", ["trainer.accelerator=cpu", *CELL, *own])

    (tmp_path / "elsewhere").mkdir()
    generator = pipeline.train(opened(tmp_path / "elsewhere", tokenizer))
    assert pipeline.train(opened(tmp_path / "elsewhere", moved)) == generator
    with pytest.raises(ValueError, match="trained on a tokenizer of the same recipe and other weights"):
        pipeline.train(opened(tmp_path / "elsewhere", other))
    assert len(records_of(tmp_path / "elsewhere", "generate")) == 1

    starts = [plan_tokenizer(small(f"init={folder}")).digest for folder in (tokenizer, moved, other)]
    assert starts[0] == starts[1] != starts[2]
