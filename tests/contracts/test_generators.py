"""What every macro of the config group `generator` promises: the next one is tested by existing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tests.examples import checkerboard

import ldbench
from ldbench.artifacts import store
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.pipeline import generator_training, get_generator
from ldbench.pipeline.generator_plan import (
    GeneratorPlan,
    build_generator,
    build_training_config,
    plan_generator,
    validate_parts,
)
from ldbench.sampling.noise import NoiseStream

NAMES = ldbench.list_generators()
SAMPLERS = sorted(Registry().options("sampler"))
GUIDANCES = sorted(set(Registry().options("guidance")) - {"autoguidance"})
SMALL = {"width": 24, "depth": 1, "num_heads": 2, "head_width": 24, "head_depth": 1, "head_num_heads": 2}
TRAINED = ["generator.max_steps=3", "generator.batch_size=8", "trainer.accelerator=cpu"]
FEW = {"num_steps": 6, "respacing": "6"}


def macro(name: str, *overrides: str) -> DictConfig:
    """The config of a macro, its sampler in a few steps."""
    cfg = ldbench.compose("train", [f"generator={name}", *overrides])
    for key in FEW.keys() & cfg.sampler.keys():
        cfg.sampler[key] = FEW[key]
    return cfg


def small_macro(name: str, *overrides: str) -> DictConfig:
    """The same with a small network."""
    return shrink(macro(name, *overrides))


def shrink(cfg: DictConfig) -> DictConfig:
    """The config with a small network, in place."""
    cfg.generator.backbone.update({key: value for key, value in SMALL.items() if key in cfg.generator.backbone})
    return cfg


def patch_size(name: str) -> int:
    return macro(name).generator.backbone.patch_size


def spec(name: str, kind: str) -> LatentSpec:
    """A small latent: a map of 4 x 4 tokens of the network, or a sequence."""
    side = 4 * patch_size(name) if patch_size(name) > 4 else 4
    return LatentSpec(side * side, 4, (side, side)) if kind == "map" else LatentSpec(16, 8)


def latents(latent: LatentSpec) -> TensorLatents:
    rng = torch.Generator().manual_seed(0)
    z = 3 + 2 * torch.randn(24, latent.num_tokens, latent.channels, generator=rng)
    return TensorLatents(z, torch.arange(24) % 6, latent=latent, num_classes=6)


KINDS = ("map", "sequence")
FAMILIES = (
    "dit",
    "sit",
    "lightningdit",
    "ditdh",
    "meanflow",
    "maetok_dit_xl_1",
    "maetok_sit_xl_1",
)  # one of each that has parts of its own
# others than the families are sizes of them, and slow
MARKED = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def planned(name: str, kind: str, root: Path, *overrides: str) -> GeneratorPlan:
    return plan_generator(small_macro(name, *TRAINED, f"paths.root={root}", *overrides), latents(spec(name, kind)))


def moved(name: str, kind: str) -> Generator:
    """A small generator of a macro, away from its initialization, at which the output is zero."""
    torch.manual_seed(0)
    latent = spec(name, kind)
    generator = build_generator(small_macro(name), latent, num_classes=6).eval()
    for parameter in generator.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    generator.normaliser.load_state_dict(
        {"mean": torch.full((latent.channels,), 3.0), "std": torch.full((latent.channels,), 2.0)}
    )
    return generator


@pytest.mark.parametrize("name", MARKED)
def test_it_composes_and_its_parts_fit_on_maps_and_sequences(name: str) -> None:
    cfg = small_macro(name)
    assert cfg.generator.name == name
    assert not OmegaConf.missing_keys(cfg)
    first, second = (plan_generator(cfg, latents(spec(name, kind))) for kind in KINDS)
    assert first.digest != second.digest
    assert first.name.startswith(f"{name}-")


@pytest.mark.parametrize("name", FAMILIES)
def test_its_digest_repeats(name: str, tmp_path: Path) -> None:
    first, second = (planned(name, "map", tmp_path / folder) for folder in ("a", "b"))
    assert first.digest == second.digest


@pytest.mark.parametrize("name", MARKED)
def test_a_step_on_a_batch_lowers_the_loss_of_that_batch(name: str) -> None:
    generator, latent = moved(name, "map"), spec(name, "map")
    z, y = latents(latent).__getitems__(list(range(8)))
    if hasattr(generator.objective, "power"):
        generator.objective.power = 0.0  # its errors as they are
    settings = {"step": 0, "t": torch.linspace(0.2, 0.9, 8), "noise": torch.randn(z.shape), "dropped": y == 0}
    optimizer = torch.optim.SGD(generator.backbone.parameters(), lr=1e-3)

    def loss() -> torch.Tensor:
        return torch.stack(list(generator.loss(z, y, **settings).values())).sum(dim=0).mean()

    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before
    assert set(generator.loss(z, y, **settings)) <= {"velocity", "cosine", "noise", "bound", "average_velocity"}


@pytest.mark.trains
@pytest.mark.parametrize(("name", "kind"), checkerboard(FAMILIES, KINDS))
def test_it_trains_and_samples_and_its_artifact_reproduces_every_bit(name: str, kind: str, tmp_path: Path) -> None:
    plan = planned(name, kind, tmp_path)
    trained = generator_training.train_generator(plan)
    loaded = ldbench.load(get_generator.train_plan(plan).folder)
    theirs = loaded.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in trained.state_dict().items())
    sampler, guidance = instantiate(plan.cfg.sampler), instantiate(plan.cfg.guidance)
    stream, shape = NoiseStream(0, range(6)), (6, plan.latents.latent.num_tokens, plan.latents.latent.channels)
    z, again = (
        each.sample(stream.normal(0, shape), torch.arange(6), sampler, guidance, stream=stream)
        for each in (trained, loaded)
    )
    assert torch.equal(z, again)
    assert torch.isfinite(z).all()
    described = store.Blueprint("generator", "generator", plan.blueprint.keywords)
    assert store.build(described, theirs).state_dict().keys() == theirs.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_sampler_carries_it_under_every_guidance_or_is_refused_with_advice(
    name: str, some: Callable[..., list]
) -> None:
    generator, y = moved(name, "sequence"), torch.arange(4)
    noise, increments = torch.randn(4, 16, 8), torch.randn(8, 4, 16, 8)
    guidances = {guidance: instantiate(Registry().option("guidance", guidance)) for guidance in GUIDANCES}
    refused = set()
    for sampler in SAMPLERS:
        node = Registry().option("sampler", sampler)
        built = instantiate({**node, **{key: few for key, few in FEW.items() if key in node}})
        try:
            generator.check(built, guidances["none"])
        except ValueError as error:
            assert "Choose sampler=" in str(error)  # noqa: PT017
            refused.add(sampler)
            continue
        for guidance in some(guidances.values(), 3, SAMPLERS.index(sampler)):
            try:
                generator.check(built, guidance)
            except ValueError as error:
                assert "Choose" in str(error)  # noqa: PT017
                continue
            z = generator.sample(noise, y, built, guidance, increments=increments if built.stochastic else None)
            assert z.shape == noise.shape
            assert torch.isfinite(z).all()
    expected = {"dopri5"} if generator.objective.interpolant.variance_preserving else {"ancestral", "ddim"}
    assert refused == expected | (set() if name == "meanflow" else {"mean_flow"})


def has_generator(experiment: str) -> bool:
    """Whether an experiment, or one that it builds on, chooses a generator."""
    defaults = Registry().options("experiments")[experiment].get("defaults", [])
    return any(
        "override /generator" in entry if isinstance(entry, dict) else entry != "_self_" and has_generator(entry)
        for entry in defaults
    )


EXPERIMENTS = [name for name in Registry().options("experiments") if has_generator(name)]


CHOICES = (["guidance=none", "sampler=dpm_solver"], ["guidance=cfg", "generator.class_dropout=0.2"])


@pytest.mark.parametrize(
    ("name", "others"),
    [
        pytest.param(name, CHOICES[index // 2 % 2], marks=pytest.mark.slow if index % 2 else ())
        for index, name in enumerate(EXPERIMENTS)
    ],
)
def test_the_parts_of_an_experiment_fit_and_each_can_be_chosen_again(name: str, others: list[str]) -> None:
    overrides, chosen = [f"experiments={name}"], Registry().options("experiments")[name]["defaults"]
    entry = "run" if any("override /job" in word for word in chosen) else "train"
    for composed in (overrides, [*overrides, *others]):
        cfg = ldbench.compose(entry, composed)
        shrink(cfg)
        validate_parts(cfg)
        build_training_config(cfg)
    if not cfg.data.name.startswith(("digits", "fashion_mnist")):
        assert cfg.generator.backbone.class_std == 0.02
        assert cfg.tokenizer.image_size == 256


def test_experiments_with_a_generator_exist() -> None:
    lightning = {"xl_1_vavae_64ep", "xl_1_vavae_800ep", "b_1_vmae_imagenet256", "b_1_vmae_celebahq256"}
    others = {"sit_xl_1_maetok", "dit_xl_1_maetok", "dit_xl_2_sdvae", "sit_xl_2_sdvae"}
    assert {f"lightningdit_{name}" for name in lightning} | others <= set(EXPERIMENTS)
