"""LightningDiT's caches become stores and stores become caches: there and back the latents are the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.data.latents import lightningdit
from ldbench.data.latents.lightningdit import cache_checksum, read_cache, read_stats, write_cache
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.store import LatentStore

Store = Callable[..., LatentStore]
LATENT = LatentSpec(6, 5, (2, 3))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two ranks of two files each, as LightningDiT writes them."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    rng = torch.Generator().manual_seed(0)
    for rank in range(2):
        for shard, count in enumerate((7, 4)):
            z, flipped = (torch.randn(count, 5, 2, 3, generator=rng) for _ in range(2))
            tensors = {"latents": z, "latents_flip": flipped, "labels": torch.randint(0, 7, (count,), generator=rng)}
            metadata = {"total_size": str(count), "dtype": "torch.float32", "device": "cpu"}
            save_file(tensors, folder / f"latents_rank{rank:02d}_shard{shard:03d}.safetensors", metadata=metadata)
    torch.save(
        {"mean": torch.full((1, 5, 1, 1), 0.25), "std": torch.full((1, 5, 1, 1), 2.0)}, folder / "latents_stats.pt"
    )
    return folder


def of_cache(cache: Path, contents: Contents, **changes) -> Contents:
    return replace(contents, source=cache_checksum(cache), **changes)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("shard_size", [1, 5, 7, 100])
def test_their_cache_is_a_store_of_points(
    cache: Path, contents: Contents, tmp_path: Path, flips: bool, shard_size: int
) -> None:
    read_cache(cache, tmp_path / "store", of_cache(cache, contents, flips=flips), latent=LATENT, shard_size=shard_size)
    store = LatentStore.open(tmp_path / "store")
    parts = [load_file(path) for path in sorted(cache.glob("*.safetensors"))]
    views = [
        torch.cat([part[view] for part in parts]) for view in (["latents", "latents_flip"] if flips else ["latents"])
    ]
    labels = torch.cat([part["labels"] for part in parts])
    z, y = store.batch(range(len(store)), seed=0, step=0)
    assert torch.equal(LATENT.to_map(z), torch.cat(views))
    assert torch.equal(y, labels.repeat(len(views)))
    assert store.manifest.statistics.mean.numpy() == pytest.approx(
        views[0].double().mean(dim=(0, 2, 3)).numpy(), rel=1e-12
    ), "as theirs, without mirrored images"


def test_our_statistics_normalize_like_theirs(cache: Path) -> None:
    mean, std = read_stats(cache)
    z = torch.randn(2, 6, 5)
    expected = (LATENT.to_map(z) - 0.25) / 2
    assert torch.equal(LATENT.to_map(Normalizer.from_stats(mean, std, channels=5).normalize(z)), expected)


@pytest.mark.parametrize("flips", [False, True])
def test_there_and_back_latents_are_the_same(store: Store, contents: Contents, tmp_path: Path, flips: bool) -> None:
    stored = store(flips=flips, dtype="bf16")
    note = write_cache(stored, tmp_path / "cache", seed=3, images_per_file=20)
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == [*(f"latents_rank00_shard00{i}.safetensors" for i in range(3)), "latents_stats.pt", note.name]
    contents = of_cache(tmp_path / "cache", contents, flips=True)
    read_cache(tmp_path / "cache", tmp_path / "back", contents, latent=stored.latent, shard_size=13)
    back = LatentStore.open(tmp_path / "back", contents=contents)
    assert torch.equal(back.batch(range(50), seed=0, step=0)[0], stored.batch(range(50), seed=3, step=0)[0])
    rows, step = (range(50, 100), 0) if flips else (range(50), 1)
    assert torch.equal(back.batch(range(50, 100), seed=0, step=0)[0], stored.batch(rows, seed=3, step=step)[0])
    assert torch.equal(back.read(torch.arange(50))[1], stored.read(torch.arange(50))[1])


def test_what_we_write_is_their_layout(store: Store, tmp_path: Path) -> None:
    stored = store(flips=True)
    write_cache(stored, tmp_path / "cache", seed=0, images_per_file=20)
    path = tmp_path / "cache" / "latents_rank00_shard002.safetensors"
    tensors = load_file(path)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()} == {
        "latents": ((10, 48, 2, 2), torch.float32),
        "latents_flip": ((10, 48, 2, 2), torch.float32),
        "labels": ((10,), torch.int64),
    }
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"total_size": "10", "dtype": "torch.float32", "device": "cpu"}
    stats = torch.load(tmp_path / "cache" / "latents_stats.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in stats.items()} == {
        "mean": (1, 48, 1, 1),
        "std": (1, 48, 1, 1),
    }
    mean, std = read_stats(tmp_path / "cache" / "latents_stats.pt")
    ours = stored.normalizer()
    assert torch.equal(mean.flatten(), ours.mean)
    assert torch.equal(std.flatten(), ours.std)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def latents_of(folder: Path) -> dict[str, Any]:
    files = {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return {name: {key: value.tolist() for key, value in file.items()} for name, file in files.items()}


def test_a_cache_of_other_latents_is_not_mixed_with_ours(cache: Path, make, tmp_path: Path) -> None:
    def stored(name: str, **changes) -> LatentStore:
        make(tmp_path / name, **changes)
        return LatentStore.open(tmp_path / name)

    first, other = stored("first"), stored("other", tokenizer_key="44556677" * 8)
    write_cache(first, tmp_path / "cache", seed=0, images_per_file=20)
    before = files_of(tmp_path / "cache")
    for store, settings in (
        (other, {"seed": 0, "images_per_file": 20}),
        (first, {"seed": 0, "images_per_file": 30}),
        (first, {"seed": 1, "images_per_file": 20}),
    ):
        with pytest.raises(
            ValueError, match=r"cache holds other files than the latents of .*job\.export=DIR, or remove"
        ):
            write_cache(store, tmp_path / "cache", **settings)
    assert files_of(tmp_path / "cache") == before
    write_cache(first, tmp_path / "cache", seed=0, images_per_file=20)
    assert files_of(tmp_path / "cache").keys() == before.keys()
    theirs = files_of(cache)
    with pytest.raises(ValueError, match="theirs holds other files than the latents of formula-00112233 and noise"):
        write_cache(first, cache, seed=0, images_per_file=20)
    assert files_of(cache) == theirs


def test_a_killed_export_is_finished(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store()
    write_cache(stored, tmp_path / "whole", seed=0, images_per_file=20)
    write_tensors = lightningdit.write_tensors

    def refuse(tensors, path: Path, **settings) -> None:
        if path.name.endswith("shard001.safetensors"):
            raise KeyboardInterrupt
        write_tensors(tensors, path, **settings)

    for folder in (tmp_path / "broken", tmp_path / "whole"):  # the second is whole before
        with monkeypatch.context() as patched:
            patched.setattr(lightningdit, "write_tensors", refuse)
            with pytest.raises(KeyboardInterrupt):
                write_cache(stored, folder, seed=0, images_per_file=20)
        assert not [path for path in folder.glob("ldbench-*.json") if "unfinished" not in path.name]
        note = write_cache(stored, folder, seed=0, images_per_file=20)
        assert [*folder.glob("ldbench-*")] == [note]
    assert files_of(tmp_path / "broken").keys() == files_of(tmp_path / "whole").keys()
    assert latents_of(tmp_path / "broken") == latents_of(tmp_path / "whole")


def test_a_killed_import_resumes(
    cache: Path, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ldbench.data.latents.writing import StoreWriter

    contents = of_cache(cache, contents, flips=True)
    read_cache(cache, tmp_path / "whole", contents, latent=LATENT, shard_size=5)
    write = StoreWriter.write

    def refuse(self, shard, *tensors) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        write(self, shard, *tensors)

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "write", refuse)
        with pytest.raises(KeyboardInterrupt):
            read_cache(cache, tmp_path / "broken", contents, latent=LATENT, shard_size=5)
    read_cache(cache, tmp_path / "broken", contents, latent=LATENT, shard_size=5)
    assert {path.name: path.read_bytes() for path in (tmp_path / "broken").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


def test_sequences_have_no_such_layout(store: Store, formula, tmp_path: Path, cache: Path, contents: Contents) -> None:
    with pytest.raises(ValueError, match=r"stores maps, but .* holds 4 tokens without a grid"):
        write_cache(store(tokenizer=formula(sequence=True)), tmp_path / "cache", seed=0, images_per_file=20)
    with pytest.raises(ValueError, match="this tokenizer has 6 tokens without a grid"):
        read_cache(cache, tmp_path / "from", of_cache(cache, contents), latent=LatentSpec(6, 5), shard_size=5)


def test_a_cache_of_another_tokenizer_or_none_is_refused(cache: Path, contents: Contents, tmp_path: Path) -> None:
    other = LatentSpec(6, 4, (2, 3))
    with pytest.raises(ValueError, match=r"holds latents \(7, 5, 2, 3\), but this tokenizer has maps \(4, 2, 3\)"):
        read_cache(cache, tmp_path / "store", of_cache(cache, contents), latent=other, shard_size=5)
    (cache / "latents_rank01_shard001.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        ValueError, match=r"rank01_shard001\.safetensors is not a file of latents in LightningDiT's layout"
    ):
        read_cache(cache, tmp_path / "store", of_cache(cache, contents), latent=LATENT, shard_size=5)
    with pytest.raises(ValueError, match="holds no latents in LightningDiT's layout"):
        cache_checksum(tmp_path)


class Hostile:
    """What must not be run."""

    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "content", [Hostile(), {"mean": torch.zeros(1, 5, 1, 1)}, {"mean": torch.zeros(5), "std": torch.zeros(5)}, [1]]
)
def test_statistics_of_another_kind_are_refused(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "latents_stats.pt")
    with pytest.raises(ValueError, match="holds no latent statistics"):
        read_stats(tmp_path)
    assert "run" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"Give a latents_stats\.pt"):
        read_stats(tmp_path / "elsewhere.pt")
