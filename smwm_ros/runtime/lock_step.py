"""The safety gate for a simulator in lock-step, whose time waits for every command."""

from __future__ import annotations

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.plan_gate import OUT_OF_ORDER, TOO_OLD, PlanGate


class LockStepGate(PlanGate):
    """
    Plays plans on a simulator that waits for the command of each tick.

    One command per tick, stamped with the tick. Of a plan only the ``execute`` actions are played,
    each as soon as the clock reaches its tick; then the gate waits for the next plan, and the
    simulator with it. A plan may be ahead of the clock by a tick, or by the leap of a reset, and is due
    nonetheless: /clock travels on another topic, and may come later or be lost. An order to stop, or a
    refused plan, makes one safe action: for this tick, or for the next one if this one has its command
    already. A plan that comes too late is ignored: it does no harm, and the next one comes in time, as
    time waits for it. When the clock leaps by more than the contract's ``max_gap`` the simulator was
    reset: a plan from before is dropped, and an order to stop from before uses up no tick.

    Two things here go by steady time. While the clock stays at a tick that has its command, that very
    command is repeated every ``REPEAT`` seconds: the simulator may not have been connected yet when
    it first went out. And the watchdog ends a plan with one safe action when no new command has come for
    ``WATCHDOG`` seconds. Without a plan time stands still: a safe action would use up a tick, which
    may be the first one of an episode that has just begun.

    While the emergency stop is latched, plans get safe actions for their ticks: the simulator goes on as
    long as somebody plans.

    A command changes, and the robot moves, by ROS time; after a reset it begins at rest.
    """

    ignored = (OUT_OF_ORDER, TOO_OLD)
    REPEAT = 1.0
    """Steady seconds until a command is sent again."""
    WATCHDOG = 10.0
    """Steady seconds without a new command until a plan is ended; looked at each ``REPEAT``."""

    def __init__(self, contract: Contract, limiter: Limiter | None = None, model: str = "") -> None:
        """See :class:`PlanGate`."""
        super().__init__(contract, limiter, model)
        self._last: int | None = None  # newest tick that has its command
        self._command: Command | None = None  # that command
        self._halting: int | None = None  # ROS time of an order to stop that waits for its tick
        self._deadline = np.inf

    def accept(self, plan: Plan, now: int, steady: float) -> Command | None:
        """See :meth:`PlanGate.accept`; before the first /clock message the plan's own stamp is the time."""
        return super().accept(plan, now or plan.stamp, steady)

    def step(self, now: int, steady: float) -> Command | None:
        """Return the command of the tick ``now``; None if it has one, or no action is due."""
        if command := self._play(now, steady):
            return command
        if not np.isfinite(self.wake):  # the first call
            self._rest(steady)
        if steady >= self._deadline and self._plan is not None:
            self._drop("watchdog")
            return self._answer(self._safe(now, steady), now, steady)
        if steady >= self.wake:
            self.wake = steady + self.REPEAT
            if self._last is not None and now <= self._last:
                return self._command
        return None

    def _take(self, plan: Plan, now: int, steady: float) -> Command | None:
        self._plan, self._halting = plan, None
        return self._play(max(now, plan.stamp), steady)

    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        self._drop(reason)
        self._halting = now
        return self._play(now, steady)

    def _play(self, tick: int, steady: float) -> Command | None:
        if self._last is not None and tick < self._last - self._future_limit():
            self._last = None
            if self._plan is not None and self._plan.stamp > tick:
                self._drop("clock turned back")
        if self._last is not None and tick <= self._last:
            return None
        if self._halting is not None:
            since, self._halting = tick - self._halting, None
            if since > self._contract.max_gap_ns:
                return None
            self._begin_at_rest(tick)
            return self._answer(self._safe(tick, steady), tick, steady)
        plan = self._plan
        if plan is None:
            return None
        if tick - max(self._last or 0, plan.stamp) > self._contract.max_gap_ns:
            self._drop("clock leapt")
            return None
        index = round((tick - plan.stamp) / self._period)
        if not 0 <= index < plan.execute:
            return None
        self._begin_at_rest(tick)
        return self._answer(self._send(plan.actions[index:], tick, steady, plan.evidence), tick, steady)

    def _begin_at_rest(self, tick: int) -> None:
        sent = self._limiter.sent
        if sent is not None and not -self._future_limit() <= tick - sent <= self._contract.max_gap_ns:
            self._limiter.rest()

    def _answer(self, command: Command | None, tick: int, steady: float) -> Command | None:
        """Take note that a tick has its command."""
        self._last, self._command = tick, command
        self._rest(steady)
        return command

    def _rest(self, steady: float) -> None:
        self._deadline = steady + self.WATCHDOG
        self.wake = steady + self.REPEAT

    def _time(self, stamp: int, steady: float) -> int:
        return stamp

    def _tick(self, plan: Plan, now: int) -> int:
        ahead = plan.stamp - now
        leapt = -ahead > self._contract.max_gap_ns
        return plan.stamp if leapt or 0 < ahead <= self._future_limit() else now

    def _future_limit(self) -> int:
        return 2 * self._contract.max_gap_ns + self._period

    def _end(self, plan: Plan) -> int:
        return plan.stamp + plan.execute * self._period - self._period // 2
