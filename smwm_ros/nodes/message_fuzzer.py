"""
Gives damaged messages, requests and parameters to the real nodes; a process of its own.

``python -m smwm_ros.nodes.message_fuzzer --contract reacher --checkpoint FILE --folder DIR --seed 0 --first 0
--last 1000`` writes one JSON object in a line for each case, before it (``number``, ``kind``) and after it
(with ``outcome``), so that whoever started it knows which one took it down or holds it up.

The nodes are those of a running system, configured and active, each in a namespace of its own. Every
case is a message as it comes out of the middleware's own serialization, handed to the very callback that
the executor would call. Workers do their jobs at once here, in the caller's thread, so that what comes of a
message is known when the callback returns. One case in fifty is raw bytes that go over the wire instead.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message

from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.nodes.fuzz_subject import NODES, Subject
from smwm_ros.nodes.message_damage import STRINGS, damage, damage_bytes
from smwm_ros.nodes.sound_messages import SoundMessages
from smwm_ros.resources import find_contract
from smwm_ros.runtime.testimony import Account
from smwm_ros.runtime.worker import Worker

WIRE, SOUND, GOAL = 0.02, 0.1, 0.01
"""Shares of the cases: raw bytes, messages left as they are, goals."""
SMALL = {"samples": 8, "iterations": 1, "elites": 4}
"""Settings of the planner: its searches are not what is looked at."""
SETTLE = 20
"""Cases from one turn of the executor to the next, for timers and what else waits."""
ANSWER = 10.0
"""Seconds that an answer to a goal may take."""


class Fuzzer:
    """All nodes, and the cases."""

    def __init__(self, contract: Contract, robot: str, checkpoint: str, folder: Path, seed: int) -> None:
        """
        Start the nodes.

        Args:
            contract: of the robot.
            robot: its name or path.
            checkpoint: path.
            folder: that the recorder may write to; the process runs in it.
            seed: of all cases.
        """
        Worker.offer = lambda self, job: (self._work(job), True)[1]
        self._contract = contract
        self._seed = seed
        path = str(folder / "robot.yaml")
        Path(path).write_text(contract.model_dump_json(), encoding="utf-8")
        common = {"contract": path, "checkpoint": checkpoint, "device": "cpu"}
        parameters: dict[str, dict[str, Any]] = dict.fromkeys(("perception", "world_model"), common)
        parameters |= {"planner": common | SMALL, "action": {"contract": path}}
        parameters["recorder"] = {"contract": path, "bag": str(folder / "bag"), "record": True}
        self.subjects = [Subject(name, parameters[name]) for name in NODES]
        self._action = next(s for s in self.subjects if s.name == "action")
        self._action.watch_commands(contract)
        self._planner = next(s for s in self.subjects if s.name == "planner")
        model = self._planner.node._model
        self._sound = SoundMessages(contract, model.id, model.latent_size)
        self._helper = Node("fuzz_helper", enable_rosout=False, start_parameter_services=False)
        self._goals = ActionClient(self._helper, ReachGoal, "/fuzz/planner/reach_goal")
        self._wires: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor()
        for node in (self._helper, *(s.node for s in self.subjects)):
            self._executor.add_node(node)

    def plan(self, number: int) -> tuple[str, Callable[[], str]]:
        """Draw a case: its kind, and what to do."""
        generator = np.random.default_rng([self._seed, number])
        chance = generator.random()
        subject = self.subjects[generator.integers(len(self.subjects))]
        if chance < GOAL:
            return "goal reach_goal", lambda: self._goal(generator)
        if chance < GOAL + WIRE:
            subscription = subject.subscriptions[generator.integers(len(subject.subscriptions))]
            kind = f"bytes {_short(subscription.topic_name)}"
            return kind, lambda: self._bytes(subject, subscription, generator)
        # Messages are what comes most; the recorder takes its own from the middleware unread.
        if subject.called and generator.random() < 2 / 3:
            subscription = subject.called[generator.integers(len(subject.called))]
            kind = f"message {_short(subscription.topic_name)}"
            return kind, lambda: self._message(subject, subscription, generator)
        if generator.random() < 0.5:
            return f"parameter {subject.name}", lambda: self._parameters(subject, generator)
        service = subject.services[generator.integers(len(subject.services))]
        kind = f"request {_short(service.service_name)}"
        return kind, lambda: self._request(subject, service, generator)

    def _message(self, subject: Subject, subscription: Any, generator: np.random.Generator) -> str:
        sound = self._sound.message(subscription.msg_type, generator)
        broken = generator.random() >= SOUND
        message = _through(damage(sound, generator) if broken else sound)
        subject.events.clear()
        subject.look()
        subject.events.clear()
        subscription.callback(message)
        subject.look()
        wrong = self._sound.flaw(message)
        if wrong and not [event for event in subject.events if event not in ("done", "sent")]:
            return f"unnoticed: {wrong}"
        return _outcome(subject.events)

    def _bytes(self, subject: Subject, subscription: Any, generator: np.random.Generator) -> str:
        kind, topic = subscription.msg_type, subscription.topic_name
        if topic not in self._wires:
            self._wires[topic] = self._helper.create_publisher(kind, topic, 10)
            end = time.monotonic() + ANSWER
            while not self._wires[topic].get_subscription_count() and time.monotonic() < end:
                time.sleep(0.01)
        subject.events.clear()
        sound = damage(self._sound.message(kind, generator), generator)
        self._wires[topic].publish(damage_bytes(serialize_message(sound), generator))
        for _ in range(3):
            self._executor.spin_once(0.001)
        return _outcome(subject.events) if subject.events else "refused"  # by the middleware

    def _request(self, subject: Subject, service: Any, generator: np.random.Generator) -> str:
        kind = service.srv_type
        sound = self._sound.request(kind, generator)
        request = _through(damage(sound, generator) if generator.random() >= SOUND else sound)
        if kind is ChangeState:
            request.transition.id = int(generator.integers(100, 256))  # none that exists
        if kind in (SetParameters, SetParametersAtomically):
            return self._parameters(subject, generator)
        subject.events.clear()
        response = _answer(service, request)
        if response is None:
            return "refused"
        _through(response)
        if "internal error" in getattr(response, "message", ""):
            return f"crash: {response.message}"
        if getattr(response, "success", True) is False:
            return "refused"
        if subject.name == "action":  # an emergency stop would keep all that follow from being played
            for other in subject.services:
                if other.service_name.endswith("/release"):
                    other.callback(other.srv_type.Request(), other.srv_type.Response())
        return _outcome(subject.events)

    def _parameters(self, subject: Subject, generator: np.random.Generator) -> str:
        names = list(subject.given)
        changes = []
        for _ in range(int(generator.integers(1, 4))):
            name = str(generator.choice(names if generator.random() < 0.8 else STRINGS))
            value = ParameterValue(type=int(generator.integers(0, 10)))
            changes.append(Parameter(name=name, value=damage(value, generator, 8)))
            if generator.random() < 0.3 and name in subject.given:
                changes[-1].value = subject.given[name].get_parameter_value()
        suffix, kind = (
            ("/set_parameters", SetParameters)
            if generator.random() < 0.5
            else ("/set_parameters_atomically", SetParametersAtomically)
        )
        (service,) = (s for s in subject.services if s.service_name.endswith(suffix))
        response = _answer(service, _through(kind.Request(parameters=changes)))
        if response is None:
            return "refused"
        results = response.results if kind is SetParameters else [response.result]
        if any(not result.successful and not result.reason for result in results):
            return "unnoticed: refused without a reason"
        wrong = [
            name
            for name, given in subject.given.items()
            if (now := subject.node.get_parameter(name)).type_ != given.type_
            or (isinstance(now.value, float) and not np.isfinite(now.value))
        ]
        subject.restore()
        if wrong:
            return f"unnoticed: {wrong[0]} took a value of another type, or none that is finite"
        return "used" if all(result.successful for result in results) else "refused"

    def _goal(self, generator: np.random.Generator) -> str:
        sound = self._sound.goal(generator)
        sent = self._goals.send_goal_async(damage(sound, generator) if generator.random() >= SOUND else sound)
        self._until(sent.done, "answer to a goal")
        handle = sent.result()
        if not handle.accepted:
            return "refused"
        result = handle.get_result_async()
        for _ in range(5):
            self._executor.spin_once(0.001)
        if not result.done():
            handle.cancel_goal_async()
        self._until(result.done, "end of a goal")
        code = result.result().result.error_code
        if code == ReachGoal.Result.INTERNAL:
            return f"crash: {result.result().result.message}"
        return "refused" if code == ReachGoal.Result.BAD_GOAL else "used"

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + ANSWER
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} in {ANSWER:g} s")
            self._executor.spin_once(0.01)

    def settle(self) -> None:
        """Let the executor do what waits, timers among it."""
        self._executor.spin_once(0)

    def outside(self) -> int:
        """Return how many of the commands so far lay outside the limits; only the newest is kept."""
        commands = self._action.commands
        count = Account(tuple(commands), ()).outside(self._contract)
        del commands[:-1]
        return count

    def close(self) -> None:
        """End the nodes."""
        for subject in self.subjects:
            subject.node.shut_down()
        self._executor.shutdown()


def _outcome(events: list[str]) -> str:
    if "fault.exception" in events:
        return "crash: an exception in a callback; see the log"
    if any(event.startswith(("dropped.", "fault.")) for event in events):
        return "refused"
    return "counted" if [event for event in events if event not in ("done", "sent")] else "used"


def _answer(service: Any, request: Any) -> Any:
    """
    Return a service's response, or None where rclpy's own services raise.

    The process around a node counts that and goes on, without an answer; see :mod:`smwm_ros.nodes.process`.
    """
    try:
        return service.callback(request, service.srv_type.Response())
    except Exception:
        if service.callback.__module__.startswith("rclpy."):
            return None
        raise


def _through(message: Any) -> Any:
    """Return a message as it is on the other side of the wire."""
    return deserialize_message(serialize_message(message), type(message))


def _short(name: str) -> str:
    return name.removeprefix("/fuzz/")


def run(fuzzer: Fuzzer, first: int, last: int, write: Callable[[dict[str, Any]], None]) -> None:
    """
    Do the cases of some numbers.

    Args:
        fuzzer: the nodes.
        first: number.
        last: number, left out.
        write: takes a line before each case, and one after it.
    """
    for number in range(first, last):
        kind, act = fuzzer.plan(number)
        write({"number": number, "kind": kind})
        try:
            outcome = act()
        except Exception as error:
            outcome = f"crash: {error!r}"
        if number % SETTLE == 0:
            fuzzer.settle()
        write({"number": number, "kind": kind, "outcome": outcome, "outside": fuzzer.outside()})


def main() -> None:
    """Do the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--contract", "--checkpoint"):
        parser.add_argument(name, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    for name in ("--seed", "--first", "--last"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no answer
    # What is written by a path that leads out of it stays within the folder that was given.
    folder = given.folder / "inside"
    folder.mkdir()
    os.chdir(folder)
    rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)

    def write(line: dict[str, Any]) -> None:
        lines.write(json.dumps(line) + "\n")
        lines.flush()

    contract = find_contract(given.contract)
    fuzzer = Fuzzer(contract, given.contract, given.checkpoint, folder, given.seed)
    run(fuzzer, given.first, given.last, write)
    fuzzer.close()
    write({"end": True})


if __name__ == "__main__":
    main()
