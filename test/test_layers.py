"""
What claims to need no ROS runs where there is none.

That imports point down is checked by import-linter (pyproject.toml, ``make lint``).
"""

from __future__ import annotations

import subprocess
import sys

WITHOUT_ROS = """
import importlib, importlib.abc, pkgutil, sys

GENERATED = ("smwm_ros.msg", "smwm_ros.srv", "smwm_ros.action")

class NoRos(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if name in GENERATED or top.startswith("rclpy") or top.endswith(("_msgs", "_srvs", "_interfaces")):
            raise ModuleNotFoundError(f"there is no {name} here", name=name)

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name not in ("smwm_ros.nodes", "smwm_ros.messages", *GENERATED):
            try:
                imported = importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                print(f"{module.name}: {error}")
            else:
                print(end=".", file=sys.stderr)
                module.ispkg and walk(imported)

sys.meta_path.insert(0, NoRos())
import smwm_ros
walk(smwm_ros)
"""


def test_everything_but_nodes_and_messages_runs_without_ros() -> None:
    """An import of rclpy or of a message, direct or through others, outside nodes/ and messages/."""
    command = [sys.executable, "-c", WITHOUT_ROS]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert run.stdout == ""
    assert run.stderr.count(".") > 20, "too few modules found"
