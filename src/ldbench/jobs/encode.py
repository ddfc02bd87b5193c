"""Job `encode`: stores the latents of a split, on which generators are trained."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldbench.artifacts.building import building_lock
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, ImageSet
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents import lightningdit
from ldbench.data.latents.cache_check import validate_cache
from ldbench.data.latents.encoding import encode
from ldbench.data.latents.manifest import MANIFEST, Contents, Manifest, is_complete
from ldbench.data.latents.places import Folder, Place, open_address
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import remove_notes
from ldbench.io.files import digest, write_json
from ldbench.io.remote import is_remote
from ldbench.runtime.device import PRECISIONS

log = logging.getLogger(__name__)

IMAGES_PER_FILE = 10_000  # of an exported cache, as in LightningDiT


class Encode:
    """Encodes the training images, and with `heldout` the held-out ones, without augmentation.

    An existing store is opened and verified; an incomplete one is resumed. The metrics are of the whole set.
    Raises ValueError for flips of data whose class they may change.
    """

    name: ClassVar[str] = "encode"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = ("heldout", "flips", "dtype", "precision", "cache")

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        tokenizer_name: str,
        tokenizer_digest: str,
        tokenizer_key: str,
        data: ImageData,
        latents: str | Path,  # the folder of all stores, or their address
        heldout: bool,
        flips: bool,
        dtype: str,
        precision: str,
        cache: str | None,
        export: str | None,
        verify: bool,
        shard_size: int,
        batch_size: int,
        num_processes: int,
        cache_dir: str | None,
        cache_size: float,
        retries: int,
        timeout: float,
        ahead: int,
        workers: int,
        device: torch.device,
    ):
        if flips and not data.label_safe_flips:
            raise ValueError(
                f"A flipped image of {data.name} may belong to another class, or to none. "
                "Set latents.flips=false, or job.flips=false for job=encode."
            )
        self.tokenizer = tokenizer
        self.tokenizer_name = tokenizer_name
        self.tokenizer_digest = tokenizer_digest
        self.tokenizer_key = tokenizer_key
        self.data = data
        self.latents = latents
        self.heldout = heldout
        self.flips = flips
        self.dtype = dtype
        self.precision = precision
        self.cache = cache
        self.export = export
        self.verify = verify
        self.shard_size = shard_size
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.cache_dir = None if cache_dir is None else resolve_folder(cache_dir)
        self.cache_size = cache_size
        self.retries = retries
        self.timeout = timeout
        self.ahead = ahead
        self.workers = workers
        self.device = device

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key, choices in (("dtype", tuple(DTYPES)), ("precision", PRECISIONS)):
            if settings[key] not in choices:
                raise ValueError(f"job.{key} must be one of {', '.join(choices)}, got {settings[key]!r}.")
        for key in ("shard_size", "batch_size", "num_processes"):
            if settings[key] < 1:
                raise ValueError(f"job.{key} must be at least 1, got {settings[key]}.")
        for key in ("cache_size", "retries", "ahead"):
            if settings[key] < 0:
                raise ValueError(f"job.{key} must be at least 0, got {settings[key]}.")
        if settings["timeout"] <= 0:
            raise ValueError(f"job.timeout must be more than 0 seconds, got {settings['timeout']}.")
        if settings["cache"] is not None and not resolve_folder(settings["cache"]).is_dir():
            raise ValueError(f"job.cache={settings['cache']} is not a folder. Give one in LightningDiT's layout.")
        if settings["export"] is not None and resolve_folder(settings["export"]).is_file():
            raise ValueError(f"job.export={settings['export']} is a file. Give a folder.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files without which a recorded measurement is repeated: the stores and the note of the exported cache,
        which are linked from the output folder, and that cache's statistics.
        """
        stores = tuple(f"{name}/{MANIFEST}" for name in link_names(settings["heldout"], settings["cache"]).values())
        if settings["export"] is None:
            return stores
        export = resolve_folder(settings["export"])
        return (*stores, export_link(export), str(export / lightningdit.STATS))

    def run(self, out: Path) -> dict[str, Estimate]:
        """Statistics of each store, over sampled latents; `out/train` links to it, `out/test` to the held-out store.

        Raises ValueError, before anything is encoded, where `export` holds anything but these latents.
        """
        metrics: dict[str, Estimate] = {}
        export = None if self.export is None else resolve_folder(self.export)
        exported = {"seed": 0, "images_per_file": IMAGES_PER_FILE}
        if export is not None:
            lightningdit.validate_target(export, self.contents("train"), **exported)
        for split, name in link_names(self.heldout, self.cache).items():
            store = self.store(split)
            link(out / name, store)
            metrics |= {
                f"latents/{split}/{key}": Estimate(value) for key, value in statistics_of(store.manifest).items()
            }
            if split == "train" and export is not None:
                link_file(out / export_link(export), lightningdit.write_cache(store, export, **exported))
                log.info("In LightningDiT's layout: %s", export)
        return metrics

    def contents(self, split: str) -> Contents:
        """The description of the store of a split."""
        return Contents(
            tokenizer=self.tokenizer_name,
            tokenizer_digest=self.tokenizer_digest,
            tokenizer_key=self.tokenizer_key,
            data=self.data.name,
            num_classes=self.data.num_classes,
            fingerprint=self.data.fingerprint,
            split=split,
            preprocessing={"image_size": self.data.image_size, "augmentation": None},
            flips=self.flips,
            dtype=self.dtype,
            precision=self.precision,
            source=lightningdit.cache_checksum(resolve_folder(self.cache))
            if self.cache is not None and split == "train"
            else None,
        )

    def place(self, contents: Contents) -> Place:
        """Where a store is, or will be."""
        root = str(self.latents)
        if not is_remote(root):
            return Folder(contents.folder(Path(root)))
        return open_address(
            f"{root.rstrip('/')}/{contents.name}",
            cache_dir=self.cache_dir,
            cache_size=self.cache_size,
            retries=self.retries,
            timeout=self.timeout,
            ahead=self.ahead,
        )

    def store(self, split: str) -> LatentStore:
        """The store of a split, built if missing. Of the processes of one machine one builds it while others wait."""
        contents = self.contents(split)
        place = self.place(contents)
        with building_lock(self.lock_path(place, contents), doing="encoding"):
            exists = is_complete(place)
            if exists:
                remove_notes(place)
                log.info("Latents of the %s split already exist: %s", split, place)
            else:
                self.build(place, contents)
            return LatentStore.open(place, contents=contents, verify=exists and self.verify)

    def lock_path(self, place: Place, contents: Contents) -> Path:
        """The path that is locked while a store is built: the folder itself; for an address one on this machine."""
        if isinstance(place, Folder):
            return place.path
        return (self.cache_dir or Path(tempfile.gettempdir())) / f"{digest(str(place))[:16]}-{contents.name}"

    def build(self, place: Place, contents: Contents) -> None:
        """Encodes a split, or converts a cache."""
        started = time.monotonic()
        if contents.source is None:
            images: ImageSet = getattr(self.data, contents.split)
            settings: dict[str, Any] = {
                "shard_size": self.shard_size,
                "batch_size": self.batch_size,
                "workers": self.workers,
            }
            settings |= {"device": self.device, "num_processes": self.num_processes}
            manifest = encode(place, contents, tokenizer=self.tokenizer, images=images, **settings)
        else:
            assert self.cache is not None
            cache, latent = resolve_folder(self.cache), self.tokenizer.latent
            validate_cache(cache, self.data.train, latent=latent, encode=self.posterior)
            manifest = lightningdit.read_cache(cache, place, contents, latent=latent, shard_size=self.shard_size)
        rate = manifest.num_images / (time.monotonic() - started)
        log.info("Latents of %d %s images, %.3g a second: %s", manifest.num_images, contents.split, rate, place)

    @torch.no_grad()
    def posterior(self, images: Tensor) -> Posterior:  # (B, 3, H, W)
        """The posterior of a few images, in float32."""
        return self.tokenizer.to(self.device).eval().encode(images.to(self.device))


