"""Images that cost more than their bytes say, or that are none, as data URLs of a request."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

from PIL import Image

_SIDE = 7000  # 49 million pixels, which a request may have


def url(content: bytes, form: str = "png") -> str:
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def saved(form: str, size: tuple[int, int] = (64, 64), frames: int = 1) -> bytes:
    """A file of one colour a frame."""
    made = BytesIO()
    images = [Image.new("RGB", size, (number % 256, 0, 0)) for number in range(frames)]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(made, form, **more)
    return made.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, before: bytes = b"", after: bytes = b"", rows: int | None = None) -> bytes:
    """A PNG of one bit a pixel. before, after: chunks around the pixels. rows: that it has; None: all."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")


def text_bomb(num_mib: int, count: int) -> bytes:
    """Chunks of text that unpack to so many MiB each."""
    return chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(num_mib << 20), 9)) * count


def jpeg_of_scans(num_scans: int, side: int = _SIDE) -> bytes:
    """A progressive grey JPEG whose every scan passes all blocks and says nothing of them."""
    blocks = ((side + 7) // 8) ** 2

    def segment(marker: int, data: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(data)) + data

    def table(kind: int, symbol: int) -> bytes:  # one symbol, of the code 0
        return segment(0xC4, bytes((kind, 1, *bytes(15), symbol)))

    def packed(bits: str) -> bytes:
        bits += "1" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")

    frame = segment(0xDB, bytes((0, *([1] * 64)))) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + packed("0" * blocks)
    runs, left = "", blocks
    while left > 0:  # symbol 0xE0: so many blocks end here, 2**14 and what 14 more bits say
        run = min(left, (1 << 15) - 1)
        runs, left = runs + "0" + format(max(0, run - (1 << 14)), "014b"), left - run
    scan = segment(0xDA, b"\1\1\0\1\x3f\0") + packed(runs)
    return b"\xff\xd8" + frame + table(0x00, 0) + table(0x10, 0xE0) + first + scan * num_scans + b"\xff\xd9"


REFUSED: dict[str, Callable[[], list[str]]] = {
    "900 million pixels": lambda: [url(png(30_000, 30_000))],
    "64 million pixels": lambda: [url(png(8_000, 8_000))],
    "1000 images": lambda: [url(saved("PNG", (4, 4)))] * 1000,
    "49 million pixels twice": lambda: [url(png(_SIDE, _SIDE))] * 2,
    "49 million pixels of which there are none": lambda: [url(png(_SIDE, _SIDE, rows=0))],
    "half a PNG": lambda: [url(saved("PNG", (512, 512))[:-200])],
    "half a JPEG": lambda: [url(saved("JPEG", (512, 512))[:-200], "jpeg")],
    "half a WebP": lambda: [url(saved("WEBP", (512, 512))[:-50], "webp")],
    "a text that unpacks to 900 MiB": lambda: [url(png(64, 64, before=text_bomb(900, 1)))],
    "texts that unpack to 2 GiB": lambda: [url(png(64, 64, before=text_bomb(1, 2000)))],
    "a JPEG of 20,000 scans": lambda: [url(jpeg_of_scans(20_000), "jpeg")],
    "a PNG of 300,000 chunks": lambda: [url(saved("PNG")[:33] + chunk(b"abCd", b"") * 300_000 + saved("PNG")[33:])],
    "a JPEG of 100 scans of 49 million pixels": lambda: [url(jpeg_of_scans(99), "jpeg")],
    "SVG": lambda: [
        url(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "svg+xml")
    ],
    "TIFF": lambda: [url(saved("TIFF"), "tiff")],
    "BMP": lambda: [url(saved("BMP"), "bmp")],
    "ICO": lambda: [url(saved("ICO"), "x-icon")],
    "AVIF": lambda: [url(struct.pack(">I", 28) + b"ftypavif\0\0\0\0avifmif1miaf" + bytes(64), "avif")],
    "PostScript": lambda: [url(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "png")],
    "TIFF that is called PNG": lambda: [url(saved("TIFF"))],
    "another type": lambda: [f"data:text/html;base64,{base64.b64encode(saved('PNG')).decode()}"],
    "a data URL in a data URL": lambda: [url(url(saved("PNG")).encode())],
    "nothing": lambda: [url(b"")],
}
"""Data URLs of each request that is refused."""

TAKEN: dict[str, Callable[[], list[str]]] = {
    "49 million pixels": lambda: [url(png(_SIDE, _SIDE))],
    "texts behind the pixels that unpack to 900 MiB": lambda: [url(png(64, 64, after=text_bomb(900, 1)))],
    "a JPEG of 10 scans of 49 million pixels": lambda: [url(jpeg_of_scans(9), "jpeg")],
    "a JPEG of 100 scans of 4 million pixels": lambda: [url(jpeg_of_scans(99, 2_000), "jpeg")],
    "a JPEG that is called PNG": lambda: [url(saved("JPEG"))],
    "500 frames of GIF": lambda: [url(saved("GIF", frames=500), "gif")],
    "200 frames of WebP": lambda: [url(saved("WEBP", frames=200), "webp")],
    "200 frames of PNG": lambda: [url(saved("PNG", frames=200))],
}
"""And of each that is answered."""
