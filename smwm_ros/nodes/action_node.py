"""Plays plans through the safety gate: the only node that commands the robot."""

from __future__ import annotations

import threading
import time

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration

from smwm_ros import msg
from smwm_ros.errors import DataError
from smwm_ros.messages import applied_to_message, command_type, encode_command, plan_from_message
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CONTRACT, LOCK_STEP, Param
from smwm_ros.nodes.process import run
from smwm_ros.nodes.qos import EVERY, NEWEST
from smwm_ros.runtime.gate import Command, RealTimeGate
from smwm_ros.runtime.lock_step import LockStepGate

EXPECTED = ("no plan", "stopped")
"""Reasons for the safe action that are no fault."""
SETTLE = 1.0
"""Longest time, in s, that deactivation waits for the robot to reach its safe action."""


class ActionNode(SmwmNode):
    """
    Sends the gate's commands, each together with its AppliedAction.

    They leave from the subscription to ``plan`` when an action is due at its arrival, and otherwise
    from a thread of its own that sleeps in steady time: neither a clock at rest nor a slow callback
    can hold up the safe action. On deactivation and shutdown the robot is brought to its safe action.
    """

    parameters = (
        CONTRACT,
        LOCK_STEP,
        Param(name="model", default="", description="Only plans of this model are played; empty: of any."),
    )

    def set_up(self) -> None:
        """Make the topics."""
        self._contract = self.read_contract()
        self._lock_step = self.value("lock_step")
        self._commands = self.create_publisher(
            command_type(self._contract), self._contract.action.topic, NEWEST
        )
        self._applied = self.create_publisher(msg.AppliedAction, "applied_action", EVERY)
        self.listen(msg.Plan, "plan", self._on_plan, NEWEST)

    def start(self) -> None:
        """Begin to play; without a plan, the safe action."""
        gate = LockStepGate if self._lock_step else RealTimeGate
        self._gate = gate(self._contract, self.value("model"))
        self._said = ""
        self._changed = threading.Condition()
        self._playing = True
        self._player = threading.Thread(target=self._play, name="player", daemon=True)
        self._player.start()
        self._jumps = None
        if self._lock_step:  # every tick is a jump of the clock
            nanosecond = Duration(nanoseconds=1)
            threshold = JumpThreshold(min_forward=nanosecond, min_backward=None, on_clock_change=False)
            self._jumps = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock)

    def stop(self) -> None:
        """Bring the robot to its safe action."""
        with self._changed:
            self._playing = False
            self._changed.notify()
        self._player.join()
        if self._jumps is not None:
            self._jumps.unregister()
            return  # the simulator stands still anyway
        end = time.monotonic() + SETTLE
        while True:
            self._send(self._gate.stop(self._now(), time.monotonic()))
            if self._gate.settled or time.monotonic() > end:
                return
            time.sleep(self._contract.period)

    def report(self) -> None:
        """Show how often the gate intervened, by reason."""
        if self.active:
            self.monitor.show(**{f"gate.{reason}": count for reason, count in self._gate.counts.items()})

    def _on_plan(self, message: msg.Plan) -> None:
        arrival = time.monotonic()
        with self._changed:
            try:
                command = self._gate.accept(plan_from_message(message), self._now(), arrival)
            except DataError as error:
                self.fault("dropped.plan", str(error))
                command = self._gate.refuse("unreadable", self._now(), arrival)
            self._send(command)
            self._changed.notify()
        if command is not None:
            self.monitor.done(time.monotonic() - arrival)

    def _on_clock(self, _: object) -> None:
        with self._changed:
            self._send(self._gate.step(self._now(), time.monotonic()))

    def _play(self) -> None:
        with self._changed:
            while self._playing:
                wait = self._gate.wake - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                try:
                    self._send(self._gate.step(self._now(), time.monotonic()))
                except Exception as error:
                    # Whatever it was, the robot must not be left without its next command.
                    self.fault("fault.exception", f"playing: {error!r}")
                    self._changed.wait(self._contract.period)

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _send(self, command: Command | None) -> None:
        if command is None:
            return
        self._commands.publish(encode_command(self._contract, command.values, command.stamp))
        self._applied.publish(applied_to_message(command))
        said = command.reason if command.safe else ""
        if said != self._said:
            self._said = said
            if said in EXPECTED:
                self.get_logger().info(f"safe action: {said}")
            elif said:
                self.fault("gate", f"safe action: {said}")
            else:
                self.get_logger().info("playing plans")


def main() -> None:
    """Run the node."""
    run(lambda: ActionNode("action"))


if __name__ == "__main__":
    main()
