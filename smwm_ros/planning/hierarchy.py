"""Hierarchy: macro-actions towards the goal, and a plan of actions towards the first waypoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.macro import MacroActions
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.costs import COSTS
from smwm_ros.planning.deadline import Deadline
from smwm_ros.planning.imagined import Imagined
from smwm_ros.planning.mpc import MPC, check_problems
from smwm_ros.planning.optimisers import CEM, Search
from smwm_ros.planning.proposals import Situation
from smwm_ros.planning.protocol import BatchPlanner, PlanResult, Problem

SHARE = 0.3
"""Of the time budget that the search over macro-actions may take; the rest is for the actions."""
ELITES = 0.1
"""Share of the macro-actions' candidates that the search is refitted to."""
BEGINNINGS = 0.25
"""Sequences out of the bank that the search begins around, as a share of its candidates."""
ARRIVED = 1.0
"""Model steps from a waypoint at which the next one is looked for; from the goal, at which none is."""

Macros = Float[Tensor, "problems samples time size"]


class Support:
    """
    Macro-actions that a search may use: those of the bank, each changed by a bounded residual.

    Without, a search finds vectors that no sequence of actions encodes to, for which the predictor promises
    anything (arXiv 2607.12547). The first candidate always stays in the bank.
    """

    def __init__(self, part: MacroActions, residual: float) -> None:
        """
        Take the bank.

        Args:
            part: trained macro-actions.
            residual: largest change in each dimension, in standard deviations of the bank.
        """
        self._bank, self._low, self._high = part.bank, part.low, part.high
        self._scale = part.bank.std(0).clamp_min(1e-6)
        self._bound = residual * self._scale

    def __call__(self, macros: Macros) -> Macros:
        """Return the nearest sequences that keep to the bank."""
        nearest = self._bank[self.rows(macros)]
        residual = (macros - nearest).clamp(-self._bound, self._bound)
        residual[:, 0] = 0.0
        return (nearest + residual).clamp(self._low, self._high)

    def rows(self, macros: Float[Tensor, "*batch size"]) -> Int[Tensor, "*batch"]:
        """Return which macro-action of the bank is the nearest to each."""
        flat = (macros / self._scale).flatten(0, -2)
        return torch.cdist(flat, self._bank / self._scale).argmin(-1).view(macros.shape[:-1])


@dataclass
class _Course:
    """What the last searches over macro-actions came to, for P robots."""

    macros: Float[Tensor, "problems time size"]
    waypoint: Float[Tensor, "problems latent"]
    """Where the actions are to lead: the end of the first macro-action, or the goal itself."""
    actions: Float[Tensor, "problems ticks action"]
    """What the first macro-action was encoded from, and then the mean action; in contract units."""
    nearest: Float[Tensor, " problems"]
    """The least distance to it so far, in model steps."""
    cost: Float[Tensor, " problems"]
    """What the macro-actions promise of the goal; NaN where none were searched."""
    ticks: Tensor
    """Since the waypoint was chosen."""

    @classmethod
    def together(cls, courses: Sequence[_Course]) -> _Course:
        """Make one of those of some robots."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(course, name) for course in courses]) for name in names))

    def of(self, number: int) -> _Course:
        """Return what is one robot's."""
        names = [field.name for field in fields(self)]
        return _Course(*(getattr(self, name)[number : number + 1] for name in names))


