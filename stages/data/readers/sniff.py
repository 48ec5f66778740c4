"""What a file is, by its first bytes, and by its name only where these leave it open. Nothing heavy is imported."""

from __future__ import annotations

import bz2
import json
import lzma
import re
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.readers.dialect import DELIMITERS, bare, delimiter_of
from stages.data.readers.refused import BEGINNINGS, encoding_of, of_members

HEAD_BYTES = 1 << 16
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_BINARY = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
_WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".zip")
_JSON, _TABLES, _TEXTS = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv", ".tab"), (".txt", ".text", ".md")
_ABOUT = re.compile(r"(readme|license|licence|notice)(\.(md|txt|rst))?", re.IGNORECASE)
"""Names of a zip's files about its data."""
_WEB_PAGE = re.compile(r"\s*<(!doctype html|html|head|\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """What a file is. kind: a key of READERS. compression: "" or gzip, zstd, bz2, xz, zip. member: of a zip."""

    kind: str
    compression: str = ""
    delimiter: str = ","
    member: str = ""


def sniff(path: Path, name: str) -> Form:
    """The form of a file. name: for messages. Raises RunnerError with one sentence when it cannot be read."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    whole = len(head) < HEAD_BYTES
    compression = next((each for magic, each in _COMPRESSIONS.items() if head.startswith(magic)), "")
    if not compression:
        return _form(head, name, whole)
    if compression == "zip":
        member, head = _zip_head(path, name)
        return replace(_form(head, f"{name}/{member}", len(head) < HEAD_BYTES), compression="zip", member=member)
    expanded, is_all = _expanded(head, compression, name)
    if expanded is None:  # the library is not here: the name says what it is
        inner = _inner_name(name)
        return Form(_kind_by_name(inner), "zstd", "\t" if inner.endswith((".tsv", ".tab")) else "")
    return replace(_form(expanded, name, whole and is_all), compression=compression)


def _inner_name(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name


def _kind_by_name(name: str) -> str:
    suffix = Path(name).suffix.lower()
    kinds = {".csv": "csv", ".tsv": "csv", ".tab": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}
    return kinds.get(suffix, "text" if suffix in _TEXTS else "jsonl")


def _expanded(head: bytes, compression: str, name: str) -> tuple[bytes | None, bool]:
    """The beginning of what the compressed beginning holds, and whether that is all of it; None where it takes a
    library that is not installed."""
    if compression == "zstd":
        try:
            data = _zstd_head(head)
            return data, data is not None and len(data) < HEAD_BYTES
        except OSError as error:
            raise _refused(name, "is not a whole zstd file", "Get the file again.") from error
    unpack: Any = {"gzip": lambda: zlib.decompressobj(31), "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}
    try:
        unpack = unpack[compression]()
        data = unpack.decompress(head, HEAD_BYTES)
    except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
        raise _refused(name, f"is not a whole {compression} file", "Get the file again.") from error
    return data, unpack.eof and not unpack.unused_data


def _zstd_head(head: bytes) -> bytes | None:
    try:
        import pyarrow as pa
    except ImportError:
        return None
    found = b""
    stream = pa.CompressedInputStream(pa.BufferReader(head), "zstd")
    with suppress(OSError, EOFError):  # the beginning ends in the middle of a frame
        while len(found) < HEAD_BYTES and (piece := stream.read(4096)):
            found += piece
    if not found:
        raise OSError("no frame")
    return found


def _zip_head(path: Path, name: str) -> tuple[str, bytes]:
    """The one data file of a zip, and its beginning."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.namelist() if _is_data(each)]
            if known := of_members(archive.namelist()):
                raise _refused(name, *known)
            if len(members) != 1:
                shown = ", ".join(members[:5]) or "none"
                raise _refused(
                    name, f"is a zip of {count_text(len(members), 'file')} ({shown})", "Unpack it, and name the files."
                )
            if archive.getinfo(members[0]).flag_bits & 1:
                raise _refused(name, "is a zip with a password", "Unpack it first.")
            with archive.open(members[0]) as file:
                return members[0], file.read(HEAD_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
        raise _refused(name, "is not a whole zip file", "Get the file again.") from error


def _is_data(member: str) -> bool:
    base = member.rpartition("/")[2]
    return bool(base) and not base.startswith(".") and not member.startswith("__MACOSX/") and not _ABOUT.fullmatch(base)


def _form(head: bytes, name: str, whole: bool) -> Form:
    if not head.strip():
        raise _refused(name, "is empty", "Give a file with rows.")
    for magic, kind in _BINARY.items():
        if head.startswith(magic):
            return Form(kind)
    for magic, (words, hint) in BEGINNINGS.items():
        if head.startswith(magic):
            raise _refused(name, words, hint)
    if packed := next((each for magic, each in _COMPRESSIONS.items() if head.startswith(magic)), ""):
        raise _refused(name, f"is {packed} inside another compression", "Unpack it once.")
    if head[257:262] == b"ustar":
        raise _refused(name, "is a tar archive", "Unpack it, and name its files.")
    text = _text(head, name, whole)
    if _WEB_PAGE.match(text):
        raise _refused(name, "is a web page or XML, not rows", "Check the address: it may want a login.")
    return _text_form(text, name, whole)


def _text(head: bytes, name: str, whole: bool) -> str:
    wide = next((each for mark, each in _WIDE.items() if head.startswith(mark)), "")
    if not wide and b"\0" in head[:1024]:
        zeros = (head[0:1024:2].count(0), head[1:1024:2].count(0))
        wide = "UTF-16" if max(zeros) > 4 * (min(zeros) + 1) else ""
        if not wide and _is_utf8(head.replace(b"\0", b"")):
            line = head.count(b"\n", 0, head.index(b"\0")) + 1
            hint = "It may have been cut off while it was written: get it again, or remove these bytes."
            raise _refused(name, f"has NUL bytes, the first in line {line}", hint)
        if not wide:
            raise _refused(name, "is a binary file of no known form", "Give JSON Lines, JSON, CSV, Parquet or Arrow.")
    if wide:
        hint = "Save it as UTF-8 (PowerShell: Out-File -Encoding utf8; Excel: CSV UTF-8)."
        raise _refused(name, f"is {wide}, not UTF-8", hint)
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not whole and error.start >= len(head) - 3:
            return head[: error.start].decode("utf-8-sig")
        line = head.count(b"\n", 0, error.start) + 1
        byte, (words, encoding) = head[error.start], encoding_of(head)
        raise _refused(
            name, f"is not UTF-8 (byte 0x{byte:02x} in line {line}); it may be {words}",
            f"Save it as UTF-8: iconv -f {encoding} -t UTF-8 {quote(name)} > {quote(_utf8_name(name))}",
        ) from error  # fmt: skip


def _utf8_name(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/utf8-{last}" if folder else f"utf8-{last}"


def _is_utf8(data: bytes) -> bool:
    try:
        data[:-4].decode()
    except UnicodeDecodeError:
        return False
    return len(data) > 16 and not any(byte < 9 for byte in data[:1024])


def _text_form(text: str, name: str, whole: bool) -> Form:
    suffix, start = Path(_inner_name(name)).suffix.lower(), text.lstrip()[:1]
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if start == "{" and (suffix not in (*_TABLES, *_TEXTS) or _is_json(lines[0])):
        return Form(_json_kind(lines, suffix, whole))
    if start == "[" and (suffix not in (*_TABLES, *_TEXTS) or lines[0].strip()[1:2] in ("", "{")):
        return Form("json")
    if suffix in _TEXTS:
        return Form("text")
    if suffix in _TABLES:
        delimiter = delimiter_of(lines)
        tabs = suffix != ".csv" and ("\t" in lines[0] or delimiter not in lines[0])
        return Form("csv", delimiter="\t" if tabs else delimiter)
    shown = lines[0][:40]
    if suffix in _JSON:
        if start == '"' and _is_json(_unquoted(lines[0])):
            hint = "Each line is an object within a text: it was written as JSON twice. Write it once."
            raise _refused(name, f"is not JSON: it starts with {shown!r}", hint)
        if _value_of(lines[0]) is not _NONE:
            return Form("jsonl")  # whose reader tells of each line that it holds no object
        table = any(each in lines[0] for each in DELIMITERS) and "{" not in lines[0]
        hint = "It looks like CSV: name it .csv." if table else "Write one JSON object a line."
        raise _refused(name, f"is not JSON: it starts with {shown!r}", hint)
    delimiter = delimiter_of(lines)
    if len(lines) > 1 and bare(lines[0]).count(delimiter) == bare(lines[1]).count(delimiter) > 0:
        return Form("csv", delimiter=delimiter)
    raise _refused(name, f"is of no known form: it starts with {shown!r}", "Name it .jsonl, .json, .csv, .tsv or .txt.")


def _json_kind(lines: list[str], suffix: str, whole: bool) -> str:
    """JSON Lines, or one document: an object over several lines, or the file's only line."""
    if _is_json(lines[0]):
        return "json" if len(lines) == 1 and whole and suffix not in (".jsonl", ".ndjson") else "jsonl"
    if len(lines) == 1:  # longer than what was read
        return "jsonl" if suffix != ".json" else "json"
    return "json" if suffix == ".json" or lines[0].strip() == "{" else "jsonl"


def _is_json(line: str) -> bool:
    return isinstance(_value_of(line), dict)


def _unquoted(line: str) -> str:
    """The text that a line of JSON is; "" for another line."""
    value = _value_of(line)
    return value if isinstance(value, str) else ""


_NONE = object()


def _value_of(line: str) -> Any:
    """The value of a line of JSON; `_NONE` where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return _NONE


def _refused(name: str, words: str, hint: str) -> RunnerError:
    return RunnerError(f"{name} {words}", hint)
