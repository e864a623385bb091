"""Episodes with the truth behind their pictures, for judging what latents hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.images import model_input
from smwm_ros.data.store.choose import hold_out
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.tasks.base import RobotTask, StateKind
from smwm_ros.tasks.exploration import collect

FRESH = 1_000_000_007
"""Added to the seed of fresh episodes: no training data shall be drawn with the same."""
PART = 128
"""Observations encoded at a time."""
WIDEST = 1024
"""Numbers of a latent to probe; wider ones (of patches) are projected at random, which keeps distances."""
CONSTANT = 1e-6
"""A variable whose standard deviation is less (m, rad, m/s, rad/s) has nothing to predict."""

Progress = Callable[[int], None]
Views = Callable[[int], Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]
"""Gives for an episode, by its number, what the camera makes of each of its pictures in turn."""


@dataclass(frozen=True)
class Variable:
    """One variable of the state, as a probe predicts it."""

    name: str
    kind: StateKind
    columns: tuple[int, ...]
    """Of the targets: two, sine and cosine, for an angle; one otherwise."""


@dataclass(frozen=True)
class Episodes:
    """E episodes, one after another: N rows in all."""

    pixels: NDArray[np.uint8]
    """What the encoder sees, RGB, shape (N, S, S, 3)."""
    actions: NDArray[np.float32]
    """Contract units, shape (N, A); the last row of an episode may be NaN."""
    states: NDArray[np.float64]
    """Shape (N, V), V of them variables of the state."""
    names: tuple[str, ...]
    """Of the variables."""
    kinds: tuple[StateKind, ...]
    lengths: NDArray[np.int64]
    """Rows of each episode, shape (E,)."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First row of each episode, shape (E,)."""
        return np.cumsum(self.lengths) - self.lengths

    def rows(self, episodes: NDArray[np.int64], span: int = 0) -> NDArray[np.int64]:
        """Return the rows of some episodes that have ``span`` further rows after them."""
        parts = [self.offsets[e] + np.arange(max(0, self.lengths[e] - span)) for e in episodes]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def observations(self, rows: NDArray[np.int64], frames: int) -> NDArray[np.uint8]:
        """Return the newest n pictures at some rows, oldest first, shape (B, n, S, S, 3)."""
        episodes = np.searchsorted(self.offsets, rows, side="right") - 1
        history = rows[:, None] + np.arange(1 - frames, 1)
        # An episode begins as if its first picture had been there before.
        return self.pixels[np.maximum(history, self.offsets[episodes][:, None])]

    def part(self, which: NDArray[np.int64], views: Views | None = None) -> Episodes:
        """
        Return some of the episodes.

        Args:
            which: their numbers.
            views: what the camera makes of their pictures.
        """
        rows = self.rows(which)
        pixels = self.pixels[rows]
        if views is not None:
            view = np.repeat([views(int(number)) for number in which], self.lengths[which])
            pixels = np.stack([see(picture) for see, picture in zip(view, pixels, strict=True)])
        return replace(
            self,
            pixels=pixels,
            actions=self.actions[rows],
            states=self.states[rows],
            lengths=self.lengths[which],
        )

    def targets(self) -> tuple[NDArray[np.float64], tuple[Variable, ...]]:
        """
        Return what probes predict: angles as sine and cosine, variables that do not vary left out.

        Returns:
            Shape (N, Y), and which variables they are.

        Raises:
            DataError: nothing varies.
        """
        columns: list[NDArray[np.float64]] = []
        variables = []
        for name, kind, values in zip(self.names, self.kinds, self.states.T, strict=True):
            if values.std() < CONSTANT:
                continue
            new = [np.sin(values), np.cos(values)] if kind == "angle" else [values]
            variables.append(Variable(name, kind, tuple(range(len(columns), len(columns) + len(new)))))
            columns += new
        if not variables:
            raise DataError(
                f"none of the variables {', '.join(self.names)} varies: there is nothing to probe"
            )
        return np.stack(columns, axis=1), tuple(variables)


