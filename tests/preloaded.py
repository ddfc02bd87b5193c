"""What the server imports and composes that processes are forked from (tests/forking.py): each of them has it then."""

from pathlib import Path

from ldbench import train  # noqa: F401
from ldbench.config.compose import Registry
from ldbench.pipeline import pipeline  # noqa: F401
from tests import composing, shared_trainings

composing.reading_once().__enter__()
Registry.compose_from_files = composing.by_parts  # type: ignore[method-assign]
for name in (*shared_trainings.GENERATORS, *shared_trainings.SHARDED, *shared_trainings.TOKENIZERS):
    for num_processes in (1, 2):
        shared_trainings.composed(name, Path(), num_processes)
