"""What every backbone in the config group promises: the next one is tested by existing. And what every size is."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import ldbench
from ldbench.artifacts import store
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.backbone import Backbone
from ldbench.core.latent import LatentSpec

NAMES = sorted(Registry().options("backbone"))
SIZES = sorted(Registry().options("size"))
# those of coarse patches are slow
MARKED = [pytest.param(size, marks=pytest.mark.slow) if size[-1] in "48" else size for size in SIZES]
LATENTS = {"map": LatentSpec(24, 3, (4, 6)), "sequence": LatentSpec(6, 3)}
JOB_INPUTS = {"num_classes": 7, "has_null_class": True, "learned_variance": False}
EACH = [(name, kind) for name in NAMES for kind in LATENTS]


def node(name: str) -> dict[str, Any]:
    """The yaml of an option."""
    return dict(Registry().compose(None, [f"+backbone={name}"]).generator.backbone)


def built(name: str, kind: str, *, moved: bool = True, **changes: Any) -> Backbone:
    """An option on a small latent; `moved` away from its initialization, at which the output is zero."""
    torch.manual_seed(0)
    keywords = {key: value for key, value in changes.items() if key not in JOB_INPUTS}
    inputs_of_job = JOB_INPUTS | {key: value for key, value in changes.items() if key in JOB_INPUTS}
    backbone = instantiate({**node(name), **keywords}, latent=LATENTS[kind], **inputs_of_job).eval()
    for parameter in backbone.parameters() if moved else ():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def inputs(kind: str, count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    spec = LATENTS[kind]
    return (
        torch.randn(count, spec.num_tokens, spec.channels, generator=rng),
        torch.rand(count, generator=rng),
        torch.arange(count) + 5,
    )


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_it_gives_its_latents_shape_and_takes_the_null_class(name: str, kind: str) -> None:
    backbone, (x, t, y) = built(name, kind), inputs(kind)
    assert backbone.null_class == 7
    assert y.max() == 7
    assert backbone(x, t, y).shape == x.shape
    assert built(name, kind, has_null_class=False).null_class is None
    with pytest.raises(ValueError, match="There is no label 7"):
        built(name, kind, has_null_class=False)(x, t, y)


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_a_learned_variance_doubles_its_channels(name: str, kind: str) -> None:
    x, t, y = inputs(kind)
    backbone = built(name, kind, learned_variance=True)
    assert backbone.learned_variance
    assert backbone(x, t, y).shape == (*x.shape[:2], 2 * x.shape[2])


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_its_first_output_is_zero(name: str, kind: str) -> None:
    assert not built(name, kind, moved=False)(*inputs(kind)).any()


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_items_of_a_batch_are_independent(name: str, kind: str) -> None:
    backbone, (x, t, y) = built(name, kind), inputs(kind)
    with torch.no_grad():
        together, alone = (
            backbone(x, t, y),
            torch.cat([backbone(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(len(x))]),
        )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_latents_times_labels_and_positions_all_count(name: str, kind: str) -> None:
    backbone, (x, t, y) = built(name, kind), inputs(kind, count=1)
    with torch.no_grad():
        plain = backbone(x, t, y)
        others = [
            backbone(x + 1, t, y),
            backbone(x, t + 0.1, y),
            backbone(x, t, y - 1),
            backbone(x.flip(1), t, y).flip(1),
        ]
    for other in others:
        assert (other - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_the_gradient_reaches_the_rows_of_its_labels_and_no_others(name: str, kind: str) -> None:
    backbone, (x, t, y) = built(name, kind), inputs(kind)
    backbone(x, t, y).square().mean().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    (table,) = (parameter for parameter in backbone.parameters() if parameter.shape[0] == backbone.num_labels)
    assert torch.equal(table.grad.abs().sum(dim=1) > 0, torch.isin(torch.arange(backbone.num_labels), y))


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_checkpointing_changes_no_number(name: str, kind: str) -> None:
    x, t, y = inputs(kind)
    results = []
    for checkpointing in (False, True):
        backbone = built(name, kind, checkpointing=checkpointing).train()
        out = backbone(x, t, y)
        out.square().mean().backward()
        results.append([out, *(parameter.grad for parameter in backbone.parameters())])
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_it_runs_and_learns_under_bf16_autocast(name: str, kind: str) -> None:
    backbone, (x, t, y) = built(name, kind), inputs(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = backbone(x, t, y)
    out.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in backbone.parameters())
    expected = backbone(x, t, y).detach()
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_to_one_graph(name: str) -> None:
    backbone, (x, t, y) = built(name, "map"), inputs("map")
    torch._dynamo.reset()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, y), backbone(x, t, y))


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_wrong_shapes_are_refused(name: str, kind: str) -> None:
    backbone, (x, t, y) = built(name, kind), inputs(kind)
    for wrong in ((x[:, 1:], t, y), (x[..., 1:], t, y), (x, t[1:], y), (x, t, y[1:])):
        with pytest.raises(ValueError, match="got"):
            backbone(*wrong)


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_its_artifact_and_its_copy_reproduce_every_number(name: str, kind: str, tmp_path: Path) -> None:
    backbone = built(name, kind)
    keywords = {key: value for key, value in node(name).items() if key != "_target_"}
    blueprint = store.Blueprint("backbone", name, {**keywords, **JOB_INPUTS, "latent": LATENTS[kind].to_dict()})
    store.save(backbone, tmp_path / "b", blueprint, recipe={}, digest="0", provenance={})
    for other in (ldbench.load(tmp_path / "b"), copy.deepcopy(backbone)):
        assert other.latent == backbone.latent
        assert torch.equal(other(*inputs(kind)), backbone(*inputs(kind)))


@pytest.mark.parametrize("size", MARKED)
def test_a_size_fits_the_backbone_of_its_name(size: str) -> None:
    family, _, patch = size.split("_")
    composed = Registry().compose(None, [f"+backbone={family}", f"+size={size}"]).generator.backbone
    raw = Registry().options("size")[size]
    assert raw.keys() < node(family).keys()
    assert all(composed[key] == value for key, value in raw.items())
    assert composed.patch_size == int(patch)
    side = 2 * int(patch)
    with torch.device("meta"):
        backbone = instantiate(
            {**composed, "depth": 1}, latent=LatentSpec(side * side, 4, (side, side)), **JOB_INPUTS
        ).to("meta")  # its tables too
        out = backbone(torch.zeros(1, side * side, 4), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    assert out.shape == (1, side * side, 4)
