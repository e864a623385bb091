"""The safety gate as a node: the only one that commands the robot."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from smwm_ros import msg
from smwm_ros.errors import ConfigError, DataError
from smwm_ros.messages import (
    CommandEncoder,
    applied_to_message,
    command_stamp,
    command_type,
    decode_command,
    from_time,
    joint_positions,
    plan_from_message,
)
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CONTRACT, LOCK_STEP, SENSOR_RELIABILITY, Param
from smwm_ros.nodes.process import prioritise, run
from smwm_ros.nodes.qos import EVERY, LATCHED, NEWEST, sensor
from smwm_ros.runtime.gate import EMERGENCY_STOP, RELEASED, STOPPED, Command, Gate, time_to_rest
from smwm_ros.runtime.limiter import Limiter
from smwm_ros.runtime.lock_step import LockStepGate
from smwm_ros.runtime.pass_gate import NO_COMMAND, PassGate
from smwm_ros.runtime.plan_gate import NO_PLAN
from smwm_ros.runtime.real_time import RealTimeGate

EXPECTED = (NO_PLAN, NO_COMMAND, STOPPED, EMERGENCY_STOP, RELEASED)
"""Reasons for the safe action that are no fault."""
SPARE = 3
"""Control periods that the way to the safe action may take beyond what the limits of change need."""
STARTED_STOPPED = "stopped from the start (start_stopped), as when it died and was started again"
SAY = 5.0
"""Seconds between two log lines that plans are played."""


class ActionNode(SmwmNode):
    """
    Sends the gate's commands, each together with its AppliedAction.

    They leave from the subscription to ``plan`` when an action is due at its arrival, and otherwise
    from a thread of its own that sleeps in steady time: neither a clock at rest nor a slow callback
    can hold up the safe action. On deactivation and shutdown the robot is brought to its safe action.

    With ``safety_only`` there are no plans: another node's commands, on ``unsafe_command``, pass the gate.

    Services, also while the node is inactive: ``emergency_stop`` latches the safe action, ``release`` ends
    that; ``emergency_stopped`` tells which. The latch lasts as long as the process.
    """

    depends_on = ("planner",)
    parameters = (
        CONTRACT,
        LOCK_STEP,
        SENSOR_RELIABILITY,
        Param(name="model", default="", description="Only plans of this model are played; empty: of any."),
        Param(
            name="safety_only",
            default=False,
            description="Play no plans: pass the commands on unsafe_command through the same gate.",
        ),
        Param(
            name="start_stopped",
            default=False,
            fixed=True,
            description="Begin as after an emergency stop: nothing moves until release is called.",
        ),
        Param(
            name="priority",
            default=50,
            low=0,
            high=99,
            fixed=True,
            description="Of the process in the real-time scheduler, where that is allowed; 0: ordinary.",
        ),
    )

    def __init__(self, name: str, **arguments: Any) -> None:
        """See :class:`SmwmNode`."""
        super().__init__(name, **arguments)
        self._stopped = STARTED_STOPPED if self.value("start_stopped") else ""  # why
        self._gate: Gate | None = None
        self._changed = threading.Condition()

    def own_process(self) -> None:
        """Go before all ordinary processes: one that takes all of the computer must not hold up the gate."""
        priority = self.value("priority")
        if priority and (why := prioritise(priority)):
            self.get_logger().warning(
                f"priority {priority} is not allowed ({why}): busy processes can hold up the commands. "
                "docs/safety.md says how to allow it; 0 does without"
            )

    def set_up(self) -> None:
        """Make the topics and services."""
        contract = self._contract = self.read_contract()
        self._lock_step = self.value("lock_step")
        if self._lock_step and self.value("safety_only"):
            raise ConfigError(
                f"{self.get_fully_qualified_name()}: safety_only and lock_step do not go together: "
                "commands from elsewhere belong to no tick; set one of them to false"
            )
        self._limiter = Limiter(contract)
        self._encode = CommandEncoder(contract)
        kind = command_type(contract)
        self._commands = self.offer(kind, contract.action.topic, NEWEST)
        self._applied = self.offer(msg.AppliedAction, "applied_action", EVERY)
        self._told = msg.AppliedAction()
        self._states = self.offer(Bool, "emergency_stopped", LATCHED)
        if self.value("safety_only"):
            self.listen(kind, "unsafe_command", self._on_command, NEWEST)
        else:
            self.listen(msg.Plan, "plan", self._on_plan, NEWEST)
        if self._limiter.needed:
            profile = sensor(self.value("sensor_reliability"))
            self.listen(JointState, contract.observation.joints.topic, self._on_joints, profile)
        # Not by ``serve``: they must be heard while the node is inactive, too.
        self.create_service(Trigger, "emergency_stop", self._on_emergency_stop)
        self.create_service(Trigger, "release", self._on_release)
        self._tell_state()

    def start(self) -> None:
        """Begin to play; without a plan, the safe action."""
        if self._limiter.lost_while_silent:
            self._limiter = Limiter(self._contract)
        if self.value("safety_only"):
            self._gate = PassGate(self._contract, self._limiter)
        else:
            kind = LockStepGate if self._lock_step else RealTimeGate
            self._gate = kind(self._contract, self._limiter, self.value("model"))
        self._said = ""
        self._counted, self._since = 0, time.monotonic()
        if self._stopped:
            self._send(self._gate.emergency_stop(self._now(), time.monotonic()))
        self._playing = True
        self._player = threading.Thread(target=self._play, name="player", daemon=True)
        self._player.start()
        self._jumps = None
        if self._lock_step:  # every tick is a jump of the clock
            nanosecond = Duration(nanoseconds=1)
            threshold = JumpThreshold(min_forward=nanosecond, min_backward=None, on_clock_change=False)
            self._jumps = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock)

    def stop(self) -> None:
        """Bring the robot to its safe action, for as long as the limits of change make that take."""
        with self._changed:
            self._playing = False
            self._changed.notify()
        self._player.join()
        gate, self._gate = self._gate, None
        if self._jumps is not None:
            self._jumps.unregister()
            return  # the simulator stands still anyway
        for _ in range(math.ceil(time_to_rest(self._contract) * self._contract.rate) + SPARE):
            self._send(gate.stop(self._now(), time.monotonic()))
            if gate.settled:
                return
            time.sleep(self._contract.period)

    def report(self) -> None:
        """Show how often the gate intervened, by reason, and the rate of the commands."""
        gate = self._gate
        if gate is None:
            return
        now, sent = time.monotonic(), gate.sent
        rate = (sent - self._counted) / (now - self._since)
        self._counted, self._since = sent, now
        self.monitor.show(
            commands_hz=f"{rate:.2f}",
            emergency_stopped=bool(self._stopped),
            **{f"gate.{reason}": count for reason, count in dict(gate.counts).items()},
        )

    def _on_plan(self, message: msg.Plan) -> None:
        arrival = time.monotonic()
        with self._changed:
            try:
                command = self._gate.accept(plan_from_message(message), self._now(), arrival)
            except DataError as error:
                self.fault("dropped.plan", str(error))
                command = self._gate.refuse("unreadable", self._now(), arrival)
            self._respond(command, arrival)

    def _on_command(self, message: Any) -> None:
        arrival = time.monotonic()
        with self._changed:
            try:
                values = decode_command(self._contract, message)
                command = self._gate.accept(values, command_stamp(message), self._now(), arrival)
            except DataError as error:
                self.fault("dropped.command", str(error))
                command = self._gate.refuse("unreadable", self._now(), arrival)
            self._respond(command, arrival)

    def _respond(self, command: Command | None, arrival: float) -> None:
        self._send(command)
        self._changed.notify()
        if command is not None:
            self.monitor.done(time.monotonic() - arrival)

    def _on_joints(self, message: JointState) -> None:
        arrival = time.monotonic()
        try:
            positions = joint_positions(message)
        except DataError as error:
            self.fault("dropped.joints", str(error))
            return
        with self._changed:
            self._gate.sense(positions, from_time(message.header.stamp), self._now(), arrival)

    def _on_clock(self, _: object) -> None:
        with self._changed:
            self._send(self._gate.step(self._now(), time.monotonic()))

    def _on_emergency_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._changed:
            self._stopped = EMERGENCY_STOP
            if self._gate is not None:
                self._send(self._gate.emergency_stop(self._now(), time.monotonic()))
                self._changed.notify()
        response.success = True
        response.message = "stopped" if self._gate else "the node is not active; nothing will move once it is"
        self._tell_state()
        return response

    def _on_release(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._changed:
            response.success = True
            response.message = "released" if self._stopped else "there was no emergency stop"
            self._stopped = ""
            if self._gate is not None:
                self._gate.release(self._now())
        self._tell_state()
        return response

    def _tell_state(self) -> None:
        self._states.publish(Bool(data=bool(self._stopped)))
        if self._stopped:
            call = f"ros2 service call {self.resolve_service_name('release')} std_srvs/srv/Trigger"
            said = f"{self._stopped}: only the safe action goes out until somebody releases the robot: {call}"
            self.monitor.stand(EMERGENCY_STOP, said, DiagnosticStatus.WARN)
            self.get_logger().warning(said)
        else:
            self.monitor.clear(EMERGENCY_STOP)

    def _play(self) -> None:
        gate = self._gate
        with self._changed:
            while self._playing:
                wait = gate.wake - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                try:
                    self._send(gate.step(self._now(), time.monotonic()))
                except Exception as error:
                    # Whatever it was, the robot must not be left without its next command.
                    self.defect("playing", error)
                    self._changed.wait(self._contract.period)

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _send(self, command: Command | None) -> None:
        if command is None:
            return
        self._commands.publish(self._encode(command.values, command.stamp, command.later))
        self._applied.publish(applied_to_message(command, self._told))
        said = command.reason if command.safe else ""
        if said != self._said:
            self._said = said
            if said in EXPECTED:
                self.get_logger().info(f"safe action: {said}")
            elif said:
                self.fault("gate", f"safe action: {said}")
            else:
                self.get_logger().info("playing plans", throttle_duration_sec=SAY)


def main() -> None:
    """Run the node."""
    run(lambda: ActionNode("action"))


if __name__ == "__main__":
    main()
