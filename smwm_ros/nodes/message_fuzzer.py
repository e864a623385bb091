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
from rclpy.parameter import Parameter as NodeParameter
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState

from smwm_ros import msg, srv
from smwm_ros.action import ReachGoal
from smwm_ros.contract import Contract
from smwm_ros.messages import command_type, encode_command, encode_image, header, to_time
from smwm_ros.nodes.action_node import ActionNode
from smwm_ros.nodes.message_damage import STRINGS, damage, damage_bytes
from smwm_ros.nodes.perception_node import PerceptionNode
from smwm_ros.nodes.planner_node import PlannerNode
from smwm_ros.nodes.recorder_node import RecorderNode
from smwm_ros.nodes.uncalled import never_called
from smwm_ros.nodes.witness import read_command
from smwm_ros.nodes.world_model_node import WorldModelNode
from smwm_ros.resources import find_contract
from smwm_ros.runtime.testimony import Sent, Testimony
from smwm_ros.runtime.worker import Worker

NODES = {
    "perception": PerceptionNode,
    "world_model": WorldModelNode,
    "planner": PlannerNode,
    "action": ActionNode,
    "recorder": RecorderNode,
}
WIRE, SOUND, GOAL = 0.02, 0.1, 0.01
"""Shares of the cases: raw bytes, messages left as they are, goals."""
LEFT_OUT = ("/clock", "/parameter_events")
SMALL = {"samples": 8, "iterations": 1, "elites": 4}
"""Settings of the planner: its searches are not what is looked at."""
SETTLE = 20
"""Cases from one turn of the executor to the next, for timers and what else waits."""
ANSWER = 10.0
"""Seconds that an answer to a goal may take."""


