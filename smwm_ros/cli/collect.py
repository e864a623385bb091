"""`smwm collect`: a moving robot straight into an episode store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import progress_bar, show_result


def collect(
    output: Annotated[Path, typer.Option("--output", "-o", help="Episode store to write; must not exist.")],
    robot: Robot = "reacher",
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 300,
    ticks: Annotated[int, typer.Option(min=2, help="Images in each episode.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Draws the first states and the actions.")] = 0,
    jobs: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=1, help="Processes; by default one per core.", show_default=False),
    ] = None,
    distractors: Annotated[
        bool, typer.Option("--distractors", help="Moving things and a flickering light.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let a simulated robot explore, without ROS, straight into an episode store."""
    from smwm_ros.cli.collecting import collect as run
    from smwm_ros.resources import find_contract

    with progress_bar() as bar:
        shown = bar.add_task("collecting episodes", total=episodes)
        result = run(
            find_contract(robot),
            output,
            episodes=episodes,
            ticks=ticks,
            seed=seed,
            jobs=jobs or os.cpu_count() or 1,
            distractors=distractors,
            progress=lambda done: bar.update(shown, completed=done),
        )
    show_result(result, as_json, "smwm collect")
