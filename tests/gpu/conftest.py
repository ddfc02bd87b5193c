"""What is tried on a graphics processor: `make test-gpu`. Other runs leave it out; skipped where torch sees none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ldbench.runtime.device import matmul_precision

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks and skips."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="needs a CUDA device: make test-gpu on a machine that has one"
                )
            )


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Float32 is whole, as for every command; afterwards other kernels than deterministic ones are allowed again."""
    with matmul_precision("fp32"):
        yield
    torch.use_deterministic_algorithms(False)
