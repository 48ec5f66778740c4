"""How many jobs of a sweep run at a time, and on which cores and GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from runner.errors import RecipeError
from runner.recipe.load import compose, to_recipe
from runner.sweep.capacity import Machine, Share, shares
from stages.sections.recipe import Recipe

STAGES = ["ingest", "train", "publish", "infer", "evaluate"]
TWO_CPUS = {"resources.train.cpus_per_worker": 2}


def recipe_of(**changes: Any) -> Recipe:
    return to_recipe(compose(["recipe=viggo_quickstart", *(f"{key}={value}" for key, value in changes.items())]))[0]


def parts(recipe: Recipe, num_jobs: int, machine: Machine, wanted: int | None = None, **options: Any) -> list[Share]:
    stages, nodes = options.get("stages", STAGES), options.get("nodes", [])
    return shares([recipe] * num_jobs, stages, wanted, machine, nodes)[0]


def machine(num_cores: int, *gpus: str) -> Machine:
    return Machine(tuple(range(num_cores)), gpus)


def test_one_job_at_a_time_where_it_takes_the_whole_machine(quickstart: Recipe) -> None:
    found, why = shares([quickstart] * 4, STAGES, None, machine(2), [])
    assert found == [Share()]
    assert why == "the machine has capacity for one job at a time"


def test_cores_are_divided_among_the_jobs_that_fit(quickstart: Recipe) -> None:
    assert parts(quickstart, 4, machine(6)) == [Share((0, 1)), Share((2, 3)), Share((4, 5))]
    assert parts(quickstart, 2, machine(6)) == [Share((0, 1, 2)), Share((3, 4, 5))]


def test_each_job_has_gpus_of_its_own() -> None:
    recipe = recipe_of(cluster="local_gpu")
    assert parts(recipe, 3, machine(16, "0", "GPU-b")) == [
        Share(tuple(range(8)), ("0",)), Share(tuple(range(8, 16)), ("GPU-b",)),
    ]  # fmt: skip
    assert parts(recipe, 3, machine(16, "0")) == [Share()]


def test_the_size_of_a_jobs_own_cluster_counts() -> None:
    assert len(parts(recipe_of(**{"cluster.num_cpus": 4}), 8, machine(8))) == 2


def test_more_than_fit_share_cores_and_have_as_many_as_they_need(quickstart: Recipe) -> None:
    assert parts(quickstart, 4, machine(2), wanted=2) == [Share((0, 1)), Share((0, 1))]
    assert parts(quickstart, 4, machine(3), wanted=2) == [Share((0, 1)), Share((0, 2))]
    assert parts(quickstart, 1, machine(8), wanted=2) == [Share()]


def test_on_a_cluster_the_largest_stage_says_how_many_fit() -> None:
    recipe = recipe_of(**{"cluster.address": "10.0.0.1:6379", "resources.train.num_workers": 2})
    nodes = [{"CPU": 8.0}, {"CPU": 8.0}]
    assert parts(recipe, 9, machine(2), nodes=nodes) == [Share()] * 4
    assert parts(recipe, 9, machine(2), wanted=2, nodes=nodes) == [Share()] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "serve.port=8000"), ({"serve.port": 0, "cluster.address": "10.0.0.1:6379"}, "one endpoint at a time")],
)
def test_jobs_whose_endpoints_would_meet_run_one_after_another(changes: dict[str, Any], words: str) -> None:
    recipes, stages = [recipe_of(**changes)] * 2, [*STAGES, "serve"]
    found, why = shares(recipes, stages, None, machine(8), [{"CPU": 8.0}])
    assert found == [Share()]
    assert words in why
    with pytest.raises(RecipeError) as refused:
        shares(recipes, stages, 2, machine(8), [])
    assert words in refused.value.problems[0].message


def test_endpoints_at_free_ports_of_clusters_of_their_own_do_not_meet() -> None:
    assert len(parts(recipe_of(**{"serve.port": 0}), 2, machine(4), stages=[*STAGES, "serve"])) == 2
