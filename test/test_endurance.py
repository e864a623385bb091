"""What hours of a robot are judged by: what a goal's change explains, and how much is judged at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smwm_ros.action import ReachGoal
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.client import Goal
from smwm_ros.nodes.endurance import Endurance

PLAN, SAFE = AppliedAction.PLAN, AppliedAction.SAFE
Told = tuple[float, int, str]


class Script:
    """A robot that reaches each goal after some seconds, and whose gate says what is written, at its time."""

    def __init__(self, told: list[Told], reached: float) -> None:
        self.now = 100.0
        self._told = [(self.now + moment, source, reason) for moment, source, reason in told]
        self._reached = reached
        self._done = np.inf
        self._goal = Goal()
        self._hear: dict[str, Callable[[Any], None]] = {}

    def listen(self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any) -> None:
        self._hear[topic] = callback

    def send_goal(self, image: Any, **limits: Any) -> Goal:
        self._goal, self._done = Goal(), self.now + self._reached
        return self._goal

    def wait(self, seconds: float) -> None:
        self.now += seconds
        while self._told and self._told[0][0] <= self.now:
            _, source, reason = self._told.pop(0)
            self._hear["applied_action"](AppliedAction(source=source, reason=reason))
        if self.now >= self._done - 1e-6:
            self._goal.result = ReachGoal.Result()

    def cancel(self, goal: Goal) -> None:
        goal.result = ReachGoal.Result(error_code=8)


def soaked(
    monkeypatch: pytest.MonkeyPatch, told: list[Told], *, reached: float = 4.0, seconds: float = 8.0
) -> Endurance:
    """Pursue goals for some seconds, each reached after ``reached``."""
    robot = Script(told, reached)
    monkeypatch.setattr("smwm_ros.nodes.endurance.time.monotonic", lambda: robot.now)
    made = Endurance(robot)  # type: ignore[arg-type]
    made.run([np.zeros((2, 2, 3), np.uint8)], seconds, hold=10.0)
    return made


@pytest.mark.parametrize("moment", [0.3, 3.8, 4.4, 7.7])
def test_a_goal_explains_that_it_stops_the_robot_and_that_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch, moment: float
) -> None:
    told = [
        (moment - 0.05, SAFE, "stopped"),
        (moment, SAFE, "stopped"),
        (moment + 0.05, PLAN, "change limit"),
    ]
    made = soaked(monkeypatch, told)
    assert made.unexplained == []
    assert dict(made.interventions) == {"stopped": 1, "change limit": 1}


@pytest.mark.parametrize("moment", [0.3, 3.8, 4.4, 7.7])
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (SAFE, "too old"),
        (SAFE, "not finite"),
        (SAFE, "old evidence"),
        (SAFE, "clock stands still"),
        (SAFE, "from the future"),
        (SAFE, "no joint states"),
        (PLAN, "value limit"),
    ],
)
def test_nothing_else_is_explained_however_near_a_goal_begins_or_ends(
    monkeypatch: pytest.MonkeyPatch, moment: float, source: int, reason: str
) -> None:
    """Pins that half a second around each goal is no blind spot for plans that were late or bad."""
    made = soaked(monkeypatch, [(moment, source, reason)])
    assert len(made.unexplained) == 1
    assert made.unexplained[0].endswith(f" s: {reason}")


def test_what_a_goal_explains_is_not_explained_far_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = soaked(monkeypatch, [(2.0, SAFE, "stopped"), (2.1, PLAN, ""), (6.0, PLAN, "change limit")])
    assert [line.partition(": ")[2] for line in made.unexplained] == ["stopped", "change limit"]


def test_a_plan_that_came_a_little_soon_explains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    made = soaked(monkeypatch, [(6.0, PLAN, "early change")])
    assert dict(made.interventions) == {"early change": 1}
    assert made.unexplained == []


@pytest.mark.parametrize(
    ("reached", "share"), [(4.0, 6 / 8), (2.0, 4 / 8), (1.0, 0.0), (0.5, 0.0), (99.0, 7 / 8)]
)
def test_the_share_that_is_judged_is_what_lies_outside_all_windows(
    monkeypatch: pytest.MonkeyPatch, reached: float, share: float
) -> None:
    """Pins that goals which follow each other too fast leave nothing to be judged, and that this shows."""
    assert soaked(monkeypatch, [], reached=reached).judged == pytest.approx(share, abs=0.03)


def test_before_any_goal_nothing_was_judged() -> None:
    assert Endurance(Script([], 1.0)).judged == 0.0  # type: ignore[arg-type]
