"""A model that is spread over two workers, by FSDP2 or DeepSpeed: trained, saved, resumed and published as from one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from numpy import isfinite
from safetensors.numpy import load_file

from runner.cluster.session import RaySession
from runner.storage.artifact import Artifact
from stages.sections.recipe import Recipe
from tests.e2e.conftest import run_recipe
from tests.stages.train import cases
from tests.stages.train.cases import Watch, check_a_killed_worker_resumes, inputs, ray_session, train, watch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default")]
__all__ = ["inputs", "ray_session", "watch"]  # fixtures

SHARDED: dict[str, dict[str, Any]] = {
    "fsdp2": {"fsdp": "full_shard", "fsdp_config": {"version": 2}},
    "zero2": {"deepspeed": {"zero_optimization": {"stage": 2}}},
    "zero3": {"deepspeed": {"zero_optimization": {"stage": 3}}},
}
IN_CHECKPOINTS = {"fsdp2": "__1_0.distcp", "zero2": "zero_pp_rank_1_*", "zero3": "zero_pp_rank_1_*"}
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}

# The others run with `make chaos`.
CHOSEN = [
    pytest.param(
        name, kind, marks=[] if (name, kind) in {("fsdp2", "full"), ("zero3", "lora")} else [pytest.mark.chaos]
    )
    for name in SHARDED
    for kind in WEIGHTS
]


def recipe_of(num_workers: int = 2, **args: Any) -> Recipe:
    recipe = cases.recipe_of(num_workers, **args)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"trainer": "accelerate"})})


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", SHARDED)
def test_it_learns_what_copies_of_the_model_learn(
    name: str, kind: str, inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    args = {"finetuning_type": kind, "max_steps": 4}
    copies = train(recipe_of(**args), inputs, ray_session, tmp_path / "copies")
    sharded = train(recipe_of(**args, **SHARDED[name]), inputs, ray_session, tmp_path / "sharded")
    first, second = (load_file(each.artifacts[0].path / WEIGHTS[kind]) for each in (copies, sharded))
    assert {key: (value.shape, value.dtype) for key, value in first.items()} == {
        key: (value.shape, value.dtype) for key, value in second.items()
    }
    assert max(float(abs(first[key] - second[key]).max()) for key in first) < 1e-4
    assert {each.path for each in copies.artifacts[0].files} == {each.path for each in sharded.artifacts[0].files}
    assert sharded.metrics["loss_last"] == pytest.approx(copies.metrics["loss_last"], abs=1e-4)


@pytest.mark.parametrize(("name", "kind"), CHOSEN)
def test_killed_workers_resume_and_make_the_same_weights(
    name: str, kind: str, inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, tmp_path: Path
) -> None:
    recipe = recipe_of(finetuning_type=kind, max_steps=60, save_steps=10, **SHARDED[name])
    check_a_killed_worker_resumes(recipe, inputs, ray_session, watch, tmp_path, kill_at=35)
    checkpoints = tmp_path / "whole" / "checkpoints"
    assert list(checkpoints.rglob(IN_CHECKPOINTS[name])), "copies were trained"
    assert not list(checkpoints.glob(f"*/*/{WEIGHTS[kind]}")), "the whole was gathered before the end"


@pytest.mark.parametrize(("name", "kind"), CHOSEN)
def test_a_recipe_for_two_workers_trains_and_publishes(
    name: str, kind: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    done = run_recipe(
        f"model.source={inputs['model'].path}",
        f"pipeline=[ingest,train{',publish' if kind == 'lora' else ''}]",
        "dataset.max_rows.train=16",
        "train.trainer=accelerate",
        "resources.train={num_workers: 2, cpus_per_worker: 1}",
        f"++train.args.finetuning_type={kind}",
        "++train.args.max_steps=3",
        "++train.args.cutoff_len=1024",
        *(f"++train.args.{key}={json.dumps(value)}".replace('"', "") for key, value in SHARDED[name].items()),
        root=tmp_path / "runs",
    )
    assert done.code == 0, done.shown
    left = done.artifact("adapter" if kind == "lora" else "trained_weights")
    weights = load_file(Path(left["uri"]) / WEIGHTS[kind])
    assert weights
    assert all(isfinite(value).all() for value in weights.values())
