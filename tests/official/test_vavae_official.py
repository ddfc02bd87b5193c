"""Convolutional autoencoders of latent diffusion: all layouts, and error messages."""

import pytest
import torch

import ldbench
from ldbench.core.latent import LatentSpec
from ldbench.official.vavae import expected_keys, from_diffusers
from ldbench.tokenizers.vavae import VAVAE


def official(
    *, widths=(32, 64), depth=1, attention=(1,), decoder_attention=(1,), channels=4, rows=8, convs=True
) -> dict[str, torch.Tensor]:
    """A small autoencoder in latent diffusion's layout; every value is its own."""
    shapes: dict[str, tuple[int, ...]] = {
        "quant_conv": (rows, rows, 1, 1),
        "post_quant_conv": (channels, channels, 1, 1),
    }
    if not convs:
        shapes.clear()
    last = len(widths) - 1

    def res(prefix, inside, outside):
        shapes.update({f"{prefix}.norm1": (inside,), f"{prefix}.conv1": (outside, inside, 3, 3)})
        shapes.update({f"{prefix}.norm2": (outside,), f"{prefix}.conv2": (outside, outside, 3, 3)})
        if inside != outside:
            shapes[f"{prefix}.nin_shortcut"] = (outside, inside, 1, 1)

    def attn(prefix, width):
        shapes.update(
            {
                f"{prefix}.norm": (width,),
                **{f"{prefix}.{layer}": (width, width, 1, 1) for layer in ("q", "k", "v", "proj_out")},
            }
        )

    for part, name, blocks in (("encoder", "down", depth), ("decoder", "up", depth + 1)):
        for i in (1, 2):
            res(f"{part}.mid.block_{i}", widths[-1], widths[-1])
        attn(f"{part}.mid.attn_1", widths[-1])
        for level, width in enumerate(widths):
            before = widths[max(0, level - 1)] if part == "encoder" else widths[min(last, level + 1)]
            for i in range(blocks):
                res(f"{part}.{name}.{level}.block.{i}", before if i == 0 else width, width)
                if level in (attention if part == "encoder" else decoder_attention):
                    attn(f"{part}.{name}.{level}.attn.{i}", width)
            if level != (last if part == "encoder" else 0):
                shapes[f"{part}.{name}.{level}.{'downsample' if part == 'encoder' else 'upsample'}.conv"] = (
                    width,
                    width,
                    3,
                    3,
                )
    shapes |= {
        "encoder.conv_in": (widths[0], 3, 3, 3),
        "encoder.norm_out": (widths[-1],),
        "encoder.conv_out": (rows, widths[-1], 3, 3),
    }
    shapes |= {
        "decoder.conv_in": (widths[-1], channels, 3, 3),
        "decoder.norm_out": (widths[0],),
        "decoder.conv_out": (3, widths[0], 3, 3),
    }
    rng = torch.Generator().manual_seed(0)
    state = {}
    for layer, shape in shapes.items():
        state[f"{layer}.weight"], state[f"{layer}.bias"] = (
            0.1 * torch.randn(shape, generator=rng),
            0.1 * torch.randn(shape[:1], generator=rng),
        )
    return state


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_small_layout_is_the_one_expected():
    state = official()
    assert expected_keys(2, 1, [1], state) == state.keys()


def test_sizes_are_read_off_the_tensors_and_other_parts_of_a_checkpoint_are_left_out(images):
    state = official()
    beside = {
        "loss.logvar": torch.zeros(()),
        "foundation_model.model.norm.weight": torch.zeros(3),
        "linear_proj.weight": torch.zeros(1),
    }
    vae, again = (
        ldbench.load_official("vavae_f16d32", state),
        ldbench.load_official("vavae_f16d32", {"state_dict": state | beside}),
    )
    assert vae.factor == 2
    posterior = vae.encode(images)
    assert posterior.mean.shape == (2, 8 * 12, 4)
    assert posterior.logvar is not None
    assert vae.decode(posterior.mean, (8, 12)).shape == images.shape
    assert torch.equal(again.encode(images).mean, posterior.mean)
    assert ldbench.load_official("vavae_f16d32", official(rows=4)).encode(images).logvar is None


