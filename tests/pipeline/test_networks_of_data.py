"""A dataset names its feature network: metrics, teachers and encoders take it, and none of another dataset unasked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tests.small_datasets import FASHION_MNIST

import ldbench
from ldbench.config.compose import Registry, plain
from ldbench.pipeline import feature_networks, pipeline
from ldbench.pipeline.components import component_config

NETWORKS = sorted(Registry().options("network"))
ALIGNED = ("vavae", "vmae_aligned", "maetok_aligned")
SMALL = [  # a network and a tokenizer so small that they train in a second
    "tokenizer=vavae",
    "tokenizer.model.widths=[8,8,8,16]",
    "tokenizer.losses.alignment.teacher.network.max_steps=2",
    "tokenizer.losses.alignment.teacher.network.model.widths=[8,8,8]",
    "trainer.accelerator=cpu",
    "trainer.limit_steps=2",
    "protocol=default",
]


def teacher_network(cfg: DictConfig) -> dict[str, Any]:
    return plain(cfg.tokenizer.losses.alignment.teacher.network)


@pytest.mark.parametrize("data", NETWORKS)
def test_teachers_encoders_and_metrics_have_the_network_of_the_data(data: str) -> None:
    own = plain(Registry().option("network", data))
    for tokenizer in ALIGNED:
        found = teacher_network(ldbench.compose("train", [f"tokenizer={tokenizer}", f"data={data}"]))
        assert {**found, "seed": None} == {**own, "seed": None}
    cfg = ldbench.compose("train", ["tokenizer=rae", f"data={data}"])
    encoder, distance = plain(cfg.tokenizer.encoder_init), plain(cfg.tokenizer.losses.perceptual.teacher.network)
    assert {encoder["name"], distance["name"]} == {own["name"]}
    seeds = [encoder["seed"], distance["seed"]]
    if cfg.protocol.get("extractor") is not None:
        extractor = component_config("extractor", cfg.protocol.extractor, pipeline.get_protocol(cfg))
        assert extractor["network"]["name"] == own["name"]
        seeds.append(extractor["network"]["seed"])
    assert len(set(seeds)) == len(seeds)


def test_an_experiment_that_sets_the_data_sets_the_network() -> None:
    cfg = ldbench.compose("train", ["experiments=matrix_fashion", "tokenizer=vavae_fashion"])
    assert teacher_network(cfg)["name"] == "fashion_mnist"
    cfg = ldbench.compose("train", ["experiments=matrix_fashion", "tokenizer=vavae", "data=digits"])
    assert teacher_network(cfg)["name"] == "digits"


@pytest.mark.parametrize("tokenizer", [*ALIGNED, "rae"])
def test_data_without_a_network_are_refused(tokenizer: str) -> None:
    with pytest.raises(ValueError, match=r"data=shapes has no feature network.*network=digits.*~loss@tokenizer.losses"):
        ldbench.compose("train", [f"tokenizer={tokenizer}", "data=shapes"])


def test_a_loss_added_with_a_plus_says_that_the_place_exists() -> None:
    word = "loss@tokenizer.losses.alignment=alignment_network"
    with pytest.raises(ValueError, match=rf"Leave out the \+ where the config has this place already: {word}\."):
        ldbench.compose("train", ["tokenizer=vmae", "data=digits", f"+{word}"])
    cfg = ldbench.compose("train", ["tokenizer=vmae", "data=digits", word])
    assert teacher_network(cfg)["name"] == "digits"


@pytest.mark.parametrize("given", ["alignment_digits", "hog", "null"])
def test_data_without_a_network_take_one_that_is_asked_for(given: str) -> None:
    word = {
        "alignment_digits": "loss@tokenizer.losses.alignment=alignment_digits",
        "hog": "teacher@tokenizer.losses.alignment.teacher=hog4",
        "null": "~loss@tokenizer.losses.alignment",
    }[given]
    cfg = ldbench.compose("train", ["tokenizer=vavae", "data=shapes", word])
    alignment = cfg.tokenizer.losses.get("alignment")
    if given == "alignment_digits":
        assert alignment.teacher.network.name == "digits"
    else:
        assert alignment is None or "network" not in alignment.teacher


def test_a_network_that_does_not_exist_is_not_blamed_on_the_data() -> None:
    with pytest.raises(ValueError, match=r"There is no network=shapes\.\nAvailable: digits"):
        ldbench.compose("train", ["tokenizer=rae", "network@tokenizer.encoder_init=shapes"])


def test_the_network_of_the_data_alone_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValueError, match="teacher=digits or teacher=fashion_mnist"):
        Registry().option("teacher", "network")


def test_a_network_is_trained_on_images_from_where_those_of_the_run_are() -> None:
    node = plain(Registry().option("network", "fashion_mnist"))
    cfg = ldbench.compose("train", ["data=fashion_mnist", f"data.root={FASHION_MNIST}", "data.image_size=28"])
    planned = feature_networks.plan(node, Registry().with_data(cfg))
    assert len(planned.data.train) == 160
    assert planned.data.image_size == 32  # its own
    other = ldbench.compose("train", ["data=mnist", f"data.root={FASHION_MNIST}"])
    assert feature_networks.placed_as(node["data"], plain(other.data)) == node["data"]


@pytest.mark.trains
def test_a_training_needs_no_installed_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "data=fashion_mnist", f"data.root={FASHION_MNIST}"]
    cfg = ldbench.compose("train", words)
    pipeline.train(cfg, Registry().with_data(cfg))
    (network,) = (tmp_path / "artifacts" / "networks").glob("[!.]*")
    assert network.name.startswith("fashion_mnist-")


@pytest.mark.trains
def test_it_classifies_real_images_after_a_short_training(tmp_path: Path) -> None:
    node = {**plain(Registry().option("network", "fashion_mnist")), "max_steps": 60, "batch_size": 32}
    run = ldbench.compose("train", ["data=fashion_mnist", f"data.root={FASHION_MNIST}"])
    cfg = OmegaConf.create({"paths": {"artifacts": str(tmp_path)}})
    registry = Registry().with_data(run)
    network = feature_networks.get_network(node, cfg, registry)
    test = feature_networks.plan(node, registry).data.test
    images, labels = torch.stack([test[i][0] for i in range(len(test))]), test.labels
    with torch.no_grad():
        assert (network(images).argmax(dim=1) == labels).float().mean() > 0.5  # 0.1 by chance
