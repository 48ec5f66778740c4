"""Every argument of the libraries has been reviewed, and what a review says is about arguments that there are."""

from __future__ import annotations

from typing import Any

import pytest

from runner.recipe.arguments import RAY, Library
from runner.recipe.arguments.marks import harmful, reviewed
from stages.engines.vllm.mappings import VLLM
from stages.trainers.accelerate.mappings import TRL
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.llamafactory.mappings import LLAMAFACTORY

TABLES = [
    *((VLLM, name) for name in ("engine", "frontend", "sampling", "structured_outputs", "structured_outputs_config")),
    (LLAMAFACTORY, "arguments"),
    (TRL, "arguments"),
    (AXOLOTL, "arguments"),
    *((RAY, name) for name in ("autoscaling", "deployment", "runtime_env")),
]
LIBRARIES = [VLLM, LLAMAFACTORY, TRL, AXOLOTL, RAY]


def names(library: Library, table: str) -> list[str]:
    """Names of the review, one for each place that it stands in; a reason may stand next to a list of values."""
    marks: dict[str, Any] = dict(reviewed(library)[table])
    reasons = set(marks.pop("asks", {})) - set(marks.get("values", {}))
    return [*(name for part in marks.values() for name in part), *reasons]


@pytest.mark.parametrize(("library", "table"), TABLES, ids=lambda each: getattr(each, "name", each))
def test_each_argument_is_reviewed_once(library: Library, table: str) -> None:
    assert sorted(names(library, table)) == sorted(library.table(table))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_every_nested_review_is_there(library: Library) -> None:
    for marks in reviewed(library).values():
        assert set(marks.get("nested", {}).values()) <= set(reviewed(library))


def test_an_argument_of_a_newer_library_is_refused_until_it_is_reviewed() -> None:
    (found,) = harmful(VLLM, ("engine",), {"brand_new_argument": 1})
    assert found.key == "brand_new_argument"
    assert "not been reviewed" in found.why


@pytest.mark.parametrize("value", [{"x": 1}, [{"x": 1}], [["a"], {"b": "c"}]])
def test_a_mapping_is_not_hidden_where_single_values_were_reviewed(value: Any) -> None:
    assert [each.key for each in harmful(VLLM, ("engine",), {"kv_cache_dtype_skip_layers": value})]


def test_what_switches_off_something_harmful_is_harmless() -> None:
    given = {"enable_prompt_embeds": False, "logits_processors": None, "worker_extension_cls": ""}
    assert list(harmful(VLLM, ("engine",), given)) == []


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_no_path_module_or_host_is_reviewed_as_harmless_by_its_name(library: Library) -> None:
    suspect = ("_path", "_dir", "_file", "_cls", "_plugin", "_token", "_secret", "_address", "_addr", "_url", "_hook")
    for section, marks in reviewed(library).items():
        assert [name for name in marks["harmless"] if name.lower().endswith(suspect)] == [], section
