"""Training windows: observations one model step apart, and the action blocks between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError
from smwm_ros.models.config import ModelConfig


@dataclass(frozen=True)
class Windows:
    """
    Windows of ``window`` model steps out of pixels and actions that lie in memory.

    A window that starts at row r covers the observations at rows r, r+k, …, each the n images
    that end there, and the k actions from each to the next.
    """

    pixels: NDArray[np.uint8]
    """Shape (N, S, S, 3)."""
    actions: NDArray[np.float32]
    """Shape (N, A), contract units."""
    starts: NDArray[np.int64]
    """Rows at which a window starts, shape (W,)."""
    frames: int
    block: int
    window: int

    def __len__(self) -> int:
        """Return W, the number of windows."""
        return len(self.starts)

    def take(
        self, which: NDArray[np.int64], shift: int = 0
    ) -> tuple[
        UInt8[Tensor, "batch moments frames height width 3"], Float[Tensor, "batch time block action"]
    ]:
        """
        Gather windows.

        Args:
            which: indices into ``starts``, shape (B,).
            shift: rows by which the actions are (wrongly) taken late; for the alignment test.
        """
        rows = self.starts[which][:, None] + self.block * np.arange(self.window + 1)
        history = np.arange(1 - self.frames, 1)
        images = self.pixels[rows[..., None] + history]
        ticks = rows[:, :-1, None] + np.arange(self.block) + shift
        return torch.from_numpy(images), torch.from_numpy(self.actions[ticks])

    def batches(self, batch: int, seed: int, first: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield indices (B,) for ever, from batch ``first`` on; every epoch is a new permutation."""
        per_epoch = max(1, len(self) // batch)
        step = first
        while True:
            epoch, within = divmod(step, per_epoch)
            if within == 0 or step == first:
                order = np.random.default_rng([seed, epoch]).permutation(len(self))
            yield order[within * batch : (within + 1) * batch]
            step += 1


def load_windows(store: EpisodeStore, config: ModelConfig, seed: int) -> tuple[Windows, Windows]:
    """
    Read a store into memory and split its windows by episode.

    Args:
        store: the episodes.
        config: gives n, the window, and the share of episodes held out.
        seed: draws the held-out episodes.

    Returns:
        Training and validation windows.

    Raises:
        DataError: too few episodes, or episodes too short, for both to have a window.
    """
    block = store.contract.block
    # One block more than the window needs, so that the alignment test can shift the actions.
    span = (config.window + 1) * block + config.frames - 1
    order = np.random.default_rng(seed).permutation(len(store.lengths))
    held_out = max(1, round(config.training.validation * len(order)))
    episode_of_row = np.repeat(np.arange(len(store.lengths)), store.lengths)
    # The first n-1 rows of a window only give history.
    starts = store.window_starts(span) + config.frames - 1
    validation = np.isin(episode_of_row[starts], order[:held_out])
    pixels, actions = store.read("pixels"), store.read("action")
    parts = [
        Windows(pixels, actions, part, config.frames, block, config.window)
        for part in (starts[~validation], starts[validation])
    ]
    if not all(map(len, parts)):
        raise DataError(
            f"{store.path}: {len(store.lengths)} episodes give {len(parts[0])} training and "
            f"{len(parts[1])} validation windows of {span + 1} images; both are needed. "
            "Record more, or longer, episodes."
        )
    return parts[0], parts[1]
