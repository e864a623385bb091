"""`smwm doctor`: is all here that other commands need, and is the running robot what its contract says?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smwm_ros.cli.options import Checkpoint, Json
from smwm_ros.cli.output import console, show_result
from smwm_ros.errors import StackError
from smwm_ros.stack.findings import Finding, Level

if TYPE_CHECKING:
    from smwm_ros.contract import Contract

MARKS = {Level.ok: "[green]ok  [/]", Level.warning: "[yellow]warn[/]", Level.fault: "[red]FAIL[/]"}
UNWELL = 1
"""Exit code when something is wrong."""


def doctor(
    robot: Annotated[
        str, typer.Option("--robot", "--task", help="The name of a shipped contract, or a YAML file.")
    ] = "reacher",
    checkpoint: Checkpoint = None,
    namespace: Annotated[str, typer.Option(help="Of the running robot.")] = "",
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to listen to the running robot; 0: not at all.")
    ] = 3.0,
    as_json: Json = False,
) -> None:
    """
    Check this installation, and the running robot against its contract; say how to mend what is wrong.

    Exit code 1 if something is.
    """
    findings: dict[str, Finding] = {}

    def note(name: str, finding: Finding) -> None:
        findings[name] = finding
        console.print(f"{MARKS[finding.level]} {name:18}", end="")
        console.print(finding.found, markup=False, soft_wrap=True)
        for what, text in (("expected", finding.expected), ("to do", finding.mend)):
            if text:
                console.print(f"{what:>22}: {text}", markup=False, soft_wrap=True)

    for name, check in (
        ("python", lambda: sys.version.split()[0]),
        ("ROS 2", check_ros),
        ("messages", check_messages),
        ("contract", lambda: check_contract(robot)),
        ("rendering", lambda: check_rendering(robot)),
        ("torch", check_torch),
        ("checkpoint", lambda: check_checkpoint(robot, checkpoint)),
    ):
        with console.status(f"checking {name} ..."):
            finding = examine(check)
        note(name, finding)
    if seconds and all(findings[needed].ok for needed in ("ROS 2", "messages", "contract")):
        with console.status("looking at the running robot ..."):
            seen = look(robot, namespace, seconds)
        for name, finding in seen.items():
            note(name, finding)
    healthy = all(finding.ok for finding in findings.values())
    if as_json:
        show_result({"ok": healthy, "checks": {n: asdict(f) for n, f in findings.items()}}, as_json=True)
    raise typer.Exit(0 if healthy else UNWELL)


def examine(check: Callable[[], str]) -> Finding:
    """Run one check. Whatever it raises is a finding: the next one must still run."""
    try:
        return Finding(Level.ok, check())
    except Exception as error:
        return Finding(Level.fault, str(error) or repr(error))


def look(robot: str, namespace: str, seconds: float) -> dict[str, Finding]:
    """Look at the running graph, and judge it."""
    from smwm_ros.nodes.graph_watch import look_at_graph
    from smwm_ros.resources import find_contract
    from smwm_ros.stack.description import load_stack_file
    from smwm_ros.stack.inspection import Inspection

    contract: Contract = find_contract(robot)
    stacks: dict[str, list[str]] = {}
    for entry in load_stack_file().nodes:
        for stack in entry.stacks if entry.needs is None else ():
            stacks.setdefault(stack, []).append(entry.name)
    names = {name for nodes in stacks.values() for name in nodes}
    graph = look_at_graph(contract, names, namespace, seconds)
    return Inspection(contract, graph, stacks, namespace).findings()


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

    if torch.cuda.is_available():
        return f"{torch.__version__} on {torch.cuda.get_device_name()}"
    if Path("/dev/nvidiactl").exists():
        raise StackError(
            f"torch {torch.__version__} cannot use the NVIDIA GPU that is here; everything would run on the "
            "CPU. Install a CUDA build of torch that suits the driver (nvidia-smi shows which)."
        )
    return f"{torch.__version__} on CPU"


def check_checkpoint(robot: str, path: Path | None) -> str:
    """Load the checkpoint, and hold it against the contract."""
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import checkpoint_path, find_contract

    contract = find_contract(robot)
    path = path or checkpoint_path(contract.name)
    checkpoint = load_checkpoint(path)
    checkpoint.require(contract)
    return f"{checkpoint.id} ({path})"
