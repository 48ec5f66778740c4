"""Puts the adapter and the training's results into the artifact store, where batch inference and serving take them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from runner.errors import DamagedError, Problem, RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact, digest_files
from runner.storage.atomic import read_state, write_state
from runner.storage.store import Store, open_store
from runner.text import count_text
from stages.models.adapter import CONFIG, WEIGHTS
from stages.models.finite import tensors_not_finite
from stages.models.known import MODEL, conditions
from stages.models.weights import Adapter, WholeModel, weights_of
from stages.sections.recipe import Recipe
from stages.trainers.base import load_trainer

EARLIER = "published_earlier"
"""In an artifact's meta: the same set was in the store before this run, which therefore must not delete it."""
_BEGUN = "begun.json"


@dataclass(frozen=True)
class Publication:
    """A set of local files to publish: `artifact` as it lies here, under `key` in the store, from then on `name`."""

    name: str
    artifact: Artifact
    key: str


class Publish:
    """Publishes `adapter` (weights, config, tokenizer) and `training_results`, each an immutable set.

    A store in a local folder must be at the same path on every node that infers or serves.
    """

    name: ClassVar[str] = "publish"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("name", "serve.model_id", "storage.artifacts", "storage.endpoint_url")
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ("adapter", "training_results")
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("trained_weights", "training_log")

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """The store by its absolute place; the endpoint only of an object store."""
        store = recipe.storage.artifacts
        if "://" in store:
            return {"storage.artifacts": store.rstrip("/")}
        return {"storage.artifacts": str(Path(store).expanduser().absolute()), "storage.endpoint_url": None}

    def rules(self) -> Sequence[Rule]:
        return (adapters_are_published,)

    def destinations(self, recipe: Recipe) -> Mapping[str, Callable[[], object]]:
        storage = recipe.storage
        store = partial(open_store, storage.artifacts, endpoint_url=storage.endpoint_url, patient=False)
        return {"storage.artifacts": lambda: store().check_writable()}

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        from stages.publish.estimate import estimate

        return estimate(known)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*MODEL, "train.lora_rank"))

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Upload on a node of the cluster. Raises RunnerError when the store refuses, or there is no adapter."""
        storage = ctx.recipe.storage
        plan = publish_plan(ctx.recipe, ctx.input("trained_weights"), ctx.input("training_log"))
        store = open_store(storage.artifacts, endpoint_url=storage.endpoint_url)
        own = own_keys(store, plan, ctx.stage_dir / _BEGUN)
        published = ctx.ray.call(upload, ctx.resources, store.uri, storage.endpoint_url, plan, ctx.progress())
        published = [
            artifact.model_copy(update={"meta": {**item.artifact.meta, **({} if item.key in own else {EARLIER: True})}})
            for artifact, item in zip(published, plan, strict=True)  # a set that was there may be of another version
        ]
        adapter = Adapter.of(published[0])
        left_out = len(ctx.input("trained_weights").files) - len(published[0].files)
        metrics = {
            "adapter_id": adapter.id,
            "num_files": sum(len(artifact.files) for artifact in published),
            "size_bytes": sum(artifact.size_bytes for artifact in published),
            "num_left_out": left_out,
        }
        kept_back = f" ({count_text(left_out, 'file')} of the training left out)" if left_out else ""
        return StageResult(published, metrics, f"{adapter.id} -> {adapter.uri}{kept_back}")


def adapters_are_published(recipe: Recipe) -> Iterator[Problem]:
    """Where an engine is to load what is trained, its rule says so."""
    if not {"train", "publish"} <= set(recipe.pipeline) or {"infer", "serve"} & set(recipe.pipeline):
        return
    trained = load_trainer(recipe).trained(recipe)
    if trained.kind == "model":
        hint = "Set it to lora, or end the pipeline with train."
        yield Problem(trained.key, trained.value, "makes no LoRA adapter, which publish takes", hint)


def adapters_key(recipe: Recipe) -> str:
    """The folder in the store that the recipe's adapters are published in, and served from."""
    return f"adapters/{recipe.serve.model_id}"


