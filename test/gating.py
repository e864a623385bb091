"""A robot's contract, plans and time for the tests of the safety gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from smwm_ros.contract import Contract, PositionLimit, load_contract
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.plan import Plan

REACHER = load_contract("config/robots/reacher.yaml")
PERIOD = REACHER.period_ns
SECOND = 1_000_000_000
START = 100 * SECOND


def slow(contract: Contract = REACHER, max_change: float = 10.0, **action: Any) -> Contract:
    """A robot that may change by half a unit per tick, so that the change limit shows."""
    dimensions = tuple(d.model_copy(update={"max_change": max_change}) for d in contract.action.dimensions)
    return contract.model_copy(
        update={"action": contract.action.model_copy(update={"dimensions": dimensions, **action})}
    )


def limited(contract: Contract = REACHER, low: float = -2.5, high: float = 2.5, **action: Any) -> Contract:
    """The same robot with a position limit on the elbow, its second dimension."""
    shoulder, elbow = contract.action.dimensions
    limit = PositionLimit(joint="elbow", low=low, high=high)
    dimensions = (shoulder, elbow.model_copy(update={"position": limit}))
    return contract.model_copy(
        update={"action": contract.action.model_copy(update={"dimensions": dimensions, **action})}
    )


def plan(
    *rows: tuple[float, float],
    stamp: int = START,
    sequence: int = 1,
    execute: int | None = None,
    evidence: int | None = None,
) -> Plan:
    """A plan of the given actions."""
    return Plan(
        stamp=stamp,
        evidence=stamp if evidence is None else evidence,
        model="toy",
        sequence=sequence,
        period=REACHER.period,
        execute=len(rows) if execute is None else execute,
        actions=np.array(rows, float).reshape(-1, 2),
    )


@dataclass
class Robot:
    """Drives a gate through time: ROS time and steady time, which may run apart."""

    gate: Any
    now: int = START
    steady: float = 5.0
    grain: int = 1
    """How far apart the times are that /clock tells, in ns."""

    @property
    def told(self) -> int:
        """ROS time as the gate sees it."""
        return self.now - self.now % self.grain

    def give(self, plan: Plan) -> Command | None:
        return self.gate.accept(plan, self.told, self.steady)

    def plays(self, plan: Plan) -> Command:
        """Give a plan of which an action must go out at once."""
        command = self.give(plan)
        assert command is not None
        assert not command.safe, command.reason
        return command

    def stops(self, plan: Plan) -> Command:
        """Give a plan that must be answered by the safe action."""
        command = self.give(plan)
        assert command is not None
        assert command.safe
        return command

    def sense(self, elbow: float, *, age: float = 0.0) -> None:
        """Let a joint state arrive that is so many seconds old."""
        stamp = self.now - round(age * SECOND)
        self.gate.sense({"shoulder": 0.0, "elbow": elbow}, stamp, self.told, self.steady)

    def step(self) -> Command | None:
        return self.gate.step(self.told, self.steady)

    def wait(self, seconds: float, *, clock: float = 1.0) -> list[tuple[float, Command]]:
        """Let steady time pass, ROS time `clock` times as fast; return what was sent, and when."""
        sent: list[tuple[float, Command]] = []
        end = self.steady + seconds
        while True:
            step = min(max(self.gate.wake, self.steady), end) - self.steady
            self.steady += step
            self.now += round(step * clock * SECOND)
            if self.steady >= end:
                return sent
            if command := self.step():
                sent.append((self.steady, command))
            assert self.gate.wake > self.steady, "the gate asks to be called without end"

    def jump(self, seconds: float) -> None:
        """Set ROS time forward or back."""
        self.now += round(seconds * SECOND)


def firsts(commands: list[tuple[float, Command]]) -> list[float]:
    """Return the first number of each command."""
    return [round(float(command.values[0]), 6) for _, command in commands]


def reasons(commands: list[tuple[float, Command]]) -> set[str]:
    """Return why the safe action went out; empty for what was wanted."""
    return {command.reason if command.safe else "" for _, command in commands}
