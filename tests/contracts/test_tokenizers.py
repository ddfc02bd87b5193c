"""What every tokenizer in the config group promises: the next one is tested by existing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import ldbench
from ldbench.artifacts import store
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.tokenizer import Tokenizer
from ldbench.pipeline import pipeline, tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

YAMLS = Registry().options("tokenizer")


def lineage(name: str) -> list[dict[str, Any]]:
    """The yaml of a tokenizer and of those that it builds on, itself first; composing all would take half a minute."""
    raw = YAMLS[name]
    return [
        raw,
        *(
            older
            for parent in raw.get("defaults", [])
            if isinstance(parent, str) and parent in YAMLS
            for older in lineage(parent)
        ),
    ]


# all but those that are only opened: an artifact, and what diffusers has
NAMES = [name for name in ldbench.list_tokenizers() if all(raw.get("weights") is None for raw in lineage(name))]
SIZES = {name: next(raw["image_size"] for raw in lineage(name) if "image_size" in raw) for name in NAMES}
SMALL = 64  # px; passes of larger tokenizers take seconds
STEPS = {
    name: sum(stage.get("max_steps", 0) for raw in lineage(name) for stage in raw.get("stages", {}).values())
    for name in NAMES
}
DIGITS = [name for name in NAMES if SIZES[name] == 32]
TRAINED = [name for name in DIGITS if STEPS[name]]  # of the digits' size, and with something to learn
# variants of another, from which a number or a loss differs
VARIANTS = [name for name in TRAINED if name not in Registry().targets("tokenizer")]
# those that are trained from the first stage to the record
WHOLE = [pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name for name in DIGITS]
TRAININGS = [pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name for name in TRAINED]
# those that are trained several times in one test
SEVERAL = [name if name == "vmae" else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED]
PASSES = [name if SIZES[name] <= SMALL else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def built(name: str) -> Tokenizer:
    cfg = ldbench.compose("train", [f"tokenizer={name}"])
    torch.manual_seed(0)
    return instantiate(cfg.tokenizer.model, image_size=cfg.tokenizer.image_size).eval()


def images(tokenizer: Tokenizer, count: int = 2) -> torch.Tensor:
    return (
        torch.rand(count, 3, tokenizer.image_size, tokenizer.image_size, generator=torch.Generator().manual_seed(0)) * 2
        - 1
    )


def test_its_yaml_composes_and_names_itself(some) -> None:
    for name in some(NAMES, 3):
        cfg = ldbench.compose("train", [f"tokenizer={name}"])
        assert cfg.tokenizer.name == name
        assert cfg.tokenizer.weights is None
        keys = set(cfg.tokenizer) - {"encoder_init"}
        assert keys == {"name", "weights", "seed", "image_size", "model", "losses", "stages"}


@pytest.mark.parametrize("name", PASSES)
def test_it_gives_latents_of_its_spec_and_images_of_its_size(name: str) -> None:
    tokenizer = built(name)
    x = images(tokenizer)
    with torch.no_grad():
        posterior = tokenizer.encode(x)
        recon = tokenizer.decode(posterior.mean)
    spec = tokenizer.latent
    assert posterior.mean.shape == (2, spec.num_tokens, spec.channels)
    assert posterior.logvar is None or posterior.logvar.shape == posterior.mean.shape
    assert recon.shape == x.shape
    assert spec.grid is None or spec.from_map(spec.to_map(posterior.mean)).equal(posterior.mean)


@pytest.mark.parametrize("name", PASSES)
def test_images_of_a_batch_are_independent(name: str) -> None:
    tokenizer = built(name)
    x = images(tokenizer)
    with torch.no_grad():
        together, alone = tokenizer.encode(x).mean, tokenizer.encode(x[:1]).mean
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PASSES)
def test_its_training_pass_is_a_function_of_its_inputs(name: str) -> None:
    tokenizer = built(name)
    x = images(tokenizer)
    with torch.no_grad():
        eps = torch.zeros(())
        first, second = (tokenizer(x, eps=eps) for _ in range(2))
        assert torch.equal(first.images, second.images)
        assert first.mask is None
        torch.testing.assert_close(first.images, tokenizer.decode(tokenizer.encode(x).mean), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PASSES)
def test_its_masks_hide_the_given_share_or_masking_is_refused(name: str) -> None:
    tokenizer = built(name)
    x = images(tokenizer)
    try:
        with torch.no_grad():
            recon = tokenizer(x, mask_ratio=0.5)
    except ValueError as refused:
        assert "mask" in str(refused)  # noqa: PT017
        return
    assert recon.mask is not None
    assert recon.patch_grid is not None
    assert recon.mask.shape == (2, recon.patch_grid[0] * recon.patch_grid[1])
    assert 0.3 < recon.mask.float().mean() < 0.7
    assert recon.kept is None or recon.kept.shape == recon.z.shape[:2]


@pytest.mark.parametrize("name", PASSES)
def test_a_corruption_reaches_the_decoder_and_not_the_latents(name: str) -> None:
    tokenizer = built(name)
    x, eps = images(tokenizer), torch.zeros(())
    with torch.no_grad():
        plain = tokenizer(x, eps=eps)
        same = tokenizer(x, eps=eps, corruption=lambda z: z)
        gone = tokenizer(x, eps=eps, corruption=torch.zeros_like)
        empty = tokenizer.decode(tokenizer.corrupt(plain.z, torch.zeros_like))
    torch.testing.assert_close(same.images, plain.images, rtol=1e-4, atol=1e-5)
    assert torch.equal(gone.z, plain.z)
    torch.testing.assert_close(gone.images, empty, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DIGITS if name in Registry().targets("tokenizer")])
def test_compiled_it_takes_one_mask_ratio_after_the_other(name: str) -> None:
    tokenizer = built(name)
    x = images(tokenizer, 4)
    torch._dynamo.reset()
    compiled = torch.compile(tokenizer, backend="eager")
    for ratio in (0.0, 0.75, 0.5, 0.25):
        passes = []
        for way in (tokenizer, compiled):
            torch.manual_seed(1)
            try:
                with torch.no_grad():
                    passes.append(way(x, mask_ratio=ratio))
            except ValueError as refused:
                assert "mask" in str(refused)  # noqa: PT017
                return
        eager, traced = passes
        torch.testing.assert_close(traced.images, eager.images)
        assert eager.mask is None or torch.equal(traced.mask, eager.mask)


@pytest.mark.parametrize("name", NAMES)
def test_its_anchors_are_trained_parameters_of_encoder_and_decoder(name: str) -> None:
    with torch.device("meta"):  # shapes alone
        tokenizer = built(name)
    anchors = tokenizer.anchors()
    assert set(anchors) == ({"encoder", "decoder"} if list(tokenizer.parameters()) else set())
    for part, anchor in anchors.items():
        assert any(anchor is p for p in getattr(tokenizer, part).parameters())
        assert anchor.requires_grad


@pytest.mark.parametrize("name", PASSES)
def test_it_refuses_images_of_another_size_with_both_sizes(name: str) -> None:
    tokenizer = built(name)
    wrong = tokenizer.image_size + 1
    with pytest.raises(ValueError, match=str(wrong)):
        tokenizer.encode(torch.zeros(1, 3, wrong, wrong))


@pytest.mark.parametrize("name", PASSES)
def test_its_artifact_reproduces_every_bit(name: str, tmp_path: Path) -> None:
    tokenizer = built(name)
    cfg = ldbench.compose("train", [f"tokenizer={name}"])
    model = OmegaConf.to_container(cfg.tokenizer.model, resolve=True)
    keywords = {**{k: v for k, v in model.items() if k != "_target_"}, "image_size": cfg.tokenizer.image_size}
    blueprint = store.Blueprint(
        "tokenizer", Registry().component_name("tokenizer", cfg.tokenizer.model._target_), keywords
    )
    store.save(tokenizer, tmp_path / "t", blueprint, recipe={}, digest="0", provenance={})
    loaded = ldbench.load(tmp_path / "t").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in tokenizer.state_dict().items())


@pytest.mark.parametrize("name", PASSES)
def test_its_recipe_is_sound_and_its_digest_repeats(name: str) -> None:
    size = SIZES[name]
    overrides = [f"tokenizer={name}", *([] if size == 32 else ["data=shapes", "data.num_train=16", "data.num_test=8"])]
    if str(ldbench.compose("train", overrides).tokenizer.get("encoder_init")).startswith("hf://"):
        overrides.append("tokenizer.encoder_init=null")  # no hub is reached here
    first, second = (plan_tokenizer(ldbench.compose("train", overrides)) for _ in range(2))
    assert first.digest == second.digest
    assert first.stages[-1].image_size == size


@pytest.mark.trains
@pytest.mark.parametrize("name", WHOLE)
def test_a_digits_size_trains_all_its_stages_and_is_measured(name: str, tmp_path: Path) -> None:
    few = ["data=shapes", "data.num_train=32", "data.num_test=8"]
    if name == "rae":  # whose encoder is the data's feature network
        few = ["data=digits", "data.subset=0.03"]
    overrides = [
        f"tokenizer={name}",
        "trainer=debug",
        "trainer.accelerator=cpu",
        "protocol=default",
        *few,
        *quickly(name),
    ]
    folder = pipeline.train(ldbench.compose("train", [*overrides, f"paths.root={tmp_path}"]))
    assert store.is_complete(folder)
    assert len(list((tmp_path / "records").glob("reconstruct-*.json"))) == 1


@pytest.mark.trains
@pytest.mark.parametrize("name", SEVERAL)
def test_one_seed_gives_one_result_and_two_give_two(name: str, tmp_path: Path) -> None:
    overrides = [
        f"tokenizer={name}",
        "trainer=debug",
        "trainer.accelerator=cpu",
        "data.subset=0.1",
        "~callbacks.reconstructions",
        *quickly(name),
    ]
    ends = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        cfg = ldbench.compose("train", [*overrides, f"tokenizer.seed={seed}", f"paths.root={tmp_path / folder}"])
        ends.append(tokenizer_training.train_stages(plan_tokenizer(cfg)).state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert not all(torch.equal(value, ends[2][key]) for key, value in ends[0].items())


@pytest.mark.parametrize("name", TRAININGS)
def test_auxiliary_decoders_and_an_opponent_attach_to_it(name: str) -> None:
    terms = {"gradients": "hog", "named": "classes", "opponent": "adversarial"}
    overrides = [f"+loss@tokenizer.losses.{term}={option}" for term, option in terms.items()]
    overrides += [
        "teacher@tokenizer.losses.gradients.teacher=hog4",
        "tokenizer.losses.opponent.discriminator.num_layers=2",
    ]
    overrides += ["tokenizer.losses.opponent.balancing=decoder", "trainer.accelerator=cpu", "data.subset=0.1"]
    tokenizer_training.dry_run(
        plan_tokenizer(ldbench.compose("train", [f"tokenizer={name}", *overrides, *quickly(name)]))
    )


@pytest.mark.parametrize("name", TRAININGS)
def test_it_trains_with_noise_and_masked_tokens_and_with_rotated_latents_or_refuses(name: str) -> None:
    few = ["trainer.accelerator=cpu", "data.subset=0.1", *quickly(name)]
    stage = list(ldbench.compose("train", [f"tokenizer={name}"]).tokenizer.stages)[-1]
    at = f"tokenizer.stages.{stage}"
    corrupted = [f"{at}.latent_noise.strength=0.5", f"{at}.token_mask.largest=0.5"]
    tokenizer_training.dry_run(plan_tokenizer(ldbench.compose("train", [f"tokenizer={name}", *few, *corrupted])))
    rotated = [f"{at}.equivariance.probability=0.5", f"{at}.equivariance.scales=[1,1]", f"{at}.mask_ratio=0"]
    cfg = ldbench.compose("train", [f"tokenizer={name}", *few, *rotated, f"{at}.equivariance.downscaled=0"])
    planned = plan_tokenizer(cfg)
    if planned.latent.grid is not None:
        tokenizer_training.dry_run(planned)
        return
    with pytest.raises(ValueError, match=r"have none\. Set tokenizer\.stages\.\w+\.equivariance\.probability=0"):
        tokenizer_training.dry_run(planned)


@pytest.mark.trains
@pytest.mark.parametrize("name", SEVERAL)
def test_it_takes_alignment_under_the_name_that_all_share_and_trains_with_it(name: str, tmp_path: Path) -> None:
    overrides = ["loss@tokenizer.losses.alignment=alignment", "teacher@tokenizer.losses.alignment.teacher=hog4"]
    overrides += [
        "trainer=debug",
        "trainer.accelerator=cpu",
        "data.subset=0.1",
        f"paths.root={tmp_path}",
        *quickly(name),
    ]
    tokenizer_training.train_tokenizer(plan_tokenizer(ldbench.compose("train", [f"tokenizer={name}", *overrides])))


# keys of recipes and names of loss terms, with what trains no network for them
WITHOUT_NETWORKS = {"encoder_init": "tokenizer.encoder_init=null", "perceptual": "~tokenizer.losses.perceptual"}


def quickly(name: str) -> list[str]:
    """What makes its recipe one of seconds: small batches, and no feature network that is trained first."""
    recipe = ldbench.compose("train", [f"tokenizer={name}"]).tokenizer
    batches = [f"tokenizer.stages.{stage}.batch_size=8" for stage in recipe.stages]
    teachers = ["teacher@tokenizer.losses.alignment.teacher=hog4"] if "alignment" in recipe.losses else []
    networks = [override for key, override in WITHOUT_NETWORKS.items() if key in {*recipe, *recipe.losses}]
    return [*batches, *teachers, *networks]