def adapter_id(recipe: Recipe, sha256: str) -> str:
    """Name of an adapter in the store and at the endpoint: the recipe's name and the start of the adapter's digest."""
    name = re.sub(r"[^a-z0-9-]", "-", recipe.name.lower()).strip("-") or "adapter"
    return f"{name}-{sha256[:8]}"


def publish_plan(recipe: Recipe, trained: Artifact, training_log: Artifact) -> list[Publication]:
    """What goes where: the adapter first, then the results of its training.

    Of what was trained only weights in safetensors, JSON and vocabularies go: no optimizer state, no pickle. The key of
    the results ends in their own digest, because a training that is repeated makes the same adapter at another speed.
    Raises RunnerError when what was trained is not an adapter.
    """
    weights = weights_of(trained)
    is_model_file = load_trainer(recipe).is_model_file
    kept = [entry for entry in trained.files if is_model_file(Path(entry.path), code=False)]
    missing = {WEIGHTS, CONFIG} - {entry.path for entry in kept}
    if missing or isinstance(weights, WholeModel):
        raise RunnerError(
            f"{trained.uri} is not an adapter: it lacks {' and '.join(sorted(missing)) or CONFIG}",
            "publish, infer and serve take LoRA adapters; after train.args.finetuning_type=full or freeze leave them "
            "out of `pipeline`.",
        )
    sha256 = digest_files(kept)
    published = replace(weights, id=adapter_id(recipe, sha256), sha256=sha256)
    adapter = Artifact(name="adapter", uri=trained.uri, sha256=sha256, files=kept, meta=published.meta())
    results_key = f"training/{published.id}/{training_log.sha256[:8]}"
    return [
        Publication("adapter", adapter, f"{adapters_key(recipe)}/{published.id}"),
        Publication("training_results", training_log, results_key),
    ]


def own_keys(store: Store, plan: list[Publication], begun: Path) -> set[str]:
    """Keys of the plan that are this run's to publish, and later to delete: no set was there before its first attempt.

    begun: file of the stage's folder that remembers them for an attempt after a crash.
    """
    known = set(read_state(begun)["keys"]) if begun.is_file() else set()
    keys = known | {item.key for item in plan if not _was_there(store, item.key)}
    write_state(begun, {"keys": sorted(keys)})
    return keys


def check_finite(artifact: Artifact) -> None:
    """Raise RunnerError when a weight of the artifact is NaN or infinite: such a model answers nothing."""
    for entry in artifact.files:
        if entry.path.endswith(".safetensors") and (names := tensors_not_finite(artifact.path / entry.path)):
            raise RunnerError(
                f"{artifact.path / entry.path} holds NaN or infinity in {count_text(len(names), 'tensor')}, "
                f"the first {names[0]}",
                "It is not published. Lower train.learning_rate, or train with bf16 instead of fp16; see the losses in "
                "the log of train.",
            )


def _was_there(store: Store, key: str) -> bool:
    """Whether a set was published under the key; one whose manifest is damaged was, and is repaired."""
    try:
        return store.exists(key) is not None
    except DamagedError:
        return True


def upload(uri: str, endpoint_url: str | None, plan: list[Publication], progress: Any) -> list[Artifact]:
    """Publish each set in turn to the store at the URI. Returns them as stored, in order."""
    store = open_store(uri, endpoint_url=endpoint_url)
    total = sum(item.artifact.size_bytes for item in plan)
    published, before = [], 0

    def tell(done: int, of_this_set: int) -> None:
        progress.update(before + done, total, "bytes")

    for item in plan:
        check_finite(item.artifact)
    for item in plan:
        published.append(store.publish(item.artifact, item.key, item.name, tell))
        before += item.artifact.size_bytes
    return published