def link_names(heldout: bool, cache: str | None) -> dict[str, str]:
    """The stored splits and the names of the links to them; the name for a converted cache contains its checksum."""
    train = "train" if cache is None else f"train-{lightningdit.cache_checksum(resolve_folder(cache))[:8]}"
    return {"train": train, **({"test": "test"} if heldout else {})}


def export_link(export: Path) -> str:
    """The name of the link to the note of an exported cache: without the note the cache is of other latents."""
    return f"export-{digest(str(export))[:8]}.json"


def resolve_folder(folder: str) -> Path:
    """The absolute path of a folder in the config."""
    return Path(folder).expanduser().absolute()


def statistics_of(manifest: Manifest) -> dict[str, float]:
    """Statistics of a store: scale by channel and overall, signal to noise of its posteriors (if they are no
    points), and size.
    """
    statistics, overall = manifest.statistics, manifest.statistics.overall()
    ranges = {"mean": statistics.mean, "std": statistics.std()}
    if manifest.parts == 2:
        ranges |= {"signal_to_noise": statistics.signal_to_noise()}
    numbers = {"mean": overall.mean.item(), "std": overall.std().item()}
    for name, values in ranges.items():
        numbers |= {
            f"{name}_min": values.min().item(),
            f"{name}_median": values.median().item(),
            f"{name}_max": values.max().item(),
        }
    return {**numbers, "images": float(manifest.num_images), "bytes": float(manifest.num_bytes)}


def link(path: Path, store: LatentStore) -> None:
    """Creates or replaces a symbolic link to a store's folder; of a store at an address a folder with its manifest and
    its address.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(store.place, Folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        link_file(path, store.place.path)
        return
    if path.is_symlink():
        path.unlink()
    write_json(path / MANIFEST, store.manifest.to_dict())
    (path / "address.txt").write_text(f"{store.place}\n", encoding="utf-8")


def link_file(path: Path, target: Path) -> None:
    """Creates or replaces a symbolic link."""
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
