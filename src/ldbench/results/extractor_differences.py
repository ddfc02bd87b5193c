"""Whether records of one protocol were measured on the features of one network.

A protocol's hash covers the recipe of a feature network that is trained on first use, and machines that round
differently train other networks from it. Real held-out images show this: each network gives them numbers of its own.
"""

from collections import defaultdict
from collections.abc import Sequence

from ldbench.results.metric_names import reference_row
from ldbench.results.numbers import number
from ldbench.results.records import Record

HELDOUT = "held-out images"
TOLERANCE = 1e-3  # relative; one network on two processors differs by less
SMALLEST = 1e-3  # of numbers that are compared: kernel distances of real images are noise around 0


def describe_extractor_differences(records: Sequence[Record]) -> str | None:
    """A sentence where the numbers of real held-out images differ between records; None where they agree."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, estimate in record.metrics.items():
            row = reference_row(name)
            if row is not None and row[1] == HELDOUT and abs(estimate.value) > SMALLEST:
                values[row[0]].append(estimate.value)
    spreads = {name: (max(found) - min(found)) / max(map(abs, found)) for name, found in values.items()}
    if max(spreads.values(), default=0.0) <= TOLERANCE:
        return None
    name = max(spreads, key=lambda name: spreads[name])
    low, high = min(values[name]), max(values[name])
    return (
        f"Not one extractor: real held-out images get {name} from {number(low)} to {number(high)}, so these records "
        "were measured by networks that different machines trained from one recipe. Differences of several per cent "
        "between their models may come from that. Measure all with one artifacts/networks folder."
    )
