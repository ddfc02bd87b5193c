"""ADM's exchange files: samples and reference statistics as `.npz`, read and written a batch at a time.

`arr_0` contains images (N, H, W, 3) uint8, `arr_1` labels; a reference such as VIRTUAL_imagenet256_labeled.npz also
contains the mean and covariance of Inception-v3's features over a whole dataset: `mu` (2048,), `sigma` (2048, 2048),
and `mu_s`, `sigma_s` of the spatial features.

[0] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021,
    https://github.com/openai/guided-diffusion/tree/main/evaluations
"""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from einops import rearrange
from numpy.lib import format as npy
from torch import Tensor

from ldbench.io.files import atomic_write
from ldbench.metrics.feature_set import CLEAN_FID, FeatureSet, statistics_origin
from ldbench.metrics.moments import Gaussian, SetGaussian

IMAGES, LABELS = "arr_0", "arr_1"
MAX_STATISTICS_BYTES = 1 << 28  # the covariance of 2048 features has 34 million
MAX_IMAGE_SIZE = 4096  # px
READ_ERRORS = (  # of damaged files
    ValueError,
    TypeError,
    OSError,
    EOFError,
    RuntimeError,
    ArithmeticError,
    zipfile.BadZipFile,
    zlib.error,
    MemoryError,
    SyntaxError,
)
STATISTICS = {"normal": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


def read_statistics(path: Path) -> dict[str, SetGaussian]:
    """The Gaussians of a file, by field of `FeatureSet`; empty for a file with images only.

    Raises ValueError for a malformed file: pickles are refused, and a covariance must be a symmetric matrix as wide as
    its mean.
    """
    gaussians = {}
    with open_archive(path) as archive:
        for name, (mean_key, covariance_key) in STATISTICS.items():
            if not {f"{mean_key}.npy", f"{covariance_key}.npy"} <= set(archive.namelist()):
                continue
            mean, covariance = (read_array(archive, key, path) for key in (mean_key, covariance_key))
            if (
                mean.ndim != 1
                or covariance.shape != (len(mean), len(mean))
                or not np.isfinite(covariance).all()
                or not np.isfinite(mean).all()
            ):
                raise ValueError(
                    f"{path}: {mean_key} {mean.shape} and {covariance_key} {covariance.shape} are not a finite mean "
                    "and covariance."
                )
            if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.abs(covariance).max()):
                raise ValueError(f"{path}: {covariance_key} is not symmetric, so it is not a covariance.")
            symmetric = torch.from_numpy((covariance + covariance.T) / 2)
            gaussians[name] = SetGaussian(Gaussian(torch.from_numpy(mean), symmetric))
    return gaussians


def read_statistics_of(extractor: object, path: Path, name: str) -> dict[str, SetGaussian]:
    """The Gaussians of a file, if they can be of the features of an extractor, given by itself or by its class.

    Raises ValueError for an extractor of whose features no such files are, for Gaussians of other widths than its
    features, for a file in ADM's layout where the extractor's files are those of clean-fid, and as `read_statistics`.
    """
    gaussians = read_statistics(path)
    origin = statistics_origin(extractor)
    if gaussians and origin is None:
        raise ValueError(
            f"{path} contains statistics of the standard Inception-v3, and {name} is another extractor. "
            "Choose a split of the data as the reference."
        )
    if origin == CLEAN_FID and gaussians and ("spatial" in gaussians or has_images(path)):
        raise ValueError(
            f"{path} is in ADM's layout (it has {IMAGES} or mu_s): its statistics are of images that TensorFlow 1 "
            f"resized, and {name} resizes as clean-fid. Give a file of clean-fid, which has mu and sigma alone, or "
            "choose protocol.extractor=inception."
        )
    for field, width in getattr(extractor, "widths", {}).items():
        if field in gaussians and len(gaussians[field].whole.mean) != width:
            raise ValueError(
                f"{path}: {STATISTICS[field][0]} has {len(gaussians[field].whole.mean)} numbers, and features of "
                f"{name} have {width}. Give the statistics of Inception-v3's last pooling."
            )
    return gaussians


def num_images(path: Path) -> int:
    """The number of images in a file. Raises ValueError for a file without any."""
    with open_archive(path) as archive, open_array(archive, IMAGES, path) as (_, shape, dtype):
        return validate_images(path, shape, dtype)[0]


def image_size(path: Path) -> tuple[int, int]:
    """The height and width of a file's images (px). Raises ValueError for a file without any."""
    with open_archive(path) as archive, open_array(archive, IMAGES, path) as (_, shape, dtype):
        height, width = validate_images(path, shape, dtype)[1:3]
    return height, width


def has_images(path: Path) -> bool:
    """Whether a file has images, and not statistics alone. Raises ValueError for one that is no archive."""
    with open_archive(path) as archive:
        return f"{IMAGES}.npy" in archive.namelist()


def read_labels(path: Path) -> Tensor | None:  # (N,) int64
    """The labels of a file's images; None where it has none, or others than one whole number for each."""
    count = num_images(path)
    with open_archive(path) as archive:
        if f"{LABELS}.npy" not in archive.namelist():
            return None
        with open_array(archive, LABELS, path) as (file, shape, dtype):
            if shape != (count,) or dtype.kind not in "iu":
                return None
            try:
                return torch.from_numpy(np.frombuffer(file.read(), dtype=dtype).astype(np.int64))
            except READ_ERRORS as error:
                raise ValueError(f"{path}: {LABELS} is damaged ({error}). Copy it again.") from error


