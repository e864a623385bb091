"""The statistics that a LeRobotDataset carries, of each episode and of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Statistics = dict[str, NDArray[np.float64]]


def of_rows(rows: NDArray[np.generic]) -> Statistics:
    """Measure numbers, shape (T, D) or (T,): each figure (D,) or (1,), ``count`` (1,)."""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **{name: np.quantile(values, share, axis=0) for name, share in QUANTILES.items()},
    }


def count_brightness(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each channel of (T, H, W, 3) has each value, shape (3, 256)."""
    return np.stack([np.bincount(images[..., channel].reshape(-1), minlength=256) for channel in range(3)])


def of_images(counts: NDArray[np.int64], images: int) -> Statistics:
    """
    Measure images whose brightness was counted: on the scale of 0 to 1, each figure (3, 1, 1).

    Args:
        counts: of each value in each channel, shape (3, 256).
        images: how many there were.
    """
    value = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ value / total
    spread = np.sqrt(np.maximum(counts @ value**2 / total - mean**2, 0))
    below = counts.cumsum(axis=1) / total[:, None]
    figures = {
        "min": value[(counts > 0).argmax(axis=1)],
        "max": value[255 - (counts[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": spread,
        **{name: value[(below >= share).argmax(axis=1)] for name, share in QUANTILES.items()},
    }
    return {name: figure.reshape(3, 1, 1) for name, figure in figures.items()} | {"count": np.array([images])}


def of_all(parts: Sequence[Statistics]) -> Statistics:
    """Put the statistics of parts together, as LeRobot does: quantiles are means of the parts' ones."""
    count = np.concatenate([part["count"] for part in parts])
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0] if name != "count"}
    weight = (count / count.sum()).reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    mean = (weight * stacked["mean"]).sum(axis=0)
    variance = (weight * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)
    return {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([count.sum()]),
        **{name: (weight * stacked[name]).sum(axis=0) for name in QUANTILES},
    }
