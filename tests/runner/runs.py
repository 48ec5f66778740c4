"""A folder of runs with light stages, for tests that harm it and run again."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from runner.pipeline.engine import run
from runner.recipe.load import compose, to_recipe
from runner.report.observers import OnTerminal
from runner.report.terminal import Report

STAGES = "pipeline=[ingest,train,publish]"


class Place:
    """A folder of runs that can be put back as it was."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "runs"
        self._kept = folder / "kept"
        overrides = [f"storage.root={self.root}", f"storage.cache={folder}/cache", STAGES]
        self.recipe, self.options = to_recipe(compose(["recipe=viggo_quickstart", *overrides]))

    def run(self) -> tuple[int, dict[str, str], str]:
        """Exit code, digest of each artifact, and what the terminal showed."""
        screen = io.StringIO()
        code, summary = run(self.recipe, self.options, "python -m runner", [OnTerminal(Report(screen))])
        digests = {artifact["name"]: artifact["sha256"] for artifact in summary["artifacts"]}
        return code, digests, screen.getvalue().replace("\n", "")

    def keep(self) -> list[Path]:
        shutil.copytree(self.root, self._kept, symlinks=True)
        return sorted(
            path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file() and path.stat().st_size
        )

    def restore(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self._kept, self.root, symlinks=True)
