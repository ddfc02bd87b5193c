"""The fit of a training: its callbacks, and the restored settings of the process."""

import pytest
import torch

import ldbench
from ldbench.config.components import instantiate
from ldbench.training import fit
from ldbench.training.callbacks import Auxiliaries, Checkpoint, Reconstructions
from ldbench.training.callbacks_progress import Progress
from ldbench.training.callbacks_samples import Samples


class Requiring:
    """A callback that requires an input that no training has."""

    def __init__(self, *, weather: str, every: int = 1):
        self.weather = weather


def test_callbacks_are_built_where_a_training_has_the_inputs_that_they_require(tmp_path) -> None:
    nodes = ldbench.compose("train").callbacks
    images = {
        "folder": tmp_path,
        "stage": "pretrain",
        "data": instantiate(ldbench.compose("train").data),
    }
    latents = {"folder": tmp_path, "stage": "generator"} | dict.fromkeys(
        ("sampler", "guidance", "noise_of", "picture_of"), print
    )
    assert {type(each) for each in fit.build_callbacks(nodes, images)} == {
        Checkpoint,
        Reconstructions,
        Auxiliaries,
        Progress,
    }
    assert {type(each) for each in fit.build_callbacks(nodes, latents)} == {Checkpoint, Samples, Progress}


def test_a_callback_that_requires_an_unknown_input_is_refused_unless_it_is_set(tmp_path) -> None:
    node = {"_target_": f"{__name__}.Requiring"}
    with pytest.raises(
        ValueError,
        match=r"callbacks\.mine requires weather: set callbacks\.mine\.weather\. It can receive: folder, stage",
    ):
        fit.build_callbacks({"mine": node}, {"folder": tmp_path})
    (callback,) = fit.build_callbacks({"mine": {**node, "weather": "fair"}}, {"folder": tmp_path})
    assert callback.weather == "fair"


def test_threads_and_kernels_are_afterwards_what_they_were() -> None:
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)  # an earlier training of this process may have left it on
    with fit.torch_threads(1):
        assert torch.get_num_threads() == 1
        torch.use_deterministic_algorithms(True)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
