"""Reading of the images that rows name or hold: from the row, or from files of the rows' own source.

An image becomes a data URI of PNG, JPEG or WebP in RGB, upright and without animation: what training, batch inference
and the endpoint then decode alike.
"""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError
from runner.storage.small import read_small
from runner.storage.store import checked_key
from stages.data.example import BadRowError
from stages.data.sources.names import folder_of, scheme_of
from stages.sections.dataset import Dataset

if TYPE_CHECKING:
    from stages.data.sources.base import FileSource

MOST_BYTES = 20 << 20
MOST_PIXELS = 50_000_000
_FORMATS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}
_READ = (*_FORMATS, "GIF", "BMP", "TIFF")
_AS_TEXT = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD")
"""How an image begins that is written in base64."""
_ORIENTATION = 0x0112


class Images:
    """Gives the images of rows of a dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self._source, self._endpoint = dataset.source, dataset.endpoint_url
        self._anonymous = dataset.anonymous
        self._files: FileSource | None = None

    def load(self, value: str | bytes) -> str:
        """The data URI of an image. value: bytes, base64, a data URI, or a path or URL below the source.

        Raises BadRowError naming what cannot be read.
        """
        if isinstance(value, bytes):
            return data_uri(value, "an image")
        if value.startswith("data:"):
            return data_uri(_decoded(value.partition(",")[2]), "an image")
        if value.startswith(_AS_TEXT) and len(value) > 64:
            return data_uri(_decoded(value), "an image")
        return data_uri(self._read(self._name(value)), f"the image {value!r}")

    def _name(self, value: str) -> str:
        """The file's name below the source."""
        folder = folder_of(self._source).rstrip("/")
        local = not scheme_of(self._source)
        whole = str(Path(folder).expanduser().absolute()) if local else folder
        name = value.removeprefix("file://") if local else value
        name = name.removeprefix(f"{whole}/").removeprefix("./")
        if "://" in name or name.startswith("/"):
            raise BadRowError(
                f"names the image {value!r}, which is not below dataset.source",
                "Put the images next to the rows, and give their paths relative to dataset.source.",
            )
        try:
            return checked_key(name)
        except RunnerError as error:
            why = f"names the image {value!r}, which is not a path below dataset.source"
            raise BadRowError(why, error.hint) from None

    def _read(self, name: str) -> bytes:
        from stages.data.sources.base import Count
        from stages.data.sources.fetch import open_files
        from stages.data.sources.local import LocalFiles

        try:
            self._files = files = self._files or open_files(self._source, self._endpoint, self._anonymous)
            path = files.checked(name) if isinstance(files, LocalFiles) else files.local(name)
            if path is not None:
                return _bytes_of(path, name)
            with TemporaryDirectory() as temporary:
                target = Path(temporary) / "image"
                most = f"{MOST_BYTES >> 20} MiB for an image"
                files.fetch(name, target, Count(lambda done, total: None, MOST_BYTES, most))
                return _bytes_of(target, name)
        except RunnerError as error:
            raise BadRowError(f"its image {name!r} cannot be read: {error.message}", error.hint) from None


def _bytes_of(path: Path, name: str) -> bytes:
    try:
        size = path.stat().st_size
        if size <= MOST_BYTES:
            return read_small(path, MOST_BYTES)
    except OSError as error:
        raise BadRowError(
            f"its image {name!r} cannot be read: {error.strerror or error}", "Give its path relative to dataset.source."
        ) from None
    raise BadRowError(
        f"its image {name!r} has {size:,} bytes, and at most {MOST_BYTES:,} are taken", "Make it smaller."
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadRowError(f"has an image whose base64 cannot be read: {error}") from None


def data_uri(content: bytes, what: str) -> str:
    """The image as a data URI, converted where it is not plain RGB. what: for the words."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise BadRowError(f"{what} has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            if image.format not in _READ:
                raise BadRowError(f"{what} is of the format {image.format}; there are: {', '.join(_READ)}")
            image.load()
            if not _is_plain(image):
                content, form = _plain(image), "png"
            else:
                form = _FORMATS[str(image.format)]
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRowError(
            f"{what} cannot be read as an image: {type(error).__name__}", "Repair it, or remove the row."
        ) from None
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def _is_plain(image: Any) -> bool:
    """Whether every library decodes it to the same pixels."""
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    return image.format in _FORMATS and image.mode == "RGB" and not turned and getattr(image, "n_frames", 1) == 1


def _plain(image: Any) -> bytes:
    """PNG in RGB: upright, its first frame, with white behind what is transparent."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    made = BytesIO()
    Image.alpha_composite(white, upright).convert("RGB").save(made, "PNG")
    return made.getvalue()
