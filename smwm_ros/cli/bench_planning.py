"""Planners side by side on the same pairs and model: success, and what it took."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from smwm_ros.cli.bench_parts import product_seconds, times, transition_flops
from smwm_ros.cli.peer_solvers import ABSENT, SOLVERS, PeerPlanner, start_solvers
from smwm_ros.cli.settings import override
from smwm_ros.contract import Contract
from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.judging import judge
from smwm_ros.evaluation.pairs import Pairs, draw_pairs
from smwm_ros.evaluation.protocol import Rollouts, run_planner, run_random
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import make_planner, planner_config
from smwm_ros.planning.protocol import Planner
from smwm_ros.tasks import RobotTask, make_task

PART = 5
"""Pairs that a planner works on before it is the next one's turn."""
REFERENCE = PlannerConfig(
    optimiser="cem",
    samples=300,
    iterations=30,
    elites=30,
    std=1,
    horizon=5,
    cost="final",
    proposals="warm_start",
)
"""CEM as in the papers of SMWM and LeWM, which play all of a plan before they make the next one."""
JUDGED = ("success_any", "interval", "success_last", "interval_last")

Watch = Callable[[str, int], Callable[[int], None]]
"""Begins to tell people of some work, given its name and its amount; what is done goes to the result."""


@dataclass(frozen=True)
class Entrant:
    """A planner in the comparison."""

    config: PlannerConfig
    planner: Planner


def entrant_configs(contract: Contract, more: Sequence[str] = ()) -> dict[str, PlannerConfig]:
    """
    Return the planners to compare: the robot's own, CEM, iCEM and MPPI of the reference's size, and more.

    Args:
        contract: of the robot.
        more: ``NAME:setting,setting`` each, settings that differ from the robot's own.

    Raises:
        ConfigError: not of that form, or no such setting.
    """
    default = planner_config(contract)
    whole = REFERENCE.horizon * contract.block
    size = f"{REFERENCE.samples}x{REFERENCE.iterations}"
    configs = {"default": default} | {
        f"{optimiser}_{size}": REFERENCE.model_copy(update={"optimiser": optimiser, "replan": whole})
        for optimiser in SOLVERS
    }
    for text in more:
        name, sign, settings = text.partition(":")
        if not (name and sign):
            raise ConfigError(
                f"--planner {text}: expected NAME:setting,setting, for example light:samples=32,iterations=2"
            )
        changed = override({}, [part for part in settings.split(",") if part])
        configs[name] = planner_config(contract, changed, f"--planner {name}")
    return configs


def bench_planning(
    checkpoint: Checkpoint,
    configs: Mapping[str, PlannerConfig],
    *,
    pairs: int,
    offset: int,
    seed: int = 0,
    threads: int = 1,
    peer_python: Path | None = None,
    watch: Watch = lambda name, total: lambda done: None,
) -> dict[str, Any]:
    """
    Let planners solve the same pairs with the same model, in turns.

    Those of the configurations that have the reference's settings have a peer: the solver of
    stable-worldmodel with the same settings, on the same forward model.

    Args:
        checkpoint: of the world model.
        configs: of our planners, by name.
        pairs: to solve.
        offset: ticks from start to goal.
        seed: of pairs and planners.
        threads: of the arithmetic.
        peer_python: interpreter of an environment that has stable-worldmodel.
        watch: tells people.

    Returns:
        ``planners``: of each ``success_any`` and ``success_last`` with intervals, ``plan_ms`` with quartiles,
        ``predictor_evaluations`` of a plan, ``floor_ms`` (one matrix product with their floating-point
        operations), pairs solved per second of planning and per 1,000 evaluations, and the ``settings``. A
        peer that is not there is None. Besides ``random``, chance on the same pairs.

    Raises:
        ConfigError: the peer's interpreter or its packages do not work.
    """
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        task = stack.enter_context(make_task(checkpoint.contract))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="smwm-bench-"))
        peer = stack.enter_context(start_solvers(peer_python, checkpoint, Path(folder), threads=threads))
        entrants: dict[str, Entrant | None] = {
            name: Entrant(config, make_planner(checkpoint, config, seed)) for name, config in configs.items()
        }
        for name, config in configs.items():
            played = {"optimiser": config.optimiser, "replan": config.replan}
            if config == REFERENCE.model_copy(update=played):
                entrants[f"peer_{name}"] = (
                    Entrant(config, PeerPlanner(peer, name, checkpoint, config, seed))
                    if peer_python
                    else None
                )
        problems = draw_pairs(
            task,
            pairs,
            offset,
            seed,
            history=checkpoint.frames - 1,
            progress=watch(f"{checkpoint.contract.name}: drawing pairs", pairs),
        )
        present = {name: entrant for name, entrant in entrants.items() if entrant is not None}
        rollouts = take_turns(task, checkpoint, present, problems, watch)
        floor = run_random(task, problems, seed)
        flops = transition_flops(checkpoint.model, checkpoint.contract.block_size)
        chance = judge(task, problems, floor, floor)
        return {
            "planners": {
                name: entrant
                and {
                    **_figures(judge(task, problems, rollouts[name], floor), rollouts[name], flops),
                    "settings": entrant.config.model_dump(exclude_defaults=True),
                }
                for name, entrant in entrants.items()
            },
            "random": {key: chance[key] for key in JUDGED},
            "checkpoint": checkpoint.id,
            "pairs": pairs,
            "already_solved": chance["already_solved"],
            "offset": offset,
            "pair_seed": seed,
            "threads": threads,
            "peer": peer.name if peer_python else ABSENT,
        }


