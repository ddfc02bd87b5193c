"""What is prepared for Hydra: several options of one group, home folders, and how to quote what it cannot read."""

import pytest
from omegaconf import OmegaConf

import ldbench
from ldbench.tracking.send_records import configured_loggers


@pytest.mark.parametrize(
    "names", ["tensorboard,wandb", "wandb,tensorboard", " wandb, tensorboard", "none,wandb,tensorboard"]
)
@pytest.mark.parametrize("entry", ["train", "run"])
def test_several_loggers_work_in_any_order(names: str, entry: str) -> None:
    cfg = ldbench.compose(entry, [f"logger=[{names}]", "logger.offline=false", "+loggers.tensorboard.name=mine"])
    first, second = configured_loggers(cfg)
    assert (first._target_.rpartition(".")[2], first.offline) == ("Wandb", False)
    assert (second._target_.rpartition(".")[2], second.name) == ("TensorBoardLogger", "mine")


@pytest.mark.parametrize(("override", "count"), [("logger=[]", 0), ("logger=[none]", 0), ("logger=[tensorboard]", 1)])
def test_a_list_of_one_logger_or_none_is_that(override: str, count: int) -> None:
    assert len(configured_loggers(ldbench.compose("train", [override]))) == count


@pytest.mark.parametrize("group", ["experiments", "tokenizer", "data", "trainer"])
def test_two_options_of_another_group_are_refused_and_one_is_taken(group: str) -> None:
    names = {"experiments": ("vmae_digits", "maetok_digits"), "tokenizer": ("vmae", "maetok")}
    names |= {"data": ("digits", "shapes"), "trainer": ("default", "debug")}
    first, second = names[group]
    with pytest.raises(ValueError, match=rf"{group}=\[{first},{second}\] chooses several options of {group}"):
        ldbench.compose("train", [f"{group}=[{first},{second}]"])
    assert ldbench.compose("train", [f"{group}=[{second}]"]) == ldbench.compose("train", [f"{group}={second}"])


def test_callbacks_are_merged_and_values_may_be_lists() -> None:
    cfg = ldbench.compose(
        "train", ["callbacks=[profile,step_times]", "tokenizer.stages.pretrain.optimizer.betas=[0.9,0.99]"]
    )
    assert {"profile", "step_times", "checkpoint"} <= set(cfg.callbacks)


@pytest.mark.parametrize("folder", ["home", "my home, (old) [1]"])
@pytest.mark.parametrize("key", ["paths.root", "data.root", "tokenizer.weights", "init"])
def test_the_home_folder_is_expanded_in_every_path(folder: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", f"/{folder}")
    data = ["data=folder"] if key == "data.root" else []
    cfg = ldbench.compose("train", [*data, f"{key}=~/images", *([] if data else ["seed=1"])])
    assert OmegaConf.select(cfg, key) == f"/{folder}/images"
    assert OmegaConf.select(ldbench.compose("train", [*data, f"{key}=~"]), key) == f"/{folder}"


@pytest.mark.parametrize("value", ["my images", "a=b", "a,b(c", "[a", "it's {x}", 'say "x" (y)'])
def test_what_hydra_cannot_read_is_shown_in_quotes_that_work(value: str) -> None:
    with pytest.raises(ValueError, match="is no override that Hydra can read") as refused:
        ldbench.compose("train", ["data=folder", f"data.root={value} ="])
    shown = str(refused.value).partition("for the shell: '")[2].removesuffix("'")
    assert ldbench.compose("train", ["data=folder", shown]).data.root == f"{value} ="
