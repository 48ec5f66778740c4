"""Images of a request: in the request itself, of forms that Pillow reads without another program, and not too large."""

from __future__ import annotations

import base64
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from stages.serve.guard.images import MOST_PIXELS, count_pixels, images_of
from stages.serve.guard.messages import refuse_unused
from stages.serve.guard.refusal import RefusedError
from tests.chaos.image_bombs import chunk, jpeg_of_scans, saved

URL = "messages[0].content[0].image_url.url"


def uri(form: str = "PNG", size: tuple[int, int] = (4, 4)) -> str:
    made = BytesIO()
    Image.new("RGB", size).save(made, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(made.getvalue()).decode()}"


def body(*urls: Any, **more: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": parts}], **more}


def check(value: dict[str, Any]) -> None:
    refuse_unused(value)
    count_pixels(images_of(value))


def refusal(value: dict[str, Any]) -> tuple[str | None, str | None]:
    with pytest.raises(RefusedError) as caught:
        check(value)
    return caught.value.refusal.param, caught.value.refusal.code


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_image_in_the_request_is_taken(form: str) -> None:
    asked = body(uri(form), uri(form))
    check(asked)
    assert len(list(images_of(asked))) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png", "https://elsewhere.org/a.png", "file:///etc/passwd", "ftp://elsewhere.org/a.png",
        "DATA:image/png;base64,AA==", "data:text/plain;base64,AA==", None, 3, "",
    ],
)  # fmt: skip
def test_an_address_is_refused_and_nothing_is_fetched(url: Any) -> None:
    assert refusal(body(url)) == (URL, "unused_parameter")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,?", "invalid_image"),
        ("data:image/png,AA==", "invalid_image"),
        ("data:image/png;base64,AAAA", "invalid_image"),
        (uri("TIFF"), "invalid_image"),
        ("data:image/png;base64," + base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode(), "invalid_image"),
        (uri(size=(8000, 8000)), "image_too_large"),
    ],
)
def test_an_image_of_an_unknown_form_or_size_is_refused(url: str, code: str) -> None:
    assert refusal(body(url)) == (URL, code)


@pytest.mark.parametrize("wrong", ["?", " ", "\n", "=", "data:image/png;base64,"])
def test_characters_that_are_not_of_base64_are_not_passed_over(wrong: str) -> None:
    with pytest.raises(RefusedError) as caught:
        count_pixels([(URL, f"{uri()[:40]}{wrong}{uri()[40:]}")])
    assert caught.value.refusal.message == f"{URL} is not valid base64."


def test_a_url_begins_with_its_type() -> None:
    for before in ("x", " ", "http://127.0.0.1:1/"):
        with pytest.raises(RefusedError, match="is not an image in the request itself"):
            count_pixels([(URL, before + uri())])


