"""How fast random training windows come out of an episode store, beside stable-worldmodel's reader."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import ConfigError
from smwm_ros.resources import find_contract
from smwm_ros.training.dataset import Windows

FRAMES, BATCH, EPISODE = 4, 256, 200

PEER = """
import json, sys, time
import numpy as np, torch
from torch.utils.data import default_collate
from importlib.metadata import version
from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
torch.set_num_threads(1)
path, frames, frameskip, batch = sys.argv[1], *map(int, sys.argv[2:])
options = dict(path=path, num_steps=frames, frameskip=frameskip, keys_to_load=["pixels", "action"])
readers = [HDF5Dataset(**options), HDF5Dataset(**options, keys_to_cache=["pixels", "action"])]
print(json.dumps(version("stable-worldmodel")), flush=True)
for line in sys.stdin:
    seed, seconds = json.loads(line)
    rates = []
    for reader in readers:
        generator, done, began = np.random.default_rng(seed), 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            default_collate([reader[int(i)] for i in generator.integers(0, len(reader), batch)])
            done += batch
        rates.append(done / (time.perf_counter() - began))
    print(json.dumps(rates), flush=True)
"""


def bench_windows(
    rows: int, frameskip: int, repeats: int, seconds: float, peer_python: Path | None
) -> dict[str, Any]:
    """
    Measure random windows of four 64x64 images, a model step apart, with the actions between them.

    One process and one thread each; the same file, which the system has in its cache; both give
    batches as a trainer takes them. The two take turns.

    Args:
        rows: in the store that is made for it.
        frameskip: k, control ticks in a model step.
        repeats: of the measurement; one more comes first and is not counted.
        seconds: of each.
        peer_python: interpreter of an environment that has stable-worldmodel.

    Returns:
        Medians and [least, largest] of windows per second; the peer's are None without it, and
        ``peer`` then says why. ``peer_in_memory`` is its reader with all of the file in memory.

    Raises:
        ConfigError: the peer's interpreter or its packages do not work.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="smwm-bench-") as folder:
        path = Path(folder) / "store.h5"
        _write_store(path, rows)
        with EpisodeStore(path) as store, _Peer.start(peer_python, path, frameskip) as peer:
            span = (FRAMES - 1) * frameskip
            starts = store.window_starts(span)
            pixels, actions = store.rows("pixels"), store.rows("action")
            windows = Windows(pixels, actions, starts, 1, frameskip, FRAMES - 1)
            rates = [
                (_rate(windows, repeat, seconds), *peer.rates(repeat, seconds))
                for repeat in range(repeats + 1)
            ]
        size = path.stat().st_size
    own, peers, cached = zip(*rates[1:], strict=True)
    return {
        **_figures("windows_per_s", own),
        **_figures("peer_windows_per_s", peers),
        **_figures("peer_in_memory_windows_per_s", cached),
        "peer": peer.name,
        "cores": 1,
        "frames": FRAMES,
        "side": windows.pixels.shape[1],
        "frameskip": frameskip,
        "batch": BATCH,
        "window_bytes": sum(part[0].nbytes for part in windows.take(np.arange(1))),
        "store_bytes": size,
        "repeats": repeats,
        "seconds": seconds,
    }


def _rate(windows: Windows, seed: int, seconds: float) -> float:
    generator, done, began = np.random.default_rng(seed), 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        windows.take(generator.integers(0, len(windows), BATCH))
        done += BATCH
    return done / (time.perf_counter() - began)


def _figures(name: str, rates: Sequence[float | None]) -> dict[str, Any]:
    known = [rate for rate in rates if rate is not None]
    return {
        name: statistics.median(known) if known else None,
        f"{name}_spread": [min(known), max(known)] if known else None,
    }


def _write_store(path: Path, rows: int) -> None:
    """Write episodes of noise, as ingest leaves them: contiguous."""
    contract = find_contract("reacher")
    side = contract.observation.image.size
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (EPISODE, side, side, 3), np.uint8)
    parts = path.with_suffix(".parts")
    with EpisodeWriter(parts, contract) as writer:
        for number in range(max(1, rows // EPISODE)):
            action = generator.uniform(-1, 1, (EPISODE, contract.action.size)).astype(np.float32)
            action[-1] = np.nan
            writer.append({"pixels": np.roll(pixels, number, axis=0), "action": action})
    with EpisodeStore(parts) as store:
        assemble([Piece(store)], path)
    parts.unlink()


class _Peer:
    """stable-worldmodel's reader in a process of its own, or nothing."""

    def __init__(self, process: subprocess.Popen[str] | None, name: str) -> None:
        self._process = process
        self.name = name

    @classmethod
    @contextmanager
    def start(cls, python: Path | None, path: Path, frameskip: int) -> Iterator[_Peer]:
        """Start it, and end it with the block."""
        if python is None:
            yield cls(None, "not measured: give --peer-python an interpreter that has stable-worldmodel")
            return
        # Torch must find one thread before it is imported. Nothing of this environment may reach the other.
        environment = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PATH": "/usr/bin:/bin"}
        command = [str(python), "-c", PEER, str(path), *map(str, (FRAMES, frameskip, BATCH))]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        except OSError as error:
            raise ConfigError(f"--peer-python {python}: cannot be started ({error})") from error
        with process:
            try:
                peer = cls(process, "")
                peer.name = f"stable-worldmodel {peer._answer()}"
                yield peer
            finally:
                process.kill()

    def rates(self, seed: int, seconds: float) -> tuple[float | None, float | None]:
        """Return windows per second out of the file, and out of memory."""
        if self._process is None:
            return None, None
        assert self._process.stdin is not None
        print(json.dumps([seed, seconds]), file=self._process.stdin, flush=True)
        from_file, from_memory = self._answer()
        return from_file, from_memory

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ConfigError(
                "--peer-python: stable-worldmodel's reader does not work there (see above); "
                'it needs `pip install "stable-worldmodel[env,format]"`'
            )
        return json.loads(line)
