"""Random lives of the safety gate: any robot, any plans, any clocks, emergency stops, joints that vanish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.cli.gate_checker import Checker, Sent
from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import Command, Gate
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.lock_step import LockStepGate
from smwm_ros.runtime.pass_gate import PassGate
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.plan_gate import PlanGate
from smwm_ros.runtime.real_time import RealTimeGate

SECOND = 1_000_000_000
Played = RealTimeGate | LockStepGate | PassGate
ARRAY, TRAJECTORY = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"
JUMPS = (-10 * SECOND, 10 * SECOND, -SECOND // 10, SECOND // 10)
"""Of ROS time."""
SPEEDS = (1.0, 1.0, 1.0, 1.0, 0.5, 3.0, 0.0)
"""Of ROS time, beside steady time; 0: /clock is paused, or the first one never came."""
LATE = 0.25
"""Control periods by which a command may come late, now and then; usually a fiftieth of that."""
DELAY, HIDDEN_DELAY = 0.5, 0.1
"""
Longest time, in control periods, from a measurement of the joints to its arrival; the second one where ROS
time goes slower than the robot's, so that the stamps do not tell all of it.
"""


def random_robot(rng: np.random.Generator) -> Contract:
    """Draw a robot: size, limits, rate, safe action; some with limited joints, or with several points."""
    size, rate = int(rng.integers(1, 4)), float(rng.choice([5.0, 20.0, 50.0, 200.0]))
    points = int(rng.choice([1, 1, 1, 1, 2, 5]))
    limited = rng.random(size) < (0.5 if points == 1 else 0.0)  # a contract allows only one of the two
    field = "data[{}]" if points == 1 else "points[0].velocities[{}]"
    dimensions: list[dict[str, Any]] = []
    for index in range(size):
        high = float(rng.uniform(0.2, 3.0))
        dimension: dict[str, Any] = {
            "field": field.format(index),
            "name": f"joint_{index}",
            "unit": "rad/s",
            "low": float(-high * rng.uniform(0.0, 2.0)) if rng.random() < 0.5 else -high,
            "high": high,
            # From a fortieth of the range in a period to all of it at once.
            "max_change": float(high * rate * 10 ** rng.uniform(-1.6, 0.5)),
        }
        if limited[index]:
            ends = sorted(rng.uniform(-3.0, 3.0, 2).tolist())
            dimension["position"] = {"joint": f"joint_{index}", "low": ends[0], "high": ends[1]}
        dimensions.append(dimension)
    safe: Any = rng.choice(["zero", "decelerate", "hold", "values"])
    if safe == "values" or (safe == "hold" and limited.any()):
        safe = [0.0 if stays else 0.3 * d["high"] for d, stays in zip(dimensions, limited, strict=True)]
    names = [f"joint_{index}" for index in range(size)]
    return Contract.model_validate(
        {
            "name": "robot",
            "rate": rate,
            "block": 1,
            "observation": {
                "image": {"topic": "image", "width": 8, "height": 8, "size": 8},
                "joints": {"topic": "joint_states", "names": names},
            },
            "action": {
                "topic": "commands",
                "type": ARRAY if points == 1 else TRAJECTORY,
                "points": points,
                "timeout": float(rng.uniform(1.0, 8.0)) / rate,
                "safe": safe if isinstance(safe, list) else str(safe),
                "dimensions": dimensions,
            },
        }
    )


class Session:
    """One robot, its gate and all that happens to them; see ``run``."""

    def __init__(self, rng: np.random.Generator, make_limiter: Callable[[Contract], Limiter]) -> None:
        """
        Draw a robot and a way of commanding it.

        Args:
            rng: draws everything.
            make_limiter: of the gate; another one than the real one, to see whether that is noticed.
        """
        self.contract = random_robot(rng)
        self.commands = self.safe = self.later = 0
        self.plans = 0
        self.interventions: Counter[str] = Counter()
        self._rng = rng
        self._period = self.contract.period_ns
        self._limiter = make_limiter(self.contract)
        kind = rng.choice(3, p=(0.5, 0.25, 0.25))
        self._kind: type[Played] = (RealTimeGate, LockStepGate, PassGate)[kind]
        self.gate = self._made()
        self._steady = int(rng.integers(1, 1000)) * SECOND
        self._now = int(rng.integers(20, 1000)) * SECOND
        self._speed = float(rng.choice(SPEEDS))
        self._sequence = 0
        self._answered = 0
        """Stamp of the newest command."""
        self._measures = True
        self._underway: tuple[int, int, dict[str, float]] | None = None
        """Joint states: when they arrive (steady), their stamp, the positions."""
        self.checker = Checker(self.contract, self._positions())
        if self._lock_step:
            self._show_joints()

    @property
    def _lock_step(self) -> bool:
        return self._kind is LockStepGate

    def run(self, events: int) -> None:
        """Let so many plans, or commands, come, and everything else happen meanwhile."""
        for _ in range(events):
            self._something_happens()
            self._give()
            if self._lock_step:
                self._tick()
            else:
                self._pass(int(self._rng.exponential(1.5) * self._period))
        self.interventions += self.gate.counts

    @property
    def what(self) -> str:
        """The way of commanding, in a word."""
        return self._kind.__name__

    def _made(self) -> Gate:
        if issubclass(self._kind, PassGate):
            return self._kind(self.contract, self._limiter)
        return self._kind(self.contract, self._limiter, "toy")

    def _positions(self) -> NDArray[np.float64]:
        limits = self.contract.action.positions
        ends = [
            (limits[i].low, limits[i].high) if i in limits else (0.0, 1.0)
            for i in range(self.contract.action.size)
        ]
        return self._rng.uniform(*np.transpose(ends))

    def _something_happens(self) -> None:
        drawn = self._rng.random()
        if drawn < 0.02:
            self._send(self.gate.emergency_stop(self._now, self._steady / SECOND))
        elif drawn < 0.08:
            self.gate.release(self._now)
        elif drawn < 0.10:
            self._measures = not self._measures
        elif drawn < 0.13 and not self._lock_step:
            self._speed = float(self._rng.choice(SPEEDS))
        elif drawn < 0.15:
            self._jump()
        elif drawn < 0.16:
            self._start_again()

    def _jump(self) -> None:
        """Move ROS time; a simulator in lock-step whose time jumps has begun anew."""
        reset = 2 * self.contract.max_gap_ns
        self._now += int(self._rng.choice([*JUMPS[:2], reset] if self._lock_step else JUMPS))
        if self._lock_step:
            self.checker.place(self._positions(), self._now)
            self._show_joints()

    def _start_again(self) -> None:
        """Deactivate and activate the gate."""
        if not self._lock_step:
            self._send(self.gate.stop(self._now, self._steady / SECOND))
        self.interventions += self.gate.counts
        stopped, self.gate = self.gate.stopped, self._made()
        if stopped:
            self._send(self.gate.emergency_stop(self._now, self._steady / SECOND))

    def _give(self) -> None:
        """Let a plan, or another node's command, arrive."""
        self.plans += 1
        steady = self._steady / SECOND
        if isinstance(self.gate, PlanGate):
            # In lock-step, /clock may come after what it set going.
            late = self._period if self._lock_step and self._rng.random() < 0.1 else 0
            self._send(self.gate.accept(self._plan(), self._now - late, steady))
        elif isinstance(self.gate, PassGate):
            values = self._wanted(1)[0]
            if np.isfinite(values).all():
                stamp = 0 if self._rng.random() < 0.5 else self._now - self._lag()
                self._send(self.gate.accept(values, stamp, self._now, steady))
            else:
                self._send(self.gate.refuse("unreadable", self._now, steady))

    def _wanted(self, length: int) -> NDArray[np.float64]:
        action = self.contract.action
        reach = 0.5 * (action.high - action.low) * self._rng.choice([0.9, 3.0, 1e6], p=[0.5, 0.45, 0.05])
        rows = self._rng.uniform(-1, 1, (length, action.size)) * reach
        if self._rng.random() < 0.5:  # always one way: towards the limits
            rows = np.abs(rows) * self._rng.choice([-1.0, 1.0], action.size)
        if self._rng.random() < 0.03:
            rows[self._rng.integers(len(rows)) :] = self._rng.choice([np.nan, np.inf, -np.inf])
        return rows

    def _lag(self) -> int:
        """Draw how long ago something was made: usually just now, sometimes long ago or in the future."""
        if self._rng.random() < 0.9:
            return int(self._rng.uniform(-0.5, 1.5) * self._period)
        return int(self._rng.uniform(-1, 1) * 3 * self.contract.action.timeout * SECOND)

    def _plan(self) -> Plan:
        rng, stamp = self._rng, self._now - self._lag()
        if self._lock_step:
            stamp = self._now - self._period * int(rng.choice([0, 1, 3, -1000], p=[0.85, 0.05, 0.05, 0.05]))
        if rng.random() < 0.97:
            self._sequence += 1
        rows = self._wanted(int(rng.integers(1, 9)))
        if rng.random() < 0.02:
            rows = rows[:, :-1] if rng.random() < 0.5 else rows[:0]
        return Plan(
            stamp=stamp,
            evidence=int(rng.choice([stamp, stamp, 0, stamp - self._lag()])),
            model="toy" if rng.random() < 0.98 else "other",
            sequence=self._sequence,
            period=self.contract.period if rng.random() < 0.98 else float(rng.choice([0.0, 1.0, np.nan])),
            execute=int(rng.integers(0, len(rows) + 2)) if rng.random() < 0.05 else max(1, len(rows) // 2),
            actions=rows,
        )

    def _tick(self) -> None:
        """Lock-step: go on to the next tick, if this one has its command; its joint states come first."""
        for _ in range(int(self._rng.integers(1, 6))):
            self._send(self.gate.step(self._now, self._steady / SECOND))
            self._steady += int(self._rng.exponential(0.2) * self._period)
            if self._answered < self._now:
                return
            self._now += self._period
            self.checker.move(self._now)
            if self._measures or self._rng.random() < 0.5:
                self._show_joints()

    def _show_joints(self) -> None:
        self.gate.sense(self._named(), self._now, self._now, self._steady / SECOND)

    def _pass(self, duration: int) -> None:
        """Real time: let it pass, and call the gate when it asks for it, or a little later."""
        end = self._steady + duration
        while True:
            wake = round(min(max(self.gate.wake, 0.0), 1e9) * SECOND)
            late = LATE if self._rng.random() < 0.01 else LATE / 50
            due = max(wake, self._steady) + int(self._rng.uniform(0, late) * self._period)
            if self._underway is None and self._measures:
                self._measure()
            arrival = self._underway[0] if self._underway else end
            self._advance(min(due, end, max(arrival, self._steady)))
            if self._underway and self._steady >= arrival:
                _, stamp, positions = self._underway
                self._underway = None
                self.gate.sense(positions, stamp, self._now, self._steady / SECOND)
            elif self._steady >= end:
                return
            elif self._steady >= due:
                self._send(self.gate.step(self._now, self._steady / SECOND))

    def _advance(self, steady: int) -> None:
        self._now += int((steady - self._steady) * self._speed)
        self._steady = steady
        self.checker.move(steady)

    def _measure(self) -> None:
        """Send joint states on their way; sometimes they are wrong in a way that shows."""
        stamp, positions = self._now, self._named()
        drawn = self._rng.random()
        if drawn < 0.02:
            positions = {name: float("nan") for name in positions}
        elif drawn < 0.04:
            stamp += 100 * SECOND
        longest = DELAY if self._speed >= 1 else HIDDEN_DELAY
        delay = int(self._rng.uniform(0.02, longest) * self._period)
        self._underway = self._steady + delay, stamp, positions

    def _named(self) -> dict[str, float]:
        return {f"joint_{index}": float(x) for index, x in enumerate(self.checker.positions)}

    def _send(self, command: Command | None) -> None:
        if command is None:
            return
        self.commands += 1
        self.safe += command.safe
        time = command.stamp if self._lock_step else self._steady
        self._answered = command.stamp
        self.later += 0 if command.later is None else len(command.later)
        self.checker.take(Sent(command.values, time, command.safe, self.gate.stopped, command.later))
