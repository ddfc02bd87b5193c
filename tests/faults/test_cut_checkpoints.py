"""Truncated checkpoints: the one before is used, or the stage restarts; both are logged, and end the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults import outcome
from tests.faults.processes import run
from tests.faults.stages import Made

CUTS: dict[str, Callable[[int], int]] = {
    "nothing left": lambda size: 0,
    "half": lambda size: size // 2,
    "a byte short": lambda size: size - 1,
}
STAGES = {"tokenizer": ("runs/vmae-*/stages", "pretrain"), "generator": ("runs/sit-*/weights", "generator")}


@pytest.mark.parametrize("both", [False, True], ids=["the newest", "both"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_from_what_can_be_read(
    stage: str, cut: Callable[[int], int], both: bool, made: dict[str, Made], tmp_path: Path
) -> None:
    one, (ends, name) = made[stage].done, STAGES[stage]
    root = one.root
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(one.after, root, symlinks=True)
    for place in (*root.glob(ends), *root.glob(f"artifacts/{stage}s/[!.]*-*")):
        shutil.rmtree(place)
    newest, previous = (next(root.glob(f"runs/*/checkpoints/{name}{suffix}.ckpt")) for suffix in ("", ".previous"))
    for path in (newest, previous) if both else (newest,):
        content = path.read_bytes()
        path.write_bytes(content[: cut(len(content))])
    assert run(one.work(), root, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert f"The checkpoint {newest} cannot be read" in said
    assert "Using the one before it." in said
    assert (f"No checkpoint of stage {name} can be read: it restarts from its beginning." in said) == both
    assert (f"Resuming from {previous}" in said) != both
    assert outcome.differing(one.outcome, outcome.of(root)) == []
