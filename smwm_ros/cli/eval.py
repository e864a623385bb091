"""`smwm eval`: closed-loop success on fresh held-out pairs, beside the random floor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Json, Model, Robot
from smwm_ros.cli.output import progress_bar, show_result
from smwm_ros.cli.settings import Settings, override


def evaluate(
    task: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    pairs: Annotated[int, typer.Option(min=1, help="Start-goal pairs, none solved at the start.")] = 100,
    pair_seed: Annotated[int, typer.Option(help="Draws the pairs.")] = 0,
    offset: Annotated[int, typer.Option(min=1, help="Ticks from start to goal; the budget is twice.")] = 25,
    threshold: Annotated[
        Optional[list[float]],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Largest error that counts as reached; the first is the headline's."),
    ] = None,
    through_ros: Annotated[
        bool, typer.Option("--through-ros", help="Through the nodes over DDS, in lock-step.")
    ] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Judge a world model and planner (settings: --set samples=128 …) by the closed-loop protocol."""
    result = run(task, model, checkpoint, pairs, pair_seed, offset, threshold, through_ros, settings or [])
    show_result(result, as_json, title=f"smwm eval {task}")


def run(
    task: str,
    model: str,
    checkpoint: Path | None,
    pairs: int,
    pair_seed: int,
    offset: int,
    thresholds: list[float] | None,
    through_ros: bool,
    settings: list[str],
) -> dict[str, Any]:
    """Evaluate; the arguments are those of :func:`evaluate`."""
    import torch

    from smwm_ros.errors import ConfigError
    from smwm_ros.evaluation.protocol import draw_pairs, judge, run_planner, run_random
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.planning.mpc import PlannerConfig
    from smwm_ros.resources import checkpoint_path, find_contract
    from smwm_ros.tasks import make_task
    from smwm_ros.validation import check

    # One robot plans for one problem at a time: more threads than one only get in each other's way.
    torch.set_num_threads(1)
    contract = find_contract(task)
    path = checkpoint or checkpoint_path(contract.name, model)
    loaded = load_checkpoint(path)
    loaded.require(contract)
    config = check(PlannerConfig, override(PlannerConfig().model_dump(), settings), "--set", ConfigError)
    with make_task(contract) as robot, progress_bar() as bar:
        problems = draw_pairs(robot, pairs, offset, pair_seed)
        floor = run_random(robot, problems, pair_seed)
        shown = bar.add_task("reaching goals", total=pairs)

        def progress(done: int) -> None:
            bar.update(shown, completed=done)

        if through_ros:
            from smwm_ros.cli.environment import isolate
            from smwm_ros.nodes.ros_eval import run_through_ros

            isolate()
            rollouts = run_through_ros(robot, task, path, config, problems, progress=progress)
        else:
            rollouts = run_planner(robot, loaded, config, problems, progress=progress)
        figures = judge(robot, problems, rollouts, floor, thresholds)
    return {"checkpoint": loaded.id, "seed": loaded.info.seed, "pair_seed": pair_seed, **figures}
