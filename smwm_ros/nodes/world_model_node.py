"""Keeps the belief: the newest latent, checked against what the world model foresaw."""

from __future__ import annotations

import time
from array import array
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from smwm_ros import msg
from smwm_ros.errors import DataError
from smwm_ros.messages import applied_from_message, belief_to_message, from_time, latent_from_message
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import Param
from smwm_ros.nodes.process import end_if_device_lost, run
from smwm_ros.nodes.qos import EVERY, NEWEST
from smwm_ros.runtime.belief import BeliefTracker
from smwm_ros.srv import Predict

MOST_TRANSITIONS = 65_536
"""Latent transitions that one Predict request may ask for; the belief waits meanwhile."""
SURPRISED = "the images are not what the actions should lead to: something was moved, or is broken"


class WorldModelNode(ModelNode):
    """Publishes a Belief for each Latent, and serves ``predict``."""

    parameters = (
        *ModelNode.model_parameters,
        Param(
            name="surprise_threshold",
            default=5.0,
            low=0.0,
            unit="medians on validation data",
            dynamic=True,
            description="Surprise that counts as high.",
        ),
        Param(
            name="surprise_ticks",
            default=20,
            low=1,
            unit="control ticks",
            dynamic=True,
            description="Time for which the surprise must be high until it is flagged. A picture that stays "
            "exactly the same for a model step, although a change was foreseen, is flagged at once.",
        ),
    )

    depends_on = ("perception",)

    def set_up(self) -> None:
        """Load the model and make the topics."""
        self._contract = self.read_contract()
        self._model = self.read_model(self._contract)
        self._beliefs = self.offer(msg.Belief, "belief", NEWEST)
        self._applied = self.listen(msg.AppliedAction, "applied_action", self._on_applied, EVERY)
        self.listen(msg.Latent, "latent", self._on_latent, NEWEST)
        self.serve(Predict, "predict", self._on_predict)

    def start(self) -> None:
        """Start without any observation."""
        self.monitor.clear("surprise")
        self._tracker = BeliefTracker(
            self._contract,
            self._model,
            threshold=self.value("surprise_threshold"),
            patience=self.value("surprise_ticks"),
        )

    def change(self, values: dict[str, Any]) -> None:
        """Judge the next steps by another threshold."""
        if self.active:
            self._tracker.judge_by(values["surprise_threshold"], values["surprise_ticks"])

    def tear_down(self) -> None:
        """Free the model."""
        self._model = self._tracker = None

    def _on_applied(self, message: msg.AppliedAction) -> None:
        try:
            self._tracker.apply(*applied_from_message(self._contract, message))
        except DataError as error:
            self.fault("dropped.applied_action", str(error))
            # Something was applied, and nobody knows what: as in a bag, the tick's action is unknown.
            unknown = np.full(self._contract.action.size, np.nan)
            self._tracker.apply(from_time(message.header.stamp), unknown)

    def _on_latent(self, message: msg.Latent) -> None:
        arrival = time.monotonic()
        # After a delay the executor hands over one message of each topic by turns, but the latent is
        # to be judged by all actions that have come.
        while (applied := self._applied.handle.take_message(msg.AppliedAction, False)) is not None:
            self._on_applied(applied[0])
        try:
            with end_if_device_lost(self):
                belief, anew = self._tracker.observe(latent_from_message(message))
        except DataError as error:
            self.fault("dropped.latent", str(error))
            return
        if anew:
            self.fault("restarted", f"belief initialised anew: {anew}")
        if belief is not None:
            self._beliefs.publish(belief_to_message(belief))
            self.monitor.done(time.monotonic() - arrival)
            self.monitor.show(surprise=f"{belief.surprise:.3f}", surprised=belief.surprised)
            if belief.surprised:
                self.monitor.stand("surprise", SURPRISED, DiagnosticStatus.WARN)
            else:
                self.monitor.clear("surprise")

    def _on_predict(self, request: Predict.Request, response: Predict.Response) -> Predict.Response:
        model, contract = self._model, self._contract
        if request.model and request.model != model.id:
            raise DataError(f"latents of the model {request.model!r}, but this is {model.id!r}")
        batch, horizon = request.batch, request.horizon
        if not (batch and horizon and batch * horizon <= MOST_TRANSITIONS):
            raise DataError(
                f"batch {batch} times horizon {horizon} must lie between 1 and {MOST_TRANSITIONS} transitions"
            )
        latents = np.array(request.latents, np.float32)
        actions = np.array(request.actions, np.float64)
        for what, values, shape in (
            ("latents", latents, (batch, model.latent_size)),
            ("actions", actions, (batch, horizon, contract.block, contract.action.size)),
        ):
            if values.size != np.prod(shape) or not np.isfinite(values).all():
                raise DataError(f"{what}: {values.size} numbers, expected finite ones of shape {shape}")
        with end_if_device_lost(self):
            futures = model.predict(
                latents.reshape(batch, -1),
                actions.reshape(batch, horizon, contract.block, contract.action.size),
            )
        response.success = True
        response.futures = array("f", futures.astype(np.float32).tobytes())
        return response


def main() -> None:
    """Run the node."""
    run(lambda: WorldModelNode("world_model"))


if __name__ == "__main__":
    main()
