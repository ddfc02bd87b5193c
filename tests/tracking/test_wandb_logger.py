"""Trainings and records in Weights & Biases: real offline runs, read back from disk; and refusals to go online."""

import builtins
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from PIL import Image

from ldbench.config.compose import Registry
from ldbench.pipeline import pipeline, tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.results import records
from ldbench.tracking import wandb_runs
from ldbench.training import fit
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

Compose = Callable[..., DictConfig]

BLOCK, WHOLE, LAST = 32768, 1, 4  # of a run's file
GENERATOR = [
    *("generator=sit", "generator.backbone.width=32", "generator.backbone.depth=1", "generator.backbone.num_heads=2"),
    *("generator.max_steps=3", "generator.batch_size=8", "callbacks.samples.num_images=2", "protocol.num_samples=16"),
]


@dataclass
class Run:
    """What an offline run's file holds."""

    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read(folder: Path) -> Run:
    """A run from its folder, once its end is on disk: `finish` returns a moment before."""
    for _ in range(200):
        run = read_now(folder)
        if run.exit_code is not None:
            break
        time.sleep(0.1)
    return run


def read_now(folder: Path) -> Run:
    """The part of a run that is on disk."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    found = Run()
    for entry in entries(path.read_bytes()):
        record = Record.FromString(entry)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.about = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            found.rows.append(nested(record.history.item, {}))
        elif kind == "summary":
            nested(record.summary.update, found.summary)
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric.summary
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def nested(items: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Items in one dict, each at the nested key that it names."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found


def entries(content: bytes) -> Iterator[bytes]:
    """The entries of a file in LevelDB's log format: blocks of 32 KiB of pieces (checksum, length, kind)."""
    assert content.startswith(b":W&B")
    offset, entry = 7, b""
    while offset + 7 <= len(content):
        if BLOCK - offset % BLOCK < 7:  # no piece starts here
            offset += BLOCK - offset % BLOCK
            continue
        length, kind = int.from_bytes(content[offset + 4 : offset + 6], "little"), content[offset + 6]
        entry += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (WHOLE, LAST):
            yield entry
            entry = b""


def folders(root: Path, *, of_records: bool = False) -> list[Path]:
    """The folders of offline runs below a folder, oldest first: of trainings, or of records."""
    found = [path for path in root.rglob("offline-run-*") if ("records" in path.relative_to(root).parts) is of_records]
    return sorted(found, key=lambda path: path.stat().st_ctime_ns)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, key or server, and no folder outside the test's own."""
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "LDBENCH_SWEEP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    yield
    import wandb

    wandb.teardown()  # it reads the environment once


def test_a_tokenizers_training_is_one_run_with_its_name_its_config_its_figures_and_its_pictures(
    small: Compose, tmp_path: Path
) -> None:
    cfg = small("logger=wandb", "trainer.log_every=1", "callbacks.reconstructions.every=3")
    planned = plan_tokenizer(cfg)
    pipeline.train(cfg)
    (folder,) = folders(tmp_path)
    run = read(folder)
    assert run.about.run_id == f"tokenizer-{planned.digest[:16]}"
    assert run.about.display_name == f"vmae__digits-{planned.digest[:8]}"
    assert (run.about.project, run.about.job_type, run.about.run_group) == ("ldbench", "tokenizer", "")
    assert run.config["artifact"] == {"name": planned.name, "digest": planned.digest}
    assert run.config["tokenizer"]["model"]["component"] == "vmae"
    assert "paths" not in run.config
    assert [row["_step"] for row in run.rows] == list(range(1, 11))  # the optimizer steps of both stages
    losses = [row["train/loss"] for row in run.rows]
    assert run.summary["train/loss"] == {"min": pytest.approx(min(losses)), "last": pytest.approx(losses[-1])}
    assert run.summary["train/images_seen"] == {"last": 4 * 8}  # of its last stage
    assert run.metrics["train/grad_norm"].max
    assert run.metrics["train/grad_norm"].last
    assert run.exit_code == 0
    pictures = {row["_step"]: row["reconstructions"] for row in run.rows if "reconstructions" in row}
    assert set(pictures) == {3, 6, 9, 10}
    for step, image in pictures.items():
        assert image["_type"] == "image-file", "a picture of the run itself, in no table"
        (ours,) = planned.run_folder.glob(f"images/{step:07d}-*.png")
        assert Image.open(folder / "files" / image["path"]).tobytes() == Image.open(ours).tobytes()


