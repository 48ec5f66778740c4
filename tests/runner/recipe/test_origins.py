"""Lines of a YAML file's keys, aliases and merges among them."""

from __future__ import annotations

from pathlib import Path

from runner.recipe.load import compose
from runner.recipe.origins import key_lines


def test_names_the_line_of_each_leaf(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("# a comment\na:\n  b: 1\n  c: {d: 2, e: {}}\nlist:\n  - x\n  - y\n")
    expected = {"a.b": 3, "a.c.d": 4, "a.c.e": 4, "list": 5, "list[0]": 6, "list[1]": 7}
    assert dict(key_lines(file)) == expected


def test_an_alias_has_the_lines_of_its_anchor_and_a_merge_yields(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one: &one\n  a: 1\n  b: 2\ntwo: *one\nthree:\n  b: 3\n  <<: *one\n")
    lines = dict(key_lines(file))
    assert (lines["two.a"], lines["three.a"], lines["three.b"]) == (2, 2, 6)


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert list(key_lines(tmp_path / "a.yaml")) == []


def test_an_override_of_a_list_hides_the_lines_of_the_items_before() -> None:
    composed = compose(["recipe=viggo_quickstart", "pipeline=[ingest, trian]"])
    assert composed.origin("pipeline[1]") == "command line: pipeline=[ingest, trian]"


def test_an_override_of_a_mapping_is_the_origin_of_its_leaves_only() -> None:
    composed = compose(["recipe=viggo_quickstart", "resources={infer: {num_workers: 1}}"])
    assert composed.origins["resources.infer.num_workers"].startswith("command line")
    assert composed.origins["resources.infer.cpus_per_worker"].startswith("recipes/cluster/local_cpu.yaml:")
    assert "resources" not in composed.origins


def test_a_later_group_wins() -> None:
    origins = compose(["recipe=viggo_quickstart"]).origins
    assert origins["infer.engine_kwargs.dtype"].startswith("recipes/cluster/local_cpu.yaml:")
