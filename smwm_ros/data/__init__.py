"""Bags, alignment in time, images, and the episode store."""
