"""
Tell whoever started this process how it is doing, by systemd's sd_notify protocol.

`smwm up` waits for it, and so does a systemd unit with ``Type=notify``. See sd_notify(3).
"""

from __future__ import annotations

import os
import socket

ADDRESS = "NOTIFY_SOCKET"


def notify_ready() -> None:
    """Say that the node is up: configured and active."""
    _send("READY=1")


def notify_failed(reason: str) -> None:
    """
    Say that the node could not come up.

    Args:
        reason: one sentence for the user; line ends become spaces, as the protocol has lines.
    """
    _send("ERRNO=1\nSTATUS=" + " ".join(reason.split()))


def _send(message: str) -> None:
    """Send to the socket named in the environment; nothing happens where nobody listens."""
    address = os.environ.get(ADDRESS)
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract sockets are written so in the variable
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)
    except OSError:  # the one who asked is gone: no reason for a robot's node to fail
        return
