"""Foundation teachers: timm's own tokens at the asked grid, frozen, on weights that fit; and readouts that let
gradients through to images.
"""

import copy

import pytest
import timm
import torch
from einops import rearrange
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry, conf_dir
from ldbench.core.interfaces import Teacher
from ldbench.teachers.foundation import Foundation, build_empty

WIDTHS = {"dinov2": 1024, "dinov2_small": 384, "clip": 768, "siglip": 1152, "mae": 768, "dino_v1_small": 384}
DINO, DINOV2, TINY, HEADLESS = (
    "vit_small_patch16_224.dino",
    "vit_small_patch14_dinov2.lvd142m",
    "test_vit.r160_in1k",
    "test_vit3.r160_in1k",
)
IMAGENET_MEAN, IMAGENET_STD = (
    torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def timms(name: str, **keywords) -> torch.nn.Module:
    """timm's own model with random numbers in every tensor."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **keywords).eval()
    for parameter in model.parameters():
        parameter.data = (
            torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else parameter + 0.1
        )
    return model


def teacher_of(model: torch.nn.Module, name: str, **keywords) -> Foundation:
    facts = {"normalization": "own", "patch_size": None, "antialias": True}
    return Foundation(architecture=name, weights=model.state_dict(), **{**facts, **keywords})


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    return timms(TINY)


@pytest.fixture(scope="module")
def dino() -> torch.nn.Module:
    return timms(DINO)


def images_of(*size: int) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", sorted(WIDTHS))
def test_an_options_architecture_has_the_width_it_says(name: str) -> None:
    raw = Registry().options("teacher")[name]
    model = build_empty(raw["architecture"])
    assert model.embed_dim == WIDTHS[name]
    assert f"{WIDTHS[name]} features" in (conf_dir() / "teacher" / f"{name}.yaml").read_text()
    assert raw["weights"]["source"] == f"hf://{model.pretrained_cfg['hf_hub_id']}"
    assert isinstance(model.norm, torch.nn.LayerNorm)  # tokens are read behind it


def test_every_option_but_the_handmade_ones_is_tested_here() -> None:
    target = "ldbench.teachers.foundation.Foundation"
    assert {name for name, known in Registry().targets("teacher").items() if known == target} == WIDTHS.keys()


def test_an_option_reads_its_weights_from_a_file_and_gives_timms_own_tokens(dino, tmp_path) -> None:
    save_file(dino.state_dict(), tmp_path / "dino.safetensors")
    node = copy.deepcopy(Registry().options("teacher")["dino_v1_small"])
    node["weights"]["source"] = str(tmp_path / "dino.safetensors")
    teacher: Teacher = instantiate(node)
    images = images_of(224, 224)
    with torch.no_grad():
        expected = dino.forward_features(((images + 1) / 2 - IMAGENET_MEAN) / IMAGENET_STD)[:, 1:]
    features = teacher(images, (14, 14))
    assert features.dtype == torch.float32
    assert torch.allclose(features, expected, atol=1e-5)
    assert teacher.channels(224, (14, 14)) == features.shape[-1] == 384


def test_another_patch_size_is_timms_resampled_model() -> None:
    """As the official MAETok turns DINOv2's patches of 14 into 16: kernel and position table go straight from what was
    trained to what is asked.
    """
    trained = timms(TINY)
    built = timm.create_model(TINY, pretrained=False, img_size=256, patch_size=16).eval()
    built.load_state_dict(checkpoint_filter_fn(trained.state_dict(), built))
    teacher = teacher_of(trained, TINY, patch_size=16)
    images = images_of(256, 256)
    with torch.no_grad():
        expected = built.forward_features(teacher.normalize(images))[:, 1:]
    assert torch.allclose(teacher(images, (16, 16)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((160, 160), (10, 10)), ((256, 256), (16, 16)), ((64, 96), (4, 6)), ((96, 64), (3, 7)), ((32, 32), (1, 1))],
)
@pytest.mark.parametrize("patch_size", [None, 8])
def test_any_image_size_and_grid_is_served(tiny, size, grid, patch_size) -> None:
    features = teacher_of(tiny, TINY, patch_size=patch_size)(images_of(*size), grid)
    assert features.shape == (2, grid[0] * grid[1], 64)
    assert features.isfinite().all()


def test_features_are_row_major_and_match_positions_in_the_image(tiny) -> None:
    teacher = teacher_of(tiny, TINY)
    teacher.vit.blocks = torch.nn.Sequential()  # what is left sees one patch at a time
    images = images_of(64, 96)
    changed = images.clone()
    changed[:, :, 16:32, 80:96] = 0
    moved = rearrange((teacher(images, (4, 6)) - teacher(changed, (4, 6))).abs().amax(dim=-1), "b (h w) -> b h w", h=4)
    assert (moved[:, 1, 5] > 0.01).all()
    assert (moved > 1e-6).sum() == 2


def test_images_of_the_models_size_are_not_resized_and_others_are(tiny) -> None:
    images = images_of(320, 320)
    half = torch.nn.functional.interpolate(images, size=(160, 160), mode="bilinear", antialias=True)
    rough = torch.nn.functional.interpolate(images, size=(160, 160), mode="bilinear")
    teacher, unfiltered = teacher_of(tiny, TINY), teacher_of(tiny, TINY, antialias=False)
    assert torch.allclose(teacher(images, (10, 10)), teacher(half, (10, 10)), atol=1e-4)
    assert torch.allclose(unfiltered(images, (10, 10)), teacher(rough, (10, 10)), atol=1e-4)
    assert not torch.allclose(teacher(images, (10, 10)), unfiltered(images, (10, 10)), atol=1e-2)


def test_normalizations_differ_in_what_the_model_is_fed_with_and_in_nothing_else(tiny) -> None:
    own, legacy, none = (teacher_of(tiny, TINY, normalization=name) for name in ("own", "legacy", "none"))
    images = images_of(160, 160)
    assert torch.allclose(own.normalize(images), images, atol=1e-6)  # this model, like SigLIP, has 0.5 and 0.5
    assert torch.allclose(none.normalize(images), images, atol=1e-6)
    assert torch.allclose(legacy.normalize(images), ((images + 1) / 2 - IMAGENET_MEAN) / IMAGENET_STD, atol=1e-6)
    assert not torch.allclose(own(images, (10, 10)), legacy(images, (10, 10)), atol=1e-2)
    assert torch.allclose(own(legacy.normalize(images), (10, 10)), legacy(images, (10, 10)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("siglip", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ("clip", (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758))],
)
def test_siglip_and_clip_are_not_normalized_as_imagenet_is(name, mean, std) -> None:
    own = build_empty(Registry().options("teacher")[name]["architecture"]).pretrained_cfg
    assert own["mean"] == pytest.approx(mean, abs=1e-4)
    assert own["std"] == pytest.approx(std, abs=1e-4)


def test_clip_has_the_activation_it_was_trained_with() -> None:
    model = build_empty(Registry().options("teacher")["clip"]["architecture"])
    assert type(model.blocks[0].mlp.act).__name__ == "QuickGELU"


def test_it_is_frozen_and_stays_in_eval_mode(tiny) -> None:
    teacher = teacher_of(tiny, TINY)
    holder = torch.nn.ModuleList([teacher]).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in holder.parameters())
    assert {"mean", "std"}.isdisjoint(teacher.state_dict())
    images = images_of(160, 160).requires_grad_()
    assert not teacher(images, (10, 10)).requires_grad
    assert torch.equal(teacher(images, (10, 10)), teacher(images, (10, 10)))


def test_the_weights_handed_over_are_copied_and_may_be_of_half_precision(tiny) -> None:
    state = {key: value.half() for key, value in tiny.state_dict().items()}
    teacher = teacher_of(tiny, TINY)
    halved = Foundation(architecture=TINY, weights=state, normalization="own", patch_size=None, antialias=True)
    assert all(parameter.dtype == torch.float32 for parameter in halved.parameters())
    teacher.vit.cls_token.zero_()
    assert tiny.cls_token.abs().sum() > 0


def test_features_are_float32_under_autocast(tiny) -> None:
    teacher, images = teacher_of(tiny, TINY), images_of(160, 160)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = teacher(images, (10, 10))
    assert features.dtype == torch.float32
    assert not torch.equal(features, teacher(images, (10, 10)))


def test_reading_heads_may_be_there_or_not(tiny) -> None:
    state = tiny.state_dict()
    assert any(key.startswith("head.") for key in state)
    without = {key: value for key, value in state.items() if not key.startswith("head.")}
    other = {
        **without,
        "head.weight": torch.zeros(7, 64),
        "fc_norm.weight": torch.zeros(64),
        "attn_pool.latent": torch.zeros(1, 1, 64),
    }
    expected = teacher_of(tiny, TINY)(images_of(160, 160), (10, 10))
    for weights in (without, other):
        teacher = Foundation(architecture=TINY, weights=weights, normalization="own", patch_size=None, antialias=True)
        assert torch.equal(teacher(images_of(160, 160), (10, 10)), expected)


def test_mismatched_weights_are_named(tiny) -> None:
    state = tiny.state_dict()
    wrong = {key: value for key, value in state.items() if key not in ("norm.weight", "norm.bias")}
    wrong["mask_token"], wrong["cls_token"] = torch.zeros(1), torch.zeros(1, 1, 65)
    with pytest.raises(
        ValueError,
        match=r"not those of test_vit.*: 2 missing .first: norm\.bias\); 1 unknown \(first: mask_token\); 1 of another",
    ) as error:
        Foundation(architecture=TINY, weights=wrong, normalization="own", patch_size=None, antialias=True)
    assert "cls_token (1, 1, 65), expected (1, 1, 64)" in str(error.value)
    assert "hf://timm/test_vit.r160_in1k" in str(error.value)


def test_unknown_models_and_settings_are_refused(tiny) -> None:
    with pytest.raises(ValueError, match="timm builds no vision transformer 'vit_enormous'"):
        build_empty("vit_enormous")
    with pytest.raises(ValueError, match=r"timm builds no vision transformer 'resnet18'|resnet18 is a ResNet"):
        build_empty("resnet18")
    pooled = "test_vit2.r160_in1k"
    with pytest.raises(ValueError, match="has its last norm after the pooling"):
        teacher_of(timms(pooled), pooled)
    with pytest.raises(ValueError, match=r"Unknown normalization 'imagenet'\. Choose one of own, legacy, none"):
        teacher_of(tiny, TINY, normalization="imagenet")
    with pytest.raises(ValueError, match="patch_size must be at least 1, got 0"):
        teacher_of(tiny, TINY, patch_size=0)
    with pytest.raises(ValueError, match="A grid of 0x3 is empty"):
        teacher_of(tiny, TINY)(images_of(32, 32), (0, 3))


def test_readouts_are_the_embedding_and_the_blocks_with_the_class_token_added(dino) -> None:
    teacher, images = teacher_of(dino, DINO), images_of(224, 224)
    outputs = []
    hooks = [dino.blocks[0].register_forward_pre_hook(lambda _, given: outputs.append(given[0]))]
    hooks += [
        dino.blocks[depth].register_forward_hook(lambda _, given, output: outputs.append(output))
        for depth in (2, 5, 8, 11)
    ]
    with torch.no_grad():
        dino.forward_features(teacher.normalize(images))
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        readouts = teacher.readouts(images, (2, 5, 8, 11))
    assert len(readouts) == len(outputs) == 5
    for readout, tokens in zip(readouts, outputs, strict=True):
        assert readout.shape == (2, 384, 196)
        assert torch.allclose(readout, rearrange(tokens[:, 1:] + tokens[:, :1], "b p d -> b d p"), atol=1e-4)


def test_readouts_carry_gradients_to_images_and_to_nothing_else(tiny) -> None:
    teacher, images = teacher_of(tiny, TINY), images_of(160, 160).requires_grad_()
    for readout in teacher.readouts(images, (0, 5)):
        images.grad = None
        readout.square().mean().backward(retain_graph=True)
        assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_readouts_come_in_the_order_asked_for_and_go_no_deeper_than_needed(tiny) -> None:
    teacher, images = teacher_of(tiny, TINY), images_of(160, 160)
    forwards, backwards = teacher.readouts(images, (1, 3)), teacher.readouts(images, (3, 1))
    assert torch.equal(forwards[1], backwards[2])
    assert torch.equal(forwards[2], backwards[1])
    teacher.vit.blocks[4] = None
    assert len(teacher.readouts(images, (1, 3))) == 3
    assert len(teacher.readouts(images, ())) == 1


def test_a_model_without_class_token_is_read_by_its_patches_alone() -> None:
    model = timms(HEADLESS)
    assert model.cls_token is None
    teacher, images = teacher_of(model, HEADLESS), images_of(160, 160)
    with torch.no_grad():
        x = model.norm_pre(model._pos_embed(model.patch_embed(teacher.normalize(images))))
    expected = rearrange(x[:, model.num_prefix_tokens :], "b p d -> b d p")
    assert torch.allclose(teacher.readouts(images, ())[0], expected, atol=1e-5)


def test_invalid_readouts_are_refused(tiny) -> None:
    teacher = teacher_of(tiny, TINY)
    with pytest.raises(ValueError, match=r"Patches of 16 pixels do not divide an image of 100x160"):
        teacher.readouts(images_of(100, 160), (0,))
    with pytest.raises(ValueError, match=r"There is no block 6: this model has 0 to 5"):
        teacher.readouts(images_of(160, 160), (0, 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WIDTHS))
def test_an_option_at_full_size_gives_its_width(name: str) -> None:
    node = copy.deepcopy(Registry().options("teacher")[name])
    del node["weights"]
    state = {
        key: torch.randn(value.shape) / 10 for key, value in build_empty(node["architecture"]).state_dict().items()
    }
    teacher = instantiate(node, weights=state)
    assert teacher(images_of(256, 256), (16, 16)).shape == (2, 256, WIDTHS[name])
