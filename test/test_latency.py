"""What counts as latency: known times, and which of them are whose."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smwm_ros.cli.latency_bench import CAMERAS, _enlarged
from smwm_ros.contract import load_contract
from smwm_ros.data.images import enlarge
from smwm_ros.errors import StackError
from smwm_ros.messages import to_time
from smwm_ros.models.checkpoint import load_checkpoint
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.latency import LatencyMeter
from smwm_ros.resources import checkpoint_path, find_contract

MS = 1_000_000


class Client:
    """Hears only what the test says."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def listen(self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any) -> None:
        self.callbacks[topic] = callback

    def apply(self, evidence: int, stamp: int, source: int = AppliedAction.PLAN) -> None:
        message = AppliedAction(evidence=to_time(evidence), source=source)
        message.header.stamp = to_time(stamp)
        self.callbacks["applied_action"](message)


@pytest.fixture
def meter() -> tuple[LatencyMeter, Client]:
    client = Client()
    made = LatencyMeter(client)  # type: ignore[arg-type]
    made.start()
    return made, client


def test_only_the_first_action_of_a_plan_counts(meter: tuple[LatencyMeter, Client]) -> None:
    """The later ones are meant to be later; safe actions rest on nothing."""
    made, client = meter
    begin = time.time_ns()
    for image in range(10):
        evidence = begin + image * 50 * MS
        client.apply(evidence, evidence + (10 + image) * MS)
        client.apply(evidence, evidence + 60 * MS)
        client.apply(0, evidence + 70 * MS, AppliedAction.SAFE)
    client.apply(begin - 50 * MS, begin + 500 * MS)  # from before it began
    figures = made.figures()
    assert figures["actions"] == 10
    assert (figures["p50_ms"], figures["max_ms"]) == (14.5, 19.0)
    assert "goal_change" not in figures


def test_an_image_that_waited_for_the_goal_counts_apart(
    meter: tuple[LatencyMeter, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new goal is planned for at once, from the image that is there: its age is not the stack's doing."""
    made, client = meter
    begin = time.time_ns()
    client.apply(begin, begin + 10 * MS)
    monkeypatch.setattr(time, "time_ns", lambda: begin + 90 * MS)
    made.goal_sent()
    client.apply(begin + 50 * MS, begin + 98 * MS)  # 48 ms old, 8 ms after the goal
    client.apply(begin + 100 * MS, begin + 112 * MS)
    figures = made.figures()
    assert (figures["p50_ms"], figures["max_ms"], figures["actions"]) == (11.0, 12.0, 2)
    assert figures["goal_change"] == {"p50_ms": 8.0, "p99_ms": 8.0, "max_ms": 8.0, "actions": 1}
    assert figures["with_goal_change"]["max_ms"] == 48.0  # type: ignore[index]


def test_without_plans_there_is_nothing_to_measure(meter: tuple[LatencyMeter, Client]) -> None:
    with pytest.raises(StackError, match="no plan was played"):
        meter[0].figures()


@pytest.mark.parametrize("name", CAMERAS)
def test_the_large_cameras_show_the_model_what_it_knows(name: str, tmp_path: Any) -> None:
    """The robot is the same but for its camera, with its own planner, and the model accepts it."""
    contract = find_contract("reacher")
    place, model = _enlarged(contract, CAMERAS[name], checkpoint_path("reacher"), tmp_path / name)
    large, checkpoint = load_contract(place), load_checkpoint(model)
    checkpoint.require(large)
    assert large.planner == contract.planner
    stream = large.observation.image
    assert (stream.width, stream.height, stream.type) == (640, 480, CAMERAS[name])
    assert "proposal" in checkpoint.parts
    square = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert enlarge(square, stream).shape == (480, 640, 3)
    latent = load_checkpoint(checkpoint_path("reacher")).encode(square[None])
    np.testing.assert_array_equal(checkpoint.encode(square[None]), latent)
