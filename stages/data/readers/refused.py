"""Files that are known and not read, by their first bytes: what each is, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PICKLE = ("is a Python pickle, which runs code when it is read", "Save the rows as Parquet or JSON Lines.")
_ARCHIVE = "Unpack it, and name its files."
_MEDIA = "Give a file of rows, such as JSON Lines, that names the images."
BEGINNINGS = {
    b"\xd0\xcf\x11\xe0": ("is an Excel workbook", "Save it as CSV (UTF-8)."),
    b"%PDF": ("is a PDF", "Give a file of rows, such as CSV or JSON Lines."),
    b"SQLite format 3": ("is an SQLite database", "Export the table as CSV or Parquet."),
    b"\x80\x02": _PICKLE, b"\x80\x03": _PICKLE, b"\x80\x04": _PICKLE, b"\x80\x05": _PICKLE,
    b"\x93NUMPY": ("is an array of NumPy", "Save the rows as Parquet or JSON Lines."),
    b"\x89HDF": ("is an HDF5 file", "Save the rows as Parquet or JSON Lines."),
    b"FEA1": ("is a Feather file of version 1", "Save it as Parquet or as Feather version 2."),
    b"PARE": ("is an encrypted Parquet file", "Decrypt it first."),
    b"ORC": ("is an ORC file", "Save it as Parquet."),
    b"Obj\x01": ("is an Avro file", "Save it as Parquet."),
    b"7z\xbc\xaf": ("is a 7z archive", _ARCHIVE),
    b"Rar!": ("is a RAR archive", _ARCHIVE),
    b"\x04\x22\x4d\x18": ("is packed by lz4", "Unpack it, or pack it by gzip or zstd."),
    b"\x89PNG": ("is an image", _MEDIA), b"\xff\xd8\xff": ("is an image", _MEDIA), b"GIF8": ("is an image", _MEDIA),
    b"version https://git-lfs": ("is a pointer of Git LFS, not the file itself", "Run `git lfs pull` there."),
}  # fmt: skip
"""How a file begins -> what it is, and what to do."""


def of_members(names: Sequence[str]) -> tuple[str, str] | None:
    """What a zip with these members is, and what to do, where it is not a packed file of rows."""
    if "[Content_Types].xml" in names:
        return "is an Excel workbook or another Office file", "Save it as CSV (UTF-8)."
    if "mimetype" in names and "content.xml" in names:
        return "is a spreadsheet or text of OpenDocument", "Save it as CSV (UTF-8)."
    if any(name.endswith("data.pkl") for name in names):
        return "is a file of PyTorch", "Save the rows as Parquet or JSON Lines."
    if names and all(name.endswith(".npy") for name in names):
        return "is a file of NumPy's arrays", "Save the rows as Parquet or JSON Lines."
    return None


def encoding_of(data: bytes) -> tuple[str, str]:
    """Which encodings bytes may be in that are not UTF-8, and a name of one for iconv. Letters that Western languages
    add stand alone; those of another script stand in runs."""
    outside = re.findall(rb"[\x80-\xff]+", data)
    runs = [each for each in outside if len(each) > 3]
    if sum(map(len, runs)) * 2 < sum(map(len, outside)):
        return "Latin-1 or Windows-1252", "WINDOWS-1252"
    return "an encoding of its script, such as GB18030, Big5, Shift-JIS, EUC-KR or Windows-1251", "ITS_ENCODING"
