"""Encodes the newest camera image."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros import msg
from smwm_ros.data.images import picture
from smwm_ros.data.ticks import Tick, TickGate
from smwm_ros.errors import SmwmError
from smwm_ros.messages import from_time, image_type, latent_to_message
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import SENSOR_RELIABILITY
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import NEWEST, sensor
from smwm_ros.runtime.belief import Latent
from smwm_ros.runtime.worker import Worker


class PerceptionNode(ModelNode):
    """
    Publishes a Latent for each tick's image, stamped as the image.

    Images wait in a slot for one, not in a queue: while the network works, a newer image replaces the
    one that waits. The network runs in a thread of its own.
    """

    parameters = (*ModelNode.model_parameters, SENSOR_RELIABILITY)

    def set_up(self) -> None:
        """Load the model, run it once, and make the topics."""
        contract = self._contract = self.read_contract()
        self._model = self.read_model(contract)
        self._stream = contract.observation.image
        size = self._stream.size
        self._model.encode(np.zeros((self._model.frames, size, size, 3), np.uint8))  # the first run is slow
        self._latents = self.create_publisher(msg.Latent, "latent", NEWEST)
        self.listen(
            image_type(contract), self._stream.topic, self._on_image, sensor(self.value("sensor_reliability"))
        )

    def start(self) -> None:
        """Start the worker."""
        self._ticks = TickGate(self._contract)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=self._model.frames)
        self._newest: msg.Latent | None = None
        self._worker = Worker[tuple[Any, float]]("encoder", self._work)

    def stop(self) -> None:
        """End the worker."""
        self._worker.stop()

    def tear_down(self) -> None:
        """Free the model."""
        self._model = None

    def _on_image(self, message: Any) -> None:
        if not self._worker.offer((message, time.monotonic())):
            self.monitor.tally("dropped.superseded")

    def _work(self, job: tuple[Any, float]) -> None:
        message, arrival = job
        try:
            latent = self._encode(message)
        except SmwmError as error:
            self.fault("dropped.image", str(error))
        except Exception as error:
            self.log_exception("encoding", error)
            self.monitor.fault("fault.exception", f"encoding: {error!r}")
        else:
            if latent is not None:
                self._latents.publish(latent)
                self.monitor.done(time.monotonic() - arrival)

    def _encode(self, message: Any) -> msg.Latent | None:
        image = picture(message, self._stream)
        stamp = from_time(message.header.stamp)
        tick = self._ticks.offer(stamp)
        if tick in (Tick.SURPLUS, Tick.LATE):
            self.monitor.tally(f"dropped.{tick.value}")
            return None
        if tick is Tick.DUPLICATE:
            return self._newest
        if tick is Tick.START:  # an episode begins at rest: as if the image had been there before
            self._frames.extend([image] * self._model.frames)
        else:
            self._frames.append(image)
        self._newest = None
        values = self._model.encode(np.stack(self._frames))
        if not np.isfinite(values).all():
            self.fault("dropped.latent", "the encoder's output is not finite; the checkpoint may be damaged")
            return None
        latent = Latent(stamp=stamp, frame_id=message.header.frame_id, model=self._model.id, values=values)
        self._newest = latent_to_message(latent)
        return self._newest


def main() -> None:
    """Run the node."""
    run(lambda: PerceptionNode("perception"))


if __name__ == "__main__":
    main()
