"""The images of a chat request: in the request itself, of a known form, and of a size that the replica can hold."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

from stages.serve.guard.image_parts import USUAL_SCANS, num_passes, why_too_costly
from stages.serve.guard.refusal import bad_request

MOST_PIXELS = 50_000_000
"""Of all images of a request together; of one image of a row, `stages.data.images.MOST_PIXELS`."""
LEAST_PIXELS = 500_000
"""Of an image, as it is counted: models enlarge small ones."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Those of OpenAI's API. Pillow has readers that start programs, which no request is to reach."""
_BEGIN = re.compile(r"data:image/[a-z+.-]+;base64,")


def count_pixels(images: Iterable[tuple[str, str]]) -> int:
    """Of all images of a request. Decodes none; raises RefusedError naming the first that the endpoint does not take.

    images: of `images_of`.
    """
    pixels = 0
    for param, url in images:
        content = _content(url, param)
        if why := why_too_costly(content):
            raise bad_request(f"{param} {why}.", param, "image_too_large")
        pixels += max(_num_pixels(content, param) * num_passes(content), LEAST_PIXELS)
        if pixels > MOST_PIXELS:
            counted = f"where a small one counts as {LEAST_PIXELS}, and a JPEG once for every {USUAL_SCANS} scans"
            words = f"The request's images have more than {MOST_PIXELS} pixels, {counted}."
            raise bad_request(words, param, "image_too_large")
    return pixels


def images_of(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Parameter and URL of each image. Other keys of their parts are checked before (`messages.refuse_unused`)."""
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        parts = message.get("content") if isinstance(message, dict) else None
        for at, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict) and part.get("type") == "image_url":
                image = part.get("image_url")
                url = image.get("url") if isinstance(image, dict) else image
                yield f"messages[{index}].content[{at}].image_url.url", str(url)


def _content(url: str, param: str) -> bytes:
    if not (begin := _BEGIN.match(url)):
        form = "data:image/png;base64,..."
        raise bad_request(f"{param} is not an image in the request itself. Send it as {form}", param, "invalid_image")
    try:
        return base64.b64decode(url[begin.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"{param} is not valid base64.", param, "invalid_image") from None


def _num_pixels(content: bytes, param: str) -> int:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return int(image.width * image.height)
    except Image.DecompressionBombError:
        raise bad_request(f"{param} has more than {MOST_PIXELS} pixels.", param, "image_too_large") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        forms = ", ".join(FORMATS)
        raise bad_request(f"{param} is not an image of one of these forms: {forms}.", param, "invalid_image") from None
