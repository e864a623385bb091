"""The property test of the safety gate, and that its judge would notice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smwm_ros.cli.bench_gate import bench_gate
from smwm_ros.cli.gate_checker import Checker, Sent
from smwm_ros.cli.gate_sessions import TRAJECTORY, Session
from smwm_ros.contract import Contract
from smwm_ros.resources import find_contract
from smwm_ros.runtime.gate import Gate
from smwm_ros.runtime.limiter import Limiter


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**63 - 1))
def test_nothing_forbidden_is_ever_sent(seed: int) -> None:
    """Whatever plans, clocks, joints and stops: values, changes and positions stay within the contract."""
    session = Session(np.random.default_rng(seed), Limiter)
    session.run(20)
    assert session.checker.faults == []


class NoValueLimit(Limiter):
    """Forgets the limits of value."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self._low = [-1e9] * len(self._low)
        self._high = [1e9] * len(self._high)


class GenerousChange(Limiter):
    """Allows a hundredth more change than the contract."""

    def _seconds(self, time: int) -> float:
        return 1.01 * super()._seconds(time)


class NoPositionLimit(Limiter):
    """Looks at the joints, and does nothing about it."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)

        def unlimited(values: Sequence[float], time: int) -> Sequence[float]:
            return values

        self.joints.limit = unlimited  # type: ignore[method-assign]


class LateBraking(Limiter):
    """Reckons with brakes five times as strong."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        for joint in self.joints._joints.values():
            joint.braking *= 5


class GenerousLater(Limiter):
    """Allows a hundredth more change than the contract, but only in a trajectory's further points."""

    def after(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        period = self._period
        self._period *= 1.01
        try:
            return super().after(targets)
        finally:
            self._period = period


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (NoValueLimit, "value limit"),
        (GenerousChange, "change limit"),
        (NoPositionLimit, "position limit"),
        (LateBraking, "position limit"),
        (GenerousLater, "change limit"),
    ],
)
def test_a_broken_limiter_is_noticed(broken: type[Limiter], noticed: str) -> None:
    """Pins that the judge can fail, and says where to look."""
    result = bench_gate(3000, make_limiter=broken)
    assert result["by_kind"][noticed] == result["violations"] > 0
    assert noticed in result["examples"][0]
    assert "seed 0, session" in result["examples"][0]


@pytest.mark.parametrize(
    ("later", "safe", "noticed"),
    [
        ([[0.5, 0.0], [0.9, 0.0]], False, []),
        ([], True, []),
        ([[0.5, 0.0], [1.0, 0.0]], False, ["change limit"]),
        ([[0.1, -0.45], [0.1, -0.9]], False, ["value limit"]),
        ([[0.7, 0.0]], False, ["change limit"]),
        ([[0.1, 0.0]] * 3, False, ["not an action"]),
        ([[0.1]], False, ["not an action"]),
        ([[np.nan, 0.0]], False, ["not an action"]),
        ([[0.1, 0.0]], True, ["after the safe action"]),
    ],
)
def test_further_points_are_judged_from_the_command_on(
    later: list[list[float]], safe: bool, noticed: list[str]
) -> None:
    """Pins the judge, row by row: values, changes in a period, how many, and none after the safe action."""
    reacher = find_contract("reacher")
    limits = {"low": -0.8, "high": 1.0, "max_change": 9.0}  # 0.45 in a period
    dimensions = tuple(d.model_copy(update=limits) for d in reacher.action.dimensions)
    action = reacher.action.model_copy(update={"type": TRAJECTORY, "points": 3, "dimensions": dimensions})
    checker = Checker(reacher.model_copy(update={"action": action}), np.zeros(2))
    rows = np.array(later) if later else np.zeros((0, 2))
    checker.take(Sent(np.array([0.1, 0.0]), 10**9, safe=safe, stopped=False, later=rows))
    assert [fault.partition(":")[0] for fault in checker.faults] == noticed


def test_a_gate_that_forgets_its_emergency_stop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def ignored(self: Gate, now: int, steady: float) -> None:
        self.stopped = True

    monkeypatch.setattr(Gate, "emergency_stop", ignored)
    monkeypatch.setattr("smwm_ros.runtime.plan_gate.PlanGate.accept", _accept_all)
    result = bench_gate(500)
    assert result["by_kind"]["emergency stop"] > 0


def _accept_all(self, plan, now, steady):  # type: ignore[no-untyped-def]
    flaw = plan.stops or plan.flaw(self._contract, self._model) or self._timing_flaw(plan, now, steady)
    return None if flaw else self._take(plan, now, steady)


def test_the_same_seed_gives_the_same_figures() -> None:
    first, second = (bench_gate(500, seed=7) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["plans"] == 500
    assert first["violations"] == 0
    assert first["commands"] > first["safe"] > 0
    assert first["later"] > 0
    assert set(first["interventions"]) >= {"change limit", "emergency stop"}
