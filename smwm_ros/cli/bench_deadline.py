"""Whether plans come in time: a planner with a time budget, beside processes that want the same cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from smwm_ros.cli.bench_parts import explored_latents
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import make_planner

LATENTS = 200
MOST = 4096
"""Samples in a round, more than there is time for: what the time allows is what counts."""
WARM_UP = 10
"""Plans made before it counts, as the planner's node does not begin cold either."""
BUSY = "import numpy\nmatrix = numpy.ones((512, 512))\nwhile True: matrix @ matrix"


def bench_deadline(
    checkpoint: Checkpoint,
    config: PlannerConfig,
    *,
    plans: int,
    busy: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Plan again and again from one latent of the robot to another, as fast as it goes.

    Times are the caller's, from the question to the answer.

    Args:
        checkpoint: the model.
        config: with a time budget.
        plans: how many.
        busy: processes that multiply matrices meanwhile, each on one thread.
        seed: of latents and planner.
        progress: called with the plans made.

    Returns:
        ``p50_ms``, ``p99_ms``, ``p999_ms`` and ``max_ms``; ``missed`` (plans over the budget), ``empty``
        (without actions, or not finite), ``unsearched`` (not one round was possible in time, so that the
        rest of the last plan was the answer) and ``samples_median`` of a round.
    """
    latents = explored_latents(checkpoint, LATENTS, seed)
    planner = make_planner(checkpoint, config, seed)
    generator = np.random.default_rng([seed, 4])
    seconds, samples = np.empty(plans), np.empty(plans)
    empty = unsearched = 0
    with busy_processes(busy):
        for number in range(-WARM_UP, plans):
            start, goal = latents[generator.integers(len(latents), size=2)]
            began = time.perf_counter()
            plan = planner.plan(start, goal)
            took = time.perf_counter() - began
            if number < 0:
                continue
            seconds[number] = took
            samples[number] = plan.evaluations / (config.horizon * max(1, plan.iterations))
            empty += not (plan.actions.size and np.isfinite(plan.actions).all())
            unsearched += plan.iterations == 0
            progress(number + 1)
    p50, p99, p999 = (1e3 * np.quantile(seconds, [0.5, 0.99, 0.999])).tolist()
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": 1e3 * float(seconds.max()),
        "missed": int((seconds > config.time_budget).sum()),
        "empty": empty,
        "unsearched": unsearched,
        "samples_median": float(np.median(samples)),
        "budget_ms": 1e3 * config.time_budget,
        "plans": plans,
        "busy": busy,
        "cores": len(os.sched_getaffinity(0)),
        "checkpoint": checkpoint.id,
    }


@contextmanager
def busy_processes(count: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Keep so many processes busy, each with one thread, until the block ends."""
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    running = [subprocess.Popen([sys.executable, "-c", BUSY], env=environment) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
