"""`smwm record`: a moving robot into a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import progress_bar, show_result


def record(
    output: Annotated[Path, typer.Argument(help="Folder of the bag; it must not exist yet.")],
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    ticks: Annotated[int, typer.Option(min=2, help="Images in each episode.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Draws the first states and the noise.")] = 0,
    distractors: Annotated[
        bool, typer.Option("--distractors", help="Moving blobs and a flickering light.")
    ] = False,
    robot: Robot = "reacher",
    as_json: Json = False,
) -> None:
    """Record a simulated robot that explores, through ROS, into an MCAP bag."""
    from smwm_ros.cli.recording import record as run

    with progress_bar() as bar:
        shown = bar.add_task("recording episodes", total=episodes)
        result = run(
            robot,
            output,
            episodes=episodes,
            episode_ticks=ticks,
            seed=seed,
            distractors=distractors,
            progress=lambda done, _: bar.update(shown, completed=done),
        )
        bar.update(shown, completed=episodes)
    show_result(result, as_json, "smwm record")
