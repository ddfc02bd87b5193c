"""Mask ratios: their bounds, means, steps, and refused settings."""

import pytest
import torch

from ldbench.training.mask_schedules import Constant, Linear, TruncatedNormal


def law(**changes) -> TruncatedNormal:
    return TruncatedNormal(**{"low": 0.4, "high": 0.6, "mean": 0.6, "std": 0.25, "per": "batch", **changes})


def test_a_truncated_normal_stays_between_its_ends_and_rises_to_its_mean():
    u = torch.linspace(0, 1, 101)
    ratios = law().quantile(u)
    assert ratios[0] == pytest.approx(0.4)
    assert ratios[-1] == pytest.approx(0.6)
    assert (ratios.diff() > 0).all()
    assert ratios[50] > 0.5  # more mass near its upper end


def test_it_draws_one_ratio_for_a_batch_or_one_for_each_image_from_the_seed():
    torch.manual_seed(3)
    first, many = law().draw(0, 4), law(per="image").draw(0, 4)
    torch.manual_seed(3)
    assert law().draw(0, 4) == first
    assert isinstance(first, float)
    assert many.shape == (4,)
    assert many.unique().numel() == 4
    torch.manual_seed(4)
    assert law().draw(0, 4) != first


def test_equal_ends_are_a_constant():
    """The official code ends in an error of scipy here, where the paper has a row of its table."""
    assert law(low=0.4, high=0.4).draw(0, 1) == pytest.approx(0.4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.05), (1.0, 0.05), (0.5, 0.02), (0.6, 0.02)])
def test_far_from_its_mean_it_keeps_to_the_nearer_end(mean, std):
    """As scipy.stats.truncnorm; both tails keep their digits."""
    from scipy.stats import truncnorm

    drawn = law(low=0.5, mean=mean, std=std).quantile(torch.tensor([0.1, 0.5, 0.9]))
    theirs = truncnorm((0.5 - mean) / std, (0.6 - mean) / std, loc=mean, scale=std).ppf([0.1, 0.5, 0.9])
    torch.testing.assert_close(drawn, torch.from_numpy(theirs), rtol=1e-7, atol=1e-7)
    assert (drawn[1] < 0.55) == (mean < 0.55)


def test_a_law_knows_its_largest_ratio():
    assert Constant(0.3).largest == 0.3
    assert law().largest == 0.6
    assert Linear(first=0.2, last=0.9, steps=3).largest == 0.9


def test_a_linear_law_goes_its_way_and_stays():
    ratio = Linear(first=0.6, last=0.0, steps=100)
    assert [ratio.draw(step, 1) for step in (0, 50, 100, 1000)] == pytest.approx([0.6, 0.3, 0.0, 0.0])


def test_ratios_out_of_range_are_refused():
    for make in (
        lambda: Constant(1.0),
        lambda: Constant(-0.1),
        lambda: Constant("half"),
        lambda: law(low=0.7),
        lambda: law(high=1.1),
        lambda: law(std=0.0),
        lambda: law(per="step"),
        lambda: law(mean=30.0, std=0.01),
        lambda: Linear(first=1.0, last=0.0, steps=5),
        lambda: Linear(first=0.5, last=0.0, steps=0),
    ):
        with pytest.raises(ValueError, match=r"mask|truncated|per|no mass between"):
            make()
