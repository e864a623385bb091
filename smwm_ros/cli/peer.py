"""What the benchmarks that have a peer share: its process, the data both work on, figures of the rounds."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import ConfigError

EPISODE = 200


class Peer:
    """
    Another project's code in a process of its own, or nothing.

    It tells its name in a line of JSON; then it answers each line of JSON by one.
    """

    def __init__(self, process: subprocess.Popen[str] | None, name: str, advice: str) -> None:
        """Wrap a running process; :meth:`start` is the way to get one."""
        self._process = process
        self._advice = advice
        self.name = name

    @classmethod
    @contextmanager
    def start(
        cls,
        python: Path | None,
        script: str,
        arguments: Sequence[str],
        *,
        absent: str,
        advice: str,
        threads: int = 1,
    ) -> Iterator[Peer]:
        """
        Start it, and end it with the block.

        Args:
            python: interpreter of its environment; None when nobody gave one.
            script: what it runs there.
            arguments: of the script.
            absent: the name when there is none: why, and what to do.
            advice: what to install where it does not work.
            threads: of its arithmetic.

        Raises:
            ConfigError: it does not start.
        """
        if python is None:
            yield cls(None, absent, advice)
            return
        # Torch must find its threads before it is imported. Nothing of this environment may reach the other.
        environment = {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore", "PATH": "/usr/bin:/bin"}
        command = [str(python), "-c", script, *arguments]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        except OSError as error:
            raise ConfigError(f"--peer-python {python}: cannot be started ({error})") from error
        with process:
            try:
                peer = cls(process, "", advice)
                peer.name = str(peer._answer())
                yield peer
            finally:
                process.kill()

    def ask(self, question: Any) -> Any:
        """
        Return its answer; None when there is no peer.

        Raises:
            ConfigError: it ended instead.
        """
        if self._process is None:
            return None
        assert self._process.stdin is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise ConfigError(f"--peer-python: ended unasked (see above); {self._advice}") from error
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ConfigError(f"--peer-python: does not work there (see above); {self._advice}")
        return json.loads(line)


def figures(name: str, rates: Sequence[float | None]) -> dict[str, Any]:
    """Return the median of a figure's rounds, and [least, largest]; None of what was not measured."""
    known = [rate for rate in rates if rate is not None]
    return {
        name: statistics.median(known) if known else None,
        f"{name}_spread": [min(known), max(known)] if known else None,
    }


def write_noise(path: Path, contract: Contract, rows: int) -> None:
    """Write a store of episodes of noise, as ingest leaves them: contiguous."""
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
