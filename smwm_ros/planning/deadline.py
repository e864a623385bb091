"""Planning against the clock: when to stop refining, and how many samples there is time for."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """
    Tells a search whether another round would end in time, judged by its longest round so far.

    Steady time, in seconds.
    """

    def __init__(
        self, budget: float = 0.0, clock: Callable[[], float] = time.perf_counter, expected: float = 0.0
    ) -> None:
        """
        Begin now.

        Args:
            budget: time for the whole search; 0 for no limit.
            clock: the time.
            expected: how long a round takes, as far as one knows.
        """
        self._clock = clock
        self._budget = budget
        self._longest = expected
        self._round: float | None = None
        self._began = clock()

    def another(self) -> bool:
        """Begin a round, if it would end in time."""
        now = self._clock()
        if self._round is not None:
            self._longest = max(self._longest, now - self._round)
        self._round = now
        return not self._budget or now + self._longest <= self._began + self._budget

    @property
    def elapsed(self) -> float:
        """Time since the beginning."""
        return self._clock() - self._began

    @property
    def slack(self) -> float:
        """Time that is left; negative when the deadline was missed, infinite when there is none."""
        return self._budget - self.elapsed if self._budget else float("inf")


class Pace:
    """
    How many samples a round may have, learned from how long the searches took.

    It follows a slower machine at once and a faster one slowly: a deadline missed is worse than one kept
    with samples to spare.
    """

    SHARE = 0.7
    """Of the budget; the rest is for what a search does besides, and for the machine's moods."""

    def __init__(self, budget: float, rounds: int, fewest: int, most: int) -> None:
        """
        Know nothing yet: the first search has the fewest samples.

        Args:
            budget: time for a search, s; 0 for no limit, and always the most samples.
            rounds: of a search.
            fewest: samples in a round.
            most: samples in a round.
        """
        self._budget = budget
        self._rounds = rounds
        self._fewest, self._most = fewest, most
        self._per_sample: float | None = None

    def samples(self, problems: int = 1) -> int:
        """Return how many samples each round of the next search may have for each of so many problems."""
        if not self._budget:
            return self._most
        if self._per_sample is None:
            return self._fewest
        affordable = self.SHARE * self._budget / (self._rounds * problems * self._per_sample)
        return min(max(int(affordable), self._fewest), self._most)

    def expected(self, problems: int = 1) -> float:
        """Return the seconds that a round of so many samples takes, as far as is known."""
        return problems * self.samples(problems) * (self._per_sample or 0.0)

    def learn(self, seconds: float, rounds: int, samples: int) -> None:
        """Take in that some rounds of so many samples, of all problems together, took so long."""
        if not rounds:
            # Not even one round was begun. Believed for ever, one slow search would have been the last.
            self._per_sample = self._per_sample / 2 if self._per_sample else None
            return
        seen = seconds / (rounds * samples)
        if self._per_sample is None or seen > self._per_sample:
            self._per_sample = seen
        else:
            self._per_sample += 0.1 * (seen - self._per_sample)
