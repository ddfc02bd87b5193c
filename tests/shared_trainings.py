"""Trains cases of those below, alone or as one of the processes of the environment, and saves the results of each.

Run by tests/test_shared_trainings.py in processes that it forks.
"""

import os
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

import ldbench
from ldbench.core import distributed
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.layers.batch_norm import SharedBatchNorm
from ldbench.layers.lpips import LPIPSNetwork
from ldbench.pipeline import generator_training, tokenizer_training
from ldbench.pipeline.generator_plan import plan_generator
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.runtime.process_group import is_worker_rank
from ldbench.training import fit
from ldbench.training.fsdp import unsharded

COMMON = ["trainer.accelerator=cpu", "trainer.log_every=1", "callbacks.checkpoint.every=2", "protocol=default"]
NARROW = ["width=16", "depth=1", "num_heads=2"]

GENERATOR = [f"generator.backbone.{word}" for word in NARROW]
GENERATOR += [
    "generator.max_steps=4",
    "generator.batch_size=8",
    "generator.optimizer.warmup_steps=1",
    "generator.class_dropout=0.3",
]
GENERATOR += [
    "generator.ema_decays=[0.5]",
    "generator.exported_decay=0.5",
    "generator.optimizer.eps=1e-4",
    "generator.optimizer.clip_norm=0.1",
]
STEPS = "sampler.num_steps=3"  # of the sheet of samples at the end
GENERATORS = {
    "dit": ["generator=dit", "sampler.respacing='3'"],
    "sit": ["generator=sit", "interpolant=gvp", "generator.accumulate=2", STEPS],
    "lightningdit": ["generator=lightningdit", STEPS],
    "maetok_sit": ["generator=sit", "objective=flow_matching_maetok", "times=normal_log_snr", STEPS],
}
SHARDED = {"dit_sharded": GENERATORS["dit"], "lightningdit_sharded": GENERATORS["lightningdit"]}

VIT = [f"tokenizer.model.{side}{word}" for side in ("", "decoder_") for word in NARROW] + ["data.subset=0.1"]
LEARNING = ["batch_size=8", "max_steps=4", "optimizer.warmup_steps=1", "optimizer.eps=1e-4", "optimizer.clip_norm=0.1"]
PATCHGAN = [
    "+loss@tokenizer.losses.gan=adversarial",
    "tokenizer.losses.gan.lecam_weight=0.1",
    "tokenizer.losses.gan.augment_probability=0.7",
]
PATCHGAN += ["tokenizer.losses.gan.discriminator.num_layers=1", "tokenizer.losses.gan.discriminator.width=4"]
VISIBLE = "tokenizer.losses.pixels.visible_ratio=0.3"
VMAE = [f"tokenizer.stages.{stage}.{word}" for stage in ("pretrain", "tune") for word in LEARNING]
VMAE += [
    "tokenizer.losses.kl.weight=1e-2",
    "tokenizer.losses.kl.std=1.0",
    "tokenizer.stages.pretrain.accumulate=2",
    VISIBLE,
]
MAETOK = [
    *(f"tokenizer.stages.masked.{word}" for word in LEARNING),
    "~tokenizer.stages.tune",
    "tokenizer.losses.hog.width=12",
    VISIBLE,
]
VAVAE = [
    *(f"tokenizer.stages.train.{word}" for word in LEARNING),
    "tokenizer.stages.train.ema_decay=0.5",
    "tokenizer.losses.gan.start=1",
]
VAVAE += ["tokenizer.model.widths=[8,8,8,8]", "~tokenizer.losses.alignment", "data.subset=0.1"]
TOKENIZERS = {
    "vmae": ["tokenizer=vmae", *VIT, *VMAE],
    "maetok": ["tokenizer=maetok", *VIT, *MAETOK, "tokenizer.stages.masked.mask_ratio.per=image"],
    "vavae": ["tokenizer=vavae", *PATCHGAN, *VAVAE],
}


def latents() -> TensorLatents:
    """Latents of their own means and scales."""
    rng = torch.Generator().manual_seed(0)
    z = torch.tensor([5.0, 0.0, -2.0]) + torch.tensor([0.1, 1.0, 3.0]) * torch.randn(50, 4, 3, generator=rng)
    return TensorLatents(z, torch.arange(50) % 5, latent=LatentSpec(4, 3, (2, 2)), num_classes=5)


def normalised(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Batch normalization and token dropping of this process's images, and gradients averaged over processes."""
    rng = torch.Generator().manual_seed(0)
    found = {}
    for dims in (2, 1):
        x = (5 + torch.randn(6, 3, *[4] * dims, generator=rng))[rank::world].requires_grad_()
        layer = SharedBatchNorm(3)
        with distributed.data_parallel(rank, world):
            out = layer(x)
            out.pow(3).mean().backward()
            found |= {f"{name}_{dims}": distributed.mean_over_ranks(p.grad) for name, p in layer.named_parameters()}
        found |= {
            f"rows_{dims}": out.detach(),
            f"rows_{dims}_gradient": x.grad / world,
            **{f"{key}_{dims}": b for key, b in layer.named_buffers()},
        }
    torch.manual_seed(0)
    with distributed.data_parallel(rank, world):
        thinned = LPIPSNetwork.drop_channels(
            SimpleNamespace(dropout=torch.nn.Dropout(0.5)), torch.rand(8, 3, 4, 4, generator=rng)[rank::world]
        )
    return found | {"rows_thinned": thinned}


def composed(name: str, root: Path, num_processes: int) -> DictConfig:
    """The config of a case."""
    words = [*COMMON, f"trainer.devices={num_processes}", f"paths.root={root}"]
    if num_processes > 1:
        words += ["trainer.strategy=fsdp" if name in SHARDED else "trainer.strategy=ddp"]
    if name in TOKENIZERS:
        return ldbench.compose("train", [*TOKENIZERS[name], *words])
    return ldbench.compose("train", [*{**GENERATORS, **SHARDED}[name], *GENERATOR, *words, f"paths.runs={root}/{name}"])


def main(root: Path, num_processes: int, cases: Collection[str]) -> None:
    ended, folders = {}, {}
    generators, tokenizers = ([name for name in cases if (name in TOKENIZERS) == kind] for kind in (False, True))
    for name in generators:
        planned = plan_generator(composed(name, root, num_processes), latents())
        with fit.torch_threads(1):
            task = generator_training.fit_generator(planned, None)
        ended[name], folders[name] = unsharded(task.state_dict()), planned.run_folder
    for name in tokenizers:
        planned = plan_tokenizer(composed(name, root, num_processes))
        with fit.torch_threads(1):
            ended[name] = tokenizer_training.train_stages(planned).state_dict()
        folders[name] = planned.run_folder
    ended["normalised"] = normalised(int(os.environ.get("RANK", "0")), num_processes)
    if is_worker_rank():
        torch.save(ended, root / "other.pt")
        return
    for name in tokenizers:
        for path in sorted(folders[name].glob("stages/*.losses.safetensors")):
            ended[name] |= {f"{path.stem}.{key}": value for key, value in load_file(path).items()}
    torch.save({"ended": ended, "folders": {name: str(folder) for name, folder in folders.items()}}, root / "first.pt")
