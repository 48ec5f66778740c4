"""Names of Hydra 1.3's own plugins, which a composed recipe has below `hydra` as `_target_`."""

from __future__ import annotations

PLUGINS = "hydra._internal.core_plugins."  # sweepers and launchers that come with Hydra
GRID_SWEEPER = f"{PLUGINS}basic_sweeper.BasicSweeper"
