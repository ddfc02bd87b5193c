"""Whatever stands at a key of a config is run, or refused before any work with a sentence that names the key."""

import math
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, flag_override

import ldbench
from ldbench.pipeline import feature_networks, pipeline
from ldbench.pipeline.config_schema import resolved, validate_config
from ldbench.training import fit

VALUES = (None, -1, 0, 1.5, 1000.0, 10**12, math.nan, "abc", "", [], [1], True, {})
CONFIGS = {
    "vmae + sit": ("train", ["tokenizer=vmae", "generator=sit"]),
    "maetok + lightningdit": ("train", ["tokenizer=maetok", "generator=lightningdit", "guidance=cfg"]),
    "vavae + dit": ("train", ["tokenizer=vavae", "generator=dit", "logger=wandb"]),
}
CONFIGS |= {
    f"job={job}": ("run", [f"job={job}", "tokenizer=identity"])
    for job in (
        *("gmm", "gmm_maetok", "probe", "smoothness", "small_generator", "latents"),
        *("throughput", "reference", "encode"),
    )
}


class WorkBegins(Exception):
    """Raised in place of work."""


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: Any, **__: Any) -> None:
        raise WorkBegins

    monkeypatch.setattr(fit, "fit_module", begin)
    monkeypatch.setattr(feature_networks, "build", begin)
    monkeypatch.setattr(pipeline, "measure_each", begin)


def scalar_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values but mappings; without folders of outputs, which may be called anything, and
    without copies, whose keys are set where they are copied from."""
    for name in node:
        key = f"{prefix}.{name}" if prefix else str(name)
        value = None if OmegaConf.is_missing(node, name) else node[name]
        if OmegaConf.is_interpolation(node, name) and isinstance(value, DictConfig):
            continue
        if isinstance(value, DictConfig) and len(value):
            yield from scalar_keys(value, key)
        elif name != "_target_" and not key.startswith("paths."):
            yield key


def changed(cfg: DictConfig, key: str, value: Any) -> DictConfig:
    copy = cfg.copy()
    with flag_override(copy, ["struct", "readonly"], [False, False]):
        OmegaConf.update(copy, key, value, merge=False)
    return copy


@pytest.mark.parametrize("name", CONFIGS)
def test_values_of_any_type_are_checked_in_every_config(name: str) -> None:
    entry, overrides = CONFIGS[name]
    cfg = ldbench.compose(entry, overrides)
    config = resolved(cfg)
    keys = [key for key in scalar_keys(cfg) if entry == "train" or key.startswith("job.")]
    messages = []
    for key in keys:
        *sections, last = key.split(".")
        section = reduce(getitem, sections, config)
        kept = section.get(last)
        for value in VALUES:
            section[last] = value
            try:
                validate_config(config)
            except ValueError as error:
                messages.append((key, str(error)))
        section[last] = kept
    assert not [message for key, message in messages if not message.startswith(key) or "must" not in message]
    assert len(messages) > 5 * len(keys), "of 13 values for each key"


@pytest.mark.slow
@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", CONFIGS)
def test_no_value_ends_in_a_traceback_or_after_work_began(name: str, tmp_path: Path) -> None:
    entry, overrides = CONFIGS[name]
    cfg = ldbench.compose(entry, [*overrides, f"paths.root={tmp_path}", "trainer.accelerator=cpu"])
    run = pipeline.train if entry == "train" else pipeline.run
    with pytest.raises(WorkBegins):
        run(cfg)
    faults = []
    for key in scalar_keys(cfg):
        for value in VALUES:
            attempt = changed(cfg, key, value)
            try:
                run(attempt)
            except WorkBegins:
                continue
            except (ValueError, OSError) as error:
                if key.rpartition(".")[2] not in str(error):
                    faults.append(f"{key}={value!r} is not named: {error}")
            except Exception as error:
                faults.append(f"{key}={value!r}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)
