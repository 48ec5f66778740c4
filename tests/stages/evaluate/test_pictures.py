"""The rows' images on the page: small copies of what ingest has sealed, within bounds."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import pytest

from runner.storage.artifact import Artifact, scan_folder
from stages.data.example import Example, write_examples
from stages.data.images import data_uri
from stages.evaluate import pictures
from stages.evaluate.pictures import pictures_of


def uri(width: int, height: int, colour: str = "red") -> str:
    from PIL import Image

    made = BytesIO()
    Image.new("RGB", (width, height), colour).save(made, "PNG")
    return data_uri(made.getvalue(), "an image")


def sealed(folder: Path, *rows: list[str]) -> Artifact:
    (folder / "test_set").mkdir()
    examples = (Example(f"test-{at:06d}", text="x", images=images or None) for at, images in enumerate(rows))
    write_examples(folder / "test_set" / "test.jsonl", examples)
    return scan_folder("test_set", folder / "test_set")


def test_a_small_image_is_shown_as_it_is_and_a_large_one_smaller(tmp_path: Path) -> None:
    from PIL import Image

    found = pictures_of(sealed(tmp_path, [uri(32, 16), uri(2000, 1000)], []), ["test-000000", "test-000001"])
    small, large = found.of("test-000000")
    assert (small.uri, small.width, small.height) == (uri(32, 16), 32, 16)
    assert (large.width, large.height) == (2000, 1000)
    with Image.open(BytesIO(base64.b64decode((large.uri or "").partition(",")[2]))) as shown:
        assert shown.size == (224, 112)
        red, green, blue = shown.convert("RGB").getpixel((5, 5))
        assert red > 240 > 15 > max(green, blue)
    assert found.of("test-000001") == []
    assert (found.omitted, found.damage) == (0, "")


def test_a_test_set_that_has_changed_is_not_shown(tmp_path: Path) -> None:
    artifact = sealed(tmp_path, [uri(8, 8)])
    path = tmp_path / "test_set" / "test.jsonl"
    path.write_text(path.read_text().replace("test-000000", "test-000001"))
    found = pictures_of(artifact, ["test-000001"])
    assert (found.rows, found.damage) == ({}, "the test set has changed since the run")
    path.unlink()
    assert pictures_of(artifact, ["test-000000"]).rows == {}


def test_the_page_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = sealed(tmp_path, [uri(8, 8)], [uri(8, 8, "blue")])
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    found = pictures_of(artifact, ["test-000001", "test-000000"])
    assert [found.of(f"test-00000{at}")[0].uri for at in (1, 0)] == [uri(8, 8, "blue"), None]
    assert found.omitted == 1
    monkeypatch.setattr(pictures, "MOST_BYTES", 20)
    assert pictures_of(artifact, ["test-000001", "test-000000"]).omitted == 2
