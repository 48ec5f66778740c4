"""Whatever a person writes, a recipe validates or gives Problems: never an exception."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from runner.cli.main import main
from runner.errors import Problem, RecipeError
from runner.pipeline.registry import mappings
from runner.pipeline.rules.check import check, load_recipe
from runner.recipe.load import Composed, compose, flatten
from runner.recipe.schema import RunOptions, StageResources
from runner.recipe.show import as_yaml
from runner.recipe.valid_parts import partial_recipe
from stages.sections.recipe import Recipe
from tests.runner.recipes import QUICKSTART, QWEN, changed

pytestmark = pytest.mark.usefixtures("fake_stages")
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, f"{prefix}{name}.")


KEYS = sorted(
    {
        *_fields(Recipe),
        *RunOptions.model_fields,
        *_fields(StageResources, "resources.train."),
        *(f"{mapped.key}.{name}" for mapped in mappings() for name in mapped.entries()),
        *(f"cluster.resources.{name}" for name in ("fast_disk", "CPU")),
        *(f"evaluate.require.{name}" for name in ("exact_match", "delta_vs_base", "base.exact_match", "nonsense")),
    }
)
TRAINERS = ("llamafactory", "accelerate", "axolotl")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["auto", "{input}", "{", "s3://", "generated://viggo?train=x", ">=1", "ingest", "qwen", "0", "no"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def outcome(make: Callable[[], Composed]) -> Recipe | None:
    """The recipe, or None after making sure that every problem can be shown."""
    problems: list[Problem] = []
    try:
        return load_recipe(make())[0]
    except RecipeError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.message
        json.dumps(problem.as_dict(), default=str)
    return None


@given(
    key=st.sampled_from(KEYS),
    value=VALUES,
    recipe=st.sampled_from([QUICKSTART, QWEN]),
    trainer=st.sampled_from(TRAINERS),
)
@example(key="allow", value=True, recipe=QUICKSTART, trainer="llamafactory")
@example(key="train.args.report_to", value={}, recipe=QUICKSTART, trainer="llamafactory")
@example(key="train.args.debug", value=True, recipe=QUICKSTART, trainer="llamafactory")
@example(key="train.args.flash_attn", value=[1], recipe=QUICKSTART, trainer="accelerate")
@example(key="train.args.flash_attn", value={"a": 1}, recipe=QUICKSTART, trainer="axolotl")
@settings(RELAXED, max_examples=250)
def test_any_value_of_a_known_key_validates_or_gives_problems(key: str, value: Any, recipe: str, trainer: str) -> None:
    outcome(lambda: changed({"train.trainer": trainer, key: value}, recipe))


@given(changes=st.dictionaries(st.sampled_from([key for key in KEYS if key.count(".") != 0]), VALUES, max_size=6))
@settings(RELAXED, max_examples=150)
def test_any_values_of_several_keys_validate_or_give_problems(changes: dict[str, Any]) -> None:
    composed = deepcopy(changed({}))
    for key, value in changes.items():
        *parents, name = key.split(".")
        section: Any = composed.values
        for parent in parents:
            section = section.setdefault(parent, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[name] = value
    outcome(lambda: composed)


@given(key=st.sampled_from(KEYS), text=st.text(max_size=15))
@settings(RELAXED, max_examples=10)
def test_any_override_of_a_known_key_validates_or_gives_problems(key: str, text: str) -> None:
    outcome(lambda: compose([f"recipe={QUICKSTART}", f"{key}={text}"]))


@given(text=st.text(max_size=40))
@settings(RELAXED, max_examples=10)
def test_any_recipe_file_validates_or_gives_problems(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir(exist_ok=True)
    (tmp_path / "recipe" / "mine.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
    outcome(lambda: compose(["recipe=mine"], tmp_path))


@cache
def _leaves() -> list[str]:
    return [key for key, _ in flatten(changed({}).values) if key not in RunOptions.model_fields]


@given(wrong=st.sets(st.sampled_from(_leaves()), max_size=8))
@settings(RELAXED, max_examples=150)
def test_rules_take_a_recipe_with_any_values_missing(wrong: set[str]) -> None:
    """What cannot be read makes no rule fail, nor any rule report something about it."""
    values = {key: value for key, value in changed({}).values.items() if key not in RunOptions.model_fields}
    assert check(partial_recipe(values, wrong)) == []


VALID = {
    "train.lora_rank": st.sampled_from([1, 4, 8]),
    "train.learning_rate": st.floats(1e-6, 1.0),
    "train.num_epochs": st.integers(1, 9),
    "train.args.weight_decay": st.floats(0, 1),
    "train.args.run_name": st.text(alphabet="abc-:#'\" {}\n$\\~!%&*\x85\u2028é", max_size=12),
    "infer.sampling.temperature": st.just(0.0) | st.floats(0.01, 2),
    "infer.sampling.stop": st.lists(
        st.text(alphabet="ab\n: -", min_size=1, max_size=5) | st.sampled_from(["1e5", "no", "0x1", "~", "${a}"]),
        max_size=2,
    ),
    "dataset.max_rows.train": st.integers(1, 10**9),
    "serve.keep_alive": st.booleans(),
    "query.timeout_s": st.floats(0.1, 1e6),
    "seed": st.integers(0, 2**32 - 1),
}


@given(changes=st.fixed_dictionaries({}, optional=VALID), recipe=st.sampled_from([QUICKSTART, QWEN]))
@settings(RELAXED, max_examples=8)
def test_a_shown_recipe_resolves_to_itself(changes: dict[str, Any], recipe: str, tmp_path: Path) -> None:
    composed = changed(changes, recipe)
    resolved = outcome(lambda: composed)
    assert resolved is not None
    (tmp_path / "recipe").mkdir(exist_ok=True)
    (tmp_path / "recipe" / "shown.yaml").write_text(as_yaml(resolved, composed), encoding="utf-8")
    assert (
        outcome(lambda: compose(["recipe=shown", f"storage.artifacts={resolved.storage.artifacts}"], tmp_path))
        == resolved
    )


@pytest.mark.parametrize("arguments", [["action=validate", "recipe=nothing"], ["action=plan", "pipeline=[x]"]])
def test_the_command_line_says_so_instead_of_raising(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
