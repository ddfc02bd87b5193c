"""Equivariance: averages of patches commute with transforms that keep patches, and position-dependent encodings do
not.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ldbench.analysis.equivariance import TRANSFORMS, equivariance, rotate, scale, shift

PATCH = 4


def images(seed: int = 0) -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, PATCH)


def expand_like(maps: Tensor) -> Tensor:
    return maps.repeat_interleave(PATCH, dim=2).repeat_interleave(PATCH, dim=3)


ZERO = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("name", ["shift", "rotation"])
def test_averages_of_patches_transform_as_their_image(name: str) -> None:
    found = equivariance(mean, expand_like, images(), TRANSFORMS[name])
    torch.testing.assert_close(found.latent, ZERO)
    torch.testing.assert_close(found.pixels, ZERO)


def test_averages_of_a_ramp_scale_with_it() -> None:
    rows, columns = torch.meshgrid(*[torch.arange(16, dtype=torch.float64)] * 2, indexing="ij")
    ramps = torch.stack([0.3 * rows + columns, rows - 2 * columns, rows])[None].expand(3, -1, -1, -1)
    torch.testing.assert_close(equivariance(mean, expand_like, ramps, scale).latent, ZERO)


def test_a_position_dependent_latent_has_the_error_of_its_offset() -> None:
    offset = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)
    found = equivariance(lambda x: mean(x) + offset, lambda maps: expand_like(maps - offset), images(), shift)
    error = (offset - torch.roll(offset, (1, 1), dims=(2, 3))).square().mean().sqrt()
    torch.testing.assert_close(found.latent, error.expand(3))
    torch.testing.assert_close(found.pixels, error.expand(3))


def test_a_direction_inside_a_patch_does_not_turn_with_it() -> None:
    weights = torch.linspace(-1, 1, PATCH, dtype=torch.float64).expand(PATCH, PATCH)  # of columns

    def encode(x: Tensor) -> Tensor:
        return F.conv2d(x, weights.expand(3, 1, PATCH, PATCH), stride=PATCH, groups=3)

    assert (equivariance(encode, expand_like, images(), rotate).latent > 0.5).all()
    torch.testing.assert_close(equivariance(encode, expand_like, images(), shift).latent, ZERO)


def test_transforms_match_their_names() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[0, 0, 0, 3] = 1.0
    assert shift(x, 1)[0, 0, 1, 0] == 1.0
    assert rotate(x, 1)[0, 0, 0, 0] == 1.0
    x[0, 0, 1:3, 1:3] = 1.0
    assert scale(x, 1)[0, 0, 1:3, 1:3].eq(1.0).all()


def test_images_of_a_fractional_number_of_cells_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16\) px are not an integer number of cells of a \(3, 3\) grid"):
        equivariance(lambda x: x[:, :, :3, :3], expand_like, images(), shift)
