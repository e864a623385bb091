"""`smwm reproduce`: the shipped checkpoint from nothing, by the commands that anyone would type."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import console, show_result
from smwm_ros.errors import ConfigError, SmwmError


def reproduce(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all that is made.")] = Path(
        "runs/reproduce"
    ),
    robot: Robot = "reacher",
    episodes: Annotated[int, typer.Option(min=2, help="Episodes to record.")] = 300,
    ticks: Annotated[int, typer.Option(min=2, help="Images in each.")] = 200,
    model: Annotated[str, typer.Option(help="Preset of config/models, or a YAML file.")] = "smwm",
    seed: Annotated[int, typer.Option(min=0, help="Of the recording and of the training.")] = 0,
    pairs: Annotated[int, typer.Option(min=1, help="Start-goal pairs to evaluate on.")] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the steps that are done.")] = False,
    as_json: Json = False,
) -> None:
    """Record bags through ROS, ingest, train and evaluate; each step is a command of its own."""
    if output.exists() and not resume:
        raise ConfigError(f"{output} exists already; give --resume to go on there, or another --output")
    output.mkdir(parents=True, exist_ok=True)
    bag, store, run = output / "bag", output / "data.h5", output / "train"
    checkpoint = run / "model.safetensors"
    steps = {
        "record": [
            str(bag), "--task", robot, "--seed", str(seed), "--episodes", str(episodes), "--ticks", str(ticks)
        ],
        "ingest": [str(bag), "--output", str(store)],
        "train": [str(store), "--output", str(run), "--model", model, "--seed", str(seed)],
        "eval": ["--task", robot, "--checkpoint", str(checkpoint), "--pairs", str(pairs)],
    }  # fmt: skip
    result: dict[str, Any] = {"checkpoint": str(checkpoint), "seconds": {}}
    for name, arguments in steps.items():
        done = output / f"{name}.json"
        if not done.exists():
            resumed = []
            if name == "record":
                shutil.rmtree(bag, ignore_errors=True)  # of a recording that was interrupted
            if name == "train" and (run / "state.safetensors").exists():
                resumed = ["--resume"]
            figures, seconds = run_step(name, arguments + resumed)
            step = {"arguments": arguments, "seconds": seconds, "figures": figures}
            done.write_text(json.dumps(step, indent=2), encoding="utf-8")
        content = json.loads(done.read_text(encoding="utf-8"))
        if content["arguments"] != arguments:
            raise ConfigError(
                f"{done}: the step was made by `smwm {shlex.join([name, *content['arguments']])}`, not by "
                f"`smwm {shlex.join([name, *arguments])}`; resume with the options it began with, or give "
                "another --output"
            )
        result["seconds"][name] = content["seconds"]
        result[name] = content["figures"]
    result["seconds"]["total"] = round(sum(result["seconds"].values()), 1)
    show_result(result if as_json else {**result["seconds"], **result["eval"]}, as_json, "smwm reproduce")


def run_step(name: str, arguments: list[str]) -> tuple[dict[str, Any], float]:
    """
    Run one `smwm` command; what it tells people goes to the terminal.

    Returns:
        The JSON object it printed last, and the seconds it took.

    Raises:
        SmwmError: it failed; it has said why.
    """
    console.print(f"[bold]smwm {shlex.join([name, *arguments])}[/]", soft_wrap=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "smwm_ros.cli.main", name, *arguments, "--json"]
    step = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if step.returncode != 0:
        raise SmwmError(f"smwm {name} failed with exit code {step.returncode}; its message is above")
    return json.loads(step.stdout.splitlines()[-1]), round(time.monotonic() - began, 1)
