"""Episode stores for others: files as stable-worldmodel's own writer lays them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from smwm_ros.data.store.assemble import ALIGNMENT
from smwm_ros.data.store.layout import batches
from smwm_ros.data.store.output import NewFile
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError

Progress = Callable[[int, int], None]
DERIVED = ("ep_idx", "step_idx")
"""Columns that follow from ``ep_len``: written for others, not read back."""
JOINTS, PROPRIO = "joints", "proprio"
"""The joint positions here, and what LeWM's configurations call them."""


def export_lewm(store: EpisodeStore, out: Path | str, progress: Progress = lambda done, total: None) -> None:
    """
    Write a store as stable-worldmodel's own writer lays a file out.

    ``joints`` become ``proprio``, and ``ep_idx`` and ``step_idx`` say of each row where it belongs. The last
    row's action stays NaN, as it is there. :mod:`smwm_ros.data.store.lewm_import` gives the store back.

    Args:
        store: the episodes.
        out: the file to write.
        progress: called with the rows done and all of them, column by column.

    Raises:
        DataError: the folder cannot be written, or a column has a name that is taken.
    """
    names = {name: PROPRIO if name == JOINTS else name for name in store.columns}
    if len(set(names.values()) | set(DERIVED)) != len(names) + len(DERIVED):
        raise DataError(f"{store.path}: has columns named like those to be added: {store.columns}")
    total, done = len(names) * len(store), 0
    numbers = np.repeat(np.arange(store.episodes), store.lengths)
    with NewFile(out, ALIGNMENT) as file:
        for name, new in names.items():
            like = store.column(name)
            column = file.hdf5.create_dataset(new, like.shape, like.dtype)
            for first, rows in batches(like, 0, len(store)):
                column[first : first + len(rows)] = rows
                file.check()
                done += len(rows)
                progress(done, total)
        file.hdf5["ep_idx"] = numbers
        file.hdf5["step_idx"] = np.arange(len(store)) - store.offsets[numbers]
        file.hdf5["ep_len"] = store.lengths.astype(np.int32)
        file.hdf5["ep_offset"] = store.offsets
        for name in ("contract", "episode_facts"):
            file.hdf5.attrs[name] = store.attribute(name)
        file.publish()
