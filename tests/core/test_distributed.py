"""Random draws for a split batch: the rows of the whole, and the plain call with one process."""

import torch

from ldbench.core.distributed import (
    data_parallel,
    draw_for_global_batch,
    global_mean,
    mean_over_ranks,
    normal_like,
    rank_info,
    sum_over_ranks,
)


def drawn(rank: int, world: int) -> torch.Tensor:
    torch.manual_seed(0)
    with data_parallel(rank, world):
        return draw_for_global_batch(lambda count: torch.rand(count, 3), 8 // world)


def test_processes_draw_the_rows_of_their_images() -> None:
    whole = drawn(0, 1)
    torch.manual_seed(0)
    assert torch.equal(whole, torch.rand(8, 3))
    for rank in range(4):
        assert torch.equal(drawn(rank, 4), whole[rank::4])


def test_images_may_lie_along_another_axis() -> None:
    torch.manual_seed(0)
    whole = torch.rand(2, 6)
    torch.manual_seed(0)
    with data_parallel(1, 3):
        assert torch.equal(draw_for_global_batch(lambda count: torch.rand(2, count), 2, dim=1), whole[:, 1::3])


def test_draws_after_one_another_stay_in_step() -> None:
    streams = []
    for rank in range(2):
        torch.manual_seed(0)
        with data_parallel(rank, 2):
            normal_like(torch.empty(4, 3))
            streams.append(torch.rand(()))
    assert streams[0] == streams[1]


def test_normals_are_those_of_one_process() -> None:
    torch.manual_seed(0)
    whole = torch.randn_like(torch.empty(6, 2, 3))
    torch.manual_seed(0)
    with data_parallel(1, 2):
        assert torch.equal(normal_like(torch.empty(3, 2, 3)), whole[1::2])


def test_sharing_ends_with_its_block_whatever_happens() -> None:
    try:
        with data_parallel(1, 2):
            raise RuntimeError
    except RuntimeError:
        assert rank_info().world == 1


def test_one_process_averages_nothing() -> None:
    x = torch.rand(5)
    assert mean_over_ranks(x) is x
    assert sum_over_ranks(x) is x
    assert global_mean(x) == x.mean()
