"""Every option of every group composes, every component builds from its yaml alone, and every experiment is sound."""

import inspect
import re
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from tests import small_datasets

import ldbench
from ldbench.config.components import import_target, required_parameters
from ldbench.config.compose import COMPONENT_GROUPS, Registry, conf_dir
from ldbench.pipeline import feature_networks, measurement_checks, pipeline

GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())

# tokenizers, data, protocols and experiments have tests that compose each
PRIMARY = ("generator", "trainer", "callbacks", "logger", "paths")

OPTIONS = [(group, name) for group in GROUPS for name in Registry().options(group)]

CONSTRUCTED = [  # our own constructors, with the yaml node that calls them
    (group, name)
    for group in COMPONENT_GROUPS
    for name, target in Registry().targets(group).items()
    if target.startswith("ldbench.") and not Registry().options(group)[name].get("_partial_")
]


def is_size(name: str) -> bool:
    """Whether a generator differs from another by its size alone."""
    return any(
        isinstance(entry, dict) and "override /size" in entry
        for entry in Registry().options("generator")[name].get("defaults", [])
    )


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, marks=pytest.mark.slow) if group == "generator" and is_size(name) else (group, name)
        for group, name in OPTIONS
        if group in PRIMARY
    ],
)
def test_it_composes(group: str, name: str) -> None:
    assert ldbench.compose("train", [f"{group}={name}"])


def built_on(group: str, entry: str | dict[str, str]) -> list[tuple[str, str]]:
    """The options (group, name) of an entry of a defaults list.

    An entry is `name`, or `/group@package: name`, or `override group: name`.
    """
    named = entry if isinstance(entry, dict) else {f"/{group}": entry}
    groups = {key.split()[-1].partition("@")[0]: name for key, name in named.items()}
    return [(key[1:] if key.startswith("/") else f"{group}/{key}", name) for key, name in groups.items()]


@pytest.mark.parametrize("group", GROUPS)
def test_what_an_option_builds_on_exists(group: str) -> None:
    for name, raw in Registry().options(group).items():
        for entry in raw.get("defaults", []):
            missing = [
                where
                for where in built_on(group, entry)
                if where[1] not in ("_self_", None, *Registry().options(where[0]))
                and where != ("network", "${data}")  # that of the run's data
            ]
            assert not missing, f"{group}/{name} builds on {missing}"


@pytest.mark.parametrize(("group", "name"), CONSTRUCTED)
def test_yaml_and_constructor_agree_and_neither_sets_what_the_other_does(group: str, name: str) -> None:
    raw = Registry().options(group)[name]
    node = raw.get("model", raw)
    parameters = inspect.signature(import_target(node["_target_"])).parameters
    configured = {key for key in node if not key.startswith("_") and key != "defaults"}
    assert configured <= parameters.keys()
    assert all(
        parameters[key].kind is inspect.Parameter.KEYWORD_ONLY or group in ("optimizer", "mask") for key in parameters
    )
    assert not {key for key in configured if parameters[key].default is not inspect.Parameter.empty}, (
        "a default in two places"
    )


@pytest.mark.parametrize("name", sorted(Registry().options("network")))
def test_the_recipe_of_a_network_is_sound_and_its_digest_repeats(name: str) -> None:
    node, base = Registry().option("network", name), Registry().options("network")[name]["defaults"]
    registry = Registry()
    if "root" in node.data:  # of images that may not be installed
        registry = registry.with_data(
            OmegaConf.create({"data": {**node.data, "root": str(small_datasets.FASHION_MNIST)}})
        )
    first, second = (feature_networks.network_digest(node, registry) for _ in range(2))
    assert first == second
    assert node.name == (base[0] if len(base) == 1 else name)  # of another dataset, or its own


@pytest.mark.parametrize("name", sorted(Registry().options("job")))
def test_a_job_asks_only_for_what_is_known_and_takes_its_own_yaml(name: str) -> None:
    cfg = ldbench.compose("run", [f"job={name}"])
    node = cfg.job
    measurement_checks.validate_job(node, pipeline.get_protocol(cfg))
    job = import_target(node._target_)
    own = Registry().targets("job")
    assert job.name == name if name in own else job.name in own  # a preset is a variant of a job
    assert set(job.settings) <= set(node)


@pytest.mark.parametrize("name", sorted(Registry().options("job")))
def test_a_job_declares_what_its_constructor_is_handed(name: str) -> None:
    job = import_target(Registry().option("job", name)._target_)
    inputs = set(required_parameters(f"{job.__module__}.{job.__qualname__}"))
    expected = {
        "tokenizer": {
            "tokenizer",
            "tokenizer_name",
            "tokenizer_digest",
            "tokenizer_key",
            "train_latents",
            "heldout_latents",
        },
        "generator": {"generator", "sampler", "guidance", "sampling_seed"},
        "records": {"study"},
    }
    assert job.requires == {kind for kind, keywords in expected.items() if keywords & inputs}
    assert getattr(job, "accepts", frozenset()) == ({"generator"} if "drawing" in inputs else set())


@pytest.mark.parametrize("name", sorted(set(Registry().options("protocol")) - {"default"}))
def test_a_protocol_is_the_default_or_adds_to_it(name: str) -> None:
    mine, default = (
        pipeline.get_protocol(ldbench.compose("train", [f"protocol={option}"])) for option in (name, "default")
    )
    same = {"name": "default", "extractor": None, "distribution": (), "num_samples": 1}
    if re.match(r"imagenet\d+_", name):  # as a paper measures, which differs in these
        kept = ("pixel_rule", "latent", "labels", "reference", "ratio_extractors")
        same |= {key: getattr(default, key) for key in kept}
    assert set(mine.reconstruction) >= set(default.reconstruction)
    assert replace(mine, **same, reconstruction=default.reconstruction) == replace(
        default, distribution=(), num_samples=1
    )


def test_an_experiment_starts_with_its_command_and_composes(some) -> None:
    names = sorted(Registry().options("experiments"))
    commands = {}
    for name in names:
        text = (conf_dir() / "experiments" / f"{name}.yaml").read_text()
        assert text.startswith("# @package _global_\n"), name
        (commands[name],) = set(re.findall(rf"python -m ldbench\.(\w+) experiments={name}\b", text))
    for name in some(names, 3):  # those of papers have their digests in tests/test_identities.py
        assert ldbench.compose(commands[name], [f"experiments={name}"])
