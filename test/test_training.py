"""Windows, the training loop, resuming, and the action alignment test."""

from __future__ import annotations

import multiprocessing
import re
import resource
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from blobs import SIZE, blob_contract, write_blobs
from safetensors.torch import load_file

from smwm_ros.contract import Contract
from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import ConfigError, DataError
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.training.dataset import Feed, Windows, load_windows
from smwm_ros.training.log import read_log
from smwm_ros.training.trainer import learning_rate, train


@pytest.fixture(scope="module")
def contract() -> Contract:
    return blob_contract()


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory, contract: Contract) -> Path:
    path = tmp_path_factory.mktemp("store") / "blob.h5"
    write_blobs(path, contract)
    return path


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    whole = load_model_config("smwm")
    training = whole.training.model_copy(update={"steps": 60, "batch": 32, "validation": 0.2})
    return whole.model_copy(update={"training": training, "window": 2})


def quiet(steps: int, config: ModelConfig, workers: int = 0) -> ModelConfig:
    training = config.training.model_copy(update={"steps": steps, "workers": workers})
    return config.model_copy(update={"training": training})


def test_windows_pair_images_with_the_actions_between_them() -> None:
    """Window r holds the images at r, r+k, …, with their history, and the k actions from each."""
    pixels = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 2, 2, 3))
    actions = np.arange(30, dtype=np.float32)[:, None]
    windows = Windows(pixels, actions, np.array([4, 10]), frames=2, block=3, window=2)
    images, blocks = windows.take(np.array([1]))
    assert images[0, :, :, 0, 0, 0].tolist() == [[9, 10], [12, 13], [15, 16]]
    assert blocks[0, ..., 0].tolist() == [[10, 11, 12], [13, 14, 15]]
    assert windows.take(np.array([1]), shift=3)[1][0, 0, :, 0].tolist() == [13, 14, 15]


def test_batches_are_permutations_that_can_be_entered_anywhere() -> None:
    """Each epoch visits a window once at most, and resuming at batch b gives batch b."""
    nothing = np.zeros((1, 1))
    windows = Windows(nothing, nothing, np.arange(10), frames=1, block=1, window=1)  # type: ignore[arg-type]
    batches = windows.batches(3, seed=1)
    first = [next(batches) for _ in range(7)]
    assert len(set(np.concatenate(first[:3]).tolist())) == 9
    assert not np.array_equal(first[0], first[3])
    for number in (0, 2, 3, 5):
        np.testing.assert_array_equal(next(windows.batches(3, seed=1, first=number)), first[number])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_give_the_same_batches(store_path: Path, config: ModelConfig, workers: int) -> None:
    """In the same order, from any step on, and without a number drawn from torch's own generator."""
    with EpisodeStore(store_path) as store:
        training, _ = load_windows(store, config, seed=0)
        expected = [
            training.take(which) for which, _ in zip(training.batches(8, 1, 3), range(5), strict=False)
        ]
        torch.manual_seed(0)
        feed = Feed(training, 8, 1, range(3, 8), workers)
        found = list(feed)
        drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert len(found) == 5
    for batch, wanted in zip(found, expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(batch, wanted, strict=True))
    assert feed.waited > 0


