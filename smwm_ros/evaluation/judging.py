"""The task's own judgement of what a planner did, beside that of chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.evaluation.pairs import Pairs
from smwm_ros.evaluation.protocol import Rollouts
from smwm_ros.tasks.base import RobotTask

Verdicts = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Of each pair, shapes (N,): reached at some tick after the start, and at the last one."""


def errors(task: RobotTask, problems: Pairs, rollouts: Rollouts) -> NDArray[np.float64]:
    """Return each pair's largest error towards its goal at each tick, shape (N, budget + 1)."""
    return np.array(
        [
            [task.errors(state, pair.goal_state).max() for state in states]
            for pair, states in zip(problems.pairs, rollouts.states, strict=True)
        ]
    )


def reached(largest: NDArray[np.float64], threshold: float) -> Verdicts:
    """Judge each pair by its :func:`errors`, shape (N, budget + 1)."""
    inside = largest <= threshold
    return np.asarray(inside[:, 1:].any(1)), inside[:, -1]


def judge(
    task: RobotTask,
    problems: Pairs,
    rollouts: Rollouts,
    floor: Rollouts,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """
    Turn rollouts into the figures of the protocol; rates are percentages.

    Args:
        task: the judge.
        problems: the pairs.
        rollouts: the planner's.
        floor: the random policy's, on the same pairs.
        thresholds: the first is the headline's, the others stand beside it; the task's own and
            half of it when absent.
    """
    bounds = tuple(thresholds or (task.threshold, task.threshold / 2))
    planner, random = (errors(task, problems, run) for run in (rollouts, floor))
    rows = [
        {**_rates(reached(planner, bound), reached(random, bound)), "threshold": bound} for bound in bounds
    ]
    drawn = len(problems.pairs) + problems.already_solved
    figures = {
        **rows[0],
        "by_threshold": rows,
        "pairs": len(problems.pairs),
        "already_solved": round(100 * problems.already_solved / drawn, 1),
        "offset": problems.offset,
        "budget": problems.budget,
        "plan_ms": _milliseconds(rollouts.plan_seconds),
        "predictor_evaluations": rollouts.evaluations,
    }
    if task.objects:
        moved = [
            task.must_move_object(pair.start_state, pair.goal_state, bounds[0]) for pair in problems.pairs
        ]
        rates = _rates(reached(planner[moved], bounds[0]), reached(random[moved], bounds[0]))
        figures |= {
            "must_move_pairs": sum(moved),
            "must_move_any": rates["success_any"],
            "must_move_last": rates["success_last"],
            "must_move_interval": rates["interval"],
            "must_move_random_any": rates["random_any"],
        }
    return figures


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson, JASA 1927); of no trials, everything."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def _milliseconds(seconds: NDArray[np.float64]) -> float | None:
    return round(1e3 * float(np.median(seconds)), 2) if len(seconds) else None


def _rates(planner: Verdicts, random: Verdicts) -> dict[str, Any]:
    return {
        "success_any": _percent(planner[0]),
        "success_last": _percent(planner[1]),
        "interval": _interval(planner[0]),
        "interval_last": _interval(planner[1]),
        "random_any": _percent(random[0]),
        "random_last": _percent(random[1]),
    }


def _percent(flags: NDArray[np.bool_]) -> float | None:
    return round(100 * float(flags.mean()), 1) if len(flags) else None


def _interval(flags: NDArray[np.bool_]) -> list[float]:
    return [round(100 * end, 1) for end in wilson(int(flags.sum()), len(flags))]
