"""The recipes of the reference vectors: model weights by key and seed, and inputs."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

KEPT = {"freqs_t_x", "freqs_t_y", "freqs_cos", "freqs_sin", "weight_x", "weight_y", "gaussian_kernel"}
KEPT |= {"running_mean", "running_var", "num_batches_tracked", "codebook_used"}
TABLES = ("pos_embed", "decoder_pos_embed")
HALVED = ("pos_embed", "latent_tokens", "latent_pos_embed", "mask_token", "cls_token")
FREQUENCIES = 0.2  # the deviation of every `freqs`


def fill(key: str, shape: tuple[int, ...], seed: int) -> Tensor | None:
    """The recipe's value of one tensor, or None where the constructor's is kept."""
    last = key.split(".")[-1]
    if last in KEPT or key in TABLES or "scaling_layer." in key:
        return None
    r = np.asarray(np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(shape))
    fan_in = math.prod(shape[1:])
    if last in HALVED or "embedding_table" in key:
        value = 0.5 * r
    elif last == "freqs":
        value = FREQUENCIES * r
    elif key == "t_embedder.W":  # the frequencies of DiT^DH's times
        value = r
    elif key.startswith("lin") and key[3:4].isdigit() and last == "weight":
        value = np.abs(r) / math.sqrt(fan_in)
    elif len(shape) >= 2:
        value = r / math.sqrt(fan_in)
    elif last.endswith(("weight", "gamma")):
        value = 1 + 0.1 * r
    else:
        value = 0.1 * r
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def draw(kind: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """An input of one kind, float32."""
    rng = np.random.RandomState(seed)
    if kind == "uniform":
        return rng.random_sample(shape).astype(np.float32)
    if kind == "smooth_image":
        return smooth(rng.standard_normal((*shape[:2], 6)), *shape[2:])
    if kind == "sign":
        return np.where(rng.standard_normal(shape) >= 0, 1, -1).astype(np.float32)
    normal = rng.standard_normal(shape).astype(np.float32)
    return {"normal": normal, "image": np.tanh(normal)}[kind]


def smooth(q: np.ndarray, height: int, width: int) -> np.ndarray:
    """Two plane waves and a moiré for each of the (B, C, 6) numbers."""
    q = q[..., None, None]
    i, j = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    waves = q[:, :, 1] * np.sin(2 * np.pi * (2 * i + j + q[:, :, 2])) + q[:, :, 3] * np.cos(
        2 * np.pi * (i - 3 * j + q[:, :, 4])
    )
    return np.tanh(q[:, :, 0] + waves + 0.5 * q[:, :, 5] * np.sin(40 * i * j)).astype(np.float32)