class Subject:
    """One node, and what it does with a message."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        """Start the node."""
        overrides = [NodeParameter(key, value=value) for key, value in parameters.items()]
        self.name = name
        self.node = NODES[name](name, namespace=f"fuzz/{name}", parameter_overrides=overrides)
        self.events: list[str] = []
        """What it noted of the case in hand: ``done``, ``sent``, kinds of faults and tallies."""
        self.commands: list[Sent] = []
        self._gate: dict[str, str] = {}
        monitor = self.node.monitor
        monitor.done = self._noting(monitor.done, lambda *_: "done")
        monitor.fault = self._noting(monitor.fault, lambda kind, _: kind)
        monitor.tally = self._noting(monitor.tally, lambda kind: kind)
        monitor.show = self._showing(monitor.show)
        if not self.node.bring_up():
            raise SystemExit(f"{name} did not start: {self.node.failure}")
        for publisher in self.node.publishers:
            publisher.publish = self._noting(publisher.publish, lambda _: "sent")
        self.given = {name: self.node.get_parameter(name) for name in self.node._parameters}
        self.subscriptions = [s for s in self.node.subscriptions if s.topic_name not in LEFT_OUT]
        self.called = [s for s in self.subscriptions if s.callback is not never_called]
        self.services = list(self.node.services)

    def watch_commands(self, contract: Contract) -> None:
        """Note every command that is published."""
        topic = self.node.resolve_topic_name(contract.action.topic)
        (publisher,) = (p for p in self.node.publishers if p.topic_name == topic)
        publish = publisher.publish

        def noting(message: Any) -> None:
            self.commands.append(Sent(time.monotonic(), read_command(contract, message)))
            publish(message)

        publisher.publish = noting

    def look(self) -> None:
        """Note what the gate has counted since the last look."""
        if self.name == "action":
            self.node.report()

    def restore(self) -> None:
        """Take back what parameters were changed."""
        now = {name: self.node.get_parameter(name) for name in self.given}
        if changed := [self.given[name] for name in now if now[name].value != self.given[name].value]:
            self.node.set_parameters(changed)

    def _noting(self, call: Callable[..., Any], what: Callable[..., str]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self.events.append(what(*arguments))
            return call(*arguments)

        return noting

    def _showing(self, show: Callable[..., None]) -> Callable[..., None]:
        def showing(**values: Any) -> None:
            counts = {key: str(value) for key, value in values.items() if key.startswith("gate.")}
            self.events += [key for key, value in counts.items() if self._gate.get(key) != value]
            self._gate.update(counts)
            show(**values)

        return showing


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
        model = {"contract": path, "checkpoint": checkpoint, "device": "cpu"}
        parameters: dict[str, dict[str, Any]] = dict.fromkeys(("perception", "world_model"), model)
        parameters |= {"planner": model | SMALL, "action": {"contract": path}}
        parameters["recorder"] = {"contract": path, "bag": str(folder / "bag"), "record": True}
        self.subjects = [Subject(name, parameters[name]) for name in NODES]
        self._action = next(s for s in self.subjects if s.name == "action")
        self._action.watch_commands(contract)
        self._planner = next(s for s in self.subjects if s.name == "planner")
        self._model = self._planner.node._model
        self._helper = Node("fuzz_helper", enable_rosout=False, start_parameter_services=False)
        self._goals = ActionClient(self._helper, ReachGoal, "/fuzz/planner/reach_goal")
        self._wires: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor()
        for node in (self._helper, *(s.node for s in self.subjects)):
            self._executor.add_node(node)
        self._image = np.zeros(
            (contract.observation.image.height, contract.observation.image.width, 3), np.uint8
        )
        self._sequence = 0

    def plan(self, number: int) -> tuple[str, Callable[[], str], np.random.Generator]:
        """Draw a case: its kind, and what to do."""
        generator = np.random.default_rng([self._seed, number])
        chance = generator.random()
        subject = self.subjects[generator.integers(len(self.subjects))]
        if chance < GOAL:
            return "goal reach_goal", lambda: self._goal(generator), generator
        if chance < GOAL + WIRE or not subject.called:
            subscription = subject.subscriptions[generator.integers(len(subject.subscriptions))]
            kind = f"bytes {_short(subscription.topic_name)}"
            return kind, lambda: self._bytes(subject, subscription, generator), generator
        # Messages are what comes most; requests and parameters together a third.
        if generator.random() < 2 / 3:
            subscription = subject.called[generator.integers(len(subject.called))]
            kind = f"message {_short(subscription.topic_name)}"
            return kind, lambda: self._message(subject, subscription, generator), generator
        if generator.random() < 0.5:
            return f"parameter {subject.name}", lambda: self._parameters(subject, generator), generator
        service = subject.services[generator.integers(len(subject.services))]
        kind = f"request {_short(service.service_name)}"
        return kind, lambda: self._request(subject, service, generator), generator

    def _message(self, subject: Subject, subscription: Any, generator: np.random.Generator) -> str:
        sound = self._sound(subscription.msg_type, generator)
        broken = generator.random() >= SOUND
        message = _through(damage(sound, generator) if broken else sound)
        subject.events.clear()
        subject.look()
        subject.events.clear()
        subscription.callback(message)
        subject.look()
        wrong = self._wrong(message)
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
        sound = damage(self._sound(kind, generator), generator)
        self._wires[topic].publish(damage_bytes(serialize_message(sound), generator))
        for _ in range(3):
            self._executor.spin_once(0.001)
        return _outcome(subject.events) if subject.events else "refused"  # by the middleware

    def _request(self, subject: Subject, service: Any, generator: np.random.Generator) -> str:
        kind = service.srv_type
        sound = self._sound_request(kind, generator)
        request = _through(damage(sound, generator) if generator.random() >= SOUND else sound)
        if kind is ChangeState:
            request.transition.id = int(generator.integers(100, 256))  # none that exists
        if kind in (SetParameters, SetParametersAtomically):
            return self._parameters(subject, generator)
        subject.events.clear()
        response = service.callback(request, kind.Response())
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
        response = service.callback(_through(kind.Request(parameters=changes)), kind.Response())
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
        sound = ReachGoal.Goal(image=encode_image(self._contract, self._image, 0, raw=True), tolerance=0.5)
        if generator.random() < 0.5:
            sound.image = Image()
            sound.latent = [0.0] * self._model.latent_size
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
        count = Testimony(tuple(commands), ()).outside(self._contract)
        del commands[:-1]
        return count

    def close(self) -> None:
        """End the nodes."""
        for subject in self.subjects:
            subject.node.shut_down()
        self._executor.shutdown()

    def _sound(self, kind: Any, generator: np.random.Generator) -> Any:
        """Return a message as the node wants it, as of now."""
        now = time.time_ns()
        if kind in (Image, CompressedImage):
            return encode_image(self._contract, self._image, now, "camera")
        size, action = self._model.latent_size, self._contract.action
        values = generator.uniform(action.low, action.high)
        if kind is msg.Latent:
            return msg.Latent(header=header(now), model=self._model.id, values=[0.1] * size)
        if kind is msg.Belief:
            return msg.Belief(
                header=header(now), evidence=to_time(now), model=self._model.id, latent=[0.1] * size
            )
        if kind is msg.AppliedAction:
            return msg.AppliedAction(header=header(now), evidence=to_time(now), values=values.tolist())
        if kind is msg.Plan:
            self._sequence += 1
            return msg.Plan(
                header=header(now),
                evidence=to_time(now),
                model=self._model.id,
                sequence=self._sequence,
                period=self._contract.period,
                action_size=action.size,
                execute=1,
                actions=generator.uniform(action.low, action.high, (5, action.size)).ravel().tolist(),
            )
        if kind is JointState and self._contract.observation.joints:
            names = list(self._contract.observation.joints.names)
            return JointState(header=header(now), name=names, position=[0.0] * len(names))
        if kind is command_type(self._contract):
            return encode_command(self._contract, values, now)
        return kind()

    def _sound_request(self, kind: Any, generator: np.random.Generator) -> Any:
        request = kind.Request()
        if kind is srv.Predict:
            batch, horizon = (int(n) for n in generator.integers(1, 4, 2))
            contract = self._contract
            request = srv.Predict.Request(
                batch=batch,
                horizon=horizon,
                latents=[0.1] * (batch * self._model.latent_size),
                actions=[0.0] * (batch * horizon * contract.block_size),
            )
        return request

    def _wrong(self, message: Any) -> str:
        """Say what is so wrong with a message that it must be counted; empty if nothing is."""
        if isinstance(message, msg.AppliedAction):
            return _not(message.values, self._contract.action.size)
        if isinstance(message, msg.Latent):
            return (
                "model" if message.model != self._model.id else _not(message.values, self._model.latent_size)
            )
        if isinstance(message, msg.Belief):
            return (
                "model" if message.model != self._model.id else _not(message.latent, self._model.latent_size)
            )
        if isinstance(message, msg.Plan) and len(message.actions):
            return _not(message.actions, len(message.actions))
        if isinstance(message, Image):
            stream = self._contract.observation.image
            if (message.height, message.width) != (stream.height, stream.width):
                return "size"
            if message.encoding != stream.encoding:
                return "encoding"
            return "too few bytes" if len(message.data) < message.height * message.width else ""
        return ""


def _not(values: Any, size: int) -> str:
    if len(values) != size:
        return f"{len(values)} numbers instead of {size}"
    return "" if np.isfinite(np.array(values)).all() else "not finite"


def _outcome(events: list[str]) -> str:
    if "fault.exception" in events:
        return "crash: an exception in a callback; see the log"
    if any(event.startswith(("dropped.", "fault.")) for event in events):
        return "refused"
    return "counted" if [event for event in events if event not in ("done", "sent")] else "used"


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
        kind, act, _ = fuzzer.plan(number)
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
    os.chdir(given.folder)
    rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)

    def write(line: dict[str, Any]) -> None:
        lines.write(json.dumps(line) + "\n")
        lines.flush()

    contract = find_contract(given.contract)
    fuzzer = Fuzzer(contract, given.contract, given.checkpoint, given.folder, given.seed)
    run(fuzzer, given.first, given.last, write)
    fuzzer.close()
    write({"end": True})


if __name__ == "__main__":
    main()
