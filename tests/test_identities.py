"""Identities of artifacts, protocols and records are pinned: a change of code that keeps all numbers keeps all names.

`identities.json` holds every digest, hash and id, and the first losses of a short training of each family. A change
that alters numbers raises a revision; `LDBENCH_PIN_IDENTITIES=1 python -m pytest -n0 tests/test_identities.py` then
updates the file.
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec
from ldbench.data.latents.awaited import AwaitedLatents
from ldbench.data.tensor_latents import TensorLatents
from ldbench.pipeline import generator_training, measure, tokenizer_plan, tokenizer_training
from ldbench.pipeline.generator_plan import GeneratorPlan, plan_generator
from ldbench.pipeline.job_context import EvaluationTarget, required_inputs
from ldbench.pipeline.pipeline import get_protocol
from ldbench.pipeline.tokenizer_plan import Plan, plan_tokenizer
from ldbench.pipeline.trained_model import TrainedModel
from ldbench.results import records
from ldbench.results.protocol import SPLITS
from ldbench.training import fit

ROOT = Path(__file__).parents[1]
PINNED = Path(__file__).parent / "identities.json"
RECORDS = ROOT / "experiments" / "matrix_digits" / "records"
JOBS = ("reconstruct", "generate", "gmm", "smoothness", "probe")  # of the matrix on digits
GENERATORS = ("dit", "sit", "lightningdit")
PAPERS = (  # recipes of tokenizers, then of generators
    *("vmae_imagenet256", "vmae_imagenet256_paper", "vmae_celebahq256"),
    *("maetok_imagenet256", "maetok_imagenet256_script", "maetok_imagenet512", "maetok_tinyimagenet"),
    *("vavae_imagenet256", "vavae_imagenet256_dinov2", "vavae_imagenet256_ldm", "vavae_imagenet256_mae"),
    *(
        "lightningdit_xl_1_vavae_64ep",
        "lightningdit_xl_1_vavae_800ep",
        "lightningdit_b_1_vmae_imagenet256",
        "lightningdit_b_1_vmae_celebahq256",
    ),
    *("sit_xl_1_maetok", "dit_xl_1_maetok", "sit_xl_2_sdvae", "dit_xl_2_sdvae"),
)
SHORT = [
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.limit_steps=3",
    "trainer.log_every=1",
    "data.subset=0.05",
]
FAMILIES = ("vmae", "maetok", "vavae")


def pinned(kind: str, found: Mapping[str, Any]) -> None:
    """Compares values with the file, or updates the file if LDBENCH_PIN_IDENTITIES is set."""
    held = json.loads(PINNED.read_text()) if PINNED.is_file() else {}
    if os.environ.get("LDBENCH_PIN_IDENTITIES"):
        PINNED.write_text(json.dumps({**held, kind: dict(found)}, indent=1, sort_keys=True) + "\n")
        return
    changed = {name: (held[kind].get(name), value) for name, value in found.items() if held[kind].get(name) != value}
    assert not changed, f"{kind} (before, now): {changed}"
    assert found.keys() == held[kind].keys()


def plan_without_memory(cfg: DictConfig) -> Plan:
    """The plan of a recipe, whose networks need no memory."""
    with pytest.MonkeyPatch.context() as patch:
        check = tokenizer_plan.final_latent

        def on_no_memory(*parts: Any) -> LatentSpec:
            with torch.device("meta"):
                return check(*parts)

        patch.setattr(tokenizer_plan, "final_latent", on_no_memory)
        return plan_tokenizer(cfg)


def latents_of(cfg: DictConfig, data: Any, latent: LatentSpec, name: str, digest: str) -> AwaitedLatents:
    """The latents of a tokenizer with this digest, of which nothing else counts."""
    encoder = instantiate(
        cfg.latents,
        tokenizer=SimpleNamespace(latent=latent),
        tokenizer_name=name,
        tokenizer_digest=digest,
        tokenizer_key=digest,
        data=data,
        latents=Path("latents"),
        workers=0,
        device=torch.device("cpu"),
    )
    return AwaitedLatents(encoder.contents("train"), latent=latent, seed=cfg.seed, make=lambda: pytest.fail("encodes"))


def generator_plan(cfg: DictConfig, tokenizer: Plan) -> GeneratorPlan:
    return plan_generator(cfg, latents_of(cfg, tokenizer.data, tokenizer.latent, tokenizer.name, tokenizer.digest))


def with_stand_ins(node: Any, folder: Path) -> None:
    """Gives every node of weights a small file of its own."""
    entries = (
        [entry for _, entry in node.items_ex(resolve=False)]
        if isinstance(node, DictConfig)
        else node._iter_ex(resolve=False)
    )
    for value in entries:
        if isinstance(value, DictConfig) and value.get("_target_") == "ldbench.weights.read_weights":
            given = "given" if OmegaConf.is_missing(value, "source") else str(value.source)
            path = folder / f"{''.join(filter(str.isalnum, given))}.pt"
            path.write_text(given)
            value.source = str(path)
        elif OmegaConf.is_config(value):
            with_stand_ins(value, folder)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated images in ImageNet's layout, the same bytes everywhere."""
    root = tmp_path_factory.mktemp("stand_in")
    rng = torch.Generator().manual_seed(0)
    for split, label, place in product(("train", "val"), ("a", "b"), range(2)):
        path = root / split / label / f"{place}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (12, 12, 3), generator=rng, dtype=torch.uint8)
        path.write_bytes(b"P6 12 12 255\n" + pixels.numpy().tobytes())
    return root


