"""What every autoencoder of diffusers goes through from its folder: all jobs on latents, and a generator of them."""

from pathlib import Path

import pytest
from tests.tokenizers.diffusers_models import MODELS, saved

import ldbench
from ldbench.pipeline import pipeline
from ldbench.results import records

JOBS = ("encode", "gmm", "probe", "reconstruct", "smoothness", "throughput")
FEW = {
    "gmm": ("dim=4", "min_variance=0.01", "components=2", "restarts=1", "per_class=false"),
    "throughput": ("images=4", "repeats=1"),
    "smoothness": (
        "levels=[0.0,0.1]",
        "num_images=4",
        "num_pairs=2",
        "num_jacobians=2",
        "iterations=2",
        "num_probes=1",
    ),
}


def words(folder: Path, root: Path) -> list[str]:
    data = ["data=shapes", "data.num_train=48", "data.num_test=16", "protocol=default", "trainer.accelerator=cpu"]
    return [
        "tokenizer=diffusers",
        f"tokenizer.weights={folder}",
        "tokenizer.image_size=32",
        *data,
        f"paths.root={root}",
    ]


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("class_name", MODELS)
def test_every_job_and_a_generator_take_it(class_name: str, tmp_path: Path) -> None:
    saved(class_name, tmp_path / "model")
    given = words(tmp_path / "model", tmp_path)
    for job in JOBS:
        few = [f"job.{word}" for word in FEW.get(job, ())]
        pipeline.run(ldbench.compose("run", [f"job={job}", *given, *few]))
    generator = ["generator=sit", "generator.max_steps=2", "generator.batch_size=8", "protocol.num_samples=8"]
    generator += ["sampler.num_steps=2", "protocol.distribution=[]"]
    pipeline.train(ldbench.compose("train", [*given, *generator]))
    names = {records.read(path).job for path in (tmp_path / "records").glob("*.json")}
    assert names >= {"gmm", "probe", "reconstruct", "smoothness", "throughput", "generate"}
