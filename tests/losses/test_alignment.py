"""Alignment: closed forms, margins, memory-bounded distances, kept positions, latents without a grid, and either
projection.
"""

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.losses import alignment
from ldbench.losses.alignment import Alignment, marginal_cosine, marginal_distance

IMAGES, Y = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])


class Fixed:
    """A teacher that always sees the same."""

    def __init__(self, features):
        self.features = features

    def channels(self, image_size, grid):
        return self.features.shape[-1]

    def __call__(self, images, grid):
        return self.features


def term(features, **changes) -> Alignment:
    torch.manual_seed(0)
    numbers = {
        "weight": 1.0,
        "start": 0,
        "warmup": 0,
        "cosine_weight": 1.0,
        "cosine_margin": 0.0,
        "distance_weight": 1.0,
        "distance_margin": 0.0,
    }
    choices = {
        "distances_of": "projected",
        "projection": "latent_to_teacher",
        "projection_frozen": False,
        "balancing": "none",
        "largest_balance": 1e8,
    }
    choices |= {"teaches": "tokenizer"}
    facts = {
        "latent": LatentSpec(4, 3, (2, 2)),
        "patch_grid": (2, 2),
        "image_size": 8,
        "reader_width": 8,
        "reader_depth": 1,
        "reader_num_heads": 2,
    }
    return Alignment(**{**numbers, **choices, **facts, "teacher": Fixed(features), **changes})


def recon(z, kept=None) -> Reconstruction:
    return Reconstruction(images=IMAGES, z=z, posterior=Posterior(z), patch_grid=(2, 2), kept=kept)


def test_the_same_directions_cost_nothing_and_opposite_ones_two():
    f = torch.randn(2, 4, 5)
    assert marginal_cosine(3 * f, f, margin=0.0).item() == pytest.approx(0, abs=1e-6)
    assert marginal_cosine(-f, f, margin=0.0).item() == pytest.approx(2, abs=1e-6)
    assert marginal_cosine(-f, f, margin=0.5).item() == pytest.approx(1.5, abs=1e-6)


def test_distances_see_relations_and_not_directions():
    f = torch.randn(2, 4, 5)
    turned = f @ torch.linalg.qr(torch.randn(5, 5)).Q
    assert marginal_distance(turned, f, margin=0.0).item() == pytest.approx(0, abs=1e-6)
    z = torch.eye(2)[None]  # cosines 1, 0, 0, 1 against 1, 1, 1, 1
    assert marginal_distance(z, torch.ones(1, 2, 3), margin=0.0).item() == pytest.approx(0.5)
    assert marginal_distance(z, torch.ones(1, 2, 3), margin=0.25).item() == pytest.approx(0.375)


def test_a_large_matrix_in_parts_is_the_whole_one_in_value_and_gradient(monkeypatch):
    z, f = torch.randn(2, 7, 3), torch.randn(2, 7, 5)
    found = []
    for entries in (2**24, 2 * 7 * 3, 1):  # all rows at once, three, one
        monkeypatch.setattr(alignment, "ENTRIES", entries)
        leaf = z.clone().requires_grad_()
        value = marginal_distance(leaf, f, margin=0.1)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_term_is_its_two_parts_by_weight():
    z, f = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    whole = term(f, cosine_weight=2.0, distance_weight=3.0, cosine_margin=0.1, distance_margin=0.2)
    projected = whole.to_teacher(z)
    expected = 2 * marginal_cosine(projected, f, margin=0.1) + 3 * marginal_distance(projected, f, margin=0.2)
    torch.testing.assert_close(whole(IMAGES, recon(z), Y), expected)
    unprojected = term(f, distances_of="latent", cosine_weight=0.0)
    torch.testing.assert_close(unprojected(IMAGES, recon(z), Y), marginal_distance(z, f, margin=0.0))


def test_either_side_may_be_projected_and_the_map_may_stay_as_it_starts():
    f = torch.randn(2, 4, 5)
    assert term(f).to_teacher.weight.shape == (5, 3)
    assert term(f).to_teacher.bias is None
    assert term(f, projection="teacher_to_latent").to_latent.weight.shape == (3, 5)
    assert not any(p.requires_grad for p in term(f, projection_frozen=True).parameters())


def test_kept_latents_are_compared_with_the_features_at_their_own_positions():
    z, f, kept = torch.randn(2, 2, 3), torch.randn(2, 4, 5), torch.tensor([[3, 0], [1, 2]])
    whole = term(f)
    expected = marginal_cosine(whole.to_teacher(z), f.gather(1, kept[..., None].expand(-1, -1, 5)), margin=0.0)
    cosines = term(f, distance_weight=0.0)
    torch.testing.assert_close(cosines(IMAGES, recon(z, kept), Y), expected)


def test_latents_without_a_grid_are_read_at_the_patches():
    f = torch.randn(2, 4, 5)
    reader = term(f, latent=LatentSpec(6, 3))
    value = reader(IMAGES, recon(torch.randn(2, 6, 3)), Y)
    value.backward()
    assert torch.isfinite(value)
    assert reader.reader.from_latent.weight.grad.abs().sum() > 0


