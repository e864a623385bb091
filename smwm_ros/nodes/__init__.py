"""The ROS 2 nodes: they convert, call, publish and report faults; no algorithm is here."""
