"""What lies outside the recipe counts for its results: files that arguments name, environments, remote content."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline import fingerprint
from runner.pipeline.fingerprint import fingerprint_inputs
from runner.pipeline.fingerprint.remote import look_outside
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.plan import PastRuns, decide
from runner.pipeline.registry import BUILTIN, load_stage
from stages.models.obtain import describe_model
from stages.sections.recipe import Recipe
from tests.runner.pipeline.test_fingerprint_sensitivity import recipe_of

pytest_plugins = ["tests.moto_s3"]

ARGUMENTS = {
    "DeepSpeed's file": ("train", "train.args.deepspeed", "{file}"),
    "FSDP's file": ("train", "train.args.fsdp_config", "{file}"),
    "files in a list": ("train", "train.args.media_dir", "/nowhere,{file}"),
    "a draft model": ("infer", "infer.engine_kwargs.speculative_config", {"model": "{folder}"}),
    "a draft model that the endpoint inherits": (
        "serve",
        "infer.engine_kwargs.speculative_config",
        {"model": "{folder}"},
    ),
    "a parser's file": ("serve", "serve.engine_kwargs.tool_parser_plugin", "{file}"),
    "modules of the workers": ("train", "resources.train.runtime_env", {"env_vars": {"PYTHONPATH": "/x:{folder}"}}),
    "a working folder": ("infer", "resources.infer.runtime_env", {"working_dir": "{folder}"}),
    "packages of metrics": ("evaluate", "resources.evaluate.runtime_env", {"py_modules": ["{folder}"]}),
}


def filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: filled(item, places) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, places) for item in value]
    return value.format(**places)


def covered(stage: str, recipe: Recipe) -> dict[str, Any]:
    return fingerprint_inputs(load_stage(stage), recipe, {})


@pytest.mark.parametrize("what", ARGUMENTS)
def test_the_content_of_a_file_that_an_argument_names_counts(what: str, tmp_path: Path) -> None:
    stage, key, value = ARGUMENTS[what]
    folder, file = tmp_path / "given", tmp_path / "given" / "settings.json"
    folder.mkdir()
    file.write_text('{"a": 1}')
    recipe = recipe_of({key: filled(value, {"file": str(file), "folder": str(folder)})})
    before = covered(stage, recipe)
    assert covered(stage, recipe) == before
    file.write_text('{"a": 2}')
    assert covered(stage, recipe) != before


def test_a_harmless_argument_is_not_taken_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cosine").write_text("a file with the name of a schedule")
    monkeypatch.chdir(tmp_path)
    assert "files" not in covered("train", recipe_of({"train.args.lr_scheduler_type": "cosine"}))


@pytest.mark.parametrize(
    ("stage", "variable", "counts"),
    [
        ("train", "NCCL_ALGO", True),
        ("train", "OMP_NUM_THREADS", True),
        ("infer", "VLLM_BATCH_INVARIANT", True),
        ("evaluate", "PYTHONHASHSEED", True),
        ("ingest", "LANG", True),
        ("train", "NCCL_DEBUG", False),
        ("infer", "VLLM_LOGGING_LEVEL", False),
        ("train", "TRANSFORMERS_VERBOSITY", False),
    ],
)
def test_a_variable_of_the_workers_counts_unless_it_only_watches(stage: str, variable: str, counts: bool) -> None:
    other = next(name for name in BUILTIN if name not in (stage, "serve"))
    changed = recipe_of({f"resources.{stage}.runtime_env": {"env_vars": {variable: "1"}}})
    assert (covered(stage, changed) != covered(stage, recipe_of({}))) is counts
    assert covered(other, changed) == covered(other, recipe_of({}))


@pytest.mark.parametrize(
    ("metric", "library"),
    [
        ("rouge", "rouge-score"),
        ("rouge", "nltk"),
        ("bleu", "sacrebleu"),
        ("bleu", "regex"),
        ("json_schema", "jsonschema"),
    ],
)
def test_another_version_of_a_metric_s_library_is_another_score(
    metric: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it, without = recipe_of({"evaluate.metrics": [metric]}), recipe_of({"evaluate.metrics": ["exact_match"]})
    before = covered("evaluate", with_it), covered("evaluate", without)
    real = fingerprint.library_version
    monkeypatch.setattr(fingerprint, "library_version", lambda name: "99" if name == library else real(name))
    assert covered("evaluate", with_it) != before[0]
    assert covered("evaluate", without) == before[1]


def test_templates_in_a_folder_of_the_model_are_a_part_of_it(tmp_path: Path) -> None:
    for name in ("config.json", "additional_chat_templates/tool_use.jinja", "onnx/other.json"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text("a")
    before = describe_model(tmp_path / "model", tmp_path / "cache", {})
    assert [entry.path for entry in before.files] == ["additional_chat_templates/tool_use.jinja", "config.json"]
    (tmp_path / "model" / "additional_chat_templates" / "tool_use.jinja").write_text("b")
    assert describe_model(tmp_path / "model", tmp_path / "cache", {}).sha256 != before.sha256


def test_the_digest_that_a_package_lists_for_its_model_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = covered("ingest", recipe_of({}))
    assert before["recipe"]["model.source"]["sha256"].startswith("sha256=")
    monkeypatch.setattr("stages.models.gguf.installed_hash", lambda *place: "sha256=other")
    assert covered("ingest", recipe_of({})) != before


class Web(SimpleHTTPRequestHandler):
    """A web server that gives an ETag of the content, and refuses HEAD where it is told to."""

    heads = True

    def end_headers(self) -> None:
        self.send_header("ETag", f'"{hash(Path(self.translate_path(self.path)).read_bytes())}"')
        super().end_headers()

    def do_HEAD(self) -> None:
        if self.heads:
            super().do_HEAD()
        else:
            self.send_error(405)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=str(tmp_path / "rows")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def remote(source: str) -> Recipe:
    return recipe_of(
        {"dataset.source": source, "dataset.files": {"train": "train.jsonl", "val": None, "test": "train.jsonl"}}
    )


def looked(recipe: Recipe) -> Any:
    return look_outside([load_stage("ingest")], recipe, lambda text: None)["ingest"]["dataset.source"]


@pytest.mark.parametrize("heads", [True, False])
def test_rows_on_a_web_server_are_known_by_their_tag(
    web: str, heads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Web, "heads", heads)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"a": 1}')
    before = looked(remote(web))
    assert before["train.jsonl"]
    assert looked(remote(web)) == before
    (tmp_path / "rows" / "train.jsonl").write_text('{"a": 2}')
    assert looked(remote(web)) != before


def test_rows_and_a_model_in_s3_are_known_by_their_tags(bucket: str, s3_client: Any) -> None:
    def seen(content: bytes) -> Any:
        for key in ("rows/train.jsonl", "model/config.json"):
            s3_client.put_object(Bucket=bucket, Key=key, Body=content)
        recipe = remote(f"s3://{bucket}/rows")
        model = recipe.model.model_copy(update={"source": f"s3://{bucket}/model"})
        return look_outside([load_stage("ingest")], recipe.model_copy(update={"model": model}), print)["ingest"]

    before = seen(b'{"a": 1}')
    assert set(before) == {"dataset.source", "model.source"}
    assert seen(b'{"a": 1}') == before
    after = seen(b'{"a": 2}')
    assert all(after[key] != before[key] for key in before)


class Outside:
    """What a stage sees behind an address: set by the test."""

    tag: Any = "first"

    def __call__(self) -> Any:
        if isinstance(self.tag, Exception):
            raise self.tag
        return self.tag


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    made = Outside()
    monkeypatch.setattr("stages.ingest.stage.looks", lambda recipe: {"dataset.source": made})
    return made


class Runs:
    """Runs of the ingest stage alone, of which only the records are made."""

    def __init__(self, root: Path) -> None:
        self.root, self.remarks, self.count = root, list[str](), 0

    def step(self, recipe: Recipe, *, look: bool = True) -> Any:
        past = PastRuns(self.root)
        if look:
            past.outside = look_outside([load_stage("ingest")], recipe, self.remarks.append)
        return decide(load_stage("ingest"), recipe, {}, past)

    def run(self, recipe: Recipe) -> None:
        step, self.count = self.step(recipe), self.count + 1
        record = StageRecord(name="ingest", status="done", fingerprint=step.fingerprint, inputs=step.inputs)
        manifest = Manifest(run_id=f"run-{self.count}", recipe="mine", created_at=self.count, stages=[record])
        manifest.save(self.root / "mine" / manifest.run_id)


def test_rows_that_changed_at_the_same_address_are_read_again(outside: Outside, tmp_path: Path) -> None:
    runs, recipe = Runs(tmp_path), remote("https://example.org/rows")
    runs.run(recipe)
    assert runs.step(recipe).action == "skip"
    outside.tag = "second"
    step = runs.step(recipe)
    assert (step.action, step.why) == ("run", "changed: content behind dataset.source first -> second")


def test_a_plan_takes_remote_rows_for_what_they_were_last(outside: Outside, tmp_path: Path) -> None:
    runs, recipe = Runs(tmp_path), remote("https://example.org/rows")
    runs.run(recipe)
    outside.tag = "second"
    runs.run(recipe)
    runs.run(remote("https://example.org/others"))
    assert runs.step(recipe, look=False).action == "skip"


def test_an_address_that_does_not_answer_is_named_and_counts_as_unchanged(outside: Outside, tmp_path: Path) -> None:
    runs, recipe = Runs(tmp_path), remote("https://example.org/rows")
    runs.run(recipe)
    outside.tag = RunnerError("https://example.org/rows: no answer")
    assert runs.step(recipe).action == "skip"
    assert runs.remarks == [
        "dataset.source: whether its content has changed cannot be seen, and it counts as unchanged: "
        "https://example.org/rows: no answer"
    ]


def test_predictions_to_compare_with_are_known_by_their_content(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, found = recipe_of({"evaluate.compare_run": "earlier"}), type("Found", (), {"sha256": "a"})
    monkeypatch.setattr("stages.evaluate.stage.predictions_of_run", lambda *place: found)
    before = covered("evaluate", recipe)
    found.sha256 = "b"
    assert covered("evaluate", recipe) != before
