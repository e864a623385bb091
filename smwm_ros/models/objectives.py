"""
Objective terms: what a world model is trained to do.

A term is a class with one ``forward(model, latents, blocks) -> scalar``; a preset lists terms
with their weights, and the loss is the weighted sum. Gradients flow through every latent:
there is no stop-gradient and no target network (SMWM, arXiv 2606.20104).

A term's constructor takes what it needs of ``latent`` (D), ``block`` (k*A) and ``window`` (model
steps in a training window), and its own settings; what it learns itself is used in training only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.layers import perceptron

Latents = Float[Tensor, "batch moments latent"]
Blocks = Float[Tensor, "batch time block"]
Loss = Float[Tensor, ""]
ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": nn.functional.mse_loss,
    "absolute": nn.functional.l1_loss,
}


@runtime_checkable
class Models(Protocol):
    """What a term needs of a world model: g(z, a) and h(z, z')."""

    dynamics: nn.Module
    inverse: nn.Module


class ForwardTerm(nn.Module):
    """mean (ẑ_{t+1} - z_{t+1})²: the next latent must be predictable."""

    def __init__(self, *, error: Literal["squared", "absolute"] = "squared") -> None:
        """Choose the error; V-JEPA 2 (arXiv 2506.09985) takes the absolute one."""
        super().__init__()
        self.error = ERRORS[error]

    def forward(self, model: Models, latents: Latents, blocks: Blocks) -> Loss:
        """Return the mean one-step prediction error."""
        return self.error(model.dynamics(latents[:, :-1], blocks), latents[:, 1:])


class RolloutTerm(nn.Module):
    """mean over i = 1…n of (ẑ_i - z_i)², ẑ from z_0 and the actions alone (RC-aux, arXiv 2605.07278)."""

    def __init__(self, *, window: int, steps: int, error: Literal["squared", "absolute"] = "squared") -> None:
        """
        Choose how far to predict.

        Args:
            window: model steps in a training window.
            steps: n, model steps predicted open loop.
            error: as :class:`ForwardTerm`.

        Raises:
            ConfigError: windows are shorter than that.
        """
        super().__init__()
        _require_window("rollout", window, steps)
        self.steps = steps
        self.error = ERRORS[error]

    def forward(self, model: Models, latents: Latents, blocks: Blocks) -> Loss:
        """Return the mean error of the open-loop predictions from the windows' first latents."""
        predicted, futures = latents[:, 0], []
        for block in blocks[:, : self.steps].unbind(1):
            predicted = model.dynamics(predicted, block)
            futures.append(predicted)
        return self.error(torch.stack(futures, 1), latents[:, 1 : self.steps + 1])


class InverseTerm(nn.Module):
    """mean (â_t - a_t)²: two consecutive latents must tell the action between them."""

    def forward(self, model: Models, latents: Latents, blocks: Blocks) -> Loss:
        """Return the mean squared error of the inferred, standardised action block."""
        inferred = model.inverse(latents[:, :-1], latents[:, 1:])
        return nn.functional.mse_loss(inferred, blocks)


class DeltaInverseTerm(nn.Module):
    """mean (h_n(z_{t+n} - z_t) - (a_t … a_{t+n-1}))²: a change tells its actions (arXiv 2606.31232)."""

    def __init__(
        self,
        *,
        latent: int,
        block: int,
        window: int,
        steps: int,
        hidden: int = 256,
        layers: int = 2,
        scale: float = 5.0,
    ) -> None:
        """
        Build h_n.

        Args:
            latent: D.
            block: k*A.
            window: model steps in a training window.
            steps: n, model steps between the two latents.
            hidden: width of its hidden layers.
            layers: number of them.
            scale: factor on the change of the latent, which is small.

        Raises:
            ConfigError: windows are shorter than n.
        """
        super().__init__()
        _require_window("delta_inverse", window, steps)
        self.steps = steps
        self.scale = scale
        self.actions = perceptron(latent, hidden, layers, steps * block)

    def forward(self, model: Models, latents: Latents, blocks: Blocks) -> Loss:
        """Return the mean squared error of the inferred, standardised actions."""
        change = latents[:, self.steps :] - latents[:, : -self.steps]
        between = blocks.unfold(1, self.steps, 1).transpose(-1, -2).flatten(-2)
        return nn.functional.mse_loss(self.actions(self.scale * change), between)


class SIGRegTerm(nn.Module):
    """
    Sketched isotropic Gaussian regulariser (LeJEPA, arXiv 2511.08544; LeWM, arXiv 2603.19312).

    The latents of each moment, projected on random directions, shall be standard normal. The
    Epps-Pulley statistic of a projection x is B ∫ |mean exp(itx) - exp(-t²/2)|² exp(-t²/2) dt, here by
    the trapezoidal rule on [0, 3], doubled as the integrand is even; its mean over directions and
    moments is returned.
    """

    knots: Tensor
    normal: Tensor
    weights: Tensor

    def __init__(self, *, projections: int = 1024, knots: int = 17) -> None:
        """
        Prepare the integral.

        Args:
            projections: directions, drawn anew each time.
            knots: points at which the characteristic functions are compared.
        """
        super().__init__()
        self.projections = projections
        points = torch.linspace(0, 3, knots)
        normal = torch.exp(-points.square() / 2)
        weights = torch.full((knots,), 2 * 3 / (knots - 1))
        weights[[0, -1]] /= 2
        for name, values in (("knots", points), ("normal", normal), ("weights", weights * normal)):
            self.register_buffer(name, values, persistent=False)

    def forward(self, model: Models, latents: Latents, blocks: Blocks) -> Loss:
        """Return the mean statistic; about 1 for latents that are standard normal."""
        directions = torch.randn(latents.shape[-1], self.projections, device=latents.device)
        projected = latents.float() @ nn.functional.normalize(directions, dim=0)
        angles = projected[..., None] * self.knots
        differences = (angles.cos().mean(0) - self.normal).square() + angles.sin().mean(0).square()
        return len(latents) * (differences @ self.weights).mean()


class StraightTerm(nn.Module):
    """mean (1 - cos(v_t, v_{t+1})), v_t = z_{t+1} - z_t: straight latent paths (arXiv 2603.12231)."""

    def __init__(self, *, window: int) -> None:
        """
        Take the length of windows.

        Raises:
            ConfigError: two steps do not fit into one.
        """
        super().__init__()
        _require_window("straight", window, 2)

    def forward(self, model: Models, latents: Latents, blocks: Blocks) -> Loss:
        """Return the mean curvature, from 0 (straight) to 2 (there and back)."""
        velocity = latents.diff(dim=1)
        return (1 - nn.functional.cosine_similarity(velocity[:, :-1], velocity[:, 1:], dim=-1)).mean()


def _require_window(term: str, window: int, steps: int) -> None:
    if not 1 <= steps <= window:
        raise ConfigError(
            f"terms.{term}: {steps} model steps do not fit into a training window of {window}; "
            "raise window, or lower the term's steps"
        )


TERMS: dict[str, Callable[..., nn.Module]] = {
    "forward": ForwardTerm,
    "rollout": RolloutTerm,
    "inverse": InverseTerm,
    "delta_inverse": DeltaInverseTerm,
    "sigreg": SIGRegTerm,
    "straight": StraightTerm,
}
