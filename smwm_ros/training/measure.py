"""What held-out windows say of a model: losses, the latent's health, units; and the data's statistics."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from smwm_ros.errors import DataError
from smwm_ros.models.checkpoint import Calibration
from smwm_ros.models.statistics import effective_rank, latent_scale, median_rms
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.dataset import Windows
from smwm_ros.training.learner import Learner

VALIDATION_WINDOWS = 2048
"""Held-out windows (at most) that the figures and the calibration are measured on."""
PART = 128
"""Windows that are worked on at a time, so that large images fit into memory."""


@torch.inference_mode()
def validate(learner: Learner, windows: Windows, shift: int = 0) -> dict[str, float]:
    """
    Measure the terms and the latent's health on held-out windows.

    Args:
        learner: the world model and its terms; put into evaluation mode.
        windows: held-out windows.
        shift: rows by which actions are (wrongly) taken late; for the alignment test.

    Returns:
        ``val_<term>`` for each term, ``effective_rank`` and ``latent_scale``. The trainer adds
        ``val_inverse_shifted``, the inverse loss with the actions one model step late: unless it
        is clearly worse, images and actions do not belong together.
    """
    learner.eval()
    model = learner.model
    device = model.action_mean.device
    sums = dict.fromkeys(learner.names, 0.0)
    latents = []
    which = _sample(windows)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # for terms that draw: the figures of two steps shall be comparable
        for part in _parts(which):
            frames, actions = (values.to(device) for values in windows.take(part, shift))
            _, terms = learner(frames, actions)
            for name, value in terms.items():
                sums[name] += float(value) * len(part)
            latents.append(model.encode(frames[:, 0]).float().cpu())
    every = torch.cat(latents)
    return {f"val_{name}": total / len(which) for name, total in sums.items()} | {
        "effective_rank": effective_rank(every),
        "latent_scale": latent_scale(every),
    }


@torch.inference_mode()
def calibrate(model: WorldModel, windows: Windows) -> Calibration:
    """Measure how far a latent moves in a model step, and how far predictions miss."""
    model.eval()
    device = model.action_mean.device
    steps, misses = [], []
    for part in _parts(_sample(windows)):
        frames, actions = (values.to(device) for values in windows.take(part))
        before, after = model.encode(frames[:, 0]), model.encode(frames[:, 1])
        predicted = model.dynamics(before, model.standardise(actions[:, 0]))
        steps.append(after - before)
        misses.append(predicted - after)
    tiny = 1e-12  # a collapsed latent moves by nothing, and still needs a unit
    return Calibration(
        step_distance=max(median_rms(torch.cat(steps)), tiny),
        step_error=max(median_rms(torch.cat(misses)), tiny),
    )


def fit_statistics(model: WorldModel, windows: Windows) -> None:
    """
    Set the buffers that standardise actions and centre images, from the training windows.

    Raises:
        DataError: a dimension of the actions does not vary.
    """
    ticks = windows.starts[:, None] + np.arange(windows.window * windows.block)
    actions = torch.from_numpy(windows.actions[ticks]).flatten(0, 1)
    std = actions.std(0)
    if (std < 1e-6).any():
        raise DataError(
            f"the recorded actions do not vary (standard deviation {std.tolist()} per dimension): "
            "there is nothing to learn from; record bags in which every dimension moves"
        )
    model.action_mean.copy_(actions.mean(0))
    model.action_std.copy_(std)
    if model.centres_images:
        images = windows.pixels[windows.starts[_sample(windows)]].astype(np.float32)
        mean = images.mean(0)
        model.pixel_mean.copy_(torch.from_numpy(mean))
        model.pixel_std.fill_(max(1.0, float((images - mean).std())))


def _sample(windows: Windows) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(len(windows))[:VALIDATION_WINDOWS]


def _parts(which: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(which, -(-len(which) // PART))
