"""HOG against the official MAETok's targets: the same numbers, but for the few pixels whose orientation lies on the edge of two bins."""

import numpy as np
import pytest
from torch import Tensor

from ldbench.config import compose as config
from ldbench.teachers.hog import HOG

pytestmark = pytest.mark.parity

STRAYS = 0.0005  # of all elements, as the case allows


@pytest.fixture
def hog() -> HOG:
    return config.instantiate(config.options("teacher")["hog"])


def check_but_for_strays(case, output: str, actual: Tensor) -> None:
    """Fails unless all but the allowed strays are as close as the case says."""
    facts, bound = case.facts["outputs"][output], case.facts["tolerance"]["rel"]
    assert list(actual.shape) == facts["shape"]
    given = actual.numpy().ravel()[:: facts["stride"]] if facts["stored"] == "strided" else actual.numpy()
    errors = np.abs(given.astype(np.float64) - case.arrays[output]) / facts["scale"]
    far = float((errors > bound).mean())
    case.record_property(f"{case.name}/{output}", float(errors.max()))
    case.record_property(f"{case.name}/{output}/strays", far)
    assert far <= STRAYS, (
        f"{case.name}: {far:.2%} of {output} are further off than {bound:.0e} of its scale (worst {errors.max():.1e})"
    )


def test_the_targets_are_the_official_numbers(open_case, hog):
    case = open_case("maetok_hog")
    case.check("gaussian", hog.window)
    check_but_for_strays(case, "hog", hog(case.input("x"), (16, 16)))
    check_but_for_strays(case, "hog_smooth", hog(case.input("x_smooth"), (16, 16)))


def test_the_targets_of_the_official_training_module_are_the_same(open_case, hog):
    case = open_case("maetok_train_forward_masked")
    check_but_for_strays(case, "hog_target", hog(case.input("x"), (16, 16)))