class HierarchicalPlanner(BatchPlanner):
    """
    A search over macro-actions finds a waypoint on the way to the goal, and :class:`MPC` goes there.

    The waypoint is chosen anew every ``macro_replan`` model steps, and at once when it is reached, or when
    the last plan has not brought the robot nearer to it: because it is stuck, or because the world did not
    do what was predicted. Source: HWM, arXiv 2604.03208.
    """

    def __init__(self, checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0) -> None:
        """
        Prepare to plan with a checkpoint.

        Raises:
            ConfigError: a setting needs what the checkpoint, or this machine, does not have.
            CheckpointError: the checkpoint has no macro-actions.
        """
        self.config = config
        self._checkpoint = checkpoint
        self._part: MacroActions = checkpoint.part("macro")
        if config.horizon > self._part.longest:
            raise ConfigError(
                f"horizon {config.horizon} is longer than the macro-actions of {checkpoint.id}, which reach "
                f"{self._part.longest} model steps at most; lower it, or train longer ones: "
                f"smwm train STORE --stage macro --set longest={config.horizon} …"
            )
        self._low = MPC(
            checkpoint,
            _low(config),
            seed,
            None if config.naive else self._begun,
        )
        self.change(config)
        self._seed = seed
        self._generators: dict[int, torch.Generator] = {}
        self._courses: dict[int, _Course] = {}
        self._course: _Course | None = None  # of the robots being planned for

    def change(self, config: PlannerConfig) -> None:
        """See :class:`smwm_ros.planning.protocol.FleetPlanner`."""
        self._low.change(_low(config))
        self.config = config
        self._optimiser = CEM(config.macro_iterations, max(2, round(ELITES * config.macro_samples)), keep=0.3)
        self._support = None if config.naive else Support(self._part, config.macro_residual)

    def reset(self) -> None:
        """Forget the last plans and their waypoints."""
        self._courses.clear()
        self._low.reset()

    def forget(self, robots: Sequence[int]) -> None:
        """See :class:`smwm_ros.planning.protocol.FleetPlanner`."""
        for robot in robots:
            self._courses.pop(robot, None)
        self._low.forget(robots)

    def plan_fleet(self, problems: Sequence[Problem]) -> PlanResult:
        """
        See :class:`smwm_ros.planning.protocol.FleetPlanner`.

        The cost is always that of the goal: by the macro-actions on the way to it, by the actions once it is
        within reach. The evaluations are those of both predictors. A delay counts for the actions alone: a
        waypoint is far enough away.
        """
        deadline = Deadline(self.config.time_budget)
        start, goal = check_problems(self._checkpoint, problems)
        with torch.inference_mode():
            course, evaluations = self._steer(start, goal, problems)
        waypoints = course.waypoint.cpu().numpy()
        result = self._low.plan_fleet(
            [replace(problem, goal=waypoint) for problem, waypoint in zip(problems, waypoints, strict=True)]
        )
        promised = course.cost.double().cpu().numpy()
        return replace(
            result,
            cost=np.where(np.isnan(promised), result.cost, promised),
            evaluations=evaluations + result.evaluations,
            seconds=deadline.elapsed,
            slack=deadline.slack,
            subgoals=waypoints,
        )

    def _steer(self, start: Tensor, goal: Tensor, problems: Sequence[Problem]) -> tuple[_Course, int]:
        """Choose waypoints anew where that is due; return the evaluations it took, per problem, as well."""
        robots = [problem.robot for problem in problems]
        new = torch.tensor([robot not in self._courses for robot in robots], device=start.device)
        passed = torch.tensor([problem.elapsed for problem in problems], device=start.device)
        course = _Course.together(
            [self._courses.get(robot) or self._begin(end) for robot, end in zip(robots, goal, strict=True)]
        )
        course.ticks += torch.where(new, 0, passed)
        distance = self._distance(start, course.waypoint)
        due = new | (course.ticks >= self.config.macro_replan * self._checkpoint.contract.block)
        due |= (distance < ARRIVED) | (distance >= course.nearest)
        course.nearest = torch.where(new, course.nearest, torch.minimum(course.nearest, distance))
        there = self._distance(start, goal) < ARRIVED
        course.waypoint[there], course.cost[there] = goal[there], torch.nan
        due &= ~there
        evaluations = 0
        if due.any():
            generators = [
                self._generator(robot) for robot, now in zip(robots, due.tolist(), strict=True) if now
            ]
            evaluations = self._search(course, due, start[due], goal[due], generators)
            course.ticks[due] = 0
            course.nearest[due] = self._distance(start, course.waypoint)[due]
        self._course = course
        self._courses.update((robot, course.of(number)) for number, robot in enumerate(robots))
        return course, evaluations

    def _begin(self, goal: Float[Tensor, " latent"]) -> _Course:
        """Begin straight towards the goal."""
        ticks = self._part.longest * self._checkpoint.contract.block
        return _Course(
            self._part.bank.mean(0).expand(1, self.config.macros, -1).clone(),
            goal[None].clone(),
            self._checkpoint.model.action_mean.expand(1, ticks, -1).clone(),
            goal.new_full((1,), torch.inf),
            goal.new_full((1,), torch.nan),
            torch.zeros(1, dtype=torch.int64, device=goal.device),
        )

    def _generator(self, robot: int) -> torch.Generator:
        if robot not in self._generators:
            self._generators[robot] = torch.Generator(self._checkpoint.device).manual_seed(self._seed)
        return self._generators[robot]

    def _search(
        self,
        course: _Course,
        due: Bool[Tensor, " problems"],
        start: Tensor,
        goal: Tensor,
        generators: Sequence[torch.Generator],
    ) -> int:
        """Search for macro-actions from some starts to their goals; return the evaluations, per problem."""
        config, part = self.config, self._part
        model, unit = self._checkpoint.model, self._checkpoint.info.calibration.step_distance

        def imagine(macros: Macros) -> Imagined:
            begin = start[:, None].expand(-1, macros.shape[1], -1)
            return Imagined(model, unit, start, goal, macros, macros, part.rollout(begin, macros))

        last = course.macros[due, None]
        beginnings = [last, torch.cat([last[:, :, 1:], last[:, :, -1:]], dim=2)]
        if self._support is not None:
            shape = (max(1, round(BEGINNINGS * config.macro_samples)), config.macros)
            rows = [
                torch.randint(len(part.bank), shape, generator=generator, device=start.device)
                for generator in generators
            ]
            beginnings.append(part.bank[torch.stack(rows)])
        solution = self._optimiser.optimise(
            Search(
                lambda macros: COSTS[config.macro_cost](imagine(macros)),
                torch.cat(beginnings, dim=1),
                part.bank.std(0),
                self._support or _anything,
                config.macro_samples,
                generators,
                Deadline(SHARE * config.time_budget),
            )
        )
        if not solution.rounds:
            return 0  # no time: the waypoint before, or the goal, has to do
        if not solution.cost.isfinite().all():
            raise PlanningError("no macro-actions have a finite cost: the predictions are not finite")
        path = imagine(solution.actions[:, None]).path[:, 0]
        away = self._distance(path, goal[:, None])
        # The start or the first waypoint is the nearest of all: one does not have to go anywhere else first.
        within_reach = (away.argmin(-1) <= 1) | (away[:, 1] < ARRIVED)
        ends = path[:, 1]
        if self._support is not None:
            # The bank's own actions tell more precisely where they lead, and the search can begin at them.
            chosen = self._support.rows(solution.actions[:, 0])
            blocks = part.blocks[chosen]
            ends = model.rollout(start, blocks)[torch.arange(len(chosen)), part.lengths[chosen] - 1]
            actions = blocks.view(len(chosen), -1, model.action_mean.shape[0])
            course.actions[due] = actions * model.action_std + model.action_mean
        course.macros[due] = solution.actions
        course.cost[due] = torch.where(within_reach, torch.nan, solution.cost)
        course.waypoint[due] = torch.where(within_reach[:, None], goal, ends)
        return (solution.sequences + 1) * config.macros + part.longest

    def _begun(self, situation: Situation) -> Float[Tensor, "problems 1 ticks action"]:
        """Propose to go on with the actions of the first macro-action."""
        assert self._course is not None
        actions, ticks = self._course.actions, situation.rest.shape[1]
        rows = (self._course.ticks[:, None] + torch.arange(ticks, device=actions.device)).clamp(
            max=actions.shape[1] - 1
        )
        return actions.gather(1, rows[..., None].expand(-1, -1, actions.shape[2]))[:, None]

    def _distance(
        self, latents: Float[Tensor, "*#batch latent"], others: Float[Tensor, "*#batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Return root-mean-square distances, in model steps."""
        return (latents - others).square().mean(-1).sqrt() / self._checkpoint.info.calibration.step_distance


def _low(config: PlannerConfig) -> PlannerConfig:
    """Leave the search over actions its share of the time."""
    return config.model_copy(update={"time_budget": (1 - SHARE) * config.time_budget})


def _anything(macros: Macros) -> Macros:
    """Let every vector be a macro-action: the control experiment."""
    return macros
