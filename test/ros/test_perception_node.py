"""Perception alone, with cameras that misbehave, a model that runs out of memory, and a GPU that fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
import toy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from robot import wait_for, write_contract
from sensor_msgs.msg import CameraInfo, Image

from smwm_ros import msg
from smwm_ros.contract import Contract
from smwm_ros.data.images import enlarge, picture
from smwm_ros.errors import ConfigError
from smwm_ros.messages import encode_image, from_time
from smwm_ros.nodes import qos
from smwm_ros.nodes.perception_node import PerceptionNode

ACCELERATOR_ERROR = getattr(torch, "AcceleratorError", RuntimeError)
"""What torch 2.8 and later raise for errors of CUDA."""
FROZEN = 2
OBSERVATION = {
    "image": {
        "topic": "lens/image",
        "encoding": "bgr8",
        "width": 32,
        "height": 24,
        "crop": [8, 4, 16, 16],
        "size": 16,
    },
    "camera_info": {"topic": "lens/info"},
}


class Scarce(toy.ToyModel):
    """A model whose device has no memory left for so many calls."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self.lacking = 0
        self.error: Exception = torch.OutOfMemoryError("tried to allocate more than there is")

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.lacking:
            self.lacking -= 1
            raise self.error
        return super().encode(images)


class Lens:
    """Perception and its camera, spun in one thread."""

    def __init__(self, folder: Path, context: rclpy.Context) -> None:
        path = folder / "toy.yaml"
        self.contract = write_contract(path, observation=OBSERVATION)
        self.model = Scarce(self.contract)
        values = {"contract": str(path), "checkpoint": "any", "frozen_images": FROZEN, "image_age": 0.0}
        space = {"context": context, "namespace": f"perception_{os.getpid()}"}
        self.node = PerceptionNode(
            "perception",
            load=lambda *_: self.model,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
            **space,
        )
        self.camera = Node("camera", **space)
        self.images = self.camera.create_publisher(Image, "lens/image", qos.sensor("reliable"))
        self.applied = self.camera.create_publisher(msg.AppliedAction, "applied_action", qos.EVERY)
        self.latents: list[msg.Latent] = []
        self.camera.create_subscription(msg.Latent, "latent", self.latents.append, qos.EVERY)
        self.stamp = 0
        self.executor = SingleThreadedExecutor(context=context)
        for node in (self.node, self.camera):
            self.executor.add_node(node)
        assert self.node.bring_up()
        self.until(self.images.get_subscription_count, "perception to listen")
        self.until(self.applied.get_subscription_count, "perception to listen")
        self.until(lambda: self.camera.count_publishers("latent"), "perception to speak")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(lambda: self.executor.spin_once(0.01) or condition(), what)

    def count(self, kind: str) -> int:
        return self.node.monitor.count(kind)

    def send(self, position: float) -> Image:
        """Send the image of a tick."""
        self.stamp += self.contract.period_ns
        square = toy.draw(np.array([position, 0.0]), 16)
        image = enlarge(square, self.contract.observation.image)
        message = encode_image(self.contract, image, self.stamp, "lens")
        self.images.publish(message)
        return message

    def see(self, position: float) -> msg.Latent:
        """Send an image, and return its latent."""
        self.send(position)
        self.until(
            lambda: self.latents and from_time(self.latents[-1].header.stamp) == self.stamp, "the latent"
        )
        return self.latents[-1]

    def act(self, speed: float, source: int = msg.AppliedAction.PLAN) -> None:
        """Say that an action was applied, and let perception hear it."""
        action = msg.AppliedAction(values=[speed, 0.0], source=source)
        self.applied.publish(action)
        assert self.applied.wait_for_all_acked(rclpy.duration.Duration(seconds=10))
        for _ in range(20):
            self.executor.spin_once(0.01)


@pytest.fixture
def lens(tmp_path: Path) -> Iterator[Lens]:
    context = rclpy.Context()
    rclpy.init(context=context)
    made = Lens(tmp_path, context)
    yield made
    made.node.shut_down()
    made.executor.shutdown()
    made.node.destroy_node()
    made.camera.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize("cuda", [False, True])
def test_once_out_of_memory_costs_nothing(lens: Lens, cuda: bool) -> None:
    """Pins the one retry, after what the allocator kept was freed: the same image still becomes a latent."""
    lens.see(1.0)
    lens.model.lacking = 1
    if cuda:
        lens.model.error = ACCELERATOR_ERROR("CUDA error: out of memory\nCUDA kernel errors might be ...")
    assert lens.see(2.0).values[0] == pytest.approx(2.0, abs=1e-3)
    lens.node.report()
    values = {item.key: item.value for item in lens.node.monitor.status("perception").values}
    assert values["memory_freed"] == "1"


