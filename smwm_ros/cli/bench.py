"""`smwm bench`: how fast things are, and what a running robot can be trusted with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from smwm_ros.cli import gate_benches, latency_bench, node_benches, planning_benches, runtime_benches
from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import console, progress_bar, show_result

app = typer.Typer(
    help="Measure how fast things are, and how safe a robot is while things go wrong.", no_args_is_help=True
)

Seconds = Annotated[float, typer.Option(min=0.1, help="How long to measure.")]

for _command in (
    planning_benches.planning,
    planning_benches.peer,
    planning_benches.deadline,
    planning_benches.delay,
    planning_benches.scaling,
    planning_benches.hierarchy,
    latency_bench.latency,
    gate_benches.gate,
    gate_benches.gate_jitter,
    runtime_benches.faults,
    runtime_benches.soak,
    runtime_benches.fuzz_messages,
    node_benches.lifecycle,
    node_benches.heartbeat,
):
    app.command()(_command)


@app.command()
def sim(seconds: Seconds = 5.0, robot: Robot = "reacher", as_json: Json = False) -> None:
    """Frames per second of the simulated robot, without ROS."""
    from smwm_ros.cli.bench_sim import bench_sim

    with console.status("simulating ..."):
        figures = bench_sim(seconds, robot)
    show_result(figures, as_json, "simulator")


@app.command()
def ingest(
    frames: Annotated[int, typer.Option(min=1000, help="64 px raw, in the first bag.")] = 20_000,
    jpeg_frames: Annotated[int, typer.Option(min=200, help="640x480 JPEG, in the second bag.")] = 4_000,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    big_gb: Annotated[float, typer.Option(min=0.01, help="Size of the bag for the memory.")] = 0.3,
    as_json: Json = False,
) -> None:
    """Frames per second from bags into the episode store, and the memory that takes."""
    from smwm_ros.cli.bench_ingest import bench_ingest

    with console.status("writing and reading bags ..."):
        figures = bench_ingest(frames, jpeg_frames, repeats, big_gb)
    show_result(figures, as_json, "ingest")


@app.command()
def windows(
    rows: Annotated[int, typer.Option(min=1000, help="In the store that is made for it.")] = 20_000,
    frameskip: Annotated[int, typer.Option(min=1, max=50, help="Ticks in a model step.")] = 5,
    repeats: Annotated[int, typer.Option(min=1)] = 7,
    seconds: Seconds = 1.0,
    peer_python: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Interpreter that has stable-worldmodel, for comparison.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Random training windows per second out of an episode store, on one core."""
    from smwm_ros.cli.bench_windows import bench_windows

    with console.status("reading windows ..."):
        figures = bench_windows(rows, frameskip, repeats, seconds, peer_python)
    show_result(figures, as_json, "windows")


@app.command()
def training(
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Seconds = 5.0,
    models: Annotated[
        str, typer.Option(help="Presets, by commas: smwm (made for a CPU) and vit_tiny_224.")
    ] = "smwm,vit_tiny_224",
    batch: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=2, help="Windows in one; the preset's by default.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes of each that gather batches.")] = 0,
    peer_python: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Interpreter for the official training code of SMWM.", show_default=False),
    ] = None,
    peer_code: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Checkout of that code.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Images per second that are trained on, beside the official training code of SMWM."""
    from smwm_ros.cli.bench_training import bench_models

    with console.status("training ..."):
        figures = bench_models(
            models.split(","),
            repeats=repeats,
            seconds=seconds,
            batch=batch,
            device=device,
            threads=threads,
            workers=workers,
            peer_python=peer_python,
            peer_code=peer_code,
        )
    show_result(figures, as_json, "training")


@app.command()
def record(
    seconds: Annotated[float, typer.Option(min=5.0, help="To record a camera at 30 Hz.")] = 300.0,
    folder: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="For the bag, 27 MB for each second; it is removed again.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """What recording costs, and the rate at which messages begin to be lost."""
    from smwm_ros.cli.bench_record import bench_record

    with progress_bar() as bar:
        shown = bar.add_task("recording (s)", total=round(seconds))
        figures = bench_record(seconds, folder, lambda done: bar.update(shown, completed=round(done)))
    show_result(figures, as_json, "recorder")


@app.command("fuzz-bags")
def fuzz_bags(
    count: Annotated[int, typer.Option(min=1, help="Damaged bags.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the damage.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    as_json: Json = False,
) -> None:
    """Damage bags at random, and see what reader, recovery and ingest make of them."""
    from smwm_ros.cli.bench_fuzz import bench_fuzz

    with progress_bar() as bar:
        shown = bar.add_task("damaged bags", total=count)
        report = bench_fuzz(
            count, seed=seed, workers=workers, progress=lambda done: bar.update(shown, completed=done)
        )
    show_result(report.to_json(), as_json, "damaged bags")


@app.command()
def kill(
    rounds: Annotated[int, typer.Option(min=1, help="Kills.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the moments.")] = 0,
    as_json: Json = False,
) -> None:
    """Kill the recorder at random moments, recover its bags, and see what was lost."""
    from smwm_ros.cli.bench_kill import bench_kill

    with progress_bar() as bar:
        shown = bar.add_task("kills", total=rounds)
        figures = bench_kill(rounds, seed=seed, progress=lambda done: bar.update(shown, completed=done))
    show_result(figures, as_json, "killed recorders")
