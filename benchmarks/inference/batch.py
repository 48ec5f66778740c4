"""The infer stage against vLLM's own engine alone: the same prompts, engine arguments and sampling, in turns.

    python -m benchmarks.batch                                         # CPU: 1,000 rows by the base model
    python -m benchmarks.batch --adapter                               # the same by an adapter
    python -m benchmarks.batch --adapter cluster=local_gpu

The bare engine gets the environment that the stage gives its own (threads bound to all cores, OpenMP runtime), so the
ratio is the price of the pipeline around the engine and not of a badly set one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import Work, parser, prepare, run_bare, run_stage, say, with_defaults, workspace
from benchmarks.common.tokens import ids_of
from stages.data.example import Example, read_examples
from stages.engines.base import load_engine
from stages.engines.vllm.batch import engine_kwargs, engine_settings
from stages.infer.sampling import sampling_params
from stages.models.adapter import CONFIG, largest_rank

_ROWS = "generated://viggo?functions=inform,request_attribute&attributes=name,release_year,genres"
# Enough training for an adapter whose answers are of the usual length.
_TRAINING = ("train.max_samples=192",)


def main() -> None:
    options = parser(__doc__ or "", repeats=3)
    options.add_argument("--rows", type=int, default=1000, help="rows to predict (default 1000)")
    options.add_argument("--adapter", action="store_true", help="predict with an adapter, trained first")
    args = options.parse_args()
    name = args.name or ("batch-adapter" if args.adapter else "batch")
    pipeline = "[ingest,train,publish,infer]" if args.adapter else "[ingest,infer]"
    defaults = [
        "recipe=viggo_quickstart",
        f'dataset.source="{_ROWS}&train=384&test={args.rows}&seed=7"',
        f"pipeline={pipeline}",
        "evaluate.compare_base=false",
        *_TRAINING,
    ]
    with workspace(args.root) as root:
        work = prepare(with_defaults(defaults, args.overrides), root, "publish" if args.adapter else "ingest")
        turns: dict[str, list[dict[str, Any]]] = {"runner": [], "bare": []}
        for number in range(args.repeats):
            for side, run in (("runner", by_runner), ("bare", by_bare)):
                say(f"batch: {side}, turn {number + 1} of {args.repeats}")
                turns[side].append(run(work, number))
                say(f"  { ({name: value for name, value in turns[side][-1].items() if name != 'texts'}) }")
    texts = [dict(turn.pop("texts")) for side in turns for turn in turns[side]]
    same = sum(all(text[row_id] == texts[0][row_id] for text in texts) for row_id in texts[0])
    found = {"overrides": args.overrides, "num_rows": len(texts[0]), "same_texts": same, "turns": turns}
    measure.write_section(name, report(measure.save(name, found)))


def by_runner(work: Work, number: int) -> dict[str, Any]:
    """A turn of the runner's stage. rows_per_s leaves out the engine's start, as for the bare engine."""
    turn, record = run_stage(work, "infer", work.root / "logs" / f"runner-{number}.log")
    predictions = next(artifact for artifact in record.artifacts if artifact.name == "predictions")
    lines = [line for entry in predictions.files for line in (predictions.path / entry.path).read_text().splitlines()]
    answers = [json.loads(line) for line in lines]
    metrics = record.metrics
    return {
        "rows_per_s": metrics["rows_per_s"],
        "output_tokens_per_s": metrics["output_tokens_per_s"],
        "ready_s": round(record.started_at + metrics["engine_start_s"] - turn.began_at, 2),
        "wall_s": round(turn.wall_s, 2),
        "peak_gpu_mib": turn.peak_gpu_mib,
        "texts": [(answer["id"], answer["prediction"]) for answer in answers],
    }


def by_bare(work: Work, number: int) -> dict[str, Any]:
    """A turn of vLLM's engine with the arguments that the stage gives it."""
    rows = _rows(work)
    folder, environment = work.root / "bare" / f"batch-{number}", load_engine(work.recipe).environment
    turn = run_bare("bare_batch", job(work, rows), folder, _env(work, environment), environment=environment)
    figures = turn.figures
    return {
        "rows_per_s": round(len(rows) / figures["generate_s"], 2),
        "output_tokens_per_s": round(figures["output_tokens"] / figures["generate_s"], 1),
        "ready_s": round(figures["ready_at"] - turn.began_at, 2),
        "wall_s": round(turn.wall_s, 2),
        "peak_gpu_mib": turn.peak_gpu_mib,
        "texts": [(row.id, text) for row, text in zip(rows, *figures["texts"].values(), strict=True)],
    }


def job(work: Work, rows: list[Example]) -> dict[str, Any]:
    """What the bare engine is to do: the stage's own arguments, but for the executor, which stays vLLM's own."""
    adapter: Path | None = work.folders.get("adapter")
    arguments = engine_kwargs(work.recipe, largest_rank((adapter / CONFIG).read_bytes()) if adapter else None)
    arguments.pop("distributed_executor_backend", None)
    return {
        "model": str(work.folders["model"]),
        "adapter": str(adapter) if adapter else None,
        "models": ["tuned" if adapter else "base"],
        "engine_kwargs": {**arguments, "disable_log_stats": True},
        "sampling": sampling_params(work.recipe),
        "prompts": ids_of(str(work.folders["model"]), [row.prompt for row in rows], asked=True),
    }


def _rows(work: Work) -> list[Example]:
    return list(read_examples(work.folders["test_set"] / "test.jsonl"))


def _env(work: Work, environment: str | None) -> dict[str, str]:
    env: dict[str, str] = engine_settings(work.recipe, environment)["env_vars"]
    return env


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    sides = found["turns"]
    ratios = [a["rows_per_s"] / b["rows_per_s"] for a, b in zip(sides["runner"], sides["bare"], strict=True)]
    rows = []
    for side, label in (("runner", "infer stage"), ("bare", "vLLM alone")):
        runs = sides[side]
        row = {
            "": label,
            "rows/s": measure.cell([run["rows_per_s"] for run in runs]),
            "output tokens/s": measure.cell([run["output_tokens_per_s"] for run in runs], 0),
            "command to engine ready, s": measure.cell([run["ready_s"] for run in runs], 1),
            "whole command, s": measure.cell([run["wall_s"] for run in runs], 1),
        }
        if runs[0]["peak_gpu_mib"]:
            row["peak GPU memory, MiB"] = str(max(run["peak_gpu_mib"] for run in runs))
        rows.append(row)
    return "\n\n".join(
        [
            measure.head("Batch inference", found),
            measure.table(rows),
            f"Ratio of rows/s, runner to bare, turn by turn: {measure.cell(ratios, 3)}. "
            f"{found['same_texts']} of {found['num_rows']} rows have the same text in all turns.",
        ]
    )


if __name__ == "__main__":
    main()