@pytest.mark.slow
def test_a_cell_is_two_runs_of_one_group(small: Compose, tmp_path: Path) -> None:
    folder = pipeline.train(small("logger=wandb", "logger.group=matrix", *GENERATOR))
    runs_found = [read(run_folder) for run_folder in folders(tmp_path)]
    assert [run.about.job_type for run in runs_found] == ["tokenizer", "generator"]
    assert {run.about.run_group for run in runs_found} == {"matrix"}
    generator = runs_found[1]
    assert generator.about.display_name == f"vmae__sit__digits-{folder.name.rpartition('-')[2]}"
    assert generator.config["artifact"]["name"] == folder.name
    assert [row["_step"] for row in generator.rows if "samples" in row] == [3]
    assert {"min", "last"} == set(generator.summary["train/loss"])
    sent = {path.name.partition("run-")[2].partition("-")[2]: read(path) for path in folders(tmp_path, of_records=True)}
    written = {path.stem: records.read(path) for path in tmp_path.glob("records/*.json")}
    assert sent.keys() == written.keys()
    for name, run in sent.items():
        record = written[name]
        assert (run.about.job_type, run.about.run_group, run.exit_code) == (record.job, "matrix", 0)
        numbers = {metric: estimate.value for metric, estimate in record.metrics.items()}
        assert {metric: run.summary[metric] for metric in numbers} == pytest.approx(numbers)
        assert run.config["protocol"]["hash"] == record.protocol["hash"]
        assert run.config["artifacts"] == dict(record.artifacts)
    (generated,) = (name for name in sent if name.startswith("generate"))
    assert sent[generated].about.display_name == f"vmae__sit__digits-{written[generated].id[:8]}"
    (reconstructed,) = (name for name in sent if name.startswith("reconstruct"))
    assert sent[reconstructed].summary["psnr_low"] == pytest.approx(written[reconstructed].metrics["psnr"].low)
    assert sent[generated].summary["samples"]["_type"] == "image-file"
    pipeline.train(small("logger=wandb", "logger.group=matrix", *GENERATOR))
    assert len(folders(tmp_path, of_records=True)) == len(sent), "a record that exists is not sent again"


