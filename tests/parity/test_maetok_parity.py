"""MAETok against the official code's numbers: encoding, decoding, rotary positions, mask ratios, masked training."""

import numpy as np
import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.recipe import FREQUENCIES

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.layers.masking import count_hidden
from ldbench.layers.rotary import MixedRotary, initial_frequencies, rotate
from ldbench.losses.features import Features
from ldbench.training.mask_schedules import TruncatedNormal

pytestmark = pytest.mark.parity

THETA = 10.0  # rope_theta of the official code's yaml files


@each_case("maetok_")
def test_encoding_and_decoding_give_the_official_numbers(case):
    maetok = ldbench.load_official(case.official_name("maetok_b_128"), case.weights())
    assert maetok.image_size == case.config["image_size"]
    assert (maetok.encoder.rotary is not None) == ("rope" in case.config["position"])
    with torch.no_grad():
        z = maetok.encode(case.input("x")).mean
        case.check("latent", z)
        case.check("reconstruction", maetok.decode(z))
        case.check("decode_of_z", maetok.decode(case.input("z")))


@each_case("maetok_rope")
def test_rotary_positions_are_the_official_ones(case):
    facts, raw = case.config, case.input("freqs_raw")
    rotary = MixedRotary(depth=raw.shape[1], num_heads=facts["heads"], head_dim=facts["head_dim"], theta=THETA)
    with torch.no_grad():
        rotary.frequencies.copy_(FREQUENCIES * raw.unflatten(-1, (facts["heads"], -1)))
        cos, sin = rotary((facts["grid"], facts["grid"]), before=0, after=0)[facts["layer"]]
        case.check("cos", cos)
        case.check("sin", sin)
        case.check("q_rotated", rotate(case.input("q"), cos, sin))
        case.check("k_rotated", rotate(case.input("k"), cos, sin))
    _, heads, pairs = case.facts["outputs"]["freqs_init_angle0"]["shape"]
    case.check("freqs_init_angle0", initial_frequencies(torch.zeros(heads), head_dim=2 * pairs, theta=THETA))


@each_case("maetok_mask_ratio")
def test_mask_ratios_follow_the_official_distribution(case):
    u, std = torch.tensor(case.facts["inputs"]["u"]["value"], dtype=torch.float64), case.config["scale"]
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    for name, low, high in case.outputs(r"ratio_([\d.]+)_([\d.]+)"):
        low, high, both = float(low), float(high), name.removeprefix("ratio_")
        # "location = max" in the case's text
        law = TruncatedNormal(low=low, high=high, mean=high, std=std, per="batch")
        ratios = law.quantile(u)
        case.check(name, ratios)
        for counted, num_tokens in case.outputs(rf"masked_count_(\d+)_{both}"):
            case.check(counted, count_hidden(ratios, int(num_tokens)))
        # the mean over equal shares of the probability is the law's own
        middle = law.quantile((grid[1:] + grid[:-1]) / 2)
        case.check(f"mean_std_{both}", torch.stack([middle.mean(), middle.std(correction=0)]))
        (points,) = case.facts["outputs"][f"pdf_{both}"]["shape"]
        at = torch.linspace(low + 1e-6, high - 1e-6, points, dtype=torch.float64)  # the same text
        start, end, inside = (
            torch.special.ndtr((torch.as_tensor(x, dtype=torch.float64) - high) / std) for x in (low, high, at)
        )
        share = ((inside - start) / (end - start)).requires_grad_()
        (slope,) = torch.autograd.grad(law.quantile(share).sum(), share)
        case.check(f"pdf_{both}", 1 / slope)  # the density is one over the slope of the quantile


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


def auxiliary(weights, kind, num_heads):
    """The state of an auxiliary term from the official training module's."""
    state = {AUXILIARY[key]: value for key, value in under(weights, f"decoder_{kind}.").items() if key in AUXILIARY}
    state["decoder.rotary.frequencies"] = state["decoder.rotary.frequencies"].unflatten(-1, (num_heads, -1))
    for key, value in under(weights, f"decoder_{kind}.model.blocks.").items():
        state[f"decoder.blocks.{key.replace('adaLN_modulation.1', 'modulation')}"] = value
    for theirs, ours in ((f"post_quant_conv_{kind}.", "decoder.from_latent."), (f"to_pixel_{kind}.", "head.")):
        state |= {ours + key: value for key, value in under(weights, theirs).items()}
    return state


def under(weights, prefix):
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


@pytest.mark.slow
@each_case("maetok_train_forward", besides=("hog_target", "teacher_input"))
def test_the_masked_pass_its_auxiliary_decoders_and_losses_give_the_official_numbers(case):
    weights, facts = case.weights(), case.config
    maetok = ldbench.load_official("maetok_b_128", weights).train()
    images = case.input("x")
    y = torch.zeros(len(images), dtype=torch.long)
    with torch.no_grad():
        # theirs hides where the noise is smallest
        recon = maetok(images, mask_ratio=facts["mask_ratio"], mask_noise=-case.input("order_noise"))
        assert np.array_equal(recon.mask.float().numpy(), case.input("mask").numpy())
        case.check("latent", recon.z)
        case.check("reconstruction", recon.images)
        for kind, channels in facts["aux_outputs"].items():
            hog = kind == "hog"
            teacher = (
                instantiate(Registry().options("teacher")["hog"]) if hog else Given(case.input(f"{kind}_features"))
            )
            assert teacher.channels(facts["image_size"], maetok.patch_grid) == channels
            for tokens in ("masked", "all"):
                term = Features(
                    weight=1.0,
                    start=0,
                    warmup=0,
                    teacher=teacher,
                    tokens=tokens,
                    distance="mse" if hog else "negative_cosine",
                    width=facts["aux_width"],
                    depth=facts["aux_depth"],
                    num_heads=facts["aux_heads"],
                    modulation_start="zero",
                    linear_std=0.02,
                    token_std=0.02,
                    latent=maetok.latent,
                    patch_grid=maetok.patch_grid,
                    image_size=facts["image_size"],
                )
                term.load_state_dict(auxiliary(weights, kind, facts["aux_heads"]))
                case.check(f"loss_{kind}_{tokens}", term(images, recon, y))
            case.check(f"{kind}_pred", term.predict(recon))
