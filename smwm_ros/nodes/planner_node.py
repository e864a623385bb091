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
from rclpy.action.server import ServerGoalHandle

from smwm_ros import msg
from smwm_ros.action import ReachGoal
from smwm_ros.errors import SmwmError
from smwm_ros.messages import belief_from_message, from_time, plan_to_message
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.nodes import goals
from smwm_ros.nodes.goal_server import GoalServer
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import LOCK_STEP
from smwm_ros.nodes.planner_parameters import LATENCY, SEED, settings_of
from smwm_ros.nodes.planner_report import PlannerReport
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import NEWEST
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.mpc import Planner
from smwm_ros.planning.planners import make_planner, planner_config
from smwm_ros.runtime.belief import Belief
from smwm_ros.runtime.goal import Outcome, Pursuit
from smwm_ros.runtime.plan import Plan
from smwm_ros.runtime.replanning import Latency, Replanner
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
        LATENCY,
        SEED,
    )

    depends_on = ("world_model",)

    def __init__(
        self, name: str, *, planner: Callable[..., Planner] = make_planner, **arguments: Any
    ) -> None:
        """
        Make the node.

        Args:
            name: the node's name, unless remapped.
            planner: makes one of a checkpoint, a PlannerConfig and a seed.
            arguments: see :class:`ModelNode`.
        """
        super().__init__(name, **arguments)
        self.declared.declare(settings_of(self.value("contract")))
        self._make_planner = planner
        self._server: GoalServer | None = None

    def set_up(self) -> None:
        """Load the model, plan once, and make the topics and the action server."""
        self._contract = self.read_contract()
        self._model: Checkpoint | None = self.read_model(self._contract)
        given = {name: self.value(name) for name in PlannerConfig.model_fields}
        config = planner_config(self._contract, given, self.get_fully_qualified_name())
        self._config = config
        self._lock_step = self.value("lock_step")
        nothing = np.zeros(self._model.latent_size, np.float32)
        # The first run is slow. It is another planner's, since it draws random numbers.
        self._make_planner(self._model, config, 0).plan(nothing, nothing)
        self._replanner = Replanner(
            self._make_planner(self._model, config, self.value("seed")),
            self._contract,
            Latency(
                self._contract,
                0.0 if self._lock_step else self.value("latency"),
                config.horizon * self._contract.block,
            ),
        )
        self._plans = self.offer(msg.Plan, "plan", NEWEST)
        self._report = PlannerReport(self, self._now)
        self.listen(msg.Belief, "belief", self._on_belief, NEWEST)
        self.every(LOOK, self._look)
        self._server = GoalServer(self, self._read, self._begin, self._cancel)

    def start(self) -> None:
        """Wait for goals."""
        self._belief: Belief | None = None
        self._task: Task | None = None
        self._sequence = 0
        self._newest: Plan | None = None
        # Whose goal it is, plans and report are changed by both threads.
        self._lock = threading.RLock()
        self._worker = Worker[tuple[Task, Belief, float]]("planner", self._plan)
        self._report.begin(msg.PlannerStatus.WAITING, "waiting for a belief")

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
        self._model = self._replanner = None

    def _read(self, request: ReachGoal.Goal) -> Pursuit:
        """Make something to pursue of a request; a DataError says that it cannot be used."""
        now, steady = self._now(), time.monotonic()
        return Pursuit(
            goals.read_latent(request, self._contract, self._model),
            goals.read_limits(request, self.value),
            self._contract,
            self._model.distance,
            replan=self._config.replan,
            now=now,
            steady=steady,
            begin=from_time(request.begin),
        )

    def _begin(self, handle: ServerGoalHandle, pursuit: Pursuit) -> None:
        now, steady = self._now(), time.monotonic()
        if self._task is not None:
            self._end(self._task, Outcome.PREEMPTED, "a newer goal took over")
        with self._lock:
            self._task = Task(handle, pursuit)
            self._report.begin(msg.PlannerStatus.ACTIVE, "pursuing the goal")
        # In lock-step the belief of this tick is on its way: a plan from an earlier one is one too many.
        if self._belief is not None and not (self._lock_step and self._belief.stamp < now):
            self._observe(self._belief, now, steady)

    def _cancel(self, handle: ServerGoalHandle) -> bool:
        if self._task is None or self._task.handle != handle:
            return False
        self._end(self._task, Outcome.CANCELED, "cancelled by the client")
        return True

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
        if first and self._report.waiting:
            self._report.begin(msg.PlannerStatus.IDLE, "waiting for a goal")
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
            if 0 <= index < self._config.replan:
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
        with self._lock:
            self._task = self._newest = None
            if pursuit.outcome is not Outcome.PREEMPTED:
                nothing = np.zeros((0, self._contract.action.size))
                evidence = 0 if self._belief is None else self._belief.evidence
                self._publish_plan(nothing, self._now(), evidence, 0)
            self._report.end(pursuit.outcome, pursuit)
        self.get_logger().info(f"goal ended: {pursuit.outcome.name}: {pursuit.message}")
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

    def _plan(self, job: tuple[Task, Belief, float]) -> None:
        """Plan from a belief towards a goal, and publish; the worker's thread."""
        task, belief, arrival = job
        if task is not self._task:
            return
        try:
            plan = self._replanner.plan(task.pursuit, belief, self._now())
        except Exception as error:
            self._give_up(task, error)
            return
        with self._lock:
            if task is not self._task:
                return  # ended meanwhile
            execute = 1 if self._lock_step else min(self._config.replan, len(plan.actions))
            self._newest = self._publish_plan(
                plan.actions, plan.stamp, belief.evidence, execute, float(plan.result.cost)
            )
            self.monitor.done(time.monotonic() - arrival)
            task.plans += 1
            task.pursuit.expect(float(plan.result.cost))
            self._report.planned(task.pursuit, plan)
            task.handle.publish_feedback(
                ReachGoal.Feedback(
                    distance=task.pursuit.distance,
                    subgoal=array("f", plan.subgoal.tobytes()),
                    solve_time=plan.result.seconds,
                    surprise=task.pursuit.surprise,
                )
            )

    def _give_up(self, task: Task, error: Exception) -> None:
        """End a goal that cannot be planned for; the worker's thread."""
        reason = str(error)
        if not isinstance(error, SmwmError):  # a defect, perhaps of a plugin
            self.log_exception("planning", error)
            reason = f"planning failed: {error!r}; see the planner's log"
        task.pursuit.end(Outcome.INTERNAL, reason)
        self.executor.create_task(self._conclude, task)

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
