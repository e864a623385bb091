"""The episode store: aligned episodes in one HDF5 file."""
