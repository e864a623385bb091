"""The safety gate for a simulator in lock-step, whose time waits for every command."""

from __future__ import annotations

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import Command, Gate
from smwm_ros.runtime.plan import Plan


class LockStepGate(Gate):
    """
    Plays plans on a simulator that waits for the command of each tick.

    One command per tick, stamped with the tick. Of a plan only the ``execute`` actions are played,
    each as soon as the clock reaches its tick; then the gate waits for the next plan, and the
    simulator with it. A plan may begin one tick in the future, since /clock and the plan travel on
    different topics. An order to stop, or a refused plan, makes one safe action: for this tick, or
    for the next one if this one has its command already. When the clock leaps by more than the
    contract's ``max_gap`` the simulator was reset, and a plan from before is dropped.

    The watchdog is the only thing here in steady time: a safe action each ``WATCHDOG`` seconds
    without any command.

    A command may change by ``max_change`` times the ROS time since the last one, but no more than
    one period of it.
    """

    WATCHDOG = 10.0
    """Steady seconds without a command until a safe one is sent."""

    def __init__(self, contract: Contract, model: str = "") -> None:
        """See :class:`Gate`."""
        super().__init__(contract, model)
        self._last: int | None = None  # newest tick that has its command
        self._halting = False

    def accept(self, plan: Plan, now: int, steady: float) -> Command | None:
        """See :meth:`Gate.accept`; before the first /clock message the plan's own stamp is the time."""
        return super().accept(plan, now or plan.stamp, steady)

    def step(self, now: int, steady: float) -> Command | None:
        """Return the command of the tick ``now``; None if it has one, or no action is due."""
        if not np.isfinite(self.wake):
            self.wake = steady + self.WATCHDOG
        if steady >= self.wake:
            self._drop("watchdog")
            return self._safe(now, steady)
        return self._play(now, steady)

    def _take(self, plan: Plan, now: int, steady: float) -> Command | None:
        self._plan, self._halting = plan, False
        return self._play(max(now, plan.stamp), steady)

    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        self._drop(reason)
        self._halting = True
        return self._play(now, steady)

    def _play(self, tick: int, steady: float) -> Command | None:
        if self._last is not None and tick < self._last - self._period:
            self._last = None
            if self._plan is not None and self._plan.stamp > tick:
                self._drop("clock turned back")
        if self._last is not None and tick <= self._last:
            return None
        if self._halting:
            self._halting = False
            return self._safe(tick, steady)
        plan = self._plan
        if plan is None:
            return None
        if tick - max(self._last or 0, plan.stamp) > self._contract.max_gap_ns:
            self._drop("clock leapt")
            return None
        index = round((tick - plan.stamp) / self._period)
        if not 0 <= index < plan.execute:
            return None
        return self._send(plan, index, tick, steady)

    def _seconds(self, stamp: int, steady: float) -> float:
        seconds = self._contract.period
        if self._last is not None:
            seconds = min(max(stamp - self._last, 0) * 1e-9, seconds)
        self._last = stamp
        self.wake = steady + self.WATCHDOG
        return seconds

    def _tick(self, plan: Plan, now: int) -> int:
        return plan.stamp if now < plan.stamp <= now + self._period else now

    def _future_limit(self) -> int:
        return self._period

    def _end(self, plan: Plan) -> int:
        return plan.stamp + plan.execute * self._period - self._period // 2
