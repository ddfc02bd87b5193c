"""Encoding: every image once, whatever the batches, shards and processes, and what a kill left is gone on with."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ldbench.core.posterior import Posterior
from ldbench.data.latents.manifest import MANIFEST, Manifest, is_complete
from ldbench.data.latents.statistics import Statistics
from ldbench.data.latents.store import LatentStore
from ldbench.io.files import file_digest

Make = Callable[..., Manifest]


def files(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.iterdir()}


def everything(folder: Path) -> tuple[Tensor, Tensor]:
    store = LatentStore.open(folder)
    return store.read(torch.arange(len(store)))


def test_rows_are_the_posteriors_of_the_images_in_their_order(
    make: Make, images: TensorDataset, formula, tmp_path: Path
) -> None:
    make(tmp_path / "store")
    moments, labels = everything(tmp_path / "store")
    expected = formula().encode(images.tensors[0])
    assert torch.equal(moments, torch.stack([expected.mean, expected.logvar], dim=1))
    assert torch.equal(labels, images.tensors[1])


def test_mirrored_views_are_rows_behind_all_others(make: Make, images: TensorDataset, formula, tmp_path: Path) -> None:
    told = make(tmp_path / "store", flips=True)
    moments, labels = everything(tmp_path / "store")
    assert len(moments) == 100
    assert torch.equal(moments[50:, 0], formula().encode(images.tensors[0].flip(-1)).mean)
    assert torch.equal(labels[50:], labels[:50])
    assert told.statistics.count == 100 * 4, "mirrored views count"


@pytest.mark.parametrize("way", [{"batch_size": 50}, {"workers": 2}, {"num_processes": 2}, {"shard_size": 7}])
def test_no_way_of_making_it_shows(make: Make, tmp_path: Path, way: dict) -> None:
    make(tmp_path / "one", flips=True)
    make(tmp_path / "other", flips=True, **way)
    if "shard_size" in way:
        for one, other in zip(everything(tmp_path / "one"), everything(tmp_path / "other"), strict=True):
            assert torch.equal(one, other)
    else:
        assert files(tmp_path / "one") == files(tmp_path / "other")


@pytest.mark.parametrize("shard_size", [1, 7, 16, 50, 64])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_statistics_are_of_what_is_stored_in_any_sharding(
    make: Make, tmp_path: Path, shard_size: int, dtype: str
) -> None:
    told = make(tmp_path / "store", flips=True, dtype=dtype, shard_size=shard_size)
    moments, _ = everything(tmp_path / "store")
    whole = Statistics.of(moments)
    for name in ("mean", "variance_of_means", "mean_variance"):
        torch.testing.assert_close(getattr(told.statistics, name), getattr(whole, name), rtol=1e-12, atol=1e-15)


def test_points_are_stored_without_a_variance(make: Make, formula, tmp_path: Path) -> None:
    make(tmp_path / "store", tokenizer=formula(variational=False, sequence=True))
    store = LatentStore.open(tmp_path / "store")
    assert store.manifest.parts == 1
    assert store.latent.grid is None
    assert store.read(torch.arange(3))[0].shape == (3, 1, 4, 48)


class Dies(Dataset):
    """Images of which one kills the process that looks at it, as long as a file is there."""

    def __init__(self, images: TensorDataset, place: int, flag: Path):
        self.images = images
        self.place = place
        self.flag = flag

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.place and self.flag.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]


@pytest.mark.parametrize("place", [0, 15, 16, 20, 40, 49])
def test_killed_anywhere_it_goes_on_and_ends_in_the_same_bytes(
    make: Make, images: TensorDataset, tmp_path: Path, place: int
) -> None:
    make(tmp_path / "unbroken", flips=True)
    flag = tmp_path / "flag"
    flag.touch()
    folder = tmp_path / "broken"
    way = {"flips": True, "images": Dies(images, place, flag)}
    child = multiprocessing.get_context("fork").Process(target=make, args=(folder,), kwargs=way)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not is_complete(folder)
    done = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert len(done) == 2 * (place // 16), "a shard is there whole, with its note, or not at all"
    with pytest.raises(ValueError, match=r"is no complete store of latents.*goes on with it"):
        LatentStore.open(folder)
    flag.unlink()
    make(folder, **way)
    assert files(folder) == files(tmp_path / "unbroken")
    assert all(path.stat().st_mtime_ns == when for path, when in done.items() if path.suffix == ".safetensors"), (
        "what was finished is not made again"
    )


def test_killed_between_the_manifest_and_the_clearing_it_is_complete(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ldbench.data.latents import writing

    with monkeypatch.context() as patched:
        patched.setattr(writing, "clear_notes", lambda folder: None)
        make(tmp_path / "store")
    assert (tmp_path / "store" / "plan.json").is_file()
    assert len(LatentStore.open(tmp_path / "store")) == 50
    writing.clear_notes(tmp_path / "store")
    assert sorted(files(tmp_path / "store")) == [MANIFEST, *(f"shard-0000{i}.safetensors" for i in range(4))]


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_all_ends_in_the_same_bytes(
    make: Make, images: TensorDataset, tmp_path: Path
) -> None:
    make(tmp_path / "unbroken", shard_size=4)
    flag = tmp_path / "flag"
    flag.touch()
    way = {"images": Dies(images, 27, flag), "shard_size": 4, "num_processes": 2}
    with pytest.raises(ChildProcessError, match=r"came to an end.*\nThe same command goes on"):
        make(tmp_path / "broken", **way)
    assert not is_complete(tmp_path / "broken")
    flag.unlink()
    make(tmp_path / "broken", **way)
    assert files(tmp_path / "broken") == files(tmp_path / "unbroken")


class Infinite(torch.nn.Module):
    """A tokenizer with a latent beyond fp16."""

    def __init__(self, latent):
        super().__init__()
        self.latent = latent

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(torch.full((len(images), 4, 48), 1e6))


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_numbers_that_the_dtype_does_not_hold_are_refused(
    make: Make, formula, tmp_path: Path, num_processes: int
) -> None:
    with pytest.raises(
        ValueError, match=r"The latent of image \d+ holds numbers that are not finite in fp16. Say job.dtype=bf16"
    ):
        make(tmp_path / "store", dtype="fp16", tokenizer=Infinite(formula().latent), num_processes=num_processes)


def test_labels_that_are_no_class_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have the labels 0 to 6, and noise has the classes 0 to 4"):
        make(tmp_path / "store", num_classes=5)


@pytest.mark.parametrize(
    ("said", "told"), [({"shard_size": 8}, "shard_size was 16, and now is 8"), ({"dtype": "bf16"}, "contents was")]
)
def test_a_store_that_was_begun_otherwise_is_not_gone_on_with(
    make: Make, tmp_path: Path, formula, said: dict, told: str
) -> None:
    with pytest.raises(ValueError, match="not finite"):
        make(tmp_path / "store", dtype="fp16", tokenizer=Infinite(formula().latent))
    with pytest.raises(
        ValueError, match=rf"was begun otherwise: .*{told}.*Go on as it was begun, or remove the folder"
    ):
        make(tmp_path / "store", **{"dtype": "fp16", **said})


class Blank(Dataset):
    """Many grey images, made when they are asked for."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), index / 4096), 0


def test_memory_is_that_of_a_shard_and_not_of_the_set(make: Make, tmp_path: Path) -> None:
    import resource

    def peak(folder: Path, shard_size: int) -> int:
        """The growth of a process of its own, in bytes."""
        told = multiprocessing.get_context("fork").SimpleQueue()

        def run() -> None:
            make(
                folder / "first", images=Blank(), shard_size=shard_size, batch_size=16
            )  # what is loaded once is not what is asked for
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            make(folder, images=Large(), shard_size=shard_size, batch_size=16)
            told.put(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))

        child = multiprocessing.get_context("fork").Process(target=run)
        child.start()
        child.join()
        return told.get()

    class Large(Blank):
        def __len__(self) -> int:
            return 40_000

    small = peak(tmp_path / "small", 1000)
    bytes_of_all = sum(path.stat().st_size for path in (tmp_path / "small").glob("*.safetensors"))
    assert bytes_of_all > 60e6
    assert small < bytes_of_all / 2


def test_encoding_is_told_while_it_runs(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ldbench.data.latents import encoding

    told: list[int] = []
    monkeypatch.setattr(encoding.Progress, "advance", lambda self, task, count: told.append(count))
    make(tmp_path / "store")
    assert sum(told) == 50
    assert max(told) == 5
