"""`smwm surprise`: whether a world model tells the impossible from the usual."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Distractors, Json, Model, Robot
from smwm_ros.cli.output import progress_bar, show_result


def surprise(
    task: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    episodes: Annotated[int, typer.Option(min=2, help="Each with and without every event.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Draws the episodes and the events.")] = 0,
    hue: Annotated[
        float, typer.Option(min=0, max=180, help="Degrees by which the change of colour turns it.")
    ] = 20.0,
    distractors: Distractors = False,
    figure: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="File to draw the surprises and ROC curves into.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set the surprise at a teleport, a push and a change of colour beside the usual (docs/probes.md)."""
    import torch

    from smwm_ros.evaluation.surprise import measure_surprise, plot_surprise
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import checkpoint_path, find_contract
    from smwm_ros.tasks import make_task

    torch.set_num_threads(1)
    contract = find_contract(task)
    loaded = load_checkpoint(checkpoint or checkpoint_path(contract.name, model))
    options = {"distractors": True} if distractors else {}
    with make_task(contract, **options) as robot, progress_bar() as bar:
        shown = bar.add_task("looking at steps", total=episodes)
        measured = measure_surprise(
            robot,
            loaded,
            episodes=episodes,
            seed=seed,
            hue=hue,
            progress=lambda done: bar.update(shown, completed=done),
        )
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        plot_surprise(measured).savefig(figure, dpi=130)
    result = {"checkpoint": loaded.id, "seed": seed, "hue": hue, **measured.figures(seed)}
    show_result(result, as_json, title=f"smwm surprise {task}")
