"""Studies: which records are held against each other, and what is never mixed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ldbench.results.records import Record, protocol_hash
from ldbench.results.studies import build_studies, tokenizers_of

Make = Callable[..., Record]
NAMES = ("a", "b", "c")


def protocol(**fields: object) -> dict:
    fields = {"name": "digits", "data": "images", **fields}
    return {**fields, "hash": protocol_hash(fields)}


DRAWN = protocol(num_samples=1000)


def cell(make: Make, tokenizer: str, distance: float, **fields: object) -> Record:
    fields = {"generator": "sit", "protocol": DRAWN, **fields}
    return make(
        job="generate",
        tokenizer=tokenizer,
        metrics={"gfd_digits": distance, "gfd_digits_floor": 0.1, "recall_digits": 0.5},
        **fields,
    )


def own(make: Make, tokenizer: str, psnr: float, **fields: object) -> Record:
    return make(
        tokenizer=tokenizer,
        metrics={"psnr": psnr, "rfd_digits_floor": 0.1},
        **{"protocol": protocol(split="test"), **fields},
    )


def test_a_study_lays_the_quality_of_generators_beside_what_was_measured_of_their_tokenizers(make: Make) -> None:
    records = [
        record
        for place, name in enumerate(NAMES)
        for record in (cell(make, name, place / 10), own(make, name, 30.0 + place))
    ]
    stranger = own(make, "d", 99.0)  # no generator has its latents
    (study,) = build_studies([*records, stranger], None)
    assert study.target == "gfd_digits"
    assert study.quality == {"sit": {"a": 0.0, "b": 0.1, "c": 0.2}}
    assert study.measured == {"psnr": {"a": 30.0, "b": 31.0, "c": 32.0}}, "floors are no measurements of a tokenizer"
    assert study.tokenizers == list(NAMES)
    assert {record.id for record in study.records} == {record.id for record in records}
    assert study.artifacts == {name: [records[2 * place].artifacts["tokenizer"]] for place, name in enumerate(NAMES)}


def test_protocols_and_images_are_never_mixed(make: Make) -> None:
    records = [cell(make, "a", 0.1), cell(make, "b", 0.2, protocol=protocol(num_samples=500)), own(make, "a", 30.0)]
    records += [
        own(make, "a", 50.0, protocol=protocol(split="test", data="other images")),
        own(make, "a", 60.0, data="shapes"),
    ]
    first, second = sorted(build_studies(records, None), key=lambda study: study.tokenizers)
    assert (first.tokenizers, second.tokenizers) == (["a"], ["b"])
    assert first.measured == {"psnr": {"a": 30.0}}
    assert second.measured == {}


def test_seeds_of_tokenizers_and_generators_are_averaged_and_the_newest_counts(make: Make) -> None:
    records = [
        cell(make, "a", 0.1, seeds=(0, 0)),
        cell(make, "a", 0.3, seeds=(0, 1)),
        cell(make, "a", 0.8, seeds=(1, 0)),
        cell(make, "a", 9.9, seeds=(1, 0), created="2025-01-01T00:00:00+00:00"),
        own(make, "a", 30.0, seeds=(0, 0)),
        own(make, "a", 34.0, seeds=(1, 0)),
    ]
    (study,) = build_studies(records, "gfd_digits")
    assert study.quality["sit"]["a"] == pytest.approx(0.5), (
        "the tokenizer's second seed counts as much as the first, whose generator has two"
    )
    assert study.measured["psnr"]["a"] == pytest.approx(32.0)
    assert len(study.artifacts["a"]) == 2
    assert len(study.records) == 5, "the superseded one is not used"


def test_recipes_of_one_name_are_tokenizers_of_their_own(make: Make) -> None:
    records = [own(make, "a", 30.0), own(make, "a", 31.0, recipe={"losses": {"kl": None}}), own(make, "b", 32.0)]
    names = tokenizers_of(records)
    assert len(set(names.values())) == 3
    assert names[records[2].artifacts["tokenizer"]] == "b"
    assert all(names[record.artifacts["tokenizer"]] == record.artifacts["tokenizer"] for record in records[:2]), (
        "named by their artifacts"
    )


def test_an_artifact_that_is_named_by_its_path_is_the_tokenizer_that_was_trained(make: Make) -> None:
    trained = own(make, "a", 30.0)
    stored = own(make, "a", 31.0, recipe={"path": "somewhere"}, created="2026-12-01T00:00:00+00:00")
    stored = Record(
        **{
            **vars(stored),
            "artifacts": trained.artifacts,
            "models": trained.models,
            "subject": {**trained.subject, "tokenizer": "renamed"},
        }
    )
    other = own(make, "a", 33.0, seeds=(1, 0))
    assert set(tokenizers_of([stored, trained, other]).values()) == {"a"}


def test_generators_of_one_name_and_two_recipes_are_two(make: Make) -> None:
    first, second = cell(make, "a", 0.1), cell(make, "b", 0.2, design={"max_steps": 5})
    (study,) = build_studies([first, second], None)
    assert len(study.quality) == 2
    assert all(name.startswith("sit-") for name in study.quality)


def test_a_trial_run_beside_the_full_one_is_refused_naming_both_until_one_is_left_out(make: Make) -> None:
    records = [cell(make, "a", 0.1), cell(make, "b", 0.2), own(make, "a", 30.0), own(make, "b", 31.0)]
    trial = own(make, "a", 7.0, recipe={"trial": True})  # another digest
    trial_cell = cell(make, "a", 9.0, recipe={"trial": True})
    short = [
        replace(found, config={**records[0].config, "trainer": {"workers": 0, "limit_steps": 2}})
        for found in (trial, trial_cell)
    ]
    names = [records[0].artifacts["tokenizer"], trial.artifacts["tokenizer"]]
    with pytest.raises(
        ValueError, match="two models of the tokenizer a, which differ in how they were trained alone"
    ) as refused:
        build_studies([*records, *short], None)
    assert all(name in str(refused.value) for name in names)
    assert "trainer.limit_steps: " in str(refused.value)
    (study,) = build_studies([*records, *short], None, exclude=[names[1]])
    assert study.quality == {"sit": {"a": 0.1, "b": 0.2}}
    assert study.measured == {"psnr": {"a": 30.0, "b": 31.0}}
    with pytest.raises(ValueError, match=r"job\.exclude names nothing-1, and no record is of an artifact of that name"):
        build_studies(records, None, exclude=["nothing-1"])


def test_a_trial_run_of_a_generator_is_refused_too(make: Make) -> None:
    records = [cell(make, "a", 0.1), cell(make, "b", 0.2), own(make, "a", 30.0)]
    trials = [
        replace(found, config={**records[0].config, "trainer": {"workers": 0, "limit_steps": 2}})
        for found in (cell(make, name, 9.0, design={"trial": True}) for name in ("a", "b"))
    ]
    trials = [replace(found, config={**found.config, "generator": records[0].config["generator"]}) for found in trials]
    with pytest.raises(ValueError, match=r"two models of the generator sit, .*trainer\.limit_steps: ") as refused:
        build_studies([*records, *trials], None)
    excluded = trials[0].artifacts["generator"]
    assert excluded in str(refused.value)
    (study,) = build_studies([*records, *trials], None, exclude=[excluded])
    assert study.quality == {"sit": {"a": 0.1, "b": 0.2}}


def test_a_family_is_an_architecture_however_its_tokenizers_were_opened(make: Make) -> None:
    trained = [cell(make, name, 0.1, component="vmae" if name != "c" else "autoencoder") for name in NAMES]
    opened = [replace(record, config={**record.config, "tokenizer": {"path": "DIR"}}) for record in trained]
    for records in (trained, opened, [*trained[:1], *opened[1:]]):
        (study,) = build_studies(records, None)
        assert sorted(study.families.values()) == ["autoencoder", "vmae", "vmae"]


def test_measurements_are_joined_by_the_weights(make: Make) -> None:
    """Two machines train one recipe with one seed: what was measured of one is not held against the other's cells."""
    early, late = "2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"
    records = [
        cell(make, "a", 0.1, machine="first", created=early),
        own(make, "a", 30.0, machine="first", created=early),
        cell(make, "a", 0.9, machine="second", created=late),
        cell(make, "b", 0.2),
        own(make, "b", 31.0),
    ]
    (study,) = build_studies(records, None)
    assert study.quality == {"sit": {"a": 0.9, "b": 0.2}}
    assert study.measured == {"psnr": {"b": 31.0}}
    (study,) = build_studies([*records, own(make, "a", 33.0, machine="second", created=early)], None)
    assert study.measured == {"psnr": {"a": 33.0, "b": 31.0}}


def test_what_was_measured_in_two_ways_has_two_names(make: Make) -> None:
    records = [
        cell(make, "a", 0.1),
        *(own(make, "a", psnr, protocol=protocol(split=split)) for psnr, split in ((30.0, "test"), (31.0, "train"))),
    ]
    (study,) = build_studies(records, None)
    assert sorted(value["a"] for value in study.measured.values()) == [30.0, 31.0]
    assert all(name.startswith("psnr [") for name in study.measured)
    assert {study.made[name].protocol["split"] for name in study.measured} == {"test", "train"}


def test_another_target_is_taken_by_name_and_there_may_be_none(make: Make) -> None:
    records = [cell(make, "a", 0.1), own(make, "a", 30.0)]
    (study,) = build_studies(records, "recall_digits")
    assert study.quality == {"sit": {"a": 0.5}}
    assert build_studies(records, "gfid") == []
