"""Brings the robot to goal images: the ``reach_goal`` action server."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from smwm_ros import msg
from smwm_ros.action import ReachGoal
from smwm_ros.errors import ConfigError, DataError
from smwm_ros.messages import belief_from_message, from_time, header, plan_to_message
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.nodes import goals
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import LOCK_STEP, Param, from_settings
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import LATCHED, NEWEST
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.mpc import MPC, PlanResult
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Outcome, Pursuit
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.worker import Worker

LOOK = 0.1
"""Seconds between two looks at whether the beliefs have fallen silent."""


@dataclass
class Task:
    """An accepted goal."""

    handle: ServerGoalHandle
    pursuit: Pursuit
    plans: int = 0


class PlannerNode(ModelNode):
    """
    Pursues one goal at a time: plans from the beliefs, in a thread of its own, and publishes Plans.

    A newer goal takes over from the one before it, which ends as preempted. A goal that cannot be used
    ends at once and preempts nothing. When a goal ends otherwise, an empty plan stops the robot.
    """

    parameters = (
        *ModelNode.model_parameters,
        LOCK_STEP,
        *goals.PARAMETERS,
        *from_settings(PlannerConfig),
        Param(name="seed", default=0, low=0, description="Draws the search's samples."),
    )

    def __init__(self, name: str, *, planner: Callable[..., Any] = MPC, **arguments: Any) -> None:
        """
        Make the node.

        Args:
            name: the node's name, unless remapped.
            planner: takes a checkpoint, a PlannerConfig and a seed; has ``reset`` and ``plan``.
            arguments: see :class:`ModelNode`.
        """
        super().__init__(name, **arguments)
        self._make_planner = planner
        self._server: ActionServer | None = None

    def set_up(self) -> None:
        """Load the model, plan once, and make the topics and the action server."""
        self._contract = self.read_contract()
        self._model: Checkpoint | None = self.read_model(self._contract)
        try:
            config = PlannerConfig(**{name: self.value(name) for name in PlannerConfig.model_fields})
        except ValidationError as error:
            reasons = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
            raise ConfigError(f"{self.get_fully_qualified_name()}: {reasons}") from error
        self._replan = config.replan
        self._lock_step = self.value("lock_step")
        nothing = np.zeros(self._model.latent_size, np.float32)
        # The first run is slow. It is another planner's, since it draws random numbers.
        self._make_planner(self._model, config, 0).plan(nothing, nothing, None)
        self._planner = self._make_planner(self._model, config, self.value("seed"))
        self._plans = self.create_publisher(msg.Plan, "plan", NEWEST)
        self._statuses = self.create_publisher(msg.PlannerStatus, "planner_status", LATCHED)
        self.listen(msg.Belief, "belief", self._on_belief, NEWEST)
        self.every(LOOK, self._look)
        self._server = ActionServer(
            self,
            ReachGoal,
            "reach_goal",
            execute_callback=self._finish_goal,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def start(self) -> None:
        """Wait for goals."""
        self._belief: Belief | None = None
        self._task: Task | None = None
        self._results: dict[bytes, Future[ReachGoal.Result]] = {}
        self._sequence = 0
        self._newest: Plan | None = None
        self._warm: tuple[Task, int] | None = None  # whose the planner's last plan is, and its stamp
        self._status = msg.PlannerStatus(state=msg.PlannerStatus.IDLE, message="waiting for a belief")
        # Whose goal it is, plans and status are changed by both threads.
        self._lock = threading.RLock()
        self._worker = Worker[tuple[Task, Belief, float]]("planner", self._plan)
        self._tell()

    def stop(self) -> None:
        """End the goal, which stops the robot."""
        if self._task is not None:
            self._end(self._task, Outcome.INTERNAL, "the planner was deactivated")
        self._worker.stop()

    def tear_down(self) -> None:
        """Remove the action server and free the model."""
        if self._server is not None:
            self._server.destroy()
            self._server = None
        self._model = self._planner = None

    def _on_goal(self, _: ReachGoal.Goal) -> GoalResponse:
        return GoalResponse.ACCEPT if self.active else GoalResponse.REJECT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        self._results[bytes(handle.goal_id.uuid)] = Future()
        handle.execute()
        now, steady = self._now(), time.monotonic()
        try:
            pursuit = Pursuit(
                goals.read_latent(handle.request, self._contract, self._model),
                goals.read_limits(handle.request, self.value),
                self._contract,
                self._model.distance,
                replan=self._replan,
                now=now,
                steady=steady,
                begin=from_time(handle.request.begin),
            )
        except Exception as error:
            self._refuse(handle, error)
            return
        if self._task is not None:
            self._end(self._task, Outcome.PREEMPTED, "a newer goal took over")
        with self._lock:
            self._task = Task(handle, pursuit)
            self._status = msg.PlannerStatus(state=msg.PlannerStatus.ACTIVE, message="pursuing the goal")
            self._tell()
        # In lock-step the belief of this tick is on its way: a plan from an earlier one is one too many.
        if self._belief is not None and not (self._lock_step and self._belief.stamp < now):
            self._observe(self._belief, now, steady)

    def _refuse(self, handle: ServerGoalHandle, error: Exception) -> None:
        code = Outcome.BAD_GOAL if isinstance(error, DataError) else Outcome.INTERNAL
        if code is Outcome.INTERNAL:
            self.log_exception("reading a goal", error)
        self.get_logger().warning(f"goal refused: {error}")
        self._result(handle).set_result(
            ReachGoal.Result(error_code=int(code), message=str(error), final_distance=float("nan"))
        )

    def _result(self, handle: ServerGoalHandle) -> Future[ReachGoal.Result]:
        return self._results[bytes(handle.goal_id.uuid)]

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._task is None or self._task.handle != handle:
            return CancelResponse.REJECT
        self._end(self._task, Outcome.CANCELED, "cancelled by the client")
        return CancelResponse.ACCEPT

    async def _finish_goal(self, handle: ServerGoalHandle) -> ReachGoal.Result:
        result = await self._result(handle)
        del self._results[bytes(handle.goal_id.uuid)]
        if result.success:
            handle.succeed()
        elif result.error_code == ReachGoal.Result.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _on_belief(self, message: msg.Belief) -> None:
        arrival = time.monotonic()
        belief = belief_from_message(message)
        if belief.model != self._model.id or belief.latent.shape != (self._model.latent_size,):
            self.fault(
                "dropped.belief",
                f"belief of {belief.latent.size} numbers by {belief.model!r}, expected "
                f"{self._model.latent_size} by {self._model.id!r}; start all nodes with the same checkpoint",
            )
            return
        if not np.isfinite(belief.latent).all():
            self.fault("dropped.belief", "belief is not finite")
            return
        first, self._belief = self._belief is None, belief
        if first and self._status.state == msg.PlannerStatus.IDLE:
            self._status.message = "waiting for a goal"
            self._tell()
        if self._task is not None:
            self._observe(belief, self._now(), arrival)

    def _observe(self, belief: Belief, now: int, arrival: float) -> None:
        """Feed the goal with a belief; plan from it if that is due."""
        task = self._task
        if task.pursuit.observe(belief, now, arrival):
            self._worker.offer((task, belief, arrival))
        elif task.pursuit.outcome is not None:
            self._conclude(task)
        elif self._lock_step:
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
            index = round((belief.stamp - plan.stamp) / self._contract.period_ns)
            if 0 <= index < self._replan:
                self._publish_plan(plan.actions[index:], belief.stamp, plan.evidence, 1, plan.cost)

    def _look(self) -> None:
        if self._task is not None:
            self._task.pursuit.check(time.monotonic())
            if self._task.pursuit.outcome is not None:
                self._conclude(self._task)

    def _end(self, task: Task, outcome: Outcome, message: str) -> None:
        task.pursuit.end(outcome, message)
        self._conclude(task)

    def _conclude(self, task: Task) -> None:
        """Make the end of a goal known; runs in the executor's thread."""
        if task is not self._task:
            return
        pursuit = task.pursuit
        reached = pursuit.outcome is Outcome.REACHED
        with self._lock:
            self._task = self._newest = None
            if pursuit.outcome is not Outcome.PREEMPTED:
                nothing = np.zeros((0, self._contract.action.size))
                evidence = 0 if self._belief is None else self._belief.evidence
                self._publish_plan(nothing, self._now(), evidence, 0)
            self._status.state = msg.PlannerStatus.SUCCEEDED if reached else msg.PlannerStatus.FAILED
            self._status.error_code = int(pursuit.outcome)
            self._status.message = pursuit.message
            self._status.distance = pursuit.distance
            self._tell()
        self.get_logger().info(f"goal ended: {pursuit.outcome.name}: {pursuit.message}")
        self._result(task.handle).set_result(
            ReachGoal.Result(
                success=reached,
                error_code=int(pursuit.outcome),
                message=pursuit.message,
                final_distance=pursuit.distance,
                plans=task.plans,
            )
        )

    def _plan(self, job: tuple[Task, Belief, float]) -> None:
        """Plan from a belief towards a goal, and publish; the worker's thread."""
        task, belief, arrival = job
        if task is not self._task:
            return
        try:
            result = self._search(task, belief)
        except Exception as error:
            self.log_exception("planning", error)
            task.pursuit.end(Outcome.INTERNAL, f"planning failed: {error!r}; see the planner's log")
            self.executor.create_task(self._conclude, task)
            return
        with self._lock:
            if task is not self._task:
                return  # ended meanwhile
            execute = 1 if self._lock_step else self._replan
            self._newest = self._publish_plan(
                result.actions, belief.stamp, belief.evidence, execute, float(result.cost)
            )
            task.plans += 1
            self.monitor.done(time.monotonic() - arrival)
            self._tell_plan(task, result)

    def _search(self, task: Task, belief: Belief) -> PlanResult:
        elapsed = None
        if self._warm is not None and self._warm[0] is task and self._warm[1] <= belief.stamp:
            elapsed = round((belief.stamp - self._warm[1]) / self._contract.period_ns)
        else:
            self._planner.reset()
        result = self._planner.plan(belief.latent, task.pursuit.goal, elapsed)
        if not np.isfinite(result.actions).all():
            raise ArithmeticError("the plan is not finite")
        self._warm = (task, belief.stamp)
        return result

    def _publish_plan(
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
            model=self._model.id,
            sequence=self._sequence,
            period=self._contract.period,
            execute=execute,
            actions=actions,
            cost=cost,
        )
        self._plans.publish(plan_to_message(plan))
        return plan

    def _tell_plan(self, task: Task, result: PlanResult) -> None:
        pursuit = task.pursuit
        self._status.distance = pursuit.distance
        self._status.cost = float(result.cost)
        self._status.solve_time = result.seconds
        self._status.evaluations = result.evaluations
        self._status.plans = task.plans
        self._tell()
        task.handle.publish_feedback(
            ReachGoal.Feedback(
                distance=pursuit.distance,
                subgoal=array("f", pursuit.goal.tobytes()),
                solve_time=result.seconds,
                surprise=pursuit.surprise,
            )
        )

    def _tell(self) -> None:
        self._status.header = header(self._now())
        self._statuses.publish(self._status)

    def _now(self) -> int:
        now = self.get_clock().now().nanoseconds
        if self._lock_step and self._belief is not None:
            # A belief's image was shown no later than now; /clock may be on its way still.
            return max(now, self._belief.stamp)
        return now


def main() -> None:
    """Run the node."""
    run(lambda: PlannerNode("planner"))


if __name__ == "__main__":
    main()
