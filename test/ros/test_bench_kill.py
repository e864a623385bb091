"""What the killed recorder's figures rest on."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from smwm_ros.cli.bench_kill import _compare, bench_kill
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.nodes.numbered_sender import number_of, numbered, topics
from smwm_ros.resources import find_contract

CONTRACT = find_contract("reacher")
KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/JointState", "smwm_ros/msg/AppliedAction")


def test_a_message_follows_from_its_number() -> None:
    for topic in range(3):
        message = numbered(CONTRACT, 4, topic, 77)
        assert message == numbered(CONTRACT, 4, topic, 77)
        assert message not in (numbered(CONTRACT, 5, topic, 77), numbered(CONTRACT, 4, topic, 78))
        assert number_of(message) == 77


def test_losses_and_strangers_are_counted(tmp_path: Path) -> None:
    """Known answers: a number that is missing, one that was changed, and 0.3 s at the end."""
    names = [f"/{name}" for name in topics(CONTRACT)]
    with BagWriter(tmp_path / "bag") as bag:
        for name, kind in zip(names, KINDS, strict=True):
            bag.add_topic(name, kind)
        for number, topic in product(range(10, 20), range(3)):
            message = bytearray(numbered(CONTRACT, 0, topic, number))
            message[-5] ^= topic == 2 and number == 15
            if (topic, number) != (1, 14):
                bag.write(names[topic], 3 * number + topic, bytes(message))
    sent = {topic: {number: 3 * number + topic for number in range(1, 20)} for topic in range(3)}
    sent[1][19] += 300_000_000
    found = _compare(tmp_path / "bag", CONTRACT, 0, sent, begun=36)
    assert (found.messages, found.mismatched, found.missing, found.loss) == (29, 1, 1, 0.3)


def test_one_kill() -> None:
    """The real recorder, over DDS: what is recovered is what was sent, without a hole."""
    figures = bench_kill(1, seed=3)
    assert (figures["rounds"], figures["recovered"]) == (1, 1)
    assert (figures["mismatched"], figures["missing"]) == (0, 0)
    assert figures["messages"] > 20
