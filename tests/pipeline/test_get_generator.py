"""A cell: from images to samples by one command, each part made once, and none put together that does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

import ldbench
from ldbench.artifacts import store as artifacts
from ldbench.config.compose import Registry
from ldbench.data.latents import store
from ldbench.jobs.encode import Encode
from ldbench.jobs.generate import Generate
from ldbench.pipeline import generator_training, job_context, pipeline, tokenizer_training
from ldbench.results import records

pytestmark = pytest.mark.trains

CELL = [
    "generator=sit",
    "generator.max_steps=4",
    "generator.batch_size=8",
    "generator.optimizer.warmup_steps=2",
    "generator.backbone.width=24",
]
CELL += [
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "sampler=euler",
    "sampler.num_steps=2",
    "callbacks.checkpoint.every=2",
]
CELL += ["callbacks.samples.num_images=4", "protocol.num_samples=20"]


@pytest.fixture
def built(small_overrides: list[str], made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The root of a tiny cell that was trained once; tests work on copies."""
    return made_once(
        "cell", lambda root: pipeline.train(ldbench.compose("train", [*small_overrides, *CELL, f"paths.root={root}"]))
    )


@pytest.fixture
def cell(built: Path, small_overrides: list[str], tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the config of the tiny cell, which is there already."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True, symlinks=True)
    return lambda *overrides: ldbench.compose("train", [*small_overrides, *CELL, f"paths.root={tmp_path}", *overrides])


@pytest.fixture
def generation(small_overrides: list[str], tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the config of the job `generate` of the tiny cell, with or without overrides of its tokenizer."""

    def compose(*overrides: str, tokenizer: bool = True) -> DictConfig:
        kept = small_overrides if tokenizer else [word for word in small_overrides if not word.startswith("tokenizer.")]
        return ldbench.compose("run", ["job=generate", *kept, f"paths.root={tmp_path}", *overrides])

    return compose


def records_of(root: Path, job: str) -> list[records.Record]:
    return [records.read(path) for path in sorted((root / "records").glob(f"{job}-*.json"))]


def test_a_cell_leaves_both_artifacts_the_latents_and_a_record_of_each(cell, tmp_path: Path) -> None:
    folder = pipeline.train(cell())
    assert folder.parent == tmp_path / "artifacts" / "generators"
    (tokenizer,) = (tmp_path / "artifacts" / "tokenizers").glob("vmae-*")
    (latents,) = (tmp_path / "artifacts" / "latents").glob("vmae-digits-train-*")
    recipe = json.loads((folder / "config.json").read_text())["recipe"]
    assert recipe["upstream"]["tokenizer"] == artifacts.read_manifest(tokenizer)["digest"]
    torch.testing.assert_close(
        ldbench.load(folder).normaliser.mean.double(), store.LatentStore.open(latents).manifest.statistics.mean
    )
    (generated,), (reconstructed,) = records_of(tmp_path, "generate"), records_of(tmp_path, "reconstruct")
    assert generated.subject == {"tokenizer": "vmae", "generator": "sit", "data": "digits"}
    assert generated.artifacts == {"tokenizer": tokenizer.name, "generator": folder.name}
    assert reconstructed.subject["generator"] is None
    assert (tmp_path / "records" / f"generate-{generated.id}" / "samples.png").is_file()
    assert list((tmp_path / "runs" / folder.name / "images").glob("*-samples.png"))


def test_nothing_of_it_is_made_again(cell, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pipeline.train(cell())
    for owner, name in (
        (tokenizer_training, "train_tokenizer"),
        (generator_training, "train_generator"),
        (Encode, "build"),
        (Encode, "store"),
        (Generate, "run"),
    ):
        monkeypatch.setattr(owner, name, lambda *_, name=name, **__: pytest.fail(f"{name} again"))
    assert pipeline.train(cell()) == folder


def test_a_generator_that_is_there_needs_no_latents(cell, tmp_path: Path) -> None:
    folder = pipeline.train(cell())
    (latents,) = (tmp_path / "artifacts" / "latents").glob("vmae-*")
    for file in latents.iterdir():
        file.unlink()
    assert pipeline.train(cell("sampler.num_steps=3")) == folder
    assert not list(latents.iterdir())


@pytest.mark.slow
def test_another_seed_is_another_generator_of_the_same_tokenizer(cell, tmp_path: Path) -> None:
    assert pipeline.train(cell()) != pipeline.train(cell("seed=1"))
    assert len(list((tmp_path / "artifacts" / "tokenizers").glob("vmae-*"))) == 1
    assert len(list((tmp_path / "artifacts" / "latents").glob("vmae-*"))) == 1
    assert len(records_of(tmp_path, "reconstruct")) == 1
    assert len(records_of(tmp_path, "generate")) == 2


@pytest.mark.slow
def test_its_own_sampler_is_called_so_and_another_makes_a_protocol_of_its_own(cell, generation, tmp_path: Path) -> None:
    cell()
    tiny = [word for word in CELL if not word.startswith("sampler")]
    pipeline.run(generation(*tiny, "protocol.num_samples=2"))
    pipeline.run(generation(*CELL, "protocol.num_samples=2", "guidance=cfg"))
    few = [record for record in records_of(tmp_path, "generate") if record.protocol["num_samples"] == 2]
    own, other = sorted(few, key=lambda record: record.protocol["guidance"] != "own")
    assert (own.protocol["sampler"], own.protocol["guidance"]) == ("own", "own")
    assert other.protocol["sampler"]["num_steps"] == 2
    assert other.protocol["guidance"]["component"] == "cfg"
    assert own.protocol["hash"] != other.protocol["hash"]
    assert own.artifacts == other.artifacts


def test_job_generate_shows_chosen_classes(cell, generation, tmp_path: Path) -> None:
    pipeline.run(generation(*CELL, "job.labels=[3,7]", "job.num_samples=4"))
    (record,) = [record for record in records_of(tmp_path, "generate") if record.protocol["labels"] != "balanced"]
    assert record.metrics == {}
    assert (record.protocol["labels"], record.protocol["num_samples"]) == ([3, 7], 4)
    folder = tmp_path / "records" / f"generate-{record.id}" / "samples"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png")) == [
        f"{label}/{place:06d}.png" for label, place in ((3, 0), (3, 2), (7, 1), (7, 3))
    ]


def test_job_generate_without_a_generator_says_so(generation) -> None:
    with pytest.raises(ValueError, match=r"This job needs a generator, and none is chosen\. Set generator=sit"):
        pipeline.run(generation())


def test_training_without_a_generator_measures_no_samples(cell, small, tmp_path: Path) -> None:
    cell()
    before = records_of(tmp_path, "generate")
    pipeline.train(small())
    assert records_of(tmp_path, "generate") == before


def test_parts_that_do_not_fit_the_latents_are_told_before_the_tokenizer_is_trained(
    small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_training, "train_tokenizer", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"patch_size 3"):
        pipeline.train(small(*CELL, "generator.backbone.patch_size=3"))
    with pytest.raises(ValueError, match=r"variance-preserving"):
        pipeline.train(small("generator=sit", "sampler=ancestral"))


def test_an_artifact_is_sampled_by_its_path_and_named_by_what_it_is(cell, generation, tmp_path: Path) -> None:
    folder = pipeline.train(cell())
    (tokenizer,) = (tmp_path / "artifacts" / "tokenizers").glob("vmae-*")
    paths = [
        "generator=artifact",
        f"generator.path={folder}",
        "tokenizer=artifact",
        f"tokenizer.path={tokenizer}",
        "sampler.num_steps=2",
    ]
    assert pipeline.run(generation(*paths, "job.num_samples=3", tokenizer=False)) == folder
    record = next(record for record in records_of(tmp_path, "generate") if record.protocol["num_samples"] == 3)
    assert record.subject == {"tokenizer": "vmae", "generator": "sit", "data": "digits"}


def test_a_generator_of_another_tokenizer_is_refused_and_both_are_named(cell, small, generation) -> None:
    folder = pipeline.train(cell())
    with pytest.raises(
        ValueError,
        match=rf"{folder.name} makes latents of the tokenizer with digest \w{{8}}, and vmae-\w{{8}} is another",
    ):
        pipeline.run(generation("tokenizer.seed=1", "generator=artifact", f"generator.path={folder}"))


def test_a_tokenizer_is_no_generator(cell, generation, tmp_path: Path) -> None:
    cell()
    (folder,) = (tmp_path / "artifacts" / "tokenizers").glob("vmae-*")
    with pytest.raises(ValueError, match=r"makes latents of None|must be a generator"):
        pipeline.run(generation("generator=artifact", f"generator.path={folder}"))


@pytest.mark.slow
def test_a_training_begins_with_an_artifact_where_init_says_so(cell, small, tmp_path: Path) -> None:
    folder = pipeline.train(cell())
    still = cell(
        f"init={folder}", "generator.max_steps=1", "generator.optimizer.lr=1e-12", "generator.optimizer.warmup_steps=0"
    )
    longer = pipeline.train(still)
    assert longer != folder
    before, after = load_file(folder / "weights.safetensors"), load_file(longer / "weights.safetensors")
    assert all(torch.allclose(value, after[key], atol=1e-6) for key, value in before.items())
    (tokenizer,) = (tmp_path / "artifacts" / "tokenizers").glob("vmae-*")
    none = ["tokenizer.stages.pretrain.max_steps=0", "tokenizer.stages.tune.max_steps=0"]
    same = pipeline.train(small(f"init={tokenizer}", *none))
    first, second = load_file(tokenizer / "weights.safetensors"), load_file(same / "weights.safetensors")
    assert same != tokenizer
    learned = [key for key in first if "blocks" in key]
    assert learned
    assert all(torch.equal(first[key], second[key]) for key in learned)


def test_an_init_that_nothing_begins_with_is_refused(cell, small) -> None:
    folder = pipeline.train(cell())
    with pytest.raises(ValueError, match=r"is a generator, and none is trained here: tokenizer is\. Leave it out"):
        pipeline.train(small(f"init={folder}"))


def test_latents_are_facts_of_jobs(cell, tmp_path: Path) -> None:
    pipeline.train(cell())
    from ldbench.pipeline.get_tokenizer import get_tokenizer

    tokenizer, data = get_tokenizer(cell())
    target = job_context.EvaluationTarget(data, tokenizer)
    known = job_context.JobContext(cell(), target, pipeline.get_protocol(cell()), Registry())
    assert known.train_latents().manifest.contents.split == "train"
    assert len(known.heldout_latents()) == len(data.test)
