"""BatchStream: which images make up which batch, over passes, processes and restarts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldbench.tasks.batches import BatchStream


def stream(*, start: int = 0, **changed) -> BatchStream:
    facts = {"num_images": 10, "batch_size": 4, "num_batches": 15, "seed": 0, "rank": 0, "world": 1, "overfit_batches": 0}
    return BatchStream(**facts | changed, start=lambda: start)


def flat(batches) -> list[int]:
    return [index for batch in batches for index in batch]


@settings(max_examples=30, deadline=None)
@given(num_images=st.integers(1, 23), batch_size=st.integers(1, 30), seed=st.integers(0, 100))
def test_every_image_comes_once_in_every_pass(num_images, batch_size, seed):
    num_batches = -(-3 * num_images // batch_size)  # three passes at least
    indices = flat(stream(num_images=num_images, batch_size=batch_size, num_batches=num_batches, seed=seed))
    assert len(indices) == num_batches * batch_size
    for epoch in range(3):
        assert sorted(indices[epoch * num_images : (epoch + 1) * num_images]) == list(range(num_images))


def test_every_pass_has_an_order_of_its_own():
    indices = flat(stream(num_images=100, batch_size=100, num_batches=3))
    passes = [indices[:100], indices[100:200], indices[200:]]
    assert all(order != list(range(100)) for order in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_the_seed_decides_the_order():
    assert list(stream(num_images=100, seed=3)) == list(stream(num_images=100, seed=3))
    assert list(stream(num_images=100, seed=3)) != list(stream(num_images=100, seed=4))


@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_processes_share_every_global_batch_without_overlap(world):
    whole = list(stream(num_images=29, batch_size=12))
    shares = [list(stream(num_images=29, batch_size=12, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert {len(part) for part in parts} == {12 // world}
        assert sorted(flat(parts)) == sorted(batch)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 14, 15])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stream_from_batch_k_is_the_tail_of_the_whole(start, rank):
    assert list(stream(start=start, rank=rank, world=2)) == list(stream(rank=rank, world=2))[start:]


def test_the_start_is_asked_for_when_iteration_begins_so_that_one_stream_can_go_on():
    begun = [0]
    going = BatchStream(num_images=10, batch_size=4, num_batches=15, seed=0, start=lambda: begun[0], rank=0, world=1, overfit_batches=0)
    whole = list(going)
    begun[0] = 9
    assert list(going) == whole[9:]


@pytest.mark.parametrize("overfit_batches", [1, 3])
def test_overfitting_repeats_the_first_batches(overfit_batches):
    first = list(stream())[:overfit_batches]
    assert list(stream(overfit_batches=overfit_batches)) == (first * 15)[:15]
    assert list(stream(overfit_batches=overfit_batches, start=5)) == (first * 15)[5:15]


def test_its_length_is_the_number_of_batches_of_the_stage():
    assert len(stream()) == len(list(stream())) == 15


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"A batch of 4 images cannot be shared by 3 processes\. Choose a multiple of 3"):
        stream(world=3)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="empty"):
        stream(num_images=0)
