"""What a delay between picture and action costs, with a planner that knows of it and one that does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from smwm_ros.evaluation.judging import judge
from smwm_ros.evaluation.pairs import draw_pairs
from smwm_ros.evaluation.protocol import run_planner, run_random
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.tasks import make_task

SHOWN = ("success_any", "interval", "success_last", "interval_last")


def bench_delay(
    checkpoint: Checkpoint,
    config: PlannerConfig,
    delays_ms: Sequence[float],
    *,
    pairs: int,
    offset: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Solve the same pairs under each delay, with and without compensation, in the closed loop.

    A delay is added to each plan, in whole ticks (rounded up): see
    :func:`smwm_ros.evaluation.protocol.run_planner`. What planning itself takes does not count here.

    Args:
        checkpoint: of the world model.
        config: of the planner.
        delays_ms: milliseconds from a picture to the first action of the plan made from it.
        pairs: to solve.
        offset: ticks from start to goal.
        seed: of pairs and planners.
        progress: called with the rollouts done: for each pair one, and two for each delay.

    Returns:
        ``undelayed``, and ``by_delay``: rows with ``with`` and ``without`` (compensation), each with the
        rates of reaching the goal at some tick and of being there at the last one, their intervals, and the
        points ``lost_any`` and ``lost_last`` by the delay.
        Of a single delay, its row is in the result itself, too.
    """
    done = 0
    with make_task(checkpoint.contract) as task:
        problems = draw_pairs(task, pairs, offset, seed, history=checkpoint.frames - 1)
        floor = run_random(task, problems, seed)

        def measure(delay: int, compensate: bool) -> dict[str, Any]:
            nonlocal done
            before = done
            rollouts = run_planner(
                task,
                checkpoint,
                config,
                problems,
                seed,
                lambda pairs_done: progress(before + pairs_done),
                delay=delay,
                compensate=compensate,
            )
            done += pairs
            figures = judge(task, problems, rollouts, floor)
            return {key: figures[key] for key in SHOWN}

        undelayed = measure(0, True)
        rows = []
        for delay in delays_ms:
            ticks = math.ceil(round(delay / 1e3 / checkpoint.contract.period, 6))
            row: dict[str, Any] = {"ms": delay, "ticks": ticks}
            for name, compensate in (("with", True), ("without", False)):
                found = measure(ticks, compensate)
                lost = {
                    f"lost_{when}": round(undelayed[f"success_{when}"] - found[f"success_{when}"], 1)
                    for when in ("any", "last")
                }
                row[name] = {**found, **lost}
            rows.append(row)
    return {
        **(rows[0] if len(rows) == 1 else {}),
        "by_delay": rows,
        "undelayed": undelayed,
        "pairs": pairs,
        "offset": offset,
        "pair_seed": seed,
        "settings": config.model_dump(exclude_defaults=True),
        "checkpoint": checkpoint.id,
    }
