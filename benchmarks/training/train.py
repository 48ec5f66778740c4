"""The train stage against its trainer's library alone: the same rows, model and arguments, in turns.

    python -m benchmarks.train                                         # CPU: the quickstart's training
    python -m benchmarks.train train.trainer=accelerate                # against TRL
    python -m benchmarks.train cluster=local_gpu train.max_samples=1000
    python -m benchmarks.train cluster=local_gpu resources.train.num_workers=2

The library alone runs as a person would start it; where the stage has several workers, as so many processes of
torchrun. With --same-environment it gets the variables that the stage gives its workers, so that what is left is what
Ray costs.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import (
    Work,
    interpreter,
    parser,
    prepare,
    process,
    run_bare,
    run_stage,
    say,
    with_defaults,
    workspace,
)
from benchmarks.common.tokens import ids_of
from runner.cluster.accelerators import accelerator_of
from stages.models.architecture import read_architecture
from stages.models.chat_template import with_template_text
from stages.models.speed.flops import forward_flops
from stages.models.speed.training import Method
from stages.trainers.base import load_trainer
from stages.trainers.output import TRAINER_LOG
from stages.trainers.worker.environment import worker_env

_ALONE = {"llamafactory": "LLaMA-Factory", "accelerate": "TRL", "axolotl": "axolotl"}


def main() -> None:
    options = parser(__doc__ or "", repeats=3)
    options.add_argument("--same-environment", action="store_true", help="the bare tool gets the stage's environment")
    args = options.parse_args()
    name = args.name or "train"
    with workspace(args.root) as root:
        work = prepare(with_defaults(["recipe=viggo_quickstart"], args.overrides), root, "ingest")
        env = worker_env(work.recipe.resources_of("train")) if args.same_environment else {}
        turns: dict[str, list[dict[str, Any]]] = {"runner": [], "bare": []}
        for number in range(args.repeats):
            for side, run in (("runner", by_runner), ("bare", partial(by_bare, env=env))):
                say(f"train: {side}, turn {number + 1} of {args.repeats}")
                turns[side].append(run(work, number))
                say(f"  { ({name: value for name, value in turns[side][-1].items() if name != 'losses'}) }")
        tokens = mean_tokens(work)
    whose = "the stage's" if args.same_environment else "its own"
    found = {
        "overrides": args.overrides,
        "trainer": work.recipe.train.trainer,
        "tokens_per_row": tokens,
        "flops_of_a_row": flops_of_a_row(work, tokens),
        "peak_flops": peak_flops(work),
        "bare_environment": whose,
        "turns": turns,
    }
    measure.write_section(name, report(measure.save(name, found)))


def by_runner(work: Work, number: int) -> dict[str, Any]:
    """A turn of the runner's stage. LLaMA-Factory's rate is the one that it wrote itself, as for the bare tool."""
    turn, record = run_stage(work, "train", work.root / "logs" / f"runner-{number}.log")
    log = next(artifact.path for artifact in record.artifacts if artifact.name == "training_log")
    results = {"train_samples_per_second": record.metrics["samples_per_s"]}
    results |= {"train_runtime": record.metrics["train_runtime_s"]}
    if (own := log / "train_results.json").is_file():
        results = json.loads(own.read_text())
    lines = (log / TRAINER_LOG).read_text().splitlines()
    losses = [entry["loss"] for line in lines if (entry := json.loads(line)).get("loss") is not None]
    first_step = record.metrics["first_step_at"] - turn.began_at
    return figures(turn.wall_s, first_step, turn.peak_gpu_mib, results, losses)


def by_bare(work: Work, number: int, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A turn of the library with the arguments that the stage gives it. env: added to this process's own."""
    folder, trainer = work.root / "bare" / f"train-{number}", load_trainer(work.recipe)
    env = {**(env or {}), **of_the_library(work), "HF_DATASETS_CACHE": str(folder / "cache")}
    arguments = arguments_with_tokens(work, folder, env)
    job = {"args": arguments, "trainer": work.recipe.train.trainer}
    workers = work.recipe.resources_of("train").most_workers
    turn = run_bare("bare_train", job, folder, env, num_processes=workers, environment=trainer.environment)
    first_step = turn.figures["first_step_at"] - turn.began_at
    return figures(turn.wall_s, first_step, turn.peak_gpu_mib, turn.figures, turn.figures["losses"])


def of_the_library(work: Work) -> dict[str, str]:
    """Variables that only this library gets of the stage: where it computes, and that it asks and tells nobody."""
    resources = work.recipe.resources_of("train")
    common = worker_env(resources)
    own = load_trainer(work.recipe).worker_env(resources)
    return {name: value for name, value in own.items() if name not in common}


