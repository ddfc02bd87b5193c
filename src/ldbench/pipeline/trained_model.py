"""TrainedModel: a complete artifact of a tokenizer or a generator; MeasuredModel: what a measurement needs of one."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ldbench.artifacts import store
from ldbench.artifacts.averages import stored_averages
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.latent_stats import LatentStats
from ldbench.core.tokenizer import Tokenizer
from ldbench.pipeline.recipe import model_digest


class MeasuredModel(Protocol):
    """A model with its identity: an artifact, or a module in memory (`given_model.GivenModel`)."""

    @property
    def name(self) -> str:
        """The name in records: for people, with the beginning of the digest."""
        ...

    @property
    def digest(self) -> str:
        """The sha256 of its recipe."""
        ...

    @property
    def content_key(self) -> str:
        """The sha256 of the recipe's digest and the weights."""
        ...

    @property
    def model_digest(self) -> str:
        """The identity of the model of which this is one seed."""
        ...

    @property
    def seed(self) -> int | None:
        """The seed of its training, where it is known."""
        ...

    @property
    def component(self) -> str:
        """The name of its architecture."""
        ...

    @property
    def recipe(self) -> dict[str, Any]:
        """All that its numbers depend on, as far as it is known."""
        ...

    @property
    def latent_stats(self) -> LatentStats | None:
        """A tokenizer's own statistics of its latents, where its authors state them."""
        ...

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer in eval mode. Raises ValueError for a model that is none."""
        ...


@dataclass(frozen=True)
class TrainedModel:
    """An artifact folder with the digest of its recipe. The model is loaded, verified and built once."""

    folder: Path
    digest: str
    registry: Registry = Registry()
    _loaded: list[nn.Module] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def recipe(self) -> dict[str, Any]:
        """All that its numbers depend on, as its artifact holds it."""
        return store.read_config(self.folder)["recipe"]

    @property
    def component(self) -> str:
        """The name of its component: a tokenizer's architecture."""
        return str(store.read_config(self.folder)["component"])

    @property
    def model_digest(self) -> str:
        """The identity of the model of which this is one seed, see `recipe.model_digest`."""
        return model_digest(self.recipe)

    @property
    def seed(self) -> int | None:
        """The seed of its training; None for released weights."""
        return self.recipe.get("seed")

    @cached_property
    def content_key(self) -> str:
        """The sha256 of the recipe's digest and the weights: one recipe gives other weights on another machine."""
        return store.content_key(self.folder)

    @property
    def name(self) -> str:
        """The name of the artifact, wherever it was copied to."""
        return store.name_of(self.folder) if store.is_complete(self.folder) else self.folder.name

    @property
    def latent_stats(self) -> LatentStats | None:
        """A tokenizer's own statistics of its latents; None where its authors state none."""
        return store.latent_stats_of(store.read_config(self.folder))

    def load_tokenizer(self) -> Tokenizer:
        """Returns the tokenizer in eval mode: the same object at every call, on the device where the last user left it.

        Raises ValueError for a folder that is incomplete or altered, and for an artifact of something else.
        """
        model = self._load()
        if not isinstance(model, Tokenizer):
            raise ValueError(f"{self.folder} is a {type(model).__name__}, and tokenizer.path must be a tokenizer.")
        return model

    def load_generator(self) -> Generator:
        """Returns the generator; see `load_tokenizer`."""
        model = self._load()
        if not isinstance(model, Generator):
            raise ValueError(f"{self.folder} is a {type(model).__name__}, and generator.path must be a generator.")
        return model

    @property
    def averages(self) -> dict[float, str]:
        """The weight averages that a generator's artifact holds beside the exported weights: decay -> sha256."""
        return stored_averages(self.folder, store.read_manifest(self.folder))

    def load_average(self, decay: float) -> Generator:
        """Returns the generator with another of its weight averages. Raises ValueError as `load_generator`."""
        return store.load_average(self.folder, decay, registry=self.registry)

    def _load(self) -> nn.Module:
        if not self._loaded:
            self._loaded.append(store.load(self.folder, registry=self.registry))
        return self._loaded[0]
