"""The variants that fit this machine, and how its model is trained."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from runner.recipe.load import RECIPES_DIR
from stages.engines.base import Engine, engine_named
from stages.sections.infer import Infer

_LARGE_GIB = 22  # of a GPU that a model of 7B parameters is trained on; of 24 GB a driver shows 22.5 GiB
_SMALL, _LARGE = "smollm2_135m", "qwen2_5_7b_instruct"
_SECOND_LOOK = {"dpo": 0.05, "kto": 0.05, "pt": 0.2}
"""Learning rates of other methods, as parts of that of sft."""


@dataclass(frozen=True)
class Target:
    """model, cluster: variants. why: what was found. most_tokens: of a training row."""

    model: str
    cluster: str
    why: str

    @property
    def source(self) -> str:
        """`model.source` of the variant; "" for one that is not shipped, whose problem the check tells."""
        import yaml

        file = RECIPES_DIR / "model" / f"{self.model}.yaml"
        return str(yaml.safe_load(file.read_text(encoding="utf-8"))["source"]) if file.is_file() else ""

    @property
    def on_gpu(self) -> bool:
        return self.cluster != "local_cpu"

    @property
    def most_tokens(self) -> int:
        """The longest training row that is proposed, in tokens."""
        return 4096 if self.on_gpu else 2048

    def learning_rate(self, stage: str) -> float:
        """The peak learning rate: a small model learns with a large one."""
        return (2e-3 if self.model == _SMALL else 1e-4) * _SECOND_LOOK.get(stage, 1.0)

    def num_epochs(self, num_rows: int) -> int:
        """Passes over the rows: few rows are seen several times."""
        return max(1, min(8, -(-400 // max(1, num_rows))))


def target(model: str | None = None, cluster: str | None = None) -> Target:
    """The variants for this machine; those that the user names win."""
    memory = gpu_memory_gib()
    fitting = _LARGE if memory >= _LARGE_GIB else _SMALL
    why = f"this machine has a GPU of {memory:.0f} GiB" if memory else "this machine has no GPU"
    return Target(model or fitting, cluster or ("local_gpu" if memory else "local_cpu"), why)


def usual_engine() -> Engine:
    """The engine of a recipe that names none, as those of `init`."""
    return engine_named(Infer().backend)


def gpu_memory_gib() -> float:
    """Memory of this machine's first GPU as its driver tells it; 0 without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0.0
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
        return float(done.stdout.split()[0]) / 1024
    return 0.0
