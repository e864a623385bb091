"""Episodes of a blob that the action moves: what the models have to find is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.resources import find_contract

SIZE = 16


def blob_contract() -> Contract:
    """Return the reacher's contract with smaller images and blocks of two ticks."""
    whole = find_contract("reacher")
    image = whole.observation.image.model_copy(update={"width": SIZE, "height": SIZE, "size": SIZE})
    observation = whole.observation.model_copy(update={"image": image})
    return whole.model_copy(update={"observation": observation, "block": 2})


def write_blobs(path: Path, contract: Contract, episodes: int = 50) -> None:
    """Write a store of episodes of 40 images."""
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"), -1)
    with EpisodeWriter(path, contract) as writer:
        for _ in range(episodes):
            actions = np.full((40, 2), np.nan, np.float32)
            positions = np.full((40, 2), 8.0)
            for tick in range(39):
                positions[tick + 1] = np.clip(positions[tick] + generator.uniform(-2, 2, 2), 3, 13)
                actions[tick] = positions[tick + 1] - positions[tick]
            distance = np.square(grid - positions[:, None, None]).sum(-1)
            pixels = np.repeat((255 * np.exp(-distance / 4)).astype(np.uint8)[..., None], 3, -1)
            writer.append({"pixels": pixels, "action": actions})
