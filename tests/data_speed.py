"""How fast the same images are read from each container and by other loaders, side by side in one run:

    python -m tests.data_speed                                # drawn JPEG files
    python -m tests.data_speed --root DIR                     # your own, a folder for each class

Everything ends in batches of center-cropped float32 images in [-1, 1]. All readers take turns in each round, every
other round backwards. A cell is the median, and in parentheses the median, the lowest and the highest ratio to
`ImageFolder` within a round. CPU time is that without workers; it depends less on what else runs. Packages that are not
installed have rows that say so; `pip install webdataset litdata simplejpeg` adds them.

[0] PyTorch, torchvision.datasets.ImageFolder
[1] WebDataset, https://github.com/webdataset/webdataset
[2] LitData, https://github.com/Lightning-AI/litData
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, ToTensor

import ldbench
from ldbench.config.components import instantiate
from ldbench.core.interfaces import ImageData
from ldbench.core.pixels import to_uint8
from ldbench.data.checks import read_image
from ldbench.data.original_images import to_tensor
from ldbench.data.shapes import Shapes
from ldbench.data.transforms import center_crop
from tests.decoder_speed import compare_decoders
from tests.small_containers import write

Epoch = Callable[[], Iterable[Any]]  # one pass over the batches of (images, labels)

OURS = {"folder": "folder", "tar": "shards", "parquet": "hf"}  # format of job=write_shards -> data=
BASELINE = "torchvision ImageFolder"
OTHERS = {"webdataset": "WebDataset", "litdata": "LitData"}  # package -> the row's name
JPEG = (".jpg", ".jpeg")
MAX_IMAGES = 64  # of the stages
NOISE = 16  # standard deviation in levels: with it a drawn JPEG is as long as a photograph's, 85 kB


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="How fast images are read, side by side.")
    parser.add_argument("--root", type=Path, help="a folder of class folders of JPEG files; default: drawn ones")
    parser.add_argument("--images", type=int, default=128, help="number of training images to draw")
    parser.add_argument("--width", type=int, default=500, help="px of drawn images; they are 4:3")
    parser.add_argument("--size", type=int, default=256, help="px of the crops")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        others = [path for path in given.root.rglob("*.*") if path.suffix.lower() not in JPEG] if given.root else []
        if others:
            parser.error(f"--root={given.root} holds {others[0]}, which is no JPEG file. Give JPEG files only.")
        root = given.root or draw_images(folder / "drawn", num_images=given.images, width=given.width)
        containers = write_containers(folder, root, size=given.size)
        paths = sorted(path for path in (folder / "folder" / "train").rglob("*") if path.is_file())
        print(table(*measure_readers(folder, containers, given)))
        print(table(*measure_stages(paths, size=given.size, rounds=given.rounds)))
        print(table(*compare_decoders(paths, rounds=given.rounds)))


def draw_images(folder: Path, *, num_images: int, width: int) -> Path:
    """Writes scenes of `data=shapes` with noise as JPEG files of quality 90, 4:3, by class, the same at each call."""
    num_test = 8
    drawn = Shapes(name="shapes", image_size=width, num_train=num_images, num_test=num_test, subset=None, seed=0)
    height, rng = width * 3 // 4, np.random.default_rng(0)
    for split, images in (("train", drawn.train), ("val", drawn.test)):
        for index in range(len(images)):
            image, label = images[index]
            pixels = to_uint8(image[None])[0, :, :height].permute(1, 2, 0).numpy()
            noisy = np.clip(pixels + rng.normal(0, NOISE, pixels.shape), 0, 255).round().astype(np.uint8)
            path = folder / split / drawn.class_names[label] / f"{index:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(path, quality=90)
    return folder


def write_containers(folder: Path, root: Path, *, size: int) -> dict[str, ImageData]:
    """The images below `root`, written by `job=write_shards` in each format and opened: `data=` -> data."""
    source = open_data("folder", root, size=size, cache=folder / "cache")
    opened = {}
    for kind, name in OURS.items():
        write(folder / kind, kind, folder / "record", data=source, shard_size=max(1, len(source.train.labels) // 4))
        opened[name] = open_data(name, folder / kind, size=size, cache=folder / "cache")
    return opened


def open_data(name: str, root: Path, *, size: int, cache: Path) -> ImageData:
    """`data=name data.root=root`."""
    words = [f"data={name}", f"data.root={root}", f"data.cache_dir={cache}", "data.check=none"]
    return instantiate(ldbench.compose("train", [*words, f"data.image_size={size}"]).data)


def measure_readers(
    folder: Path, containers: Mapping[str, ImageData], given: argparse.Namespace
) -> tuple[list[str], list[list[str]]]:
    """CPU milliseconds an image, and images per second by number of workers, of each reader."""
    transform = Compose([partial(center_crop, size=given.size), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    sets: dict[str, Any] = {f"data={name}": data.train for name, data in containers.items()}
    num_images = len(next(iter(containers.values())).train.labels)
    sets[BASELINE] = ImageFolder(str(folder / "folder" / "train"), transform=transform)
    readers: dict[tuple[str, int], Epoch] = {}
    for workers in given.workers:
        options: dict[str, Any] = {"batch_size": given.batch_size, "num_workers": workers}
        options["persistent_workers"] = workers > 0
        readers |= {(name, workers): partial(iter, DataLoader(images, **options)) for name, images in sets.items()}
        if find_spec("webdataset"):
            readers[OTHERS["webdataset"], workers] = web_dataset(folder / "tar", transform, options)
        if find_spec("litdata"):
            readers[OTHERS["litdata"], workers] = lit_data(folder, containers["folder"].train, transform, options)
    for name, epoch in readers.items():  # starts the workers and fills the disk's cache
        found = sum(len(images) for images, _ in epoch())
        if found != num_images:
            raise ValueError(f"{name} gives {found} images, expected {num_images}.")
    speeds: dict[tuple[str, int], list[float]] = {reader: [] for reader in readers}
    costs: dict[str, list[float]] = {name: [] for name, workers in readers if workers == 0}  # CPU ms an image
    for number in range(given.rounds):
        turns = list(readers.items())
        for reader, epoch in turns if number % 2 == 0 else reversed(turns):
            started, before = time.perf_counter(), time.process_time()
            for _batch in epoch():
                pass
            speeds[reader].append(num_images / (time.perf_counter() - started))
            if reader[1] == 0:
                costs[reader[0]].append(1000 * (time.process_time() - before) / num_images)
    head = [*(["CPU ms an image"] if costs else []), *(f"{workers} workers" for workers in given.workers)]
    rows = []
    for name in (*sets, *OTHERS.values()):
        if (name, given.workers[0]) not in speeds:
            rows.append([name, *["not installed"] * len(head)])
            continue
        cells = [f"{median(costs[name]):.2f} ({ratio(costs[name], costs[BASELINE])})"] if costs else []
        for workers in given.workers:
            found = speeds[name, workers]
            cells.append(f"{median(found):.0f} ({ratio(found, speeds[BASELINE, workers])})")
        rows.append([name, *cells])
    return [f"images/s, {num_images} images", *head], rows


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median, the lowest and the highest ratio within a round."""
    ratios = [each / other for each, other in zip(ours, theirs, strict=True)]
    return f"{median(ratios):.2f}x, {min(ratios):.2f} to {max(ratios):.2f}"


