"""Released weights become whole models: each family with its paper's objective, and statistics in every format."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tokenizers.diffusers_models import saved
from torch import Tensor

import ldbench
from ldbench import official
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.normalizer import Normalizer
from ldbench.official import load
from ldbench.sampling.guidance import ClassifierFree
from ldbench.sampling.noise import NoiseStream
from ldbench.sampling.ode import FixedGrid

EULER = FixedGrid(rule="euler", num_steps=4, shift=1.0, margin=1e-3, last_step="tweedie", dtype="float32")
SHORT = {"respacing": "4"}, {"num_steps": 4}
FAMILIES = {  # name -> how its state dict is laid out, and what its generator learns
    "dit_xl_2": ({}, "Diffusion Discrete noise learned_range"),
    "sit_xl_2": ({}, "FlowMatching Linear velocity data_at_one 0.0"),
    "lightningdit_xl_1": (
        {"lightning": True, "patch": 1, "outputs": 3},
        "FlowMatching Linear velocity data_at_one 1.0",
    ),
    "maetok_sit_xl_1": ({"sequence": True, "outputs": 3}, "FlowMatching Linear velocity noise_at_one 0.0"),
    "maetok_dit_xl_1": ({"sequence": True}, "Diffusion Discrete noise learned_range"),
}
NAMES = sorted(name for name, entry in official.catalog().items() if entry.kind == "generator")
SIZED = sorted(set(NAMES) - {"ditdh"})  # whose names say a size


@pytest.fixture
def source(transformer_state, tmp_path):
    """Writes an official file and a config.json with the heads of so small a network."""

    def write(name: str):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        torch.save({"ema": transformer_state(**FAMILIES[name][0])}, folder / "model.pt")
        (folder / "config.json").write_text('{"num_heads": 2}')
        return folder

    return write


def learned(generator) -> str:
    """What a generator learns, in words."""
    objective = generator.objective
    words = [type(objective).__name__, type(objective.interpolant).__name__, objective.prediction]
    if hasattr(objective, "variance"):
        return " ".join([*words, objective.variance])
    at_one = "data_at_one" if objective.network_time.direction > 0 else "noise_at_one"
    return " ".join([*words, at_one, str(objective.cosine_weight)])


@pytest.mark.parametrize("name", FAMILIES)
def test_an_official_file_is_a_generator_that_samples_with_its_macros_sampler(name, source):
    generator = ldbench.load_official(name, source(name), stats=0.5)
    assert learned(generator) == FAMILIES[name][1]
    assert not generator.training
    assert generator.class_dropout == 0.1
    cfg = ldbench.compose("train", [f"generator={name}"])
    cfg.sampler.update(SHORT["num_steps" in cfg.sampler])
    sampler, guidance = instantiate(cfg.sampler), instantiate(cfg.guidance)
    generator.check(sampler, guidance)
    latent = generator.backbone.latent
    stream = NoiseStream(0, [0, 1])
    noise = stream.normal(0, (2, latent.num_tokens, latent.channels))
    sampled = generator.sample(noise, torch.tensor([0, 1]), sampler, guidance, stream=stream)
    assert sampled.shape == noise.shape
    assert torch.isfinite(sampled).all()


def test_the_schedule_of_betas_is_each_papers_own(source):
    shares = {
        name: ldbench.load_official(name, source(name)).objective.diffusion.alphas_cumprod[500]
        for name in ("dit_xl_2", "maetok_dit_xl_1")
    }
    assert float(shares["dit_xl_2"]) == pytest.approx(0.0779, abs=1e-3)
    assert float(shares["maetok_dit_xl_1"]) == pytest.approx(0.4920, abs=5e-3)


def test_a_dit_without_a_variance_takes_the_larger_fixed_one(transformer_state, source, tmp_path):
    folder = source("dit_xl_2")
    torch.save(transformer_state(outputs=3), folder / "model.pt")
    assert ldbench.load_official("dit_xl_2", folder).objective.variance == "fixed_large"


def test_a_backbone_without_null_class_drops_no_label(transformer_state, source):
    folder = source("lightningdit_xl_1")
    torch.save(transformer_state(labels=1, **FAMILIES["lightningdit_xl_1"][0]), folder / "model.pt")
    generator = ldbench.load_official("lightningdit_xl_1", folder, stats=1.0)
    assert generator.class_dropout == 0.0
    with pytest.raises(ValueError, match="has no null class"):
        generator.check(EULER, ClassifierFree(scale=2.0, low=0.0, high=1.0, channels=None, batched=True))


def test_statistics_come_as_a_file_as_two_numbers_each_or_as_a_scale(source, tmp_path):
    folder = source("sit_xl_2")
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    torch.save({"mean": mean[None, :, None, None], "std": std[None, :, None, None]}, tmp_path / "latents_stats.pt")
    for stats, expected in (
        (tmp_path / "latents_stats.pt", (mean, std)),
        (str(tmp_path / "latents_stats.pt"), (mean, std)),
        ((mean, std), (mean, std)),
        ((0.1, 2.0), (torch.full((3,), 0.1), torch.full((3,), 2.0))),
        (0.25, (torch.zeros(3), torch.full((3,), 4.0))),
    ):
        normaliser = ldbench.load_official("sit_xl_2", folder, stats=stats).normaliser
        assert torch.equal(normaliser.mean, expected[0])
        assert torch.equal(normaliser.std, expected[1])


def test_statistics_that_do_not_fit_are_refused(source, tmp_path):
    torch.save({"average": torch.zeros(3)}, tmp_path / "other.pt")
    for stats, message in (
        (tmp_path / "other.pt", "holds average. Expected tensors `mean` and `std`"),
        ((torch.zeros(4), torch.ones(4)), "of 4 channels, but these latents have 3"),
        (0.0, "A scale of latents must be above zero"),
    ):
        with pytest.raises(ValueError, match=message):
            ldbench.load_official("sit_xl_2", source("sit_xl_2"), stats=stats)
    with pytest.raises(ValueError, match="vmae_f8d16 is a tokenizer, and stats are of a generator"):
        ldbench.load_official("vmae_f8d16", {"w": torch.zeros(1)}, stats=1.0)
    with pytest.raises(ValueError, match=r"dit_xl_2 is not on a hub\. Download DiT-XL-2-256x256\.pt"):
        ldbench.load_official("dit_xl_2")


def test_a_file_of_another_model_is_named(source):
    folder = source("dit_xl_2")
    torch.save({"w": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(ValueError, match=rf"^{folder}: These tensors are no dit_xl_2: missing"):
        ldbench.load_official("dit_xl_2", folder)


def test_without_statistics_the_backbone_is_the_official_network_and_sampling_reports_what_to_pass(
    source, transformer_state
):
    generator = ldbench.load_official("dit_xl_2", source("dit_xl_2"))
    x, t, y = torch.randn(2, 16, 3), torch.tensor([3, 700]), torch.tensor([0, 5])
    found = official.convert("dit_xl_2", transformer_state(), {"num_heads": 2})
    backbone = Registry().component("backbone", "dit")(**load.store.build_keywords(found.keywords))
    backbone.load_state_dict(found.state)
    assert torch.equal(generator.backbone(x, t, y), backbone(x, t, y))
    with pytest.raises(ValueError, match="stats="):
        generator.sample(x, y, EULER, lambda field: field)


def network_and_size(name):
    """The names of a generator's backbone and of its size, as its own name says them."""
    family, size = name.rsplit("_", 2)[0].rpartition("_")[2], "_".join(name.rsplit("_", 2)[-2:])
    network = family if family in ("lightningdit", "ditdh") else "dit"
    return network, f"{network}_{size}"


