"""Hours of the whole stack: does its memory grow, does it become slower, does its gate intervene?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.cli.environment import isolate
from smwm_ros.resources import checkpoint_path, find_contract
from smwm_ros.runtime.goal import Outcome

EVERY = 2.0
"""Seconds from one look at the memory to the next."""
WARM_UP = 0.1
"""Share of the time, at the beginning, that is left out of the memory's growth."""
GOALS = 50
HOLD = 10.0
"""ROS seconds after which a goal that is not reached is given up."""
TENTH = 0.1
SHOWN = 20


def bench_soak(
    seconds: float,
    *,
    robot: str = "reacher",
    checkpoint: Path | None = None,
    lock_step: bool = False,
    plot: Path | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Let a simulated robot pursue one goal after the other.

    Args:
        seconds: of steady time.
        robot: name or path of a contract.
        checkpoint: the robot's shipped one if absent.
        lock_step: as fast as the stack can, instead of in real time.
        plot: picture of memory and latency over time.
        progress: called with the seconds done.

    Returns:
        See docs/benchmarks.md.

    Raises:
        StackError: a process died, or a goal was refused.
    """
    isolate()
    from smwm_ros.nodes.client import RobotClient
    from smwm_ros.nodes.endurance import Endurance
    from smwm_ros.stack.description import describe
    from smwm_ros.stack.supervisor import Supervisor
    from smwm_ros.tasks import make_task

    contract = find_contract(robot)
    task = make_task(contract)
    goals = [task.reset(seed=number)[0]["pixels"] for number in range(GOALS)]
    task.close()
    arguments: dict[str, bool | str] = {
        "contract": robot,
        "checkpoint": str(checkpoint or checkpoint_path(contract.name)),
        "lock_step": lock_step,
    }
    memory: dict[str, list[tuple[float, int]]] = {}
    with (
        Supervisor(describe("sim", arguments)) as stack,
        RobotClient(contract, reliable=lock_step, check=stack.check) as client,
    ):
        stack.wait_ready()
        client.wait_ready()
        endurance = Endurance(client, lock_step=lock_step)
        looked = -np.inf

        def look(done: float) -> None:
            nonlocal looked
            client.joints.clear()
            if time.monotonic() - looked < EVERY:
                return
            looked = time.monotonic()
            for name, process in stack.processes.items():
                memory.setdefault(name, []).append((done, proportional_memory(process)))
            progress(done)

        endurance.run(goals, seconds, hold=HOLD, tick=look)
    times, latencies = np.array(endurance.times), 1e3 * np.array(endurance.latencies)
    if plot:
        draw(plot, memory, times, latencies)
    return {
        "minutes": round(seconds / 60, 2),
        "lock_step": lock_step,
        **growths(memory, seconds),
        **drift(times, latencies, seconds),
        "interventions": dict(endurance.interventions),
        "unexplained_interventions": len(endurance.unexplained),
        "unexplained": endurance.unexplained[:SHOWN],
        "judged_percent": round(100 * endurance.judged, 1),
        "gate_counters": endurance.counters,
        "goals": sum(endurance.goals.values()),
        "outcomes": {Outcome(code).name.lower(): number for code, number in endurance.goals.items()},
        "plans": endurance.plans,
    }


def proportional_memory(process: int) -> int:
    """Return a process's memory (PSS: what several share counts in parts), bytes; 0 if it is gone."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def growths(memory: Mapping[str, list[tuple[float, int]]], seconds: float) -> dict[str, Any]:
    """
    Return how memory grew, of each process and of all together.

    The growth is that of a straight line through all samples after the warm-up, from its beginning to its
    end, in percent of its beginning.

    Args:
        memory: (seconds, bytes) by process.
        seconds: that all of it took.

    Returns:
        ``memory_growth_percent`` (of the sum), ``worst_growth_percent``, and ``processes`` with ``mb`` at
        the end and ``growth_percent``.
    """
    rows = {name: np.array(samples, np.float64) for name, samples in memory.items()}
    processes = {}
    for name, samples in rows.items():
        warm = samples[samples[:, 0] >= WARM_UP * seconds]
        processes[name] = {
            "mb": round(float(samples[-1, 1]) / 2**20, 2),
            "growth_percent": _growth(warm if len(warm) > 1 else samples),
        }
    total = np.stack([next(iter(rows.values()))[:, 0], np.sum([row[:, 1] for row in rows.values()], 0)], 1)
    warm = total[total[:, 0] >= WARM_UP * seconds]
    return {
        "memory_growth_percent": _growth(warm if len(warm) > 1 else total),
        "worst_growth_percent": max(row["growth_percent"] for row in processes.values()),
        "processes": processes,
    }


def _growth(samples: NDArray[np.float64]) -> float:
    if len(samples) < 2:
        return 0.0
    slope, begin = np.polyfit(samples[:, 0] - samples[0, 0], samples[:, 1], 1)
    return round(float(100 * slope * (samples[-1, 0] - samples[0, 0]) / begin), 3)


def drift(times: NDArray[np.float64], latencies: NDArray[np.float64], seconds: float) -> dict[str, Any]:
    """
    Return the latency of the first tenth of the time and of the last one, and the drift of its median.

    Args:
        times: of the latencies, seconds.
        latencies: ms.
        seconds: that all of it took.

    Returns:
        ``latency_first``, ``latency_last`` (p50_ms, p99_ms, count), ``latency_drift_percent``.
    """
    parts = {
        "latency_first": latencies[times < TENTH * seconds],
        "latency_last": latencies[times >= (1 - TENTH) * seconds],
    }
    figures: dict[str, Any] = {
        name: {
            "p50_ms": round(float(np.percentile(part, 50)), 3) if len(part) else None,
            "p99_ms": round(float(np.percentile(part, 99)), 3) if len(part) else None,
            "count": len(part),
        }
        for name, part in parts.items()
    }
    first, last = figures["latency_first"]["p50_ms"], figures["latency_last"]["p50_ms"]
    return {
        **figures,
        "latency_drift_percent": round(100 * (last / first - 1), 2) if first and last else None,
    }


def draw(
    path: Path,
    memory: Mapping[str, list[tuple[float, int]]],
    times: NDArray[np.float64],
    latencies: NDArray[np.float64],
) -> None:
    """Draw memory and latency over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for name, samples in memory.items():
        seconds, size = zip(*samples, strict=True)
        above.plot(np.array(seconds) / 60, np.array(size) / 2**20, label=name)
    above.set_ylabel("memory (PSS), MB")
    above.legend()
    below.plot(times / 60, latencies, ",")
    below.set_ylabel("latency, ms")
    below.set_xlabel("minutes")
    figure.savefig(path, dpi=120)
