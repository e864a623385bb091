"""How soon a node that was stopped or killed is noticed by the one that depends on it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smwm_ros.cli.environment import isolate
from smwm_ros.errors import StackError
from smwm_ros.resources import checkpoint_path, contract_path

if TYPE_CHECKING:
    from smwm_ros.nodes.watch import StatusWatch

DEPENDENTS = {"perception": "world_model", "world_model": "planner", "planner": "action"}
"""Who is looked after, and by whom."""
PATIENCE = 180.0
"""Longest wait for a node to be heard, seconds."""
LOOK = 0.002


def bench_heartbeat(
    repeats: int,
    *,
    robot: str = "reacher",
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, float]]:
    """
    Stop (SIGSTOP) and kill (SIGKILL) nodes at random moments, and wait for its dependent's diagnostics.

    Args:
        repeats: of each signal, to each of the nodes.
        robot: whose contract.
        checkpoint: the world model; the one shipped for the robot if absent.
        seed: of the moments.
        progress: called with the signals sent.

    Returns:
        By node, ``stopped_p50_ms``, ``stopped_worst_ms``, ``killed_p50_ms`` and ``killed_worst_ms``: from the
        signal to the arrival of diagnostics that say so at another process.

    Raises:
        StackError: a node did not start, or was not missed.
    """
    isolate()
    from smwm_ros.nodes.watch import StatusWatch

    generator = np.random.default_rng(seed)
    given = {
        "contract": str(contract_path(robot)),
        "checkpoint": str(checkpoint or checkpoint_path(robot)),
    }
    figures, done = {}, 0
    for node, dependent in DEPENDENTS.items():
        times: dict[str, list[float]] = {"stopped": [], "killed": []}
        with ExitStack() as stack:
            watch = stack.enter_context(StatusWatch(f"/{dependent}"))
            stack.enter_context(_running(dependent, given))
            for _ in range(repeats):
                with _running(node, given) as process:
                    _wait(watch, node, "alive")
                    for how, number in (("stopped", signal.SIGSTOP), ("killed", signal.SIGKILL)):
                        watch.wait(float(generator.uniform(0.2, 0.5)))
                        began = time.monotonic()
                        process.send_signal(number)
                        _wait(watch, node, "silent")
                        times[how].append(1e3 * (time.monotonic() - began))
                        process.send_signal(signal.SIGCONT)
                        done += 1
                        progress(done)
                        if how == "stopped":
                            _wait(watch, node, "alive")
        figures[node] = {
            f"{how}_{name}_ms": round(float(value), 1)
            for how, values in times.items()
            for name, value in (("p50", np.median(values)), ("worst", max(values)))
        }
    return figures


@contextmanager
def _running(node: str, given: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node; it is killed in the end."""
    parameters = given if node != "action" else {"contract": given["contract"]}
    arguments = [text for key, value in parameters.items() for text in ("-p", f"{key}:={value}")]
    module = f"smwm_ros.nodes.{node}_node"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--ros-args", "--log-level", "fatal", *arguments]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(watch: StatusWatch, node: str, life: str) -> None:
    end = time.monotonic() + PATIENCE
    while watch.values.get(f"peer.{node}") != life:
        if time.monotonic() > end:
            raise StackError(f"{node} did not become {life} within {PATIENCE:g} s, as diagnostics tell")
        watch.wait(LOOK)
