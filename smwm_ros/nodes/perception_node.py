"""Encodes the newest camera image."""

from __future__ import annotations

import time
from array import array
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from smwm_ros import msg
from smwm_ros.data.calibration import square_calibration
from smwm_ros.data.images import picture
from smwm_ros.data.ticks import Tick, TickGate
from smwm_ros.errors import DataError, SmwmError
from smwm_ros.messages import applied_from_message, from_time, image_type, latent_to_message
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import SENSOR_RELIABILITY, Param
from smwm_ros.nodes.process import end_if_device_lost, run
from smwm_ros.nodes.qos import EVERY, NEWEST, sensor
from smwm_ros.runtime.belief import Latent
from smwm_ros.runtime.camera import FreezeDetector, age_fault
from smwm_ros.runtime.encoder import Encoder, out_of_memory
from smwm_ros.runtime.worker import Worker

TIMEOUT = -1.0
"""As a largest age: the contract's action timeout, after which nothing that rests on the image is played."""


class AgeParam(Param):
    """A largest age: of what is negative, only ``TIMEOUT`` means anything."""

    def refusal(self, value: Any) -> str | None:
        """See :class:`Param`."""
        if isinstance(value, float) and TIMEOUT < value < 0:
            return (
                f"parameter {self.name} is {value}; expected {TIMEOUT} (the contract's action timeout), 0.0 "
                "(any age), or the seconds by which an image's stamp may differ from the clock"
            )
        return super().refusal(value)


IMAGE_AGE = AgeParam(
    name="image_age",
    default=TIMEOUT,
    low=TIMEOUT,
    high=3600.0,
    unit="s",
    description="By how much an image's stamp may differ from the clock, either way; -1 (no other negative "
    "number): by the contract's action timeout, 0: by anything.",
)
FROZEN_IMAGES = Param(
    name="frozen_images",
    default=0,
    low=0,
    high=10_000,
    unit="images",
    description="So many images in a row that equal the one before, while the robot is commanded to move, "
    "mean that the camera is frozen; 0: never, as simulated cameras have no noise.",
)


