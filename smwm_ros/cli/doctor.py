"""`smwm doctor`: is everything here that the other commands need?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from smwm_ros.cli.options import Checkpoint, Json, Robot
from smwm_ros.cli.output import console, show_result


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    ok: bool
    detail: str
    """What was found; where it is not in order, what to do."""


def doctor(robot: Robot = "reacher", checkpoint: Checkpoint = None, as_json: Json = False) -> None:
    """Check ROS 2, the messages, rendering, torch, the robot contract and its checkpoint."""
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: sys.version.split()[0],
        "ROS 2": check_ros,
        "messages": check_messages,
        "contract": lambda: check_contract(robot),
        "rendering": lambda: check_rendering(robot),
        "torch": check_torch,
        "checkpoint": lambda: check_checkpoint(robot, checkpoint),
    }
    findings = {}
    for name, check in checks.items():
        with console.status(f"checking {name} ..."):
            findings[name] = examine(check)
        mark = "[green]ok  [/]" if findings[name].ok else "[red]FAIL[/]"
        console.print(f"{mark} {name:11}", end="")
        console.print(findings[name].detail, markup=False, soft_wrap=True)
    healthy = all(finding.ok for finding in findings.values())
    if as_json:
        show_result({"ok": healthy, "checks": {n: vars(f) for n, f in findings.items()}}, as_json=True)
    raise typer.Exit(0 if healthy else 2)


def examine(check: Callable[[], str]) -> Finding:
    """Run one check. Whatever it raises is a finding: the next one must still run."""
    try:
        return Finding(ok=True, detail=check())
    except Exception as error:
        return Finding(ok=False, detail=str(error) or repr(error))


def check_ros() -> str:
    """Send a message to oneself."""
    from smwm_ros.nodes.loopback import check_middleware

    return check_middleware()


def check_messages() -> str:
    """Import the package's own messages."""
    from smwm_ros.nodes import loopback

    return loopback.check_messages()


def check_contract(robot: str) -> str:
    """Read the robot contract."""
    from smwm_ros.resources import contract_path, find_contract

    contract = find_contract(robot)
    return f"{contract.name} at {contract.rate:g} Hz ({contract_path(robot)})"


def check_rendering(robot: str) -> str:
    """Draw one image of the robot's simulation, if it has one."""
    from smwm_ros.resources import find_contract
    from smwm_ros.tasks import make_task

    contract = find_contract(robot)
    if contract.task is None:
        return "a real robot: nothing to draw"
    observation, _ = make_task(contract).reset(seed=0)
    height, width, _ = observation["pixels"].shape
    return f"{contract.task}, {width}x{height}"


def check_torch() -> str:
    """Import torch, and see what it can compute on."""
    import torch

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{torch.__version__} on {where}"


def check_checkpoint(robot: str, path: Path | None) -> str:
    """Load the checkpoint, and hold it against the contract."""
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import checkpoint_path, find_contract

    contract = find_contract(robot)
    path = path or checkpoint_path(contract.name)
    checkpoint = load_checkpoint(path)
    checkpoint.require(contract)
    return f"{checkpoint.id} ({path})"
