"""Models: seeds are one model, and digests distinguish models of one name."""

from dataclasses import replace

import pytest

from ldbench.results.models import flat, models_of, seeds_of


def test_seeds_of_one_recipe_are_one_model(make):
    first, second = make(seeds=(0, 0)), make(seeds=(1, 0))
    models = models_of([first, second])
    assert models[first.id] == models[second.id]
    assert models[first.id].label == "vmae"


def test_recipes_of_one_name_are_labeled_by_what_differs(make):
    small, large = make(recipe={"losses": {"kl": {"weight": 1e-6}}}), make(recipe={"losses": {"kl": {"weight": 1e-3}}})
    models = models_of([small, large])
    assert models[small.id].label == "vmae (weight=1e-06)"
    assert models[large.id].label == "vmae (weight=0.001)"


def test_labels_write_values_as_a_command_line_does(make):
    models = models_of([make(recipe={"mask": None, "pool": "none"}), make(recipe={"mask": True, "pool": "max"})])
    assert {model.label for model in models.values()} == {"vmae (mask=null, pool=none)", "vmae (mask=true, pool=max)"}


def test_a_short_run_is_another_model_and_its_label_says_why(make):
    full = make()
    short = replace(
        full,
        id="0123",
        models={"tokenizer": "77"},
        config={**full.config, "trainer": {"workers": 4, "limit_steps": 20}},
    )
    models = models_of([full, short])
    assert models[full.id] != models[short.id]
    assert models[short.id].label == "vmae (limit_steps=20)"


@pytest.mark.parametrize(
    ("trainer", "label"),
    [
        ({"limit_steps": 20}, "vmae (limit_steps=20)"),
        ({"limit_steps": 20, "overfit_batches": 1}, "vmae (limit_steps=20, overfit_batches=1)"),
        ({"limit_steps": 500, "overfit_batches": 0}, "vmae"),  # no fewer than the recipe has
        ({"limit_steps": None}, "vmae"),
    ],
)
def test_a_training_cut_short_says_so_where_it_stands_alone(make, trainer, label):
    record = make(recipe={"stages": {"pretrain": {"max_steps": 100}, "tune": {"max_steps": 500}}})
    record = replace(record, config={**record.config, "trainer": trainer})
    assert models_of([record])[record.id].label == label


def test_a_training_cut_short_says_so_beside_what_else_differs(make):
    stages = {"pretrain": {"max_steps": 100}}
    records = [make(recipe={"stages": stages, "mask": mask}) for mask in (True, False)]
    records = [replace(record, config={**record.config, "trainer": {"limit_steps": 3}}) for record in records]
    labels = {model.label for model in models_of(records).values()}
    assert labels == {"vmae (mask=true, limit_steps=3)", "vmae (mask=false, limit_steps=3)"}


def test_a_whole_training_beside_trials_keeps_its_name(make):
    whole = make(recipe={"stages": {"all": {"max_steps": 1000}}})
    trainers = {
        "1": {"limit_steps": None, "overfit_batches": 0},
        "2": {"limit_steps": 3, "overfit_batches": 0},
        "3": {"limit_steps": 500, "overfit_batches": 1},
    }
    records = [
        replace(whole, id=key, models={"tokenizer": key}, config={**whole.config, "trainer": trainer})
        for key, trainer in trainers.items()
    ]
    assert [models_of(records)[record.id].label for record in records] == [
        "vmae",
        "vmae (limit_steps=3)",
        "vmae (limit_steps=500, overfit_batches=1)",
    ]


def test_models_that_the_config_does_not_distinguish_are_named_by_their_artifacts(make):
    one = make()
    other = replace(one, id="0123", artifacts={"tokenizer": "vmae-ffffffff"}, models={"tokenizer": "77"})
    models = models_of([one, other])
    assert models[one.id] != models[other.id]
    assert models[other.id].label == "vmae (vmae-ffffffff)"


def test_two_artifacts_of_one_model_are_one_row_wherever_they_were_made(make):
    one = make()
    other = replace(one, id="0123", artifacts={"tokenizer": "vmae-ffffffff"})
    assert models_of([one, other])[one.id] == models_of([one, other])[other.id]


def test_how_something_was_measured_or_run_makes_no_other_model(make):
    one = make()
    other = replace(
        one,
        id="0123",
        config={
            **one.config,
            "trainer": {"workers": 8},
            "job": {"component": "probe"},
            "sampler": {"steps": 3},
            "data": {"name": "digits", "root": "/elsewhere"},
        },
    )
    assert models_of([one, other])[one.id] == models_of([one, other])[other.id]
    assert models_of([one, other])[one.id].label == "vmae"


def test_an_artifact_that_is_opened_by_its_path_has_the_label_of_its_training(make):
    trained = make(seeds=(0, 0))
    opened = replace(trained, id="0123", config={"tokenizer": {"path": "elsewhere"}}, seeds={"tokenizer": 1})
    models = models_of([opened, trained])
    assert models[opened.id] == models[trained.id]
    assert seeds_of(opened) == {"tokenizer": 1}


def test_records_of_schema_1_are_models_by_their_artifacts(make):
    first, second = (replace(make(seeds=(seed, 0)), schema=1, models=None, seeds=None) for seed in (0, 1))
    current = make(seeds=(0, 0))
    models = models_of([first, second, current])
    assert len({models[record.id] for record in (first, second, replace(current, id=first.id))}) == 2


def test_a_generator_has_two_seeds_and_a_tokenizer_one(make):
    assert seeds_of(make(seeds=(3, 4))) == {"tokenizer": 3}
    assert seeds_of(make(seeds=(3, 4), generator="sit")) == {"tokenizer": 3, "generator": 4}


def test_a_record_of_anybody_may_have_any_config(make):
    odd = replace(make(), config={"tokenizer": "a word", "data": None})
    assert models_of([odd])[odd.id].label == "vmae"


def test_nested_fields_are_flattened_to_dotted_keys():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
