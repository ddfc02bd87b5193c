"""A generator: its components fit, labels are dropped once, and samples are at the tokenizer's scale."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch

import ldbench
from ldbench.artifacts import store
from ldbench.backbones.dit import DiT
from ldbench.core.field import Field
from ldbench.core.generator import Generator
from ldbench.core.interpolants import GVP, Discrete, Linear
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.objectives.diffusion import Diffusion
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import Counted, Uniform
from ldbench.sampling.ancestral import Ancestral
from ldbench.sampling.guidance import Autoguidance, ClassifierFree, Unguided
from ldbench.sampling.noise import NoiseStream
from ldbench.sampling.ode import FixedGrid
from ldbench.sampling.sde import ReverseSDE

LATENT = LatentSpec(4, 2, (2, 2))
SIZES = {
    "patch_size": 1,
    "width": 12,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "qk_norm": False,
    "class_std": 0.5,
    "checkpointing": False,
}
MEAN, STD = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 4.0])
Y = torch.arange(6) % 5
EULER = FixedGrid(rule="euler", num_steps=5, shift=1.0, margin=1e-3, last_step="tweedie", dtype="float32")
FLOW = {
    "prediction": "velocity",
    "weighting": "none",
    "cosine_weight": 0.0,
    "network_time": "data_at_one",
    "margin": 1e-3,
}
BLUEPRINT = {
    "backbone": {
        "component": "dit",
        "latent": LATENT.to_dict(),
        "num_classes": 5,
        "has_null_class": True,
        "learned_variance": False,
        **SIZES,
    },
    "objective": {
        "component": "flow_matching",
        "interpolant": {"component": "linear"},
        "times": {"component": "uniform"},
        **FLOW,
    },
    "normaliser": {"channels": 2},
    "class_dropout": 0.5,
}


def backbone(*, has_null_class: bool = True, learned_variance: bool = False) -> DiT:
    """A small DiT away from its start, at which the output is zero."""
    torch.manual_seed(0)
    network = DiT(
        latent=LATENT, num_classes=5, has_null_class=has_null_class, learned_variance=learned_variance, **SIZES
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def flow(interpolant=None) -> FlowMatching:
    return FlowMatching(interpolant=interpolant or Linear(), times=Uniform(), **FLOW)


def diffusion(variance: str = "learned_range") -> Diffusion:
    chain = Discrete(schedule="linear", num_times=100)
    return Diffusion(
        interpolant=chain, times=Counted(interpolant=chain), prediction="noise", variance=variance, loss="mse"
    )


def build_generator(**changes) -> Generator:
    parts = {
        "backbone": backbone(),
        "objective": flow(),
        "normaliser": Normalizer.from_stats(MEAN, STD, channels=2),
        "class_dropout": 0.5,
    }
    return Generator(**(parts | changes))


def cfg(scale: float = 2.0, low: float = 0.0) -> ClassifierFree:
    return ClassifierFree(scale=scale, low=low, high=1.0, channels=None, batched=True)


def test_it_learns_from_normalized_latents_and_samples_raw_ones():
    generator, z, noise = build_generator(class_dropout=0.0), torch.randn(6, 4, 2), torch.randn(6, 4, 2)
    t = torch.rand(6)
    terms = generator.loss(MEAN + STD * z, Y, step=0, t=t, noise=noise)
    expected = flow().loss(generator.backbone, z, Y, step=0, t=t, noise=noise)
    torch.testing.assert_close(terms["velocity"], expected["velocity"])
    sampled = generator.sample(noise, Y, EULER, Unguided())
    torch.testing.assert_close(sampled, MEAN + STD * EULER(generator.field(), noise, Y))
    assert sampled.dtype == torch.float32


def test_labels_are_dropped_at_the_share_that_is_asked_for_or_as_handed_in():
    torch.manual_seed(0)
    y = torch.arange(5).repeat(2000)
    dropped = build_generator(class_dropout=0.3).drop_labels(y)
    assert 0.28 < (dropped == 5).float().mean() < 0.32
    assert torch.equal(dropped[dropped != 5], y[dropped != 5])
    given = torch.tensor([True, False, True, False, False, True])
    assert build_generator().drop_labels(Y, given).tolist() == [5, 1, 5, 3, 4, 5]
    before = torch.get_rng_state()
    assert torch.equal(build_generator(class_dropout=0.0).drop_labels(Y), Y)
    assert build_generator(class_dropout=0.0).drop_labels(Y, given).tolist() == [5, 1, 5, 3, 4, 5]
    build_generator().drop_labels(Y, given)
    torch.set_rng_state(before)
    first = build_generator().loss(torch.zeros(6, 4, 2), Y, step=0)["velocity"]
    torch.set_rng_state(before)
    assert torch.equal(build_generator().loss(torch.zeros(6, 4, 2), Y, step=0)["velocity"], first), (
        "all that is drawn comes from the global stream"
    )


def test_the_null_class_is_what_the_backbone_sees_of_a_dropped_label():
    generator, seen = build_generator(), []
    generator.backbone.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[2]))
    generator.loss(torch.zeros(6, 4, 2), Y, step=0, dropped=torch.tensor([True] * 5 + [False]))
    assert seen[0].tolist() == [5, 5, 5, 5, 5, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_dropout": 1.0}, "class_dropout must lie in"),
        ({"backbone": backbone(has_null_class=False)}, r"has none\. Choose class_dropout=0"),
        ({"objective": diffusion()}, r"predicts none\. Choose objective\.variance=fixed_large"),
        ({"normaliser": Normalizer(3)}, "statistics are of 3 channels, but the backbone's latents have 2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_generator(**changes)


def test_labels_of_a_backbone_without_null_class_are_never_dropped():
    generator = build_generator(backbone=backbone(has_null_class=False), class_dropout=0.0)
    with pytest.raises(ValueError, match="No label can be dropped"):
        generator.loss(torch.zeros(6, 4, 2), Y, step=0, dropped=torch.ones(6, dtype=torch.bool))


def test_without_statistics_the_backbone_works_and_sampling_says_what_to_pass():
    generator = build_generator(normaliser=None)
    assert generator.backbone(torch.randn(6, 4, 2), torch.rand(6), Y).shape == (6, 4, 2)
    for attempt in (
        lambda: generator.sample(torch.randn(6, 4, 2), Y, EULER, Unguided()),
        lambda: generator.loss(torch.zeros(6, 4, 2), Y, step=0),
    ):
        with pytest.raises(ValueError, match=r"stats=latents_stats\.pt, stats=\(mean, std\) or stats=0\.18215"):
            attempt()


def test_a_sampler_and_a_guidance_that_cannot_work_are_told_before_any_call():
    ancestral = Ancestral(respacing="10", clip=None, margin=1e-3, dtype="float32")
    plain = build_generator(backbone=backbone(has_null_class=False), class_dropout=0.0)
    for check, message in (
        (lambda: build_generator().check(ancestral, Unguided()), r"uses Linear\. Choose sampler=heun"),
        (
            lambda: build_generator().sample(torch.randn(6, 4, 2), Y, ancestral, Unguided()),
            r"uses Linear\. Choose sampler=heun",
        ),
        (lambda: plain.check(EULER, cfg()), "has no null class"),
        (lambda: plain.sample(torch.randn(6, 4, 2), Y, EULER, cfg()), "has no null class"),
        (lambda: plain.sample(torch.randn(6, 4, 2), Y + 1, EULER, Unguided()), "There is no label 5"),
    ):
        with pytest.raises(ValueError, match=message):
            check()
    build_generator(objective=flow(GVP())).check(ancestral, cfg())


def test_a_network_with_a_variance_is_read_without_it_by_flow_matching_and_with_it_by_diffusion():
    noise, increments = torch.randn(6, 4, 2), torch.randn(10, 6, 4, 2)
    wide = backbone(learned_variance=True)
    assert build_generator(backbone=wide).sample(noise, Y, EULER, cfg()).shape == noise.shape
    ancestral = Ancestral(respacing="10", clip=None, margin=1e-3, dtype="float32")
    sampled = build_generator(backbone=wide, objective=diffusion()).sample(
        noise, Y, ancestral, cfg(), increments=increments
    )
    assert torch.isfinite(sampled).all()


def test_samples_of_an_image_do_not_depend_on_its_batch():
    generator = build_generator()
    sde = {
        "rule": "euler_maruyama",
        "num_steps": 6,
        "diffusion": "sigma",
        "norm": 1.0,
        "last_step": "mean",
        "last_step_size": 0.04,
    }
    sampler = ReverseSDE(**sde, shift=1.0, margin=1e-3, dtype="float32")

    def sample(indices):
        stream = NoiseStream(7, indices)
        return generator.sample(stream.normal(0, (len(indices), 4, 2)), Y[list(indices)], sampler, cfg(), stream=stream)

    torch.testing.assert_close(sample(range(6))[2:4], sample([2, 3]), rtol=1e-4, atol=1e-4)


def test_another_generator_guides_it():
    weak = build_generator()
    with torch.no_grad():
        for parameter in weak.backbone.parameters():
            parameter *= 0.5
    noise = torch.randn(6, 4, 2)
    guided, plain = (
        build_generator().sample(noise, Y, EULER, Autoguidance(scale=s, low=0.0, high=1.0, guide=weak.field()))
        for s in (2.0, 1.0)
    )
    torch.testing.assert_close(plain, build_generator().sample(noise, Y, EULER, Unguided()), rtol=1e-4, atol=1e-4)
    assert (guided - plain).abs().max() > 1e-2


@pytest.mark.parametrize("objective", ["flow", "diffusion"])
def test_a_guide_goes_to_other_processes_and_devices(objective: str) -> None:
    guide = build_generator().field() if objective == "flow" else diffusion().field(backbone(learned_variance=True))
    guidance = Autoguidance(scale=2.0, low=0.0, high=1.0, guide=guide)
    other = pickle.loads(pickle.dumps(guidance))
    x, t = torch.randn(6, 4, 2), torch.full((6,), 0.5)
    assert torch.equal(other(guide)(x, t, Y).value, guidance(guide)(x, t, Y).value)
    field = Field(
        guide.predict, interpolant=guide.interpolant, prediction=guide.prediction, null_class=None, parts=(guide,)
    )
    field.to(torch.device("meta"))
    assert {parameter.device.type for parameter in guide.network.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in other.guide.network.parameters()} == {"cpu"}


def saved(tmp_path: Path, generator: Generator, keywords=BLUEPRINT) -> Path:
    store.save(
        generator,
        tmp_path / "g",
        store.Blueprint("generator", "generator", keywords),
        recipe={},
        digest="0",
        provenance={},
    )
    return tmp_path / "g"


def test_its_artifact_gives_back_every_bit_and_samples_identically(tmp_path):
    generator = build_generator()
    loaded = ldbench.load(saved(tmp_path, generator))
    assert not loaded.training
    theirs = loaded.state_dict()
    assert {"normaliser.mean", "normaliser.std"} < theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in generator.state_dict().items())
    noise = torch.randn(6, 4, 2)
    for other in (loaded, copy.deepcopy(generator)):
        assert torch.equal(other.sample(noise, Y, EULER, cfg()), generator.sample(noise, Y, EULER, cfg()))
    assert loaded.class_dropout == 0.5


def test_its_artifact_may_lack_statistics(tmp_path):
    loaded = ldbench.load(saved(tmp_path, build_generator(normaliser=None), BLUEPRINT | {"normaliser": None}))
    with pytest.raises(ValueError, match=r"statistics of this generator.s latents are not known"):
        loaded.sample(torch.randn(6, 4, 2), Y, EULER, Unguided())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": {"component": "os.system", "command": "true"}},
            r"There is no objective named 'os\.system' here",
        ),
        ({"objective": {"component": "flow_matching", "_target_": "os.system"}}, "do not fit generator"),
        ({"logger": {"component": "wandb", "project": "theirs"}}, "logger is no part of a model"),
        (
            {"objective": {**BLUEPRINT["objective"], "times": {"component": "linear"}}},
            "There is no times named 'linear' here",
        ),
        ({"normaliser": {"channels": 2, "path": "/etc/passwd"}}, "do not fit generator"),
        ({"backbone": {**BLUEPRINT["backbone"], "width": 24}}, "of another shape"),
    ],
)
def test_a_strangers_artifact_can_name_components_and_nothing_else(tmp_path, changes, message):
    folder = saved(tmp_path, build_generator())
    described = json.loads((folder / "config.json").read_text())
    described["keywords"] |= changes
    (folder / "config.json").write_text(json.dumps(described))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = store.file_digest(folder / "config.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        ldbench.load(folder)


def test_a_step_takes_one_call_whatever_is_asked_and_guidance_costs_items_in_its_interval_alone():
    generator, counted = build_generator(), []
    generator.backbone.register_forward_pre_hook(lambda module, arguments: counted.append(len(arguments[0])))
    noise = torch.randn(6, 4, 2)
    euler = FixedGrid(rule="euler", num_steps=250, shift=1.0, margin=1e-3, last_step="tweedie", dtype="float32")
    generator.sample(noise, Y, euler, cfg(low=0.1))
    assert (len(counted), sum(counted)) == (250, 6 * (250 + 225)), (
        "the official code calls for twice the items at all 250"
    )
    counted.clear()
    sde = {
        "rule": "euler_maruyama",
        "num_steps": 249,
        "diffusion": "sigma",
        "norm": 1.0,
        "last_step": "mean",
        "last_step_size": 0.04,
    }
    sampler = ReverseSDE(**sde, shift=1.0, margin=1e-3, dtype="float32")
    generator.sample(noise, Y, sampler, Unguided(), increments=torch.randn(249, 6, 4, 2))
    assert (len(counted), sum(counted)) == (250, 6 * 250), (
        "the official code calls 500 times, for velocity and for score"
    )