def web_dataset(shards: Path, transform: Callable[[Image.Image], Any], options: Mapping[str, Any]) -> Epoch:
    """[1] over the shards that `data=shards` reads, which `job=write_shards` wrote."""
    import webdataset

    tars = sorted(map(str, shards.glob("train-*.tar")))
    images = webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("jpg;jpeg", "cls")
    return partial(iter, DataLoader(images.map_tuple(transform, int), **options))


def lit_data(folder: Path, images: Any, transform: Callable[[Image.Image], Any], options: Mapping[str, Any]) -> Epoch:
    """[2] over chunks of the encoded images, decoded as all others."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    class Decoded(StreamingDataset):
        def __getitem__(self, index: Any) -> tuple[Any, int]:
            item = super().__getitem__(index)
            return transform(read_image("", item["image"])), item["label"]

    chunks = folder / "litdata"
    if not chunks.exists():
        chunks.mkdir()
        writer = BinaryWriter(str(chunks), chunk_bytes=1 << 26)
        for index in range(len(images)):
            writer[index] = {"image": images.encoded(index)[0], "label": int(images.labels[index])}
        writer.done()
        writer.merge()
    return partial(iter, StreamingDataLoader(Decoded(str(chunks)), **options))


def measure_stages(paths: Sequence[Path], *, size: int, rounds: int) -> tuple[list[str], list[list[str]]]:
    """CPU milliseconds that an image takes to be read, decoded, cropped and turned into a tensor, in one process."""
    paths = paths[:MAX_IMAGES]
    contents = [path.read_bytes() for path in paths]
    decoded = [read_image("", content) for content in contents]
    crops = [center_crop(image, size) for image in decoded]
    stages: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
        "read the file": (Path.read_bytes, paths),
        "decode (Pillow)": (partial(read_image, ""), contents),
        "center crop": (partial(center_crop, size=size), decoded),
        "tensor in [-1, 1]": (to_tensor, crops),
    }
    seconds: dict[str, list[float]] = {stage: [] for stage in stages}
    for _ in range(rounds):
        for stage, (function, inputs) in stages.items():
            started = time.process_time()
            for item in inputs:
                function(item)
            seconds[stage].append((time.process_time() - started) / len(inputs))
    times = {stage: median(found) for stage, found in seconds.items()}
    total = sum(times.values())
    rows = [[stage, f"{1000 * each:.3f}", f"{each / total:.0%}"] for stage, each in times.items()]
    return ["stage", "CPU ms an image", "share"], rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


if __name__ == "__main__":
    main()
