"""What the nodes do, without ROS: the safety gate, the belief and the pursuit of a goal."""
