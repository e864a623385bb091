"""Episode stores for tests, whose rows say their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from recordings import robot

from smwm_ros.data.store.writer import EpisodeWriter

CONTRACT = robot()
FACTS = ((1, "push"), (2, "push"), (0, ""), (1, "pull"))
"""Outcome and label of the episodes, in turn."""


def episode(length: int, first: int = 0) -> dict[str, np.ndarray]:
    """Return rows numbered from ``first``."""
    numbers = np.arange(first, first + length)
    action = np.stack([numbers, -numbers], axis=1).astype(np.float32)
    action[-1] = np.nan
    pixels = np.empty((length, 12, 12, 3), np.uint8)
    pixels[:] = (numbers[:, None] // [1, 256, 1 << 16] % 256)[:, None, None]
    pixels[:, 0, 0] = 255  # none of them is black
    return {
        "pixels": pixels,
        "action": action,
        "stamp": numbers.astype(np.int64) * 50_000_000 + 10**18,
        "joints": np.stack([numbers, numbers], axis=1).astype(np.float32),
    }


def write_store(path: Path, lengths: Sequence[int], first: int = 0) -> Path:
    """Write a store of episodes, numbered from ``first`` in thousands."""
    with EpisodeWriter(path, CONTRACT, {"made": "for tests"}) as writer:
        for number, length in enumerate(lengths):
            outcome, label = FACTS[number % len(FACTS)]
            writer.append(
                episode(length, first + 1000 * number), outcome=outcome, label=label, origin=path.name
            )
    return path
