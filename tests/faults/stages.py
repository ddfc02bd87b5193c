"""The stages of a cell, each of a second or two: their commands, and the roots before and after them."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig
from tests.faults import outcome, processes

import ldbench
from ldbench.config.compose import Registry
from ldbench.pipeline import pipeline

TOKENIZER = [
    "tokenizer.stages.pretrain.max_steps=14",
    "tokenizer.stages.pretrain.accumulate=2",
    "tokenizer.stages.pretrain.ema_decay=0.9",
    "tokenizer.stages.tune.max_steps=10",
    "+loss@tokenizer.losses.adversarial=adversarial",
    "tokenizer.losses.adversarial.start=4",
    "tokenizer.losses.adversarial.lecam_weight=0.1",
    "tokenizer.losses.adversarial.discriminator.width=4",
    "tokenizer.losses.adversarial.discriminator.num_layers=1",
    "callbacks.checkpoint.every=3",
    "callbacks.reconstructions.every=4",
    "trainer.log_every=1",
]
ENCODING = ["heldout=true", "shard_size=8", "batch_size=4"]
GENERATOR = [
    "generator=sit",
    "generator.max_steps=30",
    "generator.batch_size=8",
    "generator.backbone.width=24",
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "generator.optimizer.warmup_steps=2",
    "callbacks.samples.every=8",
    "callbacks.samples.num_images=2",
    "sampler=euler_maruyama",
    "sampler.num_steps=4",
    *(f"latents.{word}" for word in ENCODING),
]
SAMPLING = ["num_samples=40", "part_size=4", "batch_size=4", "save_images=true", "save_npz=true"]
EVALUATION = [
    "protocol=digits",
    "protocol.extractor=tiny",
    "protocol.num_samples=24",
    "jobs.generate.part_size=8",
    # as the other job's: the last bits of features depend on it, and either job may be the first to extract them
    "jobs.generate.batch_size=8",
    "jobs.reconstruct.batch_size=8",
    "jobs.reconstruct.save_images=true",
]
UNMEASURED = ["~jobs.reconstruct", "~jobs.generate"]
TINY = {  # a config folder with an extractor whose network trains in no time
    "network/tiny.yaml": "defaults:\n  - digits\n  - _self_\nname: tiny\nmax_steps: 5\nbatch_size: 16\n",
    "extractor/tiny.yaml": "defaults:\n  - /network@network: tiny\n  - _self_\n"
    "_target_: ldbench.metrics.extractors.NetworkFeatures\n",
}


@dataclass(frozen=True)
class Stage:
    """A part of a cell, and the command that makes it where all before it is there."""

    name: str
    entry: str  # train | run
    words: Sequence[str]
    variants: Sequence[Sequence[str]] = ((),)  # words that change no number, taken in turn


STAGES = [
    Stage("tokenizer", "train", [*TOKENIZER, *UNMEASURED], ((), (), ("trainer.workers=1",))),
    Stage("encoding", "run", [*TOKENIZER, "job=encode", *(f"job.{word}" for word in ENCODING)]),
    Stage("generator", "train", [*TOKENIZER, *GENERATOR, *UNMEASURED]),
    Stage("sampling", "run", [*TOKENIZER, *GENERATOR, "job=generate", *(f"job.{word}" for word in SAMPLING)]),
    Stage("evaluation", "train", [*TOKENIZER, *GENERATOR, *EVALUATION]),
]


class Made:
    """An uninterrupted stage: the root before and after, its duration, and the files that it touched."""

    def __init__(self, stage: Stage, folder: Path, before: "Made | None", small: Sequence[str], extra: Path):
        self.stage = stage
        self.folder = folder / stage.name
        self.before = before
        self.small = small
        self.extra = extra  # the folder of TINY
        self.root = self.folder / "root"  # where the stage works, again and again
        self.after = self.folder / "after"

    def lay_out(self, root: Path | None = None) -> Path:
        """A root as the stage finds it."""
        root = root or self.root
        shutil.rmtree(root, ignore_errors=True)
        if self.before is None:
            root.mkdir(parents=True)
        else:
            shutil.copytree(self.before.done.after, root, symlinks=True)
        return root

    def work(self, words: Sequence[str] = (), root: Path | None = None) -> Callable[[], object]:
        """What the stage's command does."""
        cfg, registry = self.config(words, root or self.root), Registry((str(self.extra),))
        return lambda: getattr(pipeline, self.stage.entry)(cfg, registry)

    def warm(self) -> None:
        """Has this process read all that the stage reads, so that no forked one needs to."""
        self.work(root=self.folder.parent / "warm")()

    def config(self, words: Sequence[str], root: Path) -> DictConfig:
        said = [*self.small, *self.stage.words, f"paths.root={root}", *words]
        return ldbench.compose(self.stage.entry, said, searchpath=[str(self.extra)])

    @cached_property
    def done(self) -> "Made":
        """Itself, once it is made."""
        self.lay_out()
        self.found = outcome.names(self.root)
        note, log = self.folder / "touches", self.folder / "unbroken.log"
        status = processes.run(self.work(), self.root, log, note=note)
        assert status == 0, log.read_text()
        self.touches = Counter(note.read_text().splitlines())
        shutil.copytree(self.root, self.after, symlinks=True)
        self.outcome = outcome.of(self.root)
        self.lay_out()
        began = time.monotonic()
        assert processes.run(self.work(), self.root, log) == 0, log.read_text()
        self.seconds = time.monotonic() - began
        assert outcome.differing(self.outcome, outcome.of(self.root)) == [], "two unbroken runs end in the same"
        return self

    def is_under_way(self) -> bool:
        """Whether the stage was begun, and has not come to its end."""
        there = outcome.names(self.root)
        return bool(there - self.done.found) and not there >= self.done.outcome.keys() - {
            name for name in self.outcome if name.endswith("/log")
        }
