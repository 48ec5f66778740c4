"""What a plan's stages will take: bytes, memory, steps and time, each with the basis it stands on.

Nothing is guessed. A figure follows from the recipe, from the model's config.json or published architecture, or from an
earlier run under the same conditions; otherwise it is unknown, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.fingerprint import fingerprint_inputs
from runner.pipeline.manifest import StageRecord
from runner.pipeline.plan import PastRuns, Plan
from runner.recipe.schema import Recipe
from runner.recipe.secrets import redact
from stages.engines.vllm.estimate import infer, serve
from stages.ingest.stage import Ingest
from stages.models.facts import ModelFacts, RowFacts, model_facts, row_facts
from stages.models.obtain import is_local
from stages.trainers.llamafactory.estimate import publish, train

__all__ = ["Estimate", "estimate"]


def estimate(recipe: Recipe, plan: Plan, past: PastRuns) -> dict[str, list[Estimate]]:
    """Estimates by stage, for the stages that run. Reads small files of this machine; no network."""
    steps = {step.name: step for step in plan.steps}
    known = Known(recipe, past, steps, *_facts(recipe, past))
    makers: dict[str, Callable[[Known], Iterator[Estimate]]] = {
        "ingest": ingest,
        "train": train,
        "publish": publish,
        "infer": infer,
        "serve": serve,
    }
    return {
        name: list(makers[name](known)) if name in makers else [known.plain_time(name)]
        for name, step in steps.items()
        if step.action == "run" and name != "cleanup"
    }


def _facts(recipe: Recipe, past: PastRuns) -> tuple[ModelFacts, RowFacts]:
    """Facts from the newest ingest of the same model, and from the newest of the same rows."""
    now = redact(fingerprint_inputs(Ingest(), recipe, {}))["recipe"]

    def newest(section: str) -> StageRecord | None:
        for _, record in past.finished("ingest"):
            then = record.inputs.get("recipe", {})
            if all(then.get(key) == now[key] for key in now if key.startswith(section)):
                return record
        return None

    return model_facts(recipe, newest("model.")), row_facts(recipe, newest("dataset."))


def ingest(known: Known) -> Iterator[Estimate]:
    model, source = known.model, known.recipe.model.source
    if model.folder is not None:
        yield Estimate("download model", 0, "bytes", f"it lies in {model.folder}")
    elif source.startswith("package://"):
        yield Estimate("download model", 0, "bytes", f"converted from the installed package: {source}")
    elif is_local(source):
        yield known.unknown("download model", "bytes", f"{source} is a local folder that cannot be used")
    elif model.weights_bytes is None:
        yield known.unknown("download model", "bytes")
    else:
        basis = f"{model.num_params:,} parameters, {model.basis}; without the tokenizer"
        yield Estimate("download model", model.weights_bytes, "bytes", basis)
    data = known.recipe.dataset.source
    if data.startswith("generated://") or "://" not in data:
        where = "the rows are generated" if "://" in data else f"{data} is a local folder"
        yield Estimate("download data", 0, "bytes", where)
    else:
        yield known.unknown("download data", "bytes", f"{data}: the size is known once it has been read")
    yield known.plain_time("ingest")
