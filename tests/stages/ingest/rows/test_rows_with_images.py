"""Rows that ask the same about other images are other rows, and the place of an image is not a control token."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from stages.data.shapes.convert import make_example
from stages.ingest.rows.collect import Collected, Watch, collect
from stages.ingest.rows.control import ControlTokens
from stages.sections.recipe import Recipe


def collected(folder: Path, *colours: str) -> Collected:
    """Rows that ask "<image>?" about a picture of each colour, as ingest collects them."""
    for colour in colours:
        Image.new("RGB", (2, 2), colour).save(folder / f"{colour}.png")
    talk = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "A colour."}]
    rows = [{"messages": talk, "images": [f"{colour}.png"]} for colour in colours]
    recipe = recipe_of(folder)
    placed = [(f"train.jsonl:{number}", row) for number, row in enumerate(rows, 1)]
    watch = Watch(control=ControlTokens(["<image>", "</s>"]))
    return collect(
        placed, folder / "made.jsonl", (make_example(recipe.dataset, "sft", "train"), None), "train", None, watch
    )


def recipe_of(folder: Path) -> Recipe:
    dataset = {"source": str(folder), "prompt": {"conversations": "messages"}}
    return Recipe.model_validate(
        {"name": "tiny", "model": {"source": "m"}, "serve": {"model_id": "base"}, "dataset": dataset}
    )


def test_the_same_question_about_another_image_is_another_prompt(tmp_path: Path) -> None:
    assert len(set(collected(tmp_path, "red", "blue", "red").prompts)) == 2


def test_the_place_of_an_image_is_not_remarked_upon_as_a_control_token(tmp_path: Path) -> None:
    found = collected(tmp_path, "red")
    assert (found.num_rows, found.control.count) == (1, 0)
