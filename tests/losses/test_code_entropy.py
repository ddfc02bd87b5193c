"""The entropy of a codebook's use over a batch that two processes share is that of the whole batch."""

import subprocess
import sys
from pathlib import Path

import torch

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Quantization, Reconstruction
from ldbench.losses.codebook import CodeEntropy

CODE = """
import sys
from pathlib import Path
import torch
from torch import distributed
from ldbench.core.distributed import data_parallel
from tests.losses.test_code_entropy import term_of

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
logits = torch.load(folder / "logits.pt")[rank::2].requires_grad_()
with data_parallel(rank, 2):
    term = term_of(logits)
    term.backward()
torch.save((term.detach(), logits.grad), folder / f"{rank}.pt")
distributed.destroy_process_group()
"""


def term_of(logits: torch.Tensor) -> torch.Tensor:
    """The term of logits (B, N, K)."""
    z = torch.zeros(*logits.shape[:2], 3)
    quantization = Quantization(latents=z, logits=logits)
    recon = Reconstruction(torch.zeros(len(z), 3, 4, 4), z, Posterior(z), None, quantization=quantization)
    term = CodeEntropy(weight=1.0, start=0, warmup=0, temperature=0.5, epsilon=1e-6)
    return term(recon.images, recon, torch.zeros(len(z)))


def test_two_processes_give_the_value_and_the_gradient_of_one(tmp_path: Path) -> None:
    logits = torch.randn(6, 4, 5)
    torch.save(logits, tmp_path / "logits.pt")
    root = Path(__file__).parents[2]
    ranks = [
        subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path), str(rank)], cwd=root, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in ranks:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
    whole = logits.clone().requires_grad_()
    expected = term_of(whole)
    expected.backward()
    assert whole.grad is not None
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(sum(value for value, _ in parts) / 2, expected.detach())
    for rank, (_, gradient) in enumerate(parts):  # the trainer averages the gradients of the processes
        torch.testing.assert_close(gradient / 2, whole.grad[rank::2])
