"""When a node that died is started again: soon at first, then ever later, and not for ever."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """
    Exponential backoff, for each node by itself.

    A node that cannot live does not spin, one that dies once a day is back within a second, and the end
    of one that dies again and again is told to whoever started the stack.
    """

    most: int = 10
    """Restarts in a row; the next death is final. 0: every death is."""
    first: float = 0.5
    """Seconds from the first death to the restart; each further one in a row doubles it."""
    longest: float = 30.0
    """Seconds that it does not grow beyond."""
    healthy: float = 60.0
    """Seconds of life that end a row."""

    def delay(self, restarts: int) -> float:
        """Return the seconds to wait, after so many restarts in a row."""
        return min(self.first * 2.0 ** min(restarts, 60), self.longest)


NEVER = RestartPolicy(most=0)