class PerceptionNode(ModelNode):
    """
    Publishes a Latent for each tick's image, stamped as the image.

    Images wait in a slot for one, not in a queue: while the network works, a newer image replaces the
    one that waits. The network runs in a thread of its own. What the encoder sees, and the calibration of
    that, are published for whoever listens.
    """

    parameters = (*ModelNode.model_parameters, SENSOR_RELIABILITY, IMAGE_AGE, FROZEN_IMAGES)

    def set_up(self) -> None:
        """Load the model, run it once, and make the topics."""
        contract = self._contract = self.read_contract()
        observation = contract.observation
        self._stream = observation.image
        self._model = self.read_model(contract)
        self._encoder: Encoder | None = Encoder(self._model)
        size = self._stream.size
        self._encoder.encode(
            [np.zeros((size, size, 3), np.uint8)] * self._model.frames
        )  # the first run is slow
        age = self.value("image_age")
        self._oldest = contract.action.timeout if age == TIMEOUT else age
        self._latents = self.offer(msg.Latent, "latent", NEWEST)
        self._squares = self.offer(Image, "perception/image", NEWEST)
        profile = sensor(self.value("sensor_reliability"))
        self.listen(image_type(contract), self._stream.topic, self._on_image, profile)
        self._infos = None
        self._hears_infos = False
        if observation.camera_info:
            self._infos = self.offer(CameraInfo, "perception/camera_info", NEWEST)
        if self.value("frozen_images"):
            self.listen(msg.AppliedAction, "applied_action", self._on_applied, EVERY)

    def start(self) -> None:
        """Start the worker."""
        self._ticks = TickGate(self._contract)
        self._freeze = FreezeDetector(self._contract.action, self.value("frozen_images"))
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=self._model.frames)
        self._newest: msg.Latent | None = None
        self._info: CameraInfo | None = None
        self._worker = Worker[tuple[Any, float]]("encoder", self._work)

    def stop(self) -> None:
        """End the worker."""
        self._worker.stop()

    def tear_down(self) -> None:
        """Free the model."""
        self._model = self._encoder = None

    def report(self) -> None:
        """Show how long the picture has been the same, and what the device's memory went through."""
        super().report()
        if self.active:
            self.monitor.show(repeated=self._freeze.repeated, memory_freed=self._encoder.freed)
        # Only once somebody wants it: each message more holds up the images.
        if self._infos is not None and not self._hears_infos and self._infos.get_subscription_count():
            self._hears_infos = True
            topic = self._contract.observation.camera_info.topic
            self.listen(CameraInfo, topic, self._on_info, sensor(self.value("sensor_reliability")))

    def _on_image(self, message: Any) -> None:
        if not self._worker.offer((message, time.monotonic())):
            self.monitor.tally("dropped.superseded")

    def _on_applied(self, message: msg.AppliedAction) -> None:
        _, values = applied_from_message(self._contract, message)
        self._freeze.act(values, message.source == msg.AppliedAction.PLAN)

    def _on_info(self, message: CameraInfo) -> None:
        try:
            matrix, projection = square_calibration(message, self._stream)
        except DataError as error:
            self._info = None
            self.fault("dropped.camera_info", str(error))
            return
        size = self._stream.size
        self._info = CameraInfo(
            height=size,
            width=size,
            distortion_model=message.distortion_model,
            d=message.d,
            k=matrix.ravel(),
            r=message.r,
            p=projection.ravel(),
        )

    def _work(self, job: tuple[Any, float]) -> None:
        message, arrival = job
        try:
            latent = self._encode(message)
            if latent is not None:
                self._latents.publish(latent)
                self.monitor.done(time.monotonic() - arrival)
                self._show(latent)
        except SmwmError as error:
            self.fault("dropped.image", str(error))
        except Exception as error:
            if out_of_memory(error):
                self.break_down(
                    f"no memory left on the device, even after freeing what was cached: {error}. End other "
                    "programs on the GPU, or run perception with device:=cpu"
                )
                return
            self.defect("encoding", error)

    def _encode(self, message: Any) -> msg.Latent | None:
        stamp = from_time(message.header.stamp)
        now = self.get_clock().now().nanoseconds
        if kind := age_fault(stamp, now, self._oldest):
            self.fault(
                f"dropped.{kind}",
                f"the image's stamp lies {abs(now - stamp) * 1e-9:.3f} s in the "
                f"{'past' if kind == 'old' else kind}, more than {self._oldest:.3f} s; compare the clocks of "
                "the camera and of this machine",
            )
            return None
        image = picture(message, self._stream)
        tick = self._ticks.offer(stamp)
        if tick in (Tick.SURPLUS, Tick.LATE):
            self.monitor.tally(f"dropped.{tick.value}")
            return None
        if tick is Tick.DUPLICATE:
            return self._newest
        if self._freeze.look(message.data):
            self._newest = None
            self._frames.clear()
            self.fault(
                "dropped.frozen",
                f"the camera is frozen: {self._freeze.repeated} times the same image again, although the "
                "robot was commanded to move; start its driver anew",
            )
            return None
        # An episode begins at rest: as if the image had been there before.
        if tick is Tick.START or not self._frames:
            self._frames.extend([image] * self._model.frames)
        else:
            self._frames.append(image)
        self._newest = None
        with end_if_device_lost(self):
            values = self._encoder.encode(self._frames)
        if not np.isfinite(values).all():
            self.fault("dropped.latent", "the encoder's output is not finite; the checkpoint may be damaged")
            return None
        latent = Latent(stamp=stamp, frame_id=message.header.frame_id, model=self._model.id, values=values)
        self._newest = latent_to_message(latent)
        return self._newest

    def _show(self, latent: msg.Latent) -> None:
        """Publish what the encoder saw, and its calibration, if anybody listens."""
        if self._squares.get_subscription_count():
            image = self._frames[-1]
            size = len(image)
            self._squares.publish(
                Image(
                    header=latent.header,
                    height=size,
                    width=size,
                    encoding="rgb8",
                    step=3 * size,
                    data=array("B", image.tobytes()),
                )
            )
        if self._info is not None and self._infos.get_subscription_count():
            info = self._info
            info.header = latent.header
            self._infos.publish(info)


def main() -> None:
    """Run the node."""
    run(lambda: PerceptionNode("perception"))


if __name__ == "__main__":
    main()
