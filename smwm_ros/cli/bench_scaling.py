"""How the time of a plan grows with samples, horizon and robots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from smwm_ros.cli.bench_parts import explored_latents, now, product_seconds, times, transition_flops
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import make_planner

GROWTH: dict[str, tuple[int, ...]] = {
    "samples": (64, 128, 256, 512, 1024, 2048, 4096),
    "horizon": (2, 5, 10, 20, 35, 50),
    "robots": (1, 2, 4, 8, 16, 32, 64),
}
"""What grows, while the others stay what the robot's own planner has; one robot."""


def bench_scaling(
    checkpoint: Checkpoint,
    config: PlannerConfig,
    growth: Mapping[str, Sequence[int]] = GROWTH,
    *,
    repeats: int,
    threads: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Time plans between latents of the robot, the growing number in turns.

    Args:
        checkpoint: the model.
        config: of the robot's planner.
        growth: values of ``samples``, ``horizon`` and ``robots``, those planned for in one batch.
        repeats: plans of each; one more comes first and is not counted.
        threads: of the arithmetic.
        seed: of latents and planners.
        progress: called with the rounds done.

    Returns:
        For each of the three rows of its ``value``, ``plan_ms`` with quartiles, ``predictor_evaluations`` of
        all robots together, and ``floor_ms``: one matrix product with their floating-point operations.
    """
    torch.set_num_threads(threads)
    robots = max((1, *growth.get("robots", ())))
    latents = explored_latents(checkpoint, 2 * robots, seed)
    cases = [(what, value) for what, values in growth.items() for value in values]
    planners = {case: make_planner(checkpoint, _config(config, *case), seed) for case in cases}
    seconds: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    evaluations = dict.fromkeys(cases, 0)
    for number in range(repeats + 1):
        for case in cases:
            count = case[1] if case[0] == "robots" else 1
            began = now(checkpoint.device)
            plan = planners[case].plan_batch(latents[:count], latents[-count:])
            seconds[case].append(now(checkpoint.device) - began)
            evaluations[case] = count * plan.evaluations
        progress(number + 1)
    flops = transition_flops(checkpoint.model, checkpoint.contract.block_size)
    return {
        what: [
            {
                "value": value,
                **times("plan_ms", seconds[what, value][1:]),
                "predictor_evaluations": evaluations[what, value],
                "floor_ms": 1e3 * product_seconds(flops * evaluations[what, value], checkpoint.device),
            }
            for value in values
        ]
        for what, values in growth.items()
    } | {
        "settings": config.model_dump(exclude_defaults=True),
        "checkpoint": checkpoint.id,
        "device": str(checkpoint.device),
        "threads": threads,
        "repeats": repeats,
    }


def plot_scaling(result: Mapping[str, Any], path: Path) -> None:
    """Draw time over each of what grew, beside the floor."""
    grown = [what for what in GROWTH if what in result]
    figure = Figure(figsize=(4 * len(grown), 3.2), layout="constrained")
    for axis, what in zip(figure.subplots(1, len(grown), squeeze=False)[0], grown, strict=True):
        values = [row["value"] for row in result[what]]
        axis.plot(values, [row["plan_ms"] for row in result[what]], "o-", label="plan")
        low, high = zip(*(row["plan_ms_quartiles"] for row in result[what]), strict=True)
        axis.fill_between(values, low, high, alpha=0.2)
        axis.plot(values, [row["floor_ms"] for row in result[what]], "k:", label="one matrix product")
        axis.set(xscale="log", yscale="log", xlabel=what, ylabel="ms")
        axis.set_xticks(values, values)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _config(config: PlannerConfig, what: str, value: int) -> PlannerConfig:
    changed = config.model_copy(update={"time_budget": 0.0})
    if what == "robots":
        return changed
    if what == "samples":
        return changed.model_copy(update={"samples": value, "elites": min(config.elites, value)})
    # Of a short plan no more can be played than it has. Its time does not depend on that.
    return changed.model_copy(update={"horizon": value, "replan": 1})