def test_the_limit_of_pixels_is_the_last_that_is_taken() -> None:
    def of(width: int, height: int) -> dict[str, Any]:
        return body("data:image/png;base64," + base64.b64encode(png(width, height)).decode())

    check(of(MOST_PIXELS // 50_000, 50_000))
    assert refusal(of(MOST_PIXELS + 1, 1)) == (URL, "image_too_large")
    assert refusal(of(60_000, 60_000)) == (URL, "image_too_large")  # which Pillow refuses itself


@pytest.mark.parametrize(("scans", "side"), [(10, 7_000), (20, 4_900), (100, 2_000)])
def test_a_jpeg_counts_once_for_every_ten_scans(scans: int, side: int) -> None:
    def of(scans: int) -> dict[str, Any]:
        return body("data:image/jpeg;base64," + base64.b64encode(jpeg_of_scans(scans - 1, side)).decode())

    check(of(scans))
    if scans < 100:
        assert refusal(of(scans + 1)) == (URL, "image_too_large")


def test_many_images_are_counted_together() -> None:
    large = uri(size=(6000, 6000))
    assert refusal(body(large, large)) == (URL.replace("content[0]", "content[1]"), "image_too_large")


def test_small_images_count_as_what_a_model_makes_of_them() -> None:
    """One pixel becomes millions of numbers where a model sees 896 x 896."""
    check(body(*[uri(size=(1, 1))] * 100))
    assert refusal(body(*[uri(size=(1, 1))] * 101)) == (URL.replace("content[0]", "content[100]"), "image_too_large")


def png(width: int, height: int, *before: bytes, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animated(form: str, count: int) -> bytes:
    made = BytesIO()
    first, *others = (Image.new("RGB", (8, 8), (at % 256, at // 256, 0)) for at in range(count))
    first.save(made, form, save_all=True, append_images=others)
    return made.getvalue()


def on_a_canvas(content: bytes, begin: int, size: bytes) -> bytes:
    return content[:begin] + size + content[begin + len(size) :]


BOMBS: dict[str, tuple[Callable[[], bytes], bool]] = {
    "60,000 x 60,000 in 10 KB": (lambda: png(60_000, 60_000, pixels=zlib.compress(bytes(10_000_000))), False),
    "one of no height": (lambda: png(5, 0), False),
    "a text of 300 MB": (lambda: png(8, 8, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6)))] * 300), False),
    "a profile of 100 MB": (lambda: png(8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(10**8)))), False),
    "a GIF of 65,535 x 65,535": (lambda: on_a_canvas(animated("GIF", 2), 6, b"\xff" * 4), False),
    "a WebP of 16 million x 16 million": (lambda: on_a_canvas(animated("WEBP", 2), 24, b"\xff" * 6), False),
    "an SVG": (lambda: b"<svg><image href='file:///etc/passwd'/></svg>", False),
    "a TIFF": (lambda: base64.b64decode(uri("TIFF").partition(",")[2]), False),
    "a GIF of 3,000 frames": (lambda: animated("GIF", 3000), True),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header_in_little_memory(name: str) -> None:
    make, is_taken = BOMBS[name]
    asked = body("data:image/png;base64," + base64.b64encode(make()).decode())
    tracemalloc.start()
    begin = time.process_time()
    try:
        check(asked) if is_taken else refusal(asked)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 5
    assert is_taken or refusal(asked)[0] == URL


JPEG, PNG, GIF = saved("JPEG"), saved("PNG"), saved("GIF")
EXIF = b"\xff\xe1\0\x09Exif\0\0a"
GIF_HEAD = 13 + (3 << (GIF[10] & 7) + 1 if GIF[10] & 0x80 else 0)
ENDLESS: dict[str, Callable[[], bytes]] = {
    "a JPEG of 101 scans of 49 million pixels": lambda: jpeg_of_scans(100),
    "a JPEG of 101 scans behind much else": lambda: jpeg_of_scans(100, 64).replace(JPEG[:2], JPEG[:2] + EXIF * 1500, 1),
    "a JPEG of 101 scans behind the end of a small one": lambda: (
        b"\xff\xd8\xff\xe1\0\4\xff\xd9" + jpeg_of_scans(100, 64)[2:]
    ),
    "a JPEG of arithmetic coding": lambda: jpeg_of_scans(1, 64).replace(b"\xff\xc2", b"\xff\xca"),
    "a JPEG of 300,000 segments": lambda: JPEG[:2] + EXIF * 300_000 + JPEG[2:],
    "a JPEG of empty segments": lambda: JPEG[:2] + b"\xff\xe5\0\2" * 1_000_000 + JPEG[2:],
    "a PNG of 600,000 chunks": lambda: PNG[:33] + chunk(b"abCd", b"") * 600_000 + PNG[33:],
    "a PNG of 3,000 chunks before the pixels": lambda: PNG[:33] + chunk(b"abCd", b"") * 3_000 + PNG[33:],
    "a PNG of 600,000 chunks behind the pixels": lambda: PNG[:-12] + chunk(b"abCd", b"") * 600_000 + PNG[-12:],
    "a GIF of 2,000,000 blocks": lambda: GIF[:GIF_HEAD] + b"!\xfe" + b"\1a" * 2_000_000 + b"\0" + GIF[GIF_HEAD:],
    "a GIF of 2,000,000 blocks behind colours that look like an image": lambda: (
        GIF[:10] + b"\xf7\0\0" + b"," * 768 + b"!\xfe" + b"\1a" * 2_000_000 + b"\0" + GIF[GIF_HEAD:]
    ),
    "a GIF of 1,000,000 comments": lambda: GIF[:GIF_HEAD] + b"!\xfe\1a\0" * 1_000_000 + GIF[GIF_HEAD:],
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_image_of_parts_without_number_is_refused_before_any_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = body("data:image/png;base64," + base64.b64encode(ENDLESS[name]()).decode())
    monkeypatch.setattr(Image, "open", None)
    begin = time.process_time()
    assert refusal(asked) == (URL, "image_too_large")
    assert time.process_time() - begin < 1


def progressive(**more: Any) -> bytes:
    made = BytesIO()
    Image.effect_noise((640, 480), 50).convert("RGB").save(made, "JPEG", progressive=True, **more)
    return made.getvalue()


USUAL: dict[str, Callable[[], bytes]] = {
    "a progressive JPEG": progressive,
    "a JPEG with a profile of 3 MB": lambda: progressive(icc_profile=bytes(3_000_000)),
    "a JPEG with small ones in it": lambda: (
        JPEG[:2] + b"\xff\xe1\xff\0" + (EXIF[4:] + progressive())[:65278] + JPEG[2:]
    ),
    "a JPEG with a film behind it": lambda: progressive() + b"\xff\xda\0\1\xff\xca" * 30_000,
    "a JPEG of 100 scans": lambda: jpeg_of_scans(99, 64),
    "a PNG of 1,000 texts": lambda: PNG[:33] + chunk(b"tEXt", b"a\0b") * 1_000 + PNG[33:],
    "a PNG of 9,000 pieces": lambda: PNG[:-12] + chunk(b"IDAT", b"") * 9_000 + PNG[-12:],
    "a GIF with a comment of 100 KB": lambda: (
        GIF[:GIF_HEAD] + b"!\xfe" + (b"\xff" * 256) * 400 + b"\0" + GIF[GIF_HEAD:]
    ),
    "a GIF of 300 frames": lambda: saved("GIF", frames=300),
    "a PNG of 300 frames": lambda: saved("PNG", frames=300),
}


@pytest.mark.parametrize("name", USUAL)
def test_what_cameras_and_programs_write_is_taken(name: str) -> None:
    check(body("data:image/png;base64," + base64.b64encode(USUAL[name]()).decode()))


@pytest.mark.parametrize(
    "content", [b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG", b"GIF89a", b"GIF89a" + bytes(7), JPEG[:30]]
)
def test_an_image_that_ends_in_its_beginning_is_refused(content: bytes) -> None:
    assert refusal(body("data:image/png;base64," + base64.b64encode(content).decode())) == (URL, "invalid_image")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "http://127.0.0.1:1/a.mp4"}},
        {"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:1/a.wav"}},
        {"image_url": "http://127.0.0.1:1/a.png"},
        {"type": "input_image", "image_url": "http://127.0.0.1:1/a.png"},
        {"type": "image_embeds", "image_embeds": "AA=="},
        3,
    ],
)
def test_parts_of_other_types_are_refused(part: Any) -> None:
    asked = {"messages": [{"role": "user", "content": ["a text", part]}]}
    assert refusal(asked) == ("messages[0].content[1].type", "unused_parameter")


def test_a_request_does_not_change_how_images_are_seen() -> None:
    assert refusal(body(uri(), mm_processor_kwargs={"max_pixels": 1}))[0] == "mm_processor_kwargs"
    assert refusal(body(uri(), media_io_kwargs={"image": {}}))[0] == "media_io_kwargs"
