"""What all nodes do: parameters, guarded callbacks, and diagnostics that say what went wrong."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.nodes.diagnostics import Monitor
from smwm_ros.nodes.endpoints import Endpoints
from smwm_ros.nodes.parameters import AUTOSTART, Param, Parameters

REPEAT = 5.0
"""Seconds between two log lines about the same kind of fault."""


class GuardedNode(LifecycleNode):
    """
    A node whose callbacks cannot fail silently, nor end the process.

    Publishers and subscriptions are made by ``offer`` and ``listen``, so that their quality of service are
    parameters. Callbacks made by ``listen``, ``every`` and ``serve`` run only while the node is active, and
    an exception in one is a counted fault.
    """

    parameters: ClassVar[tuple[Param, ...]] = ()

    def __init__(self, name: str, **arguments: Any) -> None:
        """
        Make the node and declare its parameters.

        Args:
            name: the node's name, unless remapped.
            arguments: passed on to rclpy's LifecycleNode.

        Raises:
            ConfigError: a parameter was given a wrong value.
        """
        super().__init__(name, **arguments)
        self.monitor = Monitor()
        self.active = False
        self.configured = False
        """Whether the parameters have been read, and there is something that cleanup must destroy."""
        self.declared = Parameters(self, lambda: self.configured, self._check_change, self._change)
        self.declared.declare((AUTOSTART, *self.parameters))
        self.hardware = ""
        """Shown in diagnostics; set it to the contract's name."""
        self._endpoints = Endpoints(self, self.declared, self.monitor)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._logged: dict[str, float] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._tell, clock=self._steady)

    def destroy_node(self) -> None:
        """Leave the graph."""
        super().destroy_node()
        # rclpy forgets that this holds on to the node; its participant would live on.
        self._state_machine.destroy_when_not_in_use()

    def report(self) -> None:
        """Put into ``monitor`` what the next diagnostics should show; called each second while configured."""

    def check_change(self, values: dict[str, Any]) -> None:
        """
        Say whether these values of the dynamic parameters, all of them by name, go together.

        Called before a change is accepted, while the node is configured; nothing may be taken over yet.

        Raises:
            SmwmError: they do not; nothing changes, and whoever wanted it is told why.
        """

    def change(self, values: dict[str, Any]) -> None:
        """Take over the dynamic parameters, all of them by name; called in the executor's thread."""

    @property
    def state(self) -> str:
        """The lifecycle state."""
        return self._state_machine.current_state[1]

    def value(self, name: str) -> Any:
        """Return the value of a declared parameter."""
        return self.get_parameter(name).value

    def read_contract(self) -> Contract:
        """
        Load the contract named by the parameter ``contract``.

        Raises:
            ConfigError: the parameter is empty.
            ContractError: the file is missing or not a valid contract.
        """
        path = self.value("contract")
        if not path:
            raise ConfigError(
                f"{self.get_fully_qualified_name()}: the parameter 'contract' is empty; "
                "set it to the path of the robot contract, as in: -p contract:=config/robots/reacher.yaml"
            )
        contract = load_contract(path)
        self.hardware = contract.name
        return contract

    def fault(self, kind: str, message: str) -> None:
        """Count a fault, show it in diagnostics, and log it, but not more often than each 5 s."""
        self.monitor.fault(kind, message)
        now = time.monotonic()
        if now - self._logged.get(kind, -REPEAT) >= REPEAT:
            self._logged[kind] = now
            self.get_logger().warning(f"{message} [{kind}: {self.monitor.count(kind)} so far]")

    def defect(self, what: str, error: Exception) -> None:
        """Count an exception that is a defect, and log it with its traceback, but not more than each 5 s."""
        self.monitor.fault("fault.exception", f"{what}: {error!r}")
        now = time.monotonic()
        if now - self._logged.get(what, -REPEAT) >= REPEAT:
            self._logged[what] = now
            self.log_exception(what, error)

    def log_exception(self, what: str, error: Exception) -> None:
        """Log an exception that is a defect, with its traceback."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.get_logger().error(f"{what} failed: {error!r}\n{trace}")

    def offer(self, kind: Any, topic: str, profile: QoSProfile) -> Publisher[Any]:
        """Make a publisher."""
        return self._endpoints.publisher(kind, topic, profile)

    def listen(
        self, kind: Any, topic: str, callback: Callable[[Any], None], profile: QoSProfile
    ) -> Subscription[Any]:
        """Subscribe; the callback runs only while the node is active."""
        return self._endpoints.subscription(kind, topic, self._guarded(callback), profile)

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back periodically, in steady time, while the node is active."""
        self.create_timer(seconds, self._guarded(callback), clock=self._steady)

    def serve(self, kind: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """
        Offer a service whose response has ``success`` and ``message``.

        The callback gets the request and an empty response and returns the response. While the node
        is inactive, or when the callback raises, the response is a failure with the reason.
        """

        def answer(request: Any, response: Any) -> Any:
            if not self.active:
                return kind.Response(success=False, message=f"{self.get_name()} is not active")
            try:
                return callback(request, response)
            except SmwmError as error:
                return kind.Response(success=False, message=str(error))
            except Exception as error:
                self.log_exception(f"service {name}", error)
                return kind.Response(success=False, message=f"internal error: {error!r}")

        self.create_service(kind, name, answer)

    def publish_diagnostics(self, wait: Duration | None = None) -> None:
        """Say how the node does, as it does each second; wait until reliable listeners have heard it."""
        if self.configured:
            self._guarded_report()
        status = self.monitor.status(self.get_fully_qualified_name(), self.hardware, self.state)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        if wait is not None:
            self._diagnostics.wait_for_all_acked(wait)

    def _guarded_report(self) -> None:
        try:
            self.report()
        except Exception as error:
            self.defect("report", error)

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if not self.active:
                return
            try:
                callback(*arguments)
            except SmwmError as error:
                self.fault("fault.message", str(error))
            except Exception as error:
                self.defect(callback.__name__, error)

        return call

    def _check_change(self, values: dict[str, Any]) -> None:
        try:
            self.check_change(values)
        except SmwmError:
            raise
        except Exception as error:
            self.log_exception("checking parameters", error)
            raise ConfigError(f"internal error: {error!r}") from error

    def _change(self, values: dict[str, Any]) -> None:
        try:
            self.change(values)
        except Exception as error:
            self.defect("changing parameters", error)

    def _tell(self) -> None:
        self._endpoints.examine()
        self.publish_diagnostics()
