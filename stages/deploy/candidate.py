"""What a recipe's finished stages have made that can be served, and the Ray Serve config of it for a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.cluster.session import RaySession
from runner.errors import UsageError
from runner.pipeline import plan as planning
from runner.pipeline.context import RunContext
from runner.pipeline.manifest import StageRecord
from runner.pipeline.runs import run_of_id
from runner.recipe.schema import RunOptions
from runner.storage.artifact import Artifact
from stages.data.example import read_examples
from stages.deploy.serve_config import earlier_adapters
from stages.engines.base import load_engine
from stages.models.adapter import adapter_name
from stages.query.stage import request_of
from stages.sections.recipe import Recipe
from stages.serve.config import app_name, serve_config
from stages.serve.other_runs import served_runs
from stages.serve.stage import own_adapter, served_adapters, with_capacity


@dataclass(frozen=True)
class Wanted:
    """What is to be served.

    folder: of the run that published the adapter. adapters: ids, this run's first. models: names to ask. request: what
    to ask, the first test row as batch inference asked it.
    """

    recipe: Recipe
    folder: Path
    model_path: str
    store: str | None
    adapters: list[str]
    models: list[str]
    request: dict[str, Any]


def find_results(recipe: Recipe, root: Path) -> Wanted:
    """The model and the adapter that the recipe's finished stages have made.

    Raises UsageError when one of them has yet to run, GateError when the gate refused the result.
    """
    before = recipe.pipeline[: recipe.pipeline.index("serve")] if "serve" in recipe.pipeline else []
    if not before:
        raise UsageError("the pipeline has no serve stage after others", "Add `serve` to pipeline.")
    plan = planning.build(recipe, RunOptions(only=before), planning.PastRuns(root))
    records: list[StageRecord] = []
    for step in plan.steps:
        if step.record is None and step.action == "run":
            raise UsageError(
                f"there is no result to deploy below {root}: {step.name} has not run as the recipe says ({step.why})",
                "Run it first: `run` with stop_after=evaluate, or `submit` on the cluster.",
            )
        records += [step.record] if step.record else []
    artifacts = {artifact.name: artifact for record in records for artifact in record.artifacts}
    return _wanted(recipe, root, records, artifacts)


def _wanted(recipe: Recipe, root: Path, records: Sequence[StageRecord], artifacts: dict[str, Artifact]) -> Wanted:
    maker = next(
        (record for name in ("publish", "ingest") for record in records if record.name == name and record.origin_run),
        records[-1],
    )
    folder = run_of_id(root, maker.origin_run) if maker.origin_run else root / recipe.name
    ctx = RunContext(
        recipe=recipe, stage="serve", run_id=folder.name, run_dir=folder, stage_dir=folder / "deploy",
        fingerprint="", inputs=artifacts, ray=RaySession(recipe.cluster),
    )  # fmt: skip
    adapter = own_adapter(ctx)
    others = served_runs(ctx, adapter)
    adapters = served_adapters(adapter, others)
    model_id = recipe.serve.model_id
    return Wanted(
        recipe=with_capacity(recipe, others),
        folder=folder,
        model_path=str(ctx.input("model").path),
        store=adapter.store if adapter else None,
        adapters=adapters,
        models=[model_id, *(adapter_name(model_id, each) for each in adapters)],
        request=request_of(recipe, next(read_examples(ctx.input("test_set").path / "test.jsonl"))),
    )


def new_config(wanted: Wanted, details: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    """The recipe's config for this cluster: at the route that it has, adapters of earlier deploys after its own."""
    recipe, name = wanted.recipe, app_name(wanted.recipe)
    taken = {each.get("route_prefix") for other, each in details["applications"].items() if other != name}
    route = str(old["route_prefix"]) if old else f"/{name}" if "/" in taken else "/"
    served = wanted.adapters if wanted.store else None

    def config() -> dict[str, Any]:
        env = load_engine(recipe).server_env(recipe)
        return serve_config(recipe, wanted.model_path, wanted.store, served=served, env=env, route_prefix=route)

    if served is not None:
        new = config()["applications"][0]
        served = [*served, *earlier_adapters(old, new, served, recipe.deploy.keep_adapters)]
    return config()
