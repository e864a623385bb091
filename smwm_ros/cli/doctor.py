"""`smwm doctor`: is all here that other commands need, and is the running robot what its contract says?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from smwm_ros.cli.installation import installation_checks
from smwm_ros.cli.options import Checkpoint, Json
from smwm_ros.cli.output import console, show_result
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

    for check in installation_checks(robot, checkpoint, namespace):
        if check.needs and not findings[check.needs].ok:
            continue
        with console.status(f"checking {check.name} ..."):
            finding = check.finding()
        note(check.name, finding)
    if seconds and all(findings[needed].ok for needed in ("ROS 2", "messages", "contract")):
        with console.status("looking at the running robot ..."):
            seen = look(robot, namespace, seconds)
        for name, finding in seen.items():
            note(name, finding)
    healthy = all(finding.ok for finding in findings.values())
    if as_json:
        show_result({"ok": healthy, "checks": {n: asdict(f) for n, f in findings.items()}}, as_json=True)
    raise typer.Exit(0 if healthy else UNWELL)


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
