"""Work split over processes: every item once, whatever their number, and an error of one is raised.

The slow tests start processes; the tests of jobs fork theirs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldbench.runtime.workers import run_parallel, split_evenly

CPU = torch.device("cpu")


@given(count=st.integers(0, 40), num_processes=st.integers(1, 12))
def test_shares_are_the_items_in_order_and_of_almost_equal_size(count: int, num_processes: int) -> None:
    shares = split_evenly(range(count), num_processes)
    assert [item for share in shares for item in share] == list(range(count))
    assert len(shares) == max(1, min(num_processes, count))
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


class Write:
    """Writes a file for each number with the threads of its process, and raises at the number 3."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, share: Sequence[int], *, device: torch.device, advance: Callable[[int], None]) -> None:
        for number in share:
            if number == 3:
                raise ValueError("There is no 3.")
            (self.folder / str(number)).write_text(f"{torch.get_num_threads()} {device}")
            advance(number)


@pytest.mark.slow
def test_each_share_is_processed_with_as_many_threads_and_its_progress_reported(tmp_path: Path) -> None:
    advanced: list[int] = []
    torch.set_num_threads(2)
    run_parallel(Write(tmp_path), [[1, 2], [4]], device=CPU, advance=advanced.append)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("124", "2 cpu")
    assert sorted(advanced) == [1, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("beside", [[], [[4]]])
def test_an_error_of_one_process_is_raised_and_finished_work_is_kept(tmp_path: Path, beside: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"There is no 3\."):
        run_parallel(Write(tmp_path), [[1, 3, 2], *beside], device=CPU, advance=lambda _: None)
    assert (tmp_path / "1").exists()
    assert not (tmp_path / "2").exists()
