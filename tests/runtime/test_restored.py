"""What a measurement changes is undone: settings, random streams, and a module's modes, flags and tensors."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ldbench.runtime.process_group import acting_alone, process_info
from ldbench.runtime.restored import restored_globals, restored_module


def state() -> list[object]:
    return [
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        list(warnings.filters),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_settings_and_random_streams_are_as_before(fails: bool) -> None:
    with torch.no_grad(), torch.autocast("cpu"):
        before = state()
        try:
            with restored_globals():
                assert torch.is_grad_enabled()
                assert not torch.is_autocast_enabled("cpu")
                torch.set_num_threads(torch.get_num_threads() + 1)
                torch.set_default_dtype(torch.float64)
                torch.backends.cuda.matmul.allow_tf32 = not torch.backends.cuda.matmul.allow_tf32
                torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
                torch.rand(1), random.random(), np.random.rand()
                warnings.simplefilter("ignore")
                if fails:
                    raise RuntimeError("in the middle")
        except RuntimeError:
            assert fails
        assert state() == before


def test_in_inference_mode_gradients_can_be_taken_within() -> None:
    with torch.inference_mode(), restored_globals():
        x = torch.ones(1, requires_grad=True)
        (x * 2).backward()
        assert x.grad == 2


def test_a_module_is_what_it_was_with_the_same_tensors() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    module[2].eval()
    module[0].bias.requires_grad_(False)
    module(torch.rand(3, 2)).sum().backward()
    held = [*module.parameters(), *module.buffers()]
    values = [tensor.clone() for tensor in held]
    gradients = [p.grad for p in module.parameters()]
    with restored_module(module):
        module.eval().requires_grad_(False)
        module.double()
        module.to("meta")
    assert [m.training for m in module.modules()] == [True, True, True, False]
    assert [p.requires_grad for p in module.parameters()] == [True, False, True, True]
    now = [*module.parameters(), *module.buffers()]
    assert all(a is b for a, b in zip(held, now, strict=True))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(values, now, strict=True))
    assert all(a is b for a, b in zip(gradients, (p.grad for p in module.parameters()), strict=True))


def test_buffers_have_their_values_again() -> None:
    module = nn.BatchNorm1d(2)
    before = module.running_mean.clone()
    with restored_module(module):
        module(torch.rand(3, 2))
        assert not torch.equal(module.running_mean, before)
    assert torch.equal(module.running_mean, before)
    assert module.num_batches_tracked == 0


def test_within_another_programs_ranks_a_process_acts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (process_info().rank, process_info().world) == (1, 2)
    with acting_alone():
        assert (process_info().rank, process_info().world) == (0, 1)
    assert process_info().world == 2
