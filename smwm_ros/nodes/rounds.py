"""
Lifecycle rounds of one node, again and again, and what they leave behind.

``python -m smwm_ros.nodes.rounds KIND ROUNDS --ros-args ...`` writes lines of JSON to stdout: the number of
each round, and at the end the figures.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor

from smwm_ros.errors import StackError
from smwm_ros.nodes.kinds import node_class
from smwm_ros.nodes.lifecycle import SUCCESS, SmwmNode

WARM_UP = 20
"""Rounds before anything is measured: allocators and caches fill."""
TURNS = 3
"""Turns of the executor in each state."""


@dataclass(frozen=True)
class Footprint:
    """What a process with one node holds."""

    memory: float
    """Resident, MB."""
    threads: int
    files: int
    """Open file descriptors."""
    entities: int
    """Publishers, subscriptions, timers, services, clients and waitables, and what callback groups know."""
    objects: int
    """Python objects that the garbage collector knows."""

    @classmethod
    def of(cls, node: SmwmNode) -> Footprint:
        """Measure this process."""
        gc.collect()
        known = [*node._entities(), *node.waitables, *node.default_callback_group.entities]
        return cls(
            memory=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
            threads=len(list(Path("/proc/self/task").iterdir())),
            files=len(list(Path("/proc/self/fd").iterdir())),
            entities=len(known),
            objects=len(gc.get_objects()),
        )


def run_rounds(
    node: SmwmNode, rounds: int, progress: Callable[[int], None] = lambda done: None
) -> dict[str, float | int]:
    """
    Configure, activate, deactivate and clean a node up, again and again; the executor turns in each state.

    Args:
        node: unconfigured.
        rounds: after the warm-up.
        progress: called with the rounds done.

    Returns:
        ``rounds``, ``ms_per_round``, ``memory_mb`` at the end, ``memory_growth_percent``, and how many more
        ``threads``, ``files``, ``entities`` and ``objects`` there were at the end than after the warm-up.

    Raises:
        StackError: a transition failed.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    before, began = Footprint.of(node), time.monotonic()
    for number in range(-WARM_UP, rounds):
        if number == 0:
            before, began = Footprint.of(node), time.monotonic()
        for transition in (
            node.trigger_configure,
            node.trigger_activate,
            node.trigger_deactivate,
            node.trigger_cleanup,
        ):
            if transition() != SUCCESS:
                raise StackError(f"{node.get_name()}, round {number}: {transition.__name__}: {node.failure}")
            for _ in range(TURNS):
                executor.spin_once(0.0)
        progress(number + 1)
    seconds = time.monotonic() - began
    after = Footprint.of(node)
    executor.shutdown()
    return {
        "rounds": rounds,
        "ms_per_round": round(1e3 * seconds / rounds, 2),
        "memory_mb": round(after.memory, 1),
        "memory_growth_percent": round(100 * (after.memory / before.memory - 1), 2),
        "threads": after.threads - before.threads,
        "files": after.files - before.files,
        "entities": after.entities - before.entities,
        "objects": after.objects - before.objects,
    }


def main() -> None:
    """Run the rounds of one node."""
    kind, rounds = sys.argv[1], int(sys.argv[2])
    rclpy.init(args=sys.argv[3:])
    node = node_class(kind)(kind)

    def tell(what: Any) -> None:
        print(json.dumps(what), flush=True)

    try:
        tell(run_rounds(node, rounds, tell))
    finally:
        node.shut_down()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
