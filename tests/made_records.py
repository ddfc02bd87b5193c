"""Records like those of a matrix experiment: three tokenizers, three generators, two seeds, and every job's names."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results import records
from ldbench.results.image_comparison import SheetSettings
from ldbench.results.records import Record

TOKENIZERS = ("maetok", "vavae", "vmae")
GENERATORS = ("dit", "lightningdit", "sit")
DATA = "f62f1804fbc47a5093a6e708adb5e9ad301f0dc799cf44a430cdb5b529d1ed77"


def protocol_of(**fields: Any) -> dict[str, Any]:
    protocol = {"name": "digits", **fields, "data": DATA}
    return {**protocol, "hash": records.protocol_hash(protocol)}


RECONSTRUCTION = protocol_of(
    split="test",
    pixel_rule="round",
    latent="mean",
    reconstruction=["mse", "psnr", "ssim"],
    extractor={"name": "digits"},
)
GENERATION = protocol_of(
    num_samples=1000, labels="balanced", extractor={"name": "digits"}, sampler="own", guidance="own"
)
PLAIN = protocol_of()
HIGHER_IS_BETTER = {  # by metric name, as the metrics and jobs declare it
    **dict.fromkeys(("psnr", "ssim", "class_accuracy_digits", "recall_digits", "probe/accuracy"), True),
    **dict.fromkeys(("mse", "rfd_digits", "gfd_digits", "gfid", "rfid"), False),
}
SHOWN = SheetSettings(rows=3, candidates=100, crop=None)  # of the images beside records


@pytest.fixture
def make() -> Callable[..., Record]:
    """Builds a record; the defaults are those of a reconstruction by vmae."""
    return make_record


def make_record(
    *,
    job: str = "reconstruct",
    tokenizer: str = "vmae",
    generator: str | None = None,
    data: str = "digits",
    seeds: tuple[int, int] = (0, 0),  # the tokenizer's and the generator's
    metrics: Mapping[str, float | tuple[float, float, float]] | None = None,
    protocol: Mapping[str, Any] = RECONSTRUCTION,
    settings: Mapping[str, Any] | None = None,  # that the numbers depend on
    options: Mapping[str, Any] | None = None,  # others of the job
    recipe: Mapping[str, Any] | None = None,  # more of the tokenizer's config
    design: Mapping[str, Any] | None = None,  # more of the generator's config
    component: str | None = None,  # the tokenizer's architecture; None: of its name
    machine: str = "",  # on which the weights were made
    created: str = "2026-11-24T16:13:24+00:00",
) -> Record:
    numbers = metrics if metrics is not None else {"psnr": (40.0, 39.5, 40.5), "rfd_digits": 0.01}
    artifacts = {"tokenizer": f"{tokenizer}-{abs(hash_of(tokenizer, seeds[0], recipe)):08x}"}
    config = {
        "data": {"name": data},
        "tokenizer": {"name": tokenizer, "seed": seeds[0], "model": {"width": 96}, **(recipe or {})},
    }
    models = {"tokenizer": f"{hash_of(tokenizer, recipe):08x}" * 2}
    if generator is not None:
        artifacts["generator"] = (
            f"{generator}-{abs(hash_of(generator, tokenizer, seeds, *([design] if design else []))):08x}"
        )
        config["generator"] = {"name": generator, "max_steps": 1000, **(design or {})}
        models["generator"] = f"{hash_of(generator, design):08x}" * 2
    identity = records.record_id(
        job=job,
        settings=settings,
        artifacts=artifacts | {"data": data} | ({"machine": machine} if machine else {}),
        data=DATA,
        protocol=protocol["hash"],
        revision=hash_of(created),
    )
    return Record(
        id=identity,
        job=job,
        subject={"tokenizer": tokenizer, "generator": generator, "data": data},
        metrics={
            name: Estimate(*value) if isinstance(value, tuple) else Estimate(value) for name, value in numbers.items()
        },
        protocol=protocol,
        artifacts=artifacts,
        config={
            **config,
            "job": {"component": job, "batch_size": 64, **(settings or {}), **(options or {})},
            "seed": seeds[1],
            "trainer": {"workers": 0},
        },
        environment={"python": "3.11.7", "packages": {"torch": "2.15.0"}},
        created=created,
        higher_is_better={name: HIGHER_IS_BETTER[name] for name in numbers if name in HIGHER_IS_BETTER},
        settings=settings or {},
        models=models,
        seeds=dict(zip(models, seeds, strict=False)),
        weights={role: f"{hash_of(machine, name):08x}" for role, name in artifacts.items()},
        components={"tokenizer": component or tokenizer, **({} if generator is None else {"generator": "generator"})},
    )


def hash_of(*parts: Any) -> int:
    return random.Random(repr(parts)).randrange(2**31)


def jobs_of(index: int, seed: int, rng: random.Random) -> dict[str, tuple[Mapping[str, Any], dict[str, Any]]]:
    """What each job measures of a tokenizer: job -> (protocol, metrics)."""
    psnr = 29.5 + 5.4 * index + rng.gauss(0, 0.2)
    smooth = {f"smoothness/psnr/eps={eps}": psnr / (1 + (3 - index) * eps) for eps in (0.01, 0.03, 0.1, 0.3, 1.0)}
    mixtures = {
        f"gmm/nll_per_dim/k={k}": 1.4 - 0.1 * index - 0.04 * i + rng.gauss(0, 0.01)
        for i, k in enumerate((1, 5, 10, 50))
    }
    reconstruct = {
        "psnr": (psnr, psnr - 0.2, psnr + 0.2),
        "ssim": 0.95 + 0.02 * index,
        "rfd_digits": 0.03 / (1 + 6 * index) + rng.gauss(0, 3e-4),
    }
    accuracy = 0.97 + rng.gauss(0, 0.004)
    return {
        "reconstruct": (RECONSTRUCTION, reconstruct),
        "probe": (PLAIN, {"probe/accuracy": (accuracy, accuracy - 0.015, accuracy + 0.012), "probe/chance": 0.1}),
        "smoothness": (PLAIN, {**smooth, "smoothness/slope": -0.2}),
        "gmm": (PLAIN, mixtures),
        "throughput": (
            PLAIN,
            {
                "params": 4.2e6 * (1 + index),
                "flops": 1.3e9,
                "images_per_second": 812.0 - 90 * index,
                "peak_memory": 3.1e8,
            },
        ),
    }


def matrix() -> list[Record]:
    found = []
    for index, tokenizer in enumerate(TOKENIZERS):
        for seed in (0, 1):
            for job, (protocol, metrics) in jobs_of(index, seed, random.Random(f"{tokenizer} {seed}")).items():
                found.append(
                    make_record(job=job, tokenizer=tokenizer, seeds=(seed, 0), protocol=protocol, metrics=metrics)
                )
        for column, generator in enumerate(GENERATORS):
            for seed in (0, 1):
                rng = random.Random(f"{tokenizer} {generator} {seed}")
                distance = 0.9 - 0.25 * (1.2 - abs(index - 1)) - 0.09 * column + rng.gauss(0, 0.03)
                seen = 0.86 + 0.03 * column + rng.gauss(0, 0.01)
                metrics = {
                    "gfd_digits": distance,
                    "gfd_digits_floor": 0.037,
                    "gfd_digits_of_heldout": (0.0756, 0.07, 0.09),
                    "class_accuracy_digits": (seen, seen - 0.02, seen + 0.02),
                }
                found.append(
                    make_record(
                        job="generate",
                        tokenizer=tokenizer,
                        generator=generator,
                        seeds=(0, seed),
                        protocol=GENERATION,
                        metrics=metrics,
                    )
                )
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder of records of the matrix, with sheets."""
    return fill(tmp_path / "records")


