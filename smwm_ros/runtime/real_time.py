"""The safety gate for a robot, or a simulator, whose time runs by itself."""

from __future__ import annotations

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.plan_gate import TOO_OLD, PlanGate


class RealTimeGate(PlanGate):
    """
    Plays plans on a robot, or a simulator, whose time runs by itself.

    The action due is found from ROS time and the plan's stamp: the first action at the stamp, each
    next one a period later. An action that is due when its plan arrives goes out at once, and the
    following ones keep that phase. After the last action of ``execute`` the gate waits half a
    period more for the next plan, since an action of the reserve would use up the change that the
    limits allow to the action that comes instead. Then it plays the reserve (its last action again,
    once it is used up) until the plan is too old: no planned action is in force later than ``execute``
    periods and ``timeout`` after the image behind it. As an action holds until the next one, the last goes
    out ``HELD`` periods before that.

    The safe action is repeated every period. It also takes over when no new action has become due
    for as long in *steady* time although the plan is not too old: ROS time has stopped. Hence a
    simulator of a quarter of real time or less must run in lock-step.

    A plan may begin up to ``timeout`` in the future; until then the one before it goes on.

    A command changes, and the robot moves, by steady time.
    """

    TOLERANCE = 0.25
    """Periods by which a tick may come early and still mean the next action."""
    HELD = 1.25
    """Periods for which an action is in force, as the next one may come late; half the timeout at most."""

    def __init__(self, contract: Contract, limiter: Limiter | None = None, model: str = "") -> None:
        """See :class:`PlanGate`."""
        super().__init__(contract, limiter, model)
        self._next: Plan | None = None
        self._begun = 0  # ROS time and index at which the plan's first sent action was sent
        self._first = 0
        self._index = -1  # newest index that was due
        self._fresh = -np.inf  # steady time at which it became due
        self._due = -np.inf  # steady time of the next tick
        self._held = min(self.HELD * contract.period, contract.action.timeout / 2)
        self._patience = max(contract.action.timeout - self._held, 1.5 * contract.period)

    def step(self, now: int, steady: float) -> Command | None:
        """Return the command due now: a planned action, or the safe one if there is none."""
        if self._next is not None:
            wait = self._next.stamp - now
            if wait <= 0:
                return self._begin(self._next, now, steady)
            if wait > self._future_limit():
                self._next = None
                self.counts["clock turned back"] += 1
        if steady < self._due:
            self._set_wake(now, steady)
            return None
        return self._play(now, steady)

    def _take(self, plan: Plan, now: int, steady: float) -> Command | None:
        if plan.stamp <= now:
            return self._begin(plan, now, steady)
        self._next = plan
        self._set_wake(now, steady)
        return None

    def _begin(self, plan: Plan, now: int, steady: float) -> Command | None:
        self._plan, self._next = plan, None
        self._begun, self._first = now, (now - plan.stamp) // self._period
        self._index, self._fresh, self._due = -1, steady, steady
        return self._play(now, steady)

    def _play(self, now: int, steady: float) -> Command | None:
        plan = self._plan
        if plan is not None and (reason := self._outdated(plan, now, steady)):
            # A plan that waits for its time is none the worse for the age of the one before it.
            waiting = self._next if reason == TOO_OLD else None
            self._drop(reason)
            plan, self._next = None, waiting
        if plan is None:
            self._schedule(1.0, now, steady)
            return self._safe(now, steady)
        periods = (now - self._begun) / self._period
        index = self._first + max(0, int(periods + self.TOLERANCE))
        if index > self._index:
            self._index, self._fresh = index, steady
        self._schedule(1.5 if index == plan.execute - 1 else 1.0, now, steady)
        rows = plan.actions[min(index, len(plan.actions) - 1) :]
        return self._send(rows, now, steady, plan.evidence)

    def _end(self, plan: Plan) -> int:
        begin = min(plan.evidence or plan.stamp, plan.stamp)
        return begin + plan.execute * self._period + self._timeout - round(self._held * 1e9)

    def _outdated(self, plan: Plan, now: int, steady: float) -> str:
        if now < self._begun - self._period:
            return "clock turned back"
        if now >= self._end(plan):
            return TOO_OLD
        if steady - self._fresh >= self._patience:
            return "clock stands still"
        return ""

    def _forget(self) -> None:
        self._plan = self._next = None

    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        playing = self._plan is not None or self._next is not None
        self._drop(reason)
        if not playing and steady < self._due:  # the safe action is going out already
            return None
        self._due = steady
        return self._play(now, steady)

    def _schedule(self, periods: float, now: int, steady: float) -> None:
        period = self._contract.period
        # A tick that is served a little late must not delay all that follow.
        on_time = 0 <= steady - self._due < period
        self._due = (self._due if on_time else steady) + periods * period
        if self._plan is not None:
            self._due = min(self._due, self._fresh + self._patience)
        self._set_wake(now, steady)

    def _set_wake(self, now: int, steady: float) -> None:
        self.wake = self._due
        if self._next is not None:
            self.wake = min(self.wake, steady + max((self._next.stamp - now) * 1e-9, 1e-4))
