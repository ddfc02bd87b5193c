"""The commands after a training compose, repeat its overrides, and quote what a shell would change."""

import shlex

import pytest

import ldbench
from ldbench.pipeline.next_steps import describe_next_steps

OVERRIDES = ["tokenizer=maetok", "tokenizer.seed=1", "paths.root=my folder", "tokenizer.losses={}"]


@pytest.mark.parametrize("has_generator", [False, True])
def test_each_command_composes_with_the_same_overrides(has_generator):
    own = [*OVERRIDES, *(["generator=dit"] if has_generator else [])]
    head, *lines = describe_next_steps(own, has_generator=has_generator)
    assert head == "Next:"
    commands = [shlex.split(line, comments=True) for line in lines]
    assert all(command[:2] == ["python", "-m"] for command in commands)
    for _, _, module, *overrides in commands:
        entry = module.removeprefix("ldbench.")
        assert ldbench.compose(entry, overrides)
        assert set(own) <= set(overrides) or (entry, overrides) == ("leaderboard", ["paths.root=my folder"])
    assert commands[-1][2] == "ldbench.leaderboard"


def test_a_generator_is_proposed_only_where_there_is_none():
    assert any("generator=sit" in line for line in describe_next_steps([], has_generator=False))
    assert not any("generator=sit" in line for line in describe_next_steps(["generator=dit"], has_generator=True))
