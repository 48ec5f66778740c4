"""Ten thousand rows, one in a hundred too long; the driver is killed, then the engine: each row is there once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.infer.journal import JOURNAL
from tests.chaos.harness import Running, command, manifest, send, start
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1500)]
NUM_ROWS = 10_000
MAX_LEN = 256


def write_rows(folder: Path) -> Path:
    folder.mkdir()
    for split, num_rows in (("train", 4), ("val", 4), ("test", NUM_ROWS)):
        rows = (
            {"input": "long " * MAX_LEN if index % 100 == 37 else f"row {index}", "output": f"f({index})"}
            for index in range(num_rows)
        )
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def num_done(running: Running) -> int:
    path = running.stage_folder("infer") / JOURNAL if (running.root / "latest").exists() else Path("none")
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_ten_thousand_rows_killed_twice(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    root = tmp_path / "runs"
    line = command(
        root, tmp_path / "model", root / "artifacts", "pipeline=[ingest,infer]",
        "dataset.prompt.user='{input}'",
        f'dataset.source="{write_rows(tmp_path / "rows")}"', "infer.batch_size=64", "infer.sampling.max_tokens=2",
        f"infer.engine_kwargs.max_model_len={MAX_LEN}",
    )  # fmt: skip
    first = start(root, line)
    first.wait_for("a third of the rows", lambda: num_done(first) > NUM_ROWS // 3)
    send(first.process, "SIGKILL")
    first.wait()
    kept = num_done(first)
    second = start(root, line)
    second.wait_for("two thirds of the rows", lambda: num_done(second) > 2 * NUM_ROWS // 3)
    engine = second.named("MapWorker")
    assert engine is not None
    send(engine, "SIGKILL")
    assert second.wait() == 0, second.shown()
    assert f"continued: {kept:,} of {NUM_ROWS:,} predictions were done" in second.shown()
    predictions = manifest(root).artifact("predictions")
    assert predictions is not None
    parts = sorted(predictions.path.glob("*.jsonl"))
    rows = [json.loads(text) for part in parts for text in part.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"test-{index:06d}" for index in range(NUM_ROWS)]
    assert sum(row["error"] is not None for row in rows) == NUM_ROWS // 100
    assert not first.left_over() + second.left_over()
    print(second.shown()[-1500:])
