"""Data sets that are generated: `generated://NAME`."""
