"""What the robot's surroundings are held to be: the newest latent, and how well it was foreseen."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.signals import ActionHistory
from smwm_ros.data.ticks import Tick, TickGate
from smwm_ros.errors import DataError

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False, kw_only=True)
class Latent:
    """One encoded observation; see msg/Latent."""

    stamp: int
    """Of the image, in ns."""
    frame_id: str = ""
    model: str
    values: NDArray[np.float32]
    """Shape (D,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Belief:
    """What is held true; see msg/Belief."""

    stamp: int
    """The time for which it holds, in ns."""
    evidence: int
    """Stamp of the newest image that went into it, in ns."""
    frame_id: str = ""
    model: str
    latent: NDArray[np.float32]
    """Shape (D,)."""
    surprise: float = float("nan")
    """Error of the last one-step prediction, in validation medians; NaN until there was one."""
    surprised: bool = False
    observations: int = 1
    """Images since the belief was last initialised."""


class BeliefTracker:
    """
    Turns latents and the actions really applied into beliefs, one per tick.

    The belief is the newest latent. Beside it stands the surprise: the error of the prediction from
    the latent one model step (k ticks) ago with the actions applied since, which are found by the
    same code that the training data was made with. It is NaN while that step is not wholly known. The
    belief is ``surprised`` once the surprise has stayed above a threshold for some ticks; as the
    steps of neighbouring ticks overlap, one jolt alone keeps it there for k ticks.

    It is surprised at once when k ticks in a row show the very same latent although the model foresaw that
    it would change: the camera has frozen, or the robot is stuck. That lasts until the latent changes, as a
    robot that then rests looks as it should.
    """

    def __init__(self, contract: Contract, model: Checkpoint, *, threshold: float, patience: int) -> None:
        """
        Start without any observation.

        Args:
            contract: the robot.
            model: the world model.
            threshold: surprise, in validation medians, that counts as high.
            patience: ticks for which it must be high.
        """
        self._model = model
        self.judge_by(threshold, patience)
        self._max_gap_ns = contract.max_gap_ns
        self._ticks = TickGate(contract)
        self._actions = ActionHistory()
        self._block = contract.block
        self._latents: deque[Latent] = deque(maxlen=self._block + 1)
        self._high = 0
        self._frozen = False
        self._anew = ""
        self._belief: Belief | None = None

    def judge_by(self, threshold: float, patience: int) -> None:
        """Change what counts as surprising, from the next step on; arguments as when it was made."""
        self._threshold = threshold
        self._patience = patience

    def apply(self, stamp: int, action: NDArray[np.float64]) -> None:
        """
        Take note of an action, shape (A,), in contract units, applied from ``stamp`` (ns) on.

        One that is not finite leaves the ticks that it touches unknown. A stamp that jumps back begins
        everything anew, as one of a latent does.
        """
        newest = self._actions.newest
        if newest is not None and self._is_past(stamp):
            self._anew = f"stamp of an action jumped back {(newest - stamp) * 1e-9:.3f} s"
            self._actions.clear()
            self._ticks.restart()
        self._actions.append(stamp, action)

    def observe(self, latent: Latent) -> tuple[Belief | None, str]:
        """
        Take a latent.

        Returns:
            The belief, and why it was initialised anew, if it was. The belief is None for an image
            that lies between two ticks or comes late; for one that is shown again it is the same as
            before.

        Raises:
            DataError: of another model, of another size, or not finite.
        """
        self._check(latent)
        last = self._ticks.last
        tick = self._ticks.offer(latent.stamp)
        if tick in (Tick.SURPLUS, Tick.LATE):
            return None, ""
        if tick is Tick.DUPLICATE:
            return self._belief, ""
        reason, self._anew = self._anew, ""
        if tick is Tick.START:
            if last is not None:
                seconds = (latent.stamp - last) * 1e-9
                reason = f"gap of {seconds:.3f} s" if seconds > 0 else f"stamp jumped back {-seconds:.3f} s"
            # Actions of the new time may have come already, ahead of the slower images.
            if last is not None and latent.stamp < last and self._is_past(latent.stamp):
                self._actions.clear()
            self._latents.clear()
            self._high = 0
        self._latents.append(latent)
        surprise = self._surprise()
        self._high = self._high + 1 if surprise > self._threshold else 0
        self._frozen = self._shows(latent, 2) and (self._frozen or self._stuck(latent))
        self._belief = Belief(
            stamp=latent.stamp,
            evidence=latent.stamp,
            frame_id=latent.frame_id,
            model=latent.model,
            latent=latent.values,
            surprise=surprise,
            surprised=self._frozen or self._high >= self._patience,
            observations=1 if tick is Tick.START or self._belief is None else self._belief.observations + 1,
        )
        return self._belief, reason

    def _is_past(self, stamp: int) -> bool:
        """Tell whether a stamp lies so far before the newest action's that the clock has jumped."""
        newest = self._actions.newest
        return newest is not None and stamp < newest - self._max_gap_ns

    def _surprise(self) -> float:
        if len(self._latents) <= self._block:
            return float("nan")
        block = self._applied(list(self._latents))
        if block is None:
            return float("nan")
        return self._model.surprise(self._latents[0].values, block, self._latents[-1].values)

    def _stuck(self, latent: Latent) -> bool:
        """Tell whether the latent stays the same though the actions, the last going on, should change it."""
        k = self._block
        count = max(k, min(k + 1, 3))  # one picture twice is no proof
        if not self._shows(latent, count):
            return False
        block = self._applied(list(self._latents)[-count:])
        if block is None:
            return False
        block = np.concatenate([block, block[-1:]])[:k]
        return self._model.surprise(latent.values, block, latent.values) > self._threshold

    def _shows(self, latent: Latent, count: int) -> bool:
        """Tell whether as many latents, the newest ones, are the very same."""
        newest = list(self._latents)[-count:]
        return len(newest) == count and all(np.array_equal(one.values, latent.values) for one in newest)

    def _applied(self, latents: list[Latent]) -> NDArray[np.float64] | None:
        """Return the actions between latents, shape (len - 1, A); None if one is unknown or not finite."""
        actions = [self._actions.hold(a.stamp, b.stamp) for a, b in pairwise(latents)]
        if any(action is None or not np.isfinite(action).all() for action in actions):
            return None
        return np.array(actions, np.float64)

    def _check(self, latent: Latent) -> None:
        if latent.model != self._model.id:
            raise DataError(
                f"latent of the model {latent.model!r}, expected {self._model.id!r}; "
                "start perception and world model with the same checkpoint"
            )
        if latent.values.shape != (self._model.latent_size,):
            raise DataError(
                f"latent of {latent.values.size} numbers, expected {self._model.latent_size} "
                f"for the model {self._model.id!r}"
            )
        if not np.isfinite(latent.values).all():
            raise DataError("latent is not finite; look at the images that perception gets")
