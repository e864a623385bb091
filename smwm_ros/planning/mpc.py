"""Receding horizon: plan from the newest latent, play a little, shift the plan, plan again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.costs import COSTS, Objective, find_constraint
from smwm_ros.planning.deadline import Deadline, Pace
from smwm_ros.planning.forward import Rollout, forward
from smwm_ros.planning.imagined import Imagined
from smwm_ros.planning.limits import ActionLimits, Feasible
from smwm_ros.planning.optimisers import CEM, MPPI, Choice, Gradient, Optimiser, Score, Search
from smwm_ros.planning.planners import require
from smwm_ros.planning.proposals import Proposal, Situation, propose, together
from smwm_ros.planning.protocol import BatchPlanner, PlanResult, Problem


@dataclass
class _Memory:
    """What is kept of one robot."""

    generator: torch.Generator
    plan: Float[Tensor, "ticks action"] | None = None


class MPC(BatchPlanner):
    """The flat planner: a search over action sequences, in the world model, warm-started by its last plan."""

    def __init__(
        self, checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0, more: Proposal | None = None
    ) -> None:
        """
        Prepare to plan with a checkpoint.

        Args:
            checkpoint: of the world model.
            config: all settings.
            seed: of the search's samples, for each robot the same.
            more: where the search begins besides what the configuration proposes.

        Raises:
            ConfigError: ``replan`` is longer than the horizon, or a setting needs what the checkpoint, or
                this machine, does not have.
        """
        self._checkpoint = checkpoint
        self._limits = ActionLimits.of(checkpoint.contract, checkpoint.device)
        self._safe = torch.from_numpy(checkpoint.contract.action.safe_values).float().to(checkpoint.device)
        ticks = config.horizon * checkpoint.contract.block
        self._nothing = self._safe.new_zeros(ticks, len(self._safe))
        half = config.precision == "bfloat16"
        self._rollout = forward(checkpoint.model, half=half, compiled=config.compiled)
        self._exact = forward(checkpoint.model, compiled=config.compiled) if half else None
        self._seed = seed
        self._memories: dict[int, _Memory] = {}
        self.change(config)
        self._constraint = find_constraint(config.constraint)
        named = propose(self.config.proposals, checkpoint, config.horizon)
        self._propose = named if more is None else together(named, more)

    def change(self, config: PlannerConfig) -> None:
        """See :class:`smwm_ros.planning.protocol.FleetPlanner`."""
        require(self._checkpoint, config)
        self.config = config = _without_search(config) if config.planner == "inverse" else config
        self._optimiser = make_optimiser(config)
        self._pace = Pace(
            config.time_budget, config.iterations, min(config.samples, 2 * config.elites), config.samples
        )

    def reset(self) -> None:
        """Forget the last plans: the next ones start cold."""
        self.forget(list(self._memories))

    def forget(self, robots: Sequence[int]) -> None:
        """See :class:`smwm_ros.planning.protocol.FleetPlanner`."""
        for robot in robots:
            if robot in self._memories:
                self._memories[robot].plan = None

    def plan_fleet(self, problems: Sequence[Problem]) -> PlanResult:
        """See :class:`smwm_ros.planning.protocol.FleetPlanner`."""
        deadline = Deadline(self.config.time_budget, expected=self._pace.expected(len(problems)))
        start, goal = check_problems(self._checkpoint, problems)
        with torch.inference_mode(self.config.optimiser != "gradient"), torch.no_grad():
            return self._plan(start, goal, problems, deadline)

    def _plan(
        self, start: Tensor, goal: Tensor, problems: Sequence[Problem], deadline: Deadline
    ) -> PlanResult:
        config, model = self.config, self._checkpoint.model
        memories = [self._memory(problem.robot) for problem in problems]
        situation = self._situation(start, goal, memories, [problem.elapsed for problem in problems])
        settled = self._settled(situation, [problem.delay for problem in problems])
        objective = Objective(
            COSTS[config.cost],
            {"action_consistency": config.action_consistency, "smoothness": config.smoothness},
            self._constraint,
        )
        unit = self._checkpoint.info.calibration.step_distance

        def scored_by(rollout: Rollout) -> Score:
            return lambda sequences: objective(Imagined.of(model, unit, start, goal, sequences, rollout))

        samples = self._pace.samples(len(problems))
        before = deadline.elapsed
        solution = self._optimiser.optimise(
            Search(
                scored_by(self._rollout),
                self._propose(situation),
                config.std * model.action_std,
                Feasible(self._limits, situation.previous, settled),
                samples,
                [memory.generator for memory in memories],
                deadline,
                None if self._exact is None else scored_by(self._exact),
            )
        )
        self._pace.learn(deadline.elapsed - before, solution.rounds, samples * len(problems))
        if solution.rounds and not solution.cost.isfinite().all():
            raise PlanningError(
                "no sequence of actions has a finite cost: the constraint forbids all of them, or the "
                "model's predictions are not finite"
            )
        for memory, plan in zip(memories, solution.actions, strict=True):
            memory.plan = plan
        cost = solution.cost if solution.rounds else torch.full_like(solution.cost, torch.nan)
        return PlanResult(
            solution.actions.double().cpu().numpy(),
            cost.double().cpu().numpy(),
            solution.sequences * config.horizon,
            deadline.elapsed,
            solution.rounds,
            deadline.slack,
        )

    def _memory(self, robot: int) -> _Memory:
        if robot not in self._memories:
            generator = torch.Generator(self._checkpoint.device).manual_seed(self._seed)
            self._memories[robot] = _Memory(generator)
        return self._memories[robot]

    def _situation(
        self, start: Tensor, goal: Tensor, memories: Sequence[_Memory], elapsed: Sequence[int]
    ) -> Situation:
        """Take the rest of the last plans, their last action repeated, and the actions in force."""
        plans = torch.stack([self._nothing if kept.plan is None else kept.plan for kept in memories])
        known = [kept.plan is not None for kept in memories]
        if not any(known):
            return Situation(start, goal, plans, None)
        last = plans.shape[1] - 1
        passed = torch.tensor(elapsed, device=plans.device)
        rows = (passed[:, None] + torch.arange(last + 1, device=plans.device)).clamp(0, last)
        problem = torch.arange(len(plans), device=plans.device)
        previous = plans[problem, (passed - 1).clamp(0, last)]
        if not all(known):
            previous[~torch.tensor(known, device=plans.device)] = torch.nan
        return Situation(start, goal, plans[problem[:, None], rows], previous)

    def _settled(self, situation: Situation, delays: Sequence[int]) -> Tensor | None:
        """Take what will have been played when the plans are ready: the rest of the last ones until then."""
        if not any(delays):
            return None
        ticks = situation.rest.shape[1]
        if max(delays) + 1 > ticks:
            raise ConfigError(
                f"a delay of {max(delays)} ticks leaves nothing of a plan of {ticks}; raise horizon"
            )
        played = situation.rest
        if situation.previous is None:
            played = self._safe.expand_as(played)  # without a plan, the robot does this
        else:
            played = torch.where(situation.previous.isnan()[:, None], self._safe, played)
        later = (
            torch.arange(ticks, device=played.device) >= torch.tensor(delays, device=played.device)[:, None]
        )
        return played.masked_fill(later[..., None], torch.nan)


def _without_search(config: PlannerConfig) -> PlannerConfig:
    """Take what the goal-conditioned inverse model proposes as it is."""
    return config.model_copy(update={"proposals": "inverse", "optimiser": "choice", "time_budget": 0.0})


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


def check_problems(checkpoint: Checkpoint, problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
    """
    Put starts and goals onto a checkpoint's device, of shape (P, D) each.

    Raises:
        ConfigError: they are not finite, or not of the model's size.
    """
    found = []
    for what in ("latent", "goal"):
        rows = [np.asarray(getattr(problem, what), np.float32) for problem in problems]
        for row in rows:
            if row.shape != (checkpoint.latent_size,):
                raise ConfigError(
                    f"{what} has shape {row.shape}, expected ({checkpoint.latent_size},) for checkpoint "
                    f"{checkpoint.id}"
                )
            if not np.isfinite(row).all():
                raise ConfigError(f"{what} holds numbers that are not finite; nothing can be planned from it")
        found.append(torch.from_numpy(np.stack(rows)).to(checkpoint.device))
    return found[0], found[1]
