"""One pass of a tokenizer's training, on two images, that finds settings which cannot be before the first step."""

from torch import Tensor

from ldbench.core.interfaces import Balanced
from ldbench.training.equivariance import Transform
from ldbench.training.tokenizer_module import TokenizerModule, detached


def dry_run(module: TokenizerModule, images: Tensor, y: Tensor) -> None:
    """Computes every term once, also those that start later. Raises ValueError for incompatible settings."""
    for name in filter(module.balanced, module.terms):
        balanced = module.terms[name]
        assert isinstance(balanced, Balanced), "only these are"
        part = balanced.balancing
        advice = f"Set ++tokenizer.stages.{module.stage.name}.losses.{name}.balancing=none."
        if getattr(module.stage, part) == "frozen":
            raise ValueError(f"Loss {name} is balanced at the {part}'s anchor, which this stage freezes. {advice}")
        if not any(getattr(term, "reconstructs", False) and term.start == 0 for term in module.terms.values()):
            raise ValueError(
                f"Loss {name} is balanced against the terms that reconstruct, "
                f"and none of them is active from the start. {advice}"
            )
    prepared = module.prepare(images)
    module.tokenizer(prepared, mask_ratio=module.stage.mask_ratio.largest)
    recon = module.reconstruct(prepared)
    for term in module.terms.values():
        term(prepared, recon, y)
    for adversary in module.adversaries.values():
        adversary.discriminate(prepared, detached(recon))
    if module.stage.equivariance.active:
        dry_run_equivariance(module, prepared, y)


def dry_run_equivariance(module: TokenizerModule, images: Tensor, y: Tensor) -> None:
    """Computes every term once on the smallest and the largest transformed pair.

    Raises ValueError, with what to set, for what does not take them.
    """
    settings, key = module.stage.equivariance, f"tokenizer.stages.{module.stage.name}.equivariance"
    if module.tokenizer.latent.grid is None:
        raise ValueError(
            f"{key} transforms latents on a grid, and those of {type(module.tokenizer).__name__} have none. "
            f"Set {key}.probability=0."
        )
    grid = module.tokenizer.patch_grid
    for transform in settings.extremes(grid):
        sides = f"{transform.grid[0]} x {transform.grid[1]}"
        keeps = f"With {key}.scales=[1,1] and {key}.downscaled=0 all keep their size."
        try:
            target, recon = module.transformed_pass(images, transform)
            if settings.downscaled:
                module.reconstruct(Transform(transform.grid, 0)(images, images.shape[2] // grid[0]))
        except ValueError as error:
            raise ValueError(f"{key}: at {sides} positions, {error} {keeps}") from error
        for name, term in module.terms.items():
            try:
                term(target, recon, y)
                if name in module.adversaries:
                    module.adversaries[name].discriminate(target, detached(recon))
            except (ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise ValueError(f"{key}: loss {name} does not take {sides} positions: {reason}. {keeps}") from error
