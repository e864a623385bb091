"""The safety gate for another node's commands: nothing plans here, but the same limits hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.runtime.gate import BEFORE_RELEASE, EMERGENCY_STOP, FROM_THE_FUTURE, Command, Gate
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.plan_gate import TOO_OLD

NO_COMMAND = "no command"


class PassGate(Gate):
    """
    Passes commands on, within the contract's limits, as soon as they come.

    The newest one is repeated every period, as a limit of change may still keep it from its values, until
    none has come for the contract's ``timeout`` of steady time; then the safe action goes out every
    period. A command whose stamp is older than that, or as far in the future, is refused, and one that is
    not finite, too: the safe action at once. A stamp of zero says nothing, as in ros2_control.
    """

    def __init__(self, contract: Contract, limiter: Limiter | None = None) -> None:
        """See :class:`Gate`."""
        super().__init__(contract, limiter)
        self._wanted: NDArray[np.float64] | None = None
        self._arrived = -np.inf
        self._why = NO_COMMAND

    def accept(self, values: NDArray[np.float64], stamp: int, now: int, steady: float) -> Command | None:
        """
        Judge a command that has just arrived; return what must be sent at once, if anything.

        Args:
            values: finite, shape (A,).
            stamp: from when it holds, in ns; 0 when its message has none.
            now: ROS time.
            steady: steady time.
        """
        if self.stopped:
            return self.refuse(EMERGENCY_STOP, now, steady)
        if stamp and stamp > now + self._future_limit():
            return self.refuse(FROM_THE_FUTURE, now, steady)
        if stamp and now - stamp >= self._timeout:
            return self.refuse(TOO_OLD, now, steady)
        if stamp and self._before_release(stamp, now):
            return self.refuse(BEFORE_RELEASE, now, steady)
        self._wanted, self._arrived = values, steady
        return self._pass(now, steady)

    def step(self, now: int, steady: float) -> Command | None:
        """Return the newest command again, or the safe one if there is none."""
        return self._pass(now, steady) if steady >= self.wake else None

    def _pass(self, now: int, steady: float) -> Command | None:
        if self._wanted is not None and steady - self._arrived >= self._contract.action.timeout:
            self._drop(TOO_OLD)
        self.wake = steady + self._contract.period
        if self._wanted is None:
            return self._safe(now, steady)
        self.wake = min(self.wake, self._arrived + self._contract.action.timeout)
        return self._send(self._wanted[None], now, steady)

    def _forget(self) -> None:
        self._wanted = None

    def _halt(self, reason: str, now: int, steady: float) -> Command | None:
        passing = self._wanted is not None
        self._drop(reason)
        # Otherwise the safe action is going out already.
        return self._pass(now, steady) if passing or steady >= self.wake else None
