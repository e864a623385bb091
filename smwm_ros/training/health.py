"""Whether a training run is worth going on with."""

from __future__ import annotations

import math
from collections.abc import Mapping

from smwm_ros.errors import TrainingError

EXPLODED = 1e3
"""Factor over the lowest loss so far that counts as an explosion."""
LOWEST_RANK = 1.5
"""Effective rank below which a latent holds nothing: an image without anything to control has 1."""
LOWEST_SCALE = 1e-3
HIGHEST_SCALE = 1e3


def check_step(step: int, loss: float, gradient: float, learning_rate: float) -> None:
    """
    Refuse a step that would spoil the weights.

    Raises:
        TrainingError: loss or gradient are not finite.
    """
    for what, value in (("loss", loss), ("gradient's norm", gradient)):
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: the {what} is {value}; lower training.learning_rate "
                f"(now {learning_rate:g}) or training.clip. The last saved state is kept as it was."
            )


def check_row(row: Mapping[str, float], lowest: float, collapse: bool) -> None:
    """
    Judge a row of the log.

    Args:
        row: the newest.
        lowest: the lowest loss of the rows before it; infinite when there are none.
        collapse: whether a collapsed latent is a reason to stop.

    Raises:
        TrainingError: the loss exploded, or the latent did or collapsed.
    """
    step, rank, scale = int(row["step"]), row["effective_rank"], row["latent_scale"]
    advice = "The last saved state is kept as it was."
    if row["loss"] > EXPLODED * lowest:
        raise TrainingError(
            f"step {step}: the loss is {row['loss']:.3g}, after {lowest:.3g} before; lower "
            f"training.learning_rate. {advice}"
        )
    if not scale <= HIGHEST_SCALE or not math.isfinite(rank):
        raise TrainingError(
            f"step {step}: the latent's scale is {scale:.3g}: it explodes; lower training.learning_rate "
            f"or put a BatchNorm on it (encoder.latent_norm). {advice}"
        )
    if collapse and (rank < LOWEST_RANK or scale < LOWEST_SCALE):
        raise TrainingError(
            f"step {step}: the latent has collapsed (effective rank {rank:.2f}, scale {scale:.2g}; a healthy "
            f"one is above {LOWEST_RANK} and {LOWEST_SCALE:g}). Raise the inverse or sigreg weight, or set "
            f"training.stop_at_collapse=false to see where it goes. {advice}"
        )
