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

from stages.serve.guard.images import images_of, refuse_images
from stages.serve.guard.messages import refuse_unused
from stages.serve.guard.refusal import RefusedError

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
    refuse_images(images_of(value))


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


def test_many_images_are_counted_together() -> None:
    large = uri(size=(6000, 6000))
    assert refusal(body(large, large)) == (URL.replace("content[0]", "content[1]"), "image_too_large")


def test_small_images_count_as_what_a_model_makes_of_them() -> None:
    """One pixel becomes millions of numbers where a model sees 896 x 896."""
    check(body(*[uri(size=(1, 1))] * 100))
    assert refusal(body(*[uri(size=(1, 1))] * 101)) == (URL.replace("content[0]", "content[100]"), "image_too_large")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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
