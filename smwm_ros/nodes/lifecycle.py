"""
The base of all lifecycle nodes.

The base owns every transition. A node writes only ``set_up``, ``start``, ``stop`` and ``tear_down``.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.task import Future

from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.nodes.diagnostics import Monitor
from smwm_ros.nodes.parameters import AUTOSTART, Param, Parameters

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
REPEAT = 5.0
"""Seconds between two log lines about the same kind of fault."""


class SmwmNode(LifecycleNode):
    """
    A lifecycle node whose transitions cannot fail silently.

    - ``set_up`` (configure) makes everything; publishers, subscriptions, timers and services that
      it makes are destroyed on cleanup without further ado.
    - ``start`` and ``stop`` (activate, deactivate) are for what must begin or end there.
    - ``tear_down`` (cleanup) ends threads, closes files, frees the network. It also runs after a
      ``set_up`` that failed half-way, so it must bear missing parts.

    An exception in one of them is logged (an :class:`SmwmError` as its one message, any other with
    its traceback) and becomes the transition's FAILURE or ERROR; rclpy alone would swallow it.
    Callbacks made by ``listen``, ``every`` and ``serve`` run only while the node is active, and an
    exception in one is a counted fault, not the end of the process.
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
        self._made = False  # something that cleanup must destroy
        self.declared = Parameters(self, lambda: self._made, self._check_change, self._change)
        self.declared.declare((AUTOSTART, *self.parameters))
        self.finished: Future[int] = Future()
        """Resolved with the exit code when the process should end; see :meth:`finish`."""
        self.failure = ""
        """Why the last failed transition failed."""
        self.hardware = ""
        """Shown in diagnostics; set it to the contract's name."""
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._logged: dict[str, float] = {}
        self._permanent = {id(entity) for entity in self._entities()}

    def set_up(self) -> None:
        """Make what the node needs, from its parameters."""

    def start(self) -> None:
        """Begin to work."""

    def stop(self) -> None:
        """Cease to work."""

    def tear_down(self) -> None:
        """Let go of what ``set_up`` made, as far as it came."""

    def report(self) -> None:
        """Put into ``monitor`` what the next diagnostics should show; called once a second."""

    def check_change(self, values: dict[str, Any]) -> None:
        """
        Say whether these values of the dynamic parameters, all of them by name, go together.

        Called before a change is accepted, while the node is configured; nothing may be taken over yet.

        Raises:
            SmwmError: they do not; nothing changes, and whoever wanted it is told why.
        """

    def change(self, values: dict[str, Any]) -> None:
        """Take over the dynamic parameters, all of them by name; called in the executor's thread."""

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

    def finish(self, code: int = 0) -> None:
        """Ask the process to end, in good order, with an exit code. Any thread may call it."""
        if not self.finished.done():
            self.finished.set_result(code)

    def listen(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        profile: QoSProfile,
    ) -> Subscription[Any]:
        """Subscribe; the callback runs only while the node is active."""
        return self.create_subscription(kind, topic, self._guarded(callback), profile)

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

    def bring_up(self) -> bool:
        """Configure and activate; False if either failed (the reason is logged)."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def shut_down(self) -> None:
        """Stop and let go, from whatever state."""
        if self._made:
            self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Make the diagnostics publisher, then run ``set_up``; undo all if that fails."""
        self._made = True
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self.publish_diagnostics, clock=self._steady)
        result = self._attempt("configure", self.set_up)
        if result == FAILURE:
            self._let_go()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``start``; callbacks begin."""
        result = self._attempt("activate", self.start)
        self.active = result == SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Callbacks cease; run ``stop``."""
        self.active = False
        return self._attempt("deactivate", self.stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``tear_down`` and destroy what ``set_up`` made."""
        return self._let_go()

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop if active, then let go."""
        if self.active:
            self.active = False
            self._attempt("shutdown", self.stop)
        return self._let_go()

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an ERROR: let go; the node is unconfigured again."""
        self.active = False
        self._let_go()
        return SUCCESS

    def _attempt(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except SmwmError as error:
            self.failure = str(error)
            self.get_logger().error(self.failure)
            return FAILURE
        except Exception as error:
            self.failure = f"{what} failed: {error!r}"
            self.log_exception(what, error)
            return ERROR
        return SUCCESS

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
            self.log_exception("changing parameters", error)
            self.monitor.fault("fault.exception", f"changing parameters: {error!r}")

    def _let_go(self) -> TransitionCallbackReturn:
        if not self._made:
            return SUCCESS
        self._made = False
        result = self._attempt("tear down", self.tear_down)
        for entity in self._entities():
            if id(entity) not in self._permanent:
                self._destroy(entity)
        return result

    def _entities(self) -> list[Any]:
        return [
            *self.publishers,
            *self.subscriptions,
            *self.timers,
            *self.services,
            *self.clients,
        ]

    def _destroy(self, entity: Any) -> None:
        for destroy in (
            self.destroy_publisher,
            self.destroy_subscription,
            self.destroy_timer,
            self.destroy_service,
            self.destroy_client,
        ):
            if destroy(entity):
                return

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if not self.active:
                return
            try:
                callback(*arguments)
            except SmwmError as error:
                self.fault("fault.message", str(error))
            except Exception as error:
                self.log_exception(callback.__name__, error)
                self.monitor.fault("fault.exception", f"{callback.__name__}: {error!r}")

        return call

    def log_exception(self, what: str, error: Exception) -> None:
        """Log an exception that is a defect, with its traceback."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.get_logger().error(f"{what} failed: {error!r}\n{trace}")

    def publish_diagnostics(self, wait: Duration | None = None) -> None:
        """Say how the node does, as it does each second; wait until reliable listeners have heard it."""
        self.report()
        message = DiagnosticArray(
            status=[self.monitor.status(self.get_fully_qualified_name(), self.hardware)]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        if wait is not None:
            self._diagnostics.wait_for_all_acked(wait)
