"""ModuleTokenizer: any module with `encode` and `decode`, as a tokenizer."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer

Shape = Literal["map", "tokens"]  # (B, C, H, W) or (B, N, C)

SPREADS: dict[str, Callable[[Tensor], Tensor]] = {  # attribute of a distribution -> its log-variance
    "logvar": lambda value: value,
    "log_var": lambda value: value,
    "variance": torch.log,
    "var": torch.log,
    "stddev": lambda value: 2 * value.log(),
    "std": lambda value: 2 * value.log(),
    "scale": lambda value: 2 * value.log(),
}
INNER = ("latent_dist", "posterior")  # attributes of an output that hold a distribution
LATENTS = ("latents", "latent", "z")  # and those that hold a tensor
IMAGES = ("sample", "images")  # attributes of what `decode` returns
EXPECTED = (
    "Expected a tensor (B, C, H, W) or (B, N, C), or a distribution with mean and logvar (or std, variance). Wrap the "
    "module in one whose encode returns that."
)
SAME = 1e-3  # relative difference of two encodings of one image, below which it is rounding


class ModuleTokenizer(Tokenizer):
    """A module that is none of ours, as a tokenizer: the module itself and no copy.

    `encode` takes images (B, 3, H, W) in `value_range` and returns a tensor or a distribution; `decode` takes what
    `encode` returned, or the distribution's mean, and returns images. The latent is found by encoding and decoding one
    image. Raises ValueError for modules that do otherwise, and for one that encodes an image at random.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,  # (1, 3, H, W) in [-1, 1], square
        *,
        value_range: tuple[float, float],
    ):
        super().__init__()
        low, high = value_range
        if not low < high:
            raise ValueError(
                f"value_range must be two ascending numbers, such as (-1, 1) or (0, 1), got {value_range}."
            )
        for method in ("encode", "decode"):
            if not callable(getattr(model, method, None)):
                raise ValueError(
                    f"A tokenizer has the methods encode and decode, and {type(model).__name__} has no {method}. "
                    "Wrap it in a module that has."
                )
        self.model = model
        self.value_range = (float(low), float(high))
        self.image_size = image.shape[-1]
        with torch.no_grad():
            mean, _ = self.latent_moments(image)
            again, _ = self.latent_moments(image)
            self.shape, self.spec = described(self.title, mean)
            if mean.shape != again.shape or (mean - again).abs().max() > SAME * mean.abs().max():
                raise ValueError(
                    f"{self.title} encodes one image to two latents: it samples. Let encode return the distribution, "
                    "or its mean."
                )
            self.decode(self.to_tokens(mean).float())

    @property
    def title(self) -> str:
        """The name of the module's class."""
        return type(self.model).__name__

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The module's own encoder."""
        return self.part("encoder")

    @property
    def decoder(self) -> nn.Module:  # type: ignore[override]
        """The module's own decoder."""
        return self.part("decoder")

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        return self.spec

    def part(self, name: str) -> nn.Module:
        """A submodule of the module. Raises ValueError where there is none of this name."""
        found = getattr(self.model, name, None)
        if not isinstance(found, nn.Module):
            raise ValueError(f"{self.title} has no submodule {name}, which this measurement counts.")
        return found

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior of the images: a Gaussian where the module returns a distribution, else a point."""
        self.validate_images(images)
        mean, logvar = self.latent_moments(images)
        if mean.shape[1:] != self.raw_shape():
            raise ValueError(f"{self.title} encoded images of one size to latents of another shape: {mean.shape}.")
        return Posterior(self.to_tokens(mean), None if logvar is None else self.to_tokens(logvar))

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents. Raises ValueError for latents of another shape, and where no such images come out."""
        spec = self.validate_latents(z, grid)
        found = self.call("decode", spec.to_map(z).contiguous() if self.shape == "map" else z)
        images = next((value for key in IMAGES if isinstance(value := getattr(found, key, None), Tensor)), found)
        wanted = (len(z), 3, self.image_size, self.image_size)
        if not isinstance(images, Tensor) or tuple(images.shape) != wanted:
            got = tuple(images.shape) if isinstance(images, Tensor) else f"a {type(found).__name__}"
            raise ValueError(
                f"{self.title}.decode was given the latents of {len(z)} images and must return their images {wanted}, "
                f"got {got}."
            )
        self.refuse_cut_gradients("decode", z, images)
        low, high = self.value_range
        return images if (low, high) == (-1, 1) else (images - low) * (2 / (high - low)) - 1

    def latent_moments(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance as the module's `encode` has them."""
        low, high = self.value_range
        x = images if (low, high) == (-1, 1) else (images + 1) * ((high - low) / 2) + low
        mean, logvar = moments(self.title, self.call("encode", x))
        self.refuse_cut_gradients("encode", images, mean)
        return mean, logvar

    def call(self, method: str, x: Tensor) -> Any:
        """What a method of the module returns, in the weights' precision.

        What the module keeps for later calls may be trained with: nothing is computed in inference mode.
        """
        weights = next((value for value in self.model.parameters() if value.is_floating_point()), None)
        x = x if weights is None else x.to(weights.dtype)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                return getattr(self.model, method)(x.clone())
        return getattr(self.model, method)(x)

    def refuse_cut_gradients(self, method: str, x: Tensor, y: Tensor) -> None:
        """Raises ValueError where gradients are asked for and end within the module: they would be 0, silently."""
        if torch.is_grad_enabled() and x.requires_grad and not y.requires_grad:
            raise ValueError(
                f"{self.title}.{method} gives no gradients, and this measurement takes its derivative. Remove "
                "torch.no_grad or detach from it, or measure by another job."
            )

    def to_tokens(
        self,
        z: Tensor,  # as the module has it
    ) -> Tensor:  # (B, N, C)
        """The tokens of latents."""
        return self.spec.from_map(z) if self.shape == "map" else z

    def raw_shape(self) -> tuple[int, ...]:
        """The shape of one latent as the module has it."""
        spec = self.spec
        return (spec.channels, *(spec.grid or ())) if self.shape == "map" else (spec.num_tokens, spec.channels)

    def anchors(self) -> dict[str, nn.Parameter]:
        """Raises ValueError: it is measured here and not trained."""
        raise ValueError(f"{self.title} is measured, and its training is elsewhere: it has no anchors.")


def moments(name: str, found: Any) -> tuple[Tensor, Tensor | None]:
    """Mean and log-variance of what `encode` returned. Raises ValueError for no tensor and no distribution."""
    if isinstance(found, Tensor):
        return found, None
    if isinstance(found, Posterior):
        return found.mean, found.logvar
    for key in INNER:
        if getattr(found, key, None) is not None:
            return moments(name, getattr(found, key))
    for key in LATENTS:
        if isinstance(value := getattr(found, key, None), Tensor):
            return value, None
    mean = getattr(found, "mean", None)
    if isinstance(mean, Tensor):
        for key, log_variance in SPREADS.items():
            if isinstance(value := getattr(found, key, None), Tensor):
                return mean, log_variance(value).expand_as(mean)
    what = f"a {type(found).__name__} of {len(found)}" if isinstance(found, tuple | list) else type(found).__name__
    raise ValueError(f"{name}.encode returned {what}. {EXPECTED}")


def described(
    name: str,
    z: Tensor,  # of one image
) -> tuple[Shape, LatentSpec]:
    """What the axes of a latent are. Raises ValueError for another number of axes."""
    if z.ndim == 4 and len(z) == 1:
        channels, height, width = z.shape[1:]
        return "map", LatentSpec(height * width, channels, (height, width))
    if z.ndim == 3 and len(z) == 1:
        return "tokens", LatentSpec(z.shape[1], z.shape[2])
    raise ValueError(f"{name}.encode returned a latent {tuple(z.shape)} of one image. {EXPECTED}")
