"""A running robot that faults can be brought upon: its processes, the injector among them, and a witness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import Self

from smwm_ros.errors import StackError
from smwm_ros.resources import find_contract
from smwm_ros.stack.description import describe
from smwm_ros.stack.restarts import RestartPolicy
from smwm_ros.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from smwm_ros.nodes.witness import Witness

LOOK = 0.005
"""Seconds between two looks at what has come."""
MOVING = 0.05
"""A planned action that differs from the safe one by more than this share of its range moves the robot."""
START = 30.0
"""Longest wait for the robot to move towards a goal, seconds."""
GOALS = 10
WITHOUT_CLOCK = ("sim",)
"""Nodes that stay with the system's time where the injector makes /clock."""
RESTARTS = RestartPolicy(most=10_000, longest=RestartPolicy.first)
"""As `smwm up`, but without growing patience: no robot dies as often as here."""
BUSY = {
    "cpu": "while True: pass",
    "cuda": "import torch\na = torch.rand(8192, 8192, device='cuda')\nwhile True: a @ a",
}


class FaultSession:
    """
    The simulated robot in real time, every node a process; a context manager.

    The camera and the planner send to the fault injector, which passes on what perception and the action
    node get. A goal is always being pursued: :meth:`move` asks for the next one.
    """

    def __init__(
        self, robot: str, checkpoint: Path, *, replan: int, clock: bool, generator: np.random.Generator
    ) -> None:
        """
        Prepare; nothing is started yet.

        Args:
            robot: name or path of the contract, of a simulated robot with a raw camera.
            checkpoint: of its world model.
            replan: control ticks played of a plan before the next.
            clock: the nodes go by the injector's /clock instead of the system's time.
            generator: draws the moments.
        """
        from smwm_ros.models.checkpoint import load_checkpoint
        from smwm_ros.nodes.fault_injector import UNDAMAGED
        from smwm_ros.tasks import make_task

        self.contract = find_contract(robot)
        self.clock = clock
        self.offset = time.time_ns() - time.monotonic_ns()
        """Time of the images' stamps less steady time, in ns; means nothing with /clock."""
        self._replan = replan
        self._generator = generator
        self._robot = robot
        task = make_task(self.contract)
        self._goals = [task.reset(seed=number)[0]["pixels"] for number in range(GOALS)]
        task.close()
        self._next_goal = count()
        model = load_checkpoint(checkpoint, "cpu").id
        camera = self.contract.observation.image.topic
        renamed = {"sim": {camera: camera + UNDAMAGED}, "planner": {"plan": "plan" + UNDAMAGED}}
        sim_time = {name: {"use_sim_time": False} for name in WITHOUT_CLOCK}
        specs = describe(
            "sim",
            {"contract": robot, "checkpoint": str(checkpoint), "use_sim_time": clock},
            {"planner": {"replan": replan}, "action": {"model": model}, **sim_time},
        )
        self._specs = [
            replace(spec, remappings={**spec.remappings, **renamed.get(spec.name, {})}) for spec in specs
        ]

    def __enter__(self) -> Self:
        from smwm_ros.nodes.witness import Witness

        with ExitStack() as started:
            self.stack = started.enter_context(Supervisor(self._specs, restarts=RESTARTS))
            command = [sys.executable, "-m", "smwm_ros.nodes.fault_injector", "--contract", self._robot]
            self._injector = started.enter_context(
                subprocess.Popen(
                    [*command, *(["--clock"] if self.clock else [])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            started.callback(self._injector.kill)
            self.witness: Witness = started.enter_context(Witness(self.contract))
            self.stack.wait_ready()
            self._started = started.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._started.close()

    def order(self, **faults: str) -> float:
        """Begin or end faults of the injector; return the time of the last good evidence, steady seconds."""
        assert self._injector.stdin is not None
        assert self._injector.stdout is not None
        self._injector.stdin.write(json.dumps(faults) + "\n")
        self._injector.stdin.flush()
        answer = self._injector.stdout.readline()
        if not answer:
            raise StackError("the fault injector has ended")
        return float(json.loads(answer)["moment"])

    def send(self, node: str, number: signal.Signals) -> float:
        """Send a signal to a node's process; return when, in steady seconds."""
        moment = time.monotonic()
        with suppress(ProcessLookupError):  # the supervisor may have ended it meanwhile
            os.kill(self.stack.processes[node], number)
        return moment

    def starve(self, device: str, processes: int = 2) -> list[subprocess.Popen[bytes]]:
        """Start processes that want all of a device, cpu or cuda; to be killed."""
        return [subprocess.Popen([sys.executable, "-c", BUSY[device]]) for _ in range(processes)]

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is true, and look after the processes; False if it did not in time."""
        end = time.monotonic() + seconds
        while not condition():
            self.stack.check()
            if time.monotonic() > end:
                return False
            time.sleep(LOOK)
        return True

    def move(self) -> None:
        """
        Ask for another goal, wait until the robot moves towards it, and on to some moment of a plan.

        Raises:
            StackError: it does not.
        """
        self.witness.forget()
        for _ in range(GOALS):
            begin = time.monotonic()
            self.witness.pursue(self._goals[next(self._next_goal) % GOALS])
            if self.wait(partial(self._moves, begin), START / GOALS):
                time.sleep(float(self._generator.uniform(0, self._replan * self.contract.period)))
                return
        raise StackError(
            f"the robot did not move towards any of {GOALS} goals; logs are in {self.stack.logs}"
        )

    def _moves(self, since: float) -> bool:
        action = self.contract.action
        least = MOVING * (action.high - action.low)
        return any(
            not note.safe and bool((np.abs(note.values - action.safe_values) > least).any())
            for note in self.witness.testimony(since).applied
        )
