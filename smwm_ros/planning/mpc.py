"""Receding horizon: plan from the newest latent, play a little, shift the plan, plan again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.costs import COSTS, Objective, find_constraint
from smwm_ros.planning.deadline import Deadline, Pace
from smwm_ros.planning.imagined import Imagined
from smwm_ros.planning.limits import ActionLimits, Feasible
from smwm_ros.planning.optimisers import CEM, MPPI, Choice, Gradient, Optimiser, Search
from smwm_ros.planning.proposals import Proposal, Situation, propose, together


@dataclass(frozen=True)
class PlanResult:
    """A plan for each problem, and what it took."""

    actions: NDArray[np.float64]
    """Contract units, shape (T, A) with T = H*k ticks; (P, T, A) from ``plan_batch``."""
    cost: NDArray[np.float64]
    """
    Predicted cost in squared model steps, shape (); (P,) from ``plan_batch``. NaN where there was no time
    for a round, and the plan is the rest of the last one.
    """
    evaluations: int
    """Latent transitions predicted per problem."""
    seconds: float
    iterations: int
    """Rounds that there was time for."""
    slack: float
    """Seconds left of the time budget, negative when it was overrun; infinite without one."""


@runtime_checkable
class Planner(Protocol):
    """Whatever makes plans; it may remember the last one."""

    def reset(self) -> None:
        """Forget the last plan."""

    def plan(
        self,
        latent: NDArray[np.float32],
        goal: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """Plan from one latent towards one goal, both of shape (D,); see :meth:`plan_batch`."""
        result = self.plan_batch(latent[None], goal[None], elapsed, delay)
        return replace(result, actions=result.actions[0], cost=np.asarray(result.cost[0]))

    def plan_batch(
        self,
        latents: NDArray[np.float32],
        goals: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """
        Plan for P problems at once.

        Args:
            latents: where each one starts, shape (P, D).
            goals: where each one is to end, shape (P, D).
            elapsed: ticks since the last plan's first action; its rest is the warm start.
                The configuration's ``replan`` when absent.
            delay: ticks that will have passed when the plan is played: until then the last plan goes on,
                so that the first ``delay`` actions are its, and only later ones can be chosen.

        Raises:
            ConfigError: a latent or goal is not finite, or not of the model's size; or a delay longer
                than the horizon.
            PlanningError: no sequence has a finite cost.
        """


class MPC(Planner):
    """The flat planner: a search over action sequences, in the world model, warm-started by its last plan."""

    def __init__(
        self, checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0, more: Proposal | None = None
    ) -> None:
        """
        Prepare to plan with a checkpoint.

        Args:
            checkpoint: of the world model.
            config: all settings.
            seed: of the search's samples.
            more: where the search begins besides what the configuration proposes.

        Raises:
            ConfigError: ``replan`` is longer than the horizon, or a setting needs what the checkpoint, or
                this machine, does not have.
        """
        block = checkpoint.contract.block
        if config.replan > config.horizon * block:
            raise ConfigError(
                f"replan {config.replan} ticks is longer than the plan "
                f"({config.horizon} steps of {block} ticks); lower replan or raise horizon"
            )
        if config.action_consistency and checkpoint.info.config.inverse.type == "none":
            raise ConfigError(
                f"action_consistency needs an inverse model, and {checkpoint.id} has none; set it to 0, or "
                "use a model trained with one"
            )
        self.config = config
        self._checkpoint = checkpoint
        self._limits = ActionLimits.of(checkpoint.contract, checkpoint.device)
        self._safe = torch.from_numpy(checkpoint.contract.action.safe_values).float().to(checkpoint.device)
        self._optimiser = make_optimiser(config)
        self._constraint = find_constraint(config.constraint)
        named = propose(config.proposals, checkpoint, config.horizon)
        self._propose = named if more is None else together(named, more)
        self._pace = Pace(
            config.time_budget, config.iterations, min(config.samples, 2 * config.elites), config.samples
        )
        self._generator = torch.Generator(checkpoint.device).manual_seed(seed)
        self._last: Tensor | None = None

    def reset(self) -> None:
        """Forget the last plan: the next one starts cold."""
        self._last = None

    def plan_batch(
        self,
        latents: NDArray[np.float32],
        goals: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """See :class:`Planner`."""
        deadline = Deadline(self.config.time_budget, expected=self._pace.expected)
        start, goal = (
            check_latents(self._checkpoint, what, value)
            for what, value in (("latent", latents), ("goal", goals))
        )
        with torch.inference_mode(self.config.optimiser != "gradient"), torch.no_grad():
            return self._plan(
                start, goal, self.config.replan if elapsed is None else elapsed, delay, deadline
            )

    def _plan(self, start: Tensor, goal: Tensor, elapsed: int, delay: int, deadline: Deadline) -> PlanResult:
        config, model = self.config, self._checkpoint.model
        situation = self._situation(start, goal, elapsed)
        settled = None
        if delay:
            ticks = situation.rest.shape[1]
            if delay + 1 > ticks:
                raise ConfigError(
                    f"a delay of {delay} ticks leaves nothing of a plan of {ticks}; raise horizon"
                )
            settled = situation.rest[:, :delay]
            if situation.previous is None:
                settled = self._safe.expand_as(settled)  # without a plan, the robot does this
        feasible = Feasible(self._limits, situation.previous, settled)
        objective = Objective(
            COSTS[config.cost],
            {"action_consistency": config.action_consistency, "smoothness": config.smoothness},
            self._constraint,
        )
        unit = self._checkpoint.info.calibration.step_distance

        def score(sequences: Tensor) -> Tensor:
            return objective(Imagined.of(model, unit, start, goal, sequences))

        samples = self._pace.samples
        before = deadline.elapsed
        solution = self._optimiser.optimise(
            Search(
                score,
                self._propose(situation),
                config.std * model.action_std,
                feasible,
                samples,
                self._generator,
                deadline,
            )
        )
        self._pace.learn(deadline.elapsed - before, solution.rounds, samples)
        if solution.rounds and not solution.cost.isfinite().all():
            raise PlanningError(
                "no sequence of actions has a finite cost: the constraint forbids all of them, or the "
                "model's predictions are not finite"
            )
        self._last = solution.actions
        cost = solution.cost if solution.rounds else torch.full_like(solution.cost, torch.nan)
        return PlanResult(
            solution.actions.double().cpu().numpy(),
            cost.double().cpu().numpy(),
            solution.sequences * config.horizon,
            deadline.elapsed,
            solution.rounds,
            deadline.slack,
        )

    def _situation(self, start: Tensor, goal: Tensor, elapsed: int) -> Situation:
        """Take the rest of the last plan, its last action repeated, and the action in force."""
        contract = self._checkpoint.contract
        if self._last is None or len(self._last) != len(start):
            rest = start.new_zeros(len(start), self.config.horizon * contract.block, contract.action.size)
            return Situation(start, goal, rest, None)
        ticks = self._last.shape[1]
        rows = torch.arange(elapsed, elapsed + ticks).clamp(0, ticks - 1)
        previous = self._last[:, min(max(elapsed - 1, 0), ticks - 1)]
        return Situation(start, goal, self._last[:, rows], previous)


def make_optimiser(config: PlannerConfig) -> Optimiser:
    """Build the optimiser that a configuration names."""
    if config.optimiser == "choice":
        return Choice()
    if config.optimiser == "mppi":
        return MPPI(config.iterations, config.temperature, config.noise_exponent)
    if config.optimiser == "gradient":
        return Gradient(config.iterations, config.step, config.noise_exponent)
    if config.optimiser == "cem":
        return CEM(config.iterations, config.elites)
    return CEM(config.iterations, config.elites, config.noise_exponent, config.keep)


def check_latents(checkpoint: Checkpoint, what: str, values: NDArray[np.float32]) -> Tensor:
    """
    Put latents onto a checkpoint's device.

    Raises:
        ConfigError: they are not finite, or not of the model's size.
    """
    tensor = torch.from_numpy(np.asarray(values, np.float32)).to(checkpoint.device)
    if tensor.ndim != 2 or tensor.shape[1] != checkpoint.latent_size:
        raise ConfigError(
            f"{what} has shape {tuple(tensor.shape)}, expected (problems, "
            f"{checkpoint.latent_size}) for checkpoint {checkpoint.id}"
        )
    if not torch.isfinite(tensor).all():
        raise ConfigError(f"{what} holds numbers that are not finite; nothing can be planned from it")
    return tensor
