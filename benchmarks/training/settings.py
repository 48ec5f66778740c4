"""Ways to train the same rows, compared: speed, memory, and the exact match of what was learned.

    python -m benchmarks.settings cluster=local_gpu \
        --way "tutorial: train.args.per_device_train_batch_size=1 train.args.gradient_accumulation_steps=8" \
        --way "tuned: train.args.per_device_train_batch_size=8 train.args.disable_gradient_checkpointing=true"

Each way is the recipe with that way's overrides, run from ingest to evaluate; what the ways have in common is done
once. Tokens are those of the rows: padding does not count, so a way that computes less of it is faster.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import Work, parser, prepare, run_recipe, say, with_defaults, workspace
from benchmarks.training.train import mean_tokens
from runner.pipeline.manifest import Manifest, StageRecord
from runner.recipe.load import compose, to_recipe
from stages.sections.recipe import with_sections


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--way", action="append", required=True, help='"NAME: override override ...", several times')
    args = options.parse_args()
    name = args.name or "settings"
    defaults = ["recipe=viggo_quickstart", "pipeline=[ingest,train,publish,infer,evaluate]", "infer.engine=own"]
    overrides = with_defaults([*defaults, "evaluate.compare_base=false"], args.overrides)
    ways = []
    with workspace(args.root) as root:
        work = prepare(overrides, root, "ingest")
        for text in args.way:
            label, _, given = text.partition(":")
            say(f"settings: {label}")
            ways.append({"way": label, "overrides": shlex.split(given), **run(work, label, shlex.split(given))})
        tokens = mean_tokens(work)
    found = {"overrides": args.overrides, "tokens_per_row": tokens, "ways": ways}
    measure.write_section(name, report(measure.save(name, found)))


def run(work: Work, label: str, overrides: list[str]) -> dict[str, Any]:
    """Train by itself, so that the peak of memory is training's; then the rest."""
    given, log = [*work.overrides, *overrides], work.root / "logs" / f"{label}.log"
    trained = run_recipe([*given, "stop_after=train"], log)
    training = _record(work.root, "train")
    run_recipe(given, log)
    scores = _record(work.root, "evaluate").metrics["tuned"]
    results = json.loads((_log_folder(training) / "train_results.json").read_text())
    recipe = with_sections(to_recipe(compose(given))[0])
    num_rows = len((work.folders["train_set"] / "train.jsonl").read_text().splitlines())
    # The trainer's own samples a second count what is packed together as one.
    num_samples = min(num_rows, recipe.train.max_samples or num_rows) * recipe.train.num_epochs
    return {
        "samples_per_s": round(num_samples / results["train_runtime"], 2),
        "train_runtime_s": results["train_runtime"],
        "num_steps": training.metrics["num_steps"],
        "loss_last": training.metrics["loss_last"],
        "peak_gpu_mib": trained.peak_gpu_mib,
        "exact_match": scores["exact_match"],
        "exact_match_ci": scores["exact_match_ci"],
        "num_rows": scores["n"],
    }


def _record(root: Path, stage: str) -> StageRecord:
    return next(record for record in Manifest.load((root / "latest").resolve()).stages if record.name == stage)


def _log_folder(training: StageRecord) -> Path:
    return next(artifact.path for artifact in training.artifacts if artifact.name == "training_log")


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown; factors are of tokens a second, to the first way's."""
    first = found["ways"][0]
    rows = []
    for way in found["ways"]:
        row = {
            "way": way["way"],
            "steps": way["num_steps"],
            "samples/s": f"{way['samples_per_s']:.1f}",
            "tokens/s": f"{way['samples_per_s'] * found['tokens_per_row']:,.0f}",
            "factor": f"{way['samples_per_s'] / first['samples_per_s']:.2f}",
            "last loss": f"{way['loss_last']:.3f}",
            f"exact match of {way['num_rows']}": "{:.3f} [{:.3f}, {:.3f}]".format(
                way["exact_match"], *way["exact_match_ci"]
            ),
        }
        if way["peak_gpu_mib"]:
            row["peak GPU memory, MiB"] = str(way["peak_gpu_mib"])
        rows.append(row)
    described = [f"- {way['way']}: `{' '.join(way['overrides']) or 'as the recipe says'}`" for way in found["ways"]]
    return "\n\n".join(
        [
            measure.head("Training settings", found),
            "\n".join(described),
            measure.table(rows),
            f"A row has {found['tokens_per_row']} tokens on average; samples are rows times epochs, over the trainer's "
            "own time.",
        ]
    )


if __name__ == "__main__":
    main()
