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
from smwm_ros.messages import belief_from_message, decode_goal, from_time, header, plan_to_message
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.nodes.lifecycle import run
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import LOCK_STEP, Param, from_settings
from smwm_ros.nodes.qos import LATCHED, NEWEST
from smwm_ros.planning.mpc import MPC, PlannerConfig, PlanResult
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Limits, Outcome, Pursuit
from smwm_ros.runtime.plan import Plan

LOOK = 0.1
"""Seconds between two looks at whether the beliefs have fallen silent."""

LIMITS = (
    Param(
        name="tolerance",
        default=0.5,
        low=0.0,
        description="Distance at which a goal counts as reached, in model steps; goals may give their own.",
    ),
    Param(
        name="time_limit",
        default=30.0,
        low=0.0,
        description="ROS seconds until a goal is given up; goals may give their own.",
    ),
    Param(
        name="no_progress",
        default=5.0,
        low=0.0,
        description="ROS seconds without getting nearer until a goal is given up; 0: never.",
    ),
    Param(
        name="max_belief_age",
        default=0.5,
        low=0.0,
        description="ROS seconds by which a belief may be old, or ahead, and still be planned from.",
    ),
    Param(
        name="belief_timeout",
        default=2.0,
        low=0.0,
        description="Steady seconds without a usable belief until a goal is given up.",
    ),
    Param(
        name="lock_step_timeout",
        default=30.0,
        low=0.0,
        description="The same in lock-step, where time stands still while the slowest node works.",
    ),
)


