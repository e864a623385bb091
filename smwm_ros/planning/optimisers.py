"""Optimisers over action sequences: propose, score, refine, until the rounds or the time are used up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.planning.deadline import Deadline

Sequences = Float[Tensor, "problems samples ticks action"]
Score = Callable[[Sequences], Float[Tensor, "problems samples"]]

ROUGH = 2 / 3
"""Share of the rounds in which rounded costs will do, where exact ones take longer."""


@dataclass(frozen=True)
class Search:
    """What is to be searched, for P problems at once."""

    score: Score
    """Gives each sequence its cost; NaN counts as infinitely bad."""
    proposals: Float[Tensor, "problems proposals ticks action"]
    """Where the search begins: around each of them. Without time for a round the first is the answer."""
    std: Float[Tensor, " action"]
    """How widely it begins, per action dimension."""
    feasible: Callable[[Sequences], Sequences]
    """Brings sequences to what can be done; every one passes it before it is scored."""
    samples: int
    """Sequences drawn in each round."""
    generators: Sequence[torch.Generator]
    """Source of each problem's noise, on the problems' device: it is the same whatever is planned beside."""
    deadline: Deadline
    exact: Score | None = None
    """Costs without the rounding of ``score``, for the last rounds: the best by that is not the best."""


@dataclass(frozen=True)
class Solution:
    """The best sequence found for each problem."""

    actions: Float[Tensor, "problems ticks action"]
    cost: Float[Tensor, " problems"]
    """Infinite where nothing was scored, or nothing had a finite cost."""
    sequences: int
    """Sequences scored per problem."""
    rounds: int
    """Rounds that there was time for."""


@runtime_checkable
class Optimiser(Protocol):
    """A way to search; it holds its settings, and nothing of a search."""

    def optimise(self, search: Search) -> Solution:
        """Find for each problem the sequence of the lowest cost."""


class _Best:
    """The best sequence so far of each problem; at first the first proposal, of which nothing is known."""

    def __init__(self, search: Search, rounds: int) -> None:
        self._search = search
        self._score = search.score
        self._switch = int(ROUGH * rounds)
        self._actions = search.feasible(search.proposals[:, :1])[:, 0]
        self._cost = self._actions.new_full((len(self._actions),), torch.inf)
        self._sequences = self._rounds = 0

    def score(self, candidates: Sequences) -> Float[Tensor, "problems samples"]:
        """Score the candidates of a round."""
        if self._search.exact is not None and self._rounds == self._switch:
            self._score = self._search.exact
            self._cost = torch.full_like(self._cost, torch.inf)  # the others were of another kind
        cost = torch.nan_to_num(self._score(candidates), nan=torch.inf, posinf=torch.inf)
        self._sequences += candidates.shape[1]
        self._rounds += 1
        lowest, which = cost.detach().min(1)
        found = candidates.detach()[torch.arange(len(which), device=which.device), which]
        better = lowest < self._cost
        self._actions = torch.where(better[:, None, None], found, self._actions)
        self._cost = torch.where(better, lowest, self._cost)
        return cost

    def solution(self) -> Solution:
        return Solution(self._actions, self._cost, self._sequences, self._rounds)


def _drawn(
    search: Search, means: Float[Tensor, "problems means ticks action"], spread: Tensor, exponent: float
) -> Sequences:
    """Draw sequences around the means, which take turns."""
    problems, _, ticks, size = means.shape
    noise = coloured_noise((problems, search.samples, size, ticks), exponent, search.generators)
    turns = torch.arange(search.samples, device=means.device) % means.shape[1]
    return means[:, turns] + spread * noise.transpose(-1, -2)


@dataclass(frozen=True)
class CEM:
    """
    The cross-entropy method: draw, keep the elites, fit mean and spread to them, again.

    With coloured noise and kept elites it is iCEM (Pinneri et al., CoRL 2020), which needs far fewer
    samples; without (``noise_exponent=0``, ``keep=0``) it is the plain method. In either the
    distribution's mean, at first the proposals, competes as well.
    """

    iterations: int
    elites: int
    noise_exponent: float = 0.0
    """Power law of the noise along time: 0 white, 2 Brownian."""
    keep: float = 0.0
    """Share of the elites that compete again in the next iteration."""

    def optimise(self, search: Search) -> Solution:
        """See :class:`Optimiser`."""
        best = _Best(search, self.iterations)
        problems, _, ticks, size = search.proposals.shape
        means, spread = search.proposals, search.std.expand(problems, ticks, size)
        kept = means[:, :0]
        for _ in range(self.iterations):
            if not search.deadline.another():
                break
            drawn = _drawn(search, means, spread[:, None], self.noise_exponent)
            candidates = search.feasible(torch.cat([means, kept, drawn], dim=1))
            cost = best.score(candidates)
            order = cost.topk(self.elites, dim=1, largest=False, sorted=True).indices
            elites = candidates.gather(1, order[..., None, None].expand(-1, -1, ticks, size))
            means, spread = elites.mean(1, keepdim=True), elites.std(1)
            kept = elites[:, : round(self.keep * self.elites)]
        return best.solution()


@dataclass(frozen=True)
class Choice:
    """No search: the best of the proposals."""

    def optimise(self, search: Search) -> Solution:
        """See :class:`Optimiser`."""
        best = _Best(search, 1)
        if search.deadline.another():
            best.score(search.feasible(search.proposals))
        return best.solution()


@dataclass(frozen=True)
class MPPI:
    """
    Model-predictive path integral control: the mean of all samples, weighted by exp(-cost / temperature).

    The temperature is a share of the costs' standard deviation among the samples, so that it means the same
    for every model and goal. Source: Williams et al., ICRA 2017; the spread stays as it is.
    """

    iterations: int
    temperature: float = 0.1
    noise_exponent: float = 0.0

    def optimise(self, search: Search) -> Solution:
        """See :class:`Optimiser`."""
        best = _Best(search, self.iterations)
        means = search.proposals
        for _ in range(self.iterations):
            if not search.deadline.another():
                break
            drawn = _drawn(search, means, search.std, self.noise_exponent)
            candidates = search.feasible(torch.cat([means, drawn], dim=1))
            cost = best.score(candidates)
            known = cost.isfinite()
            number = known.sum(1, keepdim=True).clamp_min(1)
            centre = torch.where(known, cost, 0.0).sum(1, keepdim=True) / number
            variance = torch.where(known, cost - centre, 0.0).square().sum(1, keepdim=True) / number
            scale = (self.temperature * variance.sqrt()).clamp_min(1e-12)
            # Where nothing has a finite cost, the weights are NaN, and all candidates weigh the same.
            weights = torch.softmax((centre - cost) / scale, dim=1).nan_to_num(1 / cost.shape[1])
            means = (weights[..., None, None] * candidates).sum(1, keepdim=True)
        return best.solution()


@dataclass(frozen=True)
class Gradient:
    """
    Gradient descent through the world model by Adam, from many starts at once, each kept to what can be.

    Steps are in widths of the search. Meant for models whose latent paths are straight (arXiv 2603.12231);
    elsewhere it ends in local optima.
    """

    iterations: int
    step: float = 0.3
    noise_exponent: float = 2.0

    def optimise(self, search: Search) -> Solution:
        """See :class:`Optimiser`."""
        best = _Best(search, self.iterations)
        drawn = _drawn(search, search.proposals, search.std, self.noise_exponent)
        starts = search.feasible(torch.cat([search.proposals, drawn], dim=1))
        with torch.enable_grad():
            variable = (starts / search.std).requires_grad_()
            adam = torch.optim.Adam([variable], lr=self.step)
            for _ in range(self.iterations):
                if not search.deadline.another():
                    break
                cost = best.score(search.feasible(variable * search.std))
                adam.zero_grad()
                torch.where(cost.isfinite(), cost, 0.0).sum().backward()  # type: ignore[no-untyped-call]
                if variable.grad is not None:
                    variable.grad.nan_to_num_(0.0, 0.0, 0.0)
                adam.step()
                with torch.no_grad():
                    variable.copy_(search.feasible(variable * search.std) / search.std)
        return best.solution()


def coloured_noise(shape: tuple[int, ...], exponent: float, generators: Sequence[torch.Generator]) -> Tensor:
    """
    Draw Gaussian noise of unit variance whose power falls as 1/f^exponent along the last axis.

    Source: Timmer and König, Astronomy and Astrophysics 300 (1995).

    Args:
        shape: of the noise, two axes at least.
        exponent: 0 is white.
        generators: one for each row of the first axis.
    """
    _, *inner, ticks = shape
    if exponent == 0:
        return _normal((*inner, ticks), generators, 0)
    amplitude, deviation = _spectrum(ticks, exponent, generators[0].device)
    real, imaginary = _normal((2, *inner, len(amplitude)), generators, 1)
    imaginary[..., 0] = 0  # the mean, and at an even length the highest frequency, are real
    real[..., 0] *= 2**0.5
    if ticks % 2 == 0:
        imaginary[..., -1] = 0
        real[..., -1] *= 2**0.5
    return torch.fft.irfft(torch.complex(real, imaginary) * amplitude, n=ticks) / deviation


def _normal(shape: tuple[int, ...], generators: Sequence[torch.Generator], axis: int) -> Tensor:
    """Draw white noise of a shape from each generator, along a new axis."""
    drawn = [torch.randn(shape, generator=generator, device=generator.device) for generator in generators]
    return torch.stack(drawn, dim=axis) if len(drawn) > 1 else drawn[0].unsqueeze(axis)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _spectrum(ticks: int, exponent: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the amplitude of each frequency, and the standard deviation of what they add up to."""
    frequencies = torch.fft.rfftfreq(ticks, device=device)
    frequencies[0] = 1.0 / ticks
    amplitude = frequencies ** (-exponent / 2)
    weights = torch.full_like(amplitude, 2.0)
    weights[0] = 1.0
    if ticks % 2 == 0:
        weights[-1] = 1.0
    # variance of a sample: the sum over frequencies of E|X|² (twice off the real bins) / ticks²
    return amplitude, (2 * weights * amplitude.square()).sum().sqrt() / ticks
