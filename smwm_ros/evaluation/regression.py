"""Probes: how well simple regressions read something out of frozen latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from smwm_ros.models.layers import perceptron

PENALTIES = np.logspace(-6, 2, 9)
"""Of ridge regression, in units of the features' variance summed over the rows."""
HIDDEN, LAYERS = 256, 2
BATCH, EPOCHS, PATIENCE = 256, 60, 6
"""Of the MLP: early stopping waits for as many epochs without gain on the rows to choose by."""
LEARNING_RATE = 1e-3
SMALLEST_STD = 1e-12
"""A feature that varies by less counts as constant."""

Regression = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Features (N, F) to predicted targets (N, Y)."""


@dataclass(frozen=True)
class Table:
    """What to predict from what, row by row."""

    features: NDArray[np.float32]
    """Shape (N, F)."""
    targets: NDArray[np.float64]
    """Shape (N, Y)."""


def fit_linear(fit: Table, choose: Table) -> Regression:
    """
    Fit a ridge regression in closed form, on standardised features.

    Args:
        fit: rows to fit.
        choose: rows on which the penalty of each target is chosen.
    """
    scale = _Scale.of(fit.features)
    mean = fit.targets.mean(0)
    features = scale(fit.features)
    values, vectors = np.linalg.eigh(features.T @ features)
    projected = vectors.T @ (features.T @ (fit.targets - mean))
    penalties = PENALTIES[:, None] * len(features)
    # One solution per penalty: shape (penalties, features, targets).
    weights = vectors @ (projected / (np.maximum(values, 0) + penalties)[..., None])
    errors = ((scale(choose.features) @ weights + mean - choose.targets) ** 2).mean(1)
    best = np.take_along_axis(weights, errors.argmin(0)[None, None, :], axis=0)[0]
    return lambda given: scale(given) @ best + mean


def fit_mlp(fit: Table, choose: Table, seed: int) -> Regression:
    """
    Fit an MLP (two hidden layers of 256) on standardised features and targets.

    Args:
        fit: rows to fit.
        choose: rows that tell when to stop; the best weights on them are kept.
        seed: draws the first weights and the order of the rows.
    """
    scale, unit = _Scale.of(fit.features), _Scale.of(fit.targets)
    inputs, wanted = _tensor(scale(fit.features)), _tensor(unit(fit.targets))
    checked, right = _tensor(scale(choose.features)), _tensor(unit(choose.targets))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], HIDDEN, LAYERS, wanted.shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    lowest, best, waited = np.inf, copy.deepcopy(network.state_dict()), 0
    for _ in range(EPOCHS):
        network.train()
        order = torch.randperm(len(inputs), generator=generator)
        for rows in torch.split(order, BATCH):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(inputs[rows]), wanted[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            error = float(nn.functional.mse_loss(network(checked), right))
        waited += 1
        if error < lowest:
            lowest, best, waited = error, copy.deepcopy(network.state_dict()), 0
        if waited > PATIENCE:
            break
    network.load_state_dict(best)

    @torch.inference_mode()
    def predict(given: NDArray[np.float32]) -> NDArray[np.float64]:
        return unit.back(network(_tensor(scale(given))).double().numpy())

    return predict


def r_squared(predicted: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """
    Return the share of the targets' variance, summed over their columns, that is explained.

    1: all; 0: as good as their mean; below: worse; NaN: the targets do not vary.
    """
    total = targets.var(0).sum()
    if total <= SMALLEST_STD:
        return float("nan")
    return float(1 - ((targets - predicted) ** 2).mean(0).sum() / total)


@dataclass(frozen=True)
class _Scale:
    """Columns to zero mean and unit variance, and back."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> _Scale:
        std = values.std(0, dtype=np.float64)
        return cls(values.mean(0, dtype=np.float64), np.where(std > SMALLEST_STD, std, 1.0))

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = (values - self.mean) / self.std
        return scaled

    def back(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values * self.std + self.mean


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
