"""Networks that come with the package are used where their recipe is asked for, verified, and never another's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tests.small_datasets import FASHION_MNIST

import ldbench
from ldbench.artifacts import store
from ldbench.config.compose import Registry, plain
from ldbench.pipeline import feature_networks

INSTALLED = Path(plain(Registry().option("data", "fashion_mnist"))["installed"][0])  # by Debian's package
TINY = {"max_steps": 1, "batch_size": 4}
PACKAGED = sorted(path.parent for path in feature_networks.PACKAGED.glob("*/manifest.json"))


def node(**changes: Any) -> dict[str, Any]:
    """A recipe of the digits' network that trains in no time."""
    return {**plain(Registry().option("network", "digits")), **TINY, **changes}


def root(folder: Path) -> DictConfig:
    return OmegaConf.create({"paths": {"artifacts": str(folder)}})


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a network that comes with the package, and no way to train one."""
    folder = feature_networks.build_network(node(), root(tmp_path / "made"), Registry())
    monkeypatch.setattr(feature_networks, "PACKAGED", folder.parent)

    def build(planned: Any, place: Path) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr(feature_networks, "build", build)
    return folder


@pytest.mark.trains
def test_its_weights_are_those_of_the_package(packaged: Path, tmp_path: Path) -> None:
    found = feature_networks.build_network(node(), root(tmp_path / "mine"), Registry())
    assert found == tmp_path / "mine" / "networks" / packaged.name
    assert store.content_key(found) == store.content_key(packaged)
    theirs, ours = store.load(packaged).state_dict(), store.load(found).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert sorted(path.name for path in found.parent.iterdir() if not path.name.startswith(".")) == [packaged.name]


@pytest.mark.trains
@pytest.mark.parametrize("changes", [{"seed": 3}, {"shift": 1}])
def test_another_recipe_is_trained(packaged: Path, tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match="it was trained"):
        feature_networks.build_network(node(**changes), root(tmp_path / "mine"), Registry())


@pytest.mark.trains
def test_an_altered_file_is_refused_and_nothing_is_left(packaged: Path, tmp_path: Path) -> None:
    with (packaged / store.WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="does not match its manifest"):
        feature_networks.build_network(node(), root(tmp_path / "mine"), Registry())
    assert not list((tmp_path / "mine").rglob(store.MANIFEST))


@pytest.mark.parametrize("folder", PACKAGED, ids=lambda path: path.name)
def test_what_comes_with_the_package_is_what_a_datasets_extractor_asks_for(folder: Path) -> None:
    """Up to the images, which are not on every machine."""
    name = folder.name.rpartition("-")[0]
    recipe = store.read_config(folder)["recipe"]
    extractor = plain(Registry().option("extractor", name))["network"]
    place = [f"data.root={FASHION_MNIST}"] if name == "fashion_mnist" else []
    cfg = ldbench.compose("train", [f"data={name}", *place])
    planned = feature_networks.plan(extractor, Registry().with_data(cfg))
    assert {**planned.recipe, "data": None} == {**recipe, "data": None}
    store.verify(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1e6


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_whole_of_fashion_mnist_asks_for_the_network_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_networks, "build", None)
    extractor = plain(Registry().option("extractor", "fashion_mnist"))["network"]
    found = feature_networks.build_network(extractor, root(tmp_path), Registry())
    assert found.name in [folder.name for folder in PACKAGED]
