"""A recipe file's text and header, refused in a sentence before anything makes objects of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from runner.errors import Problem, RecipeError
from runner.recipe.hydra.limits import MAX_BYTES, odd_number, why_refused

GLOBAL = "_global_"
_HEADER = re.compile(r"#\s*@package\s+(\S+)")
_BEFORE_HEADER = ("---", "%")  # the start of a document, and a directive
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins with UTF-16's
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_HINTS = {  # of what YAML's reader says
    "mapping values are not allowed": "Put quotes around a text that holds a colon and a space.",
    "cannot start any token|undefined alias": "Put quotes around a text that begins with such a character.",
    "could not find expected ':'": "Write `key: value`, with a space behind the colon, and lines of one mapping alike.",
    "expected key|expected <block end>": "Begin the keys of one mapping below each other; put quotes around texts.",
    "duplicate key": "Write it once.",
    "single document": "Make two files of it: one recipe a file.",
    "constructor for the tag": "Write a plain value: recipes carry no code.",
}
_SHORTER = "Write it shorter; data belongs into files of its own."


def read_recipe_file(path: Path) -> str:
    """The text, without a byte order mark.

    Raises RecipeError naming the file when it cannot be read, is not UTF-8, or would be too large or deep.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise refused(path, "is a folder, a pipe or a device, not a file", "Move it elsewhere.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise refused(path, f"has {size} bytes; there may be {MAX_BYTES}", _SHORTER)
        text = _decoded(path, path.read_bytes())
    except OSError as error:
        raise refused(path, f"cannot be read: {error.strerror}", "Correct its permissions.") from error
    try:
        if why := why_refused(text):
            raise refused(path, why, _SHORTER)
        number = odd_number(text)
    except yaml.YAMLError as error:
        raise not_yaml(path, error) from error
    if number:
        raise refused(path, number, "Write the number that you mean, or put quotes around a text.")
    return text


def _decoded(path: Path, data: bytes) -> str:
    try:
        if b"\0" in data[:4] and (wide := _wide(data)):
            raise refused(path, f"is {wide}", f"Save it in UTF-8: iconv -f {wide} -t utf-8.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wide = _wide(data)
        if not wide and b"\0" in data:
            raise refused(path, "is not a text", "Name a file of `key: value` lines.") from error
        message = f"is {wide}" if wide else f"is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}"
        raise refused(path, message, f"Save it in UTF-8: iconv -f {wide or 'latin1'} -t utf-8.") from error


def _wide(data: bytes) -> str:
    """The encoding of two or four bytes a character that the text has by its mark, or by its zero bytes; or ""."""
    if named := next((name for mark, name in _WIDE.items() if data.startswith(mark)), ""):
        return named
    if data[:200:2].strip(b"\0") == b"" or data[1:200:2].strip(b"\0") == b"":
        return "UTF-16BE" if data[:1] == b"\0" else "UTF-16LE"
    return ""


def refused(path: Path, why: str, hint: str) -> RecipeError:
    """The error for a file as a whole."""
    return RecipeError([Problem("", None, f"a recipe file {why}", hint, str(path))])


def not_yaml(path: Path, error: Exception) -> RecipeError:
    """The error for text that is not YAML, with its line."""
    mark = getattr(error, "problem_mark", None)
    text = str(getattr(error, "problem", None) or error).splitlines()[0]
    context = getattr(error, "context", None)
    reason = f"{context}: {text}" if context else text
    origin = f"{path}:{mark.line + 1}" if mark else str(path)
    hint = next((hint for pattern, hint in _HINTS.items() if re.search(pattern, reason)), "")
    if mark and "\t" in _line(path, mark.line):
        hint = "Write spaces instead of the tab in that line."
    return RecipeError([Problem("", None, f"a recipe file is not valid YAML: {reason}", hint, origin)])


def _line(path: Path, number: int) -> str:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return lines[number] if number < len(lines) else ""


def package_of(text: str) -> str | None:
    """The package of the header `# @package NAME`, which stands among the comments at the top of a file."""
    for line in _comments_at_the_top(text):
        if found := _HEADER.match(line):
            return found[1]
    return None


def _comments_at_the_top(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip() and not line.startswith(_BEFORE_HEADER):
            if not line.lstrip().startswith("#"):
                return
            yield line.strip()


def headline(path: Path) -> str:
    """The first comment line that says what the file is. Raises RecipeError for a file that cannot be read."""
    for line in _comments_at_the_top(read_recipe_file(path)):
        text = line.removeprefix("#").strip()
        if text and not text.startswith(("@package", "yaml-language-server")):
            return text
    return ""
