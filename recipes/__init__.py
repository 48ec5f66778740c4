"""The shipped recipes and their groups, as Hydra configuration."""
