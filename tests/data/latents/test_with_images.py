"""Latents together with their images: the same rows, mirrored views, later epochs."""

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.with_images import LatentsWithImages
from ldbench.data.tensor_latents import TensorLatents

SPEC = LatentSpec(1, 1)


def latents(count: int) -> TensorLatents:
    return TensorLatents(
        torch.arange(float(count)).reshape(-1, 1, 1), torch.arange(count) % 2, latent=SPEC, num_classes=2
    )


class Images:
    """Five images that are brighter to the right."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return index + torch.tensor([0.0, 0.5]).expand(3, 2, 2), 0


def test_a_row_has_its_image_and_the_second_view_the_mirrored_one():
    items = LatentsWithImages(latents(10), Images())
    z, y, images = items.__getitems__([1, 6, 11, 16])  # images 1 and mirrored 1, in two epochs
    assert z.flatten().tolist() == [1, 6, 1, 6]
    assert y.tolist() == [1, 0, 1, 0]
    assert images[:, 0, 0].tolist() == [[1, 1.5], [1.5, 1], [1, 1.5], [1.5, 1]]
    assert (len(items), items.ahead) == (10, 0)


def test_held_on_a_device_it_gives_the_same():
    items = LatentsWithImages(latents(5), Images())
    for here, there in zip(items.__getitems__([3, 4]), items.resident(torch.device("cpu")).__getitems__([3, 4])):
        assert torch.equal(here, there)


@pytest.mark.parametrize("count", [4, 7, 15])
def test_latents_of_other_images_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} latents are not of 5 images"):
        LatentsWithImages(latents(count), Images())
