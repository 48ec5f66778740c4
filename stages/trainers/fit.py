"""Whether training fits into the memory of what it computes on, and which changes would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from runner.cluster.accelerators import Accelerator, larger_gpus, named_accelerator
from runner.errors import Problem
from runner.pipeline.estimates.figure import Parts
from runner.pipeline.optional import Rule
from runner.recipe.arguments import Library, all_accepted
from runner.text import size_text
from stages.models.facts import figures
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe
from stages.trainers.memory import Setup, train_memory

TOO_MUCH = 1.2  # times the memory that there is: then no setting of batches helps
_VARYING = ("activations", "logits")  # with the batch
_QUARTER = 0.3  # of weights in 16 bits: those in 4 bits with their scales
_SHORTEST = 256  # tokens


def ways(recipe: Recipe, setup: Setup, model: Architecture, num_params: int, on: Accelerator) -> list[str]:
    """Changes of which each alone keeps the upper bound within the memory; else all settings together."""
    found: dict[str, str] = {}  # of each kind the first, which changes least
    for kind, text, changed in _changes(setup):
        if kind not in found and _fits(recipe, changed, model, num_params, on):
            found[kind] = text
    parts = train_memory(recipe, setup, model, num_params)
    assert not isinstance(parts, str)
    if _can_quantize(recipe, setup) and sum(_quantized(parts).values()) <= on.usable:
        found["bits"] = setup.names["bits"]
    text, least = _least(recipe, setup)
    if not found and text and _fits(recipe, least, model, num_params, on):
        found["all"] = text
    larger = next(larger_gpus(sum(parts.values()), on), "")
    if larger and recipe.cluster.accelerator == "gpu":
        found["type"] = f"a GPU of the type {larger}"
    return list(found.values())


def training_fits(library: Library, setup_of: Callable[[Recipe], Setup]) -> Rule:
    """The rule that a recipe's training fits, as far as its arguments are the library's."""

    def rule(recipe: Recipe) -> Iterator[Problem]:
        if all_accepted(library.table("arguments"), recipe.train.args):
            yield from refused(recipe, setup_of(recipe))

    return rule


def refused(recipe: Recipe, setup: Setup) -> Iterator[Problem]:
    """What the named accelerator cannot hold by a factor, whatever the rows are: all but what depends on the batch."""
    if "train" not in recipe.pipeline:
        return
    on = named_accelerator(recipe, "train")
    model = figures(recipe) if on is not None else None
    if on is None or model is None:
        return
    parts = train_memory(recipe, setup, *model)
    certain = 0 if isinstance(parts, str) else sum(size for name, size in parts.items() if name not in _VARYING)
    if certain > TOO_MUCH * on.memory:
        message = f"takes {size_text(certain)} to train without a single row, and {on.place} has {size_text(on.memory)}"
        yield Problem("model.source", recipe.model.source, message, _hint(recipe, setup, parts, on))


def _hint(recipe: Recipe, setup: Setup, parts: Parts | str, on: Accelerator) -> str:
    assert not isinstance(parts, str)
    found = []
    if setup.kind == "full" and "kind" in setup.names:
        found.append(setup.names["kind"])
    elif _can_quantize(recipe, setup) and sum(_quantized(parts).values()) <= on.usable:
        found.append(setup.names["bits"])
    if recipe.cluster.accelerator == "gpu":
        found += [f"a GPU of the type {name}" for name in larger_gpus(sum(parts.values()), on)][:1]
    return f"Take {', or '.join([*found, 'a smaller model'])}."


def _changes(setup: Setup) -> Iterator[tuple[str, str, Setup]]:
    """(kind, text, the setup changed so), of each kind the smallest change first; what the trainer has no name for is
    left out."""
    names, batch, length = setup.names, setup.batch // 2, setup.length // 2
    while batch >= 1 and {"batch", "gather"} <= set(names):
        gather = setup.gather * setup.batch // batch
        text = f"{names['batch']}={batch} with {names['gather']}={gather}"
        yield "batch", text, replace(setup, batch=batch, gather=gather)
        batch //= 2
    if not setup.checkpointed and "checkpointed" in names:
        yield "checkpointed", names["checkpointed"], replace(setup, checkpointed=True)
    if setup.kind == "full" and "kind" in names:
        yield "kind", names["kind"], replace(setup, kind="lora")
    while length >= _SHORTEST and "length" in names:
        text = f"{names['length']}={length}, if the rows are no longer"
        yield "length", text, replace(setup, length=length)
        length //= 2


def _least(recipe: Recipe, setup: Setup) -> tuple[str, Setup]:
    """All settings that save memory together, and their text; "" where the trainer has no names for them."""
    gather, fused = setup.gather * setup.batch, recipe.cluster.accelerator == "gpu"
    least = replace(setup, batch=1, gather=gather, checkpointed=True, fused_loss=setup.fused_loss or fused)
    values = {"batch": "=1", "gather": f"={gather}", "checkpointed": "", **({"fused_loss": ""} if fused else {})}
    named = [f"{setup.names[name]}{value}" for name, value in values.items() if name in setup.names]
    return " with ".join(named) if len(named) == len(values) else "", least


def _fits(recipe: Recipe, setup: Setup, model: Architecture, num_params: int, on: Accelerator) -> bool:
    parts = train_memory(recipe, setup, model, num_params)
    return not isinstance(parts, str) and sum(parts.values()) <= on.usable


def _can_quantize(recipe: Recipe, setup: Setup) -> bool:
    return recipe.cluster.accelerator == "gpu" and setup.kind == "lora" and "bits" in setup.names


def _quantized(parts: Parts) -> Parts:
    return {**parts, "weights": int(parts["weights"] * _QUARTER)}
