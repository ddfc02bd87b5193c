"""The base of loss terms holds the schedule and refuses what makes no sense."""

import pytest
from torch import nn

from ldbench.core.interfaces import Balanced
from ldbench.losses.base_term import BalancedTerm, BaseTerm

SCHEDULE = {"weight": 0.5, "start": 10, "warmup": 3}
BALANCE = {"balancing": "decoder", "largest_balance": 1e4}


def test_a_term_is_a_module_with_its_schedule():
    term = BaseTerm(**SCHEDULE)
    assert isinstance(term, nn.Module)
    assert {name: getattr(term, name) for name in SCHEDULE} == SCHEDULE
    assert not isinstance(term, Balanced)
    assert not term.state_dict()


def test_a_balanced_term_also_has_its_anchor_and_limit():
    term = BalancedTerm(**SCHEDULE, **BALANCE)
    assert isinstance(term, Balanced)
    assert {name: getattr(term, name) for name in SCHEDULE | BALANCE} == SCHEDULE | BALANCE


@pytest.mark.parametrize("name", ["weight", "start", "warmup", "largest_balance"])
def test_a_negative_number_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name} must not be negative, got -1"):
        BalancedTerm(**(SCHEDULE | BALANCE | {name: -1}))


def test_an_unknown_balancing_is_refused():
    with pytest.raises(ValueError, match=r"Unknown balancing 'both'\. Choose one of none, encoder, decoder\."):
        BalancedTerm(**(SCHEDULE | BALANCE | {"balancing": "both"}))
