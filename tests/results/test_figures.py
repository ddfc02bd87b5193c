"""Curves from logs, whatever they were broken off in; pictures of latents that nothing decodes."""

from pathlib import Path

import pytest
import torch

from ldbench.results import figures


@pytest.mark.parametrize("shape", [(16, 1, 2), (16, 4, 2), (6, 4, 3)])
def test_latents_are_a_picture(shape) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    picture = figures.latents(z)
    assert picture.dtype == torch.uint8
    assert picture.ndim == 3
    assert picture.shape[0] == 3
    assert not torch.equal(picture, figures.latents(z.square()))
    assert len(picture.flatten(1).unique(dim=1).T) > 10


@pytest.mark.parametrize("cut", range(38))
def test_a_log_that_was_cut_short_tells_its_whole_lines(cut: int, tmp_path: Path) -> None:
    whole = b"step,train/loss\r\n1,0.5\r\n12,1.25e-05\r\n"
    (tmp_path / "metrics.csv").write_bytes(whole[:cut])
    logs = figures.read_logs([tmp_path / "metrics.csv"])
    assert logs == (
        {} if cut < 24 else {"train/loss": {1: 0.5}} if cut < len(whole) else {"train/loss": {1: 0.5, 12: 1.25e-05}}
    )
