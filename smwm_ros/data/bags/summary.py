"""What a bag holds, in figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import CONTRACT_KEY


def summarise(path: Path | str, *, check: bool = False) -> dict[str, Any]:
    """
    Say what a bag holds.

    Args:
        path: the bag's folder, or one of its files.
        check: read all of it, verify every checksum, and list what is damaged.

    Returns:
        ``path``, ``whole`` (nothing is wrong, as far as that was looked at), ``storage``,
        ``compression``, ``bytes``, ``start_ns``, ``seconds``, ``messages``, ``contract`` (name of the
        robot; empty without one), ``custom_data`` (but for the contract), ``files`` (name to bytes),
        ``topics`` (name to ``type``, ``messages``, ``rate_hz``, ``qos``), ``notes``, ``losses``.

    Raises:
        DataError: no such bag, an empty or, without ``check``, a damaged one.
    """
    with BagReader(path, salvage=check) as bag:
        first, last = bag.span
        custom = dict(bag.custom_data)
        contract = custom.pop(CONTRACT_KEY, "")
        sizes = {file.name: file.stat().st_size for file in bag.files}
        return {
            "path": str(path),
            "whole": not (bag.notes or bag.losses),
            "storage": bag.storage,
            "compression": bag.compression,
            "bytes": sum(sizes.values()),
            "start_ns": first,
            "seconds": (last - first) / 1e9,
            "messages": bag.count(bag.topics),
            "contract": _name(contract),
            "custom_data": custom,
            "files": sizes,
            "topics": {topic: _topic(bag, topic, last - first) for topic in sorted(bag.topics)},
            "notes": bag.notes,
            "losses": [str(loss) for loss in bag.losses],
        }


def _topic(bag: BagReader, topic: str, duration: int) -> dict[str, Any]:
    messages = bag.count([topic])
    return {
        "type": bag.topics[topic],
        "messages": messages,
        # So many intervals; a single message has no rate.
        "rate_hz": (messages - 1) * 1e9 / duration if messages > 1 and duration else 0.0,
        "qos": [
            f"{qos.reliability.name}, {qos.durability.name}, {qos.history.name} {qos.depth}".lower()
            for qos in bag.offered_qos(topic)
        ],
    }


def _name(contract: str) -> str:
    """Return the name in a contract, which need not be a valid one to be told."""
    try:
        return str(json.loads(contract)["name"])[:200]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
