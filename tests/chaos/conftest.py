"""The reference that every killed run is compared with, and the table of what became of each case.

CHAOS_DIR keeps the reference and the table between commands: a folder of one's own, else a temporary one.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.harness import STAGES, command, complete, statuses
from tests.tiny_model import write_tiny_model

TABLE = "kill_matrix.jsonl"


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its root, its model, its artifact store, and which trainer it names."""

    root: Path
    model: Path
    trainer: str = "llamafactory"

    @property
    def store(self) -> Path:
        return self.root / "artifacts"

    def command(self, *overrides: str) -> list[str]:
        return command(self.root, self.model, self.store, f"train.trainer={self.trainer}", *overrides)


@pytest.fixture(scope="session")
def chaos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("CHAOS_DIR")
    folder = Path(kept).absolute() if kept else tmp_path_factory.mktemp("chaos")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def reference(chaos_dir: Path) -> Callable[..., Reference]:
    """Gives the undisturbed run by a trainer, made up to that stage; each stage of it once."""

    def up_to(stage: str, trainer: str = "llamafactory") -> Reference:
        made = Reference(chaos_dir / f"reference-{trainer}", chaos_dir / "model", trainer)
        if not made.model.is_dir():
            write_tiny_model(made.model)
        done = statuses(made.root) if made.root.is_dir() else {}
        if not set(STAGES[: STAGES.index(stage) + 1]) <= set(done):
            running, code = complete(made.root, made.command(f"stop_after={stage}"))
            assert code == 0, running.shown()
            assert not running.left_over()
        return made

    return up_to


@pytest.fixture
def note(chaos_dir: Path) -> Callable[[dict[str, Any]], None]:
    """Adds a line to the table."""

    def add(values: dict[str, Any]) -> None:
        with (chaos_dir / TABLE).open("a") as table:
            table.write(json.dumps(values) + "\n")

    return add


@pytest.fixture(scope="session", autouse=True)
def _show_table(chaos_dir: Path, request: pytest.FixtureRequest) -> Any:
    yield
    table = chaos_dir / TABLE
    if not table.is_file():
        return
    newest = {line["case"]: line for line in map(json.loads, table.read_text().splitlines())}
    counts: dict[str, Counter[str]] = {}
    for line in newest.values():
        stage, target, signal, _, *trainer = line["case"].split("-")
        counts.setdefault("-".join([stage, target, signal, *trainer]), Counter())[line["verdict"]] += 1
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line("")
    for name, found in sorted(counts.items()):
        reporter.write_line(f"{name:<32} " + "  ".join(f"{what}: {count}" for what, count in sorted(found.items())))
    reporter.write_line(f"{len(newest)} cases; every one: {table}")
