"""A cell that is killed (SIGKILL) while it encodes, while its generator trains and while it samples ends as one that is not."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

STAGES: dict[str, Callable[[Path], bool]] = {
    "encoding": lambda root: any(root.glob("artifacts/latents/*/shard-00003.*")),
    "training": lambda root: any(root.glob("runs/sit-*/checkpoints/*")),
    "sampling": lambda root: any(root.glob("records/generate-*/parts/000008-*.npy")),
}
WORDS = ["generator=sit", "generator.max_steps=60", "generator.batch_size=8", "generator.backbone.width=24", "generator.backbone.depth=1"]
WORDS += ["generator.backbone.num_heads=2", "sampler=euler_maruyama", "sampler.num_steps=20", "callbacks.checkpoint.every=5", "latents.shard_size=4"]
WORDS += ["latents.batch_size=4", "jobs.generate.part_size=8", "jobs.generate.batch_size=4", "jobs.generate.save_npz=true", "protocol.num_samples=80"]


def command(root: Path, small_overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "ldbench.train", *small_overrides, *WORDS, f"paths.root={root}"]


def kill_while(there: Callable[[Path], bool], words: list[str], root: Path) -> None:
    """Starts the command and kills it as soon as a stage has begun."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not there(root):
        assert process.poll() is None, "it ended before the stage was seen"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()


def outcome(root: Path) -> dict[str, object]:
    """All that a cell leaves behind, without times."""
    found: dict[str, object] = {}
    for path in sorted(root.glob("artifacts/*/*/*.safetensors")):
        found[str(path.relative_to(root))] = {key: value.tolist() for key, value in load_file(path).items()}
    for path in sorted(root.glob("artifacts/latents/*/manifest.json")):
        found[str(path.relative_to(root))] = json.loads(path.read_text())
    for path in sorted(root.glob("records/*.json")):
        found[path.name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "created"}
    for path in sorted(root.glob("records/*/*")):
        found[str(path.relative_to(root))] = path.read_bytes() if path.suffix in (".png",) else path.name
    return found


@pytest.mark.slow
def test_a_killed_cell_goes_on_and_ends_as_an_unbroken_one(small_overrides: list[str], tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole", small_overrides), check=True, stdout=subprocess.DEVNULL)
    broken = tmp_path / "broken"
    for stage, there in STAGES.items():
        kill_while(there, command(broken, small_overrides), broken)
        assert not any(broken.glob("records/generate-*.json")), f"killed after its {stage}"
    subprocess.run(command(broken, small_overrides), check=True, stdout=subprocess.DEVNULL)
    whole, mended = outcome(tmp_path / "whole"), outcome(broken)
    assert whole.keys() == mended.keys()
    assert len([name for name in whole if name.startswith("artifacts")]) > 10
    assert [name for name in whole if whole[name] != mended[name]] == []
    assert not list(broken.glob("records/*/parts"))
