"""Anybody's module as a tokenizer: its latents are found, its values and devices converted, the unclear is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.pipeline.strangers import Flattened, Plain, Returning, seeded
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.pipeline.module_tokenizer import ModuleTokenizer

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def wrapped(module: nn.Module, value_range: tuple[float, float] = (-1.0, 1.0)) -> ModuleTokenizer:
    return ModuleTokenizer(module.eval(), IMAGES[:1], value_range=value_range)


def test_a_map_becomes_tokens_that_remember_their_grid_and_decode_to_the_same_images() -> None:
    module = seeded(Plain)
    tokenizer = wrapped(module)
    assert tokenizer.latent == LatentSpec(16, 4, (4, 4))
    with torch.no_grad():
        z = tokenizer.encode(IMAGES).mean
        assert torch.equal(z, module.encode(IMAGES).flatten(2).transpose(1, 2))
        assert torch.equal(tokenizer.decode(z), module.decode(module.encode(IMAGES)))


def test_tokens_stay_tokens_without_a_grid() -> None:
    module = seeded(Flattened)
    tokenizer = wrapped(module)
    assert tokenizer.latent == LatentSpec(16, 4)
    with torch.no_grad():
        z = tokenizer.encode(IMAGES).mean
        assert torch.equal(z, module.encode(IMAGES))
        assert torch.equal(tokenizer.decode(z), module.decode(z))


NORMAL = torch.distributions.Normal


@pytest.mark.parametrize(
    "output",
    [
        lambda z: SimpleNamespace(mean=z, logvar=0.1 * z),
        lambda z: SimpleNamespace(latent_dist=SimpleNamespace(mean=z, std=(0.05 * z).exp())),
        lambda z: NORMAL(z, (0.05 * z).exp()),
        lambda z: torch.distributions.Independent(NORMAL(z, (0.05 * z).exp()), 3),
        lambda z: SimpleNamespace(mean=z, variance=(0.1 * z).exp()),
        lambda z: Posterior(z, 0.1 * z),
    ],
    ids=["logvar", "latent_dist", "Normal", "Independent", "variance", "ours"],
)
def test_a_distribution_gives_mean_and_log_variance(output: Any) -> None:
    tokenizer = wrapped(seeded(lambda: Returning(output)))
    with torch.no_grad():
        posterior = tokenizer.encode(IMAGES)
        assert posterior.logvar is not None
        assert torch.allclose(posterior.logvar, 0.1 * posterior.mean, atol=1e-6)


def test_an_output_that_holds_latents_is_a_point() -> None:
    tokenizer = wrapped(seeded(lambda: Returning(lambda z: SimpleNamespace(latents=z, loss=0.0))))
    assert tokenizer.encode(IMAGES).logvar is None


class UnitRange(Plain):
    """Takes and gives images in [0, 1]."""

    def encode(self, x: Tensor) -> Any:
        assert 0 <= x.min() <= x.max() <= 1
        return super().encode(x * 2 - 1)

    def decode(self, z: Tensor) -> Any:
        return SimpleNamespace(sample=(super().decode(z) + 1) / 2)


def test_images_are_converted_to_the_range_of_the_module_and_back() -> None:
    plain, unit = wrapped(seeded(Plain)), wrapped(seeded(UnitRange), (0.0, 1.0))
    with torch.no_grad():
        assert torch.allclose(unit.encode(IMAGES).mean, plain.encode(IMAGES).mean, atol=1e-5)
        z = plain.encode(IMAGES).mean
        assert torch.allclose(unit.decode(z), plain.decode(z), atol=1e-5)


class Half(Plain):
    def encode(self, x: Tensor) -> Any:
        assert x.dtype == torch.bfloat16
        return self.encoder(x)


def test_a_module_of_other_precision_gets_images_and_latents_of_its_own() -> None:
    tokenizer = wrapped(seeded(Half).to(torch.bfloat16))
    assert tokenizer.decode(tokenizer.encode(IMAGES).mean.float()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (lambda z: (z, torch.zeros(()), {}), r"returned a tuple of 3\. Expected a tensor \(B, C, H, W\)"),
        (lambda z: z[0], r"returned a latent \(4, 4, 4\) of one image"),
        (lambda z: SimpleNamespace(mean=z), r"returned SimpleNamespace\. Expected"),
        (lambda z: z + torch.randn_like(z), "encodes one image to two latents: it samples"),
    ],
    ids=["a tuple", "no batch", "a mean alone", "a sample"],
)
def test_what_is_no_latent_is_refused(output: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrapped(seeded(lambda: Returning(output)))


class Halving(Plain):
    def decode(self, z: Tensor) -> Any:
        return super().decode(z)[:, :, ::2]


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Linear(2, 2), "has the methods encode and decode, and Linear has no encode"),
        (Halving(), r"must return their images \(1, 3, 32, 32\), got \(1, 3, 16, 32\)"),
    ],
)
def test_what_does_not_encode_and_decode_is_refused(module: nn.Module, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrapped(module)


class Cut(Plain):
    def encode(self, x: Tensor) -> Any:
        with torch.no_grad():
            return super().encode(x)


def test_a_derivative_through_a_module_without_gradients_is_refused_and_not_zero() -> None:
    tokenizer = wrapped(seeded(Cut))
    with pytest.raises(ValueError, match=r"Cut\.encode gives no gradients"):
        torch.func.vjp(lambda images: tokenizer.encode(images).mean, IMAGES)
    with pytest.raises(ValueError, match=r"Cut\.encode gives no gradients"):
        tokenizer.encode(IMAGES.clone().requires_grad_())
    assert tokenizer.encode(IMAGES).mean.isfinite().all()


def test_what_a_module_keeps_in_inference_mode_can_be_trained_with() -> None:
    module = seeded(Plain).eval()
    tokenizer = ModuleTokenizer(module, IMAGES[:1], value_range=(-1.0, 1.0))
    module.table = None
    with torch.inference_mode():
        tokenizer.encode(IMAGES)
    assert not module.table.is_inference()
