"""MeanFlow: its identity on closed forms, the loss of perfect networks, its times and weights, and one-step samples."""

import pytest
import torch
from torch import Tensor

import ldbench
from ldbench.backbones.dit import DiT
from ldbench.backbones.ditdh import DiTDH
from ldbench.backbones.lightningdit import LightningDiT
from ldbench.config.components import instantiate
from ldbench.core.interpolants import GVP, VP, Discrete, Linear
from ldbench.core.latent import LatentSpec
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.mean_flow import MeanFlow
from ldbench.objectives.times import LogitNormal, Uniform
from ldbench.sampling.guidance import ClassifierFree
from ldbench.sampling.mean_flow import MeanFlowSampler

MEAN, STD = 1.5, 0.4  # of Gaussian data
Y = torch.zeros(4, dtype=torch.int64)


def mean_flow(**changes) -> MeanFlow:
    settings = {"interpolant": Linear(), "times": Uniform(), "equal": 0.75, "power": 1.0, "epsilon": 1e-3}
    settings |= {"guidance_scale": 1.0, "mixing": 0.0, "network_time": "data_at_one"}
    return MeanFlow(**{**settings, **changes})


class Perfect(torch.nn.Module):
    """The average velocity of Gaussian data, whose path is a linear map between any two times."""

    null_class: int | None = None
    learned_variance = False
    second_time = True

    def __init__(self, *, std: float = STD, noise_at_one: bool = False):
        super().__init__()
        self.std = std
        self.noise_at_one = noise_at_one

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t * MEAN, (t.square() * self.std**2 + (1 - t).square()).sqrt()

    def forward(self, x: Tensor, t: Tensor, y: Tensor, *, r: Tensor | None = None) -> Tensor:
        r = t if r is None else r
        t, r = (1 - time if self.noise_at_one else time for time in (t, r))
        t, r = t[:, None, None], r[:, None, None]
        (mean_t, std_t), (mean_r, std_r) = self.moments(t), self.moments(r)
        end = mean_r + std_r / std_t * (x - mean_t)
        rate = (t * self.std**2 - (1 - t)) / std_t.square()  # of the standard deviation, relative
        velocity = MEAN + rate * (x - mean_t)
        gap = torch.where(r == t, torch.ones_like(t), r - t)
        u = torch.where(r == t, velocity, (end - x) / gap)
        return -u if self.noise_at_one else u


@pytest.mark.parametrize("network_time", ["data_at_one", "noise_at_one"])
def test_the_average_velocity_of_a_gaussian_satisfies_the_identity(network_time):
    objective = mean_flow(network_time=network_time)
    network = Perfect(noise_at_one=network_time == "noise_at_one")
    x = torch.randn(4, 3, 2)
    t, r = torch.tensor([0.1, 0.3, 0.5, 0.0]).double(), torch.tensor([0.2, 0.9, 0.95, 1.0]).double()
    velocity = objective.average(network, x, t, t, Y)
    u, derivative = objective.derivative(network, x, velocity, t, r, Y)
    torch.testing.assert_close(u, objective.average(network, x, t, r, Y), rtol=1e-4, atol=1e-5)
    gap = (r - t).float()[:, None, None]
    torch.testing.assert_close(u - gap * derivative, velocity, rtol=1e-3, atol=1e-3)


def test_the_loss_of_the_perfect_network_is_zero_where_the_velocity_is_known():
    # of one data point, the velocity of a pair is that of the whole
    network = Perfect(std=1e-6)
    z = torch.full((4, 3, 2), MEAN)
    t, r = torch.tensor([0.1, 0.3, 0.5, 0.7]), torch.tensor([0.1, 0.6, 0.7, 0.9])
    terms = mean_flow(power=0.0).loss(network, z, Y, step=0, t=t, r=r)
    assert set(terms) == {"average_velocity"}
    torch.testing.assert_close(terms["average_velocity"], torch.zeros(4), atol=1e-6, rtol=0)


