"""In place of a node: a program without ROS that behaves as its parameter ``mode`` tells it."""

import os
import signal
import sys
import time

from smwm_ros.stack.notify import notify_failed, notify_ready

mode = sys.argv[sys.argv.index("-p") + 1].partition(":=")[2].strip('"')
print("mode", mode)
if mode == "refuse":
    notify_failed("no contract:\nit is missing")
    sys.exit(1)
if mode == "crash":
    sys.exit("the library is missing")
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "stubborn":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
if mode != "late":
    notify_ready()
if mode == "done":
    sys.exit(0)
if mode == "die":
    time.sleep(0.3)
    sys.exit("out of memory")
if mode == "fragile":
    sys.exit("again")
if mode in ("orderly", "settling"):
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5 * (mode == "settling"))
        print("in good order")
        sys.exit(0)
time.sleep(60)
