"""Subscriptions that are emptied by hand."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import CallbackGroup


class Uncalled(CallbackGroup):
    """
    Subscriptions that the executor leaves alone, so that their queues are emptied elsewhere.

    A turn of rclpy's executor takes about a hundred times as long as taking a message from a queue.
    """

    def can_execute(self, entity: Any) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


def never_called(_: object) -> None:
    """Be the callback of such a subscription."""
    raise AssertionError