@dataclass
class Task:
    """An accepted goal."""

    handle: ServerGoalHandle
    pursuit: Pursuit
    ended: Future[None]
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
        *LIMITS,
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
        self._execute = config.replan
        self._planner = self._make_planner(self._model, config, self.value("seed"))
        nothing = np.zeros(self._model.latent_size, np.float32)
        self._planner.plan(nothing, nothing, None)  # the first run is slow
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
        self._tasks: dict[bytes, Task] = {}
        self._sequence = 0
        self._newest: msg.Plan | None = None
        self._status = msg.PlannerStatus(state=msg.PlannerStatus.IDLE, message="waiting for a belief")
        self._job: tuple[Task, Belief, float] | None = None
        self._changed = threading.Condition()
        self._working = True
        self._worker = threading.Thread(target=self._work, name="planner", daemon=True)
        self._worker.start()
        self._tell()

    def stop(self) -> None:
        """End the goal, which stops the robot."""
        if self._task is not None:
            self._end(self._task, Outcome.INTERNAL, "the planner was deactivated")
        with self._changed:
            self._working = False
            self._changed.notify()
        self._worker.join()

    def tear_down(self) -> None:
        """Remove the action server and free the model."""
        if self._server is not None:
            self._server.destroy()
            self._server = None
        self._model = self._planner = None

    def _on_goal(self, _: ReachGoal.Goal) -> GoalResponse:
        return GoalResponse.ACCEPT if self.active else GoalResponse.REJECT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        now, steady = self._now(), time.monotonic()
        task = self._tasks[bytes(handle.goal_id.uuid)] = self._make_task(handle, now, steady)
        if task.pursuit.outcome is not None:
            task.ended.set_result(None)
        else:
            if self._task is not None:
                self._end(self._task, Outcome.PREEMPTED, "a newer goal took over")
            with self._changed:
                self._task = task
            self._status = msg.PlannerStatus(state=msg.PlannerStatus.ACTIVE, message="pursuing the goal")
            self._tell()
            if self._belief is not None:
                self._observe(self._belief, now, steady)
        handle.execute()

    def _make_task(self, handle: ServerGoalHandle, now: int, steady: float) -> Task:
        request = handle.request
        problem, goal = "", np.zeros(0, np.float32)
        try:
            goal = self._goal_latent(request)
        except DataError as error:
            problem = str(error)
        given = from_time(request.time_limit) * 1e-9
        if given < 0 or not np.isfinite(request.tolerance):
            problem = f"time limit {given} s or tolerance {request.tolerance} makes no sense; see ReachGoal"
        limits = Limits(
            tolerance=request.tolerance if request.tolerance >= 0 else self.value("tolerance"),
            time_limit=given or self.value("time_limit"),
            no_progress=self.value("no_progress"),
            max_belief_age=self.value("max_belief_age"),
            belief_timeout=self.value("lock_step_timeout" if self.value("lock_step") else "belief_timeout"),
        )
        distance = self._model.distance
        pursuit = Pursuit(
            goal, limits, self._contract, distance, replan=self._execute, now=now, steady=steady
        )
        if problem:
            self.get_logger().warning(f"goal refused: {problem}")
            pursuit.end(Outcome.BAD_GOAL, problem)
        return Task(handle, pursuit, self.executor.create_future())

    def _goal_latent(self, request: ReachGoal.Goal) -> NDArray[np.float32]:
        if len(request.image.data):
            image = decode_goal(self._contract, request.image)
            latent = self._model.encode(np.stack([image] * self._model.frames))
        else:
            latent = np.array(request.latent, np.float32)
        if latent.shape != (self._model.latent_size,) or not np.isfinite(latent).all():
            raise DataError(
                f"the goal has no image, and its latent of {latent.size} numbers is not one of "
                f"{self._model.latent_size} finite ones, as {self._model.id} has"
            )
        return latent

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        task = self._tasks.get(bytes(handle.goal_id.uuid))
        if task is None or task is not self._task:
            return CancelResponse.REJECT
        self._end(task, Outcome.CANCELED, "cancelled by the client")
        return CancelResponse.ACCEPT

    async def _finish_goal(self, handle: ServerGoalHandle) -> ReachGoal.Result:
        key = bytes(handle.goal_id.uuid)
        task = self._tasks[key]
        await task.ended
        del self._tasks[key]
        pursuit = task.pursuit
        if pursuit.outcome is Outcome.REACHED:
            handle.succeed()
        elif pursuit.outcome is Outcome.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        return ReachGoal.Result(
            success=pursuit.outcome is Outcome.REACHED,
            error_code=int(pursuit.outcome),
            message=pursuit.message,
            final_distance=pursuit.distance,
            plans=task.plans,
        )

    def _on_belief(self, message: msg.Belief) -> None:
        arrival = time.monotonic()
        belief = belief_from_message(message)
        if belief.model != self._model.id or belief.latent.shape != (self._model.latent_size,):
            raise DataError(
                f"belief of {belief.latent.size} numbers by {belief.model!r}, expected "
                f"{self._model.latent_size} by {self._model.id!r}; start all nodes with the same checkpoint"
            )
        if not np.isfinite(belief.latent).all():
            raise DataError("belief is not finite")
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
            with self._changed:
                self._job = (task, belief, arrival)
                self._changed.notify()
        elif task.pursuit.outcome is not None:
            self._conclude(task)
        elif self._newest is not None and from_time(self._newest.header.stamp) == belief.stamp:
            self._plans.publish(self._newest)  # an image shown again: the plan did not get through

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
        if task.ended.done():
            return
        pursuit = task.pursuit
        with self._changed:
            self._task = self._job = self._newest = None
            if pursuit.outcome is not Outcome.PREEMPTED:
                size = self._contract.action.size
                self._publish_plan(np.zeros((0, size)), self._now(), self._belief, execute=0)
        reached = pursuit.outcome is Outcome.REACHED
        self._status.state = msg.PlannerStatus.SUCCEEDED if reached else msg.PlannerStatus.FAILED
        self._status.error_code = int(pursuit.outcome)
        self._status.message = pursuit.message
        self._status.distance = pursuit.distance
        self._tell()
        self.get_logger().info(f"goal ended: {pursuit.outcome.name}: {pursuit.message}")
        task.ended.set_result(None)

    def _work(self) -> None:
        """Plan for whatever job is there; the worker's thread."""
        warm: tuple[Task, int] | None = None  # whose the planner's last plan is, and its stamp
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._job is not None or not self._working)
                if not self._working or self._job is None:
                    return
                (task, belief, arrival), self._job = self._job, None
            try:
                elapsed = None
                if warm is not None and warm[0] is task and warm[1] <= belief.stamp:
                    elapsed = round((belief.stamp - warm[1]) / self._contract.period_ns)
                else:
                    self._planner.reset()
                result = self._planner.plan(belief.latent, task.pursuit.goal, elapsed)
                if not np.isfinite(result.actions).all():
                    raise ArithmeticError("the plan is not finite")
            except Exception as error:
                self.log_exception("planning", error)
                task.pursuit.end(Outcome.INTERNAL, f"planning failed: {error!r}; see the planner's log")
                self.executor.create_task(self._conclude, task)
                continue
            warm = (task, belief.stamp)
            with self._changed:
                if task is not self._task:
                    continue  # ended meanwhile
                self._newest = self._publish_plan(
                    result.actions, belief.stamp, belief, execute=self._execute, cost=float(result.cost)
                )
                task.plans += 1
            self.monitor.done(time.monotonic() - arrival)
            self._tell_plan(task, result)

    def _publish_plan(
        self, actions: NDArray[np.float64], stamp: int, belief: Belief | None, *, execute: int, **more: float
    ) -> msg.Plan:
        self._sequence += 1
        plan = Plan(
            stamp=stamp,
            evidence=0 if belief is None else belief.evidence,
            model=self._model.id,
            sequence=self._sequence,
            period=self._contract.period,
            execute=execute,
            actions=actions,
            **more,
        )
        message = plan_to_message(plan)
        self._plans.publish(message)
        return message

    def _tell_plan(self, task: Task, result: PlanResult) -> None:
        pursuit = task.pursuit
        with self._changed:
            if task is not self._task:
                return  # ended meanwhile; the status is no longer this goal's
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
        return self.get_clock().now().nanoseconds


def main() -> None:
    """Run the node."""
    run(lambda: PlannerNode("planner"))


if __name__ == "__main__":
    main()
