"""The safety gate for a robot, or a simulator, whose time runs by itself."""

from __future__ import annotations

from collections import deque

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.plan_gate import TOO_OLD, PlanGate

STANDS_STILL = "clock stands still"
TURNED_BACK = "clock turned back"


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

    The safe action is repeated every period. It also takes over when ROS time stands still: when it has
    not come on by a period, or nearly, for ``timeout`` less ``HELD`` of *steady* time. Then nothing that
    was wanted is played any more, nor what comes until it goes on. Hence a simulator of a quarter of real
    time or less must run in lock-step. Nor does a plan last longer because ROS time stops meanwhile.

    A plan may begin up to ``timeout`` in the future; until then the one before it goes on. Several may
    wait, each for its own stamp; a newer one replaces those that would begin when it does, or later.

    A command changes, and the robot moves, by steady time.
    """

    TOLERANCE = 0.25
    """Periods by which a tick may come early and still mean the next action."""
    HELD = 1.25
    """Periods for which an action is in force, as the next one may come late; half the timeout at most."""

    def __init__(self, contract: Contract, limiter: Limiter | None = None, model: str = "") -> None:
        """See :class:`PlanGate`."""
        super().__init__(contract, limiter, model)
        self._waiting: deque[Plan] = deque()  # by stamp, one for each period of the timeout at most
        self._most = 1 + self._timeout // self._period
        self._begun = 0  # ROS time and index at which the plan's first sent action was sent
        self._first = 0
        self._clock = -self._period  # ROS time when it last came on by a period, or nearly, or was set
        self._seen = 0.0  # steady time at which that was seen
        self._due = -np.inf  # steady time of the next tick
        self._held = min(self.HELD * contract.period, contract.action.timeout / 2)
        self._patience = max(contract.action.timeout - self._held, 1.5 * contract.period)

    def accept(self, plan: Plan, now: int, steady: float) -> Command | None:
        """See :meth:`PlanGate.accept`."""
        self._look(now, steady)
        return super().accept(plan, now, steady)

    def step(self, now: int, steady: float) -> Command | None:
        """Return the command due now: a planned action, or the safe one if there is none."""
        self._look(now, steady)
        if self._wanted and self._stands_still(steady):
            return self._halt(STANDS_STILL, now, steady)
        if self._waiting and self._waiting[-1].stamp > now + self._future_limit():
            self._waiting.clear()
            self.counts[TURNED_BACK] += 1
        if self._waiting and self._waiting[0].stamp <= now:
            return self._begin(now, steady)
        if steady < self._due:
            self._set_wake(now, steady)
            return None
        return self._play(now, steady)

    def _take(self, plan: Plan, now: int, steady: float) -> Command | None:
        waiting = self._waiting
        while waiting and (waiting[-1].stamp >= plan.stamp or len(waiting) == self._most):
            waiting.pop()
        waiting.append(plan)
        if plan.stamp <= now:
            return self._begin(now, steady)
        self._set_wake(now, steady)
        return None

    def _begin(self, now: int, steady: float) -> Command | None:
        """Play the newest plan whose time has come; there is one."""
        plan = self._waiting.popleft()
        while self._waiting and self._waiting[0].stamp <= now:
            plan = self._waiting.popleft()
        self._plan = plan
        self._begun, self._first = now, (now - plan.stamp) // self._period
        self._due = steady
        return self._play(now, steady)

    def _play(self, now: int, steady: float) -> Command | None:
        plan = self._plan
        if plan is not None and (reason := self._outdated(plan, now, steady)):
            # A plan that waits for its time is none the worse for the age of the one before it.
            waiting = self._waiting.copy() if reason == TOO_OLD else ()
            self._drop(reason)
            self._waiting.extend(waiting)
            plan = None
        if plan is None:
            self._schedule(1.0, now, steady)
            return self._safe(now, steady)
        periods = (now - self._begun) / self._period
        index = self._first + max(0, int(periods + self.TOLERANCE))
        self._schedule(1.5 if index == plan.execute - 1 else 1.0, now, steady)
        rows = plan.actions[min(index, len(plan.actions) - 1) :]
        return self._send(rows, now, steady, plan.evidence)

    def _end(self, plan: Plan) -> int:
        begin = min(plan.evidence or plan.stamp, plan.stamp)
        return begin + plan.execute * self._period + self._timeout - round(self._held * 1e9)

    def _timing_flaw(self, plan: Plan, now: int, steady: float) -> str:
        standing = STANDS_STILL if self._stands_still(steady) else ""
        return super()._timing_flaw(plan, now, steady) or standing or self._too_old(plan, now, steady)

    def _outdated(self, plan: Plan, now: int, steady: float) -> str:
        return TURNED_BACK if now < self._begun - self._period else self._too_old(plan, now, steady)

    def _too_old(self, plan: Plan, now: int, steady: float) -> str:
        return TOO_OLD if max(now, self._went_on(steady)) >= self._end(plan) else ""

    def _look(self, now: int, steady: float) -> None:
        """Note when ROS time comes on."""
        if abs(now - self._clock) >= (1.0 - self.TOLERANCE) * self._period:
            self._clock, self._seen = now, steady

    def _stands_still(self, steady: float) -> bool:
        return steady >= self._seen + self._patience

    def _went_on(self, steady: float) -> int:
        """Return what ROS time would be if it had gone on since it last did."""
        return self._clock + round((steady - self._seen) * 1e9)

    @property
    def _wanted(self) -> bool:
        return self._plan is not None or bool(self._waiting)

    def _forget(self) -> None:
        self._plan = None
        self._waiting.clear()

    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        wanted = self._wanted
        self._drop(reason)
        if not wanted and steady < self._due:  # the safe action is going out already
            return None
        self._due = steady
        return self._play(now, steady)

    def _schedule(self, periods: float, now: int, steady: float) -> None:
        period = self._contract.period
        # A tick that is served a little late must not delay all that follow.
        on_time = 0 <= steady - self._due < period
        self._due = (self._due if on_time else steady) + periods * period
        if self._plan is not None:
            # An action is in force for a period after the end of its plan at most; less, if that is short.
            end = self._seen + (self._end(self._plan) - self._clock) * 1e-9
            self._due = min(self._due, end + self._held / self.HELD)
        self._set_wake(now, steady)

    def _set_wake(self, now: int, steady: float) -> None:
        self.wake = self._due
        if self._wanted:
            self.wake = min(self.wake, self._seen + self._patience)
        if self._waiting:
            ahead = (self._waiting[0].stamp - now) * 1e-9
            # A clock at rest is looked at again after a tenth of the time for which it has rested.
            rested = (self._went_on(steady) - now) * 1e-9
            self.wake = min(self.wake, steady + max(ahead, 0.1 * rested, 1e-4))
