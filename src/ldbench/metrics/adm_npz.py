"""ADM's exchange files: samples and reference statistics as `.npz`, read and written a batch at a time.

`arr_0` holds images (N, H, W, 3) uint8, `arr_1` labels; a reference such as VIRTUAL_imagenet256_labeled.npz holds beside some images the mean
and covariance of Inception-v3's features over a whole data set: `mu` (2048,), `sigma` (2048, 2048), and of its spatial ones `mu_s`, `sigma_s`.

[0] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://github.com/openai/guided-diffusion/tree/main/evaluations
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
from ldbench.metrics.feature_set import FeatureSet
from ldbench.metrics.moments import Gaussian, Normal

IMAGES, LABELS = "arr_0", "arr_1"
LARGEST = 1 << 28  # bytes of an array of statistics: those of 2048 features have 34 million
LONGEST_SIDE = 4096  # px
DAMAGED = (
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
)  # what such files raise
STATISTICS = {"normal": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


def read_statistics(path: Path) -> dict[str, Normal]:
    """The laws that a file tells, by field of `FeatureSet`: none for a file of images only.

    Raises ValueError for a file that is no such thing: pickles are not opened, and a covariance must be a symmetric matrix of its mean's width.
    """
    found = {}
    with opened(path) as archive:
        for name, (mean_key, covariance_key) in STATISTICS.items():
            if not {f"{mean_key}.npy", f"{covariance_key}.npy"} <= set(archive.namelist()):
                continue
            mean, covariance = (read(archive, key, path) for key in (mean_key, covariance_key))
            if (
                mean.ndim != 1
                or covariance.shape != (len(mean), len(mean))
                or not np.isfinite(covariance).all()
                or not np.isfinite(mean).all()
            ):
                raise ValueError(
                    f"{path}: {mean_key} {mean.shape} and {covariance_key} {covariance.shape} are no finite mean and covariance."
                )
            if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.abs(covariance).max()):
                raise ValueError(f"{path}: {covariance_key} is not symmetric, so it is no covariance.")
            symmetric = torch.from_numpy((covariance + covariance.T) / 2)
            found[name] = Normal(Gaussian(torch.from_numpy(mean), symmetric))
    return found


def check_statistics(path: Path, extractor: str, *, standard: bool) -> dict[str, Normal]:
    """The laws that a file tells. Raises ValueError for those of Inception-v3 where another extractor looks, and as `read_statistics`."""
    laws = read_statistics(path)
    if laws and not standard:
        raise ValueError(
            f"{path} tells statistics of the standard Inception-v3, and {extractor} is another extractor. Choose a split of the data."
        )
    return laws


def num_images(path: Path) -> int:
    """How many images a file holds. Raises ValueError for a file without any."""
    with opened(path) as archive, member(archive, IMAGES, path) as (_, shape, dtype):
        return validate_images(path, shape, dtype)[0]


def read_images(path: Path, batch_size: int) -> Iterator[Tensor]:  # of (B, 3, H, W) uint8
    """The images of a file in their order, of which one batch is held at once. Raises ValueError for anything else than uint8 (N, H, W, 3)."""
    with opened(path) as archive, member(archive, IMAGES, path) as (file, shape, dtype):
        count, height, width, colours = validate_images(path, shape, dtype)
        for first in range(0, count, batch_size):
            taken = min(batch_size, count - first)
            try:
                content = file.read(taken * height * width * colours)
            except DAMAGED as error:
                raise ValueError(f"{path}: {IMAGES} is damaged ({error}). Copy it again.") from error
            if len(content) < taken * height * width * colours:
                raise ValueError(f"{path} ends before its {count} images do: it was cut short. Copy it again.")
            yield rearrange(
                torch.frombuffer(bytearray(content), dtype=torch.uint8),
                "(b h w c) -> b c h w",
                h=height,
                w=width,
                c=colours,
            )


def write(
    path: Path,
    batches: Iterable[Tensor],  # of (B, 3, H, W) uint8
    num_images: int,
    *,
    labels: Tensor | None = None,  # (num_images,)
    seen: FeatureSet | None = None,  # whose laws make the file a reference
) -> None:
    """Writes images, a batch at a time and in one move. Raises ValueError where there are more or fewer than was said, or of another size."""
    arrays = {} if labels is None else {LABELS: labels.cpu().numpy()}
    for name, keys in STATISTICS.items():
        law = None if seen is None else getattr(seen, name)
        if law is not None:
            arrays |= dict(zip(keys, (law.whole.mean.numpy(), law.whole.covariance.numpy())))
    with atomic_write(path) as scratch, zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        write_images(archive, batches, num_images)
        write_arrays(archive, arrays)


def write_images(archive: zipfile.ZipFile, batches: Iterable[Tensor], num_images: int) -> None:
    """`arr_0`, a batch at a time."""
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
                    f"An .npz of samples holds uint8 images (B, 3, H, W) of one size, got {tuple(batch.shape)} {batch.dtype}."
                )
            if shape is None:
                shape = batch.shape[1:]
                said = {"descr": "|u1", "fortran_order": False, "shape": (num_images, shape[1], shape[2], 3)}
                npy.write_array_header_1_0(file, said)
            file.write(rearrange(batch.cpu(), "b c h w -> b h w c").contiguous().numpy().tobytes())
            written += len(batch)
    if written != num_images or not written:
        raise ValueError(f"{num_images} images were to be written, and there were {written}.")


def write_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Small arrays, whole."""
    for key, array in arrays.items():
        with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
            npy.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def opened(path: Path) -> zipfile.ZipFile:
    """The archive that an `.npz` is. Raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Expected an .npz in ADM's layout.")
    try:
        return zipfile.ZipFile(path)
    except DAMAGED as error:
        raise ValueError(
            f"{path} is no .npz ({error}). Expected ADM's layout, as of VIRTUAL_imagenet256_labeled.npz."
        ) from error


@contextmanager
def member(archive: zipfile.ZipFile, key: str, path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """One array of an archive, open behind its header: (file, shape, dtype). Raises ValueError for anything else than plain numbers."""
    if f"{key}.npy" not in archive.namelist():
        raise ValueError(
            f"{path} has no {key}; it has {', '.join(archive.namelist()) or 'nothing'}. Expected ADM's layout."
        )
    try:
        file = archive.open(f"{key}.npy")
    except DAMAGED as error:
        raise ValueError(f"{path}: {key} cannot be opened ({error}). Copy it again.") from error
    with file:
        try:
            if (version := npy.read_magic(file)) != (1, 0):  # the header of others may be endless
                raise ValueError(f"its layout is {version}, expected (1, 0)")
            shape, fortran_order, dtype = npy.read_array_header_1_0(file)
        except DAMAGED as error:
            raise ValueError(f"{path}: {key} is no array ({error}).") from error
        if fortran_order or dtype.hasobject or dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: {key} is {dtype} in {'Fortran' if fortran_order else 'C'} order. Expected numbers in C order."
            )
        told, there = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{key}.npy").file_size - file.tell()
        if min(shape, default=1) < 0 or told != there:
            raise ValueError(
                f"{path}: {key} is said to be {dtype} {shape}, {told} bytes, and has {there}: it was cut short or altered."
            )
        yield file, shape, dtype


def read(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    """A whole array of statistics, as float64. Raises ValueError for one that is damaged, or larger than such arrays are."""
    with member(archive, key, path) as (file, shape, dtype):
        if (size := math.prod(shape) * dtype.itemsize) > LARGEST:
            raise ValueError(f"{path}: {key} has {size} bytes, and no statistics have more than {LARGEST}.")
        try:
            return np.frombuffer(file.read(), dtype=dtype).reshape(shape).astype(np.float64)
        except DAMAGED as error:
            raise ValueError(f"{path}: {key} is damaged ({error}). Copy it again.") from error


def validate_images(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """The shape of images. Raises ValueError for another."""
    if (
        len(shape) != 4
        or shape[3] != 3
        or dtype != np.uint8
        or not all(1 <= side <= LONGEST_SIDE for side in shape[1:3])
        or not shape[0]
    ):
        raise ValueError(
            f"{path}: {IMAGES} is {dtype} {shape}. Expected images, uint8 (N, H, W, 3), of 1 to {LONGEST_SIDE} px."
        )
    return shape
