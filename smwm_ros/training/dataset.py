"""Training windows: observations one model step apart, and the action blocks between them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smwm_ros.data.store.choose import hold_out
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.rows import Rows
from smwm_ros.errors import DataError
from smwm_ros.models.config import ModelConfig

Batch = tuple[UInt8[Tensor, "batch moments frames height width 3"], Float[Tensor, "batch time block action"]]
AHEAD = 4
"""Batches that each worker keeps ready."""


@dataclass(frozen=True)
class Windows:
    """
    Windows of ``window`` model steps out of pixels and actions, gathered when asked for.

    A window that starts at row r covers the observations at rows r, r+k, …, each the n images
    that end there, and the k actions from each to the next.
    """

    pixels: Rows
    """Shape (N, S, S, 3), uint8."""
    actions: Rows
    """Shape (N, A), float32, contract units."""
    starts: NDArray[np.int64]
    """Rows at which a window starts, shape (W,)."""
    frames: int
    block: int
    window: int

    def __len__(self) -> int:
        """Return W, the number of windows."""
        return len(self.starts)

    def take(self, which: NDArray[np.int64], shift: int = 0) -> Batch:
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


class Feed:
    """
    The batches of a training run, one after another: the same ones however many workers gather them.

    Attributes:
        waited: seconds that the trainer spent waiting for batches so far.
    """

    def __init__(self, windows: Windows, batch: int, seed: int, steps: range, workers: int = 0) -> None:
        """
        Args:
            windows: to draw from.
            batch: windows in a batch.
            seed: draws their order.
            steps: of the run, from the one to resume at.
            workers: processes that gather ahead; with none it is done when a batch is asked for.
        """
        self.waited = 0.0
        self._windows = windows
        self._order = islice(windows.batches(batch, seed, steps.start), len(steps))
        self._workers = workers

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        batches = self._by_workers() if self._workers else map(self._windows.take, self._order)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def _by_workers(self) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Gathered(self._windows),
            batch_size=None,
            sampler=self._order,
            num_workers=self._workers,
            prefetch_factor=AHEAD,
            # Torch's own generator draws the weights and must not depend on the workers.
            generator=torch.Generator(),
        )
        return iter(loader)


class _Gathered(Dataset[Batch]):
    """Batches by their windows' numbers, as torch's loader asks for them."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __getitem__(self, which: NDArray[np.int64]) -> Batch:
        return self._windows.take(which)


def load_windows(store: EpisodeStore, config: ModelConfig, seed: int) -> tuple[Windows, Windows]:
    """
    Split a store's windows by episode; what they hold is read when it is asked for.

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
    held_out = hold_out(store.episodes, config.training.validation, seed)
    episode_of_row = np.repeat(np.arange(len(store.lengths)), store.lengths)
    # The first n-1 rows of a window only give history.
    starts = store.window_starts(span) + config.frames - 1
    validation = np.isin(episode_of_row[starts], held_out)
    pixels, actions = store.rows("pixels"), store.rows("action")
    parts = [
        Windows(pixels, actions, part, config.frames, block, config.window)
        for part in (starts[~validation], starts[validation])
    ]
    if not all(map(len, parts)):
        raise DataError(
            f"{store.path}: {len(store.lengths)} episodes give {len(parts[0])} training and "
            f"{len(parts[1])} validation windows of {span + 1} images; both are needed. "
            "Record more, or longer, episodes, or change training.validation "
            f"(now {config.training.validation:g}) or window (now {config.window})."
        )
    return parts[0], parts[1]
