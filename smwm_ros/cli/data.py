"""`smwm record` and `smwm ingest`: from a moving robot to training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import console, progress_bar, show_result


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
    from smwm_ros.cli.record import record as run

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


def ingest(
    bags: Annotated[list[Path], typer.Argument(help="Bags: folders or files, MCAP or sqlite3.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Episode store to write (HDF5).")],
    contract: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Robot; by default the one noted in the first bag.", show_default=False),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the robot, where a bag holds several.")] = "",
    as_json: Json = False,
) -> None:
    """Align the images of bags with the actions applied, and write the episode store."""
    from smwm_ros.data.ingest.ingest import ingest as run
    from smwm_ros.resources import find_contract

    with progress_bar() as bar:
        shown = bar.add_task("reading messages", total=None)
        report = run(
            bags,
            output,
            contract=find_contract(contract) if contract else None,
            namespace=namespace,
            progress=lambda done, total: bar.update(shown, completed=done, total=total),
        )
    for bag in report.bags:
        for note in bag.notes:
            console.print(f"[yellow]{escape(bag.bag)}:[/] {escape(note)}", soft_wrap=True)
    content = report.to_json()
    if not as_json:
        del content["bags"]
    show_result(content, as_json, "smwm ingest")
