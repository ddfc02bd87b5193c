"""Which file of a folder, or of a repository on the hub, holds the weights."""

from collections.abc import Sequence
from pathlib import PurePosixPath

KNOWN = (  # the first that is there is taken
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "weights.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "model.pt",
    "model.pth",
)
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
STATS = "latents_stats.pt"  # statistics of latents, beside the weights of a tokenizer
NO_WEIGHTS = (STATS, "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt", "training_args.bin")
MANY = 8  # files that a message lists


def choose_weights(
    names: Sequence[str],  # of all files, with "/" between folders
    inside: str,  # a subfolder or a file of them; "" for the top
    where: str,  # how a message calls the whole
) -> str:
    """The name of the file with the weights: a known one, or the only one that can hold weights, in its folder or in
    one below it.

    Raises FileNotFoundError where there is none, and ValueError, with the choice, where there are several.
    """
    if inside in names:
        return inside
    folder = PurePosixPath(inside)
    here = [name for name in names if PurePosixPath(name).parent == folder]
    below = [name for name in names if PurePosixPath(name).parent.parent == folder and name not in here]
    for group in (here, below):
        known = [str(folder / name) for name in KNOWN] if group is here else []
        found = [name for name in known if name in group] or [name for name in group if may_hold_weights(name)]
        if known and found and found[0] in known:
            return found[0]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(sorted(found)[:MANY]) + (", ..." if len(found) > MANY else "")
            raise ValueError(
                f"{where} holds {len(found)} files of weights: {listed}. Name the one you mean, as in "
                f"{where.rstrip('/')}/{PurePosixPath(sorted(found)[0]).relative_to(folder)}."
            )
    some = ", ".join(sorted(names)[:MANY]) or "nothing"
    raise FileNotFoundError(
        f"{where} holds no weights, but {some}. Expected a file ending in {', '.join(SUFFIXES)}, such as {KNOWN[0]}."
    )


def may_hold_weights(name: str) -> bool:
    """Whether a file can hold weights, by its name."""
    path = PurePosixPath(name)
    return path.suffix in SUFFIXES and path.name not in NO_WEIGHTS and not path.name.startswith(".")
