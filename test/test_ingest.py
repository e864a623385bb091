"""From bags to episodes, with known answers: the numbers of images and actions must agree."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from ingesting import assert_aligned, numbers, refused, run
from recordings import PERIOD, Recording, action, compressed, image, joints, numbered, record, robot

from smwm_ros.cli.bench_ingest import bench_ingest
from smwm_ros.contract import Contract
from smwm_ros.data.ingest.ingest import READING, WRITING, ingest
from smwm_ros.errors import DataError


def test_images_and_actions_agree(tmp_path: Path) -> None:
    """The one test that must never be weakened: a shift by one shows as a number that differs by one."""
    store, report = run(tmp_path, record(tmp_path / "bag", ticks=600))
    assert store.lengths.tolist() == [600]
    assert numbers(store, 0) == list(range(600))
    assert_aligned(store)
    assert store.columns == ("action", "joints", "pixels", "stamp")
    assert store.contract == robot()
    assert (report.total("frames"), report.total("actions"), report.drops, report.splits) == (600, 600, 0, 0)
    assert report.fingerprint == store.fingerprint
    assert report.bags[0].rate == 20.0
    assert report.bags[0].notes == ()


def test_an_action_between_images_counts_for_its_share(tmp_path: Path) -> None:
    """Known answer: 2 for three fifths of the tick, then 7."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(3):
            stamp = (number + 1) * PERIOD
            bag.tick(stamp, number, action=action(stamp, [2.0, 0.0]))
            bag.add("applied_action", action(stamp + 3 * PERIOD // 5, [7.0, 0.0]))
    store, _ = run(tmp_path, tmp_path / "bag")
    assert store.read("action")[0].tolist() == pytest.approx([4.0, 0.0])


def test_gaps_and_jumps_split(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in [*range(5), *range(8, 12), *range(3)]:
            bag.tick((number + 1) * PERIOD, number)
    store, report = run(tmp_path, tmp_path / "bag")
    assert [numbers(store, i) for i in range(3)] == [[*range(5)], [*range(8, 12)], [*range(3)]]
    assert_aligned(store)
    assert (report.bags[0].gaps, report.bags[0].jumps, report.splits) == (1, 1, 2)


def test_surplus_and_repeated_images_are_dropped_and_counted(tmp_path: Path) -> None:
    """The simulator shows an image again when nobody answered; a camera may be too fast."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(6):
            stamp = (number + 1) * PERIOD
            bag.tick(stamp, number)
            bag.add("camera/image_raw", numbered(stamp, number))
            bag.add("camera/image_raw", numbered(stamp + PERIOD // 3, 99))
    store, report = run(tmp_path, tmp_path / "bag")
    assert numbers(store, 0) == [*range(6)]
    assert (report.bags[0].duplicates, report.total("surplus"), report.drops) == (6, 6, 12)


def test_images_that_come_late_are_dropped_and_counted(tmp_path: Path) -> None:
    """Two images that changed places on the wire are no jump of the clock, and split nothing."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in (0, 1, 2, 4, 3, 5, 6):
            bag.tick((number + 1) * PERIOD, number)
    contract = robot().model_copy(update={"max_gap": 2.5})
    store, report = run(tmp_path, tmp_path / "bag", contract=contract)
    assert [numbers(store, i) for i in range(store.episodes)] == [[0, 1, 2, 4, 5, 6]]
    assert (report.total("late"), report.total("jumps"), report.drops, report.splits) == (1, 0, 1, 0)
    assert report.bags[0].late_actions == 1
    # The tick without its image is twice as long, and has the mean of both actions.
    assert store.read("action")[2].tolist() == [2.5, 3.0]
    assert report.bags[0].quality[0].missing == 1


def test_a_contract_that_is_given_holds_and_what_differs_is_noted(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", robot().model_copy(update={"block": 7}))
    store, report = run(tmp_path, bag, contract=robot())
    assert store.contract == robot()
    assert report.bags[0].notes == (
        "the bag was recorded under another contract than the one given: block: 7 here, 5 there",
    )


def test_joints_that_are_not_finite_split(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(9):
            bad = {"joints": joints((number + 1) * PERIOD, [np.nan, 0.0])} if number == 4 else {}
            bag.tick((number + 1) * PERIOD, number, **bad)
    store, report = run(tmp_path, tmp_path / "bag")
    assert [numbers(store, i) for i in range(2)] == [[*range(4)], [*range(5, 9)]]
    assert_aligned(store)
    assert report.bags[0].bad_joints == 1
    assert np.isfinite(store.read("joints")).all()


def test_joints_are_found_by_name_not_by_place(tmp_path: Path) -> None:
    """Drivers order joints as they like, and grippers publish on the same topic."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(4):
            stamp = (number + 1) * PERIOD
            bag.add("joint_states", joints(stamp, [-number, 77, number], names=("b", "finger", "a")))
            bag.add("joint_states", joints(stamp + 1, [55.0], names=("finger",)))
            bag.tick(stamp, number, joints=None)
    store, _ = run(tmp_path, tmp_path / "bag")
    assert_aligned(store)


def test_a_robot_without_joints_needs_none(tmp_path: Path) -> None:
    contract = robot(joints=False)
    with Recording(tmp_path / "bag", contract) as bag:
        for number in range(4):
            bag.tick((number + 1) * PERIOD, number, joints=None)
    store, _ = run(tmp_path, tmp_path / "bag")
    assert store.columns == ("action", "pixels", "stamp")
    assert numbers(store, 0) == [*range(4)]


def test_padded_rows_change_nothing(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(4):
            stamp = (number + 1) * PERIOD
            pixels = np.empty((12, 12, 3), np.uint8)
            pixels[:] = number, 0, 5
            bag.tick(stamp, number, image=image(stamp, pixels, padding=28))
    store, _ = run(tmp_path, tmp_path / "bag")
    assert_aligned(store)


def test_compressed_images(tmp_path: Path) -> None:
    contract = robot(image="{width: 12, height: 12, size: 12, type: sensor_msgs/msg/CompressedImage}")
    with Recording(tmp_path / "bag", contract) as bag:
        for number in range(4):
            stamp = (number + 1) * PERIOD
            pixels = np.empty((12, 12, 3), np.uint8)
            pixels[:] = 5, 0, number
            data = cv2.imencode(".png", pixels)[1].tobytes()
            bag.tick(stamp, number, image=compressed(stamp, data))
    store, _ = run(tmp_path, tmp_path / "bag")
    assert_aligned(store)


def test_several_bags_make_one_store(tmp_path: Path) -> None:
    """Episodes never run from one bag into the next, though their stamps would fit."""
    with Recording(tmp_path / "b", robot()) as bag:
        for number in range(5, 9):
            bag.tick((number + 1) * PERIOD, number)
    store, report = run(tmp_path, record(tmp_path / "a", ticks=5), tmp_path / "b")
    assert store.lengths.tolist() == [5, 4]
    assert [bag.frames for bag in report.bags] == [5, 4]
    assert_aligned(store)
    assert store.source["bags"] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert [facts.origin for facts in store.facts] == store.source["bags"]


def test_the_same_bag_gives_the_same_fingerprint(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag")
    prints = {ingest([bag], tmp_path / name).fingerprint for name in ("a.h5", "b.h5", "a.h5")}
    assert len(prints) == 1
    assert ingest([record(tmp_path / "longer", ticks=11)], tmp_path / "a.h5").fingerprint not in prints


def test_a_namespace_is_found_or_chosen(tmp_path: Path) -> None:
    """One robot's topics are found in whatever namespace; of two, one has to be named."""
    one = record(tmp_path / "one", namespace="/left")
    assert run(tmp_path, one)[1].total("frames") == 10
    with Recording(tmp_path / "two", robot(), namespace="/left") as bag:
        for number in range(6):
            bag.namespace = "/left"
            bag.tick((number + 1) * PERIOD, number)
            bag.namespace = "/right"
            bag.tick((number + 101) * PERIOD, number + 100)
    with pytest.raises(DataError, match=r"/left/camera/image_raw, /right/camera/image_raw.*--namespace"):
        run(tmp_path, tmp_path / "two")
    store, _ = run(tmp_path, tmp_path / "two", namespace="right")
    assert numbers(store, 0) == [*range(100, 106)]
    assert_aligned(store)


def test_a_cut_off_bag_is_used_and_noted(tmp_path: Path) -> None:
    """What a killed recorder left is worth training on, and the report says so."""
    bag = record(tmp_path / "bag", ticks=3000)
    file = bag / "bag_0.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    store, report = run(tmp_path, bag)
    assert "cut off" in report.bags[0].notes[0]
    assert 100 < len(store) < 3000
    assert_aligned(store)


def test_a_rate_that_is_not_the_contracts_is_noted(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(9):
            bag.tick((number + 1) * PERIOD * 4 // 3, number)
    report = run(tmp_path, tmp_path / "bag")[1]
    assert report.bags[0].rate == pytest.approx(15.0)
    assert "15.0 Hz, but the contract says 20" in report.bags[0].notes[0]


def test_the_report_is_json(tmp_path: Path) -> None:
    report = json.loads(json.dumps(run(tmp_path, record(tmp_path / "bag"))[1].to_json(), allow_nan=False))
    assert (report["frames"], report["episodes"], report["bags"][0]["gaps"]) == (10, 1, 0)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    ingest([record(tmp_path / "bag", ticks=400)], tmp_path / "s.h5", progress=lambda *step: seen.append(step))
    read = [(done, total) for what, done, total in seen if what == READING]
    assert read[-1] == (1200, 1200)
    assert len(read) > 2
    assert seen[-1][0] == WRITING
    assert seen[-1][1] == seen[-1][2]


# What goes wrong: each gives one message, and no file.


def test_a_bag_without_actions(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(5):
            bag.tick((number + 1) * PERIOD, number, action=None)
    reason = (
        r"no topic /commands .*Topics in it: /camera/image_raw \(sensor_msgs/msg/Image\).*"
        "nor applied_action, which is recorded while the action node runs"
    )
    refused(tmp_path, reason, tmp_path / "bag")


def test_a_bag_without_images(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", robot()) as bag:
        bag.add("applied_action", action(1, [0.0, 0.0]))
    refused(tmp_path, r"no topic /camera/image_raw .*Topics in it: /applied_action", tmp_path / "bag")


def test_a_topic_of_another_type(tmp_path: Path) -> None:
    contract = robot(image="{width: 12, height: 12, size: 12, type: sensor_msgs/msg/CompressedImage}")
    refused(
        tmp_path,
        r"sensor_msgs/msg/Image, but sensor_msgs/msg/CompressedImage is expected",
        record(tmp_path / "bag"),
        contract=contract,
    )


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        (
            robot(image="{width: 16, height: 12, size: 12}"),
            r"bag: not one of.*camera/image_raw.*image is 12x12.*16x12",
        ),
        (robot(image="{width: 12, height: 12, size: 12, encoding: bgr8}"), r"bag: .*'rgb8'.*'bgr8'"),
        (robot(dimensions=3), r"actions of 2 numbers.*'tiny' says 3"),
    ],
)
def test_a_contract_of_another_robot(tmp_path: Path, contract: Contract, reason: str) -> None:
    refused(tmp_path, reason, record(tmp_path / "bag"), contract=contract)


def test_a_bag_that_names_no_contract(tmp_path: Path) -> None:
    with Recording(tmp_path / "bag", None) as bag:
        for number in range(5):
            bag.tick((number + 1) * PERIOD, number)
    refused(tmp_path, "--contract", tmp_path / "bag")
    store, _ = run(tmp_path, tmp_path / "bag", contract=robot())
    assert_aligned(store)


def test_stamps_from_two_clocks(tmp_path: Path) -> None:
    """Images in simulated time, actions in wall time: nothing fits, and the message counts it."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(50):
            bag.tick((number + 1) * PERIOD, number, action=action(10**18 + number * PERIOD, [0.0, 0.0]))
    refused(tmp_path, r"not one episode.*50 images.*50 actions.*one clock", tmp_path / "bag")


def test_no_bag_at_all(tmp_path: Path) -> None:
    refused(tmp_path, "no bag was given")


def test_one_bad_bag_among_good_ones(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    refused(tmp_path, "bad: holds no bag", record(tmp_path / "good"), tmp_path / "bad")


def test_the_benchmark_measures_all_its_frames() -> None:
    """Its figure would be wrong if frames were dropped on the way; the rate itself is not judged here."""
    result = bench_ingest(frames=450, jpeg_frames=40, repeats=1, big_gb=0.02)
    assert (result["raw_64_frames"], result["jpeg_vga_frames"]) == (450, 40)
    assert min(result["raw_64_frames_per_s"], result["jpeg_vga_frames_per_s"]) > 0
    assert 20 < result["peak_rss_mb"] < 1000
