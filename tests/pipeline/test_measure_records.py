"""python -m ldbench.run job=predict: from a folder of records to a record, and nothing twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from tests import made_records

import ldbench
from ldbench.pipeline import get_generator, get_tokenizer, pipeline
from ldbench.results import records, reports, store, validation

FEW = ["job.resamples=100", "job.permutations=100"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of six tokenizers and two generators."""
    folder = tmp_path / "records"
    for place in range(6):
        said = {"tokenizer": f"t{place}"}
        records.write(
            made_records.make_record(**said, metrics={"psnr": 20.0 + place, "rfd_digits": 1.0 / (1 + place)}), folder
        )
        records.write(
            made_records.make_record(
                **said, job="probe", protocol=made_records.PLAIN, metrics={"probe/accuracy": 0.9 - place % 3 / 10}
            ),
            folder,
        )
        for generator in ("sit", "dit"):
            drawn = {"job": "generate", "generator": generator, "protocol": made_records.GENERATION}
            made = made_records.make_record(**said, **drawn, metrics={"gfd_digits": 0.5 - place / 20})
            records.write(made, folder)
    return folder


def predict(root: Path, *overrides: str) -> DictConfig:
    return ldbench.compose("run", ["job=predict", f"paths.root={root}", *FEW, *overrides])


def predictions(folder: Path) -> list[Path]:
    return sorted(folder.glob("predict-*.json"))


def test_it_reads_records_alone_and_leaves_a_sound_record(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for module, name in (
        (pipeline, "get_tokenizer"),
        (get_tokenizer, "get_tokenizer"),
        (get_generator, "get_generator"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("something was obtained"))
    assert pipeline.run(predict(tmp_path)) == folder
    (path,) = predictions(folder)
    record = validation.read_validated(path)
    assert record.subject == {"tokenizer": None, "generator": "dit sit", "data": "digits"}
    assert len(record.artifacts) == 6
    assert record.metrics["predict/spearman/sit/psnr"].value == pytest.approx(1.0)
    assert record.metrics["predict/spearman/mean rank/rfd_digits"].value == pytest.approx(1.0)
    assert {file.name for file in path.with_suffix("").iterdir()} == {"prediction.png", "prediction.json"}
    assert "what predicts gfd_digits of sit" in capsys.readouterr().out
    assert not (tmp_path / "artifacts").exists()


def test_what_is_known_is_not_measured_again_and_new_records_make_another(folder: Path, tmp_path: Path) -> None:
    pipeline.run(predict(tmp_path))
    (path,) = predictions(folder)
    before = path.stat().st_mtime_ns
    pipeline.run(predict(tmp_path))
    assert path.stat().st_mtime_ns == before
    pipeline.run(predict(tmp_path, "force=true"))
    assert predictions(folder) == [path]
    assert path.stat().st_mtime_ns > before
    records.write(
        made_records.make_record(
            tokenizer="t0", job="probe", protocol=made_records.PLAIN, metrics={"probe/x": 1.0}, settings={"seed": 1}
        ),
        folder,
    )
    pipeline.run(predict(tmp_path))
    assert len(predictions(folder)) == 2


def test_a_further_study_corrects_the_first_one_again(folder: Path, tmp_path: Path) -> None:
    pipeline.run(predict(tmp_path))
    first = validation.read_validated(predictions(folder)[0])
    key = "predict/p_holm/sit/psnr"
    assert key in first.metrics
    for place in range(6):
        drawn = {"job": "generate", "generator": "sit", "protocol": made_records.protocol_of(num_samples=500)}
        made = made_records.make_record(tokenizer=f"t{place}", **drawn, metrics={"gfd_digits": 0.5 - place / 20})
        records.write(made, folder)
    pipeline.run(predict(tmp_path))
    made = [validation.read_validated(path) for path in predictions(folder)]
    again = [record for record in made if record.protocol == first.protocol and record.id != first.id]
    assert len(made) == 3
    assert again[0].metrics[key].value > first.metrics[key].value
    assert again[0].metrics["predict/p/sit/psnr"] == first.metrics["predict/p/sit/psnr"]


def test_the_leaderboard_shows_its_newest_table_and_ranks_it_on_no_board(folder: Path, tmp_path: Path) -> None:
    before = len(
        reports.build_report(store.read_all(folder), folder, tmp_path, "none", made_records.SHOWN).leaderboards
    )
    pipeline.run(predict(tmp_path))
    found = store.read_all(folder)
    report = reports.build_report(found, folder, tmp_path, "none", made_records.SHOWN)
    assert len(report.leaderboards) == before
    assert sum("what predicts gfd_digits" in table.title for table in report.tables) == 3
    (tmp_path / "out").mkdir()
    files = {file.suffix: file.read_text() for file in report.write(tmp_path / "out")}
    assert "what predicts gfd" in files[".md"]
    assert "what predicts gfd" in files[".tex"]


def test_without_records_and_with_too_few_it_says_what_to_do(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"There are no records in .*this job starts from them"):
        pipeline.run(predict(tmp_path / "empty"))
    for path in folder.glob("generate-*.json"):
        if records.read(path).subject["tokenizer"] in ("t0", "t1"):
            path.unlink()
    with pytest.raises(
        ValueError, match=r"needs at least 5 tokenizers.*\n.*gfd_digits of dit.*4 tokenizers \(t2, t3, t4, t5\)"
    ):
        pipeline.run(predict(tmp_path))
    assert predictions(folder) == []


def test_a_training_does_not_take_it_among_its_jobs(small: Callable[..., DictConfig]) -> None:
    with pytest.raises(ValueError, match=r"jobs\.predict starts from records.*python -m ldbench.run job=predict"):
        pipeline.train(small("+job@jobs.predict=predict"))
