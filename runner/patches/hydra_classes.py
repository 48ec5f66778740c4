"""Names of Hydra 1.3's own sweeper and launcher, which a composed recipe has below `hydra` as `_target_`."""

from __future__ import annotations

_PLUGINS = "hydra._internal.core_plugins."
GRID_SWEEPER = f"{_PLUGINS}basic_sweeper.BasicSweeper"
LAUNCHER = f"{_PLUGINS}basic_launcher.BasicLauncher"
