"""Parquet tables as LeRobotDataset v3 has them. Everything that knows pyarrow is here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.lerobot.features import IMAGE
from smwm_ros.errors import ConfigError

FILE_BYTES = 100 << 20
"""Of frames, after which the next file begins."""
CHUNK_FILES = 1000
"""Files in one folder."""
PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def require_pyarrow() -> None:
    """Raise a ConfigError that says how to install pyarrow, if it is missing."""
    try:
        import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            "a LeRobotDataset is written with pyarrow, which is not installed: `pip install pyarrow`, "
            "or install smwm_ros with its extra: `pip install '.[lerobot]'`"
        ) from error


class FrameTables:
    """The tables of frames: files of whole episodes, each up to a size."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: of the dataset.
        """
        self._folder = folder / "data"
        self._number = -1
        self._writer: Any = None
        self._path = folder

    def place_episode(self) -> dict[str, int]:
        """Return ``chunk_index`` and ``file_index`` of the file that the next episode goes to."""
        if self._writer is None or self._path.stat().st_size >= FILE_BYTES:
            self.close()
            self._number += 1
            self._path = self._folder / PATTERN.format(**self._place())
            self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._place()

    def write(self, pixels: NDArray[np.uint8], numbers: Mapping[str, NDArray[Any]], first: int) -> None:
        """
        Write frames.

        Args:
            pixels: shape (T, S, S, 3), RGB.
            numbers: of each feature, shape (T,) or (T, D).
            first: number of the first frame in its episode.
        """
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415

        pngs = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in pixels]
        paths = [f"frame-{first + number:06d}.png" for number in range(len(pngs))]
        columns = {IMAGE: pa.StructArray.from_arrays([pa.array(pngs), pa.array(paths)], ["bytes", "path"])}
        for name, rows in numbers.items():
            flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]) if rows.ndim == 2 else flat
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _place(self) -> dict[str, int]:
        chunk, file = divmod(self._number, CHUNK_FILES)
        return {"chunk_index": chunk, "file_index": file}


def write_episodes(folder: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of episodes; numbers of numpy become lists."""
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = folder / "meta/episodes" / PATTERN.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    rows = [
        {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in episode.items()}
        for episode in episodes
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_tasks(folder: Path, tasks: Sequence[str]) -> None:
    """Write the table of tasks, whose texts are the index of a pandas data frame: the library wants that."""
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    index = "__index_level_0__"
    numbers = pa.array(range(len(tasks)), pa.int64())
    table = pa.table({"task_index": numbers, index: pa.array(tasks, pa.string())})
    kinds = (("task_index", "task_index", "int64", "int64"), (None, index, "unicode", "object"))
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, field, kind, numpy in kinds
        ],
        "pandas_version": "2.0.0",
    }
    table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
    pq.write_table(table, folder / "meta/tasks.parquet")
