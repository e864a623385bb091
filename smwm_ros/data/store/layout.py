"""
The episode store: aligned episodes in one HDF5 file, laid out as LeWM and stable-worldmodel do it.

Every column is a dataset with one row per tick, all episodes after one another; ``ep_len`` and
``ep_offset`` (int64, one per episode) say where each lies:

========  ======================  ===============================================================
pixels    (N, S, S, 3) uint8      RGB, as the encoder sees it
action    (N, A) float32          applied from this image until the next, in the contract's units;
                                  NaN in the last row of an episode, where no next image is
stamp     (N,) int64              of the image, nanoseconds
others    (N, ...)                state columns such as ``joints``
========  ======================  ===============================================================

The file's attributes hold the contract (JSON), a fingerprint of the contents, what is known of each
episode (JSON) and where all came from (JSON). They are strings of variable length: HDF5 keeps at most
64 KB in any other attribute, and LeWM-layout readers take everything but attributes for a column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.errors import DataError

REQUIRED = ("pixels", "action")
INDEX = ("ep_len", "ep_offset")
CHUNK_BYTES = 1 << 18
"""Bytes in one chunk: large enough for fast sequential writes, small enough for random windows."""
COPY_BYTES = 1 << 23
"""Bytes of a column that are in memory at a time, where all of it is read."""
OUTCOMES = ("unknown", "success", "failure")
"""What the numbers of ``outcome`` mean; those of smwm_ros/msg/EpisodeEvent."""


@dataclass(frozen=True)
class EpisodeFacts:
    """What is known of an episode besides its rows."""

    outcome: int = 0
    """Index into ``OUTCOMES``."""
    label: str = ""
    """Free text, such as the task or the object."""
    origin: str = ""
    """Where the rows come from, such as a bag."""

    def __post_init__(self) -> None:
        if self.outcome not in range(len(OUTCOMES)):
            known = ", ".join(f"{number} ({name})" for number, name in enumerate(OUTCOMES))
            raise DataError(f"an episode's outcome is {self.outcome!r}; there are {known}")


def facts_to_json(facts: Sequence[EpisodeFacts]) -> str:
    """Write the facts down as one list for each kind of them."""
    return json.dumps({field.name: [getattr(f, field.name) for f in facts] for field in fields(EpisodeFacts)})


def facts_from_json(text: str, episodes: int, source: str) -> tuple[EpisodeFacts, ...]:
    """
    Read what :func:`facts_to_json` wrote.

    Raises:
        DataError: not that, or not for so many episodes.
    """
    try:
        content = json.loads(text)
        if not content:  # a store from elsewhere
            return (EpisodeFacts(),) * episodes
        columns = [content[field.name] for field in fields(EpisodeFacts)]
        facts = tuple(EpisodeFacts(*values) for values in zip(*columns, strict=True))
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(
            f"{source}: the attribute 'episode_facts' is damaged ({error}); make it again"
        ) from error
    if len(facts) != episodes:
        raise DataError(f"{source}: there are {episodes} episodes, but facts about {len(facts)}")
    return facts


class Digests:
    """
    The fingerprint of a store in the making: of the contract, the episodes' bounds and every row.

    The same contents have the same fingerprint, however they came and whatever the file's layout.
    """

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}

    def update(self, name: str, rows: NDArray[Any]) -> None:
        """Take in a column's next rows."""
        rows = np.ascontiguousarray(rows)
        if name not in self._columns:
            self._columns[name] = hashlib.sha256(f"{name} {rows.dtype.str} {rows.shape[1:]}".encode())
        self._columns[name].update(rows)

    def fingerprint(self, contract: Contract, lengths: NDArray[np.int64]) -> str:
        """Return the fingerprint of all that was taken in."""
        digest = hashlib.sha256(contract.model_dump_json().encode())
        digest.update(lengths.tobytes())
        for _, column in sorted(self._columns.items()):
            digest.update(column.digest())
        return digest.hexdigest()[:16]


def write_index(
    file: h5py.File,
    contract: Contract,
    lengths: Sequence[int],
    facts: Sequence[EpisodeFacts],
    source: Mapping[str, Any],
    digests: Digests,
) -> str:
    """Add to the columns what makes them a store; returns the fingerprint."""
    counts = np.array(lengths, np.int64)
    fingerprint = digests.fingerprint(contract, counts)
    file["ep_len"] = counts
    file["ep_offset"] = np.cumsum(counts) - counts
    file.attrs["contract"] = contract.model_dump_json()
    file.attrs["fingerprint"] = fingerprint
    file.attrs["episode_facts"] = facts_to_json(facts)
    file.attrs["source"] = json.dumps(dict(source))
    return fingerprint


def check_columns(columns: Mapping[str, Any], contract: Contract, source: str) -> None:
    """Raise a DataError if pixels or actions are not as the contract says."""
    size = contract.observation.image.size
    pixels, action = columns["pixels"], columns["action"]
    if pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
        raise DataError(
            f"{source}: pixels are {pixels.shape[1:]} {pixels.dtype}; the contract {contract.name!r} expects "
            f"{(size, size, 3)} uint8"
        )
    if action.shape[1:] != (contract.action.size,) or action.dtype.kind != "f":
        raise DataError(
            f"{source}: actions are {action.shape[1:]} {action.dtype}; the contract {contract.name!r} "
            f"expects {(contract.action.size,)} floats"
        )


def check_actions(actions: NDArray[Any], source: str) -> None:
    """Raise a DataError unless exactly the last row lacks its action."""
    if not np.isfinite(actions[:-1]).all():
        row = int(np.flatnonzero(~np.isfinite(actions[:-1]).all(axis=1))[0])
        raise DataError(f"{source}: the action of row {row} is not finite; only the last row may lack one")
    if not np.isnan(actions[-1]).all():
        raise DataError(
            f"{source}: the last row has an action, but no image follows it; set the action to NaN, "
            "or give the last image"
        )


def kinds(columns: Mapping[str, Any]) -> dict[str, str]:
    """Describe what a row of each column is, to compare and to show."""
    return {name: f"{column.shape[1:]} {column.dtype}" for name, column in columns.items()}


def row_bytes(column: h5py.Dataset) -> int:
    """Return the bytes of one row of a column."""
    return max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize)


def batches(column: h5py.Dataset, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield rows ``start`` to ``stop`` of a column, a few at a time, each with the first one's number."""
    step = max(1, COPY_BYTES // row_bytes(column))
    for first in range(start, stop, step):
        yield first, column[first : min(first + step, stop)]
