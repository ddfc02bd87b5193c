"""Latents in memory: statistics over the whole set; mismatched tensors are refused."""

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.data import tensor_latents
from ldbench.data.tensor_latents import TensorLatents

LATENT = LatentSpec(6, 3)
Z = torch.tensor([1000.0, 0.0, -5.0]) + torch.tensor([0.1, 2.0, 30.0]) * torch.randn(
    50, 6, 3, generator=torch.Generator().manual_seed(0)
)
Y = torch.arange(50) % 4


def test_statistics_are_float64_over_the_whole_set_for_any_chunk_size(monkeypatch):
    whole = TensorLatents(Z, Y, latent=LATENT, num_classes=4)
    assert whole.mean.dtype == whole.std.dtype == torch.float64
    torch.testing.assert_close(whole.mean, Z.double().mean(dim=(0, 1)), rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.std, Z.double().flatten(0, 1).std(dim=0), rtol=1e-12, atol=0)
    monkeypatch.setattr(tensor_latents, "CHUNK", 7)
    parts = TensorLatents(Z, Y, latent=LATENT, num_classes=4)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.std, whole.std, rtol=1e-12, atol=0)


def test_a_batch_is_read_at_once_and_indices_wrap_around():
    latents = TensorLatents(Z, Y, latent=LATENT, num_classes=4)
    z, y = latents.__getitems__([3, 53, 49])
    assert torch.equal(z, Z[[3, 3, 49]])
    assert torch.equal(y, Y[[3, 3, 49]])
    assert len(latents) == 50


def test_its_fingerprint_covers_latents_labels_and_shape_and_nothing_else():
    settings = {"latent": LATENT, "num_classes": 4}
    first = TensorLatents(Z, Y, **settings).fingerprint
    assert TensorLatents(Z.clone(), Y.clone(), **settings).fingerprint == first
    moved, relabelled = Z.clone(), Y.clone()
    moved[0, 0, 0] += 1e-3
    relabelled[0] = 1
    others = [
        TensorLatents(moved, Y, **settings),
        TensorLatents(Z, relabelled, **settings),
        TensorLatents(Z, Y, latent=LATENT, num_classes=5),
    ]
    others.append(TensorLatents(Z, Y, latent=LatentSpec(6, 3, (2, 3)), num_classes=4))
    assert len({first, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("z", "y", "message"),
    [
        (Z[:, 1:], Y, r"Expected latents \(n, 6, 3\)"),
        (Z, Y[1:], r"as many labels \(n,\), got \(50, 6, 3\) and \(49,\)"),
        (Z[:1], Y[:1], "at least 2 latents, got 1"),
        (Z / 0, Y, "not finite"),
        (Z, Y + 1, "Labels must be 0 to 3 for 4 classes, got 1 to 4"),
    ],
)
def test_mismatched_tensors_are_refused(z, y, message):
    with pytest.raises(ValueError, match=message):
        TensorLatents(z, y, latent=LATENT, num_classes=4)