def arguments_with_tokens(work: Work, folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """The library's arguments, once the rows have been made tokens of, as the stage does it, in the folder."""
    trainer, tokens = load_trainer(work.recipe), str(folder / "tokens")
    model, dataset_dir = str(work.folders["model"]), str(work.folders["train_set"])
    folder.mkdir(parents=True, exist_ok=True)
    to_prepare = (trainer.prepare(), with_template_text(work.recipe), model, dataset_dir, tokens)
    (folder / "prepare.pickle").write_bytes(pickle.dumps(to_prepare))
    prepared = [interpreter(trainer.environment), "-m", "benchmarks.bare_tokens", str(folder / "prepare.pickle")]
    process(prepared, folder / "tokens.log", env)
    return trainer.arguments(
        work.recipe, model=model, dataset_dir=dataset_dir, output_dir=str(folder / "output"), tokens=tokens
    )


def figures(
    wall_s: float, first_step_s: float, peak_gpu_mib: int, results: dict[str, Any], losses: list[float]
) -> dict[str, Any]:
    return {
        "samples_per_s": results["train_samples_per_second"],
        "train_runtime_s": results["train_runtime"],
        "first_step_s": round(first_step_s, 2),
        "wall_s": round(wall_s, 2),
        "peak_gpu_mib": peak_gpu_mib,
        "losses": losses,
    }


def mean_tokens(work: Work) -> float:
    """Tokens of a row, prompt and answer, as the model's own chat template writes them; mean over the train set."""
    from stages.data.example import read_examples

    examples = islice(read_examples(work.folders["train_set"] / "train.jsonl"), work.recipe.train.max_samples)
    found = ids_of(str(work.folders["model"]), [example.messages for example in examples], asked=False)
    return round(sum(map(len, found)) / len(found), 1)


def flops_of_a_row(work: Work, tokens: float) -> float | None:
    """Operations by which a row is learned, without what gradient checkpointing computes again; None: not known."""
    model = read_architecture(work.folders["model"])
    if isinstance(model, str):
        return None
    full = load_trainer(work.recipe).trained(work.recipe).kind == "model"
    return Method(full=full, checkpointed=False).passes * forward_flops(model, tokens, tokens / 2)


def peak_flops(work: Work) -> float | None:
    """Operations a second of all workers' accelerators at most, as their makers say; None: not known."""
    on = accelerator_of(work.recipe, "train")
    return on.flops * work.recipe.resources_of("train").most_workers if on else None


def _compare_losses(sides: dict[str, list[dict[str, Any]]]) -> str:
    curves = [run["losses"] for runs in sides.values() for run in runs]
    if all(curve == curves[0] for curve in curves):
        return "The loss curves are identical."
    most = max(abs(loss / first - 1) for curve in curves for loss, first in zip(curve, curves[0], strict=True))
    return f"The losses of a step differ by at most {most:.2%} between turns (sums on a GPU have no fixed order)."


def _of_peak(found: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, str]:
    """The share of what the accelerators compute at most that rows were learned with, where that is known."""
    if not found.get("flops_of_a_row") or not found.get("peak_flops"):
        return {}
    share = found["flops_of_a_row"] / found["peak_flops"]
    return {"of peak FLOPs": measure.cell([run["samples_per_s"] * share for run in runs], 3)}


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    sides = found["turns"]
    ratios = [a["samples_per_s"] / b["samples_per_s"] for a, b in zip(sides["runner"], sides["bare"], strict=True)]
    whose, library = found.get("bare_environment", "the stage's"), _ALONE[found.get("trainer", "llamafactory")]
    rows = []
    for side, label in (("runner", "train stage"), ("bare", f"{library} alone")):
        runs = sides[side]
        row = {
            "": label,
            "samples/s": measure.cell([run["samples_per_s"] for run in runs]),
            "tokens/s": measure.cell([run["samples_per_s"] * found["tokens_per_row"] for run in runs], 0),
            **_of_peak(found, runs),
            "command to first step, s": measure.cell([run["first_step_s"] for run in runs], 1),
            "whole command, s": measure.cell([run["wall_s"] for run in runs], 1),
        }
        if runs[0]["peak_gpu_mib"]:
            row["peak GPU memory, MiB"] = str(max(run["peak_gpu_mib"] for run in runs))
        rows.append(row)
    return "\n\n".join(
        [
            measure.head("Training", found),
            measure.table(rows),
            f"Ratio of samples/s, runner to bare, turn by turn: {measure.cell(ratios, 3)}. {_compare_losses(sides)} "
            f"A row has {found['tokens_per_row']} tokens on average. {library} alone ran "
            f"in {whose} environment.",
        ]
    )


if __name__ == "__main__":
    main()
