"""Inception-v3 as released with TensorFlow in 2015, the extractor of FID, sFID and the inception score;
torch-fidelity's network.

[0] Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015, https://arxiv.org/abs/1512.00567
[1] Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
    https://arxiv.org/abs/1706.08500
[2] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://arxiv.org/abs/2105.05233 (its
    evaluation suite)
[3] Parmar, Zhang and Zhu, On Aliased Resizing and Surprising Subtleties in GAN Evaluation, 2022,
    https://arxiv.org/abs/2104.11222 (clean-fid)
"""

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.pixels import validate_pixels
from ldbench.metrics.feature_set import ADM, CLEAN_FID, Features

FILE = "weights-inception-2015-12-05-6726825d.pth"
STANDARD = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # its sha256
SPATIAL_CHANNELS = 7  # of `mixed_6/conv`, the first branch of torch-fidelity's Mixed_6d: 17 x 17 x 7 = 2023, as in [2]


class Inception(nn.Module):
    """Features (2048) of the last pooling, spatial features (2023) and logits (1008, without the bias, as in [2]);
    frozen, in float32.

    Images of any size are resized to 299 px as in TensorFlow 1. `weights`: tensors in torch-fidelity's layout.
    `sha256`: of their file; a Frechet distance is FID only with the standard weights. Raises ValueError where
    torch-fidelity is not installed, and for weights of another network.
    """

    revision: ClassVar[int] = 1
    provides: ClassVar[frozenset[str]] = frozenset({"features", "spatial", "logits"})
    widths: ClassVar[Mapping[str, int]] = {"normal": 2048, "spatial": 17 * 17 * SPATIAL_CHANNELS}
    standard: bool  # whether a Frechet distance on it is FID
    statistics: str | None = ADM  # whose files of statistics are of its features; None with other weights

    def __init__(self, *, weights: Mapping[str, Tensor], sha256: str):
        super().__init__()
        self.check()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        with (
            tempfile.TemporaryDirectory() as folder
        ):  # torch-fidelity unpickles anything: it is given a file of tensors
            path = Path(folder) / "weights.pth"
            torch.save({key: value.detach().cpu() for key, value in weights.items()}, path)
            try:
                self.network = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
                )
            except RuntimeError as error:
                message = " ".join(str(error).split())[:300]
                raise ValueError(
                    f"These weights are not those of torch-fidelity's Inception-v3: {message} ... "
                    f"Expected the file {FILE}."
                ) from error
        self.standard = sha256 == STANDARD
        self.statistics = self.statistics if self.standard else None
        self._maps: list[Tensor] = []
        self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._maps.append(output)

    @classmethod
    def check(cls) -> None:
        """Raises ValueError where torch-fidelity is not installed, before any work starts."""
        if importlib.util.find_spec("torch_fidelity") is None:
            raise ValueError(
                "Inception-v3 needs torch-fidelity, which is not installed. "
                "Run pip install 'ldbench[fidelity]', or set protocol=default."
            )

    def train(self, mode: bool = True) -> "Inception":
        """Returns the module unchanged, always in eval mode: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def extract(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Features:
        """Features, spatial features and logits of each image. Raises ValueError for pixels that are not uint8."""
        validate_pixels(images)
        self._maps.clear()
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            features, logits = self.outputs(images)
        spatial = rearrange(self._maps.pop()[:, :SPATIAL_CHANNELS], "b c h w -> b (h w c)")  # TensorFlow's order
        return Features(features, spatial.float(), logits)

    def outputs(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> tuple[Tensor, Tensor]:  # (B, 2048), (B, 1008)
        """Features and logits, with torch-fidelity's resizing."""
        features, logits = self.network(images)
        return features, logits

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> Tensor:  # (B, 2048) float32
        """The features alone."""
        return self.extract(images).features


class CleanInception(Inception):
    """The same network on images that are resized as in clean-fid [3]; a Frechet distance on it is no FID.

    Resizing is bicubic with a filter, in floating point: values are cut to [0, 255] and not rounded to 8 bits. Smaller
    images are enlarged in the same way. Statistics of clean-fid's files are of these features.
    """

    standard: bool = False
    statistics: str | None = CLEAN_FID

    def __init__(self, *, weights: Mapping[str, Tensor], sha256: str):
        super().__init__(weights=weights, sha256=sha256)
        self.standard = False

    def outputs(
        self,
        images: Tensor,  # (B, 3, H, W) uint8
    ) -> tuple[Tensor, Tensor]:  # (B, 2048), (B, 1008)
        """Features and logits, with clean-fid's resizing."""
        x = (resize_as_pillow(images, self.network.INPUT_IMAGE_SIZE) - 128) / 128
        for name, layer in self.network.named_children():  # in the order of its forward, which takes 8 bits alone
            if name == "fc":
                break
            x = layer(x)
        features = x.flatten(1)
        return features, features @ self.network.fc.weight.T


def resize_as_pillow(
    images: Tensor,  # (B, 3, H, W) uint8
    size: int,  # px
) -> Tensor:  # (B, 3, size, size) float32 in [0, 255]
    """Images resized as by Pillow's bicubic filter on each channel in floating point, cut to the range of pixels.

    In float64: Pillow weights in double precision, and torch's weights in float32 are off by up to 0.01 levels.
    """
    x = images.double()
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)
    return x.float()
