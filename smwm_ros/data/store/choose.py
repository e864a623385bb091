"""Which episodes of a store go where. An episode is never divided."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.store.layout import OUTCOMES
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError


def choose_share(store: EpisodeStore, share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """
    Draw a share of the episodes, at least one.

    Returns:
        Their numbers, rising.

    Raises:
        ConfigError: not a share.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"the share of the episodes is {share:g}; expected more than 0 and at most 1")
    count = max(1, round(share * store.episodes))
    return np.sort(generator.permutation(store.episodes)[:count])


def hold_out(episodes: int, share: float, seed: int) -> NDArray[np.int64]:
    """
    Draw the episodes that a training run learns nothing from, at least one.

    Args:
        episodes: how many there are.
        share: of them to hold out.
        seed: the run's.

    Returns:
        Their numbers, in no order.
    """
    return np.random.default_rng(seed).permutation(episodes)[: max(1, round(share * episodes))]


def choose_numbers(store: EpisodeStore, text: str) -> NDArray[np.int64]:
    """
    Read a list of episodes such as ``0,3,10-20``.

    Returns:
        Their numbers, in the order given.

    Raises:
        ConfigError: not such a list, or an episode that is not there or is named twice.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            numbers += range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise ConfigError(
                f"the list of episodes {text!r} has {part!r} in it; expected numbers and ranges such as "
                "0,3,10-20"
            ) from error
    found = np.array(numbers, np.int64)
    if len(absent := found[found >= store.episodes]):
        raise ConfigError(f"{store.path} has no episode {absent[0]}; there are {store.episodes}, from 0")
    if len(np.unique(found)) != len(found):
        raise ConfigError(f"the list of episodes {text!r} names some twice")
    return found


def choose_known(store: EpisodeStore, outcome: str | None, label: str | None) -> NDArray[np.int64]:
    """
    Find the episodes with an outcome, a label, or both.

    Returns:
        Their numbers, rising; none if there are none.

    Raises:
        ConfigError: no such outcome.
    """
    if outcome is not None and outcome not in OUTCOMES:
        raise ConfigError(f"the outcome {outcome!r} is unknown; there are {', '.join(OUTCOMES)}")
    fits = [
        (outcome is None or OUTCOMES[facts.outcome] == outcome) and (label is None or facts.label == label)
        for facts in store.facts
    ]
    return np.flatnonzero(fits)


def the_others(store: EpisodeStore, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of the episodes that were not chosen, rising."""
    return np.setdiff1d(np.arange(store.episodes), chosen)
