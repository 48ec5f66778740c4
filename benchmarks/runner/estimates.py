"""Estimates of time before a first run, next to what other sections of RESULTS.md have measured.

    python -m benchmarks.estimates

Nothing runs: models, batches and rows are those of the sections, and the estimate is what `plan` would say of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.common import measure
from runner.cluster.accelerators import GPUS, Accelerator, cpu_cores
from stages.models.speed import generation, training
from stages.sections.model import Architecture

_MODELS = Path(__file__).parents[2] / "recipes" / "model"
_H100, _H200, _CPU = GPUS["H100"], GPUS["H200"], cpu_cores(2, lanes=16)  # of those measured, which have AVX-512
_LORA, _KEPT = training.Method(), training.Method(checkpointed=False)


@dataclass(frozen=True)
class Case:
    """section: of RESULTS.md. measured, estimated: units a second."""

    what: str
    section: str
    measured: float
    estimated: float

    @property
    def factor(self) -> float:
        """By which the estimate is wrong, 1 or more."""
        return max(self.measured / self.estimated, self.estimated / self.measured)


def cases() -> list[Case]:
    """Settled cases: figures that were repeated, or that two sections agree on."""
    big, small = _model("qwen2_5_7b_instruct"), _model("smollm2_135m")
    trained = _training
    return [
        Case("train 7B, H100, rows/s", "train-7b-gpu", 17.20, trained(big, _H100, 8, 259, _LORA)),
        Case("train 7B, two H200, rows/s", "train-7b-two-gpu", 28.79, 2 * trained(big, _H200, 8, 259, _LORA)),
        Case("train 135M, H100, rows/s", "whole-small-gpu", 92.1, trained(small, _H100, 32, 100, _KEPT)),
        Case("train 135M, H200, batch 1, rows/s", "settings-gpu", 3.2, trained(small, _H200, 1, 66, _LORA)),
        Case("train 135M, H200, batch 8, rows/s", "settings-gpu", 26.2, trained(small, _H200, 8, 66, _KEPT)),
        Case("train 135M, two CPU cores, rows/s", "train", 3.39, trained(small, _CPU, 8, 66, _KEPT)),
        Case("batch 7B, H100, rows/s", "batch-7b-gpu", 104.2, _answering(big, _H100, 1000, (214, 160), 128, 256)),
        Case("serve 7B, H200, 1 client, tokens/s", "serve-7b-gpu", 154, _tokens(big, _H200, 1)),
        Case("serve 7B, H200, 8 clients, tokens/s", "serve-7b-gpu", 1195, _tokens(big, _H200, 8)),
        Case("serve 7B, H200, 32 clients, tokens/s", "serve-7b-gpu", 4054, _tokens(big, _H200, 32)),
        Case(
            "batch 135M, two CPU cores, rows/s", "batch-adapter", 9.81,
            _answering(small, _CPU, 1000, (49, 0), 23, 256),
        ),
    ]  # fmt: skip


def _model(name: str) -> Architecture:
    values = yaml.safe_load((_MODELS / f"{name}.yaml").read_text(encoding="utf-8"))
    return Architecture.model_validate(values["architecture"])


def _training(model: Architecture, on: Accelerator, rows: int, tokens: float, method: training.Method) -> float:
    return rows / training.batch_seconds(model, on, rows, tokens, method)


def _answering(
    model: Architecture, on: Accelerator, rows: int, prompt: tuple[float, float], answer: float, at_once: int
) -> float:
    asked = generation.Requests(rows, prompt[0], answer, prompt[1])
    return rows / generation.seconds(model, on, asked, at_once)


def _tokens(model: Architecture, on: Accelerator, clients: int) -> float:
    return 128 * _answering(model, on, clients, (214, 160), 128, clients)


def report(found: list[Case]) -> str:
    """The section's text."""
    cell: Callable[[float], str] = "{:,.4g}".format
    rows = [
        {
            "what": each.what, "section": each.section, "measured": cell(each.measured),
            "estimated": cell(each.estimated), "factor": f"{each.factor:.2f}",
        }
        for each in found
    ]  # fmt: skip
    return "\n\n".join(
        [
            "## Estimates before a first run",
            f"`{measure.command('estimates')}`",
            measure.table(rows),
            "What `plan` says of a time that has not been measured (`stages/models/speed`), next to the figures of\n"
            "other sections. A 7B row has 259 tokens in training, or 214 of a prompt, of which all share 160 in the\n"
            "engine's blocks. The constants were fitted to these cases, so the range that `plan` gives is wider than\n"
            "their differences: half to twice the time, as other accelerators, models and rows were not measured.",
        ]
    )


if __name__ == "__main__":
    measure.write_section("estimates", report(cases()), gpu=False)
