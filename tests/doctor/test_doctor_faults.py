"""Planted faults are found, each with a cure that works; services are reached only on request."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tests.fixtures import Answer
from torch import nn

import ldbench
from ldbench import doctor
from ldbench.artifacts import store, weights
from ldbench.artifacts.building import building_lock
from ldbench.checks import installation, machine
from ldbench.checks.finding import Finding
from ldbench.config.compose import Registry
from ldbench.core.estimate import Estimate
from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import MANIFEST, Contents
from ldbench.data.latents.writing import StoreWriter
from ldbench.io.files import mark_outputs, read_json, write_json
from ldbench.results import records

DIGEST = "0123abcd" * 8


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid root: a tokenizer, its latents, a record with its figures, a folder of images, a cache of weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(installation, "check_torchvision", lambda: [])
    monkeypatch.setattr(machine, "judge_space", lambda folder, free: Finding("ok", "disk", "enough"))
    folder = tmp_path / "artifacts" / "tokenizers" / "vmae-0123abcd"
    store.save(
        nn.Linear(2, 2), folder, store.Blueprint("tokenizer", "vmae", {}), recipe={}, digest=DIGEST, provenance={}
    )
    fields: dict[str, Any] = {
        "tokenizer_digest": DIGEST,
        "tokenizer_key": store.content_key(folder),
        "data": "digits",
        "num_classes": 10,
        "fingerprint": "ab",
        "split": "train",
    }
    contents = Contents(
        tokenizer="vmae-0123abcd", flips=False, dtype="fp32", precision="fp32", preprocessing={}, **fields
    )
    writer = StoreWriter(
        tmp_path / "artifacts" / "latents" / "vmae", contents, latent=LatentSpec(2, 3), num_images=5, shard_size=3
    )
    for shard in writer.missing():
        count = len(writer.shard_images(shard))
        writer.write(shard, torch.randn(count, 2, 2, 3), torch.zeros(count, dtype=torch.int64))
    writer.finish()
    protocol = {"name": "digits", "hash": records.protocol_hash({})}
    text = {
        "subject": {"tokenizer": "vmae", "generator": None, "data": "digits"},
        "protocol": protocol,
        "created": "2026-11-24T16:13:24+00:00",
    }
    empty: dict[str, Any] = {name: {} for name in ("artifacts", "config", "environment", *records.BY_ROLE)}
    path = records.write(
        records.Record(id="01", job="reconstruct", metrics={"psnr": Estimate(20.0)}, **text, **empty),
        tmp_path / "records",
    )
    path.with_suffix("").mkdir()
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "pets" / label / f"{i}.png")
    return tmp_path


def composed(root: Path, overrides: Sequence[str] = ()) -> DictConfig:
    return ldbench.compose(
        "doctor",
        [f"paths.root={root}", "trainer.accelerator=cpu", "data=folder", f"data.root={root / 'pets'}", *overrides],
    )


def problems(root: Path, overrides: Sequence[str] = ()) -> list[Finding]:
    """All findings that are not ok."""
    return [
        finding
        for _, check in doctor.build_checks(composed(root, overrides), Registry())
        for finding in check()
        if finding.level != "ok"
    ]


def removal(finding: Finding) -> str:
    """The command of a cure."""
    found = re.search(r"(?:^|: |: To |, or )((?:rm|mv) [^,;.]*(?:\.[^,;. ]+[^,;]*)*)", finding.cure)
    assert found, finding.cure
    return found[1].strip()


def bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def unfinished(root: Path) -> None:
    shutil.copytree(root / "artifacts" / "tokenizers" / "vmae-0123abcd", root / "artifacts" / "tokenizers" / "vmae-99")
    (root / "artifacts" / "tokenizers" / "vmae-99" / store.MANIFEST).unlink()


def of_an_unknown_component(root: Path) -> None:
    blueprint = store.Blueprint("tokenizer", "stranger", {})
    store.save(
        nn.Linear(2, 2),
        root / "artifacts" / "tokenizers" / "stranger-1",
        blueprint,
        recipe={},
        digest="1",
        provenance={},
    )


def other_statistics(root: Path) -> None:
    path = root / "artifacts" / "latents" / "vmae" / MANIFEST
    text = read_json(path)
    text["statistics"]["mean"] = [9.0, 9.0, 9.0]
    write_json(path, text)


def without_the_tokenizer(root: Path) -> None:
    shutil.rmtree(root / "artifacts" / "tokenizers" / "vmae-0123abcd")


def changed_record(root: Path) -> None:
    path = root / "records" / "reconstruct-01.json"
    path.write_text(path.read_text().replace("20.0", '"twenty"'))


def stopped_while_storing(root: Path) -> None:
    (root / "artifacts" / "tokenizers" / ".building-x1").mkdir()


def cut_short_download(root: Path) -> None:
    path = weights.cached(weights.INCEPTION)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")


@dataclass(frozen=True)
class Fault:
    """A fault and its one finding, at this level. Its cure is a command that is run, or an override."""

    plant: Callable[[Path], object]
    level: str
    subject: str
    what: str
    override: str | None = None  # that the cure names, if it is not a command


STORE = "artifacts/latents/vmae"
FAULTS = {
    "an unfinished artifact": Fault(unfinished, "warning", "artifacts", "vmae-99 has no manifest.json"),
    "a bit flipped in weights": Fault(
        lambda root: bit_flipped(root / "artifacts/tokenizers/vmae-0123abcd/weights.safetensors"),
        *("broken", "artifacts", "weights.safetensors is not what the manifest says"),
    ),
    "an artifact of an unknown component": Fault(
        of_an_unknown_component,
        "warning",
        "artifacts",
        "stranger-1 cannot be checked: its tokenizer, the plug-in 'stranger', is not known here",
    ),
    "an artifact that was being stored": Fault(
        stopped_while_storing, "warning", "artifacts", ".building-x1 was left by a process"
    ),
    "a store with a missing shard": Fault(
        lambda root: (root / STORE / "shard-00001.safetensors").unlink(),
        "broken",
        "latents",
        "shard-00001.safetensors is missing",
    ),
    "a store with a bit flipped": Fault(
        lambda root: bit_flipped(root / STORE / "shard-00001.safetensors"),
        "broken",
        "latents",
        "shard-00001.safetensors was altered",
    ),
    "a store with a short shard": Fault(
        lambda root: (root / STORE / "shard-00000.safetensors").write_bytes(b"short"),
        "broken",
        "latents",
        "has 5 bytes, but its manifest has",
    ),
    "a store of another tokenizer": Fault(
        without_the_tokenizer,
        "warning",
        "latents",
        "is of the tokenizer vmae-0123abcd (",
    ),
    "statistics that do not fit": Fault(
        other_statistics, "broken", "latents", "its statistics differ from the total of its shards"
    ),
    "what only building the latents needed": Fault(
        lambda root: (root / STORE / "plan.json").touch(), "warning", "latents", "has 1 file"
    ),
    "an invalid record": Fault(
        changed_record, "broken", "records", "metrics.psnr.value must be a number, 'inf' or '-inf'; got 'twenty'"
    ),
    "a foreign file among records": Fault(
        lambda root: (root / "records" / "notes.txt").write_text("mine"), "warning", "records", "notes.txt is no record"
    ),
    "figures without their record": Fault(
        lambda root: (root / "records" / "probe-02").mkdir(),
        "warning",
        "records",
        "probe-02 is a folder without its record",
    ),
    "weights cut short in the cache": Fault(
        cut_short_download, "broken", "weights", "(the Inception-v3 of FID) was altered or cut short"
    ),
    "a broken image": Fault(
        lambda root: (root / "pets" / "cat" / "0.png").write_text("no picture"),
        "broken",
        "data",
        "cat/0.png: It is not an image",
        "data.on_error=skip",
    ),
}


def test_a_valid_root_has_no_problems(root: Path) -> None:
    assert problems(root) == []


@pytest.mark.parametrize(
    "folder", ["records", "artifacts/tokenizers", "artifacts/latents", "artifacts/features", "runs"]
)
def test_locks_markers_and_scratch_files_of_ldbench_itself_are_no_problem(folder: str, root: Path) -> None:
    with building_lock(root / folder / "vmae-0123abcd"):
        pass
    (root / folder / ".vmae-0123abcd.lock").touch()  # on some systems the lock is removed on release
    mark_outputs(root / folder)
    (root / folder / f".reconstruct-01.json.{os.getpid()}.tmp").touch()  # this process is writing it
    for path in (root / folder).glob(".*"):
        os.utime(path, (0, 0))
    assert problems(root) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_and_its_cure_works(fault: Fault, root: Path) -> None:
    fault.plant(root)
    found = [finding for finding in problems(root) if fault.what in finding.what]
    assert [(finding.level, finding.subject) for finding in found] == [(fault.level, fault.subject)], problems(root)
    assert "\n" not in found[0].what
    if fault.override is not None:
        assert fault.override in found[0].cure
        assert not [finding for finding in problems(root, [fault.override]) if fault.what in finding.what]
    else:
        subprocess.run(removal(found[0]), shell=True, check=True, cwd=root)
        assert not [finding for finding in problems(root) if fault.what in finding.what]


def test_ten_faults_at_once_are_ten_findings_and_status_1(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    together = [
        "an unfinished artifact",
        "an artifact of an unknown component",
        "an artifact that was being stored",
        "statistics that do not fit",
    ]
    together += [
        "an invalid record",
        "a foreign file among records",
        "figures without their record",
        "a broken image",
    ]
    together += ["weights cut short in the cache"]
    for name in together:
        FAULTS[name].plant(root)
    overrides = ["trainer.precision=fp16"]
    found = problems(root, overrides)
    assert len(found) == 10
    assert all(finding.cure for finding in found)
    assert all(len([finding for finding in found if FAULTS[name].what in finding.what]) == 1 for name in together)
    caplog.set_level(logging.INFO)
    with pytest.raises(SystemExit) as ended:
        doctor.run(composed(root, overrides), Registry())
    assert ended.value.code == 1
    assert caplog.messages[-1] == "\n5 broken, 5 warnings."


def test_an_artifact_of_a_plugin_is_sound_where_its_config_folder_is_given(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of_an_unknown_component(root)
    caplog.set_level(logging.INFO)
    with pytest.raises(SystemExit) as ended:
        doctor.run(composed(root), Registry())
    assert ended.value.code == 0, caplog.text
    assert "Give its config folder, hydra.searchpath=[file://DIR], or install it" in caplog.text
    (root / "plugin" / "tokenizer").mkdir(parents=True)
    (root / "plugin" / "tokenizer" / "stranger.yaml").write_text("_target_: stranger.Stranger\n")
    caplog.clear()
    with pytest.raises(SystemExit):
        doctor.run(composed(root), Registry((f"file://{root / 'plugin'}",)))
    assert "stranger" not in caplog.text
    assert "2 artifacts in" in caplog.text


def test_a_root_that_cannot_be_written_is_cured_by_another(root: Path, tmp_path: Path) -> None:
    (root / "elsewhere").write_text("in the way")
    found = [finding for finding in problems(root, [f"paths.root={root / 'elsewhere'}"]) if finding.subject == "disk"]
    assert {finding.level for finding in found} == {"broken"}
    assert "paths.root=DIR" in found[0].cure
    assert not [finding for finding in problems(root) if finding.subject == "disk"]


def test_the_cure_of_old_packages_is_a_command_of_pip(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "requires", lambda name: ["hydra-core>=99", "no-such-package>=1"])
    found = [finding for finding in problems(root) if finding.subject == "packages"]
    assert [finding.cure for finding in found] == ['pip install "hydra-core>=99"', 'pip install "no-such-package>=1"']


def test_data_without_a_size_and_data_with_skipped_images_are_checked(root: Path) -> None:
    text = [
        finding
        for _, check in doctor.build_checks(composed(root), Registry())
        for finding in check()
        if finding.subject == "data"
    ]
    assert [(finding.level, finding.what) for finding in text] == [
        ("ok", "folder: 10 training and 2 test images of 2 classes")
    ]
    (root / "pets" / "cat" / "4.png").write_text("no picture")
    (skipped,) = [finding for finding in problems(root, ["data.on_error=skip"]) if finding.subject == "data"]
    assert "1 cannot be read (first: cat/4.png)" in skipped.what
    shutil.rmtree(root / "pets")
    (gone,) = [finding for finding in problems(root) if finding.subject == "data"]
    assert (gone.level, gone.cure) == (
        "broken",
        "Set it to the one that holds train/ and val/, or one folder per class.",
    )


def test_no_service_is_contacted_unless_it_is_named(root: Path, server, monkeypatch: pytest.MonkeyPatch) -> None:
    address, asked, _ = server
    for variable in ("WANDB_BASE_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(variable, address)
    assert problems(root) == []
    assert asked == []
    assert problems(root, ["reach=[wandb,hub]"]) == []
    assert len(asked) == 2
    with pytest.raises(ValueError, match=r"reach takes a list of wandb and hub, got .*reach=\[wandb,hub\]"):
        problems(root, ["reach=[git]"])


def test_a_wrong_override_ends_with_2(answer: Answer, tmp_path: Path) -> None:
    wrong = answer(doctor, "reach=hub", cwd=tmp_path)
    assert (wrong.returncode, "reach takes a list of wandb and hub" in wrong.stderr) == (2, True)
