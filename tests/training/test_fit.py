"""What trainings share: which callbacks take part, and that the process is left as it was."""

import pytest
import torch

import ldbench
from ldbench.training import fit
from ldbench.training.callbacks import Auxiliaries, Checkpoint, Progress, Reconstructions
from ldbench.training.callbacks_samples import Samples


class Asking:
    """A callback that asks for what no training has."""

    def __init__(self, *, weather: str, every: int = 1):
        self.weather = weather


def test_callbacks_take_part_where_a_training_has_what_they_ask_for(tmp_path) -> None:
    nodes = ldbench.compose("train").callbacks
    images = {
        "folder": tmp_path,
        "stage": "pretrain",
        "data": ldbench.config.compose.instantiate(ldbench.compose("train").data),
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


def test_a_callback_that_asks_for_what_no_training_has_is_refused_unless_it_is_given(tmp_path) -> None:
    node = {"_target_": f"{__name__}.Asking"}
    with pytest.raises(
        ValueError, match=r"callbacks\.mine needs weather: give callbacks\.mine\.weather\. It is given: folder, stage"
    ):
        fit.build_callbacks({"mine": node}, {"folder": tmp_path})
    (made,) = fit.build_callbacks({"mine": {**node, "weather": "fair"}}, {"folder": tmp_path})
    assert made.weather == "fair"


def test_threads_and_kernels_are_afterwards_what_they_were() -> None:
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)  # an earlier training of this process may have left it on
    with fit.torch_threads(1):
        assert torch.get_num_threads() == 1
        torch.use_deterministic_algorithms(True)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
