"""The whole quickstart against the same work as separate steps, one process a step, as the notebook does it by hand.

    python -m benchmarks.pipeline                # the bare steps with the arguments and environment that the stages use
    python -m benchmarks.pipeline --defaults     # the bare steps as the tools come, vLLM on CPUs told its cache's size

Both sides begin with the converted model in the cache and nothing else, and end with streamed answers of base model
and adapter: rows, training, batch inference by adapter and base model, exact match, an endpoint, a query.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.load import measure_endpoint
from benchmarks.common.stages import Work, parser, prepare, process, run_bare, run_recipe, say, with_defaults, workspace
from benchmarks.inference.batch import job as batch_job
from benchmarks.serving.serve import bodies, by_bare, free_port
from benchmarks.training.train import arguments_with_tokens
from runner.pipeline.manifest import Manifest
from stages.data.example import Example, read_examples
from stages.engines.base import load_engine
from stages.engines.vllm.batch import engine_settings
from stages.trainers.base import load_trainer
from stages.trainers.worker.environment import worker_env

STEPS = ("ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup")
# What the runner sets on CPUs; without it LLaMA-Factory has its own defaults.
_TRAINER_SETTINGS = ("disable_gradient_checkpointing", "flash_attn", "per_device_train_batch_size")


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--defaults", action="store_true", help="the tools' own defaults for the bare steps")
    args = options.parse_args()
    name = args.name or ("pipeline-defaults" if args.defaults else "pipeline")
    overrides = with_defaults(["recipe=viggo_quickstart", "serve.port=0"], args.overrides)
    turns: dict[str, list[dict[str, Any]]] = {"runner": [], "bare": []}
    with workspace(args.root) as root:
        model = prepare(overrides, root / "prepare", "ingest").folders["model"]
        for number in range(args.repeats):
            say(f"pipeline: runner, turn {number + 1} of {args.repeats}")
            turns["runner"].append(by_runner(overrides, root / f"runner-{number}"))
            say(f"pipeline: bare steps, turn {number + 1} of {args.repeats}")
            turns["bare"].append(by_steps(overrides, model, root / f"bare-{number}", defaults=args.defaults))
    found = {"overrides": args.overrides, "defaults": args.defaults, "turns": turns}
    measure.write_section(name, report(measure.save(name, found)))


def by_runner(overrides: list[str], root: Path) -> dict[str, Any]:
    """The whole recipe by one command, in a fresh folder of runs."""
    given = [*overrides, f"storage.root={root}", f"storage.artifacts={root}/artifacts"]
    turn = run_recipe(given, root / "run.log")
    manifest = Manifest.load((root / "latest").resolve())
    steps = {record.name: record.wall_s for record in manifest.stages}
    scores = next(record.metrics for record in manifest.stages if record.name == "evaluate")
    return {
        "wall_s": turn.wall_s,
        "steps": {**steps, "start and end": turn.wall_s - sum(steps.values())},
        "exact_match": {variant: scores[variant]["exact_match"] for variant in ("tuned", "base")},
    }


def by_steps(overrides: list[str], model: Path, root: Path, *, defaults: bool) -> dict[str, Any]:
    """The same, a process a step."""
    begin = time.perf_counter()
    steps: dict[str, float] = {}
    given = [*overrides, f"storage.root={root}", f"storage.artifacts={root}/artifacts"]
    steps["ingest"] = process(_rows_command(given, root), root / "rows.log").wall_s
    work = _work(given, model, root)
    steps["train"] = _train(work, defaults)
    task = {**batch_job(work, _test_rows(work)), "models": ["tuned", "base"]}
    where = load_engine(work.recipe).environment
    env = _least_environment(work) if defaults else engine_settings(work.recipe, where)["env_vars"]
    batch = run_bare("bare_batch", task, root / "batch", env, environment=where)
    steps["infer"] = batch.wall_s
    references = [example.reference for example in _test_rows(work)]
    scores = {
        variant: sum(text.strip() == wanted.strip() for text, wanted in zip(texts, references, strict=True))
        / len(texts)
        for variant, texts in batch.figures["texts"].items()
    }
    steps |= _serve_and_query(work, root, defaults)
    return {"wall_s": time.perf_counter() - begin, "steps": steps, "exact_match": scores}


def _rows_command(overrides: list[str], root: Path) -> list[str]:
    code = (
        "import sys; from pathlib import Path; from runner.recipe.load import compose, to_recipe;"
        "from stages.ingest.data import prepare_data;"
        "recipe, _ = to_recipe(compose(sys.argv[2:]));"
        "prepare_data(recipe, Path(sys.argv[1]), lambda *args, **figures: None)"
    )
    root.mkdir(parents=True, exist_ok=True)
    return [sys.executable, "-c", code, str(root), *overrides]


def _work(overrides: list[str], model: Path, root: Path) -> Work:
    from runner.recipe.load import compose, to_recipe
    from stages.sections.recipe import with_sections

    recipe = with_sections(to_recipe(compose(overrides))[0])
    folders = {"model": model, "train_set": root / "train_set", "test_set": root / "test_set"}
    return Work(recipe, tuple(overrides), {**folders, "adapter": root / "train" / "output"}, root)


def _train(work: Work, defaults: bool) -> float:
    where = work.root / "train"
    arguments = arguments_with_tokens(work, where, {})
    if defaults:
        arguments = {name: value for name, value in arguments.items() if name not in _TRAINER_SETTINGS}
    env = {} if defaults else worker_env(work.recipe.resources_of("train"))
    job, environment = {"args": arguments, "trainer": work.recipe.train.trainer}, load_trainer(work.recipe).environment
    return run_bare("bare_train", job, where, env, environment=environment).wall_s


def _least_environment(work: Work) -> dict[str, str]:
    """What vLLM does not start without: on CPUs it wants 92 % of the machine's memory unless it is told how much."""
    if work.recipe.cluster.accelerator != "cpu":
        return {}
    return {"VLLM_CPU_KVCACHE_SPACE": str(work.recipe.cluster.cpu_kv_cache_gib)}


