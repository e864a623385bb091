"""
The base of all lifecycle nodes.

The base owns every transition. A node writes only ``set_up``, ``start``, ``stop`` and ``tear_down``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.task import Future

from smwm_ros.errors import SmwmError
from smwm_ros.nodes.guarded import GuardedNode
from smwm_ros.nodes.heartbeat import PERIOD, Heartbeat, Life

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class SmwmNode(GuardedNode):
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
    """

    depends_on: ClassVar[tuple[str, ...]] = ()
    """Nodes without which it is of no use. When one falls silent, diagnostics say so at once."""

    def __init__(self, name: str, **arguments: Any) -> None:
        """
        Make the node; see :class:`GuardedNode`.

        Args:
            name: the node's name, unless remapped.
            arguments: passed on to rclpy's LifecycleNode.

        Raises:
            ConfigError: a parameter was given a wrong value.
        """
        super().__init__(name, **arguments)
        self.finished: Future[int] = Future()
        """Resolved with the exit code when the process should end; see :meth:`finish`."""
        self.failure = ""
        """Why the last failed transition failed."""
        self._broken = ""
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

    def own_process(self) -> None:
        """Arrange the process; called once, and only where that is the node's own."""

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

    def bring_up(self) -> bool:
        """Configure and activate; False if either failed (the reason is logged)."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def shut_down(self) -> None:
        """Stop and let go, from whatever state."""
        if self.configured:
            self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``set_up``; undo all if that fails. A parameter that the node does not have is refused."""
        self.configured = True
        result = self._attempt("configure", self._set_up)
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

    def _set_up(self) -> None:
        self.declared.refuse_unknown()  # only now has each constructor declared its own
        self.set_up()

    def _stop(self, what: str) -> bool:
        self.active = False
        self._heart.tell(active=False)
        return self._attempt(what, self.stop) == SUCCESS

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
        if not self.configured:
            return True
        self.configured = False
        succeeded = self._attempt("tear down", self.tear_down) == SUCCESS
        for entity in self._entities():
            if id(entity) not in self._permanent:
                self._destroy(entity)
        self._endpoints.forget()
        self.release()
        # rclpy's group keeps a reference to everything that ever was in it.
        known = self.default_callback_group.entities
        known -= {reference for reference in known if reference() is None}
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
