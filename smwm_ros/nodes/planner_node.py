"""Brings robots to goal images: a ``reach_goal`` action server for each, and one search for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.nodes import goals
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.parameters import LOCK_STEP
from smwm_ros.nodes.planner_parameters import LATENCY, ROBOTS, SEED, namespaces, settings_of
from smwm_ros.nodes.process import end_if_device_lost, run
from smwm_ros.nodes.pursuer import Due, Pursuer, Robots
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import make_planner, planner_config, require
from smwm_ros.planning.protocol import FleetPlanner
from smwm_ros.runtime.encoder import device_lost
from smwm_ros.runtime.plan import periods
from smwm_ros.runtime.replanning import Job, Latency, Replanner
from smwm_ros.runtime.worker import Worker

LOOK = 0.1
"""Seconds between two looks at whether the beliefs have fallen silent."""


class PlannerNode(ModelNode):
    """
    Plans from the beliefs of one or several robots that are alike, in a thread of its own.

    What belongs to one robot is in its :class:`Pursuer`. Those that are due when the thread is free are
    planned for in one batch.
    """

    parameters = (
        *ModelNode.model_parameters,
        LOCK_STEP,
        *goals.PARAMETERS,
        LATENCY,
        SEED,
        ROBOTS,
    )

    depends_on = ("world_model",)

    def __init__(
        self, name: str, *, planner: Callable[..., FleetPlanner] = make_planner, **arguments: Any
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
        self._pursuers: list[Pursuer] = []
        self._due: dict[int, Due] = {}

    def set_up(self) -> None:
        """Load the model, plan once, and make the robots' topics and action servers."""
        self._contract = self.read_contract()
        self._model: Checkpoint | None = self.read_model(self._contract)
        config = self._settings({})
        lock_step, robots = self.value("lock_step"), namespaces(self.value("robots"))
        if lock_step and len(robots) > 1:
            raise ConfigError(
                f"robots '{self.value('robots')}' in lock_step: time can wait for one robot only; give each "
                "a planner of its own"
            )
        longest = self._contract.action.open_loop
        if longest is not None and not lock_step and config.replan > periods(longest, self._contract):
            raise ConfigError(
                f"replan {config.replan} of {self._contract.period:g} s is longer than the contract's "
                f"action.open_loop of {longest:g} s: the action node would refuse every plan"
            )
        nothing = np.zeros(self._model.latent_size, np.float32)
        # The first run is slow. It is another planner's, since it draws random numbers.
        self._make_planner(self._model, config, 0).plan(nothing, nothing)
        self._replanner = Replanner(
            self._make_planner(self._model, config, self.value("seed")),
            self._contract,
            Latency(
                self._contract,
                0.0 if lock_step else self.value("latency"),
                config.horizon * self._contract.block,
            ),
        )
        self._lock = threading.Lock()
        self._changed: PlannerConfig | None = None
        alike = Robots(self._contract, self._model, config.replan, lock_step)
        for number, namespace in enumerate(robots):
            self._pursuers.append(Pursuer(self, number, namespace, alike, self._offer))
        self.every(LOOK, self._look)

    def start(self) -> None:
        """Wait for goals."""
        self._worker = Worker[None]("planner", self._work)
        for pursuer in self._pursuers:
            pursuer.start()

    def stop(self) -> None:
        """End the goals, which stops the robots."""
        for pursuer in self._pursuers:
            pursuer.stop()
        self._worker.stop()

    def tear_down(self) -> None:
        """Remove the action servers and free the model."""
        while self._pursuers:
            self._pursuers.pop().destroy()
        self._due.clear()
        self._model = self._replanner = None

    def check_change(self, values: dict[str, Any]) -> None:
        """Refuse settings of the planner that do not go together, or not with the model."""
        require(self._model, self._settings(values))

    def change(self, values: dict[str, Any]) -> None:
        """Plan by other settings from the next plan on; other limits are those of the next goal."""
        config = self._settings(values)
        with self._lock:
            self._changed = config

    def _settings(self, values: dict[str, Any]) -> PlannerConfig:
        """Return the planner's settings: the parameters, but for some other values."""
        given = {name: values.get(name, self.value(name)) for name in PlannerConfig.model_fields}
        return planner_config(self._contract, given, self.get_fully_qualified_name())

    def _look(self) -> None:
        for pursuer in self._pursuers:
            pursuer.look()

    def _offer(self, due: Due) -> None:
        """Leave what is to be planned; it replaces what waits for the same robot."""
        with self._lock:
            self._due[due.pursuer.number] = due
        self._worker.offer(None)

    def _work(self, _: None) -> None:
        """Plan for all robots that are due; the worker's thread, which must live on whatever happens."""
        with self._lock:
            waiting, self._due = [due for due in self._due.values() if due.pursuer.pursues(due.task)], {}
            changed, self._changed = self._changed, None
        try:
            with end_if_device_lost(self):
                if changed is not None:
                    self._replanner.change(changed)
                if waiting:
                    self._plan(waiting)
        except Exception as error:  # such as no memory for the new settings
            self.defect("planning", error)
            for due in waiting:
                due.pursuer.give_up(due.task, error)

    def _plan(self, waiting: list[Due]) -> None:
        jobs = [Job(due.pursuer.number, due.task.pursuit, due.belief, due.pursuer.now()) for due in waiting]
        for due, made in zip(waiting, self._replanner.plan(jobs), strict=True):
            if isinstance(made, Exception):
                if device_lost(made):
                    raise made
                due.pursuer.give_up(due.task, made)
            else:
                due.pursuer.deliver(due, made)


def main() -> None:
    """Run the node."""
    run(lambda: PlannerNode("planner"))


if __name__ == "__main__":
    main()
