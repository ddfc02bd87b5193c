"""Every option of every group composes, every component builds from its yaml alone, and every experiment is sound."""

import inspect
from pathlib import Path

import pytest
import torch

import ldbench
from ldbench import config
from ldbench.core.protocols import ImageData, LossTerm

GROUPS = sorted(path.name for path in config.conf_dir().iterdir() if path.is_dir())
PRIMARY = ("data", "tokenizer", "protocol", "trainer", "callbacks", "logger", "paths", "experiments")
OPTIONS = [(group, name) for group in GROUPS for name in config.options(group)]
CONSTRUCTED = [  # our own constructors, with the yaml node that calls them
    (group, name)
    for group in config.COMPONENT_GROUPS
    for name, target in config.targets(group).items()
    if target.startswith("ldbench.") and not config.options(group)[name].get("_partial_")
]


@pytest.mark.parametrize(("group", "name"), [pair for pair in OPTIONS if pair[0] in PRIMARY])
def test_it_composes(group: str, name: str) -> None:
    assert ldbench.compose("train", [f"{group}={name}"])


@pytest.mark.parametrize(("group", "name"), CONSTRUCTED)
def test_yaml_and_constructor_agree_and_neither_sets_what_the_other_does(group: str, name: str) -> None:
    raw = config.options(group)[name]
    node = raw.get("model", raw)
    parameters = inspect.signature(config.find(node["_target_"])).parameters
    given = {key for key in node if not key.startswith("_")}
    assert given <= parameters.keys()
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY or group == "optimizer" for key in parameters)
    assert not {key for key in given if parameters[key].default is not inspect.Parameter.empty}, "a default in two places"


@pytest.mark.parametrize("name", sorted(name for name in config.options("loss") if not name.startswith("lpips")))
def test_a_loss_term_is_one_finite_number_that_its_reconstruction_can_lower(name: str) -> None:
    from ldbench.core.posterior import Posterior
    from ldbench.core.tokenizer import Reconstruction

    term = config.instantiate(config.options("loss")[name])
    assert isinstance(term, LossTerm)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    mean, logvar, recon = (torch.randn(shape, requires_grad=True) for shape in ((2, 4, 3), (2, 4, 3), (2, 3, 8, 8)))
    value = term(images, Reconstruction(images=recon, z=mean, posterior=Posterior(mean, logvar)), torch.zeros(2, dtype=torch.long))
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in (mean, logvar, recon))


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Small folders in the layouts that image yamls ask for."""
    from PIL import Image

    def fill(folder: Path) -> None:
        folder.mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 30), (i * 40, 100, 200)).save(folder / f"{i}.png")

    for split in ("train", "val"):
        for label in ("a", "b"):
            fill(tmp_path / "classes" / split / label)
    for label in ("a", "b"):
        fill(tmp_path / "tiny" / "train" / label / "images")
    fill(tmp_path / "tiny" / "val" / "images")
    (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("".join(f"{i}.png\t{'ab'[i % 2]}\t0\t0\t9\t9\n" for i in range(3)))
    fill(tmp_path / "flat")
    layouts = {"folder": "classes", "imagenet256": "classes", "imagenet512": "classes", "celebahq256": "flat", "tinyimagenet": "tiny"}
    return {name: tmp_path / layout for name, layout in layouts.items()}


@pytest.mark.parametrize("name", sorted(config.options("data")))
def test_data_hand_over_their_facts(name: str, roots: dict[str, Path]) -> None:
    own = config.options("data")[name].get("image_size", 24)  # some yamls are of one size
    size = own if isinstance(own, int) else 24
    extra = {"shapes": ["data.num_train=16", "data.num_test=8"]}.get(name, [f"data.root={roots[name]}"] if name in roots else [])
    cfg = ldbench.compose("train", [f"data={name}", f"tokenizer.image_size={size}", *extra])
    data, again = config.instantiate(cfg.data), config.instantiate(cfg.data)
    assert isinstance(data, ImageData)
    assert data.image_size == size
    assert len(data.class_names) == data.num_classes
    assert data.fingerprint == again.fingerprint
    for split in (data.train, data.test):
        image, label = split[len(split) - 1]
        assert image.shape == (3, size, size)
        assert image.dtype == torch.float32
        assert image.min() >= -1
        assert image.max() <= 1
        assert 0 <= label < data.num_classes


@pytest.mark.parametrize("name", sorted(config.options("metric")))
def test_a_metric_gives_one_number_for_each_image(name: str) -> None:
    metric = config.instantiate(config.options("metric")[name])
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = metric(images, images.flip(0))
    assert values.shape == (3,)
    assert values.dtype == torch.float64


@pytest.mark.parametrize("name", sorted(config.options("experiments")))
def test_an_experiment_begins_with_its_command_and_composes(name: str) -> None:
    text = (config.conf_dir() / "experiments" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert f"python -m ldbench.train experiments={name}" in text
    assert ldbench.compose("train", [f"experiments={name}"])
