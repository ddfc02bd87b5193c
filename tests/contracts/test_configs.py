"""Every option of every group composes, every component builds from its yaml alone, and every experiment is sound."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

import ldbench
from ldbench import artifacts, config, measuring, networks, pipeline
from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.protocols import Estimate, ImageData, LossTerm, Predictor, is_adversary
from ldbench.core.seen import Features, gather
from ldbench.core.tokenizer import Reconstruction

GROUPS = sorted(path.name for path in config.conf_dir().iterdir() if path.is_dir())
PRIMARY = ("generator", "trainer", "callbacks", "logger", "paths")  # tokenizers, data, protocols and experiments have tests that compose each
OPTIONS = [(group, name) for group in GROUPS for name in config.options(group)]
CONSTRUCTED = [  # our own constructors, with the yaml node that calls them
    (group, name)
    for group in config.COMPONENT_GROUPS
    for name, target in config.targets(group).items()
    if target.startswith("ldbench.") and not config.options(group)[name].get("_partial_")
]


def is_size(name: str) -> bool:
    """Whether a generator differs from another by its size alone."""
    return any(isinstance(entry, dict) and "override /size" in entry for entry in config.options("generator")[name].get("defaults", []))


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, marks=pytest.mark.slow) if group == "generator" and is_size(name) else (group, name)
        for group, name in OPTIONS
        if group in PRIMARY
    ],
)
def test_it_composes(group: str, name: str) -> None:
    assert ldbench.compose("train", [f"{group}={name}"])


def built_on(group: str, entry: str | dict[str, str]) -> list[tuple[str, str]]:
    """The options (group, name) that an entry of a defaults list names: `name`, or `/group@package: name`, or `override group: name`."""
    named = entry if isinstance(entry, dict) else {f"/{group}": entry}
    places = {key.split()[-1].partition("@")[0]: name for key, name in named.items()}
    return [(place[1:] if place.startswith("/") else f"{group}/{place}", name) for place, name in places.items()]


@pytest.mark.parametrize("group", GROUPS)
def test_what_an_option_builds_on_is_there(group: str) -> None:
    for name, raw in config.options(group).items():
        for entry in raw.get("defaults", []):
            missing = [where for where in built_on(group, entry) if where[1] not in ("_self_", None, *config.options(where[0]))]
            assert not missing, f"{group}/{name} builds on {missing}"


@pytest.mark.parametrize(("group", "name"), CONSTRUCTED)
def test_yaml_and_constructor_agree_and_neither_sets_what_the_other_does(group: str, name: str) -> None:
    raw = config.options(group)[name]
    node = raw.get("model", raw)
    parameters = inspect.signature(config.find(node["_target_"])).parameters
    given = {key for key in node if not key.startswith("_") and key != "defaults"}
    assert given <= parameters.keys()
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY or group in ("optimizer", "mask") for key in parameters)
    assert not {key for key in given if parameters[key].default is not inspect.Parameter.empty}, "a default in two places"


class Look:
    """A teacher that sees mean colours; the trunk of a discriminator too."""

    revision = 1

    def channels(self, image_size, grid):
        return 3

    def __call__(self, images, grid):
        return nn.functional.adaptive_avg_pool2d(images, grid).flatten(2).transpose(1, 2)

    def readouts(self, images, depths):
        return [images.flatten(2)[..., :9] for _ in range(1 + len(depths))]

    def parameters(self):
        return iter(())


SMALLER = {  # what images of 8 px need
    "adversarial": {"discriminator": {"num_layers": 1, "width": 4}},
    "adversarial_dino": {"discriminator": {"width": 3, "depths": [1], "input_size": 8}},
}
FACTS = {"latent": LatentSpec(4, 3, (2, 2)), "patch_grid": (2, 2), "image_size": 8, "num_classes": 5}


def loss_term(name: str) -> nn.Module:
    node = OmegaConf.to_container(OmegaConf.merge(config.option("loss", name), SMALLER.get(name, {})), resolve=True)
    for place in (node, node.get("discriminator", {})):
        if "teacher" in place:
            place["teacher"] = Look()
    return config.instantiate(node, **{fact: FACTS[fact] for fact in FACTS.keys() & set(config.parameters(node["_target_"]))})


@pytest.mark.parametrize("name", sorted(name for name in config.options("loss") if not name.startswith("lpips")))
def test_a_loss_term_is_one_finite_number_that_its_reconstruction_can_lower(name: str) -> None:
    torch.manual_seed(0)
    term = loss_term(name)
    assert isinstance(term, LossTerm)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    mean, logvar, recon = (torch.randn(shape, requires_grad=True) for shape in ((2, 4, 3), (2, 4, 3), (2, 3, 8, 8)))
    for module in term.modules():
        if hasattr(module, "modulation"):
            nn.init.normal_(module.modulation.weight)  # hidden latents get no gradient at the first step
    passed = Reconstruction(images=recon, z=mean, posterior=Posterior(mean, logvar))
    value = term(images, passed, torch.zeros(2, dtype=torch.long))
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in (mean, logvar, recon))
    if is_adversary(term):
        detached = Reconstruction(images=recon.detach(), z=mean.detach(), posterior=Posterior(mean.detach()))
        theirs = term.discriminate(images, detached)
        theirs.backward()
        assert torch.isfinite(theirs)
    if isinstance(term, Predictor):
        targets = term.targets(images, torch.zeros(2, dtype=torch.long))
        assert term.errors(term.predict(passed), targets).shape == term.errors(term.constant(targets).expand_as(term.predict(passed)), targets).shape


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


DISTANCES = [name for name in sorted(config.options("distribution")) if config.find(config.option("distribution", name)._target_).is_distance]


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_small_between_alike_and_large_between_unlike_sets(name: str) -> None:
    distance = config.instantiate(config.option("distribution", name))
    rng = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(200, 6, generator=rng) for _ in range(3))
    sets = [gather(Features(rows, spatial=rows), distance.needs) for rows in (a, b, c + 3, a.flip(0))]
    alike, unlike, flipped = (distance(*pair, paired=False).value for pair in (sets[:2], (sets[0], sets[2]), (sets[3], sets[1])))
    assert abs(alike) < unlike
    assert flipped == pytest.approx(alike, rel=1e-9)


def untrained(group: str, name: str) -> nn.Module:
    """An option of a group on its network before any training."""
    node = config.option(group, name)
    data = config.instantiate(node.network.data)
    torch.manual_seed(0)
    network = config.instantiate(node.network.model, image_size=data.image_size, num_classes=data.num_classes)
    return config.instantiate({**node, "network": network})


def teacher_of(name: str) -> nn.Module:
    """A teacher on random weights of its true shape."""
    node = config.option("teacher", name)
    if "network" in node:
        return untrained("teacher", name)
    if "weights" not in node:
        return config.instantiate(node)
    torch.manual_seed(0)
    return config.instantiate({**node, "weights": timm.create_model(node.architecture, pretrained=False).state_dict()})


LARGE = ("dinov2", "siglip", "clip", "mae")  # hundreds of millions of weights
TEACHERS = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in sorted(config.options("teacher"))]


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_gives_its_channels_at_every_place_whatever_the_grid_and_is_frozen(name: str) -> None:
    teacher = teacher_of(name).train()
    assert teacher.revision >= 1
    assert not any(p.requires_grad for p in teacher.parameters())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for grid in ((4, 4), (2, 4)):
        features = teacher(images.requires_grad_(), grid)
        assert features.shape == (2, grid[0] * grid[1], teacher.channels(64, grid))
        assert features.dtype == torch.float32
        assert not features.requires_grad
        assert torch.isfinite(features).all()
        torch.testing.assert_close(teacher(images[:1], grid), features[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(config.options("discriminator")))
def test_a_discriminator_gives_logits_that_its_images_and_weights_can_move(name: str) -> None:
    node = OmegaConf.to_container(config.option("discriminator", name))
    if "teacher" in node:
        node |= {"teacher": Look(), "width": 3, "depths": [1], "input_size": 32}
    torch.manual_seed(0)
    discriminator = config.instantiate(node)
    images = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
    logits = discriminator(images)
    assert len(logits) == 2
    logits.square().mean().backward()
    assert images.grad.abs().sum() > 0
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.parameters())


@pytest.mark.parametrize("name", sorted(config.options("mask")))
def test_a_law_of_masks_draws_shares(name: str) -> None:
    node = config.option("mask", name)
    law = config.instantiate(OmegaConf.merge(node, {"steps": 10} if OmegaConf.missing_keys(node) else {}))
    for step in (0, 5, 100):
        ratio = torch.as_tensor(law.draw(step, 3))
        assert ratio.shape in ((), (3,))
        assert ((ratio >= 0) & (ratio <= 1)).all()


@pytest.mark.parametrize("name", [name for name in sorted(config.options("extractor")) if "network" in config.option("extractor", name)])
def test_an_extractor_gives_float32_features_that_do_not_see_each_other(name: str) -> None:
    extractor = untrained("extractor", name)
    assert extractor.revision >= 1
    images = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen, first = extractor.look(images), extractor.look(images[:1])
    assert {name for name in ("features", "spatial", "logits") if getattr(seen, name) is not None} == set(extractor.gives)
    for given in extractor.gives:
        rows = getattr(seen, given)
        assert rows.ndim == 2
        assert rows.dtype == torch.float32
        assert not rows.requires_grad
        torch.testing.assert_close(getattr(first, given), rows[:1], rtol=1e-4, atol=1e-5)
    assert torch.equal(extractor.features(images), seen.features)


@pytest.mark.parametrize("name", sorted(config.options("distribution")))
def test_a_metric_on_sets_tells_a_finite_number_within_its_interval(name: str) -> None:
    metric = config.instantiate(config.option("distribution", name))
    assert metric.revision >= 1
    assert metric.needs <= {"normal", "spatial", "features", "logits", "labels"}
    assert isinstance(metric.is_distance, bool)
    rng = torch.Generator().manual_seed(0)
    sets = [Features(*(torch.randn(count, 5, generator=rng) for _ in range(3))) for count in (40, 30)]
    seen = [gather(given, metric.needs, labels=torch.arange(len(given.features)) % 5) for given in sets]  # what it needs is enough
    found = metric(*seen, paired=False)
    assert isinstance(found, Estimate)
    assert found.low <= found.value <= found.high
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)


def metric_of(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A metric on random weights of their true shape."""
    node = config.option("metric", name)
    if "weights" not in node:
        return config.instantiate(node)
    torch.manual_seed(0)
    weights = {f"features.{key}": value for key, value in make_layers(cfgs["D"], batch_norm=False).state_dict().items()}
    heads = artifacts.read_weights("torchmetrics://lpips_vgg")
    given = {"weights": weights, "heads": heads, "sha256": "397923af"}
    return config.find(node._target_)(**{key: given[key] for key in config.required(node._target_)})


