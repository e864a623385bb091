"""How fast random training windows come out of an episode store, beside stable-worldmodel's reader."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smwm_ros.cli.peer import Peer, figures, write_noise
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.resources import find_contract
from smwm_ros.training.dataset import Windows

FRAMES, BATCH = 4, 256

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
print(json.dumps("stable-worldmodel " + version("stable-worldmodel")), flush=True)
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
        write_noise(path, find_contract("reacher"), rows)
        reader = Peer.start(
            peer_python,
            PEER,
            [str(path), *map(str, (FRAMES, frameskip, BATCH))],
            absent="not measured: give --peer-python an interpreter that has stable-worldmodel",
            advice='its reader needs `pip install "stable-worldmodel[env,format]"`',
        )
        with EpisodeStore(path) as store, reader as peer:
            span = (FRAMES - 1) * frameskip
            starts = store.window_starts(span)
            pixels, actions = store.rows("pixels"), store.rows("action")
            windows = Windows(pixels, actions, starts, 1, frameskip, FRAMES - 1)
            rates = [
                (_rate(windows, repeat, seconds), *(peer.ask([repeat, seconds]) or (None, None)))
                for repeat in range(repeats + 1)
            ]
        size = path.stat().st_size
    own, peers, cached = zip(*rates[1:], strict=True)
    return {
        **figures("windows_per_s", own),
        **figures("peer_windows_per_s", peers),
        **figures("peer_in_memory_windows_per_s", cached),
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
