"""
The base of all lifecycle nodes.

The base owns every transition. A node writes only ``set_up``, ``start``, ``stop`` and ``tear_down``.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.task import Future

from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.nodes.diagnostics import Monitor
from smwm_ros.nodes.endpoints import Endpoints
from smwm_ros.nodes.heartbeat import PERIOD, Heartbeat, Life
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

    An exception in one of them is logged (an :class:`SmwmError` as its one message, any other with its
    traceback), shown in diagnostics until a transition succeeds, and makes the transition fail; rclpy alone
    would swallow it. After a SmwmError in ``set_up`` or ``start`` the node is where it was before. Whatever
    else is raised is an error, after which all is torn down and the node unconfigured.

    Publishers and subscriptions are made by ``offer`` and ``listen``, so that their quality of service are
    parameters. Callbacks made by ``listen``, ``every`` and ``serve`` run only while the node is active, and
    an exception in one is a counted fault, not the end of the process.
    """

    parameters: ClassVar[tuple[Param, ...]] = ()
    depends_on: ClassVar[tuple[str, ...]] = ()
    """Nodes without which it is of no use. When one falls silent, diagnostics say so at once."""

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
        self._endpoints = Endpoints(self, self.declared, self.monitor)
        self.finished: Future[int] = Future()
        """Resolved with the exit code when the process should end; see :meth:`finish`."""
        self.failure = ""
        """Why the last failed transition failed."""
        self.hardware = ""
        """Shown in diagnostics; set it to the contract's name."""
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._logged: dict[str, float] = {}
        self._broken = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._tell, clock=self._steady)
        self._heart = Heartbeat(self, name, self.depends_on, self._on_life)
        self.create_timer(PERIOD, self._beat, clock=self._steady)
        self._permanent = {id(entity) for entity in self._entities()}

    def set_up(self) -> None:
        """Make what the node needs, from its parameters."""

    def start(self) -> None:
        """Begin to work."""

    def stop(self) -> None:
        """Cease to work."""

    def tear_down(self) -> None:
        """Let go of what ``set_up`` made, as far as it came."""

    def release(self) -> None:
        """Give back memory, after ``tear_down``, when nothing holds on to it any more."""

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

    def break_down(self, why: str) -> None:
        """
        Leave the active state through the error state, as there is no going on; any thread may call it.

        All is torn down, and the node is unconfigured. Diagnostics show the reason.
        """
        self.executor.create_task(self._break_down, why)

    def finish(self, code: int = 0) -> None:
        """Ask the process to end, in good order, with an exit code. Any thread may call it."""
        if not self.finished.done():
            self.finished.set_result(code)

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

    @property
    def state(self) -> str:
        """The lifecycle state."""
        return self._state_machine.current_state[1]

    def bring_up(self) -> bool:
        """Configure and activate; False if either failed (the reason is logged)."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def shut_down(self) -> None:
        """Stop and let go, from whatever state."""
        if self._made:
            self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``set_up``; undo all if that fails."""
        self._made = True
        result = self._attempt("configure", self.set_up)
        if result == SUCCESS:
            self.monitor.clear("transition")
        elif result == FAILURE:
            self._undo()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``start``; callbacks begin."""
        result = self._attempt("activate", self.start)
        if result == SUCCESS:
            self.monitor.clear("transition")
            self.active = True
            self._heart.tell(active=True)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Callbacks cease; run ``stop``."""
        stopped = self._stop("deactivate")
        if self._broken:
            self._failed(self._broken)
            self._broken = ""
            return ERROR
        # A FAILURE would mean that the node is still active.
        return SUCCESS if stopped else ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``tear_down`` and destroy what ``set_up`` made."""
        return SUCCESS if self._let_go() else ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop if active, then let go; finalized whatever happens."""
        stopped = self._stop("shut down") if self.active else True
        return SUCCESS if self._let_go() and stopped else FAILURE

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an ERROR: let go; the node is unconfigured again."""
        self.active = False
        self._undo()
        return SUCCESS

    def _attempt(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except SmwmError as error:
            self._failed(str(error))
            self.get_logger().error(self.failure)
            return FAILURE
        except Exception as error:
            self._failed(f"{what} failed: {error!r}")
            self.log_exception(what, error)
            return ERROR
        return SUCCESS

    def _failed(self, why: str) -> None:
        self.failure = why
        self.monitor.stand("transition", why)

    def _stop(self, what: str) -> bool:
        self.active = False
        self._heart.tell(active=False)
        return self._attempt(what, self.stop) == SUCCESS

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

    def _break_down(self, why: str) -> None:
        if self.active:
            self.get_logger().error(why)
            self._broken = why
            self.trigger_deactivate()

    def _undo(self) -> None:
        """Let go after a failure, which remains the one that is told if that fails, too."""
        why = self.failure
        self._let_go()
        self._failed(why)

    def _let_go(self) -> bool:
        if not self._made:
            return True
        self._made = False
        succeeded = self._attempt("tear down", self.tear_down) == SUCCESS
        for entity in self._entities():
            if id(entity) not in self._permanent:
                self._destroy(entity)
        self._endpoints.forget()
        self.release()
        return succeeded

    def _beat(self) -> None:
        if self.active:
            self._heart.tell(active=True)
        self._heart.look()

    def _on_life(self, peer: str, before: Life, life: Life) -> None:
        kind = f"peer.{peer}"
        self.monitor.show(**{kind: life.value})
        self.monitor.clear(kind)
        if life is Life.SILENT:
            said = f"{peer} is silent: its process has died, was stopped or hangs"
            self.monitor.stand(kind, said)
            self.fault(f"lost.{peer}", said)
        elif life is Life.INACTIVE:
            self.monitor.stand(kind, f"{peer} is inactive", DiagnosticStatus.WARN)
        if life is not Life.SILENT and before is not Life.UNHEARD:
            self.get_logger().info(f"{peer} is {life.value}")
        self.publish_diagnostics()

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
        if self._made:
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
            self.log_exception("report", error)
            self.monitor.fault("fault.exception", f"report: {error!r}")

    def _tell(self) -> None:
        self._endpoints.examine()
        self.publish_diagnostics()
