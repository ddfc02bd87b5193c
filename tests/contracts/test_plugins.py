"""A tokenizer and a metric from outside the package: one file, one yaml each."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.fixtures import Answer

import ldbench
from ldbench import run, train

MODULE = '''
"""A tokenizer that averages blocks of pixels."""

import torch
from torch import nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction, Tokenizer


class Blocks(Tokenizer):
    def __init__(self, *, image_size: int, block: int, channels: int):
        super().__init__()
        self.image_size, self.block, self.channels = image_size, block, channels
        self.encoder = nn.Conv2d(3, channels, kernel_size=block, stride=block)
        self.decoder = nn.ConvTranspose2d(channels, 3, kernel_size=block, stride=block)

    @property
    def latent(self):
        side = self.image_size // self.block
        return LatentSpec(num_tokens=side * side, channels=self.channels, grid=(side, side))

    def encode(self, images):
        self.validate_images(images)
        return Posterior(mean=self.encoder(images).flatten(2).transpose(1, 2))

    def decode(self, z, grid=None):
        return self.decoder(self.latent.to_map(z))

    def forward(self, images, *, mask_ratio=0.0, mask_noise=None, eps=None):
        posterior = self.encode(images)
        return Reconstruction(images=self.decode(posterior.mean), z=posterior.mean, posterior=posterior)

    def anchors(self):
        return {"encoder": self.encoder.weight, "decoder": self.decoder.weight}
'''

YAML = """
defaults:
  - /loss@losses.pixels: mse
  - /stage@stages.all: default
  - _self_
name: blocks
weights: null
seed: 0
image_size: 32
model:
  _target_: blocks_tokenizer.Blocks
  block: 8
  channels: 4
stages:
  all:
    max_steps: 5
    batch_size: 16
"""


METRIC = '''
"""A metric of another package: how much of the brightness is lost."""


class Dimming:
    """The difference of the mean levels of an image and its reconstruction, by image."""

    higher_is_better = False

    def __init__(self, *, scale: float):
        self.scale = scale

    def __call__(self, images, recon):
        return (images.double().mean(dim=(1, 2, 3)) - recon.double().mean(dim=(1, 2, 3))).abs() * self.scale
'''


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A folder with the plug-in's module and its config group; Python forgets the module afterwards."""
    (tmp_path / "blocks_tokenizer.py").write_text(MODULE)
    (tmp_path / "conf" / "tokenizer").mkdir(parents=True)
    (tmp_path / "conf" / "tokenizer" / "blocks.yaml").write_text(YAML)
    yield tmp_path
    for module in ("blocks_tokenizer", "dimming_metric"):
        sys.modules.pop(module, None)


@pytest.mark.trains
def test_a_tokenizer_from_outside_trains_from_the_command_line_and_loads_where_it_is_trusted(
    answer: Answer, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["tokenizer=blocks", f"hydra.searchpath=[file://{package / 'conf'}]", f"paths.root={package}"]
    with monkeypatch.context() as trusted:
        trusted.syspath_prepend(str(package))
        done = answer(train, *words, "trainer.accelerator=cpu", "protocol=default", "data.subset=0.1", cwd=package)
    del sys.modules["blocks_tokenizer"]
    assert done.returncode == 0, done.stderr
    folder = next((package / "artifacts" / "tokenizers").glob("blocks-*"))
    with pytest.raises(ValueError, match="There is no tokenizer named 'blocks' here"):
        ldbench.load(folder)
    monkeypatch.syspath_prepend(str(package))
    tokenizer = ldbench.load(folder, searchpath=[str(package / "conf")])
    assert tokenizer.decode(tokenizer.encode(torch.zeros(1, 3, 32, 32)).mean).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+loss@tokenizer.losses.kl=kl", "Stage all cannot train: This posterior is a point"),
        ("tokenizer.stages.all.latent_noise.strength=0.5", "The training pass of Blocks takes no `corruption`"),
    ],
)
def test_what_a_tokenizer_from_outside_lacks_is_told_before_it_is_trained(
    package: Path, monkeypatch: pytest.MonkeyPatch, override: str, sentence: str
) -> None:
    from ldbench.config.compose import Registry
    from ldbench.pipeline import tokenizer_training
    from ldbench.pipeline.tokenizer_plan import plan_tokenizer

    monkeypatch.syspath_prepend(str(package))
    searchpath = [str(package / "conf")]
    overrides = ["tokenizer=blocks", override, f"paths.root={package}"]
    planned = plan_tokenizer(ldbench.compose("train", overrides, searchpath=searchpath), Registry(tuple(searchpath)))
    with pytest.raises(ValueError, match=sentence):
        tokenizer_training.dry_run(planned)


@pytest.mark.trains
def test_a_metric_from_outside_is_measured_and_ranked_where_its_package_is_not_known(
    answer: Answer, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "dimming_metric.py").write_text(METRIC)
    (package / "conf" / "metric").mkdir()
    (package / "conf" / "metric" / "dimming.yaml").write_text("_target_: dimming_metric.Dimming\nscale: 2.0\n")
    words = ["job=reconstruct", "tokenizer=blocks", "protocol=default", "protocol.reconstruction=[psnr,dimming]"]
    words += [f"hydra.searchpath=[file://{package / 'conf'}]", f"paths.root={package}", "data.subset=0.1"]
    with monkeypatch.context() as trusted:
        trusted.syspath_prepend(str(package))
        for seed in (0, 1):
            done = answer(run, *words, f"tokenizer.seed={seed}", "trainer.accelerator=cpu", cwd=package)
            assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "ldbench.leaderboard", "rank=dimming", f"paths.root={package}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    values = [float(line.split("#")[0].split()[-1]) for line in shown.stdout.splitlines() if "#" in line]
    assert len(values) == 2
    assert values == sorted(values)
