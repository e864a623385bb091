"""Where latents are in space, for people who look on; nothing is decided by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.images import model_input
from smwm_ros.evaluation.regression import Regression, Table, fit_mlp
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.tasks import RobotTask

STATES = 1500
"""Random states whose pictures are learned from: a few seconds of one core."""
FITTED, CHOSEN = 0.7, 0.85
"""Shares of them up to which they are fitted, and chosen by; on the rest the error is measured."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Reads from latents where a task's landmarks are."""

    landmarks: tuple[str, ...]
    error: float
    """Median distance from where they are, on pictures not learned from, in metres."""
    read: Regression

    def __call__(self, latents: NDArray[np.float32]) -> NDArray[np.float64]:
        """
        Tell where the landmarks are.

        Args:
            latents: shape (N, D).

        Returns:
            Metres in the world's frame, shape (N, L, 3).
        """
        return self.read(latents).reshape(len(latents), len(self.landmarks), 3)


def learn_geometry(
    checkpoint: Checkpoint,
    task: RobotTask,
    states: int = STATES,
    going_on: Callable[[], bool] = lambda: True,
) -> Geometry | None:
    """
    Learn it from pictures of random states at rest.

    Args:
        checkpoint: of the world model whose latents are to be read.
        task: its simulated robot, which has landmarks.
        states: how many; always the same ones.
        going_on: asked before each whether to.

    Returns:
        What was learned; None if it was not to go on.

    Raises:
        SimulationError: the task cannot render here.
    """
    latents, places = [], []
    for number in range(states):
        if not going_on():
            return None
        observation, info = task.reset(seed=number)
        picture = model_input(observation["pixels"], task.contract.observation.image)
        latents.append(checkpoint.encode(np.repeat(picture[None], checkpoint.frames, axis=0)))
        places.append(task.places(info["state"]).ravel())
    features, targets = np.stack(latents), np.stack(places)
    fit, choose, test = (
        Table(features[rows], targets[rows])
        for rows in np.split(np.arange(states), [int(FITTED * states), int(CHOSEN * states)])
    )
    read = fit_mlp(fit, choose, seed=0)
    away = (read(test.features) - test.targets).reshape(-1, len(task.landmarks), 3)
    return Geometry(task.landmarks, float(np.median(np.linalg.norm(away, axis=-1))), read)
