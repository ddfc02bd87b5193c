"""From a config to an artifact and a record, and nothing twice."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

import ldbench
from ldbench import artifacts, pipeline, training
from ldbench.results import records

Compose = Callable[..., DictConfig]


def only_record(root: Path) -> records.Record:
    (path,) = (root / "records").glob("*.json")
    return records.read(path)


def test_training_leaves_an_artifact_and_a_record_of_its_reconstructions(small: Compose, tmp_path: Path) -> None:
    folder = pipeline.train(small())
    tokenizer = ldbench.load(folder)
    assert tokenizer.latent.num_tokens == 16
    assert not tokenizer.training
    manifest = json.loads((folder / "manifest.json").read_text())
    assert folder.name == f"vmae-{manifest['digest'][:8]}"
    record = only_record(tmp_path)
    assert record.job == "reconstruct"
    assert record.artifacts == {"tokenizer": folder.name}
    assert record.subject == {"tokenizer": "vmae", "generator": None, "data": "digits"}
    assert set(record.metrics) == {"psnr", "ssim", "mse"}
    assert all(e.low < e.value < e.high for e in record.metrics.values())
    assert (tmp_path / "records" / f"reconstruct-{record.id}" / "reconstructions.png").is_file()


def test_its_figures_are_those_of_the_artifact_on_the_held_out_images(small: Compose, tmp_path: Path) -> None:
    cfg = small()
    tokenizer = ldbench.load(pipeline.train(cfg))
    from ldbench import config
    from ldbench.core.pixels import to_uint8

    test = config.instantiate(cfg.data).test
    images = torch.stack([test[i][0] for i in range(len(test))])
    with torch.no_grad():
        recon = tokenizer.decode(tokenizer.encode(images).mean)
    error = (to_uint8(images).double() - to_uint8(recon).double()).square().mean(dim=(1, 2, 3))
    by_hand = (10 * torch.log10(255**2 / error)).mean().item()
    assert only_record(tmp_path).metrics["psnr"].value == pytest.approx(by_hand, rel=1e-4)


def test_what_is_there_is_neither_trained_nor_measured_again(
    small: Compose, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline.train(small())
    before = {path: path.stat().st_mtime_ns for path in folder.parents[2].rglob("*") if path.is_file() and path.suffix != ".lock"}
    monkeypatch.setattr(training, "fit", lambda planned: pytest.fail("trained again"))
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert pipeline.train(small("logger=wandb", "callbacks.checkpoint.every=3")) == folder
    assert f"is there already: {folder}" in caplog.text
    assert "measured already" in caplog.text
    after = {path: path.stat().st_mtime_ns for path in folder.parents[2].rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert after == before


def test_force_measures_again_and_finds_the_same(small: Compose, tmp_path: Path) -> None:
    pipeline.train(small())
    first = only_record(tmp_path)
    pipeline.train(small("force=true"))
    assert only_record(tmp_path).metrics == first.metrics


def test_another_protocol_makes_another_record(small: Compose, tmp_path: Path) -> None:
    pipeline.train(small())
    pipeline.train(small("protocol.pixel_rule=truncate"))
    found = [records.read(path) for path in (tmp_path / "records").glob("*.json")]
    assert len({record.id for record in found}) == len({record.protocol["hash"] for record in found}) == 2


def test_an_artifact_that_is_not_complete_is_built_again(small: Compose) -> None:
    folder = pipeline.train(small())
    (folder / "manifest.json").unlink()
    weights = (folder / "weights.safetensors").read_bytes()
    assert pipeline.train(small()) == folder
    assert artifacts.is_complete(folder)
    assert (folder / "weights.safetensors").read_bytes() == weights


def test_wandb_offline_gets_the_losses_and_closes_its_run(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    pipeline.train(small("logger=wandb"))
    assert wandb.run is None, "the run was finished"
    (run_file,) = tmp_path.rglob("run-*.wandb")
    assert b"train/loss" in run_file.read_bytes()


def test_the_numbers_of_a_record_do_not_depend_on_the_batch_size(small: Compose) -> None:
    from ldbench import config
    from ldbench.jobs.reconstruct import Reconstruct

    cfg = small()
    tokenizer = ldbench.load(pipeline.train(cfg))
    test = config.instantiate(cfg.data).test
    metrics = {name: pipeline.make_metric(name) for name in ("psnr", "ssim")}
    common = {"tokenizer": tokenizer, "images": test, "metrics": metrics, "pixel_rule": "round", "latent": "sample", "seed": 0}
    common |= {"names": [str(i) for i in range(len(test))], "save_images": False}
    values = []
    for batch_size in (7, 90):
        job = Reconstruct(**common, batch_size=batch_size, workers=0, device=torch.device("cpu"))
        values.append(job.run(Path(cfg.paths.root) / str(batch_size)))
    for name in metrics:
        assert values[0][name].value == pytest.approx(values[1][name].value, rel=1e-4)


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no metric named 'pnsr'. Did you mean psnr\? Known: mse, psnr, ssim"):
        pipeline.make_metric("pnsr")
