"""GPU and CPU agree: tokenizers, generators under every sampler, extractors, and the records of every job."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tests.faults.stages import TINY
from torch import Tensor, nn

import ldbench
from ldbench.checks import machine
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.data.latents.store import LatentStore
from ldbench.metrics.extractors import NetworkFeatures
from ldbench.pipeline import pipeline
from ldbench.pipeline.generator_plan import build_generator
from ldbench.runtime.device import device_name, find_device
from ldbench.sampling.noise import NoiseStream

CUDA = torch.device("cuda")
TOKENIZERS = [*sorted(set(Registry().targets("tokenizer"))), "vmae_f8d16", "maetok_b_128", "vavae_f16d32"]
GENERATORS = ("dit", "sit", "lightningdit", "maetok_sit_xl_1")
SAMPLERS = sorted(Registry().options("sampler"))
FEW = {"num_steps": 6, "respacing": "6"}
SIT = [
    "generator=sit",
    "generator.max_steps=20",
    "generator.batch_size=8",
    "generator.backbone.width=24",
    "generator.backbone.depth=1",
]
SIT += ["generator.backbone.num_heads=2", "sampler=euler_maruyama", "sampler.num_steps=8"]
SETS = ["protocol=digits", "protocol.extractor=tiny", "protocol.num_samples=64"]
JOBS = {  # -> how far its figures may lie apart, as a share of the CPU's
    "reconstruct": 1e-3,
    "generate": 0.02,
    "gmm": 1e-3,
    "smoothness": 5e-3,
    "probe": 5e-3,
}


def apart(here: Tensor, there: Tensor) -> float:
    """The distance of two tensors, as a share of the length of one."""
    return float((here - there.cpu()).norm() / here.norm())


@pytest.mark.parametrize("name", TOKENIZERS)
@torch.no_grad()
def test_a_tokenizer_says_the_same(name: str) -> None:
    cfg = ldbench.compose("train", [f"tokenizer={name}"])
    torch.manual_seed(0)
    tokenizer = instantiate(cfg.tokenizer.model, image_size=cfg.tokenizer.image_size).eval()
    images = torch.rand(2, 3, cfg.tokenizer.image_size, cfg.tokenizer.image_size) * 2 - 1
    z = tokenizer.encode(images).mean
    decoded = tokenizer.decode(z)
    tokenizer.to(CUDA)
    assert apart(z, tokenizer.encode(images.to(CUDA)).mean) < 1e-4
    assert apart(decoded, tokenizer.decode(z.to(CUDA))) < 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", GENERATORS)
@torch.no_grad()
def test_a_generator_carries_the_same_noise_to_the_same_latents(name: str, sampler: str) -> None:
    cfg = ldbench.compose(
        "train",
        [f"generator={name}", *(f"generator.backbone.{word}" for word in ("width=24", "depth=1", "num_heads=2"))],
    )
    torch.manual_seed(0)
    latent = LatentSpec(16, 8, (4, 4))
    generator = build_generator(cfg, latent, num_classes=6).eval()
    for parameter in generator.backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    generator.normaliser = Normalizer.from_scale(0.5, channels=8)
    node = Registry().option("sampler", sampler)
    made = instantiate({**node, **{key: few for key, few in FEW.items() if key in node}})
    guidance = instantiate(Registry().option("guidance", "cfg"))
    try:
        generator.check(made, guidance)
    except ValueError as refused:
        pytest.skip(str(refused))
    stream, y = NoiseStream(0, range(4)), torch.arange(4)
    noise = stream.normal(0, (4, 16, 8))
    here = generator.sample(noise, y, made, guidance, stream=stream)
    there = generator.to(CUDA).sample(noise.to(CUDA), y.to(CUDA), made, guidance, stream=stream)
    assert there.device.type == "cuda"
    assert apart(here, there) < 1e-3


def test_an_extractor_sees_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = instantiate(Registry().option("network", "digits").model, image_size=32, num_classes=10).eval()
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    here = NetworkFeatures(network=network).extract(images).features
    there = NetworkFeatures(network=network.to(CUDA)).extract(images.to(CUDA)).features
    assert apart(here, there) < 1e-4


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, small_overrides: list[str]) -> Callable[..., DictConfig]:
    """A tokenizer and a generator that were trained on the device; composes jobs of them."""
    root = tmp_path_factory.mktemp("cell")
    for name, text in TINY.items():
        (root / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "own" / name).write_text(text)
    words = [word for word in small_overrides if not word.startswith(("trainer.accelerator", "protocol="))]

    def compose(entry: str, *said: str) -> DictConfig:
        return ldbench.compose(
            entry, [*words, *SIT, *SETS, f"paths.root={root}", *said], searchpath=[str(root / "own")]
        )

    pipeline.train(
        compose("train", "trainer.accelerator=cuda", "~jobs.reconstruct", "~jobs.generate"), [str(root / "own")]
    )
    compose.own = str(root / "own")  # type: ignore[attr-defined]
    return compose


@pytest.mark.parametrize("job", JOBS)
def test_a_job_measures_the_same(job: str, cell: Callable[..., DictConfig], tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        cfg = cell("run", f"job={job}", f"trainer.accelerator={device}", f"paths.records={tmp_path / device}")
        pipeline.run(cfg, [cell.own])  # type: ignore[attr-defined]
        (record,) = (tmp_path / device).glob(f"{job}-*.json")
        found[device] = {key: value["value"] for key, value in json.loads(record.read_text())["metrics"].items()}
    assert found["cpu"].keys() == found["cuda"].keys()
    far = {
        key: (value, found["cuda"][key])
        for key, value in found["cpu"].items()
        if abs(value - found["cuda"][key]) > JOBS[job] * abs(value) + 1e-4
    }
    assert not far


def test_encoded_latents_are_the_same_up_to_rounding(cell: Callable[..., DictConfig], tmp_path: Path) -> None:
    stores = {}
    for device in ("cpu", "cuda"):
        words = [
            f"paths.artifacts={tmp_path / device}",
            f"paths.records={tmp_path / device}",
            f"trainer.accelerator={device}",
        ]
        (tmp_path / device).mkdir()
        (tmp_path / device / "tokenizers").symlink_to(Path(cell("run").paths.artifacts) / "tokenizers")
        pipeline.run(cell("run", "job=encode", "job.dtype=fp32", *words), [cell.own])  # type: ignore[attr-defined]
        (folder,) = (path for path in (tmp_path / device / "latents").iterdir() if path.is_dir())
        stores[device] = LatentStore.open(folder)
    (here, y), (there, same_y) = (
        store.batch(torch.arange(64), seed=0, step=0) for store in (stores["cpu"], stores["cuda"])
    )
    assert torch.equal(y, same_y)
    assert apart(here, there) < 1e-4


def test_what_a_training_costs_is_told_with_memory_and_utilisation(
    cell: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = cell(
        "run",
        "job=throughput",
        "job.steps=3",
        "trainer.accelerator=cuda",
        "trainer.precision=bf16",
        f"paths.records={tmp_path}",
    )
    pipeline.run(cfg, [cell.own])  # type: ignore[attr-defined]
    (path,) = tmp_path.glob("throughput-*.json")
    record = json.loads(path.read_text())
    assert record["protocol"]["machine"] == f"{device_name(CUDA)}, bf16"
    shares = {key: value["value"] for key, value in record["metrics"].items() if key.startswith("utilisation/")}
    assert shares.keys() >= {"utilisation/backbone", "utilisation/sample"}
    assert all(0 < share < 1 for share in shares.values())


def test_auto_is_the_graphics_processor_and_the_doctor_names_it() -> None:
    assert find_device("auto").type == "cuda"
    (finding,) = machine.check_cuda()
    assert finding.level == "ok"
    assert torch.cuda.get_device_name() in finding.what
    assert "tf32" in finding.what


def test_more_devices_than_there_are_are_refused_before_work_begins(
    cell: Callable[..., DictConfig], tmp_path: Path
) -> None:
    count = torch.cuda.device_count() + 1
    cfg = cell("train", "trainer.accelerator=cuda", f"trainer.devices={count}", f"paths.root={tmp_path}")
    with pytest.raises(ValueError, match=rf"trainer\.devices={count}.*{count - 1}"):
        pipeline.train(cfg, [cell.own])  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
