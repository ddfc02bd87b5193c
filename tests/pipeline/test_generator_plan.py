"""What a config asks of a generator: its identity covers what its numbers depend on, and what does not fit is told
before any work.
"""

from collections.abc import Callable
from functools import cache

import pytest
import torch

import ldbench
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.pipeline import generator_plan, generator_training, pipeline
from ldbench.pipeline.generator_plan import plan_generator, validate_cell
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

LATENT = LatentSpec(16, 4, (4, 4))


def latents(seed: int = 0, latent: LatentSpec = LATENT) -> TensorLatents:
    rng = torch.Generator().manual_seed(seed)
    return TensorLatents(
        torch.randn(12, latent.num_tokens, latent.channels, generator=rng),
        torch.arange(12) % 3,
        latent=latent,
        num_classes=3,
    )


def planned(*overrides: str, of: TensorLatents | None = None) -> generator_plan.GeneratorPlan:
    return plan_generator(ldbench.compose("train", ["generator=sit", *overrides]), of or latents())


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "generator=lightningdit",
        "generator.max_steps=7",
        "generator.optimizer.lr=1e-4",
        "generator.class_dropout=0.2",
        "generator.exported_decay=0.95",
        "generator.exported_decay=null",
        "generator.backbone.depth=2",
        "interpolant=gvp",
        "times=logit_normal",
        "objective.cosine_weight=1",
        "trainer.precision=bf16",
        "trainer.limit_steps=5",
        "generator.stats=0.5",
    ],
)
def test_its_digest_covers_what_its_numbers_depend_on(change: str) -> None:
    assert planned(change).digest != plain_digest()


@cache
def plain_digest() -> str:
    return planned().digest


def test_its_digest_covers_nothing_else() -> None:
    others = [
        "sampler=heun",
        "guidance=cfg",
        "tokenizer.seed=3",
        "logger=tensorboard",
        "paths.root=/elsewhere",
        "trainer.workers=2",
        "generator.ema_decays=[0.9,0.99]",
    ]
    assert (
        planned(*others, "callbacks.samples.every=7", "trainer.accelerator=cpu", "trainer.log_every=1").digest
        == plain_digest()
    )
    assert planned(of=latents(seed=1)).digest != plain_digest()


def test_given_statistics_take_the_place_of_the_latents_own_and_count_by_their_content(tmp_path) -> None:
    given = {"mean": torch.arange(4.0)[None, :, None, None], "std": torch.full((1, 4, 1, 1), 2.0)}
    for name in ("a.pt", "b.pt"):
        torch.save(given, tmp_path / name)
    torch.save(given | {"std": given["std"] + 1}, tmp_path / "c.pt")
    plans = {name: planned(f"generator.stats={tmp_path / name}.pt") for name in "abc"}
    assert torch.equal(generator_training.init_generator(plans["a"]).normaliser.mean, torch.arange(4.0))
    assert plans["c"].digest != plans["a"].digest
    own = generator_training.init_generator(planned()).normaliser
    torch.testing.assert_close(own.mean.double(), latents().mean)
    torch.testing.assert_close(own.std.double(), latents().std)