def test_every_official_generator_has_a_macro_of_its_name_and_size():
    macros = Registry().options("generator")

    def size_of(name):
        """The size that a macro chooses, or one that it goes on from."""
        entries = macros[name]["defaults"]
        own = [entry["override /size"] for entry in entries if isinstance(entry, dict) and "override /size" in entry]
        return (
            own[0] if own else size_of(next(entry for entry in entries if isinstance(entry, str) and entry != "_self_"))
        )

    found = {name: (macros[name]["generator"]["name"], size_of(name)) for name in SIZED}
    assert found == {name: (name, network_and_size(name)[1]) for name in SIZED}
    assert macros["ditdh"]["generator"]["name"] == "ditdh"


def test_its_macro_composes_to_its_family_and_size(some):
    for name in some(SIZED, 10):
        cfg = ldbench.compose("train", [f"generator={name}"])
        assert cfg.generator.name == name
        network, size = network_and_size(name)
        assert Registry().targets("backbone")[network] == cfg.generator.backbone._target_, name
        expected = Registry().options("size")[size]
        assert {key: cfg.generator.backbone[key] for key in expected} == expected, name
        assert cfg.generator.weights is cfg.generator.stats is None, name


def test_generators_are_listed_with_the_official_ones_among_them():
    assert set(NAMES) <= set(ldbench.list_generators())
    small = {"dit", "sit", "lightningdit"}
    fashion = {f"{name}_fashion" for name in (*small, "ditdh", "meanflow", "sit_repa")}
    others = {*small, *fashion, "dit_xl_1", "sit_xl_1", "meanflow"}
    assert set(ldbench.list_generators()) - set(NAMES) == others, "digits, Fashion-MNIST, and patch 1 at full size"


