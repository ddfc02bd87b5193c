"""What the official MAETok feeds to its foundation models: ImageNet's mean and deviation, whichever model it is."""

import pytest
from tests.parity.cases import each_case

from ldbench.teachers.foundation import Foundation

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("model", ["vit_small_patch16_224.dino", "test_vit.r160_in1k"])
@each_case("maetok_train_forward", only=("teacher_input",))
def test_the_legacy_normalization_is_the_official_one(case, model):
    timm = pytest.importorskip("timm")
    weights = timm.create_model(model, pretrained=False).state_dict()
    # both have patches of 16 px
    teacher = Foundation(architecture=model, weights=weights, normalization="legacy", patch_size=16, antialias=True)
    case.check("teacher_input", teacher.normalize(case.input("x")))
