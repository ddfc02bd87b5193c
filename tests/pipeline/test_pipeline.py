"""From a config to an artifact and a record, and nothing twice."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

import ldbench
from ldbench.artifacts import store
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.pipeline import components, feature_networks, pipeline, tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.results import records

Compose = Callable[..., DictConfig]


def only_record(root: Path) -> records.Record:
    (path,) = (root / "records").glob("*.json")
    return records.read(path)


def test_training_leaves_an_artifact_and_a_record_of_its_reconstructions(
    already: Callable[..., Path], tmp_path: Path
) -> None:
    folder = already()
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


@pytest.mark.trains
@pytest.mark.parametrize("batches", [0, 1])
def test_only_a_training_on_the_same_batches_reports_how_far_its_loss_fell(
    small: Compose, caplog: pytest.LogCaptureFixture, batches: int
) -> None:
    planned = plan_tokenizer(small(f"trainer.overfit_batches={batches}", "tokenizer.stages.pretrain.max_steps=10"))
    with caplog.at_level(logging.INFO):
        tokenizer_training.train_tokenizer(planned)
    assert ("the loss on the same batches" in caplog.text) == bool(batches)


def test_its_figures_are_those_of_the_artifact_on_the_held_out_images(
    small: Compose, already: Callable[..., Path], tmp_path: Path
) -> None:
    cfg = small()
    tokenizer = ldbench.load(already())
    from ldbench.core.pixels import to_uint8

    test = instantiate(cfg.data).test
    images = torch.stack([test[i][0] for i in range(len(test))])
    with torch.no_grad():
        recon = tokenizer.decode(tokenizer.encode(images).mean)
    error = (to_uint8(images).double() - to_uint8(recon).double()).square().mean(dim=(1, 2, 3))
    by_hand = (10 * torch.log10(255**2 / error)).mean().item()
    assert only_record(tmp_path).metrics["psnr"].value == pytest.approx(by_hand, rel=1e-4)


def test_what_is_there_is_neither_trained_nor_measured_again(
    small: Compose, already: Callable[..., Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = already()
    before = {
        path: path.stat().st_mtime_ns
        for path in folder.parents[2].rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    monkeypatch.setattr(tokenizer_training, "fit", lambda planned: pytest.fail("trained again"))
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert pipeline.train(small("logger=wandb", "callbacks.checkpoint.every=3")) == folder
    assert f"exists already: {folder}" in caplog.text
    assert "measured already" in caplog.text
    after = {
        path: path.stat().st_mtime_ns
        for path in folder.parents[2].rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    assert after == before


def test_force_measures_again_and_finds_the_same(small: Compose, already: Callable[..., Path], tmp_path: Path) -> None:
    already()
    first = only_record(tmp_path)
    pipeline.train(small("force=true"))
    assert only_record(tmp_path).metrics == first.metrics


def test_another_protocol_makes_another_record(small: Compose, already: Callable[..., Path], tmp_path: Path) -> None:
    already()
    pipeline.train(small("protocol.pixel_rule=truncate"))
    found = [records.read(path) for path in (tmp_path / "records").glob("*.json")]
    assert len({record.id for record in found}) == len({record.protocol["hash"] for record in found}) == 2


def test_an_artifact_that_is_not_complete_is_built_again(small: Compose, already: Callable[..., Path]) -> None:
    folder = already()
    (folder / "manifest.json").unlink()
    weights = (folder / "weights.safetensors").read_bytes()
    assert pipeline.train(small()) == folder
    assert store.is_complete(folder)
    assert (folder / "weights.safetensors").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.trains
def test_wandb_offline_gets_the_losses_and_closes_its_run(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    pipeline.train(small("logger=wandb"))
    assert wandb.run is None, "the run was finished"
    (run_file,) = (path for path in tmp_path.rglob("run-*.wandb") if "records" not in path.relative_to(tmp_path).parts)
    assert b"train/loss" in run_file.read_bytes()


def test_the_numbers_of_a_record_do_not_depend_on_the_batch_size(small: Compose, already: Callable[..., Path]) -> None:
    from ldbench.jobs.reconstruct import Reconstruct

    cfg = small()
    tokenizer = ldbench.load(already())
    test = instantiate(cfg.data).test
    metrics = {name: components.build_metric("metric", name, pipeline.get_protocol(cfg)) for name in ("psnr", "ssim")}
    common = {
        "tokenizer": tokenizer,
        "images": test,
        "metrics": metrics,
        "pixel_rule": "round",
        "latent": "sample",
        "seed": 0,
    }
    common |= {"data": instantiate(cfg.data), "sets": None, "split": "test"}
    common |= {"names": [str(i) for i in range(len(test))], "save_images": False}
    values = []
    for batch_size in (7, 90):
        job = Reconstruct(**common, batch_size=batch_size, num_processes=1, workers=0, device=torch.device("cpu"))
        values.append(job.run(Path(cfg.paths.root) / str(batch_size)))
    for name in metrics:
        assert values[0][name].value == pytest.approx(values[1][name].value, rel=1e-4)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A config folder with the digits' extractor on a network that takes no time, and data that have no protocol."""
    for group, name, text in (
        (
            "extractor",
            "tiny",
            "defaults: [digits, _self_]\nnetwork: {name: tiny, max_steps: 3, batch_size: 16, data: {subset: 0.1}}\n",
        ),
        ("data", "mine", "defaults: [digits, _self_]\nname: mine\nsubset: 0.05\n"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(text)
    return str(tmp_path / "conf")


@pytest.mark.trains
def test_distances_are_measured_on_an_extractor_that_is_trained_once_and_stands_in_the_protocol(
    small: Compose, tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["protocol=digits", "protocol.extractor=tiny"]
    pipeline.train(small(*overrides), Registry((tiny,)))
    record = only_record(tmp_path)
    assert "rfd_tiny_floor" not in record.metrics, "that of perfect reconstructions is 0"
    assert record.metrics["rfd_tiny"].value > 0
    (network,) = (tmp_path / "artifacts" / "networks").glob("tiny-*")
    digest = feature_networks.network_digest(Registry((tiny,)).option("extractor", "tiny").network, Registry((tiny,)))
    assert network.name == f"tiny-{digest[:8]}"
    assert record.protocol["extractor"]["name"] == "tiny"
    assert record.protocol["distribution"] == sorted(pipeline.get_protocol(small(*overrides)).distribution)
    assert {"kid_tiny", "class_accuracy_tiny"} < set(record.metrics)
    monkeypatch.setattr(feature_networks, "get_network", lambda *_: pytest.fail("what is known needs no network"))
    caplog.set_level(logging.INFO)
    pipeline.train(small(*overrides), Registry((tiny,)))
    assert "measured already" in caplog.text
    assert "  rfd_tiny  " in caplog.text
    monkeypatch.setattr(feature_networks, "TRAINING_REVISION", 99)
    with pytest.raises(pytest.fail.Exception, match="what is known needs no network"):
        pipeline.train(small(*overrides), Registry((tiny,)))  # another network, another protocol


@pytest.mark.trains
def test_data_name_their_protocol_and_data_without_one_are_measured_under_default(
    small: Compose, small_overrides: list[str], tiny: str, tmp_path: Path
) -> None:
    overrides = [word for word in small_overrides if not word.startswith("protocol")]
    assert ldbench.compose("train", overrides).protocol.name == "digits"
    assert ldbench.compose("run", ["data=shapes", "protocol.split=all"]).protocol.name == "shapes"
    foreign = ldbench.compose("train", [*overrides, "data=mine", f"paths.root={tmp_path}"], searchpath=[tiny])
    assert "protocol" not in foreign
    assert pipeline.get_protocol(foreign) == pipeline.get_protocol(small())
    pipeline.train(foreign, Registry((tiny,)))
    assert only_record(tmp_path).protocol["name"] == "default"


@pytest.mark.slow
@pytest.mark.trains
def test_a_next_tokenizer_finds_what_was_seen_of_real_images(small: Compose, tmp_path: Path, tiny: str) -> None:
    overrides = ["protocol=digits", "protocol.extractor=tiny"]
    pipeline.train(small(*overrides), Registry((tiny,)))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts" / "features").glob("*.safetensors")}
    assert before
    pipeline.train(small(*overrides, "tokenizer.seed=1"), Registry((tiny,)))
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts" / "features").glob("*.safetensors")
    } == before


@pytest.mark.trains
def test_a_job_of_any_name_makes_a_record_of_its_own(
    small: Compose, small_overrides: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def probed(*overrides: str) -> records.Record:
        pipeline.run(ldbench.compose("run", [*small_overrides, f"paths.root={tmp_path}", "job=probe", *overrides]))
        return records.read(max((tmp_path / "records").glob("probe-*.json"), key=lambda path: path.stat().st_mtime_ns))

    folder = pipeline.train(small("+job@jobs.probe=probe"))
    assert len(list((tmp_path / "records").glob("*.json"))) == 2
    caplog.set_level(logging.INFO)
    first = probed("job.batch_size=16", "protocol.pixel_rule=truncate", "trainer.workers=0")
    assert "job probe was measured already" in caplog.text, (
        "neither batches nor what a probe does not look at make another measurement"
    )
    assert first.job == "probe"
    assert first.artifacts == {"tokenizer": folder.name}
    assert {
        "probe/accuracy",
        "probe/chance",
        "probe/knn_accuracy",
        "probe/intrinsic_dimension",
        "probe/collapsed_channels",
    } < set(first.metrics)
    assert set(first.protocol) == {"name", "data", "hash"}
    second = probed("job.num_train=50")
    assert second.id != first.id
    assert second.metrics["probe/accuracy"].value <= first.metrics["probe/accuracy"].value
    assert len(list((tmp_path / "records").glob("probe-*.json"))) == 2


def test_a_teacher_counts_with_all_that_its_features_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = iter(["first", "first", "second"])
    monkeypatch.setattr(feature_networks, "network_key", lambda *_: next(weights))
    cfg = ldbench.compose("run")

    def described(**settings: Any) -> dict[str, Any]:
        return components.with_teacher(settings, cfg)

    assert described(seed=0, teacher=None) == {"seed": 0, "teacher": None}
    first, again, elsewhere = (described(seed=0, teacher="digits") for _ in range(3))
    assert first == again
    assert (first["seed"], first["teacher"]["name"]) == (0, "digits")
    assert elsewhere != first, "its network has other weights on another machine"
    assert described(teacher="hog")["teacher"]["digest"] != described(teacher="hog4")["teacher"]["digest"]
