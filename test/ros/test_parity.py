"""
What the live nodes pair is what ingest pairs: images and the actions between them, one for one.

A bag with everything that goes wrong in reality is played by `smwm play` to perception and to world
models of two block lengths, each a process; their model writes down the steps that it is asked about.
The same bag goes through ingest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import witness
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from recordings import PERIOD, Recording, action, image, numbered, robot
from robot import wait_for
from witness import number_of, read_notes

from smwm_ros import msg
from smwm_ros.contract import Contract
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import stamp_of
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.data.ingest.rows import BagRows
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.messages import to_time

BLOCKS = (1, 5)
SPACE = f"/parity_{os.getpid()}"
MILLISECOND = 1_000_000
CAMERA_LATENCY = 12 * MILLISECOND
ACTION_PERIOD = 20 * MILLISECOND
SILENCE = 300 * MILLISECOND
"""Before the clock is set anew, as a restarted simulator keeps silent; more than the contract's max_gap."""

Step = tuple[int, list[list[float]], int]
"""Number of an image, the actions of the ticks after it, number of the image at their end."""


@dataclass
class Story:
    """What happens to a robot: messages, and when they are received."""

    rng: np.random.Generator
    received: int = 10**18
    messages: list[tuple[int, str, Any]] = field(default_factory=list)
    images: int = 0
    stretches: dict[int, int] = field(default_factory=dict)
    """Of each stamp, the number of its stretch."""

    def image(self, stamp: int, offset: int, *, torn: bool = False) -> None:
        """Let an image come in, ``offset`` after the stretch's beginning."""
        self.images += 1
        message = numbered(stamp, self.images)
        if torn:
            message = image(stamp, np.zeros((6, 6, 3), np.uint8))
        self.messages.append((self.received + offset + CAMERA_LATENCY, "camera/image_raw", message))

    def stretch(
        self,
        begin: int,
        ticks: int,
        *,
        acts_from: int,
        drop: int = -1,
        twice: int = -1,
        late: int = -1,
        fast: range = range(0),
        torn: int = -1,
        unknown: int = -1,
    ) -> None:
        """
        Let a stretch of images come in with jitter, and actions at another rate and phase.

        Args:
            begin: stamp of the first image, ns.
            ticks: how many.
            acts_from: when the actions begin, ns after ``begin``; they go on to the stretch's end.
            drop: tick whose image is lost.
            twice: tick of whose stamp there are two images.
            late: tick after whose image one with an earlier stamp comes.
            fast: ticks after which there is another image half a period later.
            torn: tick whose image is of another size.
            unknown: tick at which an action that is not a number is said to be applied.
        """
        known = set(self.stretches)
        for tick in range(ticks):
            jitter = int(self.rng.integers(-6 * MILLISECOND, 6 * MILLISECOND)) if tick else 0
            at = tick * PERIOD + jitter
            if tick != drop:
                self.image(begin + at, at, torn=tick == torn)
            if tick == twice:
                self.image(begin + at, at + 20 * MILLISECOND)
            if tick == late:
                self.image(begin + at - PERIOD // 2, at + 20 * MILLISECOND)
            if tick in fast:
                self.image(begin + at + PERIOD // 2, at + PERIOD // 2)
        for at in range(acts_from, ticks * PERIOD, ACTION_PERIOD):
            values = self.rng.uniform(-1, 1, 2)
            if unknown * PERIOD <= at < unknown * PERIOD + ACTION_PERIOD:
                values = np.array([np.nan, 0.0])
            received = self.received + at + MILLISECOND
            self.messages.append((received, "applied_action", action(begin + at, values)))
        self.received += ticks * PERIOD
        stamps = {stamp_of(message) for _, _, message in self.messages} - known
        self.stretches |= dict.fromkeys(stamps, max(self.stretches.values(), default=0) + 1)

    def write(self, path: Path, robot: Contract) -> None:
        with Recording(path, robot, SPACE) as bag:
            for received, topic, message in sorted(self.messages, key=lambda entry: entry[0]):
                bag.received = received - MILLISECOND  # it adds one
                bag.add(topic, message)


def contract(block: int) -> Contract:
    """Return the contract of a robot for which a lost image is no gap yet."""
    return robot(joints=False).model_copy(update={"block": block, "max_gap": 2.5})


def story() -> Story:
    """Jitter, a lost image, one sent twice, a late one, too many, a bad one, a gap, clocks set anew."""
    told = Story(np.random.default_rng(7))
    told.stretch(
        50 * 10**9, 45, acts_from=3 * PERIOD + 7_300_000,
        drop=12, twice=18, late=22, fast=range(26, 30), torn=33, unknown=37,
    )  # fmt: skip
    told.received += SILENCE  # a gap: the robot's clock went on
    told.stretch(50 * 10**9 + 45 * PERIOD + SILENCE, 12, acts_from=-200 * MILLISECOND + 3_100_000)
    told.received += SILENCE
    told.stretch(2 * 10**9, 14, acts_from=4_700_000)  # set back; images come first
    told.received += SILENCE
    told.stretch(1 * 10**9, 14, acts_from=-9_900_000)  # set back again; actions come first
    told.received += SILENCE
    told.stretch(200 * 10**9, 10, acts_from=2_000_000)  # set forward
    return told


@contextmanager
def nodes(folder: Path) -> Iterator[None]:
    """Run perception and a world model for each block length, until they are up."""
    with ExitStack() as stack:
        log = stack.enter_context((folder / "nodes.log").open("wb"))
        running = []
        for name, block in (("perception", BLOCKS[0]), *(("world_model", block) for block in BLOCKS)):
            path = folder / f"block_{block}.yaml"
            notes = folder / f"{name}_{block}.notes"
            arguments = ["-r", f"__ns:={SPACE}", "-r", f"__node:={name}_{block}"]
            for parameter in (
                f"contract:={path}",
                f"checkpoint:={path}",
                "use_sim_time:=true",
                # What is told is set on other clocks.
                *(["sensor_reliability:=reliable", "image_age:=0.0"] if name == "perception" else []),
            ):
                arguments += ["-p", parameter]
            command = [sys.executable, witness.__file__, name, str(notes), "--ros-args", *arguments]
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)


def played(bag: Path, folder: Path, told: Story, rate: float) -> bool:
    """
    Play a bag to the nodes; tell whether every message reached them as it was meant to.

    Latents and actions come by different ways: where a node did not run for as long as the silence before
    the clock is set, the actions after it overtake the images before it.
    """
    with nodes(folder):
        command = ["play", str(bag), "--json", "--reliable", "--wait", "60", "--clock", "100"]
        result = subprocess.run(
            [sys.executable, "-m", "smwm_ros.cli.main", *command, "--rate", str(rate)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert json.loads(result.stdout)["messages"] == len(told.messages)

        def quiet() -> bool:
            before = [path.stat().st_size for path in folder.glob("*.notes")]
            time.sleep(1.0)
            return before == [path.stat().st_size for path in folder.glob("*.notes")]

        wait_for(quiet, "the last message")
    perception = folder / f"perception_{BLOCKS[0]}.notes"
    actions = sum(topic == "applied_action" for _, topic, _ in told.messages)
    complete = len(read_notes(perception, "image")) == told.images
    for block in BLOCKS:
        world = folder / f"world_model_{block}.notes"
        order = [told.stretches[stamp] for stamp in read_notes(world, "latent", "action")]
        complete &= len(read_notes(world, "latent")) >= len(read_notes(perception, "encoded"))
        complete &= len(read_notes(world, "action")) == actions and order == sorted(order)
    return complete


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a bag, and the folder of what the nodes noted when it was played to them."""
    folder = tmp_path_factory.mktemp("parity")
    for block in BLOCKS:
        (folder / f"block_{block}.yaml").write_text(contract(block).model_dump_json())
    told = story()
    told.write(folder / "bag", contract(1))
    if not any(played(folder / "bag", folder, told, rate) for rate in (1.0, 0.5, 0.2)):
        pytest.fail("the messages did not reach the nodes in good order, even at a fifth of the speed")
    return folder / "bag", folder


def ingested(bag: Path, robot: Contract) -> list[list[tuple[int, int, Any]]]:
    """Return the rows of each episode: stamp, number, action."""
    episodes: list[list[tuple[int, int, Any]]] = [[]]
    with BagReader(bag) as reader:
        for row in BagRows(reader, robot).read():
            episodes[-1].append((row.stamp, number_of(row.image), row.action))
            if row.last:
                episodes.append([])
    return episodes[:-1]


def steps(episodes: list[list[tuple[int, int, Any]]], block: int) -> list[Step]:
    """Return all steps of a length within the episodes."""
    return [
        (
            episode[begin][1],
            [row[2].tolist() for row in episode[begin : begin + block]],
            episode[begin + block][1],
        )
        for episode in episodes
        for begin in range(len(episode) - block)
    ]


@pytest.mark.parametrize("block", BLOCKS)
def test_live_steps_are_ingested_steps(recording: tuple[Path, Path], block: int) -> None:
    """The same images, in the same order, with the same actions: any shift in time on either side shows."""
    bag, folder = recording
    expected = steps(ingested(bag, contract(block)), block)
    live = read_notes(folder / f"world_model_{block}.notes", "step")
    assert [(first, last) for first, _, last in live] == [(first, last) for first, _, last in expected]
    np.testing.assert_allclose([step[1] for step in live], [step[1] for step in expected], rtol=0, atol=1e-9)
    assert len(live) > 40
    # The actions tell ticks apart: a shift could not hide.
    blocks = np.array([step[1] for step in expected])
    assert np.abs(np.diff(blocks, axis=0)).max(axis=(1, 2)).min() > 0.01


def test_the_bag_holds_all_that_it_is_meant_to_hold(recording: tuple[Path, Path]) -> None:
    """Else the comparison would show less than it says; and the store holds the same rows."""
    bag, folder = recording
    with BagReader(bag) as reader:
        rows = BagRows(reader, contract(1))
        list(rows.read())
    gate = rows.aligner.gate
    assert (gate.duplicates, gate.late, gate.surplus, rows.bad("image")) == (1, 1, 4, 1)
    assert (gate.gaps, gate.jumps) == (2, 2)
    assert rows.aligner.without_action > 4
    episodes = ingested(bag, contract(1))
    ingest([bag], folder / "store.h5", contract=contract(1))
    with EpisodeStore(folder / "store.h5") as store:
        assert store.lengths.tolist() == [len(episode) for episode in episodes]
        for number, episode in enumerate(episodes):
            stored = store.episode(number)
            assert stored["stamp"].tolist() == [row[0] for row in episode]
            assert [number_of(picture) for picture in stored["pixels"]] == [row[1] for row in episode]
            assert np.isnan(stored["action"][-1]).all()
            np.testing.assert_allclose(stored["action"][:-1], [row[2] for row in episode[:-1]], rtol=1e-6)
    two_periods = [after[0] - before[0] for episode in episodes for before, after in pairwise(episode)]
    assert max(two_periods) > 1.5 * PERIOD, "a lost image is bridged within an episode"


def test_a_belief_knows_all_actions_that_have_come(tmp_path: Path) -> None:
    """After a delay rclpy's executor hands over a message of each topic by turns: nine would be missing."""
    path, notes = tmp_path / "robot.yaml", tmp_path / "notes"
    path.write_text(contract(1).model_dump_json())
    context = rclpy.Context()
    rclpy.init(context=context)
    witness.WorldModel.notes = witness.Notes(notes)
    names = ("contract", "checkpoint")
    node = witness.WorldModel(
        "world_model",
        load=lambda *_: witness.WitnessModel(contract(1), witness.WorldModel.notes),
        context=context,
        namespace=f"{SPACE}_late",
        parameter_overrides=[Parameter(name, value=str(path)) for name in names],
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        assert node.bring_up()
        latents = node.create_publisher(msg.Latent, "latent", witness.EVERY)
        actions = node.create_publisher(msg.AppliedAction, "applied_action", witness.EVERY)
        wait_for(lambda: latents.get_subscription_count() and actions.get_subscription_count(), "discovery")
        actions.publish(msg.AppliedAction(values=[0.0, 0.0]))
        latents.publish(msg.Latent(model="witness", values=[1.0]))
        wait_for(lambda: executor.spin_once(0.1) or read_notes(notes, "latent"), "the first latent")
        for tenth in range(10):
            made = msg.AppliedAction(values=[float(tenth), 1.0])
            made.header.stamp = to_time(tenth * PERIOD // 10)
            actions.publish(made)
        following = msg.Latent(model="witness", values=[2.0])
        following.header.stamp = to_time(PERIOD)
        latents.publish(following)
        time.sleep(0.5)  # the middleware takes them in meanwhile, and nobody spins
        wait_for(lambda: executor.spin_once(0.1) or read_notes(notes, "step"), "the second latent")
    finally:
        node.shut_down()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    assert read_notes(notes, "step") == [[1, [[pytest.approx(4.5), pytest.approx(1.0)]], 2]]
