"""What to do after a training: the commands that continue from its overrides."""

import shlex
from collections.abc import Sequence


def describe_next_steps(overrides: Sequence[str], *, has_generator: bool) -> list[str]:
    """Lines with commands, each with its purpose: further measurements, a generator, the leaderboard.

    `overrides` are those of the training. Those of paths alone are kept for the leaderboard.
    """
    given = "".join(f" {shlex.quote(text)}" for text in overrides)
    paths = "".join(f" {shlex.quote(text)}" for text in overrides if text.startswith("paths."))
    own = (
        {"the guidance that suits this generator": f"python -m ldbench.run job=guidance{given}"}
        if has_generator
        else {
            "what its latents hold (also job=gmm, smoothness, latents)": f"python -m ldbench.run job=probe{given}",
            "a generator on its latents (also lightningdit, dit)": f"python -m ldbench.train generator=sit{given}",
        }
    )
    commands = {**own, "all records, ranked": f"python -m ldbench.leaderboard{paths}"}
    return ["Next:", *(f"  {command}  # {purpose}" for purpose, command in commands.items())]
