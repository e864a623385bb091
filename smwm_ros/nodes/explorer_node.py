"""Moves the robot as its task's exploration policy says, to record training data."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
from rclpy.task import Future
from sensor_msgs.msg import JointState

from smwm_ros.messages import from_time, image_type, to_time
from smwm_ros.msg import Plan
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CONTRACT, LOCK_STEP, SENSOR_RELIABILITY, Param
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import NEWEST, sensor
from smwm_ros.srv import Reset
from smwm_ros.tasks.exploration import POLICIES, make_policy

MODEL = "explorer"
LOOK = 0.1
"""Seconds between two looks at whether the simulator is there to be reset."""


class ExplorerNode(SmwmNode):
    """
    Answers every image with a Plan of one action, so that recording takes the path that planning takes.

    With ``lock_step`` the simulator is reset with the next seed before every episode. Otherwise
    nothing marks where one episode ends and the next begins: only the images are counted. After the
    last episode the node ends, with exit code 0.

    A policy that looks at the state gets it from the joint states, which a simulator sends of all that
    moves, in the task's order and with the image's stamp. Other policies look at the images' stamps only.
    """

    parameters = (
        CONTRACT,
        LOCK_STEP,
        SENSOR_RELIABILITY,
        Param(
            name="seed",
            default=0,
            low=0,
            description="Draws the actions; episode e of the simulator is reset with seed + e.",
        ),
        Param(
            name="episodes",
            default=0,
            low=0,
            unit="episodes",
            description="So many are made until the node ends; 0: any number.",
        ),
        Param(name="episode_ticks", default=200, low=2, unit="images", description="Length of each episode."),
    )

    def set_up(self) -> None:
        """Make topics and noise."""
        contract = self.read_contract()
        self._policy = make_policy(contract, np.random.default_rng(self.value("seed")), lambda: self._state)
        self._plan = Plan(model=MODEL, period=contract.period, action_size=contract.action.size, execute=1)
        self._plans = self.offer(Plan, "plan", NEWEST)
        profile = sensor(self.value("sensor_reliability"))
        self.listen(image_type(contract), contract.observation.image.topic, self._on_image, profile)
        self._senses = contract.task in POLICIES
        if self._senses:
            self.listen(JointState, contract.observation.joints.topic, self._on_joints, profile)
        self._lock_step = self.value("lock_step")
        if self._lock_step:
            self._resets = self.create_client(Reset, "sim/reset")
            self.every(LOOK, self._reset_if_due)

    def start(self) -> None:
        """Begin with the first episode."""
        self._episode = 0
        self._images = 0
        # Stamp of the episode's first image; in lock-step None until the simulator has told it.
        self._begin = None if self._lock_step else 0
        self._newest = 0
        self._sensed = 0
        self._state = np.empty(0)
        self._resetting = False

    def _on_image(self, message: Any) -> None:
        self._newest = from_time(message.header.stamp)
        self._answer()

    def _on_joints(self, message: JointState) -> None:
        self._sensed = from_time(message.header.stamp)
        self._state = np.concatenate([message.position, message.velocity])
        self._answer()

    def _answer(self) -> None:
        """
        Answer the newest image, once all is there that the policy needs.

        Image, state and the reset's response may come in any order, so all of them call this.
        """
        if self._begin is None or self._newest < self._begin:
            return
        if self._senses and self._sensed != self._newest:
            return
        # The simulator shows an image again when the answer did not get through: then answer again.
        if self._newest != from_time(self._plan.header.stamp):
            self._images += 1
            if self._images == self.value("episode_ticks") and not self._next_episode():
                return
            self._plan.header.stamp = self._plan.evidence = to_time(self._newest)
            self._plan.actions = array("d", self._policy.next())
        self._plan.sequence += 1
        self._plans.publish(self._plan)

    def _next_episode(self) -> bool:
        """Count an episode as done; return whether to go on at once."""
        self._episode += 1
        self._images = 0
        self.monitor.show(episode=self._episode)
        if self._episode == self.value("episodes"):
            self._begin = sys.maxsize
            self.finish()
            return False
        if self._lock_step:
            self._begin = None
            self._reset_if_due()
            return False
        return True

    def _reset_if_due(self) -> None:
        if self._begin is None and not self._resetting and self._resets.service_is_ready():
            self._resetting = True
            request = Reset.Request(seed=self.value("seed") + self._episode)
            self._resets.call_async(request).add_done_callback(self._on_reset)

    def _on_reset(self, future: Future) -> None:
        self._resetting = False
        response = future.result()
        if not response.success:
            self.get_logger().error(f"the simulator could not be reset: {response.message}")
            self.finish(1)
            return
        self._policy.reset()
        self._begin = from_time(response.stamp)
        self._answer()


def main() -> None:
    """Run the node."""
    run(lambda: ExplorerNode("explorer"))


if __name__ == "__main__":
    main()
