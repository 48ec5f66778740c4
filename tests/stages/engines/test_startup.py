"""What an engine that starts does, by lines that vLLM wrote on two CPU cores and on a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.patches import ray_node
from stages.engines.vllm.startup import start_state
from stages.infer import figures
from stages.infer.figures import telling_start

LINES = [
    ('INFO 11-30 [core.py:124] Initializing a V1 LLM engine (v0.29.0) with config: model="m"', ""),
    ("INFO 11-30 [cpu_model_runner.py:131] Starting to load model /models/m...", "loading the weights"),
    ("INFO 11-30 [default_loader.py:431] Loading weights took 0.30 seconds", "computing how much memory is left"),
    ("INFO 11-30 [cpu_model_runner.py:150] Warming up model for the compilation...", "compiling and warming up"),
    ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  10%|█", "capturing CUDA graphs"),
    ("INFO 11-30 [core.py:369] init engine (profile, create kv cache, warmup model) took 1.9 s", "opening its API"),
]


def test_the_last_line_that_is_known_tells_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "logs_folder", lambda: tmp_path)
    assert start_state() == ""
    log = tmp_path / "worker-1.err"
    for line, state in LINES:
        with log.open("a") as file:
            file.write(f"(EngineCore pid=7) {line}\n(EngineCore pid=7) INFO other\n")
        assert start_state().startswith(state), line
        assert bool(start_state()) == bool(state)


def test_the_engine_that_wrote_last_is_the_one_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "logs_folder", lambda: tmp_path)
    for age_s, name, line in (
        (60, "old", LINES[-1][0]),
        (0, "new", LINES[1][0]),
        (-60, "other", "no line of an engine"),
    ):
        path = tmp_path / f"worker-{name}.out"
        path.write_text(line if name == "other" else f"(EngineCore pid=7) {line}\n")
        os.utime(path, times=(time.time() - age_s,) * 2)
    assert start_state() == "loading the weights"


def test_without_a_node_on_this_machine_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "logs_folder", lambda: None)
    assert start_state() == ""


def test_batch_inference_tells_what_the_engine_does_until_the_first_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_TELL_EVERY_S", 0.01)
    reported: list[str] = []

    def batches() -> Iterator[str]:
        while len(reported) < 2:
            time.sleep(0.01)
        yield "first"
        seen = len(reported)
        time.sleep(0.1)
        assert len(reported) == seen
        yield "second"

    assert list(telling_start(batches(), reported.append, lambda: "loading the weights")) == ["first", "second"]
    assert set(reported) == {"loading the weights"}
