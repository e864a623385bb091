"""Stages: what is trained on the frozen latents of a finished world model, in minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from smwm_ros.data.store.choose import hold_out
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import CheckpointError, DataError, TrainingError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.world_model import WorldModel
from smwm_ros.validation import Settings

ENCODE = 512
"""Observations that are encoded at a time."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""


class StageConfig(Settings):
    """How any stage is trained."""

    steps: Annotated[int, Field(ge=1)] = 4000
    batch: Annotated[int, Field(ge=2)] = 512
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the episodes held out."""


@dataclass(frozen=True)
class Recorded:
    """A store as a frozen encoder sees it: one latent and one standardised action for each row."""

    latents: Float[Tensor, "rows latent"]
    goals: Float[Tensor, "rows latent"]
    """The same images as goals, which are held: an encoder of several frames sees each one repeated."""
    actions: Float[Tensor, "rows action"]
    """In standard deviations of the training actions; the last row of an episode has none."""
    last: NDArray[np.int64]
    """The last row of each row's episode, shape (rows,)."""
    held_out: NDArray[np.bool_]
    """Whether a row is for validation, shape (rows,)."""
    block: int

    def starts(self, ticks: int, held_out: bool) -> NDArray[np.int64]:
        """
        Find the rows with at least so many ticks left in their episode.

        Raises:
            DataError: there are none.
        """
        left = self.last - np.arange(len(self.last))
        found = np.flatnonzero((left >= ticks) & (self.held_out == held_out))
        if not len(found):
            raise DataError(
                f"no {'held-out ' if held_out else ''}episode has {ticks} ticks; record more, or longer ones"
            )
        return found

    def blocks(self, rows: NDArray[np.int64], count: int = 1) -> Float[Tensor, "batch time block"]:
        """Return ``count`` action blocks from each row on."""
        ticks = torch.from_numpy(rows[:, None] + np.arange(count * self.block))
        return self.actions[ticks].reshape(len(rows), count, -1)


class Stage(Protocol):
    """Something to be trained: it draws its own batches."""

    module: nn.Module

    def loss(self, generator: np.random.Generator, batch: int, *, held_out: bool) -> dict[str, Tensor]:
        """Return named losses of a batch; their sum is minimised."""

    def finish(self, model: WorldModel, generator: np.random.Generator) -> dict[str, float]:
        """Complete the module when it is trained; return figures of it, besides its losses."""


@torch.no_grad()
def look(
    checkpoint: Checkpoint, store: EpisodeStore, share: float, seed: int, progress: Progress
) -> Recorded:
    """
    Encode every image of a store.

    Args:
        checkpoint: of the encoder.
        store: of the robot that the checkpoint is for.
        share: of the episodes, held out.
        seed: draws them, as training does.
        progress: see :data:`Progress`.

    Raises:
        CheckpointError: it is for another robot than the store's.
    """
    try:
        checkpoint.require(store.contract)
    except CheckpointError as error:
        raise CheckpointError(f"{store.path}: {error}") from error
    model, frames = checkpoint.model, checkpoint.frames
    episode = np.repeat(np.arange(store.episodes), store.lengths)
    first = store.offsets[episode]
    rows = np.arange(len(store))
    pixels = store.rows("pixels")
    latents, goals = [], []
    for part in np.array_split(rows, -(-len(rows) // ENCODE)):
        history = np.maximum(part[:, None] + np.arange(1 - frames, 1), first[part, None])
        images = torch.from_numpy(pixels[history]).to(checkpoint.device)
        latents.append(model.encode(images).float().cpu())
        if frames > 1:
            goals.append(model.encode(images[:, -1:].expand_as(images)).float().cpu())
        progress("encoding", int(part[-1]) + 1, len(rows))
    seen = torch.cat(latents)
    actions = torch.from_numpy(store.read("action").astype(np.float32))
    standard = (actions - model.action_mean.cpu()) / model.action_std.cpu()
    held_out = np.isin(episode, hold_out(store.episodes, share, seed))
    last = (store.offsets + store.lengths - 1)[episode]
    goal = torch.cat(goals) if goals else seen
    return Recorded(seen, goal, standard, last, held_out, store.contract.block)


def fit(stage: Stage, config: StageConfig, seed: int, device: str, progress: Progress) -> dict[str, float]:
    """
    Train a stage's module: AdamW, a cosine schedule, gradients clipped at 1.

    Returns:
        ``val_<loss>`` for each loss, the mean over held-out batches; nothing where nothing is learned.

    Raises:
        TrainingError: the loss is not finite.
    """
    module = stage.module.to(device).train()
    if not list(module.parameters()):
        return {}
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    generator = np.random.default_rng([seed, 5])
    for step in range(config.steps):
        losses = stage.loss(generator, config.batch, held_out=False)
        loss = torch.stack(list(losses.values())).sum()
        if step % 100 == 0 and not torch.isfinite(loss):
            raise TrainingError(f"the loss is {float(loss)} at step {step}; lower learning_rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress("training", step + 1, config.steps)
    module.eval()
    generator = np.random.default_rng(0)
    with torch.inference_mode():
        rounds = [stage.loss(generator, config.batch, held_out=True) for _ in range(16)]
    return {f"val_{name}": float(np.mean([float(each[name]) for each in rounds])) for name in rounds[0]}
