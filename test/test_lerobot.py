"""LeRobotDatasets: opened by the real library where it is installed, otherwise held to its schema."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import CONTRACT, episode, write_store

from smwm_ros.data.lerobot import statistics, tables
from smwm_ros.data.lerobot.export import export_lerobot
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import ConfigError, DataError

parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
LENGTHS = (30, 1, 12, 700)
FRAMES = (29, 11, 699)
"""Without the last rows, and the episode that is only one."""
INFO = {"codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks", "chunks_size"} | {
    *("data_files_size_in_mb", "video_files_size_in_mb", "fps", "splits", "data_path", "video_path"),
    "features",
}
EPISODE = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"} | {
    *("data/chunk_index", "data/file_index", "meta/episodes/chunk_index", "meta/episodes/file_index")
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two files of frames, with batches that divide an episode."""
    folder = tmp_path_factory.mktemp("lerobot")
    with pytest.MonkeyPatch.context() as patch, EpisodeStore(write_store(folder / "s.h5", LENGTHS)) as store:
        patch.setattr(tables, "FILE_BYTES", 2000)
        result = export_lerobot(store, folder / "dataset")
    assert result == {"episodes": 3, "frames": 739, "left_out": []}
    return folder / "dataset"


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def frames(dataset: Path) -> list[dict[str, Any]]:
    """Return all frames, in the order of the files."""
    files = sorted((dataset / "data").glob("*/*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def test_every_frame_is_there(dataset: Path) -> None:
    """Images to the byte, actions and joints to the bit; flags, indices and times as LeRobot has them."""
    rows = frames(dataset)
    index = 0
    for number, (which, length) in enumerate(zip((0, 2, 3), FRAMES, strict=True)):
        expected = episode(LENGTHS[which], 1000 * which)
        for t in range(length):
            row = rows[index]
            png = cv2.imdecode(np.frombuffer(row["observation.image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(png[..., ::-1], expected["pixels"][t])
            assert row["action"] == expected["action"][t].tolist()
            assert row["observation.state"] == expected["joints"][t].tolist()
            assert row["stamp"] == expected["stamp"][t]
            assert row["timestamp"] == np.float32(t / 20)
            assert (row["frame_index"], row["episode_index"], row["index"]) == (t, number, index)
            assert row["next.done"] == (t == length - 1)
            assert row["next.success"] == (t == length - 1 and which in {0, 3})
            assert row["task_index"] == {0: 0, 2: 1, 3: 2}[which]
            index += 1
    assert index == len(rows)


def test_the_schema_is_the_documented_one(dataset: Path) -> None:
    """codebase_version v3.0: what LeRobotDatasetMetadata reads."""
    info = load(dataset / "meta/info.json")
    assert info.keys() == INFO
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 20, "tiny")
    assert isinstance(info["fps"], int)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 739, 3)
    assert info["splits"] == {"train": "0:3"}
    features = info["features"]
    assert features["observation.image"] == {
        "dtype": "image",
        "shape": [12, 12, 3],
        "names": ["height", "width", "channels"],
    }
    assert features["action"] == {"dtype": "float32", "shape": [2], "names": ["d0", "d1"]}
    assert features["observation.state"] == {"dtype": "float32", "shape": [2], "names": ["a", "b"]}
    assert features["next.done"] == {"dtype": "bool", "shape": [1], "names": None}
    assert set(features) == set(frames(dataset)[0])

    tasks = parquet.read_table(dataset / "meta/tasks.parquet")
    assert tasks.to_pylist() == [
        {"task_index": number, "__index_level_0__": task}
        for number, task in enumerate(["push", "tiny", "pull"])
    ]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]

    episodes = parquet.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert episodes[0].keys() >= EPISODE
    assert [e["length"] for e in episodes] == list(FRAMES)
    assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [
        (0, 29),
        (29, 40),
        (40, 739),
    ]
    assert [e["tasks"] for e in episodes] == [["push"], ["tiny"], ["pull"]]
    assert [e["outcome"] for e in episodes] == ["success", "unknown", "success"]
    for e in episodes:
        place = {"chunk_index": e["data/chunk_index"], "file_index": e["data/file_index"]}
        found = parquet.read_table(dataset / info["data_path"].format(**place))
        assert e["episode_index"] in found["episode_index"].to_pylist()
    assert len({e["data/file_index"] for e in episodes}) > 1, "the test wants several files"

    origin = load(dataset / "meta/smwm_ros.json")
    assert origin["contract"]["action"]["dimensions"][0]["unit"] == "rad/s"


def test_statistics_are_those_of_the_frames(dataset: Path) -> None:
    """Of all and of each episode; those of images are per channel, on the scale of 0 to 1."""
    stats = load(dataset / "meta/stats.json")
    rows = frames(dataset)
    assert set(stats) == set(rows[0])
    action = np.array([row["action"] for row in rows])
    np.testing.assert_allclose(stats["action"]["mean"], action.mean(axis=0))
    np.testing.assert_allclose(stats["action"]["std"], action.std(axis=0))
    np.testing.assert_allclose(stats["action"]["max"], action.max(axis=0))
    assert stats["action"]["count"] == stats["observation.image"]["count"] == [739]
    images = np.concatenate([episode(LENGTHS[e], 1000 * e)["pixels"][:-1] for e in (0, 2, 3)]) / 255
    for name, figure in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        np.testing.assert_allclose(
            np.array(stats["observation.image"][name]), figure(images, axis=(0, 1, 2)).reshape(3, 1, 1)
        )
    first = parquet.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[0]
    assert first["stats/action/q50"] == [14.0, -14.0]
    assert np.array(first["stats/observation.image/mean"]).shape == (3, 1, 1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 3))
def test_statistics_of_parts_make_those_of_the_whole(lengths: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    parts = [generator.normal(size=(length, 2)) for length in lengths]
    found = statistics.of_all([statistics.of_rows(part) for part in parts])
    expected = statistics.of_rows(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(found[name], expected[name])


@given(st.integers(0, 100), st.integers(1, 3))
def test_statistics_of_brightness(seed: int, count: int) -> None:
    """Counting gives what numpy finds in the images themselves."""
    images = np.random.default_rng(seed).integers(10, 30, (count, 4, 5, 3), np.uint8)
    found = statistics.of_images(statistics.count_brightness(images), count)
    values = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(found["mean"].reshape(3), values.mean(axis=0))
    np.testing.assert_allclose(found["std"].reshape(3), values.std(axis=0), atol=1e-9)
    np.testing.assert_allclose(found["min"].reshape(3), values.min(axis=0))
    np.testing.assert_allclose(found["max"].reshape(3), values.max(axis=0))
    for name, share in statistics.QUANTILES.items():
        expected = np.quantile(values, share, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(found[name].reshape(3), expected)


def test_columns_that_no_feature_can_hold_are_named(tmp_path: Path) -> None:
    """Unknown columns become observations; those with several axes are left out and said to be."""
    rows = episode(4) | {"depth": np.zeros((4, 12, 12), np.float32), "gripper": np.arange(4.0)}
    with EpisodeWriter(tmp_path / "store.h5", CONTRACT) as writer:
        writer.append(rows)
    with EpisodeStore(tmp_path / "store.h5") as store:
        assert export_lerobot(store, tmp_path / "dataset")["left_out"] == ["depth"]
    features = load(tmp_path / "dataset/meta/info.json")["features"]
    assert features["observation.gripper"] == {"dtype": "float64", "shape": [1], "names": None}
    assert "next.success" not in features, "no outcome is known"
    assert [row["observation.gripper"] for row in frames(tmp_path / "dataset")] == [0, 1, 2]


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that exists, a store without actions, a missing library: each is named, nothing is left."""
    short = write_store(tmp_path / "short.h5", (1, 1))
    (tmp_path / "there").mkdir()
    with EpisodeStore(short) as store:
        with pytest.raises(DataError, match="no episode has two rows"):
            export_lerobot(store, tmp_path / "new")
        with pytest.raises(ConfigError, match="exists already"):
            export_lerobot(store, tmp_path / "there")
        for name in [name for name in sys.modules if name.startswith("pyarrow")]:
            monkeypatch.delitem(sys.modules, name)
        whole = builtins.__import__

        def without(name: str, *rest: Any) -> Any:
            if name.startswith("pyarrow"):
                raise ImportError(name)
            return whole(name, *rest)

        monkeypatch.setattr(builtins, "__import__", without)
        monkeypatch.setattr(tables, "import_module", without)
        with pytest.raises(ConfigError, match=r"pip install pyarrow"):
            export_lerobot(store, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.h5", "there"]


def test_the_real_library_opens_it(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames and actions are equal, one for one, and windows in time are where they should be."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="pip install lerobot")
    opened = library.LeRobotDataset("local/tiny", root=dataset)
    assert (len(opened), opened.num_episodes, opened.fps) == (739, 3, 20)
    for row, item in zip(frames(dataset), opened, strict=True):
        png = cv2.imdecode(np.frombuffer(row["observation.image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
        shown = (item["observation.image"] * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(shown, png[..., ::-1])
        assert item["action"].tolist() == row["action"]
    steps = {"action": [0, 0.05], "observation.image": [-0.05, 0]}
    part = library.LeRobotDataset("local/tiny", root=dataset, episodes=[2], delta_timestamps=steps)
    assert part[5]["action"].tolist() == [[3005, -3005], [3006, -3006]]
    assert part[5]["task"] == "pull"