@cache
def digits_tokenizers() -> dict[str, Plan]:
    """The plans of all tokenizers that fit the digits, by name."""
    names = [name for name in Registry().options("tokenizer") if name != "artifact"]
    sizes = {name: ldbench.compose("train", [f"tokenizer={name}"]) for name in names}
    return {
        name: plan_without_memory(cfg) for name, cfg in sizes.items() if cfg.tokenizer.image_size == cfg.data.image_size
    }


def test_digests_of_tokenizers_on_digits() -> None:
    found = {name: planned.digest for name, planned in digits_tokenizers().items()}
    assert {*FAMILIES} <= found.keys()
    pinned("digits_tokenizers", found)


@pytest.mark.slow
def test_digests_of_generators_on_digits() -> None:
    found = {}
    for tokenizer, generator in [
        *product(FAMILIES, GENERATORS),
        *((name, "sit") for name in digits_tokenizers() if name not in FAMILIES),
    ]:
        cfg = ldbench.compose("train", [f"tokenizer={tokenizer}", f"generator={generator}"])
        found[f"{tokenizer} {generator}"] = generator_plan(cfg, digits_tokenizers()[tokenizer]).digest
    pinned("digits_generators", found)


def test_digests_of_recipes_of_papers(images: Path, tmp_path: Path) -> None:
    found = {}
    for name in PAPERS:
        cfg = ldbench.compose("train", [f"experiments={name}", f"data.root={images}"])
        with_stand_ins(cfg, tmp_path)
        if cfg.data.name == "tinyimagenet":
            cfg.data.layout = "classes"
        if "name" in cfg.get("generator", {}):
            data = SimpleNamespace(
                name="stand_in", num_classes=1000, fingerprint="0" * 64, image_size=256, label_safe_flips=True
            )
            latent = LatentSpec(128, 32) if "maetok" in name else LatentSpec(256, 32, (16, 16))
            cfg.generator.stats = 0.5
            found[name] = plan_generator(cfg, latents_of(cfg, data, latent, "stand_in", "1" * 64)).digest
        else:
            found[name] = plan_without_memory(cfg).digest
    assert len(found) >= 10
    pinned("papers", found)


def test_hashes_of_protocols(tmp_path: Path) -> None:
    found = {}
    data = SimpleNamespace(fingerprint="0" * 64)
    cfg = ldbench.compose("run", ["generator=sit", "trainer.accelerator=cpu", "trainer.threads=1"])
    OmegaConf.set_struct(cfg, False)
    for name, job in product(Registry().options("protocol"), Registry().options("job")):
        cfg.protocol, cfg.job = Registry().option("protocol", name), Registry().option("job", job)
        asked = required_inputs(cfg.job)
        if "metrics" not in asked and "sets" not in asked and "distances" not in asked:
            continue
        extractors = {cfg.protocol.extractor, *cfg.protocol.ratio_extractors}
        for component in [*cfg.protocol.reconstruction, *extractors]:
            group = "extractor" if component in extractors else "metric"
            if component is not None and "weights" in Registry().option(group, component):
                path = tmp_path / f"{component}.pt"
                path.write_text(component)
                cfg.protocol.weights[component] = str(path)
        if cfg.protocol.reference not in SPLITS:
            cfg.protocol.reference = str(tmp_path / "reference.npz")
            Path(cfg.protocol.reference).write_text("reference")
        protocol, _ = measure.merge_overrides(cfg.job, get_protocol(cfg))
        found[f"{name} {job}"] = measure.describe(cfg, data, protocol, asked, Registry())["hash"]
    assert {row.split()[0] for row in found} == Registry().options("protocol").keys()
    pinned("protocols", found)


