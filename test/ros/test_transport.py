"""What the nodes' processes share with others of the machine, and who goes first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from robot import NODES, Robot, processes, wait_for, write_contract


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The four nodes, once they have heard of one another and of a robot."""
    folder = tmp_path_factory.mktemp("transport")
    contract = write_contract(folder / "toy.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FASTDDS_DEFAULT_PROFILES_FILE")
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        with processes(folder / "toy.yaml", folder) as started, Robot(contract) as robot:
            wait_for(lambda: robot.ready, "the nodes", 60)
            yield started


@pytest.mark.parametrize("node", NODES)
def test_nodes_share_no_memory(running: dict[str, subprocess.Popen[bytes]], node: str) -> None:
    """Pins that nobody who is stopped or killed while he holds a lock in it can stop the others."""
    mapped = Path(f"/proc/{running[node].pid}/maps").read_text()
    assert "/dev/shm/fast" not in mapped


@pytest.mark.parametrize("node", NODES)
def test_nodes_look_up_no_types(running: dict[str, subprocess.Popen[bytes]], node: str) -> None:
    """Pins that Fast DDS's threads for it, which crash where nodes come and go, are not there."""
    threads = Path(f"/proc/{running[node].pid}/task").iterdir()
    names = {(thread / "comm").read_text().strip() for thread in threads}
    assert any(name.startswith("dds.udp") for name in names), "as Fast DDS names its threads"
    assert not any(name.startswith("dds.tls") for name in names)


@pytest.mark.parametrize("node", NODES)
def test_they_listen_on_this_machine_only(running: dict[str, subprocess.Popen[bytes]], node: str) -> None:
    """Pins that the tests' ROS_AUTOMATIC_DISCOVERY_RANGE, LOCALHOST, is kept."""
    files = Path(f"/proc/{running[node].pid}/fd").iterdir()
    sockets = {file.readlink().name for file in files if file.is_symlink()}
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    heard = {line[1].split(":")[0] for line in lines if f"socket:[{line[9]}]" in sockets}
    assert heard == {"0100007F"}, "127.0.0.1"


def test_the_gate_goes_before_all_others(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Pins that each of its threads has real-time priority where the system allows it, and nobody else's."""
    probe = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"
    allowed = (
        subprocess.run([sys.executable, "-c", probe], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )
    for node in NODES:
        threads = [int(path.name) for path in Path(f"/proc/{running[node].pid}/task").iterdir()]
        first = allowed and node == "action"
        assert {os.sched_getscheduler(number) for number in threads} == {
            os.SCHED_FIFO if first else os.sched_getscheduler(0)
        }
