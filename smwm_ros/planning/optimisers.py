"""Sampling optimisers over action sequences: propose, score, refit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.planning.limits import ActionLimits

Sequences = Float[Tensor, "problems samples ticks action"]
Score = Callable[[Sequences], Float[Tensor, "problems samples"]]


@dataclass(frozen=True)
class Solution:
    """The best sequence found for each problem."""

    actions: Float[Tensor, "problems ticks action"]
    cost: Float[Tensor, " problems"]
    sequences: int
    """Sequences scored per problem."""


@dataclass(frozen=True)
class CEM:
    """
    The cross-entropy method with coloured noise, kept elites and a zero-noise candidate.

    With ``noise_exponent=0`` and ``keep=0`` it is plain CEM; with both it is iCEM (Pinneri et
    al., CoRL 2020), which needs far fewer samples. Batched over problems; every sequence is
    within the limits before it is scored, so the answer is as well.
    """

    samples: int
    iterations: int
    elites: int
    noise_exponent: float = 0.0
    """Power law of the noise along time: 0 white, 2 Brownian."""
    keep: float = 0.0
    """Share of the elites that compete again in the next iteration."""

    def optimise(
        self,
        score: Score,
        mean: Float[Tensor, "problems ticks action"],
        std: Float[Tensor, " action"],
        limits: ActionLimits,
        previous: Float[Tensor, "problems action"] | None,
        generator: torch.Generator,
    ) -> Solution:
        """
        Search for the sequence with the lowest score.

        Args:
            score: gives each sequence its cost; NaN counts as infinitely bad.
            mean: where the search begins.
            std: how widely it begins, per action dimension.
            limits: what an action may be.
            previous: the action in force before the first tick.
            generator: source of the noise, on the problems' device.
        """
        problems, ticks, size = mean.shape
        spread = std.expand_as(mean)
        kept = mean.new_empty(problems, 0, ticks, size)
        best, lowest, scored = mean, mean.new_full((problems,), torch.inf), 0
        for _ in range(self.iterations):
            noise = coloured_noise((problems, self.samples, size, ticks), self.noise_exponent, generator)
            drawn = mean[:, None] + spread[:, None] * noise.transpose(-1, -2)
            candidates = limits.apply(torch.cat([mean[:, None], kept, drawn], dim=1), previous)
            cost = torch.nan_to_num(score(candidates), nan=torch.inf)
            scored += candidates.shape[1]
            order = cost.topk(self.elites, dim=1, largest=False, sorted=True)
            elites = candidates.gather(1, order.indices[..., None, None].expand(-1, -1, ticks, size))
            mean, spread = elites.mean(1), elites.std(1)
            kept = elites[:, : round(self.keep * self.elites)]
            better = order.values[:, 0] < lowest
            best = torch.where(better[:, None, None], elites[:, 0], best)
            lowest = torch.where(better, order.values[:, 0], lowest)
        return Solution(best, lowest, scored)


def coloured_noise(shape: tuple[int, ...], exponent: float, generator: torch.Generator) -> Tensor:
    """
    Draw Gaussian noise of unit variance whose power falls as 1/f^exponent along the last axis.

    Source: Timmer and König, Astronomy and Astrophysics 300 (1995).
    """
    if exponent == 0:
        return torch.randn(shape, generator=generator, device=generator.device)
    ticks = shape[-1]
    frequencies = torch.fft.rfftfreq(ticks, device=generator.device)
    frequencies[0] = 1.0 / ticks
    amplitude = frequencies ** (-exponent / 2)
    real, imaginary = torch.randn(
        (2, *shape[:-1], len(frequencies)), generator=generator, device=generator.device
    )
    imaginary[..., 0] = 0  # the mean, and at an even length the highest frequency, are real
    real[..., 0] *= 2**0.5
    if ticks % 2 == 0:
        imaginary[..., -1] = 0
        real[..., -1] *= 2**0.5
    weights = torch.full_like(amplitude, 2.0)
    weights[0] = 1.0
    if ticks % 2 == 0:
        weights[-1] = 1.0
    # variance of a sample: the sum over frequencies of E|X|² (twice off the real bins) / ticks²
    deviation = (2 * weights * amplitude.square()).sum().sqrt() / ticks
    return torch.fft.irfft(torch.complex(real, imaginary) * amplitude, n=ticks) / deviation
