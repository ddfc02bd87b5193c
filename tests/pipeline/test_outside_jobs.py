"""A job from outside the project: the facts that its constructor asks for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

import ldbench
from ldbench.config.compose import Registry
from ldbench.pipeline import pipeline
from ldbench.results import records

Compose = Callable[..., DictConfig]


JOB = '''
"""A job that counts."""
from ldbench.core.estimate import Estimate


class Count:
    name, revision, requires, settings = "count", 1, frozenset(), ("factor",)

    def __init__(self, *, {asked}, factor: int, offset: int = 0):
        self.number = factor * len(images) + offset

    @staticmethod
    def check(settings):
        assert settings["factor"] > 0

    @staticmethod
    def output_files(settings):
        return ()

    def run(self, out):
        return {{"count": Estimate(float(self.number))}}
'''


def foreign_job(tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    module = f"counting_{asked.replace(', ', '_')}"
    (tmp_path / f"{module}.py").write_text(JOB.format(asked=asked))
    (tmp_path / "conf" / "job").mkdir(parents=True)
    (tmp_path / "conf" / "job" / "count.yaml").write_text(f"_target_: {module}.Count\nfactor: 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return [str(tmp_path / "conf")]


def test_a_job_from_outside_gets_the_facts_that_its_constructor_asks_for(
    small_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searchpath = foreign_job(tmp_path, "images", monkeypatch)
    cfg = ldbench.compose("run", [*small_overrides, f"paths.root={tmp_path}", "job=count"], searchpath=searchpath)
    pipeline.run(cfg, Registry(tuple(searchpath)))
    (path,) = (tmp_path / "records").glob("*.json")
    record = records.read(path)
    assert record.metrics["count"].value == 2 * 360
    assert record.protocol["split"] == "test"
    assert "pixel_rule" not in record.protocol


def test_a_job_that_asks_for_what_nobody_knows_is_refused(
    small_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searchpath = foreign_job(tmp_path, "images, weather", monkeypatch)
    cfg = ldbench.compose("run", [*small_overrides, f"paths.root={tmp_path}", "job=count"], searchpath=searchpath)
    with pytest.raises(
        ValueError, match=r"asks for weather, which its yaml does not set\. A job may ask for: compiled, data, device"
    ):
        pipeline.run(cfg, Registry(tuple(searchpath)))