def test_unknown_choices_and_negative_numbers_are_refused():
    f = torch.randn(2, 4, 5)
    for changes, message in (
        ({"projection": "both"}, "Choose latent_to_teacher or teacher_to_latent"),
        ({"distances_of": "z"}, "Choose projected or latent"),
        ({"balancing": "all"}, "Choose one of none, encoder, decoder"),
        ({"cosine_margin": -0.1}, "cosine_margin must not be negative"),
        ({"teaches": "both"}, "Choose tokenizer or projection"),
        ({"teaches": "projection", "projection_frozen": True}, "leaves nothing that learns"),
        ({"cosine_weight": 0.0, "distance_weight": 0.0}, "measures nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            term(f, **changes)


@pytest.mark.parametrize("latent", [LatentSpec(4, 3, (2, 2)), LatentSpec(4, 3)])
def test_a_projection_that_is_trained_alone_leaves_the_latent_unchanged(latent):
    frozen_latent = term(torch.randn(2, 4, 5), teaches="projection", balancing="encoder", latent=latent)
    assert frozen_latent.balancing == "none"
    z = torch.randn(2, 4, 3, requires_grad=True)
    frozen_latent(IMAGES, recon(z), Y).backward()
    assert z.grad is None
    assert frozen_latent.to_teacher.weight.grad.abs().sum() > 0


def test_held_out_errors_are_one_minus_the_cosine_at_the_kept_positions():
    f, z, kept = torch.randn(2, 4, 5), torch.randn(2, 2, 3), torch.tensor([[3, 0], [1, 2]])
    cosines = term(f, distance_weight=0.0)
    dropped = recon(z, kept)
    errors = cosines.errors(cosines.predict(dropped), cosines.targets(IMAGES, Y))
    assert errors.shape == (2, 4)
    torch.testing.assert_close(cosines.average(errors, dropped), cosines(IMAGES, dropped, Y))
    whole = recon(torch.randn(2, 4, 3))
    errors = cosines.errors(cosines.predict(whole), cosines.targets(IMAGES, Y))
    torch.testing.assert_close(cosines.average(errors, whole), cosines(IMAGES, whole, Y))


def test_no_direction_beats_the_constant_that_sees_no_image():
    f = torch.randn(64, 4, 5) + torch.randn(1, 4, 5)
    cosines = term(f)
    best = cosines.errors(cosines.constant(f).expand_as(f), f).mean()
    for _ in range(20):
        other = (cosines.constant(f) + 0.1 * torch.randn(1, 4, 5)).expand_as(f)
        assert cosines.errors(other, f).mean() >= best


SEQUENCE = LatentSpec(2, 3)


def without_grid(features, **changes) -> Alignment:
    """The term of two tokens without a grid, at four patches."""
    plain = {"latent": SEQUENCE, "distance_weight": 0.0, "projection": "mlp", "projection_width": 8}
    return term(features, **plain, **changes)


def test_three_layers_map_the_latent():
    found = without_grid(torch.randn(2, 4, 5), reading="repeat").to_teacher
    shapes = [tuple(layer.weight.shape) for layer in found if hasattr(layer, "weight")]
    assert shapes == [(8, 3), (8, 8), (5, 8)]
    assert [type(layer).__name__ for layer in found] == ["Projection", "SiLU", "Projection", "SiLU", "Projection"]


@pytest.mark.parametrize("reading", ["repeat", "global", "avg_1d"])
def test_latents_without_a_grid_are_compared_by_hand(reading):
    features, z = torch.randn(2, 4, 5), torch.randn(2, 2, 3)
    found = without_grid(features, reading=reading)
    if reading == "repeat":  # a token stands for two consecutive patches
        ours, theirs = found.to_teacher(z)[:, [0, 0, 1, 1]], features
    elif reading == "global":
        ours, theirs = found.to_teacher(z.mean(1, keepdim=True)), features.mean(1, keepdim=True)
    else:
        ours = found.to_teacher(z)
        theirs = torch.stack([features[:, :2].mean(1), features[:, 2:].mean(1)], dim=1)
    cosines = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    torch.testing.assert_close(found(IMAGES, recon(z), Y), 1 - cosines.mean())
    errors = found.errors(found.predict(recon(z)), found.targets(IMAGES, Y))
    torch.testing.assert_close(found.average(errors, recon(z)), 1 - cosines.mean())


def test_shuffled_patches_are_permuted_for_all_images_and_in_one_order_outside_of_training():
    features = torch.randn(2, 4, 5)
    found = without_grid(features, reading="avg_1d_shuffle")
    pairs = {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    seen = set()
    for _ in range(40):
        pooled = found.targets(IMAGES, Y)
        (pair,) = [
            (i, j) for i, j in pairs if torch.allclose(pooled[:, 0], (features[:, i] + features[:, j]) / 2, atol=1e-6)
        ]
        seen.add(pair)
    assert len(seen) > 1
    found.eval()
    assert torch.equal(found.targets(IMAGES, Y), found.targets(IMAGES, Y))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reading": "repeat"}, "reading=repeat is of latents without a grid"),
        ({"reading": "repeat", "latent": LatentSpec(3, 3)}, "the 3 tokens for as many of the 4 patches"),
        ({"reading": "twice"}, "Unknown reading 'twice'"),
    ],
)
def test_readings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        term(torch.randn(2, 4, 5), **changes)
