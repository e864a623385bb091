"""Bags to training data: aligned, judged, and written as episodes."""