def explore_episodes(
    task: RobotTask, count: int, ticks: int, seed: int, progress: Progress = lambda done: None
) -> Episodes:
    """
    Draw fresh episodes of the exploration policy, in-process, with seeds that no training data has.

    Args:
        task: the robot.
        count: E.
        ticks: pictures in each.
        seed: of them all.
        progress: called with the episodes done.
    """
    stream = task.contract.observation.image
    pixels = np.empty((count * ticks, stream.size, stream.size, 3), np.uint8)
    actions, states = [], []
    for number, episode in enumerate(collect(task, range(count), ticks, FRESH + seed)):
        for tick, image in enumerate(episode["pixels"]):
            pixels[number * ticks + tick] = model_input(image, stream)
        actions.append(episode["action"])
        states.append(episode["state"])
        progress(number + 1)
    return Episodes(
        pixels,
        np.concatenate(actions),
        np.concatenate(states),
        task.state_names,
        task.state_kinds,
        np.full(count, ticks),
    )


def read_episodes(
    store: EpisodeStore, checkpoint: Checkpoint, task: RobotTask | None, count: int, ticks: int, seed: int
) -> Episodes:
    """
    Read episodes that the model has not seen from a store.

    Args:
        store: of the checkpoint's robot; of the one that it was trained on, the episodes are taken that
            the training held out.
        checkpoint: the model.
        task: says what the state's numbers are; without, all are taken as positions.
        count: E, at most; drawn from those that there are.
        ticks: pictures of each, at most; from anywhere in it.
        seed: draws both.

    Raises:
        DataError: the store holds neither states nor joints, or they are not finite.
        CheckpointError: the store is of another robot.
    """
    checkpoint.require(store.contract)
    numbers: NDArray[np.int64] = np.arange(store.episodes)
    if store.fingerprint == checkpoint.info.data_fingerprint:
        training = checkpoint.info.config.training
        numbers = hold_out(store.episodes, training.validation, checkpoint.info.seed)
    generator = np.random.default_rng([seed, 2])
    numbers = np.sort(generator.permutation(numbers)[:count])
    column, names, kinds = _truth(store, task)
    lengths = np.minimum(store.lengths[numbers], ticks)
    firsts = store.offsets[numbers] + generator.integers(0, store.lengths[numbers] - lengths + 1)
    rows = np.concatenate([first + np.arange(length) for first, length in zip(firsts, lengths, strict=True)])
    states = store.rows(column)[rows].astype(np.float64)
    if not np.isfinite(states).all():
        raise DataError(f"{store.path}: the column {column!r} holds numbers that are not finite")
    return Episodes(store.rows("pixels")[rows], store.rows("action")[rows], states, names, kinds, lengths)


@torch.inference_mode()
def encode_episodes(checkpoint: Checkpoint, episodes: Episodes) -> NDArray[np.float32]:
    """Encode every row, to latents of shape (N, D); D is ``WIDEST`` at most."""
    latents = []
    wide = checkpoint.latent_size
    if wide > WIDEST:
        projection = np.random.default_rng(0).standard_normal((wide, WIDEST), np.float32) / WIDEST**0.5
    for rows in np.array_split(np.arange(len(episodes.pixels)), -(-len(episodes.pixels) // PART)):
        frames = torch.from_numpy(episodes.observations(rows, checkpoint.frames)).to(checkpoint.device)
        encoded: NDArray[np.float32] = checkpoint.model.encode(frames).float().cpu().numpy()
        latents.append(encoded @ projection if wide > WIDEST else encoded)
    return np.concatenate(latents)


def _truth(store: EpisodeStore, task: RobotTask | None) -> tuple[str, tuple[str, ...], tuple[StateKind, ...]]:
    """Return the column that holds the truth, and what its numbers are."""
    contract: Contract = store.contract
    known = dict(zip(task.state_names, task.state_kinds, strict=True)) if task is not None else {}
    if "state" in store.columns and task is not None:
        width = store.column("state").shape[1]
        if width != len(known):
            raise DataError(
                f"{store.path}: its states have {width} numbers, those of '{contract.task}' have "
                f"{len(known)} ({', '.join(known)}); collect them again with this version"
            )
        return "state", tuple(known), tuple(known.values())
    if "joints" in store.columns and contract.observation.joints:
        names = contract.observation.joints.names
        return "joints", names, tuple(known.get(name, "position") for name in names)
    raise DataError(
        f"{store.path}: holds neither states of a simulated robot nor joint states, so there is nothing to "
        "probe for; name the joints in the contract before ingesting, or leave --store out"
    )
