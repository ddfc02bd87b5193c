"""Any autoencoder of diffusers as a tokenizer, with its own conventions of pixels, posteriors and shapes.

[0] Hugging Face, Diffusers, https://huggingface.co/docs/diffusers/api/models/overview
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from einops import rearrange
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Conventions:
    """How a class of diffusers takes images and gives latents."""

    factor: Callable[[Any], int]  # of its settings: pixels on the side of a latent position
    unit_range: bool = False  # whether images are in [0, 1], and not in [-1, 1]
    video: bool = False  # whether it takes and gives an axis of frames
    patch: int = 1  # side of the patches of positions that become one token
    any_size: bool = True  # whether it takes all image sizes that its factor divides


def levels_factor(settings: Any) -> int:
    """Two for each level after the first."""
    return 2 ** (len(settings.block_out_channels) - 1)


CLASSES = {
    "AutoencoderKL": Conventions(levels_factor),
    "AutoencoderDC": Conventions(lambda settings: 2 ** (len(settings.encoder_block_out_channels) - 1)),
    "AutoencoderTiny": Conventions(lambda settings: 2 ** (len(settings.encoder_block_out_channels) - 1)),
    "AutoencoderKLFlux2": Conventions(levels_factor, patch=2),
    "AutoencoderKLQwenImage": Conventions(lambda settings: 2 ** (len(settings.dim_mult) - 1), video=True),
    "AutoencoderKLHunyuanImage": Conventions(lambda settings: settings.spatial_compression_ratio),
    "AutoencoderRAE": Conventions(lambda settings: settings.patch_size, unit_range=True, any_size=False),
}


class DiffusersAutoencoder(Tokenizer):
    """An autoencoder of diffusers: `class_name`, one of `CLASSES`, with its `settings` (its config.json).

    `encode` returns latents as the class gives them, not multiplied by its scaling factor; FLUX.2's are patches of 2 x
    2 positions, and RAE's are normalized by the class itself. Raises ValueError for another class, for settings or an
    image size that it does not take, and without the extra `diffusers`.
    """

    def __init__(self, *, image_size: int, class_name: str, settings: Mapping[str, Any]):
        super().__init__()
        if class_name not in CLASSES:
            raise ValueError(
                f"{class_name!r:.80} is no autoencoder that tokenizer=diffusers takes. Known: {', '.join(CLASSES)}."
            )
        self._hold(build_empty(class_name, settings), image_size)

    @staticmethod
    def takes(model: nn.Module) -> bool:
        """Whether a module is of one of the classes that it knows."""
        return type(model).__name__ in CLASSES

    @classmethod
    def around(cls, model: nn.Module, *, image_size: int) -> "DiffusersAutoencoder":
        """The tokenizer of an autoencoder that exists, which is not copied. Raises ValueError as the constructor."""
        tokenizer = cls.__new__(cls)
        Tokenizer.__init__(tokenizer)
        tokenizer._hold(model, image_size)
        return tokenizer

    def _hold(self, model: Any, image_size: int) -> None:
        self.class_name = type(model).__name__
        self.conventions = CLASSES[self.class_name]
        self.model = model
        self.overflows_in_fp16 = bool(self.model.config.get("force_upcast", False))
        self.factor = self.conventions.factor(self.model.config) * self.conventions.patch
        self.channels = channels_of(self.model) * self.conventions.patch**2
        self.resize(image_size)

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The class's own encoder."""
        return cast(nn.Module, self.model.encoder)

    @property
    def decoder(self) -> nn.Module:  # type: ignore[override]
        """The class's own decoder."""
        return cast(nn.Module, self.model.decoder)

    @property
    def title(self) -> str:
        """The class of diffusers."""
        return self.class_name

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        side = self.image_size // self.factor
        return LatentSpec(num_tokens=side * side, channels=self.channels, grid=(side, side))

    def encode(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Posterior:
        """The posterior of the images: a Gaussian, or a point, as the class has it."""
        self.validate_images(images, factor=self.factor if self.conventions.any_size else None)
        x = (images + 1) / 2 if self.conventions.unit_range else images
        found = self.model.encode(x[:, :, None] if self.conventions.video else x)
        if hasattr(found, "latent_dist"):
            return Posterior(self.to_tokens(found.latent_dist.mean), self.to_tokens(found.latent_dist.logvar))
        return Posterior(self.to_tokens(found.latents if hasattr(found, "latents") else found.latent))

    def to_tokens(
        self,
        z: Tensor,  # (B, C, h, w), (B, C, 1, h, w), or (B, N, C)
    ) -> Tensor:  # (B, N, C)
        """The tokens of the class's own latents."""
        if z.ndim == 3:
            return z
        z = z[:, :, 0] if self.conventions.video else z
        patch = self.conventions.patch
        return rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)

    def decode(
        self,
        z: Tensor,  # (B, N, C)
        grid: tuple[int, int] | None = None,
    ) -> Tensor:  # (B, 3, H, W)
        """The images of latents. Raises ValueError for latents of another shape."""
        spec = self.validate_latents(z, grid, any_grid=self.conventions.any_size)
        patch = self.conventions.patch
        x = rearrange(spec.to_map(z), "b (c p q) h w -> b c (h p) (w q)", p=patch, q=patch).contiguous()
        if self.class_name == "AutoencoderRAE" and not self.model.config.reshape_to_2d:
            x = z
        images = self.model.decode(x[:, :, None] if self.conventions.video else x).sample
        images = images[:, :, 0] if self.conventions.video else images
        return images * 2 - 1 if self.conventions.unit_range else images

    def anchors(self) -> dict[str, nn.Parameter]:
        """The last weights of encoder and decoder with two dimensions or more."""
        return {
            name: [value for value in part.parameters() if value.ndim > 1][-1]
            for name, part in (("encoder", self.encoder), ("decoder", self.decoder))
        }

    def resize(self, image_size: int) -> None:
        """Changes the size of square images; nothing is rebuilt. Raises ValueError for one that the class lacks."""
        own = image_size if self.conventions.any_size else self.size_of(self.model.config)
        if image_size != own:
            raise ValueError(f"This {self.class_name} decodes images of {own} px, and image_size is {image_size}.")
        self.validate_factor(image_size, self.factor)
        self.image_size = image_size

    @staticmethod
    def size_of(settings: Mapping[str, Any]) -> int:
        """The only image size of an RAE, by its settings."""
        if settings.get("image_size") is not None:
            return int(settings["image_size"])
        side = settings.get("encoder_input_size", 224) // settings.get("encoder_patch_size", 14)
        return int(settings.get("patch_size", 16) * side)


def build_empty(class_name: str, settings: Mapping[str, Any]) -> Any:
    """An autoencoder of diffusers with random weights. Raises ValueError without the extra, and for other settings."""
    try:
        import diffusers

        return getattr(diffusers, class_name).from_config(dict(settings)).eval()
    except ImportError as error:
        raise ValueError(
            f"{class_name} is a class of diffusers, and the extra for it is missing: pip install 'ldbench[diffusers]'."
        ) from error
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"These settings build no {class_name}: {str(error).splitlines()[0].rstrip('.')}.") from error


def channels_of(model: Any) -> int:
    """The channels of a position of the class's own latents."""
    config = model.config
    for key in ("latent_channels", "z_dim", "encoder_hidden_size"):
        if key in config:
            return int(config[key])
    raise ValueError(f"{type(model).__name__} does not say how many channels its latents have.")
