"""What is used from Python changes nothing of its caller's, and says what images it takes."""

from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import ldbench
from ldbench.artifacts import store
from ldbench.tokenizers.identity import Identity
from ldbench.tokenizers.maetok import MAETok
from ldbench.tokenizers.vavae import VAVAE
from ldbench.tokenizers.vmae import VMAE


@pytest.fixture(params=["vmae", "maetok", "vavae", "identity"])
def tokenizer(request: pytest.FixtureRequest) -> torch.nn.Module:
    cfg = ldbench.compose("train", [f"tokenizer={request.param}"])
    from ldbench.config.components import instantiate

    made = instantiate(cfg.tokenizer.model, image_size=32).eval()
    assert isinstance(made, (VMAE, MAETok, VAVAE, Identity))
    return made


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((1, 3, 32, 32), dtype=np.float32),
            r"as a torch tensor .* got a ndarray\. Convert it",
        ),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            r"got torch\.uint8\. Convert 8-bit images: images",
        ),
        (torch.full((1, 3, 32, 32), 200.0), r"got values up to 200\. Scale them: images / 127\.5 - 1 from 0 to 255"),
    ],
    ids=["numpy", "uint8", "0 to 255"],
)
def test_images_of_another_kind_are_refused_with_how_to_convert_them(tokenizer, images, message) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(images)


def test_doubles_are_refused_where_the_weights_are_floats(tokenizer) -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    if next(tokenizer.parameters(), None) is None:
        assert tokenizer.encode(images).mean.dtype == torch.float64
    else:
        with pytest.raises(ValueError, match=r"got torch\.float64, and its weights are torch\.float32: images\.float"):
            tokenizer.encode(images)


def test_training_takes_what_it_gets(tokenizer) -> None:
    tokenizer.train()
    tokenizer.encode(torch.full((2, 3, 32, 32), 100.0))


def test_composing_within_somebodys_application_leaves_it_its_hydra(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("x: 1\n")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        assert ldbench.compose("train", ["seed=3"]).seed == 3
        with pytest.raises(ValueError, match="There is no config key"):
            ldbench.compose("train", ["no_such_key=3"])
        assert GlobalHydra.instance().hydra is own
        assert hydra.compose("mine").x == 1


def test_loading_leaves_torchs_random_state(tmp_path: Path) -> None:
    keywords = {"image_size": 8, "patch_size": 4}
    blueprint = store.Blueprint("tokenizer", "identity", keywords)
    folder = tmp_path / "identity-0123"
    store.save(Identity(**keywords), folder, blueprint, recipe={}, digest="0123", provenance={"created": "today"})
    before = torch.random.get_rng_state()
    ldbench.load(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