@pytest.mark.parametrize("name", sorted(config.options("metric")))
def test_a_metric_gives_each_image_its_own_figure_in_double_precision(name: str) -> None:
    metric = metric_of(name)
    images, recon = torch.randint(0, 256, (2, 3, 3, 161, 161), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    figures = metric(images, recon)
    assert figures.shape == (3,)
    assert figures.dtype == torch.float64
    torch.testing.assert_close(metric(images[1:2], recon[1:2]), figures[1:2], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", sorted(config.options("network")))
def test_the_recipe_of_a_network_is_sound_and_its_digest_repeats(name: str) -> None:
    first, second = (networks.digest_of(config.option("network", name)) for _ in range(2))
    assert first == second
    assert config.option("network", name).name == name


def test_no_metric_judges_by_the_teacher_of_the_same_data() -> None:
    extractor, teacher = (networks.digest_of(config.option(group, "digits").network) for group in ("extractor", "teacher"))
    assert extractor != teacher


@pytest.mark.parametrize("name", sorted(config.options("job")))
def test_a_job_asks_only_for_what_is_known_and_takes_its_own_yaml(name: str) -> None:
    cfg = ldbench.compose("run", [f"job={name}"])
    node = cfg.job
    measuring.check_job(node, pipeline.protocol_of(cfg))
    job = config.find(node._target_)
    own = config.targets("job")
    assert job.name == name if name in own else job.name in own  # a preset is a variant of a job
    assert set(job.settings) <= set(node)


@pytest.mark.parametrize("name", sorted(config.options("data")))
def test_data_of_ours_have_a_protocol_by_their_name(name: str) -> None:
    cfg = ldbench.compose("run", [f"data={name}", "protocol.split=all"])
    protocol = pipeline.protocol_of(cfg)
    assert protocol.name == name
    assert protocol.split == "all"
    measuring.check_protocol(protocol)


@pytest.mark.parametrize("name", sorted(set(config.options("protocol")) - {"default"}))
def test_a_protocol_is_the_default_or_adds_to_it(name: str) -> None:
    mine, default = (pipeline.protocol_of(ldbench.compose("train", [f"protocol={option}"])) for option in (name, "default"))
    same = {"name": "default", "extractor": None, "distribution": (), "num_samples": 1}
    assert set(mine.reconstruction) >= set(default.reconstruction)
    assert replace(mine, **same, reconstruction=default.reconstruction) == replace(default, distribution=(), num_samples=1)


@pytest.mark.parametrize("name", sorted(config.options("experiments")))
def test_an_experiment_begins_with_its_command_and_composes(name: str) -> None:
    text = (config.conf_dir() / "experiments" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    commands = set(re.findall(rf"python -m ldbench\.(\w+) experiments={name}\b", text))
    assert len(commands) == 1
    assert ldbench.compose(commands.pop(), [f"experiments={name}"])
