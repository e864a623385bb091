"""Messages as the nodes want them, for the fuzzer to damage, and what it knows of their flaws."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, JointState

from smwm_ros import msg, srv
from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.messages import command_type, encode_command, encode_image, header, to_time


class SoundMessages:
    """Makes them; each plan goes on from the one before."""

    def __init__(self, contract: Contract, model: str, latent_size: int) -> None:
        """
        Begin.

        Args:
            contract: of the robot.
            model: id of the checkpoint.
            latent_size: D, of its latents.
        """
        self._contract = contract
        self._model = model
        self._latent_size = latent_size
        stream = contract.observation.image
        self._image = np.zeros((stream.height, stream.width, 3), np.uint8)
        self._sequence = 0

    def message(self, kind: Any, generator: np.random.Generator) -> Any:
        """Return a message as the nodes want it, as of now; an empty one of other classes."""
        now = time.time_ns()
        if kind in (Image, CompressedImage):
            return encode_image(self._contract, self._image, now, "camera")
        size, action = self._latent_size, self._contract.action
        values = generator.uniform(action.low, action.high)
        if kind is msg.Latent:
            return msg.Latent(header=header(now), model=self._model, values=[0.1] * size)
        if kind is msg.Belief:
            return msg.Belief(
                header=header(now), evidence=to_time(now), model=self._model, latent=[0.1] * size
            )
        if kind is msg.AppliedAction:
            return msg.AppliedAction(header=header(now), evidence=to_time(now), values=values.tolist())
        if kind is msg.Plan:
            self._sequence += 1
            return msg.Plan(
                header=header(now),
                evidence=to_time(now),
                model=self._model,
                sequence=self._sequence,
                period=self._contract.period,
                action_size=action.size,
                execute=1,
                actions=generator.uniform(action.low, action.high, (5, action.size)).ravel().tolist(),
            )
        if kind is JointState and self._contract.observation.joints:
            names = list(self._contract.observation.joints.names)
            return JointState(header=header(now), name=names, position=[0.0] * len(names))
        if kind is command_type(self._contract):
            return encode_command(self._contract, values, now)
        return kind()

    def request(self, kind: Any, generator: np.random.Generator) -> Any:
        """Return a request of a service as the nodes want it; an empty one where they do not care."""
        request = kind.Request()
        if kind is srv.Predict:
            batch, horizon = (int(n) for n in generator.integers(1, 4, 2))
            request = srv.Predict.Request(
                batch=batch,
                horizon=horizon,
                latents=[0.1] * (batch * self._latent_size),
                actions=[0.0] * (batch * horizon * self._contract.block_size),
            )
        return request

    def goal(self, generator: np.random.Generator) -> ReachGoal.Goal:
        """Return a goal, by its image or by its latent."""
        if generator.random() < 0.5:
            return ReachGoal.Goal(latent=[0.0] * self._latent_size, tolerance=0.5)
        return ReachGoal.Goal(image=encode_image(self._contract, self._image, 0, raw=True), tolerance=0.5)

    def flaw(self, message: Any) -> str:
        """Say what is so wrong with a message that it must be counted; empty if nothing is."""
        if isinstance(message, msg.AppliedAction):
            return _not(message.values, self._contract.action.size)
        if isinstance(message, msg.Latent):
            return "model" if message.model != self._model else _not(message.values, self._latent_size)
        if isinstance(message, msg.Belief):
            return "model" if message.model != self._model else _not(message.latent, self._latent_size)
        if isinstance(message, msg.Plan) and len(message.actions):
            return _not(message.actions, len(message.actions))
        if isinstance(message, Image):
            stream = self._contract.observation.image
            if (message.height, message.width) != (stream.height, stream.width):
                return "size"
            if message.encoding != stream.encoding:
                return "encoding"
            return "too few bytes" if len(message.data) < message.height * message.width else ""
        return ""


def _not(values: Any, size: int) -> str:
    if len(values) != size:
        return f"{len(values)} numbers instead of {size}"
    return "" if np.isfinite(np.array(values)).all() else "not finite"
