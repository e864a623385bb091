"""The commands of `smwm bench` that are about single nodes: their lifecycle, and whether they are missed."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Json, Robot
from smwm_ros.cli.output import progress_bar, show_result


def lifecycle(
    rounds: Annotated[int, typer.Option(min=1, help="Of each node.")] = 1000,
    only: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Only these nodes, by commas.", show_default=False),
    ] = None,
    robot: Robot = "reacher",
    checkpoint: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Configure, activate, deactivate and clean up each node again and again; what does that leave behind?"""
    from smwm_ros.cli.bench_lifecycle import bench_lifecycle

    with progress_bar() as bar:
        shown = bar.add_task("rounds", total=rounds)
        figures = bench_lifecycle(
            rounds,
            robot=robot,
            checkpoint=checkpoint,
            only=only.split(",") if only else (),
            progress=lambda kind, done: bar.update(shown, completed=done, description=kind),
        )
    if as_json:
        show_result(figures, True)
        return
    rows = {
        kind: f"{row['ms_per_round']:.0f} ms a round; memory {row['memory_growth_percent']:+.1f} %, "
        + ", ".join(f"{row[name]:+} {name}" for name in ("threads", "files", "entities", "objects"))
        for kind, row in figures.items()
    }
    show_result(rows, False, f"after {rounds} rounds")


def heartbeat(
    repeats: Annotated[int, typer.Option(min=1, help="Of each signal, to each node.")] = 20,
    robot: Robot = "reacher",
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the moments.")] = 0,
    as_json: Json = False,
) -> None:
    """Stop and kill nodes; how soon do diagnostics of those that depend on them say so?"""
    from smwm_ros.cli.bench_heartbeat import DEPENDENTS, bench_heartbeat

    with progress_bar() as bar:
        shown = bar.add_task("signals", total=2 * repeats * len(DEPENDENTS))
        figures = bench_heartbeat(
            repeats,
            robot=robot,
            checkpoint=checkpoint,
            seed=seed,
            progress=lambda done: bar.update(shown, completed=done),
        )
    show_result(figures, as_json, "noticed after")
