"""The processes of a running system: what they are, how they are started, watched and ended; without ROS."""