def test_a_whole_training_checkpoint_is_opened_at_its_autoencoder(images, tmp_path):
    state = official()
    beside = {
        "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
        "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 4, 1, 1),
    }
    beside |= {
        "foundation_model.model.blocks.0.attn.qkv.weight": torch.zeros(6, 2),
        "linear_proj.weight": torch.zeros(8, 4, 1, 1),
    }
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    around = {
        "epoch": 99,
        "global_step": 1000,
        "pytorch-lightning_version": "2.4.0",
        "optimizer_states": [optimizer],
        "lr_schedulers": [],
    }
    around |= {
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {
                "best_model_score": None,
                "best_model_path": "",
                "kth_value": torch.zeros(()),
            }
        }
    }
    torch.save({**around, "state_dict": state | beside}, tmp_path / "last.ckpt")
    whole, plain = (ldbench.load_official("vavae_f16d16", source) for source in (tmp_path / "last.ckpt", state))
    assert torch.equal(whole.encode(images).mean, plain.encode(images).mean)


def test_a_decoder_may_have_no_attention_as_that_of_mar(images):
    mar = ldbench.load_official("vavae_f16d16", {"model": official(decoder_attention=())})
    assert [len(level.attention) for level in mar.encoder.conv.levels] == [0, 1]
    assert [len(level.attention) for level in mar.decoder.conv.levels] == [0, 0]
    assert mar.decode(mar.encode(images).mean, (8, 12)).shape == images.shape


def test_the_autoencoder_of_mar_has_as_many_parameters_as_theirs():
    full = {"widths": [128, 128, 256, 256, 512], "depth": 2, "attention": [4], "latent_channels": 16}
    with torch.device("meta"):
        mar = VAVAE(
            image_size=256, latent_head="kl", channels_last=False, checkpointing=False, decoder_attention=[], **full
        )
    assert sum(value.numel() for value in mar.parameters()) == 66_456_019
    assert len(mar.state_dict()) == 312


def test_an_autoencoder_without_latent_convolutions_is_read_as_one(images):
    state = official(convs=False)
    vae = ldbench.load_official("vavae_f16d16", state)
    assert not {"encoder.to_latent.weight", "decoder.from_latent.weight"} & vae.state_dict().keys()
    assert vae.encode(images).mean.shape == (2, 8 * 12, 4)
    half = state | {"quant_conv.weight": torch.zeros(8, 8, 1, 1), "quant_conv.bias": torch.zeros(8)}
    with pytest.raises(ValueError, match=r"missing post_quant_conv\.bias, post_quant_conv\.weight"):
        ldbench.load_official("vavae_f16d16", half)


def test_the_scale_of_stable_diffusions_latents_is_listed():
    assert ldbench.list_official()["sd_vae_f8d4"].latent_scale == 0.18215


def test_what_is_missing_or_unknown_is_named():
    state = official()
    for broken, message in (
        ({key: value for key, value in state.items() if key != "quant_conv.bias"}, r"missing quant_conv\.bias"),
        (
            {key: value for key, value in state.items() if key != "decoder.up.0.block.0.nin_shortcut.weight"},
            "missing .*nin_shortcut",
        ),
        (state | {"encoder.extra": torch.zeros(1)}, r"unknown encoder\.extra"),
    ):
        with pytest.raises(ValueError, match=message):
            ldbench.load_official("vavae_f16d16", broken)


@pytest.mark.parametrize("latent_convs", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 32, 48)])
def test_diffusers_own_autoencoder_gives_the_same_numbers(shape, latent_convs):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=32,
        use_quant_conv=latent_convs,
        use_post_quant_conv=latent_convs,
    ).eval()
    ours = ldbench.load_official("sd_vae_f8d4", theirs.state_dict())
    assert ours.factor == 8
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    grid = (shape[2] // 8, shape[3] // 8)
    spec = LatentSpec(grid[0] * grid[1], 4, grid)
    with torch.no_grad():
        posterior, expected = ours.encode(images), theirs.encode(images).latent_dist
        torch.testing.assert_close(spec.to_map(posterior.mean), expected.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(spec.to_map(posterior.logvar), expected.logvar, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            ours.decode(posterior.mean, grid), theirs.decode(expected.mean).sample, rtol=1e-4, atol=1e-4
        )


def test_the_layout_of_diffusers_is_that_of_latent_diffusion_in_other_words():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ).state_dict()
    found = from_diffusers(theirs)
    assert expected_keys(4, 2, [], found) == found.keys()
    assert sum(value.numel() for value in found.values()) == 83_653_863
