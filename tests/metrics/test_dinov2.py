"""DINOv2: timm's class token, on random weights of the true layout."""

import pytest
import timm
import torch

from ldbench.metrics.dinov2 import DINOv2

SMALL = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(SMALL, pretrained=False, num_classes=0).state_dict()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_returns_timms_class_token_of_normalized_images(
    weights: dict[str, torch.Tensor], images: torch.Tensor
) -> None:
    extractor = DINOv2(architecture=SMALL, image_size=56, weights=weights)
    theirs = timm.create_model(SMALL, pretrained=False, num_classes=0, img_size=56)
    state = {
        **weights,
        "pos_embed": timm.layers.resample_abs_pos_embed(weights["pos_embed"], (4, 4), num_prefix_tokens=1),
    }
    theirs.load_state_dict(state)
    mean, std = (torch.tensor(theirs.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = theirs.eval()((images / 255 - mean) / std)
    found = extractor.train().extract(images)
    assert found.features.shape == (2, 384)
    assert found.spatial is None
    assert found.logits is None
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-4)


def test_images_of_another_size_are_resized_with_a_filter(
    weights: dict[str, torch.Tensor], images: torch.Tensor
) -> None:
    extractor = DINOv2(architecture=SMALL, image_size=28, weights=weights)
    flat = torch.full((1, 3, 90, 90), 77, dtype=torch.uint8)
    torch.testing.assert_close(extractor.features(flat), extractor.features(flat[..., :28, :28]), rtol=1e-4, atol=1e-4)
    checks = (torch.arange(112)[:, None] + torch.arange(112)) % 2 * 255
    gray = extractor.features(checks.expand(1, 3, -1, -1).byte())
    torch.testing.assert_close(
        gray, extractor.features(torch.full((1, 3, 28, 28), 128, dtype=torch.uint8)), rtol=0.05, atol=0.05
    )


def test_unknown_models_sizes_and_weights_are_refused(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="timm builds no vision transformer 'dino99'"):
        DINOv2(architecture="dino99", image_size=28, weights=weights)
    with pytest.raises(ValueError, match="no class token"):
        DINOv2(architecture="vit_pwee_patch16_reg1_gap_256", image_size=32, weights=weights)
    with pytest.raises(ValueError, match=r"image_size 30 is not a multiple of the patch size of .*, 14 px"):
        DINOv2(architecture=SMALL, image_size=30, weights=weights)
    with pytest.raises(ValueError, match=r"not those of vit_small_patch14_dinov2.*norm.weight"):
        DINOv2(
            architecture=SMALL,
            image_size=28,
            weights={key: value for key, value in weights.items() if key != "norm.weight"},
        )
    with pytest.raises(ValueError, match="uint8"):
        DINOv2(architecture=SMALL, image_size=28, weights=weights).features(torch.zeros(1, 3, 28, 28))
