"""A number of workers that changes while they train: what each trainer refuses of it."""

from __future__ import annotations

from typing import Any

import pytest

from runner.errors import Problem
from runner.recipe.schema import StageResources
from stages.trainers.rules.elastic import number_of_workers_is_fixed
from tests.runner.recipes import problems
from tests.stages.train.cases import recipe_of

pytestmark = pytest.mark.usefixtures("fake_stages")
KEY = "resources.train.num_workers"
GATHER = "train.args.gradient_accumulation_steps"


def found(low: int, high: int, **args: Any) -> dict[str, Problem]:
    changes = {f"train.args.{name}": value for name, value in args.items()}
    return problems({"pipeline": ["ingest", "train"], KEY: {"min": low, "max": high}, **changes})


@pytest.mark.parametrize("trainer", ["llamafactory", "accelerate"])
def test_a_step_is_shared_evenly_by_any_number_of_workers(trainer: str) -> None:
    changes = {"pipeline": ["ingest", "train"], KEY: {"min": 2, "max": 4}, "train.trainer": trainer}
    uneven = problems(changes)[KEY]
    assert "cannot be shared evenly by 3 workers" in uneven.message
    assert "a multiple of 3" in uneven.hint
    assert KEY not in problems({**changes, GATHER: 3})


def test_two_workers_share_what_one_learns_alone() -> None:
    assert found(1, 2) == {}


def test_a_model_that_is_spread_over_the_workers_needs_all_of_them() -> None:
    assert "train.args.fsdp" in found(1, 2, fsdp="full_shard")


def test_a_trainer_that_cannot_continue_with_others_refuses_a_range() -> None:
    rule = number_of_workers_is_fixed("axolotl")
    resources = {"train": StageResources(num_workers={"min": 1, "max": 2})}
    (problem,) = rule(recipe_of().model_copy(update={"resources": resources}))
    assert problem.key == KEY
    assert "train.trainer=axolotl" in problem.message
    assert list(rule(recipe_of())) == []


@pytest.mark.timeout(20)
def test_a_range_that_no_number_of_batches_could_be_shared_by_is_to_be_smaller() -> None:
    uneven = found(1, 10_000)[KEY]
    assert "cannot be shared evenly by 3 workers" in uneven.message
    assert uneven.hint == "Set a smaller range."
