"""Released generators: imported by the command line, with statistics, and refused if they do not fit the tokenizer."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ldbench
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec
from ldbench.data.latents.store import LatentStore
from ldbench.pipeline import generator_training, get_generator, pipeline
from ldbench.results import records

pytestmark = pytest.mark.trains


@pytest.fixture
def overrides(small_overrides, transformer_state, tmp_path: Path) -> list[str]:
    """Overrides of a tiny official LightningDiT with 3 channels on a 4 x 4 map, and a tokenizer with such latents."""
    folder = tmp_path / "released"
    folder.mkdir()
    torch.save({"ema": transformer_state(lightning=True, patch=1, outputs=3)}, folder / "model.pt")
    (folder / "config.json").write_text('{"num_heads": 2}')
    torch.save(
        {"mean": torch.full((1, 3, 1, 1), 2.0), "std": torch.full((1, 3, 1, 1), 0.5)}, folder / "latents_stats.pt"
    )
    generator = [
        "generator=lightningdit_xl_1",
        f"generator.weights={folder}",
        "sampler=euler",
        "sampler.num_steps=2",
        "guidance=none",
    ]
    stats = [f"generator.stats={folder / 'latents_stats.pt'}"]
    return [
        "job=generate",
        *small_overrides,
        "tokenizer.model.latent_channels=3",
        *generator,
        *stats,
        f"paths.root={tmp_path}",
        "job.num_samples=6",
    ]


@pytest.mark.slow
def test_released_weights_are_imported_and_sampled_with_their_statistics(overrides, monkeypatch) -> None:
    monkeypatch.setattr(generator_training, "fit", lambda *_: pytest.fail("trained"))
    cfg = ldbench.compose("run", overrides)
    folder = pipeline.run(cfg)
    assert folder.name.startswith("lightningdit_xl_1-")
    loaded, official = (
        ldbench.load(folder),
        ldbench.load_official("lightningdit_xl_1", cfg.generator.weights, stats=cfg.generator.stats),
    )
    assert all(torch.equal(value, official.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert loaded.normaliser.mean.tolist() == [2.0] * 3
    (record,) = [records.read(path) for path in (folder.parents[2] / "records").glob("generate-*.json")]
    assert record.subject["generator"] == "lightningdit_xl_1"


@pytest.mark.slow
def test_it_is_imported_once_and_other_statistics_are_another_generator(overrides, monkeypatch) -> None:
    first = pipeline.run(ldbench.compose("run", overrides))
    other = pipeline.run(ldbench.compose("run", [*overrides, "generator.stats=0.18215"]))
    monkeypatch.setattr(get_generator, "describe_generator", lambda *_: pytest.fail("imported again"))
    assert pipeline.run(ldbench.compose("run", overrides)) == first
    assert other != first


def test_other_settings_beside_the_same_weights_are_read_again(overrides, tmp_path: Path) -> None:
    pipeline.run(ldbench.compose("run", overrides))
    (tmp_path / "released" / "config.json").write_text('{"num_heads": 1}')
    with pytest.raises(ValueError, match=r"config\.json has num_heads 1"):
        pipeline.run(ldbench.compose("run", overrides))


def test_weights_without_statistics_are_refused(overrides) -> None:
    with pytest.raises(
        ValueError,
        match=r"without the statistics of their latents, and the tokenizer vmae states none\. Set generator\.",
    ):
        pipeline.run(ldbench.compose("run", [*overrides, "generator.stats=null"]))


def test_a_generator_of_other_latents_is_refused_with_both_latents(overrides) -> None:
    message = r"lightningdit_xl_1-\w+ makes latents of .*'channels': 3.*, and vmae-\w+ decodes .*'channels': 5"
    with pytest.raises(ValueError, match=message):
        pipeline.run(ldbench.compose("run", [*overrides, "generator.stats=0.5", "tokenizer.model.latent_channels=5"]))


def test_statistics_of_other_channels_are_refused_before_a_tokenizer_is_trained(overrides, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^generator\.stats=.*latents_stats\.pt: The mean is of 3 channels.* have 5\."
    ):
        pipeline.run(ldbench.compose("run", [*overrides, "tokenizer.model.latent_channels=5"]))
    assert not (tmp_path / "artifacts" / "tokenizers").exists()


@pytest.mark.slow
def test_released_sizes_run_from_the_command_line(manifest_state, tmp_path: Path) -> None:
    torch.save({"ema": manifest_state("lightningdit_b_1_f16d32")}, tmp_path / "lightningdit.pt")
    torch.save({"state_dict": manifest_state("vavae_f16d32")}, tmp_path / "vavae.pt")
    torch.save({"mean": torch.zeros(1, 32, 1, 1), "std": torch.ones(1, 32, 1, 1)}, tmp_path / "latents_stats.pt")
    overrides = [
        "tokenizer=vavae_f16d32",
        "tokenizer.weights=vavae.pt",
        "data=shapes",
        "data.num_train=8",
        "data.num_test=8",
        "trainer.accelerator=cpu",
    ]
    cell = [
        *overrides,
        "generator=lightningdit_b_1",
        "generator.weights=lightningdit.pt",
        "generator.stats=latents_stats.pt",
        "sampler.num_steps=2",
    ]
    for command in (
        ["job=encode", "job.batch_size=2", *overrides],
        ["job=generate", "job.labels=[207,360]", "job.num_samples=2", *cell],
    ):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "ldbench.run", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        print(f"\n{command[0]}: {time.monotonic() - start:.0f} s\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("records/generate-*/samples/*/*.png"))) == 2
    (latents,) = tmp_path.glob("artifacts/latents/vavae_f16d32-*")
    assert LatentStore.open(latents).manifest.latent == LatentSpec(256, 32, (16, 16))


def test_a_file_of_another_generator_is_named(overrides, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "released" / "model.pt")
    tokenizer = SimpleNamespace(latent_stats=None)
    message = rf"^{tmp_path}/released/model\.pt: These tensors are no lightningdit_xl_1: missing"
    with pytest.raises(ValueError, match=message):
        get_generator.import_released(ldbench.compose("run", overrides), tokenizer, Registry())
