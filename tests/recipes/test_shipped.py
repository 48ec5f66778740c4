"""Every shipped recipe, found by glob, is valid against the real schema and the rules across sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.pipeline.registry import load_stage
from runner.recipe.hydra.files import headline
from runner.recipe.load import RECIPES_DIR
from runner.testing import load_recipe, recipe_names

RECIPES = recipe_names(RECIPES_DIR)
VARIANTS = sorted(
    f"{path.parent.name}={path.stem}"
    for path in RECIPES_DIR.glob("*/*.yaml")
    if path.parent.name not in ("recipe", "sweep")
)

NEEDS = {"dataset=pictures": ("model=qwen2_5_vl_7b_instruct",)}
"""Variants that go with another model than the quickstart's."""


@pytest.fixture(autouse=True)
def _artifact_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_URI", "s3://bucket/prefix")


def test_the_known_recipes_are_among_those_found() -> None:
    assert {"viggo_quickstart", "viggo_qwen7b"} <= set(RECIPES)
    assert {"model=smollm2_135m", "cluster=local_cpu", "storage=s3"} <= set(VARIANTS)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert [load_stage(stage).name for stage in recipe.pipeline] == recipe.pipeline


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_group_variant_is_valid_with_the_quickstart(variant: str) -> None:
    load_recipe("viggo_quickstart", variant, *NEEDS.get(variant, ()))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_file_is_global_and_says_what_it_is(name: str) -> None:
    file: Path = RECIPES_DIR / "recipe" / f"{name}.yaml"
    assert file.read_text().splitlines()[0] == "# @package _global_"
    assert len(headline(file)) > 20


def test_qwen_recipe_says_what_the_mission_says() -> None:
    recipe = load_recipe("viggo_qwen7b")
    assert recipe.model.source == "Qwen/Qwen2.5-7B-Instruct"
    assert (recipe.dataset.source, recipe.dataset.anonymous) == ("s3://viggo-ds", True)
    assert (recipe.train.lora_rank, recipe.train.max_samples, recipe.train.num_epochs) == (8, 1000, 5.0)
    train = recipe.resources_of("train")
    assert (train.num_workers, train.gpus_per_worker, train.placement_strategy) == (4, 1, "PACK")
    assert train.accelerator_type
    assert recipe.infer.batch_size == 16
    assert recipe.infer.sampling == {"temperature": 0.0, "max_tokens": 250}
    engine = recipe.infer.engine_kwargs
    assert (engine["max_lora_rank"], engine["max_num_batched_tokens"], engine["max_model_len"]) == (8, 4096, 4096)
    assert engine["enable_prefix_caching"]
    assert engine["enable_chunked_prefill"]
    assert recipe.serve.engine_kwargs == engine
    assert recipe.serve.autoscaling == {"min_replicas": 1, "max_replicas": 2}
    assert recipe.storage.artifacts == "s3://bucket/prefix"
