"""Values of another type than what reads them takes are refused at once, key and expectation named."""

from pathlib import Path

import pytest

import ldbench
from ldbench.pipeline import pipeline
from ldbench.pipeline.config_schema import validate_values


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=null", r"^seed must be a whole number of at least 0, got null\."),
        ("seed=-1", r"^seed must be a whole number of at least 0, got -1\."),
        ("seed=1e3", r"^seed must be a whole number of at least 0, got 1000\.0\."),
        ("seed=abc", r"^seed must be a whole number of at least 0, got 'abc'\."),
        ("seed=99999999999", r"^seed must be a whole number of at most 2147483647, got 99999999999\."),
        ("tokenizer.seed=null", r"^tokenizer\.seed must be a whole number of at least 0, got null\."),
        ("protocol.seed=abc", r"^protocol\.seed must be a whole number"),
        ("protocol.labels=3", r"^protocol\.labels must be a string or a list of whole numbers, got 3\. Set .*=\[3\]\."),
        ("generator.ema_decays=0.9", r"^generator\.ema_decays must be a list of numbers, got 0\.9\. Set .*=\[0\.9\]\."),
        ("jobs=null", r"^jobs must be a mapping, got null\. Leave single entries out with ~jobs\.NAME\."),
        ("jobs.reconstruct=null", r"^jobs\.reconstruct must be a mapping, got null\. .* with ~jobs\.reconstruct\."),
        ("tokenizer.losses=null", r"^tokenizer\.losses must be a mapping, got null\."),
        ("tokenizer.losses.kl=3", r"^tokenizer\.losses\.kl must be a mapping, got 3\."),
        ("tokenizer.stages.tune.losses.kl=3", r"^tokenizer\.stages\.tune\.losses\.kl must be a mapping, got 3\."),
        ("tokenizer.stages.tune.optimizer.lr=nan", r"stages\.tune\.optimizer\.lr must be a number, got nan\."),
        ("tokenizer.stages.tune.optimizer=null", r"^tokenizer\.stages\.tune\.optimizer must be a mapping, got null"),
        ("trainer.limit_steps=true", r"^trainer\.limit_steps must be a whole number of at least 0 or null, got true\."),
        ("trainer.resident=maybe", r"^trainer\.resident must be true or false, got 'maybe'\."),
        ("callbacks.checkpoint.every=0", r"^callbacks\.checkpoint\.every must be a whole number of at least 1, got 0"),
        ("init=", r"^init must not be empty\. Set it to a string or null\."),
        ("data.image_size=0", r"^data\.image_size must be a whole number of at least 1, got 0\."),
    ],
)
def test_values_of_another_type_are_refused_with_the_key_and_what_is_expected(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_values(ldbench.compose("train", ["tokenizer=vmae", "generator=sit", override]))


def test_a_tokenizer_without_a_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^tokenizer\.image_size must be the pixels .* such as 32, got null"):
        pipeline.train(ldbench.compose("train", ["tokenizer.image_size=null", f"paths.root={tmp_path}"]))


@pytest.mark.parametrize("value", [3, "abc", [1]])
def test_a_logger_is_a_mapping(value: object) -> None:
    cfg = ldbench.compose("train", [])
    cfg.logger = value
    with pytest.raises(ValueError, match=r"^logger must be a mapping, got "):
        validate_values(cfg)


def test_a_mixture_of_two_and_a_half_components_is_refused_before_a_tokenizer_is_trained(tmp_path: Path) -> None:
    cfg = ldbench.compose("run", ["job=gmm", "job.components=2.5", f"paths.root={tmp_path}"])
    with pytest.raises(ValueError, match=r"^job\.components must be a whole number.* or null, got 2\.5\."):
        pipeline.run(cfg)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator=sit_xl_2", "generator.weights=nowhere.pt"], r"^generator\.weights=nowhere\.pt: There is no file"),
        (
            ["generator=sit", "generator.weights=nowhere"],
            r"^generator\.weights=nowhere: There is no official",
        ),
        (["generator=sit", "generator.stats=nowhere.pt"], r"^generator\.stats=nowhere\.pt: There is no file"),
        (["generator=sit", "generator.stats=-1"], r"^generator\.stats=-1: A scale of latents must be above zero"),
        (["generator=artifact", "generator.path=nowhere"], r"nowhere"),
        (["init=nowhere"], r"^init=nowhere is no artifact"),
        (["tokenizer.weights=nowhere"], r"^tokenizer\.weights=nowhere: There is no official tokenizer named 'vmae'"),
    ],
)
def test_files_that_are_not_there_are_found_before_anything_is_trained(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        pipeline.train(ldbench.compose("train", ["tokenizer=vmae", *overrides, f"paths.root={tmp_path}"]))
    assert not (tmp_path / "artifacts").exists()
