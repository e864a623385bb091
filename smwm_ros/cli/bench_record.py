"""What the recorder costs, and at which rate it begins to lose messages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smwm_ros.cli.environment import isolate
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.errors import StackError
from smwm_ros.stack.description import ProcessSpec
from smwm_ros.stack.supervisor import Supervisor
from smwm_ros.stack.transport import large_messages

CONTRACT = """
name: bench
rate: 30.0
block: 5
observation:
  image: {topic: camera/image_raw, width: 640, height: 480, size: 64}
  joints: {topic: joint_states, names: [joint_0]}
action:
  topic: commands
  type: std_msgs/msg/Float64MultiArray
  timeout: 0.25
  safe: zero
  dimensions:
    - {field: "data[0]", name: joint_0, unit: rad/s, low: -1.0, high: 1.0, max_change: 1.0}
"""
CAMERA_HZ = 30.0
STEP = 1.3
"""From one rate of images to the next, in search of the one at which messages are lost."""
STEP_SECONDS = 5.0
FASTEST_HZ = 1000.0
WINDOW = 10.0
"""Seconds over which the share of a core is also taken, to see its spread."""
LATE = 1.1
"""Part of the time that the sender may take longer than it should, before it is the one to break."""
LOOK = 0.5
"""Seconds between two looks at the recorder."""
SETTLE = 1.0
"""Seconds for the last messages to arrive."""


def bench_record(
    seconds: float = 300.0,
    folder: Path | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[str, float | int | str]:
    """
    Record a 640x480 raw camera at 30 Hz, joints at 200 Hz and actions at 50 Hz with the default settings.

    A sender and the recorder run as processes of their own. Then the camera is sped up until messages
    are missing in the bag.

    Args:
        seconds: to record; the bag takes 27 MB for each.
        folder: for the bags, which are removed again; by default among the temporary files.
        progress: called with the seconds done.

    Returns:
        ``drops``: messages sent that are not in the bag; ``cpu_percent``: the recorder's share of one
        core, and ``cpu_percent_worst``, in the worst 10 s; ``breaking_mb_per_s``: the lowest rate tried
        at which messages were missing, ``kept_mb_per_s``: the highest at which none was; ``limit``: what
        gave way, ``recorder`` or ``sender``, and then the recorder would break later than said;
        ``warning``: what the recorder said of drops, if there were any. And ``seconds``, ``messages``,
        ``mb_per_s``, ``bag_mb``.

    Raises:
        StackError: a process failed.
    """
    isolate()
    with tempfile.TemporaryDirectory(prefix="smwm-bench-", dir=folder) as scratch:
        first = result = kept = _run(Path(scratch), seconds, CAMERA_HZ, progress)
        hz = CAMERA_HZ
        while not (result.drops or result.late) and hz < FASTEST_HZ:
            kept, hz = result, hz * STEP
            result = _run(Path(scratch), STEP_SECONDS, hz)
    return {
        "drops": first.drops,
        "cpu_percent": first.cpu_percent,
        "cpu_percent_worst": first.cpu_percent_worst,
        "breaking_mb_per_s": result.mb_per_s if result.drops else max(result.mb_per_s, kept.mb_per_s),
        "kept_mb_per_s": kept.mb_per_s,
        "limit": "recorder" if result.drops else "sender",
        "warning": first.warning,
        "seconds": first.seconds,
        "messages": first.messages,
        "mb_per_s": first.mb_per_s,
        "bag_mb": first.bag_mb,
    }


@dataclass(frozen=True)
class _Result:
    """What became of one load."""

    messages: int
    """Sent."""
    drops: int
    seconds: float
    late: bool
    """The sender itself did not keep up."""
    mb_per_s: float
    bag_mb: float
    cpu_percent: float
    cpu_percent_worst: float
    warning: str


def _run(
    scratch: Path, seconds: float, images_hz: float, progress: Callable[[float], None] = lambda done: None
) -> _Result:
    """Send a load to a new recorder, and see what is in the bag."""
    contract, bag, log = scratch / "robot.yaml", scratch / "bag", scratch / "logs" / "recorder.log"
    contract.write_text(CONTRACT, encoding="utf-8")
    recorder = ProcessSpec(
        name="recorder",
        module="smwm_ros.nodes.recorder_node",
        parameters={"contract": str(contract), "bag": str(bag)},
        environment=large_messages(),
    )
    command = [sys.executable, "-m", "smwm_ros.nodes.recording_load"]
    command += ["--seconds", str(seconds), "--images-hz", str(images_hz)]
    with Supervisor([recorder], logs=log.parent) as stack:
        stack.wait_ready()
        _schedule_alike(stack.processes["recorder"])
        usage: list[tuple[float, float]] = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **large_messages()}
        ) as sender:
            assert sender.stdout is not None
            sender.stdout.readline()  # it says that the load begins
            while sender.poll() is None:
                usage.append((time.monotonic(), _cpu_seconds(stack.processes["recorder"])))
                progress(usage[-1][0] - usage[0][0])
                stack.check()
                time.sleep(LOOK)
            report = sender.stdout.read()
        if sender.returncode:
            raise StackError(f"the sender ended with code {sender.returncode}; see above")
        time.sleep(SETTLE)
    sent: dict[str, int] = json.loads(report)["sent"]
    took = float(json.loads(report)["seconds"])
    missing, size = _missing(bag, sent)
    result = _Result(
        messages=sum(sent.values()),
        drops=missing,
        seconds=took,
        late=took > LATE * seconds,
        mb_per_s=size / took / 1e6,
        bag_mb=sum(path.stat().st_size for path in bag.iterdir()) / 1e6,
        cpu_percent=_shares(usage, len(usage))[0],
        cpu_percent_worst=max(_shares(usage, round(WINDOW / LOOK))),
        warning=next((line for line in log.read_text(encoding="utf-8").splitlines() if "[WARN]" in line), ""),
    )
    shutil.rmtree(bag)
    return result


def _schedule_alike(process: int) -> None:
    """
    Give a process the weight of this one in the kernel's automatic grouping, where there is any.

    A session of its own, as the supervisor makes, is a group of its own, with the default weight: see
    sched(7). The sender stays in this one.
    """
    with suppress(OSError):
        nice = Path("/proc/self/autogroup").read_text(encoding="utf-8").split()[-1]
        Path(f"/proc/{process}/autogroup").write_text(nice, encoding="utf-8")


def _missing(bag: Path, sent: dict[str, int]) -> tuple[int, int]:
    """Return how many of the messages sent are not in a bag, and the bytes of those that are."""
    from smwm_ros.nodes.recording_load import number_of

    found: dict[str, set[int]] = {f"/{topic}": set() for topic in sent}
    size = 0
    with BagReader(bag) as reader:
        for topic, _, data in reader.raw(found):
            if number := number_of(data):
                found[topic].add(number)
                size += len(data)
    return sum(count - len(found[f"/{topic}"]) for topic, count in sent.items()), size


def _cpu_seconds(process: int) -> float:
    """Return what a process has used so far, itself and the kernel for it; see proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _shares(usage: list[tuple[float, float]], window: int) -> list[float]:
    """Return the percentages of a core used over each window of looks."""
    window = min(window, len(usage) - 1)
    return [
        100 * (after[1] - before[1]) / (after[0] - before[0])
        for before, after in zip(usage, usage[window:], strict=False)
    ]
