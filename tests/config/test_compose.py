"""The config tree: names, mistakes, and what they are answered with."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError
from tests import composing
from tests.fixtures import Answer

import ldbench
from ldbench import run
from ldbench.config.components import instantiate
from ldbench.config.compose import COMPONENT_GROUPS, HAS_DEFAULTS, Registry


def test_compose_gives_what_the_command_line_would() -> None:
    cfg = ldbench.compose("train", ["tokenizer=vmae", "tokenizer.model.width=48"])
    assert cfg.tokenizer.model.width == 48
    assert cfg.data.name == "digits"
    assert cfg.tokenizer.stages.pretrain.optimizer._target_ == "ldbench.training.optimizer.AdamW"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["tokenizer=vmea"], "There is no tokenizer=vmea. Did you mean vmae?"),
        (["tokenizer.model.patchsize=7"], "There is no config key tokenizer.model.patchsize. Did you mean patch_size?"),
        (["trainer.precisoin=bf16"], "There is no config key trainer.precisoin. Did you mean precision?"),
        (["tokeniser=vmae"], "Did you mean tokenizer?"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest_one(overrides: list[str], told: str) -> None:
    with pytest.raises(ValueError, match="There is no") as answered:
        ldbench.compose("train", overrides)
    assert told in str(answered.value)


def test_an_experiment_wins_over_defaults_and_the_command_line_over_both() -> None:
    assert ldbench.compose("train", ["experiments=vmae_digits"]).tokenizer.name == "vmae"
    assert ldbench.compose("train", ["experiments=vmae_digits", "data=shapes"]).data.name == "shapes"


def test_a_loss_term_comes_and_goes_from_the_command_line() -> None:
    with_kl = ldbench.compose("train", ["+loss@tokenizer.losses.standard=kl", "~tokenizer.losses.kl"])
    assert set(with_kl.tokenizer.losses) == {"pixels", "standard"}


def test_components_are_named_both_ways() -> None:
    for group in COMPONENT_GROUPS:
        for name, target in Registry().targets(group).items():
            assert Registry().component_name(group, target) in Registry().targets(group)
            assert Registry().targets(group)[Registry().component_name(group, target)] == target, name


def test_a_name_outside_the_config_groups_is_never_imported() -> None:
    with pytest.raises(ValueError, match=r"There is no tokenizer named 'os\.system' here"):
        Registry().component("tokenizer", "os.system")
    with pytest.raises(ValueError, match="stands in no yaml"):
        Registry().component_name("tokenizer", "somewhere.Else")


def test_a_config_copy_names_components_instead_of_dotted_paths() -> None:
    named = Registry().with_component_names(ldbench.compose("train"))
    assert named["tokenizer"]["model"]["component"] == "vmae"
    assert named["tokenizer"]["stages"]["tune"]["optimizer"]["component"] == "adamw"
    assert "_target_" not in str(named)


def test_an_unknown_keyword_is_told_by_its_place_in_the_config() -> None:
    cfg = ldbench.compose("train", ["+tokenizer.model.foo=1"])
    with pytest.raises(ValueError, match=r"There is no config key tokenizer\.model\.foo"):
        instantiate(cfg.tokenizer.model, image_size=32)


def test_what_a_component_refuses_is_told_in_its_own_words() -> None:
    node = OmegaConf.create(
        {"_target_": "ldbench.losses.terms.PixelMSE", "weight": 1.0, "start": 0, "warmup": 0, "visible_ratio": 2.0}
    )
    with pytest.raises(ValueError, match=r"^visible_ratio must lie in \[0, 1\], got 2.0\.$"):
        instantiate(node)


@pytest.mark.slow
def test_a_pipe_that_is_closed_ends_the_command_quietly() -> None:
    script = "import sys\nsys.argv = ['train', '--help']\nsys.stdin.read()\nfrom ldbench.train import main\nmain()"
    command = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    command.stdout.close()  # before it prints: it waits for its input to end
    _, told = command.communicate(b"")
    assert told == b""
    assert command.returncode == 141


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job=predict", "tokenizer=vmae"], "tokenizer=vmae has no effect: job predict starts from the records"),
        (["job=predict", "seed=1", "tokenizer.seed=1"], "tokenizer.seed=1 has no effect: job predict"),
        (["job=reference", "generator=sit"], "generator=sit has no effect: job reference measures images alone"),
    ],
)
def test_words_that_a_job_has_no_use_for_are_refused(
    answer: Answer, words: list[str], told: str, tmp_path: Path
) -> None:
    done = answer(run, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_experiment_of_another_command_is_told_so() -> None:
    with pytest.raises(
        ValueError,
        match=r"experiments=speed_generators_256 sets job, which ldbench\.train does not have\. The first lines",
    ):
        ldbench.compose("train", ["experiments=speed_generators_256"])


ALONE = {
    group: next(
        (name for name, path in Registry().files(group).items() if not HAS_DEFAULTS.search(path.read_text())), None
    )
    for group in (*COMPONENT_GROUPS, "protocol")
}


@pytest.mark.parametrize("group", [group for group, name in ALONE.items() if name])
def test_an_option_that_builds_on_no_other_is_what_hydra_makes_of_it(group: str) -> None:
    composed, read = (
        Registry().compose(None, [f"+{group}={ALONE[group]}"])[group],
        Registry().option(group, ALONE[group]),
    )
    assert composed == read
    assert list(composed) == list(read)
    assert composed._get_full_key(None) == read._get_full_key(None) == group
    for node in (composed, read):
        with pytest.raises(ConfigAttributeError):
            node.not_there = 1


def test_of_two_options_of_one_name_ours_counts(tmp_path: Path) -> None:
    (tmp_path / "metric").mkdir()
    for name in ("psnr", "own"):
        (tmp_path / "metric" / f"{name}.yaml").write_text("_target_: ldbench.losses.terms.PixelMSE\n")
    targets = {name: Registry((str(tmp_path),)).option("metric", name)._target_ for name in ("psnr", "own")}
    assert targets == {"psnr": Registry().option("metric", "psnr")._target_, "own": "ldbench.losses.terms.PixelMSE"}
    assert Registry((str(tmp_path),)).compose(None, ["+metric=psnr"]).metric._target_ == targets["psnr"]


@pytest.mark.parametrize(
    "words",
    [
        [
            "generator=sit",
            "generator.ema_decays=[0.5]",
            "sampler.num_steps=3",
            "size=dit_b_2",
            "sampler=heun",
            "generator.optimizer.lr=2e-3",
        ],
        [
            "+loss@tokenizer.losses.gan=adversarial",
            "tokenizer.losses.gan.discriminator={width: 4}",
            "tokenizer.losses.gan.objective='a,b'",
        ],
        [
            "tokenizer.losses.kl.weight=2",
            "~tokenizer.losses.kl",
            "++tokenizer.seed=3",
            "tokenizer.seed=4",
            "+trainer.more=1",
            "trainer.more=2",
        ],
        [
            "tokenizer.losses.kl=null",
            "tokenizer.name=${data.name}",
            "paths.root=/somewhere/else",
            "data.subset=0.1",
            "++trainer.new=1",
            "seed=2",
        ],
    ],
)
def test_tests_compose_what_hydra_does(words: list[str]) -> None:
    assert Registry.compose_from_files is not composing.HYDRAS
    ours = Registry().compose_from_files("train", words)
    with composing.plainly():
        hydras = composing.HYDRAS(Registry(), "train", words)
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(hydras)
    assert ours._metadata.flags == hydras._metadata.flags


@pytest.mark.parametrize(
    "words",
    [["tokenizer.seed=1,2"], ["tokenizer.sede=1"], ["tokenizer=vmea", "tokenizer.seed=1"], ["tokenizer.seed=[1"]],
)
def test_tests_are_refused_what_hydra_refuses(words: list[str]) -> None:
    told = []
    for compose, how in (
        (Registry.compose_from_files, nullcontext()),
        (composing.HYDRAS, composing.plainly()),
    ):
        with how, pytest.raises(ValueError, match=r"\S") as refused:
            compose(Registry(), "train", words)
        told.append(str(refused.value))
    assert told[0] == told[1]
