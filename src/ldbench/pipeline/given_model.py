"""GivenModel: a module in memory, in the place of an artifact."""

import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ldbench.artifacts import store
from ldbench.config.compose import Registry
from ldbench.core.latent_stats import LatentStats
from ldbench.core.tokenizer import Tokenizer
from ldbench.pipeline.module_tokenizer import ModuleTokenizer

PREFIX = "given"  # of the name in records, which says that no artifact holds it


@dataclass(frozen=True)
class GivenModel:
    """A tokenizer that somebody has in memory. Its identity is its class, the source of its classes, its latent and
    its weights; what a module holds beside its state dict, such as a number in an attribute, does not count.
    """

    module: nn.Module  # as it was given
    tokenizer: Tokenizer  # the same, or around it

    @property
    def recipe(self) -> dict[str, Any]:
        """What is known of it."""
        return {"kind": "tokenizer", "given": self.description}

    @cached_property
    def description(self) -> dict[str, Any]:
        """Its class with the digest of its source, its latent and image size, and the sha256 of its state dict."""
        return {
            "class": class_name(self.module),
            "source": source_digest(self.module),
            "latent": self.tokenizer.latent.to_dict(),
            "image_size": self.tokenizer.image_size,
            "value_range": list(getattr(self.tokenizer, "value_range", (-1.0, 1.0))),
            "state_dict": state_digest(self.module.state_dict()),
        }

    @property
    def digest(self) -> str:
        """The sha256 of the description."""
        return store.digest(self.recipe)

    @property
    def content_key(self) -> str:
        """The digest: it covers the weights."""
        return self.digest

    @property
    def model_digest(self) -> str:
        """The digest: nobody knows of which model this is one seed."""
        return self.digest

    @property
    def seed(self) -> int | None:
        """None: it is not known."""
        return None

    @property
    def component(self) -> str:
        """The name of its class."""
        return re.sub(r"\W", "_", type(self.module).__name__)

    @property
    def name(self) -> str:
        """`given-<class>-<digest>`."""
        return f"{PREFIX}-{self.component}-{self.digest[:8]}"

    @property
    def latent_stats(self) -> LatentStats | None:
        """Those that the tokenizer has."""
        return self.tokenizer.latent_stats

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer, in eval mode."""
        return self.tokenizer


def given_model(
    module: nn.Module,
    image: Tensor,  # (1, 3, H, W) in [-1, 1]
    *,
    value_range: tuple[float, float],  # of the images that a stranger's module takes and gives
    registry: Registry = Registry(),
) -> GivenModel:
    """A module as what is measured: one of our tokenizers as it is, an autoencoder of diffusers by the conventions of
    its class, and any other by running one image. The module is in eval mode. Raises ValueError for what does not fit.
    """
    if isinstance(module, Tokenizer):
        return GivenModel(module, module)
    adapter = registry.component("tokenizer", "diffusers") if is_of_diffusers(module) else None
    if adapter is not None and adapter.takes(module):
        return GivenModel(module, adapter.around(module, image_size=image.shape[-1]))
    return GivenModel(module, ModuleTokenizer(module, image, value_range=value_range))


def is_of_diffusers(module: nn.Module) -> bool:
    """Whether a module is a class of diffusers, which is not imported."""
    return type(module).__module__.partition(".")[0] == "diffusers"


def class_name(module: nn.Module) -> str:
    """The dotted name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def state_digest(state: Mapping[str, Any]) -> str:
    """The sha256 of a state dict: of names, types, shapes and values; what is no tensor counts as text."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(f"{name}\0{value!r}\0".encode())
    return found.hexdigest()


def source_digest(module: nn.Module) -> str:
    """The sha256 of the source of all classes in a module that are not torch's; of the name where there is none.

    Classes of ours count with their revision.
    """
    classes = {type(part) for part in module.modules()}
    found = {}
    for kind in classes:
        name = f"{kind.__module__}.{kind.__qualname__}"
        package = kind.__module__.partition(".")[0]
        if package == "torch":
            continue
        if package == "ldbench":  # whose numbers change with a revision
            found[name] = f"revision {getattr(kind, 'revision', 1)}"
            continue
        try:
            found[name] = inspect.getsource(kind)
        except (OSError, TypeError):
            found[name] = ""
    return store.digest(found)
