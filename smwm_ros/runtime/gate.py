"""
The safety gate: from stamped plans to the one command that goes out, or the safe action.

It has no clock and no thread: the caller passes both times in. ``now`` is ROS time in ns, the time
of all stamps; ``steady`` is monotonic time in s, which nothing can stop or turn back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.plan import Plan

OUT_OF_ORDER = "out of order"
TOO_OLD = "too old"


@dataclass(frozen=True, eq=False)
class Command:
    """One action to send now."""

    values: NDArray[np.float64]
    """Within the contract's limits, shape (A,)."""
    stamp: int
    """From when it holds, in ns."""
    evidence: int = 0
    """Stamp of the newest image behind it, in ns; 0 for a safe action."""
    safe: bool = False
    reason: str = ""
    """Why the planned action was changed or replaced; empty when it was not."""


class Gate(ABC):
    """
    What both ways of playing plans share: judging plans, limits, the safe action, the counters.

    A plan is refused if it has a flaw (:meth:`Plan.flaw`), is too old, is from the future, or rests
    on an image older than the contract's timeout. Its author cannot be trusted then: the plan being
    played is dropped too and the safe action goes out at once. A plan that is merely out of order
    (neither its sequence nor its stamp is newer than the last one's) is ignored. An empty plan
    always stops the robot, whatever else is wrong with it.
    """

    ignored: ClassVar[tuple[str, ...]] = (OUT_OF_ORDER,)
    """Faults of a plan that are no reason to stop the robot."""

    def __init__(self, contract: Contract, model: str = "") -> None:
        """
        Start with no plan.

        Args:
            contract: the robot.
            model: the only model whose plans are played; empty allows any.
        """
        self.counts: Counter[str] = Counter()
        """How often each kind of intervention happened."""
        self.wake = -np.inf
        """Steady time at which ``step`` should be called next, in s."""
        self._contract = contract
        self._model = model
        self._period = contract.period_ns
        self._timeout = round(contract.action.timeout * 1e9)
        self._limiter = Limiter(contract.action)
        self._plan: Plan | None = None
        self._newest: tuple[int, int] | None = None  # stamp, sequence
        self._why = "no plan"

    def accept(self, plan: Plan, now: int, steady: float) -> Command | None:
        """Judge a plan that has just arrived; return what must be sent at once, if anything."""
        if plan.stops:
            self._note(plan, now)
            return self._halt("stopped", self._tick(plan, now), steady)
        reason = plan.flaw(self._contract, self._model) or self._timing_flaw(plan, now)
        if reason in self.ignored:
            self.counts[reason] += 1
            return None
        if reason:
            return self.refuse(reason, now, steady)
        self._note(plan, now)
        return self._take(plan, now, steady)

    def refuse(self, reason: str, now: int, steady: float) -> Command | None:
        """Answer a plan that could not even be read: as for any other bad plan."""
        return self._halt(reason, now, steady)

    @abstractmethod
    def step(self, now: int, steady: float) -> Command | None:
        """Return what must be sent now, if anything; to be called at ``wake``."""

    def stop(self, now: int, steady: float) -> Command | None:
        """Drop any plan and return the next command on the way to the safe action."""
        self._plan = None
        self._why = "stopped"
        return self._safe(now, steady)

    @property
    def settled(self) -> bool:
        """Whether the last command was the safe action itself."""
        return self._limiter.settled

    @abstractmethod
    def _take(self, plan: Plan, now: int, steady: float) -> Command | None:
        """Begin to play an accepted plan."""

    @abstractmethod
    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        """Drop what is being played, for a reason to be counted, and go to the safe action."""

    @abstractmethod
    def _seconds(self, stamp: int, steady: float) -> float:
        """Return the time for which a command is allowed to change, in s."""

    def _tick(self, plan: Plan, now: int) -> int:
        """Return the time for which an order to stop holds."""
        return now

    @abstractmethod
    def _future_limit(self) -> int:
        """Return how far in the future a plan may begin, in ns."""

    def _timing_flaw(self, plan: Plan, now: int) -> str:
        if plan.stamp > now + self._future_limit() or plan.evidence > now + self._future_limit():
            return "from the future"
        if now >= self._end(plan):
            return TOO_OLD
        if plan.evidence and plan.stamp - plan.evidence > self._timeout:
            return "old evidence"
        if self._newest is not None and self._newest[0] <= now + self._future_limit():
            # Otherwise the clock was turned back, and what came before says nothing any more.
            stamp, sequence = self._newest
            if plan.stamp <= stamp and plan.sequence <= sequence:
                return OUT_OF_ORDER
        return ""

    def _end(self, plan: Plan) -> int:
        """Return the time from which the plan is too old, in ns."""
        return plan.stamp + plan.execute * self._period + self._timeout

    def _note(self, plan: Plan, now: int) -> None:
        if plan.stamp <= now + self._future_limit():
            self._newest = (plan.stamp, plan.sequence)

    def _drop(self, reason: str) -> None:
        self.counts[reason] += 1
        self._plan = None
        self._why = reason

    def _send(self, plan: Plan, index: int, stamp: int, steady: float) -> Command:
        values, reason = self._limiter.limit(plan.actions[index], self._seconds(stamp, steady))
        if reason:
            self.counts[reason] += 1
        return Command(values, stamp, evidence=plan.evidence, reason=reason)

    def _safe(self, stamp: int, steady: float) -> Command | None:
        values = self._limiter.safe(self._seconds(stamp, steady))
        return None if values is None else Command(values, stamp, safe=True, reason=self._why)


