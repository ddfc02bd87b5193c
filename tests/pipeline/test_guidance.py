"""Job `guidance` on a real cell: its protocol is the search, and its numbers are those of job `generate`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ldbench
from ldbench.config.compose import Registry
from ldbench.pipeline import pipeline
from ldbench.results import records

pytestmark = pytest.mark.trains

SEARCH = ["job.scales=[1.0,4.0]", "job.intervals=[[0.0,1.0]]", "job.rungs=[20]"]
CELL = [
    "generator=sit",
    "generator.max_steps=4",
    "generator.batch_size=8",
    "generator.optimizer.warmup_steps=2",
    "generator.backbone.width=24",
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "generator.ema_decays=[0.9,0.1]",
    "generator.exported_decay=0.9",
    "sampler=euler",
    "sampler.num_steps=2",
    "callbacks.samples.num_images=4",
    "protocol.num_samples=20",
    "protocol.extractor=tiny",
    "protocol.distribution=[fd,kid]",
]


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The config groups with an extractor of digits on a network that takes no time."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "extractor").mkdir()
    network = "network: {name: tiny, max_steps: 3, batch_size: 16, data: {subset: 0.1}}"
    (folder / "extractor" / "tiny.yaml").write_text(f"defaults: [digits, _self_]\n{network}\n")
    return Registry((str(folder),))


@pytest.fixture
def guided(
    small_overrides: list[str],
    made_once: Callable[[str, Callable[[Path], object]], Path],
    registry: Registry,
    tmp_path: Path,
) -> Callable[..., None]:
    """Runs a job of a tiny cell whose artifact holds two averages, which was trained once."""

    def fill(root: Path) -> None:
        pipeline.train(ldbench.compose("train", [*small_overrides, *CELL, f"paths.root={root}"]), registry)

    shutil.copytree(made_once("guided_cell", fill), tmp_path, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(tmp_path / "records")

    def run(*overrides: str) -> None:
        pipeline.run(ldbench.compose("run", [*small_overrides, *CELL, f"paths.root={tmp_path}", *overrides]), registry)

    return run


def only(root: Path, job: str) -> records.Record:
    (path,) = (root / "records").glob(f"{job}-*.json")
    return records.read(path)


def test_its_numbers_are_those_of_job_generate_at_the_chosen_setting(guided, tmp_path) -> None:
    guided("job=guidance", *SEARCH)
    tuned = only(tmp_path, "guidance")
    averages = json.loads(next(tmp_path.glob("artifacts/generators/*/manifest.json")).read_text())["averages"]
    assert list(averages) == ["0.1"]
    assert len([name for name in tuned.metrics if name.startswith("guidance/n=20/")]) == 2 * 2
    chosen = {key: tuned.metrics[f"guidance/chosen_{key}"].value for key in ("scale", "low", "high", "average")}
    shutil.rmtree(tmp_path / "records")
    fixed = [*SEARCH, "job.averages=[0.9]", "job.scales=[4.0]"]
    guided("job=guidance", *fixed)
    guided("job=generate", "guidance=cfg", "guidance.scale=4.0")
    alone, generated = only(tmp_path, "guidance").metrics, only(tmp_path, "generate").metrics
    assert {name: value for name, value in alone.items() if not name.startswith("guidance/")} == generated
    assert chosen["scale"] in (1.0, 4.0)
    assert chosen["average"] in (0.9, 0.1)
    assert tuned.protocol["guidance"]["tuned"]["scales"] == [1.0, 4.0]
    assert "scale" not in tuned.protocol["guidance"]["tuned"]


def test_the_protocol_is_the_search_and_not_what_it_found(guided, tmp_path) -> None:
    settings = ["job=guidance", *SEARCH, "job.averages=[0.9]"]
    guided(*settings)
    first = only(tmp_path, "guidance")
    shutil.rmtree(tmp_path / "records")
    guided(*settings, "seed=1")  # another generator, tuned by the same search
    other = only(tmp_path, "guidance")
    assert first.artifacts["generator"] != other.artifacts["generator"]
    assert first.protocol["hash"] == other.protocol["hash"]
    shutil.rmtree(tmp_path / "records")
    guided(*settings, "job.rungs=[30]")
    assert only(tmp_path, "guidance").protocol["hash"] != first.protocol["hash"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator.class_dropout=0"], r"generator\.class_dropout=0 trains no network without labels"),
        (["job.target=kid_digits"], r"job\.target=kid_digits is none of the metrics .* has fd, kid"),
        (
            ["protocol.extractor=null", "protocol.distribution=[]"],
            r"This protocol has none: choose one with an extractor",
        ),
        (["job.labels=[1]"], r"labels=\[1\]: samples of a few classes are only shown"),
        (["job.rungs=[5]"], r"job\.rungs must be a list of increasing numbers of samples from 20 on"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_before_any_training(
    small_overrides, registry, overrides, message
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.run(
            ldbench.compose("run", ["job=guidance", *small_overrides, *CELL, *overrides, "paths.root=/none"]), registry
        )


def test_an_average_that_is_not_stored_is_named(guided) -> None:
    with pytest.raises(ValueError, match=r"no average with the decay 0\.7, but 0\.9, 0\.1\. Choose of these"):
        guided("job=guidance", *SEARCH, "job.averages=[0.7]")


def test_a_guide_counts_by_its_content_wherever_it_lies(guided, tmp_path) -> None:
    generator = next(tmp_path.glob("artifacts/generators/*/manifest.json")).parent
    protocols = []
    for place in ("here", "elsewhere/there"):
        shutil.copytree(generator, tmp_path / place / generator.name)
        guided("job=generate", "guidance=autoguidance", f"guidance.guide={tmp_path / place / generator.name}")
        protocols.append(only(tmp_path, "generate").protocol)  # the second finds the record of the first
    assert protocols[0] == protocols[1]
    assert str(tmp_path) not in json.dumps(protocols)
