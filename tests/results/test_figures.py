"""Pictures of latents that nothing decodes."""

import pytest
import torch

from ldbench.results import figures


@pytest.mark.parametrize("shape", [(16, 1, 2), (16, 4, 2), (6, 4, 3)])
def test_latents_are_a_picture(shape) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    picture = figures.latents(z)
    assert picture.dtype == torch.uint8
    assert picture.ndim == 3
    assert picture.shape[0] == 3
    assert not torch.equal(picture, figures.latents(z.square()))
    assert len(picture.flatten(1).unique(dim=1).T) > 10
