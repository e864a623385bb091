"""Which plans the safety gate takes, whatever the clock it plays them by."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import BEFORE_RELEASE, EMERGENCY_STOP, FROM_THE_FUTURE, STOPPED, Command, Gate
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.plan import Plan

NO_PLAN = "no plan"
OUT_OF_ORDER = "out of order"
TOO_OLD = "too old"


class PlanGate(Gate):
    """
    Judges plans.

    A plan is refused if it has a flaw (:meth:`Plan.flaw`), is too old, is from the future, or rests
    on an image older than the contract's timeout. Its author cannot be trusted then: the plan being
    played is dropped too and the safe action goes out at once. A plan that is merely out of order
    (neither its sequence nor its stamp is newer than the last one's) is ignored. An empty plan
    always stops the robot, whatever else is wrong with it.
    """

    ignored: ClassVar[tuple[str, ...]] = (OUT_OF_ORDER,)
    """Faults of a plan that are no reason to stop the robot."""

    def __init__(self, contract: Contract, limiter: Limiter | None = None, model: str = "") -> None:
        """
        Start with no plan.

        Args:
            contract: the robot.
            limiter: see :class:`Gate`.
            model: the only model whose plans are played; empty allows any.
        """
        super().__init__(contract, limiter)
        self._model = model
        self._plan: Plan | None = None
        self._newest: tuple[int, int] | None = None  # stamp, sequence
        self._why = NO_PLAN

    def accept(self, plan: Plan, now: int, steady: float) -> Command | None:
        """Judge a plan that has just arrived; return what must be sent at once, if anything."""
        if self.stopped:
            return self.refuse(EMERGENCY_STOP, now, steady)
        if plan.stops:
            self._note(plan, now)
            return self._halt(STOPPED, self._tick(plan, now), steady)
        reason = plan.flaw(self._contract, self._model) or self._timing_flaw(plan, now, steady)
        if reason in self.ignored:
            self.counts[reason] += 1
            return None
        if reason:
            return self.refuse(reason, now, steady)
        self._note(plan, now)
        return self._take(plan, now, steady)

    @abstractmethod
    def _take(self, plan: Plan, now: int, steady: float) -> Command | None:
        """Begin to play an accepted plan."""

    def _tick(self, plan: Plan, now: int) -> int:
        """Return the time for which an order to stop holds."""
        return now

    @abstractmethod
    def _end(self, plan: Plan) -> int:
        """Return the time from which the plan is too old, in ns."""

    def _timing_flaw(self, plan: Plan, now: int, steady: float) -> str:
        if max(plan.stamp, plan.evidence) > now + self._future_limit():
            return FROM_THE_FUTURE
        if self._before_release(plan.evidence or plan.stamp, now):
            return BEFORE_RELEASE
        if plan.evidence and plan.stamp - plan.evidence > self._timeout:
            return "old evidence"
        if now >= self._end(plan):
            return TOO_OLD
        if self._newest is not None and self._newest[0] <= now + self._future_limit():
            # Otherwise the clock was turned back, and what came before says nothing any more.
            stamp, sequence = self._newest
            if plan.stamp <= stamp and plan.sequence <= sequence:
                return OUT_OF_ORDER
        return ""

    def _note(self, plan: Plan, now: int) -> None:
        if plan.stamp <= now + self._future_limit():
            self._newest = (plan.stamp, plan.sequence)

    def _forget(self) -> None:
        self._plan = None
