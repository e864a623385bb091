"""What an outside witness heard of a robot's commands, and what follows from it; without ROS."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract

ROUNDING = 1e-9
"""By which a command may seem outside a limit."""


LEAP = 5 * 10**9
"""Ns from one image to that of the next plan, of which one belongs to another time."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A message on the command topic."""

    time: float
    """Steady seconds at which it came."""
    values: NDArray[np.float64]
    """Contract units, shape (A,); NaN where the message had no number."""


@dataclass(frozen=True, eq=False)
class Applied(Sent):
    """An AppliedAction: what the gate says of the command that it sent."""

    safe: bool
    reason: str
    evidence: int
    """Stamp of the newest image behind it, in ns; 0 if there is none."""


@dataclass(frozen=True)
class Account:
    """What was heard in some time, oldest first."""

    sent: tuple[Sent, ...]
    applied: tuple[Applied, ...]
    before: tuple[Applied, ...] = ()
    """What the gate said last before that time."""

    def since(self, moment: float) -> Account:
        """Return what came from a moment on, and the newest command before it."""
        before = [note for note in self.sent if note.time < moment][-1:]
        return Account(
            (*before, *(note for note in self.sent if note.time >= moment)),
            tuple(note for note in self.applied if note.time >= moment),
            tuple(note for note in self.applied if note.time < moment)[-1:],
        )

    def first_safe(self) -> float | None:
        """
        Return when the first safe action had come, steady seconds; None if there was none.

        Both of its messages count: the one that says so, and the command itself.
        """
        for note in self.applied:
            if note.safe:
                commands = (s.time for s in self.sent if np.array_equal(s.values, note.values))
                # The two come on separate topics, in any order; the robot is told once by each.
                near = min(commands, key=lambda time: abs(time - note.time), default=note.time)
                return max(near, note.time)
        return None

    def first_anew(self) -> float | None:
        """Return when the first planned action came whose image is older than one before, or leaps ahead."""
        notes = (*self.before, *self.applied)
        planned = [note for note in notes if not note.safe and note.evidence]
        return next((b.time for a, b in pairwise(planned) if not 0 <= b.evidence - a.evidence < LEAP), None)

    def planned(self, after: float) -> int:
        """Return the number of planned actions that came after a moment."""
        return sum(not note.safe and note.time >= after for note in self.applied)

    def longest_silence(self, end: float) -> float:
        """Return the longest time without a command, in s, up to a moment in steady seconds."""
        times = [*(note.time for note in self.sent), end]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def outside(self, contract: Contract) -> int:
        """
        Return the number of commands outside the contract's limits, of value or of change.

        Two commands in a row may differ by ``max_change`` times one control period, however long the time
        between them. That commands nearer to each other may differ by less is left to the gate's own tests:
        from here, their times are not known that well.
        """
        action = contract.action
        change = action.max_change * contract.period + ROUNDING
        count = 0
        before: NDArray[np.float64] | None = None
        for note in self.sent:
            wild = not (
                (action.low - ROUNDING <= note.values) & (note.values <= action.high + ROUNDING)
            ).all()
            jump = before is not None and not (np.abs(note.values - before) <= change).all()
            count += wild or jump
            before = note.values
        return count

    def oldest_evidence(self, offset: int) -> float:
        """
        Return the greatest age of the image behind a planned action when that came, in s; 0 without any.

        Args:
            offset: time of the images' stamps less steady time, in ns.
        """
        ages = [
            note.time - (note.evidence - offset) * 1e-9
            for note in self.applied
            if not note.safe and note.evidence
        ]
        return max(ages, default=0.0)
