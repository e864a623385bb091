"""The figures of a run, step by step: a CSV, and TensorBoard's files where that is wanted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from smwm_ros.errors import ConfigError


class Log:
    """``log.csv``, a row at each step that is logged; it is whole after each."""

    def __init__(self, path: Path, first: int = 0, tensorboard: bool = False) -> None:
        """
        Begin, or go on.

        Args:
            path: of the CSV; TensorBoard's files go beside it.
            first: step that a run is resumed at; rows after it are dropped.
            tensorboard: write these as well.

        Raises:
            ConfigError: TensorBoard is wanted and not installed.
        """
        self.path = path
        self.rows = [row for row in read_log(path) if row["step"] <= first] if first else []
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
            except ImportError as error:
                raise ConfigError(
                    f"TensorBoard is not installed ({error}); pip install 'smwm_ros[tensorboard]', or train "
                    "without --tensorboard: log.csv has the same figures"
                ) from error
            self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=first)

    @property
    def newest(self) -> dict[str, float]:
        """The last row; empty when there is none."""
        return self.rows[-1] if self.rows else {}

    @property
    def lowest_loss(self) -> float:
        """The lowest loss so far; infinite when there is none."""
        return min((row["loss"] for row in self.rows), default=float("inf"))

    def write(self, row: dict[str, float]) -> None:
        """Add a row; ``step`` is one of its keys."""
        self.rows.append(row)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.rows[0], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        if self._board:
            for name, value in row.items():
                self._board.add_scalar(name, value, int(row["step"]))
            self._board.flush()


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the rows of a trainer's ``log.csv``; none when there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
