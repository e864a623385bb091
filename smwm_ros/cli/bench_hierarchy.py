"""The hierarchical planner beside the flat one, at the same number of predictions per plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.judging import judge
from smwm_ros.evaluation.pairs import Pairs, draw_pairs
from smwm_ros.evaluation.protocol import run_planner, run_random
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import make_planner
from smwm_ros.planning.protocol import Planner, PlanResult
from smwm_ros.tasks import make_task

JUDGED = ("success_any", "interval", "success_last", "interval_last", "plan_ms")
WITHIN = 0.1
"""Share by which the compute of two planners may differ and still be called equal."""

Watch = Callable[[str, int], Callable[[int], None]]
"""Begins to tell people of some work, given its name and its amount; what is done goes to the result."""


@dataclass
class Counted(Planner):
    """A planner, and the evaluations of each of its plans."""

    planner: Planner
    evaluations: list[int]

    def reset(self) -> None:
        """See :class:`Planner`."""
        self.planner.reset()

    def plan_batch(
        self,
        latents: NDArray[np.float32],
        goals: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """See :class:`Planner`."""
        result = self.planner.plan_batch(latents, goals, elapsed, delay)
        self.evaluations.append(result.evaluations)
        return result


def bench_hierarchy(
    checkpoint: Checkpoint,
    config: PlannerConfig,
    flat: PlannerConfig,
    *,
    pairs: int,
    offset: int,
    seed: int = 0,
    scales: Sequence[float] = (1.0,),
    cross_room: bool = False,
    watch: Watch = lambda name, total: lambda done: None,
) -> dict[str, Any]:
    """
    Let the hierarchical planner, its naive control and the flat one solve the same pairs.

    The flat planner gets as many samples as it takes to predict as much per plan as the hierarchical one did
    on average. Its other settings are its own.

    Args:
        checkpoint: of the world model, with macro-actions.
        config: of the hierarchical planner; ``naive`` is set and unset here.
        flat: of the flat one; its samples and elites say but their ratio.
        pairs: to draw.
        offset: ticks from start to goal.
        seed: of pairs and planners.
        scales: what the samples of both levels are multiplied by: success over compute.
        cross_room: of the pairs drawn, take those that begin and end in different rooms; TwoRoom alone.
        watch: tells people.

    Returns:
        ``rows``, three for each scale: ``planner``, ``success_any`` and ``success_last`` with intervals,
        ``evaluations`` (mean of all plans) and ``plan_ms`` (median). ``equal``: whether those of the flat
        planner are within 10 % of the hierarchical one's. Besides the pairs' number and chance.

    Raises:
        ConfigError: a setting needs what the checkpoint does not have; or none of the pairs are wanted.
    """
    with make_task(checkpoint.contract) as task:
        drawn = watch("drawing pairs", pairs)
        problems = draw_pairs(task, pairs, offset, seed, history=checkpoint.frames - 1, progress=drawn)
        if cross_room:
            problems = _across(problems, checkpoint.contract.name)
        floor = run_random(task, problems, seed)
        chance = judge(task, problems, floor, floor)

        def run(name: str, chosen: PlannerConfig) -> dict[str, Any]:
            planner = Counted(make_planner(checkpoint, chosen, seed), [])
            progress = watch(f"{name}, {chosen.samples} samples", len(problems.pairs))
            rollouts = run_planner(task, checkpoint, chosen, problems, progress=progress, planner=planner)
            figures = judge(task, problems, rollouts, floor)
            return {
                "planner": name,
                **{key: figures[key] for key in JUDGED},
                "evaluations": round(float(np.mean(planner.evaluations))),
            }

        rows = []
        for scale in scales:
            scaled = config.model_copy(
                update={
                    "planner": "hierarchical",
                    "naive": False,
                    **_sized(config, scale * config.samples),
                    "macro_samples": max(2, round(scale * config.macro_samples)),
                }
            )
            hierarchical = run("hierarchical", scaled)
            naive = run("naive", scaled.model_copy(update={"naive": True}))
            compared = run("flat", matched(checkpoint, flat, hierarchical["evaluations"]))
            equal = abs(compared["evaluations"] / hierarchical["evaluations"] - 1) <= WITHIN
            rows += [{"scale": scale, **row, "equal": equal} for row in (compared, naive, hierarchical)]
    return {
        "checkpoint": checkpoint.id,
        "pairs": len(problems.pairs),
        "offset": offset,
        "pair_seed": seed,
        "cross_room": cross_room,
        "random_any": chance["random_any"],
        "random_last": chance["random_last"],
        "rows": rows,
    }


def matched(checkpoint: Checkpoint, flat: PlannerConfig, evaluations: int) -> PlannerConfig:
    """
    Return a flat planner's settings with the samples that make so many evaluations of a plan.

    Args:
        checkpoint: of the world model.
        flat: the settings; its samples and elites say but their ratio.
        evaluations: wanted.

    Raises:
        ConfigError: a setting needs what the checkpoint does not have.
    """
    nothing = np.zeros(checkpoint.latent_size, np.float32)
    flat = flat.model_copy(update={"planner": "flat", "time_budget": 0.0})
    for _ in range(3):  # proposals and kept elites count, too, and the latter go with the samples
        found = make_planner(checkpoint, flat).plan(nothing, nothing).evaluations
        missing = (evaluations - found) / (flat.horizon * flat.iterations)
        flat = flat.model_copy(update=_sized(flat, flat.samples + missing))
    return flat


def _sized(config: PlannerConfig, samples: float) -> dict[str, int]:
    """Return so many samples, and elites in proportion."""
    count = max(2, round(samples))
    return {"samples": count, "elites": min(count, max(2, round(count * config.elites / config.samples)))}


def _across(problems: Pairs, robot: str) -> Pairs:
    """Keep the pairs of TwoRoom whose start and goal lie on different sides of the wall, at x = 0."""
    if robot != "two_room":
        raise ConfigError(f"--cross-room is for two_room; {robot} has no rooms")
    kept = tuple(pair for pair in problems.pairs if pair.start_state[0] * pair.goal_state[0] < 0)
    if not kept:
        raise ConfigError(f"none of {len(problems.pairs)} pairs leads from one room to the other; draw more")
    return replace(problems, pairs=kept)