def test_an_interval_of_no_length_is_flow_matching():
    network = Perfect(std=0.8)
    z, noise, t = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.tensor([0.1, 0.3, 0.5, 0.7])
    ours = mean_flow(power=0.0).loss(network, z, Y, step=0, t=t, noise=noise)["average_velocity"]
    settings = {"prediction": "velocity", "weighting": "none", "cosine_weight": 0.0, "network_time": "data_at_one"}
    plain = FlowMatching(interpolant=Linear(), times=Uniform(), margin=1e-3, **settings)
    torch.testing.assert_close(ours, 6 * plain.loss(network, z, Y, step=0, t=t, noise=noise)["velocity"])


def test_errors_are_divided_by_a_constant_power_of_themselves():
    network = Perfect(std=0.8)
    z, noise, t = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.tensor([0.1, 0.3, 0.5, 0.7])
    z.requires_grad_()
    plain = mean_flow(power=0.0).loss(network, z, Y, step=0, t=t, noise=noise)["average_velocity"]
    weighted = mean_flow(power=0.5, epsilon=0.1).loss(network, z, Y, step=0, t=t, noise=noise)["average_velocity"]
    torch.testing.assert_close(weighted, plain / (plain + 0.1).sqrt())


class Constant(torch.nn.Module):
    """The same velocity everywhere."""

    null_class: int | None = None
    learned_variance = False

    def __init__(self, value: float):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, t: Tensor, y: Tensor, *, r: Tensor | None = None) -> Tensor:
        return self.value.expand(x.shape)


@pytest.mark.parametrize(("power", "num_numbers", "lowest"), [(0.0, 1, 0.5), (1.0, 1, 0.0), (1.0, 256, 0.5)])
def test_the_adaptive_weight_learns_another_velocity_than_the_mean_where_latents_have_few_numbers(
    power, num_numbers, lowest
):
    # three of four velocities are 0 and one is 2: their mean is 0.5, and 0 is the most frequent
    rng = torch.Generator().manual_seed(0)
    z = 2.0 * (torch.rand(1000, num_numbers, 1, generator=rng) < 0.25)
    t = torch.full((1000,), 0.5, dtype=torch.float64)
    values = [0.0, 0.25, 0.5, 0.75, 1.0]
    gradients = []
    for value in values:
        network = Constant(value)
        objective = mean_flow(power=power)
        loss = objective.loss(network, z, torch.zeros(1000), step=0, t=t, noise=torch.zeros_like(z))
        (gradient,) = torch.autograd.grad(loss["average_velocity"].mean(), network.value)
        gradients.append(abs(float(gradient)))
    assert values[gradients.index(min(gradients))] == lowest


def test_ends_are_ordered_and_equal_for_their_share():
    objective = mean_flow(times=LogitNormal(mean=0.4, std=1.0, shift=1.0, uniform_after=None), equal=0.75)
    torch.manual_seed(0)
    t, r = objective.draw_ends(torch.zeros(20_000, 1, 1), step=0)
    assert (r >= t).all()
    assert (r == t).double().mean().item() == pytest.approx(0.75, abs=0.01)
    apart = r > t
    # the ends together have the law of the distribution
    assert float(torch.cat([t[apart], r[apart]]).median()) == pytest.approx(0.5987, abs=0.01)


class Labels(torch.nn.Module):
    """A velocity that is the label, 9 without one."""

    null_class: int | None = 9
    learned_variance = False

    def forward(self, x: Tensor, t: Tensor, y: Tensor, *, r: Tensor | None = None) -> Tensor:
        return y[:, None, None] * torch.ones_like(x)


def test_guidance_in_training_mixes_the_velocity_with_those_with_and_without_label():
    x, velocity = torch.zeros(3, 2, 1), torch.full((3, 2, 1), 100.0)
    y, t = torch.tensor([1, 2, 9]), torch.tensor([0.2, 0.4, 0.6])
    found = mean_flow(guidance_scale=0.3, mixing=0.5).guided(Labels(), x, velocity, t, y)
    expected = [0.3 * 100 + 0.5 * label + 0.2 * 9 for label in (1, 2)]
    assert found[:, 0, 0].tolist() == pytest.approx([*expected, 100.0]), "without a label it stays"
    assert mean_flow().guided(Labels(), x, velocity, t, y) is velocity
    with pytest.raises(ValueError, match="trained without labels"):
        mean_flow(guidance_scale=2.0).guided(Perfect(), x, velocity, t, y)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("network_time", ["data_at_one", "noise_at_one"])