def read_images(path: Path, batch_size: int) -> Iterator[Tensor]:  # of (B, 3, H, W) uint8
    """The images of a file in order, one batch in memory at a time.

    Raises ValueError for anything but uint8 (N, H, W, 3).
    """
    with open_archive(path) as archive, open_array(archive, IMAGES, path) as (file, shape, dtype):
        count, height, width, channels = validate_images(path, shape, dtype)
        for first in range(0, count, batch_size):
            size = min(batch_size, count - first)
            try:
                content = file.read(size * height * width * channels)
            except READ_ERRORS as error:
                raise ValueError(f"{path}: {IMAGES} is damaged ({error}). Copy it again.") from error
            if len(content) < size * height * width * channels:
                raise ValueError(f"{path} ends before its {count} images do: it is truncated. Copy it again.")
            yield rearrange(
                torch.frombuffer(bytearray(content), dtype=torch.uint8),
                "(b h w c) -> b c h w",
                h=height,
                w=width,
                c=channels,
            )


def write(
    path: Path,
    batches: Iterable[Tensor],  # of (B, 3, H, W) uint8
    num_images: int,
    *,
    labels: Tensor | None = None,  # (num_images,)
    features: FeatureSet | None = None,  # whose Gaussians make the file a reference
) -> None:
    """Writes images, a batch at a time and atomically.

    Raises ValueError for a count other than `num_images`, and for images of different sizes.
    """
    arrays = {} if labels is None else {LABELS: labels.cpu().numpy()}
    for name, keys in STATISTICS.items():
        gaussian = None if features is None else getattr(features, name)
        if gaussian is not None:
            arrays |= dict(zip(keys, (gaussian.whole.mean.numpy(), gaussian.whole.covariance.numpy())))
    with atomic_write(path) as scratch, zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        write_images(archive, batches, num_images)
        write_arrays(archive, arrays)


def write_images(archive: zipfile.ZipFile, batches: Iterable[Tensor], num_images: int) -> None:
    """Writes `arr_0`, a batch at a time."""
    shape, written = None, 0
    with archive.open(f"{IMAGES}.npy", "w", force_zip64=True) as file:
        for batch in batches:
            if (
                batch.dtype != torch.uint8
                or batch.ndim != 4
                or batch.shape[1] != 3
                or batch.shape[1:] != (shape or batch.shape[1:])
            ):
                raise ValueError(
                    f"An .npz of samples contains uint8 images (B, 3, H, W) of one size, got {tuple(batch.shape)} "
                    f"{batch.dtype}."
                )
            if shape is None:
                shape = batch.shape[1:]
                header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, shape[1], shape[2], 3)}
                npy.write_array_header_1_0(file, header)
            file.write(rearrange(batch.cpu(), "b c h w -> b h w c").contiguous().numpy().tobytes())
            written += len(batch)
    if written != num_images or not written:
        raise ValueError(f"Expected to write {num_images} images, got {written}.")


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes small arrays."""
    for key, array in arrays.items():
        with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
            npy.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Opens an `.npz`. Raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Expected an .npz in ADM's layout.")
    try:
        return zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise ValueError(
            f"{path} is not an .npz ({error}). Expected ADM's layout, as in VIRTUAL_imagenet256_labeled.npz."
        ) from error


@contextmanager
def open_array(archive: zipfile.ZipFile, key: str, path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """Opens one array of an archive after its header: (file, shape, dtype).

    Raises ValueError for anything but plain numbers.
    """
    if f"{key}.npy" not in archive.namelist():
        raise ValueError(
            f"{path} has no {key}; it has {', '.join(archive.namelist()) or 'nothing'}. Expected ADM's layout."
        )
    try:
        file = archive.open(f"{key}.npy")
    except READ_ERRORS as error:
        raise ValueError(f"{path}: {key} cannot be opened ({error}). Copy it again.") from error
    with file:
        try:
            if (version := npy.read_magic(file)) != (1, 0):  # other versions have headers of unlimited length
                raise ValueError(f"its format version is {version}, expected (1, 0)")
            shape, fortran_order, dtype = npy.read_array_header_1_0(file)
        except READ_ERRORS as error:
            raise ValueError(f"{path}: {key} is not an array ({error}).") from error
        if fortran_order or dtype.hasobject or dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: {key} is {dtype} in {'Fortran' if fortran_order else 'C'} order. Expected numbers in C order."
            )
        expected, size = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{key}.npy").file_size - file.tell()
        if min(shape, default=1) < 0 or expected != size:
            raise ValueError(
                f"{path}: the header of {key} declares {dtype} {shape}, {expected} bytes, and it has {size}: "
                "it is truncated or was modified."
            )
        yield file, shape, dtype


def read_array(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    """An array of statistics, as float64. Raises ValueError for one that is damaged or too large."""
    with open_array(archive, key, path) as (file, shape, dtype):
        if (size := math.prod(shape) * dtype.itemsize) > MAX_STATISTICS_BYTES:
            raise ValueError(f"{path}: {key} has {size} bytes; statistics have at most {MAX_STATISTICS_BYTES}.")
        try:
            return np.frombuffer(file.read(), dtype=dtype).reshape(shape).astype(np.float64)
        except READ_ERRORS as error:
            raise ValueError(f"{path}: {key} is damaged ({error}). Copy it again.") from error


def validate_images(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Returns the shape of images. Raises ValueError for any other shape or type."""
    if (
        len(shape) != 4
        or shape[3] != 3
        or dtype != np.uint8
        or not all(1 <= side <= MAX_IMAGE_SIZE for side in shape[1:3])
        or not shape[0]
    ):
        raise ValueError(
            f"{path}: {IMAGES} is {dtype} {shape}. Expected images, uint8 (N, H, W, 3), from 1 to {MAX_IMAGE_SIZE} px."
        )
    return shape
