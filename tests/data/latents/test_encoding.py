"""Encoding: every image once for any batches, shards and processes; a killed run is resumed."""

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
from ldbench.runtime import progress

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


def test_mirrored_views_are_rows_after_all_others(make: Make, images: TensorDataset, formula, tmp_path: Path) -> None:
    manifest = make(tmp_path / "store", flips=True)
    moments, labels = everything(tmp_path / "store")
    assert len(moments) == 100
    assert torch.equal(moments[50:, 0], formula().encode(images.tensors[0].flip(-1)).mean)
    assert torch.equal(labels[50:], labels[:50])
    assert manifest.statistics.count == 50 * 4, "mirrored views do not count"


@pytest.mark.usefixtures("shares_by_forks")
@pytest.mark.parametrize("arguments", [{"batch_size": 50}, {"workers": 2}, {"num_processes": 2}, {"shard_size": 7}])
def test_the_arguments_of_encode_do_not_change_the_store(make: Make, tmp_path: Path, arguments: dict) -> None:
    make(tmp_path / "one", flips=True)
    make(tmp_path / "other", flips=True, **arguments)
    if "shard_size" in arguments:
        for one, other in zip(everything(tmp_path / "one"), everything(tmp_path / "other"), strict=True):
            assert torch.equal(one, other)
    else:
        assert files(tmp_path / "one") == files(tmp_path / "other")


@pytest.mark.parametrize("shard_size", [1, 7, 16, 50, 64])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_statistics_are_those_of_the_images_that_are_not_mirrored_for_any_shard_size(
    make: Make, tmp_path: Path, shard_size: int, dtype: str
) -> None:
    manifest = make(tmp_path / "store", flips=True, dtype=dtype, shard_size=shard_size)
    moments, _ = everything(tmp_path / "store")
    whole = Statistics.of(moments[:50])
    for name in ("mean", "variance_of_means", "mean_variance"):
        torch.testing.assert_close(getattr(manifest.statistics, name), getattr(whole, name), rtol=1e-12, atol=1e-15)


def test_points_are_stored_without_a_variance(make: Make, formula, tmp_path: Path) -> None:
    make(tmp_path / "store", tokenizer=formula(variational=False, sequence=True))
    store = LatentStore.open(tmp_path / "store")
    assert store.manifest.parts == 1
    assert store.latent.grid is None
    assert store.read(torch.arange(3))[0].shape == (3, 1, 4, 48)


class Dies(Dataset):
    """Images of which one kills the process that reads it, as long as a flag file exists."""

    def __init__(self, images: TensorDataset, fatal: int, flag: Path):
        self.images = images
        self.fatal = fatal
        self.flag = flag

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.fatal and self.flag.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]


@pytest.mark.parametrize("fatal", [0, 15, 16, 20, 40, 49])
def test_a_run_killed_anywhere_resumes_to_the_same_bytes(
    make: Make, images: TensorDataset, tmp_path: Path, fatal: int
) -> None:
    make(tmp_path / "unbroken", flips=True)
    flag = tmp_path / "flag"
    flag.touch()
    folder = tmp_path / "broken"
    arguments = {"flips": True, "images": Dies(images, fatal, flag)}
    child = multiprocessing.get_context("fork").Process(target=make, args=(folder,), kwargs=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not is_complete(folder)
    done = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert len(done) == 2 * (fatal // 16), "a shard exists completely, with its note, or not at all"
    with pytest.raises(ValueError, match=r"is not a complete store of latents.*to resume"):
        LatentStore.open(folder)
    flag.unlink()
    make(folder, **arguments)
    assert files(folder) == files(tmp_path / "unbroken")
    assert all(path.stat().st_mtime_ns == when for path, when in done.items() if path.suffix == ".safetensors"), (
        "finished shards are not encoded again"
    )


def test_a_store_killed_before_its_notes_are_removed_is_complete(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ldbench.data.latents import writing

    with monkeypatch.context() as patched:
        patched.setattr(writing, "remove_notes", lambda folder: None)
        make(tmp_path / "store")
    assert (tmp_path / "store" / "plan.json").is_file()
    assert len(LatentStore.open(tmp_path / "store")) == 50
    writing.remove_notes(tmp_path / "store")
    assert sorted(files(tmp_path / "store")) == [MANIFEST, *(f"shard-0000{i}.safetensors" for i in range(4))]


@pytest.mark.slow
def test_if_one_of_two_processes_is_killed_the_run_resumes_to_the_same_bytes(
    make: Make, images: TensorDataset, tmp_path: Path
) -> None:
    make(tmp_path / "unbroken", shard_size=4)
    flag = tmp_path / "flag"
    flag.touch()
    arguments = {"images": Dies(images, 27, flag), "shard_size": 4, "num_processes": 2}
    with pytest.raises(ChildProcessError, match=r"ended unexpectedly.*\nThe same command resumes"):
        make(tmp_path / "broken", **arguments)
    assert not is_complete(tmp_path / "broken")
    flag.unlink()
    make(tmp_path / "broken", **arguments)
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
        ValueError, match=r"The latent of image \d+ holds numbers that are not finite in fp16. Set dtype=bf16"
    ):
        make(tmp_path / "store", dtype="fp16", tokenizer=Infinite(formula().latent), num_processes=num_processes)


def test_labels_out_of_range_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="have the labels 0 to 6, but noise has the classes 0 to 4"):
        make(tmp_path / "store", num_classes=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"shard_size": 8}, "shard_size was 16, and now is 8"), ({"dtype": "bf16"}, "contents was")],
)
def test_a_store_started_with_other_settings_is_not_resumed(
    make: Make, tmp_path: Path, formula, changes: dict, message: str
) -> None:
    with pytest.raises(ValueError, match="not finite"):
        make(tmp_path / "store", dtype="fp16", tokenizer=Infinite(formula().latent))
    with pytest.raises(
        ValueError, match=rf"was started with other settings: .*{message}.*Resume with those, or remove the folder"
    ):
        make(tmp_path / "store", **{"dtype": "fp16", **changes})


class Blank(Dataset):
    """Many gray images, built on access."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), index / 4096), 0


@pytest.mark.slow
def test_memory_grows_with_a_shard_and_not_with_the_set(make: Make, tmp_path: Path) -> None:
    import resource

    def peak(folder: Path, shard_size: int) -> int:
        """The memory growth of a fresh process, in bytes."""
        growth = multiprocessing.get_context("fork").SimpleQueue()

        def run() -> None:
            make(folder / "first", images=Blank(), shard_size=shard_size, batch_size=16)  # one-time allocations
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            make(folder, images=Large(), shard_size=shard_size, batch_size=16)
            growth.put(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))

        child = multiprocessing.get_context("fork").Process(target=run)
        child.start()
        child.join()
        return growth.get()

    class Large(Blank):
        def __len__(self) -> int:
            return 20_000

    small = peak(tmp_path / "small", 1000)
    bytes_of_all = sum(path.stat().st_size for path in (tmp_path / "small").glob("*.safetensors"))
    assert bytes_of_all > 30e6
    assert small < bytes_of_all / 2


def test_encoding_reports_its_progress(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(progress.Lines, "advance", lambda self, count: counts.append(count))
    make(tmp_path / "store")
    assert sum(counts) == 50
    assert max(counts) == 5