def planned_model(folder: Path, digest: str) -> TrainedModel:
    """A model that is not trained yet, with weights that stand in for its own."""
    model = TrainedModel(folder, digest)
    vars(model)["content_key"] = digest
    return model


def matrix_targets() -> Iterator[tuple[DictConfig, str, EvaluationTarget]]:
    """Each measurement of the matrix: its config, job and target."""
    for tokenizer, generator in product(FAMILIES, GENERATORS):
        planned = digits_tokenizers()[tokenizer]
        added = [f"+job@jobs.{job}={job}" for job in JOBS if job not in ("reconstruct", "generate")]
        cfg = ldbench.compose("train", [f"tokenizer={tokenizer}", f"generator={generator}", *added])
        made = generator_plan(cfg, planned)
        for job in JOBS:
            models = (planned_model(planned.folder, planned.digest), planned_model(made.folder, made.digest))
            yield cfg, job, EvaluationTarget(planned.data, *models).restricted_to_job(cfg.jobs[job])


def test_ids_of_the_records_of_the_matrix() -> None:
    found = {}
    for cfg, job, target in matrix_targets():
        protocol, node = measure.merge_overrides(cfg.jobs[job], get_protocol(cfg))
        described = measure.describe(cfg, target.data, protocol, required_inputs(node), Registry())
        features = "0" * 64 if described.get("extractor") else None
        names = "  ".join(entry.name for entry in target.artifacts.values())
        found[f"{job} {names}"] = measure.record_identity(cfg, target, node, described["hash"], features)
    pinned("records", found)


def test_the_records_of_the_matrix_are_of_the_recipes_of_today() -> None:
    held = [json.loads(path.read_text()) for path in RECORDS.glob("*.json")]
    assert {record["schema"] for record in held} == {records.SCHEMA}
    first = [record for record in held if not any(record["seeds"].values())]
    found = {(record["job"], *record["artifacts"].values()) for record in first}
    planned = {(job, *(entry.name for entry in target.artifacts.values())) for _, job, target in matrix_targets()}
    assert planned <= found


def losses_of(run: Path) -> list[float]:
    """The losses of the first three steps in a training's log."""
    rows = [
        line.split(",")
        for path in sorted(run.glob("log/version_*/metrics.csv"))
        for line in path.read_text().splitlines()
    ]
    header, *rest = rows
    column = header.index(next(name for name in header if name.endswith("/loss")))
    return [float(row[column]) for row in rest if row[column]][:3]


@pytest.fixture(scope="session")
def first_losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Of a short seeded training of each family, on one thread."""
    torch.set_num_threads(1)
    found, root = {}, tmp_path_factory.mktemp("first_losses")

    def compose(*overrides: str) -> DictConfig:
        cfg = ldbench.compose("train", [*overrides, *SHORT, f"paths.root={root}"])
        cfg.callbacks = {}
        return cfg

    for name in FAMILIES:
        planned = plan_tokenizer(
            compose(f"tokenizer={name}", *(["~tokenizer.losses.alignment"] if name == "vavae" else []))
        )
        tokenizer_training.train_stages(planned)
        found[name] = losses_of(planned.run_folder)
    for name in GENERATORS:
        rng = torch.Generator().manual_seed(0)
        z = TensorLatents(
            torch.randn(50, 16, 4, generator=rng), torch.arange(50) % 5, latent=LatentSpec(16, 4, (4, 4)), num_classes=5
        )
        made = plan_generator(compose(f"generator={name}"), z)
        with fit.torch_threads(1):
            generator_training.fit_generator(made, None)
        found[name] = losses_of(made.run_folder)
    return found


@pytest.mark.trains
def test_first_losses_of_each_family(first_losses: dict[str, list[float]]) -> None:
    if os.environ.get("LDBENCH_PIN_IDENTITIES"):
        return pinned("first_losses", first_losses)
    held = json.loads(PINNED.read_text())["first_losses"]
    assert first_losses.keys() == held.keys()
    for name, losses in first_losses.items():
        assert len(losses) == 3
        assert losses == pytest.approx(held[name], rel=1e-4), name