class RealTimeGate(Gate):
    """
    Plays plans on a robot, or a simulator, whose time runs by itself.

    The action due is found from ROS time and the plan's stamp: the first action at the stamp, each
    next one a period later. An action that is due when its plan arrives goes out at once, and the
    following ones keep that phase. After the last action of ``execute`` the gate waits half a
    period more for the next plan, since an action of the reserve would use up the change that the
    limits allow to the action that comes instead. Then it plays the reserve (its last action again,
    once it is used up) until the plan is too old: ``timeout`` after ``execute`` periods.

    The safe action is repeated every period. It also takes over when no new action has become due
    for ``timeout`` of *steady* time although the plan is not too old: ROS time has stopped. Hence a
    simulator slower than ``period / timeout`` of real time must run in lock-step.

    A plan may begin up to ``timeout`` in the future; until then the one before it goes on.

    A command may change by ``max_change`` times the steady time since the last one, but no more
    than one period of it: after a silence the robot must not jump.
    """

    TOLERANCE = 0.25
    """Periods by which a tick may come early and still mean the next action."""

    def __init__(self, contract: Contract, model: str = "") -> None:
        """See :class:`Gate`."""
        super().__init__(contract, model)
        self._next: Plan | None = None
        self._begun = 0  # ROS time and index at which the plan's first sent action was sent
        self._first = 0
        self._index = -1  # newest index that was due
        self._fresh = -np.inf  # steady time at which it became due
        self._sent = -np.inf  # steady time of the last command
        self._due = -np.inf  # steady time of the next tick
        self._patience = max(contract.action.timeout, 1.5 * contract.period)

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
            self._drop(reason)
            plan = None
        if plan is None:
            self._schedule(1.0, now, steady)
            return self._safe(now, steady)
        periods = (now - self._begun) / self._period
        index = self._first + max(0, int(periods + self.TOLERANCE))
        if index > self._index:
            self._index, self._fresh = index, steady
        self._schedule(1.5 if index == plan.execute - 1 else 1.0, now, steady)
        return self._send(plan, min(index, len(plan.actions) - 1), now, steady)

    def _outdated(self, plan: Plan, now: int, steady: float) -> str:
        if now < self._begun - self._period:
            return "clock turned back"
        if now >= self._end(plan):
            return TOO_OLD
        if steady - self._fresh >= self._patience:
            return "clock stands still"
        return ""

    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        self._drop(reason)
        self._next, self._due = None, steady
        return self._play(now, steady)

    def _schedule(self, periods: float, now: int, steady: float) -> None:
        period = self._contract.period
        # A tick that is served a little late must not delay all that follow.
        on_time = 0 <= steady - self._due < period
        self._due = (self._due if on_time else steady) + periods * period
        self._set_wake(now, steady)

    def _set_wake(self, now: int, steady: float) -> None:
        self.wake = self._due
        if self._next is not None:
            self.wake = min(self.wake, steady + max((self._next.stamp - now) * 1e-9, 1e-4))

    def _seconds(self, stamp: int, steady: float) -> float:
        seconds = min(steady - self._sent, self._contract.period)
        self._sent = steady
        return seconds

    def _future_limit(self) -> int:
        return self._timeout
