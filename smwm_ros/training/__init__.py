"""Learning a world model from an episode store."""
