"""What the planner node tells of itself: its latched status, markers, and what plans took in diagnostics."""

from __future__ import annotations

from collections.abc import Callable

from smwm_ros import msg
from smwm_ros.messages import header
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.markers import Markers
from smwm_ros.nodes.qos import LATCHED
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Outcome, Pursuit
from smwm_ros.runtime.replanning import TimedPlan


class PlannerReport:
    """Publishes PlannerStatus and markers whenever something changed. Its user takes care of threads."""

    def __init__(self, node: SmwmNode, prefix: str, now: Callable[[], int], markers: Markers) -> None:
        """
        Make the publisher.

        Args:
            node: the planner.
            prefix: of the robot's names.
            now: gives ROS time in ns.
            markers: of the robot.
        """
        self._node = node
        self._prefix = prefix
        self._now = now
        self._markers = markers
        self._publisher = node.offer(msg.PlannerStatus, f"{prefix}planner_status", LATCHED)
        self._status = msg.PlannerStatus()

    @property
    def waiting(self) -> bool:
        """Whether neither a goal nor a belief was there yet."""
        return self._status.state == msg.PlannerStatus.WAITING

    def begin(self, state: int, message: str) -> None:
        """Tell of a new state, in which nothing is known of plans yet."""
        nan = float("nan")
        self._status = msg.PlannerStatus(
            state=state, message=message, distance=nan, cost=nan, slack=float("inf")
        )
        self._publish()

    def planned(self, pursuit: Pursuit, belief: Belief, plan: TimedPlan) -> None:
        """Tell of a new plan, made from a belief; a missed deadline is a counted fault."""
        result, status = plan.result, self._status
        status.distance = pursuit.distance
        status.cost = float(result.cost)
        status.solve_time = result.seconds
        status.slack = result.slack
        status.iterations = result.iterations
        status.evaluations = result.evaluations
        status.delay = plan.delay
        status.plans += 1
        if result.slack < 0:
            status.missed += 1
            self._node.fault(
                "missed.deadline",
                f"a plan took {1e3 * result.seconds:.1f} ms, {-1e3 * result.slack:.1f} ms beyond its budget",
            )
        self._publish()
        shown = {
            "iterations": result.iterations,
            "evaluations": result.evaluations,
            "slack_ms": f"{1e3 * result.slack:.3f}",
            "delay_ticks": plan.delay,
        }
        self._node.monitor.show(**{f"{self._prefix}{key}": value for key, value in shown.items()})
        self._markers.show(belief, plan, pursuit.goal)

    def end(self, outcome: Outcome, pursuit: Pursuit) -> None:
        """Tell how a goal ended."""
        reached = outcome is Outcome.REACHED
        self._status.state = msg.PlannerStatus.SUCCEEDED if reached else msg.PlannerStatus.FAILED
        self._status.error_code = int(outcome)
        self._status.message = pursuit.message
        self._status.distance = pursuit.distance
        self._publish()
        self._markers.clear()

    def stop(self) -> None:
        """Draw no more."""
        self._markers.stop()

    def _publish(self) -> None:
        self._status.header = header(self._now())
        self._publisher.publish(self._status)
