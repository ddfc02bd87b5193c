"""Records that were measured by several networks of one recipe are told by their numbers of real images."""

import dataclasses

import pytest
from tests.made_records import matrix

from ldbench.core.estimate import Estimate
from ldbench.results import html, markdown
from ldbench.results.extractor_differences import describe_extractor_differences
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.table import table_of

GENERATED = [record for record in matrix() if record.job == "generate"]


def measured(values: dict[str, float], index: int = 0):
    """A record whose real held-out images have these numbers."""
    record = GENERATED[index]
    heldout = {f"{name}_of_heldout": Estimate(value) for name, value in values.items()}
    return dataclasses.replace(record, metrics={**record.metrics, **heldout})


def test_equal_numbers_of_real_images_are_of_one_extractor():
    records = [measured({"gfd_digits": 0.3446}, index) for index in range(3)]
    assert describe_extractor_differences(records) is None
    assert describe_extractor_differences(GENERATED) is None
    assert describe_extractor_differences([]) is None


def test_rounding_of_another_processor_is_no_difference():
    pair = [measured({"gfd_digits": 0.3446}), measured({"gfd_digits": 0.34465}, 1)]
    assert describe_extractor_differences(pair) is None


def test_kernel_distances_of_real_images_are_noise_around_zero():
    assert describe_extractor_differences([measured({"kid": -1e-4}), measured({"kid": 2e-4}, 1)]) is None


def test_the_number_that_differs_most_is_named():
    pair = [measured({"gfd_digits": 0.0094, "recall_digits": 0.8912})]
    pair += [measured({"gfd_digits": 0.0098, "recall_digits": 0.8915}, 1)]
    sentence = describe_extractor_differences(pair)
    assert "real held-out images get gfd_digits from 0.009400 to 0.009800" in sentence


@pytest.mark.parametrize("differs", [True, False])
def test_it_stands_below_the_table_and_on_the_page(differs):
    values = [0.0094, 0.0098 if differs else 0.0094]
    records = [measured({"gfd_digits": values[index % 2]}, index) for index in range(len(GENERATED))]
    boards = [board for board in build_leaderboards(records) if board.generates]
    texts = [markdown.render([table_of(board) for board in boards], ""), html.render(boards, [], [], {}, "now")]
    assert [("Not one extractor" in text) for text in texts] == [differs, differs]
