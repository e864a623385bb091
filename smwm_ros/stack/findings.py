"""What a check found, what was expected, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How bad it is."""

    ok = "ok"
    warning = "warning"
    fault = "fault"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    level: Level
    found: str
    expected: str = ""
    """Empty where all is well."""
    mend: str = ""
    """What to do."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.level != Level.fault


def fine(found: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(Level.ok, found)


def fault(found: str, expected: str, mend: str) -> Finding:
    """Return the finding that something must be mended."""
    return Finding(Level.fault, found, expected, mend)
