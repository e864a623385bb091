"""What the robot's surroundings are held to be: the newest latent, and how well it was foreseen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
