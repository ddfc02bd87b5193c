"""Models: seeds are one model, and recipes distinguish models of one name."""

from dataclasses import replace

from ldbench.results.models import flat, models_of, seeds_of


def test_seeds_of_one_recipe_are_one_model(make):
    first, second = make(seeds=(0, 0)), make(seeds=(1, 0))
    models = models_of([first, second])
    assert models[first.id] == models[second.id]
    assert models[first.id].label == "vmae"


def test_recipes_of_one_name_are_told_apart_by_what_differs(make):
    small, large = make(recipe={"losses": {"kl": {"weight": 1e-6}}}), make(recipe={"losses": {"kl": {"weight": 1e-3}}})
    models = models_of([small, large])
    assert models[small.id].label == "vmae (weight=1e-06)"
    assert models[large.id].label == "vmae (weight=0.001)"


def test_two_artifacts_of_the_same_seeds_and_recipe_are_two_models(make):
    one = make()
    other = replace(one, id="0123", artifacts={"tokenizer": "vmae-ffffffff"})
    models = models_of([one, other])
    assert models[one.id] != models[other.id]
    assert models[other.id].label == "vmae (vmae-ffffffff)"


def test_how_something_was_measured_or_run_makes_no_other_model(make):
    one = make()
    other = replace(
        one,
        id="0123",
        config={**one.config, "trainer": {"workers": 8}, "job": {"component": "probe"}, "sampler": {"steps": 3}},
    )
    assert models_of([one, other])[one.id] == models_of([one, other])[other.id]


def test_a_generator_has_two_seeds_and_a_tokenizer_one(make):
    assert seeds_of(make(seeds=(3, 4))) == {"tokenizer.seed": 3}
    assert seeds_of(make(seeds=(3, 4), generator="sit")) == {"tokenizer.seed": 3, "seed": 4}


def test_a_record_of_anybody_may_have_any_config(make):
    odd = replace(make(), config={"tokenizer": "a word", "data": None})
    assert models_of([odd])[odd.id].label == "vmae"


def test_nested_fields_are_flattened_to_dotted_keys():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
