"""Reading a store: rows do not depend on the batch; incomplete, altered and other stores are refused."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.examples import examples
from torch.utils.data import DataLoader

from ldbench.core.posterior import Posterior
from ldbench.data.latents.manifest import MANIFEST, Contents
from ldbench.data.latents.noise import noise_keys, posterior_noise
from ldbench.data.latents.statistics import Statistics
from ldbench.data.latents.store import LatentStore, StoredLatents

Store = Callable[..., LatentStore]
CPU = torch.device("cpu")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("sequence", [False, True])
def test_a_batch_is_a_sample_of_the_stored_posteriors(
    store: Store, formula, images, dtype: str, sequence: bool
) -> None:
    stored = store(dtype=dtype, tokenizer=formula(sequence=sequence))
    rows = torch.tensor([49, 0, 17, 17])
    z, y = stored.batch(rows, seed=3, step=2)
    moments, labels = stored.read(rows)
    assert moments.dtype == DTYPES[dtype]
    exact = formula().encode(images.tensors[0][rows])
    torch.testing.assert_close(moments[:, 0].float(), exact.mean, rtol=1e-2, atol=1e-2)
    assert torch.equal(moments[:, 0], exact.mean.to(DTYPES[dtype])), "numbers are rounded once"
    eps = posterior_noise(noise_keys(rows, seed=3, step=2), (4, 48))
    assert torch.equal(z, Posterior(moments[:, 0].float(), moments[:, 1].float()).sample(eps=eps))
    assert torch.equal(y, labels)
    assert torch.equal(y, images.tensors[1][rows])
    assert torch.equal(z[2], z[3])


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.integers(0, 99), min_size=1, max_size=12), step=st.integers(0, 2**40), seed=st.integers(0, 2**40)
)
def test_a_row_is_the_same_in_any_batch(opened: LatentStore, rows: list[int], step: int, seed: int) -> None:
    z, y = opened.batch(rows, seed=seed, step=step)
    for position, row in enumerate(rows):
        alone, label = opened.batch([row], seed=seed, step=torch.tensor([step]))
        assert torch.equal(alone[0], z[position])
        assert label[0] == y[position]
    backwards, _ = opened.batch(rows[::-1], seed=seed, step=step)
    assert torch.equal(backwards.flip(0), z)


@pytest.fixture
def opened(store: Store) -> LatentStore:
    return store(flips=True, dtype="fp16")


def test_the_block_size_changes_nothing(opened: LatentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from ldbench.data.latents import store as module

    whole, _ = opened.batch(range(100), seed=0, step=0, normalizer=opened.normalizer())
    monkeypatch.setattr(module, "BLOCK", 3 * 4 * 48)
    parts, _ = opened.batch(range(100), seed=0, step=0, normalizer=opened.normalizer())
    assert torch.equal(whole, parts)


def test_points_are_read_without_noise(store: Store, formula, images) -> None:
    stored = store(tokenizer=formula(variational=False))
    z, _ = stored.batch([4, 2], seed=0, step=0)
    assert torch.equal(z, formula().encode(images.tensors[0][[4, 2]]).mean)
    z += 1
    assert not torch.equal(z, stored.batch([4, 2], seed=0, step=0)[0]), "a batch is a copy"


def test_a_resident_store_gives_the_same_batches(opened: LatentStore) -> None:
    resident = opened.resident(CPU)
    assert len(resident) == len(opened) == 100
    for one, other in zip(
        resident.batch([99, 3], seed=1, step=4, normalizer=opened.normalizer()),
        opened.batch([99, 3], seed=1, step=4, normalizer=opened.normalizer()),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_normalized_samples_have_mean_0_and_deviation_1(opened: LatentStore) -> None:
    for per_channel in (True, False):
        normalizer = opened.normalizer(per_channel=per_channel)
        z = torch.cat(
            [opened.batch(range(50), seed=0, step=step, normalizer=normalizer)[0] for step in range(40)]
        ).double()
        dims = (0, 1) if per_channel else (0, 1, 2)
        torch.testing.assert_close(z.mean(dim=dims), torch.zeros_like(z.mean(dim=dims)), rtol=0, atol=0.05)
        torch.testing.assert_close(z.std(dim=dims), torch.ones_like(z.std(dim=dims)), rtol=0.05, atol=0)
    means = Statistics.of(opened.read(torch.arange(50))[0][:, :1])
    torch.testing.assert_close(opened.normalizer(of="means").std.double(), means.std(), rtol=1e-6, atol=0)


def test_training_latents_are_sampled_again_in_each_epoch(opened: LatentStore) -> None:
    latents = StoredLatents(opened, seed=5)
    assert (len(latents), latents.num_classes, latents.latent) == (100, 7, opened.latent)
    z, y = latents.__getitems__([7, 107, 207])
    assert torch.equal(y, y[:1].expand(3))
    assert not torch.equal(z[0], z[1])
    assert torch.equal(z[1], opened.batch([7], seed=5, step=1)[0][0])
    assert torch.equal(latents[107][0], z[1])
    assert torch.equal(latents.mean, opened.manifest.statistics.mean)
    assert torch.equal(latents.std, opened.manifest.statistics.std())
    assert latents.fingerprint != StoredLatents(opened, seed=6).fingerprint
    loaded = next(
        iter(DataLoader(latents, batch_sampler=[[7, 107, 207]], num_workers=1, collate_fn=lambda batch: batch))
    )
    assert torch.equal(loaded[0], z)


def test_a_pickled_store_does_not_contain_its_latents(opened: LatentStore) -> None:
    pickled = pickle.dumps(opened)
    assert len(pickled) < 20_000
    assert torch.equal(pickle.loads(pickled).batch([5], seed=0, step=0)[0], opened.batch([5], seed=0, step=0)[0])


@pytest.mark.parametrize("rows", [[100], [-1], [0, 1000]])
def test_rows_out_of_range_are_refused(opened: LatentStore, rows: list[int]) -> None:
    with pytest.raises(IndexError, match="has rows 0 to 99, got"):
        opened.batch(rows, seed=0, step=0)


def altered(folder: Path) -> None:
    path = folder / "shard-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncated(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def missing(folder: Path) -> None:
    (folder / "shard-00003.safetensors").unlink()


def edited(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


DAMAGED = [
    (altered, r"shard-00002\.safetensors was altered: .*Remove .*encode again, or copy it again"),
    (truncated, r"shard-00001\.safetensors has \d+ bytes, but its manifest has \d+\. Remove"),
    (missing, r"shard-00003\.safetensors is missing\. Remove"),
    (
        lambda folder: (folder / MANIFEST).unlink(),
        r"is not a complete store of latents: it has no manifest\.json\. .*job=encode",
    ),
    (lambda folder: (folder / MANIFEST).write_text("{"), "is not a manifest of latents"),
    (
        lambda folder: edited(folder, lambda manifest: manifest.update(schema=99)),
        "has schema 99, but this version of ldbench reads 2. Remove it",
    ),
    (
        lambda folder: edited(folder, lambda manifest: manifest["contents"].update(dtype="fp8")),
        "dtype of stored latents must be one of",
    ),
    (
        lambda folder: edited(folder, lambda manifest: manifest["contents"].update(split="test")),
        "its digest is not that of its contents",
    ),
    (lambda folder: edited(folder, lambda manifest: manifest["shards"].pop()), "some of its shards are missing"),
    (
        lambda folder: edited(folder, lambda manifest: manifest["shards"][0].update(file="../../secret")),
        "some of its shards are missing",
    ),
    (lambda folder: edited(folder, lambda manifest: manifest.pop("statistics")), "is not a manifest of latents"),
    (
        lambda folder: edited(folder, lambda manifest: manifest["latent"].update(channels=3)),
        "its statistics have 48 channels",
    ),
    (
        lambda folder: edited(folder, lambda manifest: manifest["latent"].update(num_tokens=3, grid=None)),
        "is not a shard of this store",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_a_damaged_store_is_refused(opened: LatentStore, damage: Callable[[Path], object], message: str) -> None:
    damage(opened.place.path)
    with pytest.raises(ValueError, match=message):
        LatentStore.open(opened.place.path)


def test_checksums_can_be_skipped_but_sizes_cannot(opened: LatentStore) -> None:
    altered(opened.place.path)
    assert len(LatentStore.open(opened.place.path, verify=False)) == 100
    truncated(opened.place.path)
    with pytest.raises(ValueError, match="bytes, but its manifest has"):
        LatentStore.open(opened.place.path, verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tokenizer": "other-99887766", "tokenizer_digest": "99887766" * 8, "tokenizer_key": "99887766" * 8},
            "the tokenizer is formula-00112233 there, and other-99887766 here",
        ),
        (
            {"tokenizer_key": "99887766" * 8},
            "the tokenizer is formula-00112233 with content key 0011223300112233 there, and formula-00112233 with "
            "content key 9988776699887766 here",
        ),
        (
            {"data": "photos", "fingerprint": "cd" * 32},
            r"the data is noise \(abababab\) there, and photos \(cdcdcdcd\) here",
        ),
        (
            {"preprocessing": {"image_size": 16}},
            r"preprocessing is \{'image_size': 8\} there, and \{'image_size': 16\} here",
        ),
        ({"split": "test"}, "split is train there, and test here"),
        ({"flips": False}, "flips is True there, and False here"),
    ],
)
def test_a_store_with_other_contents_is_refused_with_both_names(
    opened: LatentStore, contents: Contents, changes: dict, message: str
) -> None:
    ours = replace(contents, flips=True, dtype="fp16")
    assert len(LatentStore.open(opened.place.path, contents=ours)) == 100
    with pytest.raises(ValueError, match=rf"are not those requested: {message}.*Encode again with these settings"):
        LatentStore.open(opened.place.path, contents=replace(ours, **changes))
