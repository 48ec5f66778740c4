"""Rows with images before a run: which recipes can use them."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.ingest.identity import rows_meaning
from stages.ingest.rules import the_model_takes_the_rows_images
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.images import PLUGINS
from stages.trainers.rules.images import learns_images


def recipe_of(folder: Path, **sections: Any) -> Recipe:
    image = BytesIO()
    Image.new("RGB", (2, 2)).save(image, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"
    talk = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "black"}]
    (folder / "train.jsonl").write_text(json.dumps({"messages": talk, "images": [uri]}))
    given = {
        "name": "tiny", "pipeline": ["ingest", "train"], "serve": {"model_id": "base"},
        "model": {"source": str(folder / "model")},
        "dataset": {"source": str(folder), "prompt": {"conversations": "messages"}},
    }  # fmt: skip
    return Recipe.model_validate({**given, **sections})


def model(folder: Path, **config: Any) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "tokenizer_config.json").write_text("{}")
    (folder / "model" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({}, []),
        ({"train": {"args": {"packing": True}}}, ["train.args.packing"]),
        ({"train": {"too_long": "cut_start"}}, ["train.too_long"]),
    ],
)
def test_rows_with_images_are_learned_whole_and_one_by_one(
    tmp_path: Path, sections: dict[str, Any], keys: list[str]
) -> None:
    model(tmp_path, model_type="llava", vision_config={})
    assert [each.key for each in learns_images(PLUGINS)(recipe_of(tmp_path, **sections))] == keys


def test_a_trainer_or_a_kind_of_model_whose_images_are_not_learned_is_named(tmp_path: Path) -> None:
    model(tmp_path, model_type="idefics3", vision_config={})
    assert [each.key for each in learns_images(())(recipe_of(tmp_path))] == ["train.trainer"]
    (problem,) = learns_images(PLUGINS)(recipe_of(tmp_path))
    assert (problem.key, "idefics3" in problem.message) == ("model.source", True)


def test_a_model_of_text_alone_is_refused_for_rows_with_images(tmp_path: Path) -> None:
    model(tmp_path, model_type="llama")
    (problem,) = the_model_takes_the_rows_images(recipe_of(tmp_path))
    assert (problem.key, "vision_config" in problem.message) == ("model.source", True)


def test_a_changed_image_below_the_source_changes_what_the_rows_are_known_by(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    before = rows_meaning(recipe)
    (tmp_path / "a.png").write_bytes(b"1")
    between = rows_meaning(recipe)
    (tmp_path / "a.png").write_bytes(b"12")
    assert before != between != rows_meaning(recipe)


def test_of_a_model_of_text_alone_images_next_to_the_rows_change_nothing(tmp_path: Path) -> None:
    model(tmp_path, model_type="llama")
    before = rows_meaning(recipe_of(tmp_path))
    (tmp_path / "a.png").write_bytes(b"1")
    assert rows_meaning(recipe_of(tmp_path)) == before


def test_plots_of_runs_next_to_the_rows_change_nothing(tmp_path: Path) -> None:
    storage = {"root": f"{tmp_path}/runs", "artifacts": f"{tmp_path}/store"}
    recipe = recipe_of(tmp_path, storage=storage)
    before = rows_meaning(recipe)
    for folder in ("runs/a/train", "store"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "training_loss.png").write_bytes(b"1")
    assert rows_meaning(recipe) == before
    own = recipe_of(tmp_path, storage={**storage, "root": str(tmp_path)})  # rows below the root of the runs
    assert rows_meaning(own) != before


def test_an_engine_that_would_see_other_pixels_than_training_is_refused(tmp_path: Path) -> None:
    model(tmp_path, model_type="llava", vision_config={})
    asks = {"pipeline": ["ingest", "train", "publish", "infer", "evaluate", "serve"]}
    assert not list(the_model_takes_the_rows_images(recipe_of(tmp_path, **asks)))
    sections = {**asks, "infer": {"engine_kwargs": {"mm_processor_kwargs": {"max_pixels": 4}}}}
    (problem,) = the_model_takes_the_rows_images(recipe_of(tmp_path, **sections))
    assert problem.key == "infer.engine_kwargs.mm_processor_kwargs"
