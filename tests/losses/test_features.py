"""Auxiliary decoders: which patches count, perfect predictions, and the positions of kept latents."""

import math

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.losses.features import DISTANCES, Classes, Features

START = {"modulation_start": "zero", "linear_std": 0.02, "token_std": 0.02}
IMAGES, Y = torch.zeros(2, 3, 8, 8), torch.tensor([1, 0])


class Fixed:
    """A teacher that always sees the same."""

    revision = 1

    def __init__(self, features):
        self.features = features

    def channels(self, image_size, grid):
        return self.features.shape[-1]

    def __call__(self, images, grid):
        assert grid == (2, 2)
        return self.features


def term(features=None, **changes) -> Features:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 5) if features is None else features
    keywords = {
        "weight": 1.0,
        "start": 0,
        "warmup": 0,
        "teacher": Fixed(features),
        "tokens": "masked",
        "distance": "mse",
    }
    keywords |= START
    keywords |= {
        "width": 8,
        "depth": 1,
        "num_heads": 2,
        "latent": LatentSpec(3, 6),
        "patch_grid": (2, 2),
        "image_size": 8,
    }
    return Features(**{**keywords, **changes})


def recon(z, mask=None, kept=None) -> Reconstruction:
    return Reconstruction(images=IMAGES, z=z, posterior=Posterior(z), mask=mask, patch_grid=(2, 2), kept=kept)


def test_masked_patches_count_alone_and_all_count_where_none_is_hidden():
    z = torch.randn(2, 3, 6)
    mask = torch.tensor([[True, False, False, True], [False, True, False, False]])
    masked, everywhere = term(), term(tokens="all")
    by_place = (masked.predict(recon(z)) - masked.teacher.features).square().mean(-1)
    torch.testing.assert_close(masked(IMAGES, recon(z, mask), Y), by_place[mask].mean())
    torch.testing.assert_close(masked(IMAGES, recon(z), Y), by_place.mean())
    torch.testing.assert_close(everywhere(IMAGES, recon(z, mask), Y), by_place.mean())


def test_distances_in_closed_form():
    a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[6.0, 8.0]]])
    assert DISTANCES["mse"](a, b).item() == pytest.approx(12.5)
    assert DISTANCES["negative_cosine"](a, b).item() == pytest.approx(-1.0)
    assert DISTANCES["negative_cosine"](a, torch.tensor([[[-4.0, 3.0]]])).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.trains
def test_a_decoder_learns_to_distinguish_images_by_their_latents():
    target, z = (
        torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)),
        torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(2)),
    )
    decoder = term(target)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = decoder(IMAGES, recon(z), Y)
        loss.backward()
        optimizer.step()
    mean = (target - target.mean(dim=(0, 1))).square().mean().item()
    assert loss.item() < 0.1 * mean


def test_visible_latents_are_read_where_they_were_kept():
    decoder = term()
    with torch.no_grad():
        for block in decoder.decoder.blocks:
            block.init_modulation("identity")
    z = torch.randn(2, 2, 6)
    first, second = (
        decoder.predict(recon(z, kept=torch.tensor(kept))) for kept in ([[0, 2], [1, 2]], [[1, 0], [1, 2]])
    )
    assert not torch.allclose(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_classes_score_the_cross_entropy():
    torch.manual_seed(0)
    classes = Classes(
        weight=1.0, start=0, warmup=0, width=8, depth=1, num_heads=2, **START, latent=LatentSpec(3, 6), num_classes=7
    )
    z = torch.randn(2, 3, 6)
    with torch.no_grad():
        classes.head.weight.zero_()
        classes.head.bias.zero_()
    assert classes.predict(recon(z)).shape == (2, 7)
    assert classes(IMAGES, recon(z), Y).item() == pytest.approx(math.log(7))


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="Choose masked or all"):
        term(tokens="hidden")
    with pytest.raises(ValueError, match="Choose mse or negative_cosine"):
        term(distance="cosine")


def test_the_best_constant_is_the_mean_target_or_how_often_classes_are():
    decoder = term()
    target = torch.randn(6, 4, 5)
    assert torch.equal(decoder.constant(target)[0], target.mean(0))
    classes = Classes(
        weight=1.0, start=0, warmup=0, width=8, depth=1, num_heads=2, **START, latent=LatentSpec(3, 6), num_classes=2
    )
    constant = classes.constant(torch.tensor([0, 0, 0, 1]))
    torch.testing.assert_close(constant.softmax(-1), torch.tensor([[0.75, 0.25]]))
