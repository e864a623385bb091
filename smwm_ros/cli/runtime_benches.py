"""The commands of `smwm bench` that are about what a running robot can be trusted with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Json, Robot
from smwm_ros.cli.output import progress_bar, show_result

Seed = Annotated[int, typer.Option(min=0, help="Of all that is random.")]


def faults(
    repeats: Annotated[int, typer.Option(min=1, help="Of each fault.")] = 20,
    only: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Only these faults, by commas; see docs/faults.md.", show_default=False),
    ] = None,
    robot: Robot = "reacher",
    checkpoint: Checkpoint = None,
    replan: Annotated[
        int,
        typer.Option(min=1, help="Control ticks of a plan that are played before the next; `smwm up` has 5."),
    ] = 1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Break one part of a running robot after the other, and see that it stays safe and comes back."""
    from smwm_ros.cli.bench_faults import bench_faults
    from smwm_ros.cli.fault_cases import chosen_cases

    names = only.split(",") if only else []
    with progress_bar() as bar:
        shown = bar.add_task("starting the stack", total=repeats * len(chosen_cases(names)[0]))
        figures = bench_faults(
            repeats,
            robot=robot,
            checkpoint=checkpoint,
            replan=replan,
            only=names,
            seed=seed,
            progress=lambda name, done: bar.update(shown, completed=done, description=name),
        )
    if as_json:
        show_result(figures, True)
        return
    rows = {
        name: f"{'ok' if row['passed'] else 'FAILED':6} worst {row['worst_safe_ms']:.0f} of "
        f"{row['limit_ms']:.0f} ms, silent {row['longest_silence_ms']:.0f} ms at the longest, "
        f"{row['outside_limits']} outside the limits{'' if row['recovered'] else ', did not recover'}"
        for name, row in figures["faults"].items()
    }
    show_result(rows | figures["skipped"], False, "faults")


def soak(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long.")] = 120.0,
    lock_step: Annotated[
        bool, typer.Option("--lock-step", help="As fast as the stack can, instead of in real time.")
    ] = False,
    robot: Robot = "reacher",
    checkpoint: Checkpoint = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Picture of memory and latency over time.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a robot pursue goals for hours: its memory, its latency, and what its safety gate did."""
    from smwm_ros.cli.bench_soak import bench_soak

    with progress_bar() as bar:
        shown = bar.add_task("running (s)", total=round(60 * minutes))
        figures = bench_soak(
            60 * minutes,
            robot=robot,
            checkpoint=checkpoint,
            lock_step=lock_step,
            plot=plot,
            progress=lambda done: bar.update(shown, completed=round(done)),
        )
    show_result(figures, as_json, "soak")


def fuzz_messages(
    count: Annotated[int, typer.Option(min=1, help="Messages, requests and parameters.")] = 50_000,
    robot: Robot = "reacher",
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    first: Annotated[int, typer.Option(min=0, help="Number of the first one, to see it again.")] = 0,
    as_json: Json = False,
) -> None:
    """Damage messages, requests and parameters at random, and see what the nodes make of them."""
    from smwm_ros.cli.bench_fuzz_messages import bench_fuzz_messages

    with progress_bar() as bar:
        shown = bar.add_task("damaged messages", total=count)
        report = bench_fuzz_messages(
            count,
            robot=robot,
            checkpoint=checkpoint,
            seed=seed,
            first=first,
            progress=lambda done: bar.update(shown, completed=done),
        )
    show_result(report.to_json(), as_json, "damaged messages")
