"""The validator: a line for each fault, and a verdict."""

import json
from pathlib import Path

import pytest

from ldbench.results import records
from ldbench.results.validator import validate_folder


def test_every_fault_of_every_record_has_a_line(make, tmp_path: Path) -> None:
    records.write(make(tokenizer="vavae"), tmp_path)
    path = records.write(make(metrics={"psnr": 3.0, "ssim": 0.5}), tmp_path)
    content = json.loads(path.read_text())
    content["metrics"]["psnr"]["value"] = "much"
    content["metrics"]["ssim"]["low"] = 1
    content |= {"created": 5, "extra": 1, "seeds": {}}
    del content["config"]
    path.write_text(json.dumps(content))
    (tmp_path / "generate-01.json").write_text("[")
    (tmp_path / ".generate-02.json.3.tmp").write_text("")
    verdict = validate_folder(tmp_path, "theirs")
    assert verdict.summary == "7 faults in 3 records."
    first, *rest = verdict.faults
    assert first.startswith("generate-01.json: the file is not JSON")
    assert all(line.startswith(f"{path.name}: ") and "\n" not in line for line in rest)
    assert [line.removeprefix(f"{path.name}: ").split()[0] for line in rest] == [
        *("config", "extra", "metrics.psnr.value", "metrics.ssim.low", "created", "seeds")
    ]


def test_valid_records_are_counted(make, tmp_path: Path) -> None:
    records.write(make(), tmp_path)
    assert validate_folder(tmp_path, "theirs").summary == "1 record valid."
    assert not validate_folder(tmp_path, "theirs").faults


def test_a_folder_without_records_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records in theirs: validate=DIR takes a folder with files such as"):
        validate_folder(tmp_path, "theirs")
