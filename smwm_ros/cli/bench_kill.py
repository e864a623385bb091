"""What a recording loses when its recorder is killed."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smwm_ros.cli.environment import isolate
from smwm_ros.contract import Contract
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.recover import recover
from smwm_ros.errors import DataError, StackError
from smwm_ros.resources import find_contract

PATIENCE = 60.0
"""Longest wait for a recording to begin, seconds."""
LONGEST = 3.5
"""Seconds from then on until the kill, at most; what is on the disk had come up to half a second before."""
LOOK = 0.05
TOPICS = 3
CONTRACT = "robot.yaml"
"""JSON is YAML."""


@dataclass(frozen=True)
class Round:
    """What was left after one kill."""

    messages: int
    """Recovered."""
    mismatched: int
    """Of these, not the bytes that were sent."""
    missing: int
    """Sent since every topic was being recorded and before the newest that was recovered, and not there."""
    loss: float
    """Seconds from the newest message recovered to the last one sent, of the topic where it is longest."""


def bench_kill(
    rounds: int, *, seed: int = 0, progress: Callable[[int], None] | None = None
) -> dict[str, float | int]:
    """
    Kill the recorder at random moments, recover its bags, and compare them with what was sent.

    The recorder is the real node in a process of its own; another one sends images (64x64, 25 Hz), joint
    states (200 Hz) and actions (50 Hz), whose bytes follow from their numbers.

    Args:
        rounds: kills.
        seed: of the moments, and of the messages.
        progress: called with the rounds done.

    Returns:
        ``rounds``, ``recovered`` (bags from which something was), ``worst_loss_s``, ``median_loss_s``,
        ``mismatched`` and ``missing`` (messages, of all rounds), ``messages``, ``seconds``.

    Raises:
        StackError: sender or recorder would not run.
    """
    isolate()
    from smwm_ros.nodes.numbered_sender import ROBOT

    started = time.monotonic()
    contract = find_contract(ROBOT)
    generator = np.random.default_rng(seed)
    done: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="smwm-kill-") as name:
        folder = Path(name)
        (folder / CONTRACT).write_text(contract.model_dump_json(), encoding="utf-8")
        with _process("numbered_sender", "--seed", str(seed), "--log", str(folder / "sent")) as sender:
            for number in range(rounds):
                bag = folder / f"bag{number}"
                begun, killed = _record_and_kill(bag, float(generator.uniform(0.0, LONGEST)), sender)
                try:
                    recover(bag)
                except DataError as error:
                    print(f"round {number}: {error}", file=sys.stderr)
                else:
                    done.append(_compare(bag, contract, seed, _sent(folder / "sent", killed), begun))
                if progress is not None:
                    progress(number + 1)
    return {
        "rounds": rounds,
        "recovered": sum(each.messages > 0 for each in done),
        "worst_loss_s": max((each.loss for each in done), default=0.0),
        "median_loss_s": statistics.median(each.loss for each in done) if done else 0.0,
        "mismatched": sum(each.mismatched for each in done),
        "missing": sum(each.missing for each in done),
        "messages": sum(each.messages for each in done),
        "seconds": time.monotonic() - started,
    }


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of the nodes; it is killed in the end."""
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", f"smwm_ros.nodes.{module}", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        except StackError as error:
            log.seek(0)
            raise StackError(f"{error}\n{log.read().decode(errors='replace')[-2000:]}") from error
        finally:
            process.kill()
            process.wait()


def _record_and_kill(bag: Path, delay: float, sender: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Record into a bag until a moment after it has begun to receive; return both times (ns)."""
    parameters = {
        "contract": bag.with_name(CONTRACT),
        "bag": bag,
        "content": "training",
        "sensor_reliability": "reliable",
    }
    arguments = ["--ros-args"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]
    with _process("recorder_node", *arguments) as recorder:
        deadline = time.monotonic() + PATIENCE
        while not _has_begun(bag):
            if sender.poll() is not None or recorder.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"nothing was recorded within {PATIENCE:g} s")
            time.sleep(LOOK)
        begun = time.time_ns()
        time.sleep(delay)
        killed = time.time_ns()
        recorder.send_signal(signal.SIGKILL)
        recorder.wait()
    return begun, killed


def _has_begun(bag: Path) -> bool:
    """Tell whether something was received on every topic."""
    if not any(bag.glob("*.mcap")):
        return False
    try:
        with BagReader(bag) as reader:
            return all(reader.count([topic]) for topic in reader.topics) and len(reader.topics) == TOPICS
    except DataError:
        return False  # nothing is in it yet


def _sent(log: Path, before: int) -> dict[int, dict[int, int]]:
    """Return, by topic and number, when (ns) each message was sent, of those before a moment."""
    from smwm_ros.nodes.numbered_sender import LOGGED

    content = log.read_bytes()
    whole = len(content) - len(content) % LOGGED.size
    sent: dict[int, dict[int, int]] = {}
    for topic, number, moment in LOGGED.iter_unpack(content[:whole]):
        if moment <= before:
            sent.setdefault(topic, {})[number] = moment
    return sent


def _compare(bag: Path, contract: Contract, seed: int, sent: dict[int, dict[int, int]], begun: int) -> Round:
    """
    Compare what was recovered with what was sent before the kill.

    What was sent before the recording had begun is not missed: while sender and recorder find each
    other, the middleware delivers parts of what came before.
    """
    from smwm_ros.nodes.numbered_sender import number_of, numbered, topics

    found: dict[int, set[int]] = {topic: set() for topic in sent}
    newest: dict[int, int] = {}
    messages = mismatched = 0
    places = {f"/{name}": place for place, name in enumerate(topics(contract))}
    with BagReader(bag) as reader:
        for name, received, data in reader.raw(reader.topics):
            topic = places[name]
            number = number_of(data)
            found[topic].add(number)
            newest[topic] = received
            messages += 1
            mismatched += data != numbered(contract, seed, topic, number)
    return Round(
        messages=messages,
        mismatched=mismatched,
        missing=sum(
            begun <= moment and number < max(found[topic], default=0) and number not in found[topic]
            for topic, numbers in sent.items()
            for number, moment in numbers.items()
        ),
        # A topic of which nothing is left would be as bad as a recording that never was.
        loss=max(max(0, max(sent[topic].values()) - newest.get(topic, 0)) for topic in sent) / 1e9,
    )