def test_its_blueprint_names_every_part() -> None:
    keywords = planned("generator=dit").blueprint.keywords
    assert keywords["backbone"]["component"] == "dit"
    assert keywords["backbone"]["latent"] == LATENT.to_dict()
    assert (keywords["backbone"]["has_null_class"], keywords["backbone"]["learned_variance"]) == (True, True)
    assert (
        keywords["objective"]["interpolant"]["component"]
        == keywords["objective"]["times"]["interpolant"]["component"]
        == "discrete_linear"
    )
    assert "_target_" not in str(keywords)
    assert planned("generator.class_dropout=0").blueprint.keywords["backbone"]["has_null_class"] is False


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["sampler=ancestral"], r"uses Linear\. Choose sampler=heun"),
        (["guidance=cfg", "generator.class_dropout=0"], "has no null class"),
        (["guidance=autoguidance"], r"none is given\. Say guidance\.guide=ARTIFACT"),
        (["guidance=autoguidance", "guidance.guide=/nowhere"], "is no complete artifact"),
        (["objective=diffusion"], "Diffusion needs discrete time, but Linear is continuous"),
        (["size=dit_b_8"], "patch_size 8"),
        (["generator.backbone.num_heads=7"], "7"),
        (["generator.backbone.width=wide"], r"generator\.backbone\.width must be a whole number, got 'wide'"),
        (
            ["+generator.backbone.num_classes=4"],
            r"no config key generator\.backbone\.num_classes: a backbone is told it",
        ),
        (["+generator.backbone.wdth=4"], r"There is no config key generator\.backbone\.wdth"),
        (["+generator.max_stepz=4"], r"no config key generator\.max_stepz\. Did you mean max_steps\?"),
        (["generator.batch_size=5", "trainer.devices=2"], r"Set generator\.batch_size to a multiple of 2"),
        (["generator.max_steps=???"], r"These need a value: generator\.max_steps"),
        (["generator.stats=0"], "A scale of latents must be above zero"),
        (["generator.weights=DiT.pt"], r"open them: ldbench\.load_official\('sit', PATH"),
        (["generator.class_dropout=1.5"], "class_dropout must lie in"),
    ],
)
def test_what_does_not_fit_is_told_with_what_to_change(overrides: list[str], told: str) -> None:
    cfg, data = ldbench.compose("train", ["generator=sit", *overrides]), latents()

    def plan() -> None:
        validate_cell(cfg, data.latent, data.num_classes)
        plan_generator(cfg, data)

    with pytest.raises(ValueError, match=told):
        plan()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["generator=sit", "sampler=ddim"], r"uses Linear\. Choose sampler=heun"),
        (["generator=sit", "generator.max_steps=-1"], r"generator\.max_steps must be a whole number of at least 0"),
        (["size=dit_b_2"], r"size=\.\.\. is of a generator, and none is chosen\. Say generator=sit"),
        (["interpolant=gvp"], r"interpolant=\.\.\. is of a generator, and none is chosen"),
        (["sampler=heun"], r"sampler=\.\.\. is of a generator, and none is chosen"),
    ],
)
def test_the_command_line_proves_a_generator_before_any_work(
    overrides: list[str], told: str, small: Callable, tmp_path
) -> None:
    with pytest.raises(ValueError, match=told):
        pipeline.train(small(*overrides))
    assert not list(tmp_path.iterdir()), "before any work"


def test_a_tokenizer_is_the_same_whether_a_generator_stands_beside_it(small: Callable) -> None:
    plain = plan_tokenizer(small())
    assert plan_tokenizer(small("generator=lightningdit", "guidance=cfg", "seed=5")).digest == plain.digest
    assert "generator" not in plain.cfg
    assert not {"interpolant", "sampler", "seed"} & set(str(plain.recipe.keys()))


def test_the_command_line_wins_over_an_experiment_and_an_experiment_over_a_macro(tmp_path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /generator: sit\n  - override /sampler: "
        "heun\n  - override /interpolant: gvp\n  - _self_\n\n"
        "generator:\n  max_steps: 7\nsampler:\n  num_steps: 11\n"
    )
    compose = lambda *overrides: ldbench.compose("train", ["experiments=mine", *overrides], searchpath=[str(tmp_path)])  # noqa: E731
    mine = compose()
    assert (mine.generator.name, mine.generator.max_steps, mine.generator.batch_size) == ("sit", 7, 64)
    assert (mine.sampler.rule, mine.sampler.num_steps) == ("heun", 11)
    assert mine.interpolant._target_.endswith("GVP")
    said = compose(
        "interpolant=vp",
        "sampler=midpoint",
        "sampler.num_steps=3",
        "generator.max_steps=9",
        "size=dit_b_2",
        "guidance=cfg",
        "guidance.scale=2",
    )
    assert said.interpolant._target_.endswith("VP")
    assert (said.sampler.rule, said.sampler.num_steps, said.generator.max_steps) == ("midpoint", 3, 9)
    assert (said.generator.backbone.width, said.guidance.scale) == (768, 2)
    assert compose("generator=lightningdit").generator.name == "lightningdit"
