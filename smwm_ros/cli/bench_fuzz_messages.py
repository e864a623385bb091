"""What damaged messages, requests and parameters do to the nodes: nothing but a count."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smwm_ros.cli.environment import isolate
from smwm_ros.errors import StackError
from smwm_ros.resources import checkpoint_path, find_contract

START = 120.0
"""Longest that the nodes may take to start, seconds."""
PATIENCE = 30.0
"""Seconds after which a case counts as one that hangs; they take milliseconds."""
OUTCOMES = ("used", "counted", "refused", "unnoticed", "crash", "hang")
SHOWN = 20
BATCH = 10_000
"""Cases of one process: what a node keeps of each must not add up unseen, nor end the bench."""


@dataclass
class FuzzReport:
    """What became of all cases."""

    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    outside: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, number: int, kind: str, outcome: str, outside: int = 0) -> None:
        """Note one case."""
        word = outcome.partition(":")[0]
        self.kinds.setdefault(kind, Counter())[word] += 1
        self.outside += outside
        if word in ("unnoticed", "crash", "hang") or outside:
            beyond = f", {outside} commands outside the limits" if outside else ""
            self.faults.append(f"{number} ({kind}): {outcome}{beyond}")

    def to_json(self) -> dict[str, Any]:
        """Return the figures."""
        total = sum(self.kinds.values(), Counter[str]())
        return {
            "sent": total.total(),
            **{outcome: total[outcome] for outcome in OUTCOMES},
            "crashes": total["crash"],
            "hangs": total["hang"],
            "outside_limits": self.outside,
            "first_failing": self.faults[0] if self.faults else None,
            "failing": self.faults[:SHOWN],
            "kinds": {
                kind: {"sent": counts.total(), **{o: counts[o] for o in OUTCOMES if counts[o]}}
                for kind, counts in sorted(self.kinds.items())
            },
            "seconds": round(self.seconds, 1),
        }


def bench_fuzz_messages(
    count: int,
    *,
    robot: str = "reacher",
    checkpoint: Path | None = None,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> FuzzReport:
    """
    Give damaged messages, requests and parameters to perception, world model, planner, action and recorder.

    They run in a process that is watched: one that is taken down, or hangs, is seen as such, and the next
    one goes on with the next case. See :mod:`smwm_ros.nodes.message_fuzzer` for what a case is.

    Args:
        count: of cases.
        robot: name or path of the contract.
        checkpoint: the robot's shipped one if absent.
        seed: of the damage; the case of a number is the same whatever the count.
        first: number of the first case.
        progress: called with the number of cases done.

    Raises:
        StackError: the nodes would not start.
    """
    isolate()
    started = time.monotonic()
    report = FuzzReport()
    path = checkpoint or checkpoint_path(find_contract(robot).name)
    number, last = first, first + count
    while number < last:
        with tempfile.TemporaryDirectory(prefix="smwm-fuzz-") as folder:
            end = min(last, number + BATCH)
            number = _batch(
                report, robot, path, Path(folder), seed, number, end, lambda n: progress(n - first)
            )
    report.seconds = time.monotonic() - started
    return report


def _batch(
    report: FuzzReport,
    robot: str,
    checkpoint: Path,
    folder: Path,
    seed: int,
    first: int,
    last: int,
    progress: Callable[[int], None],
) -> int:
    """Do cases until one takes the process down, or all are done; return the number of the next one."""
    arguments = {"contract": robot, "checkpoint": checkpoint.absolute(), "folder": folder, "seed": seed}
    command = [sys.executable, "-m", "smwm_ros.nodes.message_fuzzer"]
    for name, value in {**arguments, "first": first, "last": last}.items():
        command += [f"--{name}", str(value)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
    case: dict[str, Any] | None = None
    number = first
    try:
        while True:
            try:
                line = lines.get(timeout=PATIENCE if case else START)
            except queue.Empty:
                line = "hang"
            if not line.startswith("{"):
                if case is None:
                    raise StackError(f"the nodes did not start, or not end:\n{_end(folder / 'log')}")
                how = "hang" if line else f"crash: the process ended: {_end(folder / 'log')}"
                report.add(case["number"], case["kind"], how)
                return number + 1
            case = json.loads(line)
            if "end" in case:
                return last
            if "outcome" in case:
                report.add(**case)
                number = case["number"] + 1
                progress(number)
    finally:
        process.kill()
        process.wait()


def _pass_on(source: Any, lines: queue.Queue[str]) -> None:
    for line in source:
        lines.put(line)
    lines.put("")


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
