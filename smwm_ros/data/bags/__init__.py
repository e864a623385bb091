"""Reading, writing and mending ROS 2 bags, without ROS."""
