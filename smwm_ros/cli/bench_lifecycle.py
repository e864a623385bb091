"""What a thousand configurations and activations of each node leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smwm_ros.cli.environment import isolate
from smwm_ros.cli.small_bags import small_bags
from smwm_ros.errors import StackError
from smwm_ros.resources import checkpoint_path, contract_path


def bench_lifecycle(
    rounds: int,
    *,
    robot: str = "reacher",
    checkpoint: Path | None = None,
    only: Sequence[str] = (),
    progress: Callable[[str, int], None] = lambda kind, done: None,
) -> dict[str, dict[str, float | int]]:
    """
    Send each kind of node through rounds of its lifecycle, in a process of its own.

    Args:
        rounds: configure, activate, deactivate, clean up.
        robot: whose contract.
        checkpoint: the world model; the one shipped for the robot if absent.
        only: kinds of nodes; all if empty.
        progress: called with a kind and how many rounds it has done.

    Returns:
        By kind, what :func:`smwm_ros.nodes.rounds.run_rounds` says.

    Raises:
        StackError: a transition failed, or there is no such node.
    """
    isolate()
    from smwm_ros.nodes.kinds import KINDS

    if unknown := set(only) - set(KINDS):
        raise StackError(f"no node is called {', '.join(sorted(unknown))}; expected {', '.join(KINDS)}")
    model = str(checkpoint or checkpoint_path(robot))
    contract = str(contract_path(robot))
    with tempfile.TemporaryDirectory(prefix="smwm-lifecycle-") as name:
        small_bags(Path(name))
        bag = str(Path(name, "none", "bag"))
        modelled = {"contract": contract, "checkpoint": model}
        parameters = {kind: {"contract": contract} for kind in KINDS}
        parameters |= dict.fromkeys(("perception", "world_model", "planner"), modelled)
        parameters["recorder"] = {"contract": contract, "record": "false"}
        parameters["player"] = {"bag": bag, "wait": "0.0", "loop": "true"}
        return {
            kind: _rounds(kind, rounds, parameters[kind], progress)
            for kind in KINDS
            if kind in only or not only
        }


def _rounds(
    kind: str, rounds: int, parameters: dict[str, str], progress: Callable[[str, int], None]
) -> dict[str, float | int]:
    arguments = [text for key, value in parameters.items() for text in ("-p", f"{key}:={value}")]
    command = [sys.executable, "-m", "smwm_ros.nodes.rounds", kind, str(rounds), "--ros-args", *arguments]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        with process:
            try:
                for told in _lines(process):
                    if isinstance(told, dict):
                        return told
                    progress(kind, max(told, 0))
            finally:
                process.kill()
        log.seek(0)
        raise StackError(f"{kind} ended with code {process.returncode}:\n{log.read()[-2000:]}")


def _lines(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith("{") or line.strip().lstrip("-").isdigit():
            yield json.loads(line)