def take_turns(
    task: RobotTask, checkpoint: Checkpoint, entrants: Mapping[str, Entrant], problems: Pairs, watch: Watch
) -> dict[str, Rollouts]:
    """Let planners work on some pairs each in turn, so that the machine's moods come over all of them."""
    parts: dict[str, list[Rollouts]] = {name: [] for name in entrants}
    done = watch(f"{checkpoint.contract.name}: reaching goals", len(problems.pairs))
    for first in range(0, len(problems.pairs), PART):
        part = Pairs(problems.pairs[first : first + PART], 0, problems.offset)
        for name, entrant in entrants.items():
            parts[name].append(run_planner(task, checkpoint, entrant.config, part, planner=entrant.planner))
        done(first + len(part.pairs))
    return {
        name: Rollouts(
            np.concatenate([part.states for part in found]),
            np.concatenate([part.plan_seconds for part in found]),
            found[-1].evaluations,
        )
        for name, found in parts.items()
    }


def _figures(judged: Mapping[str, Any], rollouts: Rollouts, flops: int) -> dict[str, Any]:
    solved = judged["success_any"] / 100 * len(rollouts.states)
    evaluations = rollouts.evaluations * len(rollouts.plan_seconds)
    return {
        **{key: judged[key] for key in JUDGED},
        **times("plan_ms", rollouts.plan_seconds),
        "floor_ms": 1e3 * product_seconds(flops * rollouts.evaluations) if rollouts.evaluations else 0.0,
        "predictor_evaluations": rollouts.evaluations,
        "success_per_planning_s": solved / float(rollouts.plan_seconds.sum()),
        "success_per_1000_evaluations": 1000 * solved / evaluations if evaluations else None,
    }


def plot_planning(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the success of each planner over its evaluations and over its time, a row for each task."""
    figure = Figure(figsize=(10, 3 * len(results)), layout="constrained")
    rows = figure.subplots(len(results), 2, sharey=True, squeeze=False)
    for (task, result), row in zip(results.items(), rows, strict=True):
        for axis, key, label in zip(
            row,
            ("predictor_evaluations", "plan_ms"),
            ("predictor evaluations per plan", "plan (ms)"),
            strict=True,
        ):
            names = [name for name in result["planners"] if not name.startswith("peer_")]
            for name, found in result["planners"].items():
                # The inverse planner evaluates nothing, and has no place on a logarithmic axis.
                if not found or not found[key]:
                    continue
                low, high = found["interval"]
                rate = found["success_any"]
                axis.errorbar(
                    found[key],
                    rate,
                    [[rate - low], [high - rate]],
                    fmt="s" if name.startswith("peer_") else "o",
                    color=f"C{names.index(name.removeprefix('peer_')) % 10}",
                    capsize=3,
                    label=name,
                )
            axis.axhline(result["random"]["success_any"], color="grey", linestyle=":", label="random")
            axis.set(xscale="log", xlabel=label, ylim=(-2, 102))
            axis.grid(alpha=0.3)
        row[0].set(ylabel="reached (%)", title=task)
        row[1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
