"""Decoders of JPEG files beside Pillow, whose pixels define the protocol: speed, and whether pixels are equal."""

import io
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

Decoder = Callable[[bytes], Image.Image]

MAX_IMAGES = 48
KINDS = {  # of JPEG files: name -> how Pillow writes them
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
}


def pillow(content: bytes) -> Image.Image:
    """The image by Pillow."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def torchvision(content: bytes) -> Image.Image:
    """The image by torchvision, as Pillow's image, which is what `center_crop` takes."""
    pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def simplejpeg(content: bytes) -> Image.Image:
    """The image by simplejpeg with the exact transforms, as Pillow's image."""
    import simplejpeg as package

    return Image.fromarray(package.decode_jpeg(content, colorspace="RGB", fastdct=False, fastupsample=False))


def compare_decoders(paths: Sequence[Path], *, rounds: int) -> tuple[list[str], list[list[str]]]:
    """CPU milliseconds until an image can be cropped, relative speed, and by kind of JPEG the largest difference from
    Pillow's pixels in levels and the share of pixels that differ.
    """
    decoders: dict[str, Decoder] = {"Pillow": pillow, "torchvision.io": torchvision}
    if find_spec("simplejpeg"):
        decoders["simplejpeg"] = simplejpeg
    contents = [path.read_bytes() for path in paths[:MAX_IMAGES]]
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            started = time.process_time()
            for content in contents:
                decode(content)
            seconds[name].append((time.process_time() - started) / len(contents))
    rows = []
    for name, decode in decoders.items():
        ratio = median(theirs / ours for ours, theirs in zip(seconds[name], seconds["Pillow"], strict=True))
        differences = [describe_difference(decode, written(contents, **how)) for how in KINDS.values()]
        rows.append([name, f"{1000 * median(seconds[name]):.3f}", f"{ratio:.2f}x", *differences])
    if "simplejpeg" not in decoders:
        rows.append(["simplejpeg", *["not installed"] * (2 + len(KINDS))])
    return ["decoder", "CPU ms an image", "speed", *KINDS], rows


def written(contents: Sequence[bytes], **how: int | bool) -> list[bytes]:
    """The images written again as JPEG files of quality 90."""
    found = []
    for content in contents:
        file = io.BytesIO()
        pillow(content).save(file, format="JPEG", quality=90, **how)
        found.append(file.getvalue())
    return found


def describe_difference(decode: Decoder, contents: Sequence[bytes]) -> str:
    """The largest difference from Pillow's pixels, and the share of pixels that differ."""
    largest, differing, total = 0, 0, 0
    for content in contents:
        expected, got = (np.asarray(decoder(content)).astype(np.int16) for decoder in (pillow, decode))
        distance = np.abs(expected - got).max(axis=2)
        largest = max(largest, int(distance.max()))
        differing, total = differing + int((distance > 0).sum()), total + distance.size
    return "equal" if largest == 0 else f"{largest} levels, {differing / total:.2%}"
