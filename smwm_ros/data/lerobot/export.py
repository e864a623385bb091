"""
A LeRobotDataset v3 out of an episode store.

Written after the format's description, without the lerobot library: Parquet tables of frames and of
episodes, JSON for the rest. Images are PNG inside the tables, so they stay what they were.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.lerobot.features import DONE, IMAGE, SUCCESS, choose_vectors, describe
from smwm_ros.data.lerobot.statistics import Statistics, count_brightness, of_all, of_images, of_rows
from smwm_ros.data.lerobot.tables import (
    CHUNK_FILES,
    FILE_BYTES,
    PATTERN,
    FrameTables,
    require_pyarrow,
    write_episodes,
    write_tasks,
)
from smwm_ros.data.store.layout import OUTCOMES
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError, DataError

VERSION = "v3.0"
BATCH_ROWS = 512
"""Frames that are in memory, and in a row group of the tables."""

Progress = Callable[[int, int], None]


def export_lerobot(
    store: EpisodeStore, out: Path | str, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """
    Write a store as a LeRobotDataset.

    ``pixels`` become ``observation.image``, ``joints`` ``observation.state``, other columns
    ``observation.NAME``; ``action`` keeps the contract's units, and ``stamp`` its nanoseconds, while
    ``timestamp`` counts frames at the contract's rate, as LeRobot demands. An episode's label is its task;
    ``next.done`` marks its last frame and, where any outcome is known, ``next.success`` that of a success.
    The last row of an episode is left out: no action was applied from it. ``meta/smwm_ros.json`` holds
    the contract.

    Args:
        store: the episodes.
        out: folder to write; it must not exist yet, and appears when all went well.
        progress: called with the rows done and all of them.

    Returns:
        ``episodes`` and ``frames`` written, and the columns ``left_out``.

    Raises:
        ConfigError: pyarrow is not installed, or ``out`` exists.
        DataError: no episode has an action, or the folder cannot be written.
    """
    out = Path(out)
    require_pyarrow()
    if out.exists():
        raise ConfigError(f"{out}: exists already; give a new folder for the dataset")
    if not (store.lengths > 1).any():
        raise DataError(f"{store.path}: no episode has two rows, so there is no action to export")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        result = _Dataset(store, partial).write(progress)
        partial.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot write the dataset ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


class _Dataset:
    """A dataset in the making."""

    def __init__(self, store: EpisodeStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._vectors, self._left_out = choose_vectors(store)
        self._outcomes_known = any(facts.outcome for facts in store.facts)
        self._tables = FrameTables(folder)
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0
        self._statistics: list[dict[str, Statistics]] = []

    def write(self, progress: Progress) -> dict[str, Any]:
        for number in np.flatnonzero(self._store.lengths > 1):
            self._add(int(number))
            progress(int(self._store.offsets[number] + self._store.lengths[number]), len(self._store))
        self._tables.close()
        (self._folder / "meta").mkdir()
        write_episodes(self._folder, self._episodes)
        write_tasks(self._folder, list(self._tasks))
        whole = {name: of_all([s[name] for s in self._statistics]) for name in self._statistics[0]}
        contents = {
            "info": self._info(),
            "stats": {
                name: {key: value.tolist() for key, value in each.items()} for name, each in whole.items()
            },
            "smwm_ros": {
                "contract": json.loads(self._store.contract.model_dump_json()),
                "fingerprint": self._store.fingerprint,
            },
        }
        for name, content in contents.items():
            (self._folder / "meta" / f"{name}.json").write_text(json.dumps(content, indent=4) + "\n")
        return {"episodes": len(self._episodes), "frames": self._frames, "left_out": self._left_out}

    def _add(self, number: int) -> None:
        """Write an episode's frames, a few at a time."""
        store = self._store
        place = self._tables.place_episode()
        facts = store.facts[number]
        task = facts.label or store.contract.name
        numbers = self._numbers(number, self._tasks.setdefault(task, len(self._tasks)))
        first, count = int(store.offsets[number]), int(store.lengths[number]) - 1
        brightness = np.zeros((3, 256), np.int64)
        for start in range(0, count, BATCH_ROWS):
            part = slice(start, min(start + BATCH_ROWS, count))
            pixels = store.column("pixels")[first + part.start : first + part.stop]
            brightness += count_brightness(pixels)
            self._tables.write(pixels, {name: rows[part] for name, rows in numbers.items()}, start)
        measured = {IMAGE: of_images(brightness, count)} | {n: of_rows(rows) for n, rows in numbers.items()}
        self._statistics.append(measured)
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": [task],
                "length": count,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + count,
                **{f"data/{key}": value for key, value in place.items()},
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                "outcome": OUTCOMES[facts.outcome],
                **{f"stats/{name}/{key}": v for name, each in measured.items() for key, v in each.items()},
            }
        )
        self._frames += count

    def _numbers(self, number: int, task: int) -> dict[str, NDArray[Any]]:
        """Return an episode's features but the images, without the last row."""
        store = self._store
        rows = slice(int(store.offsets[number]), int(store.offsets[number] + store.lengths[number]) - 1)
        count = rows.stop - rows.start
        frame = np.arange(count)
        last = frame == count - 1
        vectors = {}
        for column, vector in self._vectors.items():
            found = store.column(column)[rows]
            # One number is a number, and not a list of one.
            vectors[vector.name] = found.reshape(-1) if vector.size == 1 else found
        flags = {DONE: last}
        if self._outcomes_known:
            flags[SUCCESS] = last & (OUTCOMES[store.facts[number].outcome] == "success")
        return {
            **vectors,
            **flags,
            "timestamp": (frame / store.contract.rate).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(count, len(self._episodes)),
            "index": self._frames + frame,
            "task_index": np.full(count, task),
        }

    def _info(self) -> dict[str, Any]:
        contract = self._store.contract
        return {
            "codebase_version": VERSION,
            "robot_type": contract.name,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": FILE_BYTES >> 20,
            "video_files_size_in_mb": 2 * FILE_BYTES >> 20,
            "fps": int(contract.rate) if contract.rate.is_integer() else contract.rate,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": f"data/{PATTERN}",
            "video_path": None,
            "features": describe(self._store, self._vectors, self._outcomes_known),
        }