def test_split_is_by_episode(store_path: Path, config: ModelConfig) -> None:
    """No episode gives windows to both training and validation."""
    with EpisodeStore(store_path) as store:
        training, validation = load_windows(store, config, seed=0)
        episodes = [set((part.starts // 40).tolist()) for part in (training, validation)]
        assert not episodes[0] & episodes[1]
        assert len(episodes[1]) == 10


def test_learning_rate_warms_up_and_ends_at_zero(config: ModelConfig) -> None:
    """Linear to the set rate, then a cosine to nothing."""
    settings = config.training.model_copy(update={"steps": 1000, "warmup": 0.1})
    assert learning_rate(49, settings) == pytest.approx(settings.learning_rate / 2)
    assert learning_rate(100, settings) == pytest.approx(settings.learning_rate)
    assert learning_rate(550, settings) == pytest.approx(settings.learning_rate / 2)
    assert learning_rate(999, settings) < 1e-4 * settings.learning_rate


def test_training_learns_and_sees_misaligned_actions(
    store_path: Path, config: ModelConfig, tmp_path: Path
) -> None:
    """The inverse loss falls well below 1 (the mean as a guess); late actions make it clearly worse."""
    with EpisodeStore(store_path) as store:
        result = train(store, "smwm", quiet(300, config), tmp_path, seed=0, log_every=100)
    assert result.figures["val_inverse"] < 0.7
    assert result.figures["val_inverse_shifted"] > 1.3 * result.figures["val_inverse"]
    assert (tmp_path / "log.csv").read_text().count("\n") == 4


def test_same_seed_same_result(store_path: Path, config: ModelConfig, tmp_path: Path) -> None:
    """Two runs with a seed give the same checkpoint to the byte; another seed another one."""
    identities = []
    for number, seed in enumerate((0, 0, 1)):
        with EpisodeStore(store_path) as store:
            result = train(store, "smwm", quiet(5, config), tmp_path / str(number), seed=seed)
        identities.append(result.identity)
    assert identities[0] == identities[1] != identities[2]


def test_neither_workers_nor_layout_change_the_result(
    store_path: Path, config: ModelConfig, tmp_path: Path
) -> None:
    """A mapped store, and windows gathered by two workers, give the checkpoint of a plain run to the byte."""
    with EpisodeStore(store_path) as store:
        assemble([Piece(store)], tmp_path / "mapped.h5")
        plain = train(store, "smwm", quiet(5, config), tmp_path / "plain")
    with EpisodeStore(tmp_path / "mapped.h5") as store:
        fed = train(store, "smwm", quiet(5, config, workers=2), tmp_path / "fed")
    assert fed.identity == plain.identity
    assert 0 < fed.data_wait_percent < 100


def test_a_store_larger_than_memory(contract: Contract, config: ModelConfig, tmp_path: Path) -> None:
    """Windows of 768 MB of images train in 300 MB; they were once read into memory, all of them."""
    path, rows, length = tmp_path / "large.h5", 1_000_000, 2000
    with EpisodeWriter(path, contract) as writer:
        writer.append(
            {"pixels": np.zeros((2, SIZE, SIZE, 3), np.uint8), "action": np.array([[0, 0], [np.nan] * 2])}
        )
    actions = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    actions[length - 1 :: length] = np.nan
    with h5py.File(path, "r+") as file:
        for name in ("pixels", "action", "ep_len", "ep_offset"):
            del file[name]
        sparse = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        sparse.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        sparse.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        shape = h5py.h5s.create_simple((rows, SIZE, SIZE, 3))
        h5py.h5d.create(file.id, b"pixels", h5py.h5t.NATIVE_UINT8, shape, sparse)
        file["action"] = actions
        file["ep_len"] = np.full(rows // length, length)
        file["ep_offset"] = np.arange(0, rows, length)
        del file.attrs["episode_facts"]

    def child(answer: Any) -> None:
        used = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (used + 300_000_000,) * 2)
        try:
            with EpisodeStore(path) as store:
                windows, _ = load_windows(store, config, seed=0)
                answer.send([tuple(part.shape) for part in next(iter(Feed(windows, 32, 0, range(1))))])
        except BaseException as error:
            answer.send(repr(error))

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    process = context.Process(target=child, args=(sender,))
    process.start()
    assert receiver.poll(60)
    assert receiver.recv() == [(32, 3, 1, SIZE, SIZE, 3), (32, 2, 2, 2)]
    process.join(10)


def test_resuming_is_exact(store_path: Path, config: ModelConfig, tmp_path: Path) -> None:
    """An interrupted run that is resumed ends with the weights of one that was not."""

    class Interrupted(Exception):
        pass

    def interrupt(step: int, figures: dict[str, float]) -> None:
        if step == 7:
            raise Interrupted

    cut = tmp_path / "cut"
    with EpisodeStore(store_path) as store:
        whole = train(store, "smwm", quiet(10, config), tmp_path / "whole", save_every=4, log_every=2)
        with pytest.raises(Interrupted):
            train(
                store,
                "smwm",
                quiet(10, config),
                cut,
                save_every=4,
                log_every=2,
                progress=interrupt,
            )
        with pytest.raises(ConfigError, match="--resume"):
            train(store, "smwm", quiet(10, config), cut)
        with pytest.raises(ConfigError, match="another seed"):
            train(store, "smwm", quiet(10, config), cut, seed=1, resume=True)
        # With workers, for once: a run may go on with more of them.
        fed = quiet(10, config, workers=2)
        resumed = train(store, "smwm", fed, cut, save_every=4, log_every=2, resume=True)
    first, second = load_file(whole.checkpoint), load_file(resumed.checkpoint)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0)
    assert [row["step"] for row in read_log(cut / "log.csv")] == [2, 4, 6, 8, 10]


def test_resuming_from_nothing(store_path: Path, config: ModelConfig, tmp_path: Path) -> None:
    """--resume without a state says so."""
    with EpisodeStore(store_path) as store, pytest.raises(ConfigError, match="without --resume"):
        train(store, "smwm", config, tmp_path, resume=True)


def test_too_little_data(contract: Contract, config: ModelConfig, tmp_path: Path) -> None:
    """A store without enough windows says how many there are and what to do."""
    path = tmp_path / "short.h5"
    with EpisodeWriter(path, contract) as writer:
        writer.append(
            {
                "pixels": np.zeros((5, SIZE, SIZE, 3), np.uint8),
                "action": np.array([[0, 0]] * 4 + [[np.nan] * 2], np.float32),
            }
        )
    with EpisodeStore(path) as store, pytest.raises(DataError, match="Record more"):
        train(store, "smwm", config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_actions_that_do_not_vary(contract: Contract, config: ModelConfig, tmp_path: Path) -> None:
    """A dimension that never moves cannot be learned, and is named before any training."""
    path = tmp_path / "still.h5"
    actions = np.zeros((40, 2), np.float32)
    actions[:, 0] = np.sin(np.arange(40))
    actions[-1] = np.nan
    with EpisodeWriter(path, contract) as writer:
        for _ in range(4):
            writer.append({"pixels": np.zeros((40, SIZE, SIZE, 3), np.uint8), "action": actions})
    with EpisodeStore(path) as store, pytest.raises(DataError, match="do not vary"):
        train(store, "smwm", config, tmp_path / "run")