def test_a_record_that_cannot_be_sent_is_kept_with_a_warning(
    small: Compose,
    already: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    already()

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("Weights & Biases takes no online run: gone.")

    monkeypatch.setattr(wandb_runs, "send_record", refuse)
    pipeline.train(small("logger=wandb", "force=true"))
    (path,) = tmp_path.glob("records/*.json")
    assert (
        f"The record is written to {path}, but was not sent. Weights & Biases takes no online run: gone." in caplog.text
    )
    assert "leaderboard wandb=online" in caplog.text


def test_a_sweep_names_its_group_in_the_environment(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small("logger=wandb").logger.group is None
    monkeypatch.setenv("LDBENCH_SWEEP", "2030-01-01")
    assert small("logger=wandb").logger.group == "2030-01-01"


@pytest.mark.slow
def test_an_interrupted_training_continues_the_same_run(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small("logger=wandb", "trainer.log_every=1")
    keep = Checkpoint.on_train_batch_end

    def stop(self: Any, trainer: Any, task: Any, *rest: Any) -> None:
        keep(self, trainer, task, *rest)
        if task.stage.name == "tune" and task.steps == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "on_train_batch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(cfg)
    import wandb

    assert wandb.run is None
    monkeypatch.undo()
    pipeline.train(cfg)
    first, second = (read(folder) for folder in folders(tmp_path))
    assert first.about.run_id == second.about.run_id == plan_tokenizer(cfg).training.id
    assert (first.exit_code, second.exit_code) == (1, 0)
    # from the checkpoint at the second step of the second stage
    assert [row["_step"] for row in second.rows] == [9, 10]
    again = {row["_step"]: row["train/loss"] for row in first.rows}
    assert again[9] == second.rows[0]["train/loss"]


def test_a_training_that_fails_is_a_run_that_failed(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("full")

    monkeypatch.setattr(tokenizer_training, "fit_stage", fail)
    with pytest.raises(RuntimeError, match="full"):
        pipeline.train(small("logger=wandb"))
    (folder,) = folders(tmp_path)
    assert read(folder).exit_code == 1


# with a key wandb tries for ten seconds
@pytest.mark.parametrize("key", [None, pytest.param("a" * 40, marks=pytest.mark.slow)])
def test_online_without_a_key_or_a_server_is_refused_before_any_work_and_without_a_prompt(
    small: Compose, tmp_path, monkeypatch, key
) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("it prompted")

    monkeypatch.setattr("ldbench.tracking.wandb_runs.INIT_TIMEOUT", 0.5)
    monkeypatch.setattr(builtins, "input", ask)
    monkeypatch.setattr("getpass.getpass", ask)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    advice = "WANDB_API_KEY is set: compare it with .+" if key else "Set WANDB_API_KEY"
    with pytest.raises(
        ValueError,
        match=rf"takes no online run: .+\. {advice}, or set logger\.offline=true, which needs no account\.$",
    ) as refused:
        pipeline.train(small("logger=wandb", "logger.offline=false"))
    assert "\n" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"wandb"}


@pytest.mark.slow
def test_a_run_that_cannot_start_is_refused_with_the_same_message(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small("logger=wandb", "logger.offline=false")
    monkeypatch.setattr("ldbench.tracking.wandb_runs.INIT_TIMEOUT", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with (
        pytest.raises(
            ValueError, match=r"^Weights & Biases takes no online run: (?!Weights).+ set logger\.offline=true"
        ),
        fit.open_loggers([cfg.logger], run=Path(cfg.paths.runs), training=plan_tokenizer(cfg).training),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("offline", "environment", "mode"),
    [
        (True, "", "offline"),
        (False, "", "online"),
        (False, "offline", "offline"),
        (True, "online", "offline"),
        (False, "disabled", "disabled"),
    ],
)
def test_of_config_and_environment_the_mode_that_shares_less_counts(
    monkeypatch: pytest.MonkeyPatch, offline: bool, environment: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", environment)
    assert wandb_runs.mode_of(offline) == mode


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ValueError, match=r"WANDB_MODE must be one of disabled, offline, online, got 'ofline'"):
        wandb_runs.validate_login(offline=True)


def test_disabled_leaves_nothing(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    pipeline.train(small("logger=wandb", "logger.offline=false"))
    assert not list(tmp_path.rglob("*run-*"))


def test_other_loggers_get_the_keywords_that_they_take(small: Compose) -> None:
    cfg = small("logger=tensorboard")
    logger = fit.build_logger(cfg.logger, run=Path(cfg.paths.runs), training=plan_tokenizer(cfg).training)
    assert (logger.name, logger.version) == (plan_tokenizer(cfg).name, plan_tokenizer(cfg).digest[:16])


@pytest.mark.parametrize("override", ["logger.offline=maybe", "logger.group=3", "+logger.entitiy=me"])
def test_a_wrong_key_or_value_is_refused_before_any_work(small: Compose, tmp_path: Path, override: str) -> None:
    with pytest.raises(ValueError, match=r"logger\.(offline must be|group must be|entitiy\. Did you mean entity)"):
        pipeline.train(small("logger=wandb", override))
    assert not (tmp_path / "artifacts").exists()


def test_the_loggers_yaml_builds_no_run_by_itself() -> None:
    assert Registry().option("logger", "wandb").offline is True
