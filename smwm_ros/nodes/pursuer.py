"""One robot that the planner node brings to goals: its topics, its goal, and what it is told to play."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.action.server import ServerGoalHandle

from smwm_ros import msg
from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.errors import SmwmError
from smwm_ros.messages import belief_from_message, from_time, plan_to_message
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.nodes import goals
from smwm_ros.nodes.goal_server import GoalServer
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.markers import Markers
from smwm_ros.nodes.planner_report import PlannerReport
from smwm_ros.nodes.qos import NEWEST
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Outcome, Pursuit
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.replanning import TimedPlan


@dataclass(frozen=True)
class Robots:
    """What is the same for all robots of a planner node."""

    contract: Contract
    model: Checkpoint
    replan: int
    """Control ticks played of one plan before the next."""
    lock_step: bool


@dataclass
class Task:
    """An accepted goal."""

    handle: ServerGoalHandle
    pursuit: Pursuit
    plans: int = 0


@dataclass(frozen=True, eq=False)
class Due:
    """A plan that should be made."""

    pursuer: Pursuer
    task: Task
    belief: Belief
    arrival: float
    """Steady time at which the belief came."""


class Pursuer:
    """
    Serves one robot: takes its goals and beliefs, says when a plan is due, and publishes it.

    A newer goal takes over from the one before it, which ends as preempted. A goal that cannot be used
    ends at once and preempts nothing. When a goal ends otherwise, an empty plan stops the robot.
    ``deliver`` and ``give_up`` are for the thread that plans, everything else for the executor's.
    """

    def __init__(
        self, node: SmwmNode, number: int, namespace: str, robots: Robots, due: Callable[[Due], None]
    ) -> None:
        """
        Make the topics and the action server.

        Args:
            node: the planner.
            number: of the robot, for the planner.
            namespace: of its topics, relative to the node's; empty for the same.
            robots: what is the same for all.
            due: takes what is to be planned.
        """
        self.number = number
        prefix = f"{namespace}/" if namespace else ""
        self._node = node
        self._log = node.get_logger().get_child(namespace.strip("/")) if namespace else node.get_logger()
        self._robots = robots
        self._due = due
        self._plans = node.offer(msg.Plan, f"{prefix}plan", NEWEST)
        markers = Markers(node, prefix, robots.contract, robots.model, self.now)
        self._report = PlannerReport(node, prefix, self.now, markers)
        node.listen(msg.Belief, f"{prefix}belief", self._on_belief, NEWEST)
        self._server = GoalServer(node, f"{prefix}reach_goal", self._read, self._begin, self._cancel)
        # Whose goal it is, plans and report are changed by both threads.
        self._lock = threading.RLock()
        self._task: Task | None = None
        self._belief: Belief | None = None
        self._newest: Plan | None = None
        self._sequence = 0

    def start(self) -> None:
        """Wait for goals."""
        self._belief = self._newest = None
        self._sequence = 0
        self._report.begin(msg.PlannerStatus.WAITING, "waiting for a belief")

    def stop(self) -> None:
        """End the goal, which stops the robot."""
        if self._task is not None:
            self._end(self._task, Outcome.INTERNAL, "the planner was deactivated")
        self._report.stop()

    def destroy(self) -> None:
        """Withdraw the action."""
        self._server.destroy()

    def look(self) -> None:
        """See whether the beliefs have fallen silent; to be called now and then."""
        if self._task is not None:
            self._task.pursuit.check(time.monotonic())
            if self._task.pursuit.outcome is not None:
                self._conclude(self._task)

    def now(self) -> int:
        """Return ROS time, in ns."""
        now = self._node.get_clock().now().nanoseconds
        if self._robots.lock_step and self._belief is not None:
            # A belief's image was shown no later than now; /clock may be on its way still.
            return max(now, self._belief.stamp)
        return now

    def pursues(self, task: Task) -> bool:
        """Whether this is the goal."""
        return task is self._task

    def deliver(self, due: Due, made: TimedPlan) -> None:
        """Publish a plan."""
        task, belief, cost = due.task, due.belief, float(made.result.cost)
        with self._lock:
            if task is not self._task:
                return  # ended meanwhile
            execute = 1 if self._robots.lock_step else min(self._robots.replan, len(made.actions))
            self._newest = self._publish(made.actions, made.stamp, belief.evidence, execute, cost)
            self._node.monitor.done(time.monotonic() - due.arrival)
            task.plans += 1
            task.pursuit.expect(cost)
            self._report.planned(task.pursuit, belief, made)
            task.handle.publish_feedback(
                ReachGoal.Feedback(
                    distance=task.pursuit.distance,
                    subgoal=array("f", made.subgoal.tobytes()),
                    solve_time=made.result.seconds,
                    surprise=task.pursuit.surprise,
                )
            )

    def give_up(self, task: Task, error: Exception) -> None:
        """End a goal that cannot be planned for."""
        reason = str(error)
        if not isinstance(error, SmwmError):  # a defect, perhaps of a plugin
            self._node.log_exception("planning", error)
            reason = f"planning failed: {error!r}; see the planner's log"
        task.pursuit.end(Outcome.INTERNAL, reason)
        self._node.executor.create_task(self._conclude, task)

    def _read(self, request: ReachGoal.Goal) -> Pursuit:
        """Make something to pursue of a request; a DataError says that it cannot be used."""
        now, steady = self.now(), time.monotonic()
        robots = self._robots
        return Pursuit(
            goals.read_latent(request, robots.contract, robots.model),
            goals.read_limits(request, self._node.value),
            robots.contract,
            robots.model.distance,
            replan=robots.replan,
            now=now,
            steady=steady,
            begin=from_time(request.begin),
        )

    def _begin(self, handle: ServerGoalHandle, pursuit: Pursuit) -> None:
        now, steady = self.now(), time.monotonic()
        if self._task is not None:
            self._end(self._task, Outcome.PREEMPTED, "a newer goal took over")
        with self._lock:
            self._task = Task(handle, pursuit)
            self._report.begin(msg.PlannerStatus.ACTIVE, "pursuing the goal")
        # In lock-step the belief of this tick is on its way: a plan from an earlier one is one too many.
        if self._belief is not None and not (self._robots.lock_step and self._belief.stamp < now):
            self._observe(self._task, self._belief, now, steady)

    def _cancel(self, handle: ServerGoalHandle) -> bool:
        if self._task is None or self._task.handle != handle:
            return False
        self._end(self._task, Outcome.CANCELED, "cancelled by the client")
        return True

    def _on_belief(self, message: msg.Belief) -> None:
        arrival, model = time.monotonic(), self._robots.model
        belief = belief_from_message(message)
        if belief.model != model.id or belief.latent.shape != (model.latent_size,):
            self._node.fault(
                "dropped.belief",
                f"belief of {belief.latent.size} numbers by {belief.model!r}, expected "
                f"{model.latent_size} by {model.id!r}; start all nodes with the same checkpoint",
            )
            return
        if not np.isfinite(belief.latent).all():
            self._node.fault("dropped.belief", "belief is not finite")
            return
        first, self._belief = self._belief is None, belief
        if first and self._report.waiting:
            self._report.begin(msg.PlannerStatus.IDLE, "waiting for a goal")
        if self._task is not None:
            self._observe(self._task, belief, self.now(), arrival)

    def _observe(self, task: Task, belief: Belief, now: int, arrival: float) -> None:
        """Feed the goal with a belief; let it be planned from if that is due."""
        if task.pursuit.observe(belief, now, arrival):
            self._due(Due(self, task, belief, arrival))
        elif task.pursuit.outcome is not None:
            self._conclude(task)
        elif self._robots.lock_step:
            self._play_on(belief)

    def _play_on(self, belief: Belief) -> None:
        """
        Send the rest of the newest plan, for the tick of this belief.

        In lock-step each plan is for one tick, so that time waits for every belief. A plan for several
        would be played faster than the images are encoded, and which of them are would be chance.
        """
        with self._lock:
            plan = self._newest
            if plan is None:
                return
            index = round((belief.stamp - plan.stamp) / self._robots.contract.period_ns)
            if 0 <= index < self._robots.replan:
                self._publish(plan.actions[index:], belief.stamp, plan.evidence, 1, plan.cost)

    def _end(self, task: Task, outcome: Outcome, message: str) -> None:
        task.pursuit.end(outcome, message)
        self._conclude(task)

    def _conclude(self, task: Task) -> None:
        """Make the end of a goal known; runs in the executor's thread."""
        if task is not self._task:
            return
        pursuit = task.pursuit
        assert pursuit.outcome is not None
        with self._lock:
            self._task = self._newest = None
            if pursuit.outcome is not Outcome.PREEMPTED:
                nothing = np.zeros((0, self._robots.contract.action.size))
                evidence = 0 if self._belief is None else self._belief.evidence
                self._publish(nothing, self.now(), evidence, 0)
            self._report.end(pursuit.outcome, pursuit)
        self._log.info(f"goal ended: {pursuit.outcome.name}: {pursuit.message}")
        self._server.end(
            task.handle,
            ReachGoal.Result(
                success=pursuit.outcome is Outcome.REACHED,
                error_code=int(pursuit.outcome),
                message=pursuit.message,
                final_distance=pursuit.distance,
                plans=task.plans,
            ),
        )

    def _publish(
        self,
        actions: NDArray[np.float64],
        stamp: int,
        evidence: int,
        execute: int,
        cost: float = float("nan"),
    ) -> Plan:
        self._sequence += 1
        plan = Plan(
            stamp=stamp,
            evidence=evidence,
            model=self._robots.model.id,
            sequence=self._sequence,
            period=self._robots.contract.period,
            execute=execute,
            actions=actions,
            cost=cost,
        )
        self._plans.publish(plan_to_message(plan))
        return plan
