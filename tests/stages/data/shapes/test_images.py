"""Images of rows: where they may come from, where they stand, and what is refused by name."""

from __future__ import annotations

import base64
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.data.example import BadRowError, Example
from stages.data.images import Images
from stages.data.shapes.convert import make_example
from stages.data.sources.local import LocalFiles
from stages.models.vision import image_bytes
from stages.sections.dataset import Dataset

PLACE = {"type": "image"}


def png(mode: str = "RGB", colour: Any = "red", form: str = "PNG", **kwargs: Any) -> bytes:
    made = BytesIO()
    Image.new(mode, (4, 4), colour).save(made, form, **kwargs)
    return made.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    (tmp_path / "b.jpg").write_bytes(png(form="JPEG"))
    return tmp_path


def example(source: Path | str, row: dict[str, Any], stage: str = "sft") -> Example:
    section = Dataset.model_validate({"source": str(source), "prompt": {"conversations": "m"}})
    return make_example(section, stage, "test")(row, "0", "test.jsonl:1")


def talk(content: Any, **columns: Any) -> dict[str, Any]:
    return {"m": [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}], **columns}


def test_an_image_is_a_path_a_url_bytes_or_base64_of_the_rows_source(source: Path) -> None:
    content = png()
    written = base64.b64encode(png("RGB", (1, 2, 3))).decode() * 1
    rows = [
        talk("<image>What?", images=["pictures/a.png"]),
        talk("<image>What?", images=[f"{source}/pictures/a.png"]),
        talk("<image>What?", images=[{"bytes": content, "path": None}]),
        talk("<image>What?", image=f"data:image/png;base64,{base64.b64encode(content).decode()}"),
        talk([{"type": "image_url", "image_url": {"url": "pictures/a.png"}}, {"type": "text", "text": "What?"}]),
        talk([{"type": "image", "path": "./pictures/a.png"}, {"type": "text", "text": "What?"}]),
    ]
    for row in rows:
        made = example(source, row)
        assert made.messages[0]["content"] == [PLACE, {"type": "text", "text": "What?"}]
        assert [image_bytes(each) for each in made.images or []] == [content]
        assert made.reference == "red"
        assert content not in made.columns.values()
    assert image_bytes(Images(Dataset(source="data")).load(written)) == base64.b64decode(written)


def test_images_stand_where_the_texts_have_places_else_before_the_question(source: Path) -> None:
    both = example(source, talk("First <image> then <image>.", images=["pictures/a.png", "b.jpg"]))
    assert both.messages[0]["content"] == [
        {"type": "text", "text": "First "}, PLACE, {"type": "text", "text": " then "}, PLACE,
        {"type": "text", "text": "."},
    ]  # fmt: skip
    assert [each.partition(";")[0] for each in both.images or []] == ["data:image/png", "data:image/jpeg"]
    before = example(source, talk("What?", images=["b.jpg"]))
    assert before.messages[0]["content"] == [PLACE, {"type": "text", "text": "What?"}]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (255, 0, 0, 0), (255, 255, 255)), ("L", 7, (7, 7, 7)), ("P", 0, (0, 0, 0)), ("CMYK", 0, (255, 255, 255))],
)
def test_what_libraries_would_decode_otherwise_becomes_plain_rgb(mode: str, colour: Any, expected: Any) -> None:
    uri = Images(Dataset(source="data")).load(png(mode, colour, "TIFF" if mode == "CMYK" else "PNG"))
    with Image.open(BytesIO(image_bytes(uri))) as image:
        assert (image.format, image.mode, image.getpixel((0, 0))) == ("PNG", "RGB", expected)


def test_an_image_that_is_to_be_turned_is_turned() -> None:
    image, exif = Image.new("RGB", (4, 2)), Image.Exif()
    exif[0x0112] = 6
    made = BytesIO()
    image.save(made, "JPEG", exif=exif)
    with Image.open(BytesIO(image_bytes(Images(Dataset(source="data")).load(made.getvalue())))) as turned:
        assert turned.size == (2, 4)


BAD = {
    "another host": (talk("<image>", images=["https://elsewhere.org/a.png"]), "not below dataset.source"),
    "another folder": (talk("<image>", images=["/etc/a.png"]), "not below dataset.source"),
    "a way out": (talk("<image>", images=["../a.png"]), "not a path below dataset.source"),
    "no image": (talk("<image>", images=[b"GIF89a"]), "cannot be read as an image"),
    "too few places": (talk("<image> and <image>", images=["b.jpg"]), "has 1 image in its column and 2 places"),
    "no image in the column": (talk([PLACE]), "0 images in its column and 1 place for"),
    "an unknown key": (talk([{**PLACE, "image": "b.jpg", "crop": 1}]), "unknown key 'crop'"),
    "a detail": (talk([{"type": "image_url", "image_url": {"url": "b.jpg", "detail": "low"}}]), "detail='low'"),
    "two images in one": (talk([{**PLACE, "image": "b.jpg", "path": "b.jpg"}]), "2 of image"),
    "a number": (talk("<image>", images=[3]), "an image that is a number"),
    "an answer": (
        {"m": [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": [{**PLACE, "image": "b.jpg"}]}]},
        "a message of the assistant has an image",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_an_image_that_cannot_be_used_is_refused_by_name(source: Path, what: str) -> None:
    row, words = BAD[what]
    with pytest.raises(BadRowError, match=words):
        example(source, row)


@pytest.mark.timeout(20)
def test_a_file_that_became_a_pipe_meanwhile_is_not_waited_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(LocalFiles, "checked", lambda self, name: tmp_path / "pipe")
    with pytest.raises(BadRowError, match="cannot be read: it is a device, a pipe or a folder"):
        Images(Dataset(source=str(source))).load("red.png")


def test_only_supervised_training_takes_images(source: Path) -> None:
    with pytest.raises(BadRowError, match=r"train\.stage=kto takes none"):
        example(source, {**talk("<image>", images=["b.jpg"]), "label": True}, "kto")


@pytest.mark.parametrize("column", [{"images": []}, {"images": None}, {"image": ""}])
def test_a_place_for_an_image_that_an_empty_column_does_not_have_is_refused(column: dict[str, Any]) -> None:
    with pytest.raises(BadRowError, match="has a place for an image, <image>, and none in its column"):
        example("data", talk("<image>What?", **column))


def test_a_text_about_images_needs_none() -> None:
    assert example("data", talk("What is <image> in SVG?")).messages[0]["content"] == "What is <image> in SVG?"
