"""Respacing: at equal distances, in sections, by an integer stride, and what is refused."""

import pytest

from ldbench.sampling.respacing import kept_indices


def test_a_number_keeps_so_many_with_both_ends():
    for count in (2, 10, 250, 999, 1000):
        indices = kept_indices(1000, str(count))
        assert (len(indices), indices[0], indices[-1]) == (count, 0, 999)
        assert indices == sorted(set(indices))
    assert kept_indices(1000, "1") == [0]


def test_sections_keep_their_own_numbers():
    indices = kept_indices(300, "10,15,20")
    assert [sum(low <= index < low + 100 for index in indices) for low in (0, 100, 200)] == [10, 15, 20]
    assert len(kept_indices(1000, "3,3,3")) == 9, "the first sections are longer if the timesteps do not divide"


def test_ddims_stride_is_an_integer():
    assert kept_indices(1000, "ddim50") == list(range(0, 1000, 20))
    assert kept_indices(1000, "ddim25") == list(range(0, 1000, 40))


@pytest.mark.parametrize("respacing", ["", "ten", "ddim", "250.5", "-3"])
def test_an_invalid_respacing_is_refused(respacing):
    with pytest.raises(ValueError, match="Unknown respacing"):
        kept_indices(1000, respacing)


def test_too_many_are_refused():
    with pytest.raises(ValueError, match="Choose 1 to 1000"):
        kept_indices(1000, "1001")
    with pytest.raises(ValueError, match="No integer stride leaves 999 of 1000"):
        kept_indices(1000, "ddim999")
