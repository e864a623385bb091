"""The Foxglove layout: panels that are there, showing topics and fields that are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image
from std_msgs.msg import Bool
from visualization_msgs.msg import MarkerArray

from smwm_ros import msg
from smwm_ros.resources import find_contract, share_directory

LAYOUT = json.loads((share_directory() / "config" / "foxglove.json").read_text(encoding="utf-8"))
NODES = Path(__file__).parents[1] / "smwm_ros" / "nodes"
TOPICS = {
    "/" + find_contract("reacher").observation.image.topic: Image,
    "/applied_action": msg.AppliedAction,
    "/belief": msg.Belief,
    "/diagnostics": DiagnosticArray,
    "/emergency_stopped": Bool,
    "/markers": MarkerArray,
    "/perception/image": Image,
    "/planner_status": msg.PlannerStatus,
}
PATHS = {"value", "topicPath", "topicToRender", "imageTopic", "calibrationTopic"}


def shown(part: Any) -> list[str]:
    """Return the paths of messages that panels show."""
    if isinstance(part, list):
        return [path for inner in part for path in shown(inner)]
    if not isinstance(part, dict):
        return []
    own = [value for key, value in part.items() if key in PATHS]
    own += [key for key in part if key.startswith("/")]
    return own + [path for inner in part.values() for path in shown(inner)]


def leaves(layout: Any) -> list[str]:
    """Return the panels of a layout."""
    if isinstance(layout, str):
        return [layout]
    return leaves(layout["first"]) + leaves(layout["second"])


def test_the_layout_places_each_of_its_panels_once() -> None:
    assert sorted(leaves(LAYOUT["layout"])) == sorted(LAYOUT["configById"])


@pytest.mark.parametrize("path", shown(LAYOUT["configById"]))
def test_the_panels_show_topics_and_fields_that_there_are(path: str) -> None:
    topic, *fields = path.split(".")
    value = TOPICS[topic]()
    for field in fields:
        value = getattr(value, re.sub(r"\[\d+\]$", "", field))


@pytest.mark.parametrize("topic", TOPICS)
def test_the_topics_are_those_of_the_nodes(topic: str) -> None:
    """A topic that was renamed in the code; the camera's is the contract's."""
    if topic != "/camera/image_raw":
        sources = "".join(path.read_text(encoding="utf-8") for path in NODES.glob("*.py"))
        assert re.search(rf'["}}]/?{topic.strip("/")}"', sources)
