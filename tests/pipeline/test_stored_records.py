"""Records without a direction or settings get those of the metrics and jobs that are known here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.made_records import make_record

from ldbench.config.compose import Registry
from ldbench.pipeline.stored_records import known_directions, read_records, with_ranking
from ldbench.results import ranking
from ldbench.results.records import Record

TRACKED = Path(__file__).parents[2] / "experiments" / "matrix_digits" / "records"
SCHEMA_1 = Path(__file__).parents[1] / "results" / "schema1"
RANKED = {  # of every job's figures in the tracked records: whether larger values are better
    "generate": {
        **dict.fromkeys(("gfd_digits", "kid_digits"), False),
        **dict.fromkeys(("precision_digits", "recall_digits", "density_digits", "coverage_digits"), True),
        "class_accuracy_digits": True,
    },
    "gmm": {},
    "probe": {"probe/accuracy": True, "probe/knn_accuracy": True},
    "reconstruct": {
        **dict.fromkeys(("mse", "rfd_digits", "kid_digits"), False),
        **dict.fromkeys(("psnr", "ssim", "class_accuracy_digits"), True),
    },
    "smoothness": {},
}
HIGHER = ("psnr", "ssim", "ms_ssim", "inception_score", "precision", "recall", "density", "coverage", "class_accuracy")
LOWER = ("mse", "lpips", "rfid", "gfid", "sfid", "kid")
OTHERS = ("features_vgg16", "gfid_floor", "rfd_dinov2_floor", "kid_floor", "probe/chance", "psnr_dinov2", "params", "")


def older(**fields: object) -> Record:
    return replace(make_record(**fields), higher_is_better=None, settings=None)


def test_every_figure_of_the_tracked_records_is_ranked_as_it_says() -> None:
    ranked: dict[str, dict[str, bool]] = {job: {} for job in RANKED}
    records = read_records(TRACKED)
    assert len(records) == len(list(TRACKED.glob("*.json")))
    for record in records:
        without = replace(record, higher_is_better=None, settings=None)
        assert with_ranking(without).higher_is_better == record.higher_is_better
        ranked[record.job] |= record.higher_is_better or {}
    assert ranked == RANKED


def test_records_of_schema_1_are_ranked_as_their_metrics_are() -> None:
    (generated,) = (record for record in read_records(SCHEMA_1) if record.job == "generate")
    assert (
        not {"higher_is_better", "settings"}
        & json.loads((SCHEMA_1 / f"generate-{generated.id}.json").read_text()).keys()
    )
    assert generated.higher_is_better == RANKED["generate"]


@pytest.mark.parametrize("label", ["dinov2", None])
def test_the_names_of_papers_and_those_on_other_extractors_have_a_direction(label: str | None) -> None:
    known = known_directions(label, Registry())
    assert all(known[name] for name in (*HIGHER, "probe/accuracy", "probe/knn_accuracy", "probe/attentive_accuracy"))
    assert not any(known[name] for name in LOWER)
    assert not known.keys() & set(OTHERS)
    for name in ("inception_score", "precision", "recall", "density", "coverage", "class_accuracy"):
        assert known[f"{name}_{label}"]
    for name in ("rfd", "gfd", "sfd", "kid"):
        assert not known[f"{name}_{label}"]


def test_what_a_record_says_itself_counts() -> None:
    record = replace(make_record(metrics={"psnr": 1.0, "loudness": 2.0}), higher_is_better={"loudness": True})
    assert with_ranking(record) is record


def test_settings_on_which_no_number_depends_do_not_part_records() -> None:
    low, high = (
        with_ranking(older(options={"batch_size": 8}, metrics={"psnr": 30.0})),
        with_ranking(older(tokenizer="vavae", options={"save_images": True}, metrics={"psnr": 40.0})),
    )
    assert [record.id for record, _ in ranking.rank_records([low, high], "psnr")] == [high.id, low.id]


def test_a_record_without_precision_is_of_float32_and_is_not_ranked_with_another() -> None:
    metrics = {"metrics": {"gfd_digits": 1.0}, "job": "generate", "generator": "sit"}
    before, now, half = (
        with_ranking(older(tokenizer=name, options=options, **metrics))
        for name, options in (("vmae", {}), ("vavae", {"precision": "fp32"}), ("maetok", {"precision": "bf16"}))
    )
    assert len(ranking.rank_records([before, now], "gfd_digits")) == 2
    with pytest.raises(ValueError, match="precision"):
        ranking.rank_records([before, half], "gfd_digits")


def test_of_a_job_that_is_not_known_here_every_setting_counts() -> None:
    one, other = (with_ranking(older(job="elsewhere", options={"zeal": zeal})) for zeal in (1, 2))
    assert one.settings is None
    with pytest.raises(ValueError, match=r"settings\.zeal: 1 and 2"):
        ranking.rank_records([one, other], "psnr")
