"""A trainer's library alone, in this process: what its own command calls, without Ray.

For LLaMA-Factory `run_exp` (its command cannot be used where there is no torchaudio: it imports it at the top of a
module), for TRL its trainer, for axolotl what `axolotl train` calls.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.trainers.output import TRAINER_LOG


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train with the job's `args`. Returns when the first step ended, the rate, and the losses."""
    clock = _clock()
    _LIBRARIES[job["trainer"]](job["args"], clock)
    output = Path(job["args"]["output_dir"])
    lines = (output / TRAINER_LOG).read_text().splitlines()
    losses = [entry["loss"] for line in lines if (entry := json.loads(line)).get("loss") is not None]
    own = output / "train_results.json"
    return {**clock.figures, **(json.loads(own.read_text()) if own.is_file() else {}), "losses": losses}


def _clock() -> Any:
    """A callback that has, as `figures`, when the first step ended and the rate from the begin to the last step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        figures: dict[str, float]
        begun_at = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.figures, self.begun_at = {}, time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.figures.setdefault("first_step_at", time.time())
            elapsed = time.monotonic() - self.begun_at
            rows = state.global_step * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            self.figures |= {"train_runtime": elapsed, "train_samples_per_second": rows / elapsed}

    return Clock()


def by_llamafactory(args: dict[str, Any], clock: Any) -> None:
    from stages.trainers.llamafactory.arguments import import_tuner

    import_tuner().run_exp(dict(args), [clock])


def by_trl(args: dict[str, Any], clock: Any) -> None:
    from stages.trainers.accelerate.worker import made
    from stages.trainers.worker.log import log_file

    trainer = made(args, [clock, log_file(Path(args["output_dir"]))])
    trainer.train()
    trainer.save_model(args["output_dir"])


def by_axolotl(args: dict[str, Any], clock: Any) -> None:
    from benchmarks.training.axolotl_command import train

    train(args, clock)


_LIBRARIES: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "llamafactory": by_llamafactory,
    "accelerate": by_trl,
    "axolotl": by_axolotl,
}


if __name__ == "__main__":
    result = json.dumps(main(json.loads(Path(sys.argv[1]).read_text())))
    if os.environ.get("RANK", "0") == "0":  # the first of torchrun's processes
        Path(sys.argv[2]).write_text(result)
