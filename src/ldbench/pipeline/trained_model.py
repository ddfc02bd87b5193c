"""TrainedModel: a complete artifact of a tokenizer or a generator."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ldbench.artifacts import store
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.tokenizer import Tokenizer


@dataclass(frozen=True)
class TrainedModel:
    """An artifact folder with the digest of its recipe. The model is loaded, verified and built once."""

    folder: Path
    digest: str
    registry: Registry = Registry()
    _loaded: list[nn.Module] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the artifact, wherever it was copied to."""
        return store.name_of(self.folder) if store.is_complete(self.folder) else self.folder.name

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

    def _load(self) -> nn.Module:
        if not self._loaded:
            self._loaded.append(store.load(self.folder, registry=self.registry))
        return self._loaded[0]
