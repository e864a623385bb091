"""The commands of `smwm bench` that are about the safety gate."""

from __future__ import annotations

from typing import Annotated

import typer

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, progress_bar, show_result


def gate(
    count: Annotated[int, typer.Option(min=1, help="Plans, and other nodes' commands.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    as_json: Json = False,
) -> None:
    """Random plans, times, clocks, joints and emergency stops, and a judge of what the gate makes of them."""
    from smwm_ros.cli.bench_gate import bench_gate

    with progress_bar() as bar:
        shown = bar.add_task("plans", total=count)
        figures = bench_gate(count, seed=seed, progress=lambda done: bar.update(shown, completed=done))
    show_result(figures, as_json, "safety gate")


def gate_jitter(
    hz: Annotated[float, typer.Option(min=1.0, max=1000.0, help="Commands a second.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to measure.")] = 30.0,
    as_json: Json = False,
) -> None:
    """How evenly the action node sends its commands, and what that takes of a core."""
    from smwm_ros.cli.bench_jitter import bench_jitter

    with console.status("measuring ..."):
        figures = bench_jitter(hz, seconds)
    show_result(figures, as_json, "action node")