def test_statistics_change_nothing_that_is_not_sampled(source):
    with_stats, without = (ldbench.load_official("sit_xl_2", source("sit_xl_2"), stats=stats) for stats in (0.5, None))
    x, t, y = torch.randn(2, 16, 3), torch.tensor([0.1, 0.7]), torch.tensor([0, 5])
    assert torch.equal(with_stats.backbone(x, t, y), without.backbone(x, t, y))
    assert isinstance(with_stats.normaliser, Normalizer)


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("vmae_f8d16", "vmae_f8d16_256_inference"),
        ("maetok_b_128", "maetok_b_128_256"),
        ("vavae_f16d32", "vavae_f16d32"),
        ("dit_s_2", "dit_s_2_256"),
        ("sit_xl_2", "sit_xl_2_256_no_sigma"),
        ("lightningdit_b_1", "lightningdit_b_1_f16d32"),
        ("maetok_sit_b_1", "maetok_sit_b_1"),
        ("softvq", "softvq_s_64_128"),
        ("ditdh", "ditdh_tiny"),
    ],
)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off_in_every_family(
    meta_state: Callable[[str], dict[str, Tensor]], name: str, manifest: str, prefix: str
) -> None:
    state = meta_state(manifest)
    plain = official.convert(name, state, {})
    wrapped = official.convert(name, {f"{prefix}{key}": value for key, value in state.items()}, {})
    assert wrapped.keywords == plain.keywords
    assert wrapped.state.keys() == plain.state.keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize(("name", "class_name"), [("diffusers", "AutoencoderTiny"), ("rae", "AutoencoderRAE")])
def test_prefixes_of_wrappers_are_taken_off_an_autoencoder_of_diffusers(
    tmp_path: Path, name: str, class_name: str, prefix: str
) -> None:
    model = saved(class_name, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    plain = official.convert(name, model.state_dict(), settings)
    wrapped = official.convert(name, {f"{prefix}{key}": value for key, value in model.state_dict().items()}, settings)
    assert wrapped.keywords == plain.keywords
    assert wrapped.state.keys() == plain.state.keys()


def test_every_family_is_among_those_with_prefixes() -> None:
    names = {"vmae_f8d16", "maetok_b_128", "softvq", "vavae_f16d32"}
    names |= {"diffusers", "rae", "dit_s_2", "sit_xl_2", "lightningdit_b_1", "maetok_sit_b_1", "ditdh"}
    assert all(names & family.ENTRIES.keys() for family in official.families())
