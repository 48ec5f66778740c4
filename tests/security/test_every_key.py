"""Hostile values at every key of the schema and every argument of the libraries: refused, or reviewed as harmless.

The keys come from the schema and the generated tables, so that a new one is tried without a line here. One that takes
a hostile value stands in `free_texts.yaml` with what makes it harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from runner.cluster import environments
from runner.pipeline.registry import mappings
from runner.recipe.arguments import Library, accepts
from runner.recipe.arguments.mapped import RUNTIME_ENV, Mapped
from runner.recipe.arguments.marks import harmful, reviewed
from runner.recipe.extension import recipe_class
from runner.recipe.load import Composed, parse, section_of
from runner.testing import changed, composed, problems_of

REVIEWED = yaml.safe_load((Path(__file__).parent / "free_texts.yaml").read_text())
TEXTS = {
    "a file of the system": "/etc/passwd",
    "a key": "~/.ssh/id_rsa",
    "a file above": "../" * 20 + "etc/shadow",
    "a file's address": "file:///etc/passwd",
    "a service of the cloud": "http://169.254.169.254/latest",
    "a command": "$(touch PWNED)",
    "commands": "x; `touch PWNED`",
    "lines": "a\nb: c",
    "a template": "{{ ''.__class__.__mro__ }}{% for x in y %}{% endfor %}",
    "a pickle": "cos\nsystem\n(S'touch PWNED'\ntR.",
    "code": "os:system",
    "a class": "os.system",
    "a format": "{0.__class__}",
    "an escape": "a\x1b[2Jb",
    "a turned text": "a\u202eb",
    "a long text": "x" * 5000,
    "a long number": "9" * 5000,
}
OTHERS = {
    "a huge number": 10**4000,
    "a large number": 1e308,
    "a negative number": -(2**60),
    "no number": float("nan"),
    "half of a character": "\ud800",
    "a NUL": "a\0b",
    "files": ["/etc/passwd"],
    "a mapping": {"x": "os:system"},
}
# What stands around a key so that only the hostile value is wrong.
AROUND: dict[str, dict[str, Any]] = {
    "dataset.split": {"val": 4},
    "resources.train.num_workers": {"min": 1, "max": 1},
    "serve.api_keys": {},
}
MAPPINGS = (*mappings(), RUNTIME_ENV)
TABLES = sorted({(each.library, table) for each in MAPPINGS for table in each.tables}, key=str)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema; of sections by name those of `train`."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if section := section_of(field.annotation):
            inner = "train." if "dict[" in str(field.annotation) else ""
            yield from keys_of(section, f"{prefix}{name}.{inner}")


def is_at(key: str, found: str) -> bool:
    return found == key or found.startswith((f"{key}.", f"{key}["))


@cache
def quickstart() -> Composed:
    return composed("viggo_quickstart")


@cache
def around(key: str) -> dict[str, Any]:
    return {above: values for above, values in AROUND.items() if key.startswith(f"{above}.")}


@pytest.fixture(autouse=True)
def with_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "version", lambda *names: "1")
    monkeypatch.chdir(tmp_path)


def taken(key: str, value: Any) -> bool:
    """Whether the recipe may have the value there. The schema is asked first: most end there."""
    recipe = changed(quickstart(), {**around(key), key: value})
    if any(is_at(key, problem.key) for problem in parse(recipe).problems):
        return False
    return not any(is_at(key, found) or (around(key) and key.startswith(found)) for found in problems_of(recipe))


@pytest.mark.parametrize("key", list(keys_of(recipe_class())))
def test_a_hostile_text_is_refused_or_reviewed(key: str, tmp_path: Path) -> None:
    harmless = next((set(REVIEWED["kinds"][kind]) for kind, keys in REVIEWED["keys"].items() if key in keys), set())
    assert {name for name, text in TEXTS.items() if taken(key, text)} <= harmless
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", list(keys_of(recipe_class())))
def test_a_value_that_no_key_is_for_is_refused(key: str) -> None:
    takes = REVIEWED["mappings_and_lists"]
    allowed = {name for name in ("files", "a mapping") if key in takes.get(name, [])}
    assert {name for name, value in OTHERS.items() if taken(key, value)} <= allowed


def test_what_is_reviewed_is_there() -> None:
    keys = set(keys_of(recipe_class()))
    listed = [
        key for part in (REVIEWED["keys"], REVIEWED["mappings_and_lists"]) for each in part.values() for key in each
    ]
    assert set(listed) <= keys
    assert set(REVIEWED["keys"]) == set(REVIEWED["kinds"]) == set(REVIEWED["why"])


def free(library: Library, table: str) -> Iterator[str]:
    """Arguments of the table that may be given a hostile text without trust."""
    homes = [each for each in MAPPINGS if each.library == library and table in each.tables]
    for name, entry in library.table(table).items():
        values = [value for text in TEXTS.values() for value in (text, [text]) if accepts(entry, value)]
        reserved = all(name in each.reserved for each in homes)
        if not reserved and any(not list(harmful(library, (table,), {name: value})) for value in values):
            yield name


@pytest.mark.parametrize(("library", "table"), TABLES, ids=lambda each: getattr(each, "name", each))
def test_an_argument_that_takes_any_text_is_reviewed(library: Library, table: str) -> None:
    listed = [name for part in REVIEWED["arguments"].get(f"{library.name}.{table}", {}).values() for name in part]
    assert sorted(free(library, table)) == sorted(listed)


@pytest.mark.parametrize("mapped", MAPPINGS, ids=lambda mapped: mapped.key)
def test_a_mapping_of_a_library_hides_nothing(mapped: Mapped) -> None:
    """Neither a mapping within a single value, nor a text where a mapping is judged by its keys."""
    for name, entry in mapped.entries().items():
        nested = any(name in reviewed(mapped.library).get(table, {}).get("nested", {}) for table in mapped.tables)
        plain = any(name in reviewed(mapped.library).get(table, {}).get("plain", []) for table in mapped.tables)
        for hidden in ([{"x": "os:system"}], {"never_reviewed": "os:system"}, *(["{}"] if nested else [])):
            refused = list(harmful(mapped.library, mapped.tables, {name: hidden}))
            assert refused or plain or not accepts(entry, hidden) or hidden == "{}", name
