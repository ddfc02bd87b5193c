"""Posterior noise: normal, of its key alone, and unlike that of any other key."""

import pytest
import torch

from ldbench.data.latents.noise import noise_keys, posterior_noise, quantiles

ROWS = torch.arange(2000)


def drawn(
    rows: torch.Tensor = ROWS, *, seed: int = 0, step: int = 0, shape: tuple[int, ...] = (64, 32)
) -> torch.Tensor:
    return posterior_noise(noise_keys(rows, seed=seed, step=step), shape)


def test_it_is_normal() -> None:
    noise = drawn().double()
    count = noise.numel()  # 4 million: bounds of 5 deviations
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.square().mean() - 1) < 5 * (2 / count) ** 0.5
    assert abs(noise.pow(3).mean()) < 5 * (15 / count) ** 0.5
    assert abs(noise.pow(4).mean() - 3) < 5 * (96 / count) ** 0.5
    seen = torch.histc(torch.special.ndtr(noise).float(), 256, 0, 1)
    chi_square = ((seen - count / 256).square() / (count / 256)).sum()
    assert chi_square < 255 + 5 * (2 * 255) ** 0.5


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"step": 1}, {"rows": ROWS + 2000}, {"rows": ROWS + 1}, {"seed": 2**62}]
)
def test_another_seed_step_or_row_is_independent(other: dict) -> None:
    product = drawn() * drawn(**other)
    assert abs(product.double().mean()) < 5 / product.numel() ** 0.5


def test_seed_step_and_row_do_not_stand_for_each_other() -> None:
    keys = {
        (seed, step): noise_keys(torch.arange(50), seed=seed, step=step) for seed in range(20) for step in range(20)
    }
    assert len(torch.cat([*keys.values()]).unique(dim=0)) == 20 * 20 * 50


def test_neighbours_in_a_latent_and_in_a_batch_are_independent() -> None:
    noise = drawn().double()
    for a, b in (
        (noise[1:], noise[:-1]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[..., ::2], noise[..., 1::2]),
    ):
        assert abs((a * b).mean()) < 5 / a.numel() ** 0.5


def test_it_does_not_depend_on_the_batch() -> None:
    alone = torch.cat([drawn(ROWS[i : i + 1], step=7) for i in (5, 3)])
    assert torch.equal(drawn(ROWS[:9], step=7)[[5, 3]], alone)
    mixed = posterior_noise(noise_keys(torch.tensor([3, 3, 5]), seed=0, step=torch.tensor([7, 8, 7])), (64, 32))
    assert torch.equal(mixed[[2, 0]], alone)
    assert not torch.equal(mixed[0], mixed[1])


def test_an_odd_latent_gets_all_its_numbers() -> None:
    assert drawn(shape=(5, 3)).shape == (2000, 5, 3)
    assert torch.equal(drawn(shape=(5, 3)).flatten(1), drawn(shape=(16,))[:, :15])


def test_a_known_draw_stays_what_it_is() -> None:
    noise = drawn(torch.tensor([0, 1]), seed=3, step=5, shape=(4,))
    first, second = [-0.649284, -0.977198, 0.980286, -1.079408], [-0.670109, 0.502816, 0.903286, 1.204322]
    assert noise.flatten().tolist() == pytest.approx([*first, *second], abs=1e-6)


def test_levels_have_a_variance_of_one() -> None:
    assert quantiles("cpu").double().square().mean().item() == pytest.approx(1, abs=1e-7)
    assert quantiles("cpu").max().item() == pytest.approx(4.325, abs=1e-3)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_what_cannot_be_counted_is_refused(seed: int, step: int) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        noise_keys(ROWS, seed=seed, step=step)
