"""The ``reach_goal`` action server: who may send goals when, and how each of them ends."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from smwm_ros.action import ReachGoal
from smwm_ros.errors import DataError
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.runtime.goal import Outcome, Pursuit


class GoalServer:
    """
    Accepts goals while its node is active, and sends each one's result when it is told.

    All of it runs in the executor's thread.
    """

    def __init__(
        self,
        node: SmwmNode,
        name: str,
        read: Callable[[ReachGoal.Goal], Pursuit],
        begin: Callable[[ServerGoalHandle, Pursuit], None],
        cancel: Callable[[ServerGoalHandle], bool],
    ) -> None:
        """
        Offer the action.

        Args:
            node: whose action it is.
            name: of the action.
            read: makes something to pursue of a request; if it raises, the goal ends at once.
            begin: takes up a goal.
            cancel: ends a goal that the client cancels; False if it has ended already.
        """
        self._node = node
        self._read = read
        self._begin = begin
        self._results: dict[bytes, Future[ReachGoal.Result]] = {}
        self._server = ActionServer(
            node,
            ReachGoal,
            name,
            execute_callback=self._finish,
            goal_callback=lambda _: GoalResponse.ACCEPT if node.active else GoalResponse.REJECT,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda handle: CancelResponse.ACCEPT if cancel(handle) else CancelResponse.REJECT,
        )

    def end(self, handle: ServerGoalHandle, result: ReachGoal.Result) -> None:
        """Send the result of a goal."""
        self._results[bytes(handle.goal_id.uuid)].set_result(result)

    def destroy(self) -> None:
        """Withdraw the action."""
        self._server.destroy()

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        self._results[bytes(handle.goal_id.uuid)] = Future()
        handle.execute()
        try:
            pursuit = self._read(handle.request)
        except Exception as error:
            self._refuse(handle, error)
            return
        self._begin(handle, pursuit)

    def _refuse(self, handle: ServerGoalHandle, error: Exception) -> None:
        code = Outcome.BAD_GOAL if isinstance(error, DataError) else Outcome.INTERNAL
        if code is Outcome.INTERNAL:
            self._node.log_exception("reading a goal", error)
        self._node.get_logger().warning(f"goal refused: {error}")
        self.end(
            handle, ReachGoal.Result(error_code=int(code), message=str(error), final_distance=float("nan"))
        )

    async def _finish(self, handle: ServerGoalHandle) -> ReachGoal.Result:
        uuid = bytes(handle.goal_id.uuid)
        result = await self._results[uuid]
        del self._results[uuid]
        if result.success:
            handle.succeed()
        elif result.error_code == ReachGoal.Result.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        return result