def test_few_steps_carry_noise_to_exactly_the_data(num_steps, network_time):
    field = mean_flow(network_time=network_time).field(Perfect(noise_at_one=network_time == "noise_at_one"))
    noise = torch.randn(4, 3, 2)
    samples = MeanFlowSampler(num_steps=num_steps, shift=1.0, dtype="float64")(field, noise, Y)
    torch.testing.assert_close(samples, MEAN + STD * noise, rtol=1e-4, atol=1e-4)
    assert (field.calls, field.items) == (num_steps, 4 * num_steps)


def test_its_field_is_of_velocities_too():
    predicted = mean_flow().field(Perfect())(torch.randn(4, 3, 2), torch.tensor([0.1, 0.4, 0.7, 0.9]), Y)
    torch.testing.assert_close(predicted.velocity, Perfect()(predicted.x, predicted.t.float(), Y))


def test_only_fields_with_average_velocities_are_sampled_in_few_steps():
    sampler = MeanFlowSampler(num_steps=1, shift=1.0, dtype="float32")
    guided = ClassifierFree(scale=2.0, low=0.0, high=1.0, channels=None, batched=True)(mean_flow().field(Labels()))
    with pytest.raises(ValueError, match=r"set guidance=none: its guidance is trained"):
        sampler(guided, torch.zeros(4, 2, 1), Y)
    with pytest.raises(ValueError, match="Choose sampler=euler or heun"):
        guided.average_velocity(torch.zeros(4, 2, 1), torch.zeros(4), torch.ones(4), Y)
    with pytest.raises(ValueError, match="Choose float32 or float64"):
        MeanFlowSampler(num_steps=1, shift=1.0, dtype="float16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpolant": Discrete(schedule="linear", num_times=100)}, "needs continuous time"),
        ({"interpolant": VP(beta_min=0.1, beta_max=20.0)}, "not finite at the ends. Choose interpolant=linear or gvp"),
        ({"equal": 1.5}, "0 <= equal <= 1"),
        ({"epsilon": 0.0}, "epsilon > 0"),
        ({"mixing": 1.0}, "0 <= mixing < 1"),
        ({"network_time": "now"}, "Choose one of data_at_one, noise_at_one"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mean_flow(**changes)


def test_gvp_is_taken_too():
    network = Perfect()
    assert (
        mean_flow(interpolant=GVP()).loss(network, torch.randn(4, 3, 2), Y, step=0)["average_velocity"].isfinite().all()
    )


@pytest.mark.parametrize("family", [DiT, LightningDiT, DiTDH])
def test_gradients_in_bfloat16_follow_those_in_float32(family):
    """Forward mode passes through autocast: a step in bfloat16 has the direction and length of one in float32."""
    cfg = ldbench.compose("train", ["generator=meanflow", f"backbone={family.__name__.lower()}"])
    node = {**cfg.generator.backbone, "width": 64, "num_heads": 4, "depth": 2}
    torch.manual_seed(0)
    facts = {"latent": LatentSpec(8, 4, (2, 4)), "num_classes": 3, "has_null_class": True, "learned_variance": False}
    network = instantiate(node, **facts, second_time=True)
    with torch.no_grad():
        for parameter in network.parameters():  # which begin at zero in part
            parameter.add_(0.05 * torch.randn_like(parameter))
    z, noise, y = torch.randn(16, 8, 4), torch.randn(16, 8, 4), torch.arange(16) % 3
    t, r = torch.linspace(0.05, 0.7, 16), torch.linspace(0.3, 0.95, 16)
    gradients = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = mean_flow().loss(network, z, y, step=0, t=t, r=r, noise=noise)["average_velocity"]
        loss.mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    exact, rounded = gradients
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99
    assert float(rounded.norm() / exact.norm()) == pytest.approx(1, abs=0.05)
