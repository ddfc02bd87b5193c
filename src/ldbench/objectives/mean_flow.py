"""MeanFlow: regress the average velocity over an interval of times, which takes noise to data in one step.

[0] Geng et al., Mean Flows for One-step Generative Modeling, 2025, https://arxiv.org/abs/2505.13447. Its time is 1 at
    the noise; here 0 is the noise, and an interval goes from t to a later time r.
"""

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ldbench.core.distributed import draw_for_global_batch, normal_like
from ldbench.core.field import Field, Prediction
from ldbench.core.interfaces import Network, TimeDistribution
from ldbench.core.interpolant import Interpolant, Kind, expand_like
from ldbench.core.network_time import NETWORK_TIMES


class MeanFlow:
    """The squared error of the average velocity u(x, t, r) on the way from x at t to r, weighted adaptively.

    Its target follows from the velocity v at t by the identity u = v + (r - t) du/dt (eq. 6 of [0] with time turned
    round), where du/dt = v dot grad_x u + du/dt at constant x is one Jacobian-vector product of the network. `times`:
    of both ends, drawn independently and ordered; for a share `equal` of latents r is t, where the loss is flow
    matching. `power` and `epsilon`: the squared error e, the sum over a latent's numbers, is divided by (e +
    epsilon)^power, a constant to gradients; power 0 leaves it. A power above 0 weights latents with a small error more:
    what is learned is then no mean of velocities where e differs much between latents, as it does for few numbers.
    `guidance_scale` and `mixing` (omega and kappa of eq. 20 of [0]) replace v by omega v + kappa u(x, t, t) + (1 -
    omega - kappa) u(x, t, t) without label, so that samples are guided without further calls; 1 and 0 are none.
    `network_time`: as in flow matching.

    Raises ValueError for numbers out of range, and for discrete time.
    """

    revision: ClassVar[int] = 1
    learned_variance: ClassVar[bool] = False
    second_time: ClassVar[bool] = True
    forward_mode: ClassVar[bool] = True  # the network is differentiated by a Jacobian-vector product
    prediction: ClassVar[Kind] = "velocity"

    def __init__(
        self,
        *,
        interpolant: Interpolant,
        times: TimeDistribution,
        equal: float,
        power: float,
        epsilon: float,
        guidance_scale: float,
        mixing: float,
        network_time: Literal["data_at_one", "noise_at_one"],
    ):
        if network_time not in NETWORK_TIMES:
            raise ValueError(f"Unknown network_time {network_time!r}. Choose one of {', '.join(NETWORK_TIMES)}.")
        if interpolant.num_times is not None:
            raise ValueError(
                f"MeanFlow needs continuous time, but {type(interpolant).__name__} has {interpolant.num_times} "
                "discrete timesteps. Choose interpolant=linear or gvp."
            )
        if interpolant.interval("velocity", 0.25) != (0.0, 1.0):
            raise ValueError(
                f"MeanFlow averages velocities from noise to data, and those of {type(interpolant).__name__} are not "
                "finite at the ends. Choose interpolant=linear or gvp."
            )
        if not 0 <= equal <= 1 or power < 0 or epsilon <= 0:
            raise ValueError(
                f"MeanFlow needs 0 <= equal <= 1, power >= 0 and epsilon > 0, got {equal}, {power} and {epsilon}."
            )
        if guidance_scale < 0 or not 0 <= mixing < 1:
            raise ValueError(
                f"MeanFlow needs guidance_scale >= 0 and 0 <= mixing < 1, got {guidance_scale} and {mixing}."
            )
        self.interpolant = interpolant
        self.times = times
        self.equal = equal
        self.power = power
        self.epsilon = epsilon
        self.guidance_scale = guidance_scale
        self.mixing = mixing
        self.network_time = NETWORK_TIMES[network_time]

    def loss(
        self,
        backbone: Network,
        z: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        step: int,
        t: Tensor | None = None,  # (B,)
        noise: Tensor | None = None,  # (B, N, C)
        r: Tensor | None = None,  # (B,), at least t
    ) -> dict[str, Tensor]:  # (B,) float32 each
        """The term `average_velocity`. What is missing is drawn from torch's global RNG; r is t if only t is given."""
        z = z.float()
        if t is None:
            t, r = self.draw_ends(z, step)
        r = t if r is None else r
        noise = normal_like(z) if noise is None else noise.float()
        x, velocity = self.interpolant.between(noise, z, t)
        velocity = self.guided(backbone, x, velocity, t, y)
        u, derivative = self.derivative(backbone, x, velocity, t, r, y)
        target = (velocity + expand_like(r - t, x) * derivative).detach()
        error = (u - target).square().sum(dim=(1, 2))  # (B,)
        return {"average_velocity": error / (error.detach() + self.epsilon) ** self.power}

    def draw_ends(self, z: Tensor, step: int) -> tuple[Tensor, Tensor]:  # (B,) float64 both
        """Both ends of the intervals."""
        ends = [self.times.sample(len(z), step=step, num_numbers=z[0].numel()) for _ in range(2)]
        t, r = torch.minimum(*ends), torch.maximum(*ends)
        equal = draw_for_global_batch(lambda count: torch.rand(count, dtype=torch.float64), len(z)) < self.equal
        return t, torch.where(equal, t, r)

    @torch.no_grad()
    def guided(self, backbone: Network, x: Tensor, velocity: Tensor, t: Tensor, y: Tensor) -> Tensor:  # (B, N, C)
        """The velocity that is learned: guided where there is a label. Raises ValueError without a null class."""
        if self.guidance_scale == 1 and self.mixing == 0:
            return velocity
        null = backbone.null_class
        if null is None:
            raise ValueError(
                "Guidance in training needs a network that is also trained without labels. Set "
                "generator.class_dropout=0.1, or objective.guidance_scale=1.0 and objective.mixing=0.0."
            )
        omega, kappa = self.guidance_scale, self.mixing
        known = self.average(backbone, x, t, t, y) if kappa else torch.zeros_like(x)
        unknown = self.average(backbone, x, t, t, torch.full_like(y, null))
        found = omega * velocity + kappa * known + (1 - omega - kappa) * unknown
        return torch.where((y == null)[:, None, None], velocity, found)

    def derivative(
        self, backbone: Network, x: Tensor, velocity: Tensor, t: Tensor, r: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:  # (B, N, C) both
        """u(x, t, r), with gradients, and its total derivative along the path at constant r."""
        ours = [time.to(x.device, torch.float32, non_blocking=True) for time in (t, r)]

        def u(x: Tensor, t: Tensor) -> Tensor:
            theirs = [self.network_time.start + self.network_time.direction * time for time in (t, ours[1])]
            return self.network_time.velocity(backbone(x, theirs[0], y, r=theirs[1]))

        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode derivative
            value, derivative, *_ = torch.func.jvp(u, (x, ours[0]), (velocity, torch.ones_like(ours[0])))
        return value, derivative

    def average(
        self,
        backbone: Network,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        r: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C) in the precision of x
        """The network's average velocity from t to r; the network itself sees float32."""
        theirs = [self.network_time.of(time).float().to(x.device, non_blocking=True) for time in (t, r)]
        return self.network_time.velocity(backbone(x.float(), theirs[0], y, r=theirs[1])).to(x.dtype)

    def field(self, backbone: Network) -> Field:
        """The backbone as a field: of velocities, which are averages over no time, and of averages."""

        def predict(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            return Prediction(self.average(backbone, x, t, t, y), "velocity", x, t, self.interpolant)

        return Field(
            predict,
            interpolant=self.interpolant,
            prediction="velocity",
            null_class=backbone.null_class,
            network=backbone,
            average=partial(self.average, backbone),
        )
