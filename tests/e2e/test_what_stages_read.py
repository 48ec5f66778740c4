"""Of a run whose every read is noted: what a stage reads is in its fingerprint, or is known not to matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from runner.pipeline.manifest import Manifest, StageRecord
from runner.recipe.schema import Section
from stages.sections.recipe import Recipe
from tests.paths import ROOT
from tests.runner.pipeline.test_fingerprint_sensitivity import NEUTRAL
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1200)]
STAGES = ("ingest", "train", "publish", "infer", "evaluate")

# Libraries' own files and the system's: their versions stand for them, or they have nothing to do with a result.
LIBRARIES = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), "/usr", "/lib", "/etc", "/proc", "/sys", "/dev")

# Keys that a stage reads and its result does not depend on, besides those of NEUTRAL.
WITHOUT_EFFECT = {
    ("ingest", "train.args"): "how the parity check learns a row; the rows are written before",
    ("ingest", "train.too_long"): "the parity check leaves out what does not fit",
    ("ingest", "train.max_samples"): "how many rows the parity check learns",
    ("ingest", "evaluate.slices"): "a look ahead at what evaluate will ask of the rows, and refuses itself",
    ("ingest", "pipeline"): "whether there is anything to check parity for",
    ("train", "storage.endpoint_url"): "where checkpoints lie",
    ("infer", "dataset.prompt"): "rows carry their messages",
}


@dataclass(frozen=True)
class Traced:
    """The run, when it began, and what its processes noted."""

    manifest: Manifest
    root: Path
    given: Path
    began: float
    notes: list[list[Any]]

    def of(self, stage: str, kind: str) -> set[tuple[str, ...]]:
        """What was noted while the stage ran."""
        record = self.record(stage)
        end = record.started_at + record.wall_s
        return {tuple(note[2:]) for note in self.notes if note[1] == kind and record.started_at <= note[0] <= end}

    def record(self, stage: str) -> StageRecord:
        return next(each for each in self.manifest.stages if each.name == stage)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A small run on given files: rows, a model with a folder of templates, and a chat template."""
    folder = tmp_path_factory.mktemp("traced")
    given, root, notes = folder / "given", folder / "runs", folder / "notes"
    for each in (given / "rows", notes, folder / "home"):
        each.mkdir(parents=True)
    write_tiny_model(given / "model")
    template = json.loads((given / "model" / "tokenizer_config.json").read_text()).get("chat_template")
    template = template or (given / "model" / "chat_template.jinja").read_text()
    (given / "asked.jinja").write_text(template)
    (given / "model" / "additional_chat_templates").mkdir()
    (given / "model" / "additional_chat_templates" / "other.jinja").write_text(template)
    for split, count in (("train", 8), ("val", 2), ("test", 4)):
        lines = (json.dumps({"input": f"say {n}", "output": f"{n}"}) + "\n" for n in range(count))
        (given / "rows" / f"{split}.jsonl").write_text("".join(lines))
    began = max(path.stat().st_ctime for path in given.rglob("*"))
    command = [
        sys.executable, "-m", "runner", "recipe=viggo_quickstart", f"pipeline=[{','.join(STAGES)}]",
        f"storage.root={root}", f"storage.cache={folder}/cache", f"storage.artifacts={folder}/store",
        "storage.share_cache=false", f"dataset.source={given}/rows", f"model.source={given}/model",
        f"model.chat_template={given}/asked.jinja", "dataset.prompt.user='{input}'",
        "evaluate.metrics=[exact_match,bleu]",
        "evaluate.slices=[]", "train.args.max_steps=2", "infer.engine=own", "infer.sampling.max_tokens=4",
        "infer.engine_kwargs.max_model_len=256", "train.args.cutoff_len=64",
    ]  # fmt: skip
    env = {
        **os.environ, "PYTHONPATH": f"{ROOT}/tests/e2e/trace:{ROOT}", "TRACE_READS": str(notes),
        "TRACE_LEAVE_OUT": ":".join(LIBRARIES), "HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "home"),
    }  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for path in notes.iterdir() for line in path.read_text().splitlines()]
    return Traced(Manifest.load((root / "latest").resolve()), root.resolve(), given, began, found)


def section_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name of a section's class, dotted prefix of its keys)."""
    yield model.__name__, prefix
    for name, info in model.model_fields.items():
        kinds = [info.annotation, *getattr(info.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from section_keys(kind, f"{prefix}{name}.")


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_that_a_stage_reads_is_in_its_fingerprint(stage: str, traced: Traced) -> None:
    prefixes = dict(section_keys())
    sections = {f"{prefix}" for prefix in prefixes.values()}
    keys = {f"{prefixes[kind]}{name}" for kind, name in traced.of(stage, "key") if kind in prefixes}
    read = {key for key in keys if f"{key}." not in sections}
    assert read, "nothing was noted"
    recipe = traced.record(stage).inputs["recipe"]
    known = {*recipe, *NEUTRAL, *(key for name, key in WITHOUT_EFFECT if name == stage)}
    assert {key for key in read if not any(f"{key}.".startswith(f"{each}.") for each in known)} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_that_a_stage_reads_is_in_its_fingerprint(stage: str, traced: Traced) -> None:
    read = {Path(path) for (path,) in traced.of(stage, "file") if not path.startswith(str(ROOT))}
    assert {path for path in read if not is_known(path, stage, traced)} == set()


def test_the_trace_sees_the_given_files(traced: Traced) -> None:
    seen = {path for (path,) in traced.of("ingest", "file")}
    assert {str(traced.given / "rows" / "train.jsonl"), str(traced.given / "asked.jinja")} <= seen


def is_known(path: Path, stage: str, traced: Traced) -> bool:
    """Whether the fingerprint covers the file, or the run made it for itself."""
    record, real = traced.record(stage), Path(os.path.realpath(path))
    if real.is_relative_to(traced.given):
        return (stage == "ingest" and in_ingest(real, traced)) or in_inputs(real, record, traced)
    folder = traced.root / traced.manifest.recipe / traced.manifest.run_id
    other = next((name for name in STAGES if name != stage and real.is_relative_to(folder / name)), None)
    if other is not None:
        return in_inputs(real, record, traced)
    return not real.exists() or real.stat().st_ctime > traced.began


def in_ingest(path: Path, traced: Traced) -> bool:
    recipe = traced.record("ingest").inputs["recipe"]
    rows = {traced.given / "rows" / name for name in recipe["dataset.source"]}
    model = {traced.given / "model" / name for name in recipe["model.source"]}
    text = recipe["model.chat_template"]
    return path in rows | model or (path == traced.given / "asked.jinja" and text == path.read_text())


def in_inputs(path: Path, record: StageRecord, traced: Traced) -> bool:
    """Whether the file belongs to an artifact whose digest is in the fingerprint, or is the template that is."""
    artifacts = [traced.manifest.artifact(name) for name in record.inputs["inputs"]]
    files = {Path(os.path.realpath(each.path / entry.path)) for each in artifacts if each for entry in each.files}
    template = record.inputs["recipe"].get("model.chat_template")
    return path in files or (path.suffix == ".jinja" and path.read_text() == template)
