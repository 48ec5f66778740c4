"""Sweeps: the grid, its jobs, and the state that is on disk."""
