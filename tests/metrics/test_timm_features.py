"""timm's networks as extractors: on random weights of the true layout, each as timm itself computes its features."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from ldbench.config.components import import_target
from ldbench.config.compose import Registry, plain
from ldbench.metrics import timm_features
from ldbench.metrics.timm_features import AttentionPooled, ClassToken, PositionMean, TimmFeatures, resized_positions

SMALL = "vit_small_patch14_dinov2.lvd142m"
TINY_SIGLIP = "vit_base_patch16_siglip_224.v2_webli"
TINY_CONVNEXT = "convnextv2_atto.fcmae_ft_in1k"
SIX = {  # FDr6's extractors besides Inception-v3: timm's name, image size, width, millions of parameters [2]
    "convnextv2_b": ("convnextv2_base.fcmae_ft_in22k_in1k", 224, 1024, 87.7),
    "dinov2_l": ("vit_large_patch14_dinov2.lvd142m", 256, 1024, 303.3),
    "mae_l": ("vit_large_patch16_224.mae", 224, 1024, 303.3),
    "siglip2": ("vit_so400m_patch16_siglip_256.v2_webli", 224, 1152, 427.8),
    "clip_l": ("vit_large_patch14_clip_224.openai", 256, 1024, 303.2),
}


def random_weights(architecture: str, **settings: Any) -> dict[str, torch.Tensor]:
    """Weights of a network's true layout, with its classifier."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, pretrained=False, **settings)
    return {key: torch.randn_like(value) * 0.1 for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return random_weights(SMALL, num_classes=0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalized(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (images / 255 - mean) / std


def test_it_returns_timms_class_token_of_normalized_images(
    weights: dict[str, torch.Tensor], images: torch.Tensor
) -> None:
    extractor = ClassToken(architecture=SMALL, image_size=56, weights=weights)
    theirs = timm.create_model(SMALL, pretrained=False, num_classes=0, img_size=56)
    state = {
        **weights,
        "pos_embed": timm.layers.resample_abs_pos_embed(weights["pos_embed"], (4, 4), num_prefix_tokens=1),
    }
    theirs.load_state_dict(state)
    with torch.no_grad():
        expected = theirs.eval()(normalized(theirs, images))
    found = extractor.train().extract(images)
    assert found.features.shape == (2, 384)
    assert found.spatial is None
    assert found.logits is None
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-4)


def test_at_a_size_that_patches_do_not_divide_the_last_pixels_are_in_none(
    weights: dict[str, torch.Tensor], images: torch.Tensor
) -> None:
    extractor = ClassToken(architecture=SMALL, image_size=60, weights=weights)
    wider = nn.functional.pad(images, (0, 4, 0, 4), value=200)
    exact = ClassToken(architecture=SMALL, image_size=56, weights=weights)
    torch.testing.assert_close(extractor.features(wider), exact.features(images))


def test_attention_pooling_is_timms_output_without_a_classifier(images: torch.Tensor) -> None:
    weights = random_weights(TINY_SIGLIP)
    found = AttentionPooled(architecture=TINY_SIGLIP, image_size=64, weights=weights).features(images)
    theirs = timm.create_model(TINY_SIGLIP, pretrained=False, num_classes=0, img_size=64).eval()
    theirs.load_state_dict(resized_positions(theirs, weights))
    resized = nn.functional.interpolate(images / 255, size=(64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        expected = theirs(normalized(theirs, resized * 255))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_mean_over_positions_is_that_of_the_last_map(images: torch.Tensor) -> None:
    weights = random_weights(TINY_CONVNEXT)
    assert "head.fc.weight" in weights
    found = PositionMean(architecture=TINY_CONVNEXT, image_size=56, weights=weights).features(images)
    theirs = timm.create_model(TINY_CONVNEXT, pretrained=False).eval()
    theirs.load_state_dict(weights)
    with torch.no_grad():
        expected = theirs.forward_features(normalized(theirs, images)).mean(dim=(2, 3))
    assert found.shape == (2, 320)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_images_of_another_size_are_resized_with_a_filter() -> None:
    weights = timm.create_model(SMALL, pretrained=False, num_classes=0).state_dict()
    extractor = ClassToken(architecture=SMALL, image_size=28, weights=weights)
    flat = torch.full((1, 3, 90, 90), 77, dtype=torch.uint8)
    torch.testing.assert_close(extractor.features(flat), extractor.features(flat[..., :28, :28]), rtol=1e-4, atol=1e-4)
    checks = (torch.arange(112)[:, None] + torch.arange(112)) % 2 * 255
    gray = extractor.features(checks.expand(1, 3, -1, -1).byte())
    torch.testing.assert_close(
        gray, extractor.features(torch.full((1, 3, 28, 28), 128, dtype=torch.uint8)), rtol=0.05, atol=0.05
    )


def test_unknown_models_sizes_and_weights_are_refused(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="timm builds no network 'dino99'"):
        ClassToken(architecture="dino99", image_size=28, weights=weights)
    with pytest.raises(ValueError, match="no class token"):
        ClassToken(architecture="vit_pwee_patch16_reg1_gap_256", image_size=32, weights=weights)
    with pytest.raises(ValueError, match="no attention pooling"):
        AttentionPooled(architecture=SMALL, image_size=28, weights=weights)
    with pytest.raises(ValueError, match="is a vision transformer, which has tokens and no feature map"):
        PositionMean(architecture=SMALL, image_size=28, weights=weights)
    with pytest.raises(ValueError, match="resnet18 is no vision transformer"):
        ClassToken(architecture="resnet18", image_size=28, weights=weights)
    with pytest.raises(ValueError, match=r"image_size 10 is smaller than a patch of .*, 14 px"):
        ClassToken(architecture=SMALL, image_size=10, weights=weights)
    with pytest.raises(ValueError, match=r"not those of vit_small_patch14_dinov2.*norm.weight"):
        ClassToken(
            architecture=SMALL,
            image_size=28,
            weights={key: value for key, value in weights.items() if key != "norm.weight"},
        )
    with pytest.raises(ValueError, match=r"not those of vit_small_patch14_dinov2"):
        ClassToken(architecture=SMALL, image_size=28, weights=random_weights(TINY_CONVNEXT))
    with pytest.raises(ValueError, match="uint8"):
        ClassToken(architecture=SMALL, image_size=28, weights=weights).features(torch.zeros(1, 3, 28, 28))


def full_size(name: str) -> TimmFeatures:
    """An option of the group as its yaml describes it, on random weights; on torch's default device."""
    node = plain(Registry().option("extractor", name))
    network = timm.create_model(node["architecture"], pretrained=False)
    settings = {key: value for key, value in node.items() if key in ("architecture", "image_size")}
    return import_target(node["_target_"])(**settings, weights=network.state_dict())


@pytest.mark.parametrize("name", SIX)
def test_each_of_the_six_has_its_published_name_size_and_width(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, image_size, width, millions = SIX[name]
    node = Registry().option("extractor", name)
    assert (node.architecture, node.image_size) == (architecture, image_size)
    assert node.weights.source == f"hf://timm/{architecture}"
    monkeypatch.setattr(timm_features, "resample_abs_pos_embed", lambda table, new_size, num_prefix_tokens: (
        table.new_empty(1, new_size[0] * new_size[1] + num_prefix_tokens, table.shape[2])
    ))  # fmt: skip
    with torch.device("meta"):
        extractor = full_size(name)
        assert extractor.pool(torch.zeros(1, 3, image_size, image_size)).shape == (1, width)
    assert sum(entry.numel() for entry in extractor.network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIX)
def test_each_of_the_six_gives_features_of_images(name: str, images: torch.Tensor) -> None:
    found = full_size(name).features(images)
    assert found.shape == (2, SIX[name][2])
    assert torch.isfinite(found).all()
    assert not torch.equal(found[0], found[1])
