"""Job `predict`: signs, refusals, several generators, and its output files."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldbench.core.estimate import Estimate
from ldbench.io.files import digest
from ldbench.jobs.predict import FIGURE, NUMBERS, Predict
from ldbench.results.predictions import MEAN_RANK, SHOWN, prediction_tables, predictions_by_generator
from ldbench.results.records import Record, protocol_hash

SETTINGS: dict[str, Any] = {
    "target": None,
    "predictors": ["psnr", "rfd_digits"],
    "exclude": [],
    "resamples": 100,
    "permutations": 100,
    "seed": 0,
}
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "probe/accuracy": True, "rfd_digits": False, "gfd_digits": False}
NAMES = ("a", "b", "c", "d", "e", "f")
MEASURED = {
    "psnr": (10.0, 20.0, 30.0, 40.0, 50.0, float("inf")),  # better, and generation worse
    "rfd_digits": (6.0, 5.0, 4.0, 3.0, 2.0, 1.0),  # better, and generation worse
    "gmm/nll_per_dim/k=5": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0),  # no direction declared: larger, and generation worse
    "probe/accuracy": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4),  # better, and generation better
    "probe/chance": (0.1,) * 6,
    "params": (4.0,) * 6,  # the same for all
}


def record(index: int, metrics: Mapping[str, float], generator: str | None = None, **fields: Any) -> Record:
    settings = {"name": "digits", "data": "images", **fields}
    return Record(
        id=digest([index, sorted(metrics), generator])[:16],
        job="reconstruct" if generator is None else "generate",
        subject={"tokenizer": NAMES[index], "generator": generator, "data": "digits"},
        metrics={name: Estimate(value) for name, value in metrics.items()},
        protocol={**settings, "hash": protocol_hash(settings)},
        artifacts={"tokenizer": f"{NAMES[index]}-01234567"}
        | ({} if generator is None else {"generator": f"{generator}-{index}"}),
        config={
            "tokenizer": {"name": NAMES[index], "seed": 0},
            **({} if generator is None else {"generator": {"name": generator}}),
        },
        environment={},
        created="2026-11-24T16:13:24+00:00",
        higher_is_better={name: HIGHER_IS_BETTER[name] for name in metrics if name in HIGHER_IS_BETTER},
        settings={},
        models={"tokenizer": digest(NAMES[index])} | ({} if generator is None else {"generator": digest(generator)}),
        seeds={"tokenizer": 0} | ({} if generator is None else {"generator": 0}),
    )


def records_of(**qualities: tuple[float, ...]) -> list[Record]:
    """Every measurement of six tokenizers, and generators with their distances."""
    cells = [
        record(index, {"gfd_digits": gfd}, name)
        for name, values in qualities.items()
        for index, gfd in enumerate(values)
    ]
    return [
        *cells,
        *(record(index, {name: values[index] for name, values in MEASURED.items()}) for index in range(len(NAMES))),
    ]


RISING = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def run(records: list[Record], out: Path) -> dict[str, Estimate]:
    (study,) = Predict.studies(records, SETTINGS)
    return dict(Predict(study=study, **{**SETTINGS, "target": study.target}).run(out))


def test_positive_signs_mean_better_generation(tmp_path: Path) -> None:
    metrics = run(records_of(sit=RISING), tmp_path)
    rho = {
        name.removeprefix("predict/spearman/sit/"): e.value
        for name, e in metrics.items()
        if name.startswith("predict/spearman/")
    }
    assert rho == {"psnr": -1, "rfd_digits": -1, "gmm/nll_per_dim/k=5": -1, "probe/accuracy": 1}
    assert metrics["predict/kendall/sit/probe/accuracy"] == Estimate(1.0), "six families are too few for an interval"
    assert metrics["predict/p/sit/psnr"].value == pytest.approx(2 / 720), "two orders of 720 are as strong"
    assert metrics["predict/p_holm/sit/psnr"].value == pytest.approx(2 * 2 / 720), "two were named in advance"
    assert "predict/p_holm/sit/probe/accuracy" not in metrics
    assert metrics["predict/tokenizers/sit/psnr"].value == 6
    assert metrics["predict/families/sit/psnr"].value == 6


def test_the_rule_is_over_all_generators_and_studies(tmp_path: Path) -> None:
    drawn = {"num_samples": 500}
    other = [record(index, {"gfd_digits": gfd}, "sit", **drawn) for index, gfd in enumerate(RISING)]
    studies = Predict.studies([*records_of(sit=RISING, dit=RISING), *other], SETTINGS)
    assert [study.num_tests for study in studies] == [2 * 3 + 2] * 2, "two generators and their mean rank, and one"
    found = Predict(study=studies[0], **{**SETTINGS, "target": "gfd_digits"}).run(tmp_path)
    named = [estimate.value for name, estimate in found.items() if name.startswith("predict/p_holm/")]
    assert named
    assert all(p == pytest.approx(8 * 2 / 720) for p in named)


def test_variants_of_one_architecture_are_a_family(tmp_path: Path) -> None:
    records = records_of(sit=RISING)
    for place, found in enumerate(records):
        kind = "one" if found.subject["tokenizer"] in "abc" else "two"
        records[place] = replace(found, components={"tokenizer": kind})
    metrics = run(records, tmp_path)
    assert metrics["predict/families/sit/psnr"].value == 2
    assert metrics["predict/p/sit/psnr"].value == pytest.approx(2 / 36), "six orders in each family"


def test_all_numbers_are_in_a_json_beside_a_figure_with_reasons_for_omissions(tmp_path: Path) -> None:
    records = records_of(sit=RISING)
    few = [record(index, {"ssim": index / 10}, split="few") for index in range(4)]
    run([*records, *few], tmp_path)
    assert (tmp_path / FIGURE).read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / NUMBERS).read_text())
    assert numbers["measured"]["psnr"]["f"] == "inf"
    assert numbers["quality"]["sit"]["b"] == 2.0
    assert numbers["predictions"]["sit"]["psnr"]["spearman"]["value"] == -1
    assert numbers["left_out"]["sit"]["params"].startswith("the same for all")
    assert numbers["left_out"]["sit"]["ssim"] == "4 of the 6 tokenizers have it; missing: e, f"
    assert len(numbers["records"]) == len(records) + len(few)


def test_the_paths_of_a_generator_are_related_to_its_own_quality(tmp_path: Path) -> None:
    cells = records_of(sit=RISING, dit=RISING)
    for place, found in enumerate(cells):
        if found.job == "generate":
            sign = 1 if found.subject["generator"] == "sit" else -1
            straight = Estimate(sign * found.metrics["gfd_digits"].value)
            cells[place] = replace(found, metrics={**found.metrics, "path/straightness": straight})
    (study,) = Predict.studies(cells, {**SETTINGS, "predictors": ["psnr", "path/straightness"]})
    assert study.num_tests == 3 + 2, "the mean rank has no paths"
    predict = Predict(study=study, **{**SETTINGS, "predictors": ["psnr", "path/straightness"], "target": "gfd_digits"})
    found = predict.run(tmp_path)
    rho = {name: found[f"predict/spearman/{name}/path/straightness"].value for name in ("sit", "dit")}
    assert rho == {"sit": -1, "dit": 1}
    assert found["predict/p_holm/sit/path/straightness"].value == pytest.approx(5 * 2 / 720)
    assert f"predict/spearman/{MEAN_RANK}/path/straightness" not in found


def test_what_some_tokenizers_lack_is_exploratory_even_if_it_was_named(tmp_path: Path) -> None:
    five = [record(index, {"ssim": index / 10}) for index in range(5)]
    settings = {**SETTINGS, "predictors": ["psnr", "ssim"]}
    (study,) = Predict.studies([*records_of(sit=RISING), *five], settings)
    assert study.num_tests == 1
    found = Predict(study=study, **{**settings, "target": study.target}).run(tmp_path)
    assert found["predict/tokenizers/sit/ssim"].value == 5
    assert "predict/p_holm/sit/ssim" not in found
    assert "predict/p_holm/sit/psnr" in found


def test_with_several_generators_the_mean_rank_is_predicted_too(tmp_path: Path) -> None:
    metrics = run(records_of(sit=RISING, dit=(2.0, 1.0, 3.0, 4.0, 5.0, 6.0)), tmp_path)
    generators = {name.split("/")[2] for name in metrics}
    assert generators == {"sit", "dit", MEAN_RANK}
    assert metrics["predict/kendall/dit/probe/accuracy"].value == pytest.approx(13 / 15), (
        "one of fifteen pairs is the other way round"
    )
    assert metrics[f"predict/kendall/{MEAN_RANK}/probe/accuracy"].value == pytest.approx(14 / (15 * 14) ** 0.5), (
        "the two share a mean rank"
    )


@pytest.mark.parametrize("lost", [2, 6])
def test_below_five_tokenizers_it_refuses_with_what_exists_and_what_is_missing(lost: int) -> None:
    records = [
        r for r in records_of(sit=RISING) if r.subject["generator"] is None or r.subject["tokenizer"] in NAMES[lost:]
    ]
    if lost == 6:
        with pytest.raises(ValueError, match="No record contains gfid or gfd_<extractor> of generated images"):
            Predict.studies(records, SETTINGS)
        return
    records = [r for r in records if r.subject["generator"] is not None or r.subject["tokenizer"] != "c"]
    with pytest.raises(
        ValueError,
        match=r"needs at least 5 tokenizers.*\ngfd_digits of sit on digits, protocol .*: 4 tokenizers \(c, d, e, f\)",
    ) as error:
        Predict.studies(records, SETTINGS)
    assert "without a record of reconstruct: c." in str(error.value)


def test_a_generator_of_too_few_tokenizers_is_left_out_where_another_has_enough() -> None:
    (study,) = Predict.studies(records_of(sit=RISING, dit=RISING[:4]), SETTINGS)
    assert list(study.quality) == ["sit"]


def test_an_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"No record contains gfid of.*Records of generated images contain gfd_digits\."
    ):
        Predict.studies(records_of(sit=RISING), {**SETTINGS, "target": "gfid"})
    floored = records_of(sit=RISING)
    floored[0] = replace(floored[0], metrics={**floored[0].metrics, "gfd_digits_floor": Estimate(0.1)})
    with pytest.raises(ValueError, match=r"gfd_digits_floor of generated images, and which of its values are better"):
        Predict.studies(floored, {**SETTINGS, "target": "gfd_digits_floor"})
    for settings in ({"target": 5}, {"resamples": 1}, {"permutations": 1}, {"predictors": "psnr"}, {"exclude": [1]}):
        with pytest.raises(ValueError, match=r"job\.(target|resamples|permutations|predictors|exclude)"):
            Predict.check({**SETTINGS, **settings})
    Predict.check(SETTINGS)


def test_its_table_shows_the_strongest_with_their_intervals_and_how_many_were_tried(tmp_path: Path) -> None:
    metrics = run(records_of(sit=RISING), tmp_path)
    base = record(0, {}, "sit")
    predicted = Record(
        **{**vars(base), "job": "predict", "metrics": metrics, "config": {"job": {"target": "gfd_digits"}}}
    )
    (table,) = prediction_tables([predicted, base], HIGHER_IS_BETTER)
    assert table.title.startswith("digits: what predicts gfd_digits of sit, protocol digits ")
    assert [label for (label,), _ in table.rows] == [
        "psnr ↑",
        "rfd_digits ↓",
        "gmm/nll_per_dim/k=5",
        "probe/accuracy ↑",
    ]
    assert [cell.value for cell in table.rows[0][1]] == ["-1.000", "-1.000", "0.005556", "0.002778", "6", "6"]
    assert [cell.value for cell in table.rows[3][1]] == ["1.000", "1.000", "exploratory", "0.002778", "6", "6"]
    assert table.notes[0].startswith(
        "2 measurements were named before looking, of which 2 are beyond chance at 0.05; 2 others are exploratory."
    )
    assert "Too few families for an interval: eight are needed." in table.notes
    untestable = {
        name: Estimate(1.0) if name.startswith(("predict/p", "predict/smallest_p")) else estimate
        for name, estimate in metrics.items()
    }
    (bare,) = prediction_tables([Record(**{**vars(predicted), "metrics": untestable}), base], HIGHER_IS_BETTER)
    assert [cell and cell.value for cell in bare.rows[0][1]] == ["-1.000", "-1.000", None, None, "6", "6"]
    assert any(note.startswith("Without p: too few tokenizers share a family") for note in bare.notes)
    assert not any("Without p" in note for note in table.notes)
    many = {
        f"predict/{s}/sit/m{i}": Estimate(i / 50)
        for i in range(40)
        for s in ("spearman", "kendall", "p", "tokenizers", "families")
    }
    (long,) = prediction_tables([Record(**{**vars(predicted), "metrics": many, "config": {"job": None}})], {})
    assert long.title.startswith("digits: what predicts None of sit")
    assert len(long.rows) == SHOWN
    assert long.rows[0][0] == ["m39"]
    assert predictions_by_generator({"psnr": Estimate(1.0), "predict/spearman/sit": Estimate(1.0)}, {}) == {}
