"""Episode stores as LeRobotDataset v3, for everything that trains on those."""
