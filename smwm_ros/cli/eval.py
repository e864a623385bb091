"""`smwm eval`: closed-loop success on fresh held-out pairs, beside the random floor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Distractors, Json, Model, Robot
from smwm_ros.cli.output import progress_bar, show_result
from smwm_ros.cli.settings import Settings, override

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
    distractors: Distractors = False,
    through_ros: Annotated[
        bool, typer.Option("--through-ros", help="Through the nodes over DDS, in lock-step.")
    ] = False,
    planner: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(help="flat, hierarchical or inverse: as --set planner=…", show_default=False),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Judge a world model and planner (settings: --set samples=128 …) by the closed-loop protocol."""
    import torch

    from smwm_ros.evaluation.judging import judge
    from smwm_ros.evaluation.pairs import draw_pairs
    from smwm_ros.evaluation.protocol import run_planner, run_random
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.planning.planners import planner_config
    from smwm_ros.resources import checkpoint_path, find_contract
    from smwm_ros.tasks import make_task

    # One robot plans for one problem at a time: more threads than one only get in each other's way.
    torch.set_num_threads(1)
    contract = find_contract(task)
    path = checkpoint or checkpoint_path(contract.name, model)
    loaded = load_checkpoint(path)
    loaded.require(contract)
    chosen = {"planner": planner} if planner else {}
    config = planner_config(contract, override(chosen, settings or []), "--set")
    # Not every task has distractors: say so only when they are wanted.
    options = {"distractors": True} if distractors else {}
    with make_task(contract, **options) as robot, progress_bar() as bar:
        drawn = partial(_show, bar, bar.add_task("drawing pairs", total=pairs))
        largest = max([robot.threshold, *(threshold or [])])
        problems = draw_pairs(
            robot, pairs, offset, pair_seed, history=loaded.frames - 1, threshold=largest, progress=drawn
        )
        floor = run_random(robot, problems, pair_seed)
        progress = partial(_show, bar, bar.add_task("reaching goals", total=pairs))
        if through_ros:
            from smwm_ros.cli.environment import isolate
            from smwm_ros.nodes.ros_eval import run_through_ros

            isolate()
            rollouts = run_through_ros(
                robot, task, path, config, problems, distractors=distractors, progress=progress
            )
        else:
            rollouts = run_planner(robot, loaded, config, problems, progress=progress)
        figures = judge(robot, problems, rollouts, floor, threshold)
    result = {
        "checkpoint": loaded.id,
        "model": loaded.info.preset,
        "seed": loaded.info.seed,
        "pair_seed": pair_seed,
        "distractors": distractors,
        **figures,
    }
    show_result(result, as_json, title=f"smwm eval {task}")


def _show(bar: Progress, shown: TaskID, done: int) -> None:
    bar.update(shown, completed=done)
