"""Devices and precisions by name, with simulated hardware."""

import pytest
import torch

import ldbench
from ldbench.pipeline import pipeline
from ldbench.runtime.device import (
    PRECISIONS,
    compute_precision,
    disable_tf32,
    find_device,
    matmul_precision,
    validate_devices,
    validate_precision,
)


def machine(monkeypatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")]
)
def test_auto_is_the_best_device_that_is_here(monkeypatch, cuda, mps, best):
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert find_device("auto").type == best


@pytest.mark.parametrize("accelerator", ["cuda", "mps", "tpu", "gpu", ""])
def test_an_accelerator_that_is_not_here_is_refused_with_those_that_are(monkeypatch, accelerator):
    machine(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ValueError, match=rf"no accelerator '{accelerator}'.*auto or one of: cpu"):
        find_device(accelerator)


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_half_precision_is_refused_on_the_cpu_with_what_to_choose(monkeypatch, accelerator):
    machine(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ValueError, match=r"fp16 is for CUDA only, and this run is on cpu\. Choose bf16 or fp32"):
        validate_precision("fp16", accelerator)


def test_half_precision_is_refused_on_mps_and_taken_on_cuda(monkeypatch):
    machine(monkeypatch, cuda=True, mps=True)
    validate_precision("fp16", "auto")
    validate_precision("fp16", "cuda")
    with pytest.raises(ValueError, match="on mps"):
        validate_precision("fp16", "mps")
    with pytest.raises(ValueError, match="on cpu"):
        validate_precision("fp16", "cpu")
    validate_precision("tf32", "cuda")
    with pytest.raises(
        ValueError, match=r"job\.precision=tf32 is for CUDA only, and this run is on mps\. Choose bf16 or fp32"
    ):
        validate_precision("tf32", "mps", key="job.precision")


def test_more_processes_than_graphics_processors_are_refused_and_any_number_on_a_cpu(monkeypatch):
    machine(monkeypatch, cuda=True, mps=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    validate_devices("auto", 2)
    validate_devices("cpu", 64)
    with pytest.raises(
        ValueError,
        match=r"trainer\.devices=3 needs as many GPUs, and torch sees 2\. Set trainer\.devices=2\.",
    ):
        validate_devices("cuda", 3)


def test_float32_is_whole_unless_a_block_rounds_it_and_half_precisions_are_autocasts():
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    for asked, rounded in (("fp32", False), ("tf32", True), ("bf16", False)):
        with matmul_precision(asked):
            assert [flag.allow_tf32 for flag in flags] == [rounded, rounded]
    disable_tf32()
    with pytest.raises(RuntimeError, match="in the middle"), matmul_precision("tf32"):
        raise RuntimeError("in the middle")
    assert [flag.allow_tf32 for flag in flags] == [False, False]
    for asked, dtype in (
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ):
        with compute_precision(asked, "cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_cpu_takes_the_other_precisions(precision):
    validate_precision(precision, "cpu")


@pytest.mark.parametrize("precision", ["fp64", "16-mixed", "FP16", ""])
def test_an_unknown_precision_is_refused_with_the_known_ones(precision):
    with pytest.raises(ValueError, match=f"trainer.precision '{precision}'. Choose {', '.join(PRECISIONS)}"):
        validate_precision(precision, "cpu")


@pytest.mark.parametrize("word", ["latents.precision=tf32", "jobs.generate.precision=tf32"])
def test_a_precision_of_another_device_is_refused_before_a_tokenizer_is_trained(word, tmp_path):
    cfg = ldbench.compose("train", ["generator=sit", "trainer.accelerator=cpu", f"paths.root={tmp_path}", word])
    with pytest.raises(ValueError, match=rf"{word} is for CUDA only, and this run is on cpu"):
        pipeline.train(cfg)
    assert not list(tmp_path.iterdir())
