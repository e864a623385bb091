"""The positive control of the probes: the same encoder, trained to tell the state."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.episodes import PART, Episodes
from smwm_ros.evaluation.probing import Split
from smwm_ros.evaluation.regression import r_squared
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.pretrained import PretrainedEncoder
from smwm_ros.models.world_model import WorldModel

BATCH, LEARNING_RATE, WEIGHT_DECAY = 128, 1e-3, 1e-3
LOOKS = 10
"""Times that the control is judged on the episodes to choose by; the best of them is kept."""


def train_supervised(
    checkpoint: Checkpoint,
    episodes: Episodes,
    split: Split,
    *,
    steps: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """
    Train the checkpoint's encoder from nothing, with a linear map on it, to predict the state.

    What it cannot tell, no probe can be asked to find in a latent of its size.

    Args:
        checkpoint: gives the encoder's architecture, and how images are centred.
        episodes: with states.
        split: which of them to fit, to choose the best moment and to test on.
        steps: gradient steps.
        seed: draws weights and order.
        progress: called with the steps done.

    Returns:
        R² on the episodes to test on, by variable: positions and angles.

    Raises:
        ConfigError: the encoder is a frozen backbone, or nothing but velocities varies.
    """
    targets, variables = episodes.targets()
    shown = [variable for variable in variables if variable.kind != "velocity"]
    if isinstance(checkpoint.model.encoder, PretrainedEncoder):
        raise ConfigError(f"{checkpoint.id} has a frozen backbone: there is no supervised control of it")
    if not shown:
        raise ConfigError("nothing but velocities varies: there is nothing to train a supervised control on")
    fit, choose, test = map(episodes.rows, (split.fit, split.choose, split.test))
    mean, std = targets[fit].mean(0), targets[fit].std(0).clip(1e-9)
    wanted = torch.from_numpy(((targets - mean) / std).astype(np.float32))
    columns = [column for variable in shown for column in variable.columns]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = WorldModel(checkpoint.info.config, checkpoint.contract)
        head = nn.Linear(model.latent_size, targets.shape[1])
    model.pixel_mean.copy_(checkpoint.model.pixel_mean)
    model.pixel_std.copy_(checkpoint.model.pixel_std)
    network = nn.ModuleList([model, head]).to(checkpoint.device)
    optimiser = torch.optim.AdamW(
        [*model.encoder.parameters(), *head.parameters()], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def predict(rows: NDArray[np.int64]) -> torch.Tensor:
        frames = torch.from_numpy(episodes.observations(rows, checkpoint.frames))
        predicted: torch.Tensor = head(model.encode(frames.to(checkpoint.device)))
        return predicted[:, columns]

    @torch.inference_mode()
    def foretell(rows: NDArray[np.int64]) -> torch.Tensor:
        network.eval()
        return torch.cat([predict(part).cpu() for part in np.array_split(rows, -(-len(rows) // PART))])

    generator = np.random.default_rng([seed, 3])
    lowest, best = np.inf, copy.deepcopy(network.state_dict())
    for step in range(steps):
        network.train()
        rows = generator.choice(fit, BATCH)
        loss = nn.functional.mse_loss(predict(rows), wanted[rows][:, columns].to(checkpoint.device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        done = step + 1
        if done % max(1, steps // LOOKS) == 0 or done == steps:
            error = float(nn.functional.mse_loss(foretell(choose), wanted[choose][:, columns]))
            if error < lowest:
                lowest, best = error, copy.deepcopy(network.state_dict())
        progress(done)
    network.load_state_dict(best)
    predicted: NDArray[np.float64] = np.empty((len(test), targets.shape[1]))
    predicted[:, columns] = foretell(test).double().numpy() * std[columns] + mean[columns]
    return {
        variable.name: r_squared(predicted[:, variable.columns], targets[test][:, variable.columns])
        for variable in shown
    }
