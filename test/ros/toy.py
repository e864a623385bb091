"""
A world small enough to be known exactly: the camera shows where the robot is, and the model is right.

Run as a program it is one of the nodes, with this model in place of a checkpoint:
``python toy.py perception --ros-args ...``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import CheckpointError, PlanningError
from smwm_ros.nodes.action_node import ActionNode
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.perception_node import PerceptionNode
from smwm_ros.nodes.process import run
from smwm_ros.nodes.world_model_node import WorldModelNode
from smwm_ros.planning.protocol import PlanResult, Problem

SPAN = 8.0
"""Positions lie within +-SPAN."""
EDGE = 7.9
"""For goals beyond it, on the right or above, nothing can be planned; on the left or below, not in time."""
SLOW = 0.12
"""Seconds that a plan takes then, more than two of the reacher's ticks."""
STEP = 0.25
"""Distance of one model step."""


def draw(position: NDArray[np.float64], size: int, *, nan: bool = False) -> NDArray[np.uint8]:
    """Draw a position, shape (2,), into the first pixels; with ``nan`` the encoder will choke on it."""
    image = np.zeros((size, size, 3), np.uint8)
    levels = np.rint((np.clip(position, -SPAN, SPAN) + SPAN) / (2 * SPAN) * 65535).astype(int)
    for channel, level in enumerate(levels):
        image[0, :2, channel] = divmod(int(level), 256)
    image[0, 0, 2] = 255 * nan
    return image


class ToyModel:
    """Has what the nodes use of a checkpoint. The latent is the position; actions are velocities."""

    id = "toy"
    latent_size = 2
    frames = 1

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def require(self, contract: Contract) -> None:
        if contract.differences(self.contract):
            raise CheckpointError("the toy model was made for another robot")

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = images[-1].astype(float)
        if pixels[0, 0, 2]:
            return np.full(2, np.nan, np.float32)
        levels = pixels[0, 0, :2] * 256 + pixels[0, 1, :2]
        return (levels / 65535 * 2 * SPAN - SPAN).astype(np.float32)

    def predict(self, latents: NDArray[Any], actions: NDArray[np.float64]) -> NDArray[np.float32]:
        moves = actions.sum(2).cumsum(1) * self.contract.period
        return (latents[:, None] + moves).astype(np.float32)

    def distance(self, latent: NDArray[np.float32], goal: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(latent - goal)) / STEP

    def surprise(self, latent: Any, block: NDArray[np.float64], next_latent: Any) -> float:
        return float(np.linalg.norm(self.predict(latent[None], block[None, None])[0, 0] - next_latent)) / 0.02


class ToyPlanner:
    """
    Heads straight for the goal, as fast as allowed, and slows down so that a late command does no harm.

    For goals at the edge of the world it fails as real ones do: see ``EDGE``.
    """

    def __init__(self, model: ToyModel, config: Any, seed: int) -> None:
        self.contract = model.contract

    def change(self, config: Any) -> None:
        pass

    def forget(self, robots: Sequence[int]) -> None:
        pass

    def plan_fleet(self, problems: Sequence[Problem]) -> PlanResult:
        plans = [self.plan(problem.latent, problem.goal) for problem in problems]
        return replace(
            plans[0],
            actions=np.stack([plan.actions for plan in plans]),
            cost=np.stack([plan.cost for plan in plans]),
        )

    def plan(self, latent: NDArray[Any], goal: NDArray[Any]) -> PlanResult:
        right, top = goal > EDGE
        if right:
            raise PlanningError("no sequence of actions has a finite cost")
        if top:
            raise ZeroDivisionError("a plugin's")
        rows = []
        position = latent.astype(float)
        for _ in range(10):
            limits = self.contract.action
            rows.append(np.clip(0.4 * (goal - position) / self.contract.period, limits.low, limits.high))
            position = position + rows[-1] * self.contract.period
        if (goal < -EDGE).any():  # no time for a round, and too late as well
            time.sleep(SLOW)
            return PlanResult(np.array(rows), np.array(np.nan), 0, SLOW, 0, -0.01)
        return PlanResult(np.array(rows), np.array(0.0), 10, 0.02, 1, 0.0)


def make(name: str) -> SmwmNode:
    """Make one of the four nodes."""
    if name == "action":
        return ActionNode(name)

    def load(path: str, device: str, threads: int) -> Any:
        return ToyModel(load_contract(path))

    if name == "planner":
        from smwm_ros.nodes.planner_node import PlannerNode  # noqa: PLC0415 - brings torch, which takes seconds

        return PlannerNode(name, load=load, planner=ToyPlanner)
    return {"perception": PerceptionNode, "world_model": WorldModelNode}[name](name, load=load)


if __name__ == "__main__":
    run(lambda: make(sys.argv[1]))
