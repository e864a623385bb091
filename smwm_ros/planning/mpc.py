"""Receding horizon: plan from the newest latent, play a little, shift the plan, plan again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.costs import COSTS
from smwm_ros.planning.limits import ActionLimits
from smwm_ros.planning.optimisers import CEM
from smwm_ros.validation import Settings


class PlannerConfig(Settings):
    """Settings of the flat planner; the defaults are the ones the figures were measured with."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # the planner node shows them

    horizon: Annotated[int, Field(ge=1, le=50)] = 3
    """H, model steps looked ahead."""
    samples: Annotated[int, Field(ge=2, le=65536)] = 64
    """Action sequences drawn per iteration."""
    iterations: Annotated[int, Field(ge=1, le=1000)] = 4
    """Rounds of drawing and refitting."""
    elites: Annotated[int, Field(ge=2)] = 8
    """Best sequences that the search is refitted to."""
    noise_exponent: Annotated[float, Field(ge=0, le=4)] = 2.0
    """Power law of the noise along time: 0 white, 2 Brownian."""
    keep: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the elites that compete again in the next iteration."""
    std: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Width of the first iteration's noise, in standard deviations of the training actions."""
    cost: Literal["final", "running", "min_over_horizon", "soon"] = "running"
    """Which predicted distances to the goal count."""
    replan: Annotated[int, Field(ge=1, le=1000)] = 5
    """Control ticks played before the next plan."""

    @model_validator(mode="after")
    def _enough_samples(self) -> PlannerConfig:
        if self.elites > self.samples:
            raise ValueError(f"elites {self.elites} must not exceed samples {self.samples}")
        return self


@dataclass(frozen=True)
class PlanResult:
    """A plan for each problem, and what it took."""

    actions: NDArray[np.float64]
    """Contract units, shape (T, A) with T = H*k ticks; (P, T, A) from ``plan_batch``."""
    cost: NDArray[np.float64]
    """Predicted cost in squared model steps, shape (); (P,) from ``plan_batch``."""
    evaluations: int
    """Latent transitions predicted per problem."""
    seconds: float


class MPC:
    """The flat planner: a sampling optimiser on the world model, warm-started by its last plan."""

    def __init__(self, checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0) -> None:
        """
        Prepare to plan with a checkpoint.

        Raises:
            ConfigError: ``replan`` is longer than the horizon.
        """
        block = checkpoint.contract.block
        if config.replan > config.horizon * block:
            raise ConfigError(
                f"replan {config.replan} ticks is longer than the plan "
                f"({config.horizon} steps of {block} ticks); lower replan or raise horizon"
            )
        self.config = config
        self._checkpoint = checkpoint
        self._model = checkpoint.model
        self._limits = ActionLimits.of(checkpoint.contract, checkpoint.device)
        self._optimiser = CEM(
            config.samples, config.iterations, config.elites, config.noise_exponent, config.keep
        )
        self._generator = torch.Generator(checkpoint.device).manual_seed(seed)
        self._last: Tensor | None = None

    def reset(self) -> None:
        """Forget the last plan: the next one starts cold."""
        self._last = None

    def plan(
        self, latent: NDArray[np.float32], goal: NDArray[np.float32], elapsed: int | None = None
    ) -> PlanResult:
        """
        Plan from one latent towards one goal, both of shape (D,); see :meth:`plan_batch`.

        Raises:
            ConfigError: latent or goal is not finite, or not of the model's size.
        """
        result = self.plan_batch(latent[None], goal[None], elapsed)
        return PlanResult(result.actions[0], np.asarray(result.cost[0]), result.evaluations, result.seconds)

    @torch.inference_mode()
    def plan_batch(
        self, latents: NDArray[np.float32], goals: NDArray[np.float32], elapsed: int | None = None
    ) -> PlanResult:
        """
        Plan for P problems at once.

        Args:
            latents: where each one starts, shape (P, D).
            goals: where each one is to end, shape (P, D).
            elapsed: ticks since the last plan's first action; its rest is the warm start.
                ``config.replan`` when absent.

        Raises:
            ConfigError: a latent or goal is not finite, or not of the model's size.
        """
        began = time.perf_counter()
        model, config = self._model, self.config
        start, goal = (self._check(what, value) for what, value in (("latent", latents), ("goal", goals)))
        mean, previous = self._warm_start(len(start), config.replan if elapsed is None else elapsed)
        cost = COSTS[config.cost]
        unit = self._checkpoint.info.calibration.step_distance**2

        def score(
            sequences: Float[Tensor, "problems samples ticks action"],
        ) -> Float[Tensor, "problems samples"]:
            blocks = model.standardise(
                sequences.view(*sequences.shape[:2], config.horizon, -1, sequences.shape[-1])
            )
            begin = start[:, None].expand(-1, blocks.shape[1], -1)
            return cost(model.rollout(begin, blocks), goal) / unit

        solution = self._optimiser.optimise(
            score, mean, config.std * model.action_std, self._limits, previous, self._generator
        )
        self._last = solution.actions
        return PlanResult(
            solution.actions.double().cpu().numpy(),
            solution.cost.double().cpu().numpy(),
            solution.sequences * config.horizon,
            time.perf_counter() - began,
        )

    def _warm_start(self, problems: int, elapsed: int) -> tuple[Tensor, Tensor | None]:
        """Return the rest of the last plan, its last action repeated, and the action in force."""
        contract = self._checkpoint.contract
        if self._last is None or len(self._last) != problems:
            shape = (problems, self.config.horizon * contract.block, contract.action.size)
            return self._model.action_mean.new_zeros(shape), None
        ticks = self._last.shape[1]
        rows = torch.arange(elapsed, elapsed + ticks).clamp(0, ticks - 1)
        return self._last[:, rows], self._last[:, min(max(elapsed - 1, 0), ticks - 1)]

    def _check(self, what: str, values: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(np.asarray(values, np.float32)).to(self._checkpoint.device)
        if tensor.ndim != 2 or tensor.shape[1] != self._checkpoint.latent_size:
            raise ConfigError(
                f"{what} has shape {tuple(tensor.shape)}, expected (problems, "
                f"{self._checkpoint.latent_size}) for checkpoint {self._checkpoint.id}"
            )
        if not torch.isfinite(tensor).all():
            raise ConfigError(f"{what} holds numbers that are not finite; nothing can be planned from it")
        return tensor
