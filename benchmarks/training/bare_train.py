"""LLaMA-Factory alone: `run_exp`, which is what `llamafactory-cli train` calls, in this process.

The command itself cannot be used where there is no torchaudio: LLaMA-Factory imports it at the top of a module.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from stages.trainers.llamafactory.arguments import import_tuner


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train with the job's `args`. Returns when the first step ended, the trainer's own figures, and the losses."""
    tuner = import_tuner()
    from transformers import TrainerCallback

    seen: dict[str, float] = {}

    class FirstStep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.setdefault("first_step_at", time.time())

    tuner.run_exp(dict(job["args"]), [FirstStep()])
    output = Path(job["args"]["output_dir"])
    lines = (output / "trainer_log.jsonl").read_text().splitlines()
    losses = [entry["loss"] for line in lines if (entry := json.loads(line)).get("loss") is not None]
    return {**seen, **json.loads((output / "train_results.json").read_text()), "losses": losses}


if __name__ == "__main__":
    result = json.dumps(main(json.loads(Path(sys.argv[1]).read_text())))
    if os.environ.get("RANK", "0") == "0":  # the first of torchrun's processes
        Path(sys.argv[2]).write_text(result)
