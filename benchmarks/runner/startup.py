"""From the command to the first training step, the first prediction and the first served token, next to the bare tools.

python -m benchmarks.startup
python -m benchmarks.startup cluster=local_gpu
"""

from __future__ import annotations

from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import parser, prepare, say, with_defaults, workspace
from benchmarks.inference import batch
from benchmarks.serving import serve
from benchmarks.training import train

_DEFAULTS = (
    "recipe=viggo_quickstart",
    "pipeline=[ingest,train,publish,infer,serve]",
    "infer.engine=own",
    "evaluate.compare_base=false",
    "dataset.max_rows.test=16",
    "train.max_samples=16",
)


def main() -> None:
    args = parser(__doc__ or "", repeats=3).parse_args()
    found: dict[str, list[dict[str, Any]]] = {"runner": [], "bare": []}
    with workspace(args.root) as root:
        overrides = with_defaults(_DEFAULTS, args.overrides)
        work = prepare(overrides, root / "work", "publish")
        to_train = prepare(overrides, root / "train", "ingest")  # a new training would take `work` its adapter
        for number in range(args.repeats):
            for side, trained, predicted, server in (
                ("runner", train.by_runner, batch.by_runner, serve.by_runner),
                ("bare", train.by_bare, batch.by_bare, serve.by_bare),
            ):
                say(f"startup: {side}, turn {number + 1} of {args.repeats}")
                turn = serve.turn(work, server, side, number, [], 0)
                found[side].append(
                    {
                        "first training step": trained(to_train, number)["first_step_s"],
                        "first prediction": predicted(work, number)["ready_s"],
                        "first served answer": turn["first_answer_s"],
                    }
                )
    name = args.name or "startup"
    document = measure.save(name, {"overrides": args.overrides, "turns": found})
    measure.write_section(name, report(document))


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    sides = found["turns"]
    rows = [
        {
            "seconds from the command to the": what,
            "runner": measure.cell([turn[what] for turn in sides["runner"]], 1),
            "bare tool": measure.cell([turn[what] for turn in sides["bare"]], 1),
        }
        for what in sides["runner"][0]
    ]
    return "\n\n".join(
        [
            measure.head("Start", found),
            measure.table(rows),
            "The bare tools are LLaMA-Factory, `vllm.LLM` (until it takes prompts) and vLLM's server.",
        ]
    )


if __name__ == "__main__":
    main()
