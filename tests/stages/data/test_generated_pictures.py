"""Drawn pictures: what is on them is what their rows say, and no picture of one split is in another."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from runner.errors import RunnerError
from stages.data.generated.named import parse_uri
from stages.data.generated.pictures import COLOURS, PictureSpec, draw, generate


def spec(**given: int) -> PictureSpec:
    return replace(PictureSpec(train=200, val=20, test=60, seed=7), **given)


def test_an_answer_names_the_number_the_colour_and_the_shape() -> None:
    rows = list(generate(spec(), "test"))
    assert len({row["image"] for row in rows}) == 60
    assert {(row["count"], "s" if row["answer"].endswith("s") else "") for row in rows} == {
        ("one", ""), ("two", "s"), ("three", "s"),
    }  # fmt: skip
    for row in rows:
        assert row["answer"].removesuffix("s") == f"{row['count']} {row['colour']} {row['shape']}"


@pytest.mark.parametrize("size", [28, 56, 75, 448])
def test_a_picture_is_a_png_with_a_shape_in_each_of_its_cells(size: int) -> None:
    with Image.open(BytesIO(draw(size, "red", "square", [0, 5]))) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (size, size))
        centres = [
            image.getpixel((size // 8 + size // 4 * (cell % 4), size // 8 + size // 4 * (cell // 4)))
            for cell in range(16)
        ]
    assert [cell for cell, pixel in enumerate(centres) if pixel == COLOURS["red"]] == [0, 5]


def test_shapes_differ_and_keep_their_form_at_every_size() -> None:
    inked = {}
    for shape in ("circle", "square", "triangle"):
        with Image.open(BytesIO(draw(448, "blue", shape, [3]))) as image:
            inked[shape] = sum(count for count, pixel in image.getcolors() or [] if pixel == COLOURS["blue"])
    assert inked["circle"] / inked["square"] == pytest.approx(3.1416 / 4, abs=0.02)
    assert inked["triangle"] / inked["square"] == pytest.approx(0.5, abs=0.02)


def test_the_same_uri_gives_the_same_pictures_and_splits_share_none() -> None:
    pictures = {split: {row["image"] for row in generate(spec(), split)} for split in ("train", "val", "test")}
    assert not pictures["train"] & pictures["test"]
    assert not pictures["train"] & pictures["val"]
    assert not pictures["val"] & pictures["test"]
    first = next(iter(generate(spec(), "train")))
    again = next(iter(generate(spec(train=1), "train")))
    assert first == again
    with Image.open(BytesIO(base64.b64decode(first["image"].partition(",")[2]))) as image:
        digest = hashlib.sha256(image.tobytes()).hexdigest()
    assert digest.startswith("b452d73b089f3385")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("generated://pictures?trian=5", "did you mean train?"),
        ("generated://pictures?train=many", "not a whole number"),
        ("generated://pictures?size=8", "not from 28 to 1024"),
        ("generated://pictures?size=56&size=56", "given twice"),
        ("generated://pictures/x", "names no set of pictures"),
        ("generated://picture", "there is no grammar"),
    ],
)
def test_what_a_uri_says_is_used_or_refused(uri: str, message: str) -> None:
    with pytest.raises(RunnerError, match=message.replace("?", r"\?")):
        parse_uri(uri)


def test_more_pictures_than_there_are_is_an_error() -> None:
    with pytest.raises(RunnerError, match=r"only .* different pictures can be made for test"):
        list(generate(spec(test=5000), "test"))
