"""BatchStream: the images of each batch, over epochs, processes and restarts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples

from ldbench.training.batch_sampler import BatchStream, RandomCrops


def stream(*, start: int = 0, **changed) -> BatchStream:
    facts = {
        "num_images": 10,
        "batch_size": 4,
        "num_batches": 15,
        "seed": 0,
        "rank": 0,
        "world": 1,
        "overfit_batches": 0,
        "count_passes": False,
    }
    return BatchStream(**facts | changed, start=lambda: start)


def flat(batches) -> list[int]:
    return [index for batch in batches for index in batch]


@examples(30)
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
    first = [0]
    facts = {"num_images": 10, "batch_size": 4, "num_batches": 15, "seed": 0, "rank": 0, "world": 1}
    stream = BatchStream(**facts, start=lambda: first[0], overfit_batches=0, count_passes=False)
    whole = list(stream)
    first[0] = 9
    assert list(stream) == whole[9:]


@pytest.mark.parametrize("overfit_batches", [1, 3])
def test_overfitting_repeats_the_first_batches(overfit_batches):
    first = list(stream())[:overfit_batches]
    assert list(stream(overfit_batches=overfit_batches)) == (first * 15)[:15]
    assert list(stream(overfit_batches=overfit_batches, start=5)) == (first * 15)[5:15]


def test_its_length_is_the_number_of_batches_of_the_stage():
    assert len(stream()) == len(list(stream())) == 15


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(
        ValueError, match=r"A batch of 4 images cannot be split over 3 processes\. Choose a multiple of 3"
    ):
        stream(world=3)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="empty"):
        stream(num_images=0)


def test_counted_passes_number_every_item_anew_and_name_the_same_images():
    plain, counted = flat(stream()), flat(stream(count_passes=True))
    assert [item % 10 for item in counted] == plain
    assert len(set(counted)) == len(counted)
    assert counted[:10] == plain[:10]


class Cut:
    """Images that answer with what they were asked for."""

    def __len__(self):
        return 10

    def draw(self, index, *, scale, ratio, rng):
        return torch.rand(3, generator=rng), index


def test_a_crop_is_drawn_from_its_item_alone():
    crops = RandomCrops(Cut(), kind="area", scale=(0.5, 1.0), seed=0)
    first, index = crops[23]
    assert index == 3
    assert torch.equal(first, RandomCrops(Cut(), kind="area", scale=(0.5, 1.0), seed=0)[23][0])
    assert not torch.equal(first, crops[13][0]), "another pass, another crop"
    assert not torch.equal(first, RandomCrops(Cut(), kind="area", scale=(0.5, 1.0), seed=1)[23][0])
