"""Comparing two sets of numbers: ROC and a paired test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def auc(positives: Values, negatives: Values) -> float:
    """Return the chance that a positive exceeds a negative, ties counting half: the area under the ROC."""
    order = np.sort(negatives)
    below = np.searchsorted(order, positives, side="left")
    not_above = np.searchsorted(order, positives, side="right")
    return float((below + not_above).mean() / (2 * len(negatives)))


def roc(positives: Values, negatives: Values) -> tuple[Values, Values]:
    """Return the shares of negatives and of positives that reach each threshold, from the highest on."""
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]
    shares = [
        np.concatenate([[0.0], (values[None] >= thresholds[:, None]).mean(1)])
        for values in (negatives, positives)
    ]
    return shares[0], shares[1]


def bootstrap_auc(positives: Values, negatives: Values, seed: int, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of the area, for pairs (positives[i], negatives[i]) drawn with replacement."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(positives), (draws, len(positives)))
    low, high = np.quantile([auc(positives[row], negatives[row]) for row in rows], [0.025, 0.975])
    return float(low), float(high)


def signed_rank(differences: Values) -> float:
    """
    Return the p-value of Wilcoxon's signed-rank test that pairs differ by more than 0.

    One-sided and exact, also with ties: the distribution of the sum of the positive ranks over all
    signs is counted out. Pairs without a difference are left out, as Wilcoxon did.

    Args:
        differences: one per pair, shape (N,).
    """
    given = differences[differences != 0]
    if not len(given):
        return 1.0
    sizes = np.sort(np.abs(given))
    first = np.searchsorted(sizes, np.abs(given), side="left")
    last = np.searchsorted(sizes, np.abs(given), side="right")
    doubled = first + last + 1  # twice the mean rank of equal sizes: whole numbers
    chances = np.zeros(doubled.sum() + 1)
    chances[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[:-rank]
        chances = (chances + shifted) / 2
    return float(min(1.0, chances[doubled[given > 0].sum() :].sum()))
