"""Ingesting bags of numbered images, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import PERIOD

from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.data.ingest.report import IngestReport
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError


def run(folder: Path, *bags: Path, **options: Any) -> tuple[EpisodeStore, IngestReport]:
    report = ingest(bags, folder / "store.h5", **options)
    return EpisodeStore(folder / "store.h5"), report


def numbers(store: EpisodeStore, episode: int) -> list[int]:
    """Return the numbers that the images of an episode say."""
    pixels = store.episode(episode)["pixels"].astype(int)
    assert (pixels == pixels[:, :1, :1]).all()
    return (pixels[:, 0, 0, 0] + 251 * pixels[:, 0, 0, 1]).tolist()


def assert_aligned(store: EpisodeStore) -> None:
    """Every row's image, action, joints and stamp say the same number."""
    for number in range(store.episodes):
        said = np.array(numbers(store, number))
        rows = store.episode(number)
        np.testing.assert_array_equal(rows["action"][:-1, 0], said[:-1])
        np.testing.assert_array_equal(rows["joints"], np.stack([said, -said], axis=1))
        np.testing.assert_array_equal(rows["stamp"], (said + 1) * PERIOD)
        assert np.isnan(rows["action"][-1]).all()


def refused(folder: Path, reason: str, *bags: Path, **options: Any) -> None:
    """Ingest, see the refusal, and that nothing is left behind."""
    out = folder / "out"
    out.mkdir()
    with pytest.raises(DataError, match=reason):
        ingest(bags, out / "store.h5", **options)
    assert list(out.iterdir()) == []
