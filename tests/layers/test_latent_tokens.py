"""An encoder that starts from a vision transformer's weights, resampled to its patches."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from ldbench.layers.latent_tokens import LatentTokenEncoder


def dinov2(**changes: int) -> VisionTransformer:
    """A small transformer of DINOv2's architecture: patches of 14 px, LayerScale."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 14, "img_size": 70} | changes
    vit = timm.create_model("vit_small_patch14_dinov2", pretrained=False, **sizes)
    assert isinstance(vit, VisionTransformer)
    for value in vit.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return vit.eval()


def encoder(**changes: object) -> LatentTokenEncoder:
    sizes = {"grid": (4, 4), "patch_size": 16, "num_tokens": 3, "outputs": 5, "width": 32, "depth": 2, "num_heads": 2}
    rest = {"mlp_ratio": 4.0, "rope_theta": None, "layer_scale": 1e-5, "linear_std": 0.02, "token_std": 0.02}
    return LatentTokenEncoder(**{**sizes, **rest, "mask_token": False, **changes})  # type: ignore[arg-type]


def test_patches_are_those_of_timms_own_resampling() -> None:
    vit, ours = dinov2(), encoder()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    ours.init_from_vit({**vit.state_dict(), "mask_token": torch.zeros(1, 32), "head.weight": torch.zeros(1)})
    resized = dinov2(patch_size=16, img_size=64)
    resized.load_state_dict(checkpoint_filter_fn(vit.state_dict(), resized))
    images = torch.randn(2, 3, 64, 64)

    def prefix(x: Tensor) -> Tensor:  # class token and patches of theirs, embedded
        return resized._pos_embed(resized.patch_embed(x))

    with torch.no_grad():
        patches = torch.cat([ours.class_token.expand(2, -1, -1), ours.patch_embed(images)], dim=1) + ours.positions
        torch.testing.assert_close(patches, prefix(images), atol=1e-5, rtol=1e-5)
        expected = resized.norm(resized.blocks(prefix(images)))
        torch.testing.assert_close(ours.transformer(patches), expected, atol=1e-5, rtol=1e-5)
    for key in ("latent_tokens", "latent_positions", "to_latent.weight"):
        assert torch.equal(ours.state_dict()[key], before[key])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 48}, r"another size than the encoder: class_token, .* do not fit"),
        ({"depth": 1}, r"another size than the encoder: transformer\.blocks\.1\.attn.* do not fit"),
        ({"depth": 3}, r"transformer\.blocks\.2\..* do not fit"),
        ({"layer_scale": None}, r"transformer\.blocks\.0\.scale1\.gamma, .* do not fit"),
    ],
)
def test_a_transformer_of_another_size_is_refused(changes: dict[str, object], message: str) -> None:
    ours = encoder(**changes)
    with pytest.raises(ValueError, match=message):
        ours.init_from_vit(dinov2().state_dict())


def test_what_is_no_transformer_is_refused() -> None:
    with pytest.raises(ValueError, match="no weights of a vision transformer with a class token: cls_token is missing"):
        encoder().init_from_vit({"conv.weight": torch.zeros(1)})