def fill(folder: Path) -> Path:
    from PIL import Image

    for record in matrix():
        figures = records.write(record, folder).with_suffix("")
        sheet = {"generate": "samples", "reconstruct": "reconstructions"}.get(record.job)
        if sheet:
            figures.mkdir()
            rng = random.Random(record.id)
            picture = Image.new("L", (80, 40))
            picture.putdata([rng.randrange(256) for _ in range(80 * 40)])
            picture.save(figures / f"{sheet}.png")
    return folder


def save_reconstructions(folder: Path, record: Record, pairs: Mapping[str, tuple[Any, Any]]) -> Record:
    """Writes a record, and originals and reconstructions (H, W, 3) uint8 by name, as `reconstruct` does."""
    figures = records.write(record, folder).with_suffix("")
    for name, images in pairs.items():
        for kind, image in zip(("originals", "reconstructions"), images, strict=True):
            write_png(figures / kind / f"{name}.png", image)
    (figures / "images.csv").write_text("image\n")
    return record


def save_samples(
    folder: Path, record: Record, samples: Mapping[tuple[str, int], Any], noise: Mapping[str, int] | None
) -> Record:
    """Writes a record, and samples (H, W, 3) uint8 by class and index, as `generate` does."""
    figures = records.write(record, folder).with_suffix("")
    figures.mkdir(exist_ok=True)
    for (name, index), image in samples.items():
        write_png(figures / "samples" / name / f"{index:06d}.png", image)
    if noise is not None:
        (figures / "noise.json").write_text(json.dumps(noise))
    return record


def write_png(path: Path, image: Any) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
