"""How evenly the action node sends commands, and how much of a core it needs for that."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smwm_ros.cli.environment import isolate
from smwm_ros.errors import StackError
from smwm_ros.resources import find_contract

ROBOT = "reacher"
PATIENCE = 60.0
"""Longest wait for the first command, seconds."""
WARM_UP = 3.0
"""Seconds that are not measured."""


def bench_jitter(hz: float, seconds: float) -> dict[str, Any]:
    """
    Let the action node, a process of its own, play plans at a rate, and look when its commands leave.

    The plans come from this process, each of five actions to play, on time; the times are those at which
    the middleware of the action node took the commands.

    Args:
        hz: control rate.
        seconds: to measure.

    Returns:
        ``p50_ms``, ``p99_ms``, ``max_ms`` (deviation of the intervals between commands from the period),
        ``cpu_percent`` (of one core, of the action node's process), ``hz`` (achieved), ``commands``,
        ``planned`` (share of them; the others were safe actions, as a plan came too late).

    Raises:
        StackError: the action node sent nothing.
    """
    isolate()
    from smwm_ros.nodes.plan_feeder import PlanFeeder

    contract = find_contract(ROBOT).model_copy(update={"rate": hz})
    with tempfile.TemporaryDirectory(prefix="smwm-jitter-") as folder:
        file = Path(folder) / "robot.yaml"  # JSON is YAML
        file.write_text(contract.model_dump_json(), encoding="utf-8")
        with _action_node(file) as pid, PlanFeeder(contract) as feeder:
            feeder.feed(PATIENCE, until=lambda: bool(feeder.left))
            feeder.feed(WARM_UP)
            feeder.left.clear()
            feeder.planned.clear()
            before = _cpu_seconds(pid)
            feeder.feed(seconds)
            used = _cpu_seconds(pid) - before
            left = np.array(feeder.left) * 1e-9
    if len(left) < 2:
        raise StackError("the action node sent no commands")
    off = 1e3 * np.abs(np.diff(left) - contract.period)
    return {
        "p50_ms": round(float(np.percentile(off, 50)), 3),
        "p99_ms": round(float(np.percentile(off, 99)), 3),
        "max_ms": round(float(off.max()), 3),
        "cpu_percent": round(100 * used / seconds, 1),
        "hz": round((len(left) - 1) / float(left[-1] - left[0]), 2),
        "commands": len(left),
        "planned": round(sum(feeder.planned) / max(1, len(feeder.planned)), 4),
    }


@contextmanager
def _action_node(contract: Path) -> Iterator[int]:
    """Run the node; yield the id of its process."""
    command = [
        sys.executable,
        "-m",
        "smwm_ros.nodes.action_node",
        "--ros-args",
        "-p",
        f"contract:={contract}",
    ]
    with contract.with_suffix(".log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process.pid
        except StackError as error:
            log.seek(0)
            raise StackError(f"{error}\n{log.read().decode(errors='replace')[-2000:]}") from error
        finally:
            process.terminate()
            process.wait()


def _cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in the kernel and outside."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
