"""A JSON Schema of a recipe fetches nothing: no file, no host."""

from __future__ import annotations

import pytest

from stages.evaluators.metrics import load_metrics, wrong_arguments

OUTSIDE = ["file:///etc/passwd", "http://evil.example/x.json", "other.json#/$defs/a"]


@pytest.mark.parametrize("target", OUTSIDE)
@pytest.mark.parametrize("place", ["top", "nested"])
def test_a_reference_to_another_document_is_refused(target: str, place: str) -> None:
    schema = {"$ref": target} if place == "top" else {"properties": {"a": {"items": [{"$ref": target}]}}}
    found = wrong_arguments("json_schema", {"schema": schema})
    assert found
    assert target in found[0]


@pytest.mark.parametrize("target", OUTSIDE[:2])
def test_nothing_is_fetched_where_nobody_has_checked(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: object, **kwargs: object) -> None:
        raise AssertionError("it was fetched")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    metric = load_metrics(["json_schema"], {"json_schema": {"schema": {"$ref": target}}})["json_schema"]
    with pytest.raises(Exception, match="Unresolvable"):
        metric('{"a": 1}', "")  # type: ignore[operator]


def test_a_reference_within_the_schema_is_followed() -> None:
    schema = {"$defs": {"a": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/a"}}}
    assert wrong_arguments("json_schema", {"schema": schema}) is None
    metric = load_metrics(["json_schema"], {"json_schema": {"schema": schema}})["json_schema"]
    assert [metric('{"a": "b"}', ""), metric('{"a": 1}', "")] == [1.0, 0.0]  # type: ignore[operator]