def test_without_memory_the_node_says_so_and_lets_go(lens: Lens) -> None:
    """Pins that it neither goes on nor keeps what memory it has, and that it can be started anew."""
    lens.see(1.0)
    lens.model.lacking = 2
    lens.send(2.0)
    lens.until(lambda: lens.node.state == "unconfigured", "the error")
    assert "device:=cpu" in lens.node.failure
    assert "tried to allocate" in lens.node.failure
    assert not lens.node.active
    assert lens.node.bring_up()
    lens.until(lens.images.get_subscription_count, "perception to listen again")
    lens.see(3.0)


@pytest.mark.parametrize("kind", [RuntimeError, ACCELERATOR_ERROR])
def test_a_lost_gpu_ends_the_process(
    lens: Lens, kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pins that it does not go on for ever with a GPU that refuses all it asks for."""
    lens.see(1.0)
    lens.model.lacking = 1
    lens.model.error = kind("CUDA error: an illegal memory access was encountered")
    lens.send(2.0)
    lens.until(lens.node.finished.done, "the end")
    assert lens.node.finished.result() == 1
    assert "the GPU has failed" in capfd.readouterr().err

    def refuse() -> None:
        raise lens.model.error

    monkeypatch.setattr(lens.node, "release", refuse)
    lens.node.shut_down()  # memory cannot be given back either, but that must not hold up the end


def test_any_other_failure_of_the_model_is_counted_and_survived(
    lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(lens.node._encoder, "_encode", fail)
    lens.send(1.0)
    lens.until(lambda: lens.count("fault.exception"), "the fault")
    monkeypatch.setattr(lens.node._encoder, "_encode", lens.model.encode)
    lens.see(2.0)


def test_a_frozen_camera_gives_no_latents_until_its_picture_changes(lens: Lens) -> None:
    """Pins that the same picture with newer stamps is no evidence while the robot moves."""
    for _ in range(4):
        lens.see(1.0)  # at rest, all is well
    lens.act(1.0)
    for _ in range(FROZEN - 1):
        lens.see(1.0)
    lens.send(1.0)
    lens.until(lambda: lens.count("dropped.frozen") == 1, "the fault")
    lens.act(0.0, msg.AppliedAction.SAFE)
    lens.send(1.0)
    lens.until(lambda: lens.count("dropped.frozen") == 2, "the fault, though the robot was stopped")
    seen = len(lens.latents)
    assert from_time(lens.latents[-1].header.stamp) == lens.stamp - 2 * lens.contract.period_ns
    lens.see(1.5)
    assert len(lens.latents) == seen + 1


def test_an_age_that_means_nothing_is_refused_at_the_start(tmp_path: Path) -> None:
    """Pins that the refusal of the parameter, with its reason, keeps the node from starting."""
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        with pytest.raises(ConfigError, match=r"image_age is -0\.5; expected -1\.0"):
            PerceptionNode(
                "perception", context=context, parameter_overrides=[Parameter("image_age", value=-0.5)]
            )
    finally:
        context.try_shutdown()


def test_what_the_encoder_sees_is_shown_with_its_calibration(lens: Lens) -> None:
    """The square and its camera info: of the same stamp and size, with the axis moved along with the crop."""
    squares: list[Image] = []
    infos: list[CameraInfo] = []
    lens.camera.create_subscription(Image, "perception/image", squares.append, qos.NEWEST)
    lens.camera.create_subscription(CameraInfo, "perception/camera_info", infos.append, qos.NEWEST)
    source = lens.camera.create_publisher(CameraInfo, "lens/info", qos.sensor("reliable"))
    lens.until(source.get_subscription_count, "perception to ask for the calibration")
    matrix = [20.0, 0.0, 15.5, 0.0, 20.0, 11.5, 0.0, 0.0, 1.0]
    good = CameraInfo(width=32, height=24, k=matrix, p=np.insert(matrix, (3, 6, 9), 0.0), d=[0.1] * 5)
    source.publish(CameraInfo(width=8, height=8, k=matrix))
    lens.until(
        lambda: lens.count("dropped.camera_info") == 1, "the calibration of another camera to be refused"
    )

    def shown() -> bool:
        source.publish(good)
        lens.see(len(lens.latents) % 3)
        return bool(squares and infos)

    lens.until(shown, "square and calibration")
    sent = lens.send(2.5)
    lens.until(lambda: from_time(infos[-1].header.stamp) == lens.stamp, "the calibration of the newest image")
    lens.until(lambda: squares[-1].header == infos[-1].header, "its square")
    assert infos[-1].header.frame_id == "lens"
    assert (infos[-1].width, infos[-1].height, squares[-1].encoding) == (16, 16, "rgb8")
    np.testing.assert_allclose(infos[-1].k, [20, 0, 7.5, 0, 20, 7.5, 0, 0, 1])
    assert list(infos[-1].d) == [0.1] * 5
    expected = picture(sent, lens.contract.observation.image)
    np.testing.assert_array_equal(np.frombuffer(squares[-1].data, np.uint8).reshape(16, 16, 3), expected)
