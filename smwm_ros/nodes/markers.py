"""Shows what the planner foresees: the path that its plan should take, the subgoal and the goal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from visualization_msgs.msg import MarkerArray

from smwm_ros.contract import Contract
from smwm_ros.errors import SmwmError
from smwm_ros.messages import markers_to_message
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.qos import LATCHED
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.geometry import Geometry, learn_geometry
from smwm_ros.runtime.replanning import TimedPlan
from smwm_ros.runtime.worker import Worker
from smwm_ros.tasks import make_task

SHARE = 0.03
"""Diameter of a ball, as a share of the way across the world's origin and all that is shown."""
SMALLEST = 0.01
"""The same in metres, at least."""


@dataclass(frozen=True, eq=False)
class Foreseen:
    """What is to be shown."""

    belief: Belief
    plan: TimedPlan
    goal: NDArray[np.float32]


class Markers:
    """
    Publishes ``markers`` while somebody subscribes and the contract's task has landmarks.

    What there is are latents. Where in space they are is learned from the simulated robot, in a thread of
    its own, when they are first to be shown: it takes some seconds. A real robot has no markers.
    """

    def __init__(
        self, node: SmwmNode, prefix: str, contract: Contract, model: Checkpoint, now: Callable[[], int]
    ) -> None:
        """
        Make the publisher.

        Args:
            node: the planner.
            prefix: of the robot's names.
            contract: of the robot.
            model: the world model.
            now: gives ROS time in ns.
        """
        self._node = node
        self._contract = contract
        self._model = model
        self._now = now
        self._publisher = node.offer(MarkerArray, f"{prefix}markers", LATCHED)
        self._possible = contract.task is not None
        self._geometry: Geometry | None = None
        self._worker: Worker[Foreseen | None] | None = None
        self._stopping = False

    def show(self, belief: Belief, plan: TimedPlan, goal: NDArray[np.float32]) -> None:
        """Show a new plan; returns at once."""
        if self._possible and self._publisher.get_subscription_count():
            if self._worker is None:
                self._worker = Worker("markers", self._draw)
            self._worker.offer(Foreseen(belief, plan, goal))

    def clear(self) -> None:
        """Show nothing any more."""
        if self._worker is not None:
            self._worker.offer(None)

    def stop(self) -> None:
        """End the thread."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._stopping = True
            worker.stop()
            self._stopping = False

    def _draw(self, foreseen: Foreseen | None) -> None:
        """Publish; the worker's thread."""
        try:
            if self._geometry is None:
                self._geometry = self._learn()
            if self._geometry is not None:
                self._publish({} if foreseen is None else self._scene(self._geometry, foreseen))
        except SmwmError as error:
            self._possible = False
            self._node.fault("markers", f"nothing can be shown: {error}")
        except Exception as error:
            self._node.defect("drawing markers", error)

    def _learn(self) -> Geometry | None:
        with closing(make_task(self._contract)) as task:
            self._possible = bool(task.landmarks)
            if not self._possible:
                return None
            geometry = learn_geometry(self._model, task, going_on=lambda: not self._stopping)
        if geometry is not None:
            shown, error = ", ".join(geometry.landmarks), 1000 * geometry.error
            self._node.get_logger().info(f"markers of {shown}: right to {error:.0f} mm (median)")
        return geometry

    def _scene(self, geometry: Geometry, foreseen: Foreseen) -> dict[str, NDArray[np.float64]]:
        start, actions = foreseen.belief.latent[None], foreseen.plan.result.actions
        blocks = actions.reshape(1, -1, self._contract.block, actions.shape[-1])
        scene = {"path": geometry(np.concatenate([start, self._model.predict(start, blocks)[0]]))}
        if not np.array_equal(foreseen.plan.subgoal, foreseen.goal):
            scene["subgoal"] = geometry(foreseen.plan.subgoal[None])
        return scene | {"goal": geometry(foreseen.goal[None])}

    def _publish(self, scene: dict[str, NDArray[np.float64]]) -> None:
        assert self._geometry is not None
        corners = np.concatenate([np.zeros((1, 3)), *(places.reshape(-1, 3) for places in scene.values())])
        size = max(SMALLEST, SHARE * float(np.ptp(corners, axis=0).max()))
        landmarks = self._geometry.landmarks
        self._publisher.publish(markers_to_message(scene, landmarks, self._now(), size))
