"""ADM's exchange files: files that numpy writes are read and written files are read by numpy, a batch at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import Features, FeatureSet, gather
from ldbench.metrics.frechet import FrechetDistance, frechet_distance
from ldbench.metrics.moments import SetGaussian


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def features(count: int, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_images_come_back_in_batches(images: torch.Tensor, tmp_path: Path, save, batch_size: int) -> None:
    path = tmp_path / "samples.npz"
    save(path, images.permute(0, 2, 3, 1).numpy(), np.arange(7))
    batches = list(adm_npz.read_images(path, batch_size))
    assert torch.equal(torch.cat(batches), images)
    assert all(len(batch) <= batch_size for batch in batches)
    assert adm_npz.num_images(path) == 7
    assert adm_npz.read_statistics(path) == {}


def test_what_is_written_is_what_numpy_expects(images: torch.Tensor, tmp_path: Path) -> None:
    path, labels = tmp_path / "deep" / "samples.npz", torch.arange(7)
    adm_npz.write(path, images.split(2), 7, labels=labels)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["arr_0", "arr_1"]
        assert file["arr_0"].dtype == np.uint8
        assert np.array_equal(file["arr_0"], images.permute(0, 2, 3, 1).numpy())
        assert np.array_equal(file["arr_1"], labels.numpy())
    assert torch.equal(torch.cat(list(adm_npz.read_images(path, 3))), images)


def test_a_reference_gives_the_distance_of_the_set_behind_it(images: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    whole = gather(Features(features(50), spatial=features(50, 4)), ("normal", "spatial"))
    adm_npz.write(path, images.split(3), 7, features=whole)
    gaussians = adm_npz.read_statistics(path)
    samples = gather(Features(features(40)), ("normal",))
    expected = frechet_distance(samples.normal.whole, whole.normal.whole)
    assert frechet_distance(samples.normal.whole, gaussians["normal"].whole) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(
        gaussians["spatial"].whole.covariance, whole.spatial.whole.covariance, rtol=1e-12, atol=1e-15
    )
    with np.load(path) as file:
        assert {key: file[key].shape for key in ("mu", "sigma", "mu_s", "sigma_s")} == {
            "mu": (6,),
            "sigma": (6, 6),
            "mu_s": (4,),
            "sigma_s": (4, 4),
        }
        assert np.allclose(file["sigma"], np.cov(features(50).double().numpy(), rowvar=False), rtol=1e-12)


def test_an_interval_against_a_reference_without_parts_is_over_the_samples() -> None:
    reference = gather(Features(features(50)), ("normal",))
    without_parts = FeatureSet(50, normal=SetGaussian(reference.normal.whole))
    samples = gather(Features(features(40)), ("normal",))
    first, second = (FrechetDistance()(samples, other, paired=False) for other in (without_parts, reference))
    assert first == second


@pytest.mark.parametrize("numbers", [6, 8, 100])
def test_more_or_fewer_images_than_announced_leave_no_file(images: torch.Tensor, tmp_path: Path, numbers: int) -> None:
    with pytest.raises(ValueError, match=f"Expected to write {numbers} images, got 7"):
        adm_npz.write(tmp_path / "samples.npz", images.split(2), numbers)
    assert not list(tmp_path.iterdir())


def test_images_of_two_sizes_and_floats_are_refused(images: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of one size, got \(1, 3, 6, 4\)"):
        adm_npz.write(tmp_path / "a.npz", [images, torch.zeros(1, 3, 6, 4, dtype=torch.uint8)], 8)
    with pytest.raises(ValueError, match=r"torch\.float32"):
        adm_npz.write(tmp_path / "a.npz", [images.float()], 7)


BAD = {
    "floats": (
        lambda path: np.savez(path, np.zeros((2, 3, 3, 3))),
        r"arr_0 is float64 \(2, 3, 3, 3\)\. Expected images",
    ),
    "channels first": (lambda path: np.savez(path, np.zeros((2, 3, 4, 4), np.uint8)), r"arr_0 is uint8 \(2, 3, 4, 4\)"),
    "no images": (lambda path: np.savez(path, mu=np.zeros(2)), r"has no arr_0; it has mu\.npy"),
    "objects": (lambda path: np.savez(path, np.array([{}], dtype=object)), "arr_0 is object"),
    "no archive": (lambda path: path.write_bytes(b"nothing"), r"is not an \.npz"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_without_images_are_refused(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    make(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=message):
        list(adm_npz.read_images(tmp_path / "bad.npz", 2))
    with pytest.raises(FileNotFoundError, match="There is no file"):
        adm_npz.num_images(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("mu", "sigma", "message"),
    [
        (np.zeros(3), np.eye(2), r"mu \(3,\) and sigma \(2, 2\) are not a finite mean and covariance"),
        (np.zeros(2), np.full((2, 2), np.nan), "not a finite mean"),
        (np.zeros(2), np.array([[1.0, 2.0], [0.0, 1.0]]), "sigma is not symmetric"),
    ],
)
def test_malformed_statistics_are_refused(tmp_path: Path, mu: np.ndarray, sigma: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "bad.npz", mu=mu, sigma=sigma)
    with pytest.raises(ValueError, match=message):
        adm_npz.read_statistics(tmp_path / "bad.npz")