def _serve_and_query(work: Work, root: Path, defaults: bool) -> dict[str, float]:
    port = free_port()
    begin = time.perf_counter()
    with by_bare(work, port, root / "serve.log", _least_environment(work) if defaults else None) as (url, model):
        ready = time.perf_counter()
        for name in ("base", model):
            answer = measure_endpoint(url, name, bodies(work)[:1], 1, 1)
            assert not answer["num_failed"], answer["errors"]
        asked = time.perf_counter()
    return {"serve": ready - begin, "query": asked - ready, "cleanup": time.perf_counter() - asked}


def _test_rows(work: Work) -> list[Example]:
    return list(read_examples(work.folders["test_set"] / "test.jsonl"))


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    sides = found["turns"]
    names = [*STEPS, "start and end"]
    rows = [
        {
            "": label,
            **{name: _step(sides[side], name) for name in names},
            "whole, s": measure.cell([turn["wall_s"] for turn in sides[side]], 1),
        }
        for side, label in (("runner", "one command"), ("bare", "separate steps"))
    ]
    ratios = [a["wall_s"] / b["wall_s"] for a, b in zip(sides["runner"], sides["bare"], strict=True)]
    scores = "; ".join(
        f"{side} {' and '.join(f'{variant} {value:.2f}' for variant, value in sides[side][0]['exact_match'].items())}"
        for side in sides
    )
    how = "the tools' own defaults" if found["defaults"] else "the stages' arguments and environment"
    return "\n\n".join(
        [
            measure.head("The whole pipeline", found) + f" The separate steps have {how}. Seconds of each step:",
            measure.table(rows),
            f"Ratio, one command to separate steps: {measure.cell(ratios, 3)}. Exact match: {scores}.",
        ]
    )


def _step(turns: list[dict[str, Any]], name: str) -> str:
    values = [turn["steps"][name] for turn in turns if name in turn["steps"]]
    return measure.cell(values, 1) if values else ""


if __name__ == "__main__":
    main()
