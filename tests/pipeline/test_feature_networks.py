"""Feature networks: trained once, found afterwards, told apart by all that their numbers depend on."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ldbench.artifacts import store
from ldbench.config.components import import_target, instantiate
from ldbench.config.compose import Registry
from ldbench.pipeline import feature_networks

Node = dict[str, Any]
TINY = {
    "max_steps": 3,
    "batch_size": 16,
    "model": {"widths": [8, 8, 8], "num_features": 4},
    "data": {"image_size": 16, "subset": 0.05},
}


@pytest.fixture
def node() -> Node:
    """The digits' recipe, with so few steps that it takes no time."""
    return OmegaConf.to_container(OmegaConf.merge(Registry().option("network", "digits"), TINY))


@pytest.fixture
def cfg(tmp_path: Path) -> DictConfig:
    return OmegaConf.create({"paths": {"artifacts": str(tmp_path / "artifacts")}})


def refuse(*args: object, **kwargs: object) -> None:
    pytest.fail("trained again")


def test_it_is_trained_on_first_use_and_found_afterwards(
    node: Node, cfg: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ldbench")
    network = feature_networks.get_network(node, cfg)
    (folder,) = (tmp_path / "artifacts" / "networks").glob("[!.]*")
    assert folder.name == f"digits-{feature_networks.network_digest(node)[:8]}"
    assert store.read_manifest(folder)["digest"] == feature_networks.network_digest(node)
    assert f"Network: {folder}" in caplog.text
    caplog.clear()
    monkeypatch.setattr(feature_networks, "build", refuse)
    again = feature_networks.get_network(OmegaConf.create(node), cfg)
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    assert [(record.levelname, "exists already" in record.message) for record in caplog.records] == [("DEBUG", True)]


def test_its_digest_needs_no_training(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_networks, "build", refuse)
    monkeypatch.chdir(tmp_path)
    assert len(feature_networks.network_digest(node)) == 64
    assert not list(tmp_path.iterdir())


CHANGES: dict[str, Callable[[Node], Any]] = {
    "seed": lambda node: node.update(seed=5),
    "model": lambda node: node["model"].update(num_features=5),
    "data": lambda node: node["data"].update(subset=0.06),
    "optimizer": lambda node: node["optimizer"].update(lr=1e-4),
    "max_steps": lambda node: node.update(max_steps=4),
    "batch_size": lambda node: node.update(batch_size=15),
    "shift": lambda node: node.update(shift=0),
    "threads": lambda node: node.update(threads=2),
}


def test_every_key_but_the_name_is_tried() -> None:
    assert {*CHANGES, "name"} == set(feature_networks.KEYS)


@pytest.mark.parametrize("key", CHANGES)
def test_its_digest_changes_with_all_that_its_numbers_depend_on(node: Node, key: str) -> None:
    changed = copy.deepcopy(node)
    CHANGES[key](changed)
    assert feature_networks.network_digest(changed) != feature_networks.network_digest(node)


@pytest.mark.parametrize("revision", ["training", "model"])
def test_its_digest_changes_with_the_revisions(node: Node, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = feature_networks.network_digest(node)
    if revision == "training":
        monkeypatch.setattr(feature_networks, "TRAINING_REVISION", 99)
    else:
        monkeypatch.setattr(import_target(node["model"]["_target_"]), "revision", 99)
    assert feature_networks.network_digest(node) != before


def test_its_digest_does_not_change_with_its_name(node: Node) -> None:
    assert feature_networks.network_digest({**node, "name": "mine"}) == feature_networks.network_digest(node)


def test_obtaining_one_leaves_randomness_threads_and_kernels_as_they_were(node: Node, cfg: DictConfig) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    for _ in ("trained", "found"):
        torch.manual_seed(3)
        feature_networks.get_network({**node, "threads": 2}, cfg)
        assert torch.equal(torch.rand(2), expected)
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_it_does_not_depend_on_what_was_drawn_before(node: Node, cfg: DictConfig, tmp_path: Path) -> None:
    elsewhere = OmegaConf.create({"paths": {"artifacts": str(tmp_path / "elsewhere")}})
    torch.manual_seed(1)
    first = feature_networks.get_network(node, cfg).state_dict()
    torch.manual_seed(2)
    second = feature_networks.get_network(node, elsewhere).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_one_that_was_altered_is_refused(node: Node, cfg: DictConfig, tmp_path: Path) -> None:
    feature_networks.get_network(node, cfg)
    (weights,) = tmp_path.rglob("weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ValueError, match="does not match its manifest"):
        feature_networks.get_network(node, cfg)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_step": 3}, r"There is no config key network\.max_step\. Did you mean max_steps\?"),
        ({"max_steps": 0}, r"network\.max_steps must be a whole number of at least 1, got 0"),
        ({"shift": 0.5}, r"network\.shift must be a whole number of at least 0, got 0\.5"),
        ({"seed": "one"}, r"network\.seed must be a whole number of at least 0, got 'one'"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(node: Node, change: Node, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        feature_networks.network_digest({**node, **change})


def test_a_recipe_that_lacks_a_key_is_refused(node: Node) -> None:
    del node["batch_size"]
    with pytest.raises(ValueError, match="The recipe of a network lacks batch_size"):
        feature_networks.network_digest(node)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_networks_of_the_digits_know_the_held_out_digits(seed: int, cfg: DictConfig) -> None:
    node = Registry().option("network", "digits")
    node.seed = seed
    network = feature_networks.get_network(node, cfg)
    test = instantiate(node.data).test
    images, y = zip(*(test[place] for place in range(len(test))), strict=True)
    with torch.no_grad():
        hits = (network(torch.stack(images)).argmax(dim=1) == torch.tensor(y)).double().mean()
    assert hits > 0.97
