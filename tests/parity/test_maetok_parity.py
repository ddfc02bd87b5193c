"""MAETok against the official code's numbers: encoding, decoding, rotary positions, mask ratios, the masked training pass and its losses."""

import numpy as np
import pytest
import torch

import ldbench
from ldbench.layers.masking import count_hidden
from ldbench.layers.rotary import MixedRotary, initial_frequencies, rotate
from ldbench.losses.features import Features
from ldbench.teachers.hog import HOG
from ldbench.training.mask_schedules import TruncatedNormal

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    ("name", "positions"),
    [("maetok_b_128_256", "rope"), pytest.param("maetok_b_128_256_ape", "absolute", marks=pytest.mark.slow)],
)
def test_encoding_and_decoding_give_the_official_numbers(open_case, name, positions):
    case = open_case(name)
    maetok = ldbench.load_official("maetok_b_128", case.weights())
    assert (maetok.encoder.rotary is None) == (positions == "absolute")
    with torch.no_grad():
        z = maetok.encode(case.input("x")).mean
        case.check("latent", z)
        case.check("reconstruction", maetok.decode(z))
        case.check("decode_of_z", maetok.decode(case.input("z")))


def test_rotary_positions_turn_as_the_official_ones(open_case):
    case = open_case("maetok_rope")
    rotary = MixedRotary(depth=12, num_heads=12, head_dim=64, theta=10.0)
    with torch.no_grad():
        rotary.frequencies.copy_(0.2 * case.input("freqs_raw").view(2, 12, 12, 32))
        cos, sin = rotary((16, 16), before=0, after=0)[3]
        case.check("cos", cos)
        case.check("sin", sin)
        case.check("q_rotated", rotate(case.input("q"), cos, sin))
        case.check("k_rotated", rotate(case.input("k"), cos, sin))
    case.check("freqs_init_angle0", initial_frequencies(torch.zeros(2), head_dim=64, theta=10.0))


def test_mask_ratios_follow_the_official_law(open_case):
    case = open_case("maetok_mask_ratio")
    law = TruncatedNormal(low=0.4, high=0.6, mean=0.6, std=0.25, per="batch")
    u = torch.tensor(case.facts["inputs"]["u"]["value"], dtype=torch.float64)
    ratios = law.quantile(u)
    case.check("ratio_0.4_0.6", ratios)
    case.check("masked_count_256_0.4_0.6", count_hidden(ratios, 256))
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    middle = law.quantile((grid[1:] + grid[:-1]) / 2)  # the mean over equal shares of the probability is the law's own
    case.check("mean_std_0.4_0.6", torch.stack([middle.mean(), middle.std(correction=0)]))
    ends = torch.special.ndtr(torch.tensor([-0.8, 0.0], dtype=torch.float64))
    at = torch.linspace(0.4 + 1e-6, 0.6 - 1e-6, 9, dtype=torch.float64)
    share = ((torch.special.ndtr((at - 0.6) / 0.25) - ends[0]) / (ends[1] - ends[0])).requires_grad_()
    (slope,) = torch.autograd.grad(law.quantile(share).sum(), share)
    case.check("pdf_0.4_0.6", 1 / slope)  # the density is one over the slope of the quantile


class Given:
    """A teacher whose features are handed in."""

    def __init__(self, features):
        self.features = features

    def channels(self, image_size, grid):
        return self.features.shape[-1]

    def __call__(self, images, grid):
        return self.features


AUXILIARY = {  # theirs -> ours, in the decoder of an auxiliary term
    "mask_token": "decoder.query",
    "latent_pos_embed": "decoder.latent_positions",
    "freqs": "decoder.rotary.frequencies",
    "model.cls_token": "decoder.class_token",
}


def auxiliary(weights, kind):
    """The state of an auxiliary term from the official training module's."""
    state = {AUXILIARY[key]: value for key, value in under(weights, f"decoder_{kind}.").items() if key in AUXILIARY}
    state["decoder.rotary.frequencies"] = state["decoder.rotary.frequencies"].unflatten(-1, (3, 32))
    for key, value in under(weights, f"decoder_{kind}.model.blocks.").items():
        state[f"decoder.blocks.{key.replace('adaLN_modulation.1', 'modulation')}"] = value
    for theirs, ours in ((f"post_quant_conv_{kind}.", "decoder.from_latent."), (f"to_pixel_{kind}.", "head.")):
        state |= {ours + key: value for key, value in under(weights, theirs).items()}
    return state


def under(weights, prefix):
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def test_the_masked_pass_its_auxiliary_decoders_and_losses_give_the_official_numbers(open_case):
    case = open_case("maetok_train_forward_masked")
    weights = case.weights()
    maetok = ldbench.load_official("maetok_b_128", weights).train()
    images, y = case.input("x"), torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        recon = maetok(
            images, mask_ratio=0.5, mask_noise=-case.input("order_noise")
        )  # theirs hides where the noise is smallest
        assert np.array_equal(recon.mask.float().numpy(), case.arrays["in.mask"])
        case.check("latent", recon.z)
        case.check("reconstruction", recon.images)
        hog = HOG(num_bins=9, cell_size=8, window=16)
        teachers = {"hog": hog, "dino": Given(case.input("dino_features")), "clip": Given(case.input("clip_features"))}
        for kind, teacher in teachers.items():
            for tokens, suffix in (("masked", "masked"), ("all", "all")):
                term = Features(
                    weight=1.0,
                    start=0,
                    warmup=0,
                    teacher=teacher,
                    tokens=tokens,
                    distance="mse" if kind == "hog" else "negative_cosine",
                    width=192,
                    depth=3,
                    num_heads=3,
                    modulation_start="zero",
                    linear_std=0.02,
                    token_std=0.02,
                    latent=maetok.latent,
                    patch_grid=maetok.patch_grid,
                    image_size=256,
                )
                term.load_state_dict(auxiliary(weights, kind))
                case.check(f"loss_{kind}_{suffix}", term(images, recon, y))
            case.check(f"{kind}_pred", term.predict(recon))
