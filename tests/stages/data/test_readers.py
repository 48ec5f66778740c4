from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import json
import lzma
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.readers import opened, read_file
from stages.data.readers.sniff import Form, sniff

ROWS = [{"q": 'Open, "now"?', "a": "At eight."}, {"q": "Two\nlines", "a": "Gr\u00fc\u00dfe"}]


def rows_of(path: Path, split: str = "train") -> list[Any]:
    return [row for _, row in read_file(path, path.name, split)]


def csv_text(delimiter: str = ",") -> str:
    return (
        delimiter.join(("q", "a"))
        + "\n"
        + "".join(delimiter.join('"' + value.replace('"', '""') + '"' for value in row.values()) + "\n" for row in ROWS)
    )


def lines() -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


def arrow(stream: bool) -> bytes:
    import pyarrow as pa

    table, sink = pa.Table.from_pylist(ROWS), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


FORMS: dict[str, Any] = {
    "x.jsonl": lambda: lines().encode(),
    "bom.jsonl": lambda: b"\xef\xbb\xbf" + lines().encode(),
    "crlf.jsonl": lambda: lines().replace("\n", "\r\n").encode(),
    "cr.jsonl": lambda: lines().replace("\n", "\r").encode(),
    "blank.jsonl": lambda: b"\n" + lines().replace("\n", "\n\n").encode(),
    "array.json": lambda: json.dumps(ROWS).encode(),
    "pretty.json": lambda: json.dumps(ROWS, indent=2).encode(),
    "array.jsonl": lambda: ("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n").encode(),
    "lines.json": lambda: lines().encode(),
    "key.json": lambda: json.dumps({"version": "1", "data": ROWS}).encode(),
    "objects.json": lambda: "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "x.csv": lambda: csv_text().encode(),
    "semicolon.csv": lambda: csv_text(";").encode(),
    "sep.csv": lambda: b"sep=;\r\n" + csv_text(";").encode(),
    "bom.csv": lambda: b"\xef\xbb\xbf" + csv_text().encode(),
    "x.tsv": lambda: csv_text("\t").encode(),
    "no_name": lambda: csv_text().encode(),
    "x.parquet": parquet,
    "parquet_by_content.bin": parquet,
    "x.arrow": lambda: arrow(False),
    "stream.arrow": lambda: arrow(True),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_read_by_its_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name]())
    assert rows_of(tmp_path / name) == ROWS


def zipped(data: bytes, name: str, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"folder/{name}", data)
        archive.writestr("__MACOSX/._x", b"junk")


def zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(data, codec="zstd", asbytes=True)


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


@pytest.mark.parametrize("name", ["x.jsonl", "pretty.json", "x.csv", "semicolon.csv", "x.parquet", "x.arrow"])
@pytest.mark.parametrize("suffix", [*PACKED, ".zip"])
def test_packed_files_are_read_like_those_in_them(tmp_path: Path, name: str, suffix: str) -> None:
    path, data = tmp_path / f"{name}{suffix}", FORMS[name]()
    if suffix == ".zip":
        zipped(data, name, path)
    else:
        path.write_bytes(PACKED[suffix](data))
    assert rows_of(path) == ROWS
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_plain_text_has_a_row_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("Once\n\nupon\u2028a\ntime")
    assert rows_of(tmp_path / "x.txt") == [{"text": "Once"}, {"text": "upon\u2028a"}, {"text": "time"}]


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "UTF-16": ("x.jsonl", lines().encode("utf-16"), "is UTF-16, not UTF-8"),
    "UTF-16 without a mark": ("x.csv", csv_text().encode("utf-16-le"), "is UTF-16, not UTF-8"),
    "Latin-1": ("x.jsonl", lines().encode("latin-1"), r"is not UTF-8 \(byte 0xfc in line 2\)"),
    "empty": ("x.jsonl", b"", "is empty"),
    "white space": ("x.csv", b" \n\n", "is empty"),
    "an Excel workbook": ("x.csv", b"\xd0\xcf\x11\xe0 and so on", "is an Excel workbook"),
    "a web page": ("x.jsonl", b"<!DOCTYPE html><html>", "is a web page"),
    "a pointer": ("x.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    "a pickle": ("x.jsonl", b"\x80\x04\x95abc", "is a Python pickle"),
    "binary": ("x.jsonl", b"\x01\x02\x00\x03", "is a binary file"),
    "CSV by another name": ("x.jsonl", csv_text().encode(), "is not JSON: it starts with 'q,a'"),
    "gzip cut off": ("x.jsonl.gz", b"\x1f\x8b\x08", "is empty"),
    "two columns of a name": ("x.csv", b"a,a\n1,2\n", "the column 'a' twice"),
    "columns, not rows": ("x.json", b'{"q": {"0": "a"}, "a": {"0": "b"}}', "not a list of rows"),
    "several lists": ("x.json", b'{"a": [{"q": 1}], "b": [{"q": 1}]}', "several lists of objects: a, b"),
    "an array cut off": ("x.json", b'[{"q": 1}, {"q"', "is not JSON"),
    "an array and more": ("x.json", b'[{"q": 1}] x', "more after the end"),
    "Parquet cut off": ("x.parquet", b"PAR1 abc", "is cut off or corrupt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    file, data, words = REFUSED[name]
    (tmp_path / file).write_bytes(data)
    with pytest.raises(RunnerError, match=words) as caught:
        rows_of(tmp_path / file)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_list_is_found_by_the_splits_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert rows_of(tmp_path / "x.json", "test") == ROWS[:1]


def test_a_zip_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train.csv", "a\n1\n")
        archive.writestr("test.csv", "a\n1\n")
    with pytest.raises(RunnerError, match=r"a zip of 2 files \(train.csv, test.csv\)"):
        sniff(tmp_path / "x.zip", "x.zip")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"a": 1e999}', "1e999 is out of the range"),
        ("[1]", "not a JSON object but a list"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_a_bad_row_and_the_others_are_read(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"q": 1}}\n{line}\n{{"q": 2}}\n')
    first, bad, last = read_file(tmp_path / "x.jsonl", "x.jsonl")
    assert (first, last) == ((1, {"q": 1}), (3, {"q": 2}))
    assert isinstance(bad[1], BadRowError)
    assert why in bad[1].why


def test_bytes_that_are_not_utf8_behind_the_beginning_are_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"q": 1}\n' * 10_000 + b'{"q": "\xfc"}\n')
    found = rows_of(tmp_path / "x.jsonl")
    assert len(found) == 10_001
    assert found[-1].why == "not UTF-8"


def test_a_table_row_with_other_fields_than_the_header_is_a_bad_row_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n"x\ny",1\n1,2,3\n4,5\n')
    found = dict(read_file(tmp_path / "x.csv", "x.csv"))
    assert found[2] == {"a": "x\ny", "b": "1"}
    assert found[4].why == "has 3 fields, and the header has 2"
    assert found[5] == {"a": "4", "b": "5"}


def test_a_header_without_rows_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    assert rows_of(tmp_path / "x.csv") == []


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 4.50, "b": 1E5, "c": 0.1, "d": 12345678901234567890}\n')
    (tmp_path / "x.csv").write_text("a\n4.50\n")
    assert [str(value) for value in rows_of(tmp_path / "x.jsonl")[0].values()] == [
        "4.50", "1E5", "0.1", "12345678901234567890",
    ]  # fmt: skip
    assert rows_of(tmp_path / "x.csv") == [{"a": "4.50"}]


def test_values_that_json_does_not_have_are_written_as_they_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "day": [datetime.date(2024, 1, 2)], "price": [decimal.Decimal("4.50")],
            "short": pa.array([0.1], pa.float32()), "deep": [[{"at": datetime.date(2024, 1, 2)}]], "label": [1],
            "kind": pa.array(["x"]).dictionary_encode(),
        }
    )  # fmt: skip
    features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "x.parquet")
    (row,) = rows_of(tmp_path / "x.parquet")
    assert {name: str(value) for name, value in row.items() if name != "deep"} == {
        "day": "2024-01-02", "price": "4.50", "short": "0.1", "label": "good", "kind": "x",
    }  # fmt: skip
    assert row["deep"] == [{"at": "2024-01-02"}]


@pytest.mark.parametrize("row", [b'{"a": "x"}\n', b"x"], ids=["many rows", "one row"])
def test_a_small_file_does_not_unpack_to_a_full_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bytes
) -> None:
    monkeypatch.setattr(opened, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(opened, "MOST_EXPANSION", 10)
    for module in ("stages.data.readers.opened", "stages.data.readers.jsonl"):
        monkeypatch.setattr(f"{module}.MOST_ROW_CHARS", 1 << 20)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"a": "' + row * ((16 << 20) // len(row))))
    tracemalloc.start()
    with pytest.raises(RunnerError, match=r"unpacks to more than 1 MiB|line longer than"):
        for _ in read_file(tmp_path / "x.jsonl.gz", "x.jsonl.gz"):
            pass
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


def test_a_json_array_is_read_piece_by_piece(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("w") as file:
        file.write("[")
        file.writelines(json.dumps({"a": "x" * 1000, "n": number}) + ",\n" for number in range(5_000))
        file.write('{"n": -1}]')
    tracemalloc.start()
    count = sum(1 for _ in read_file(tmp_path / "x.json", "x.json"))
    assert count == 5_001
    assert tracemalloc.get_traced_memory()[1] < 30 << 20
    tracemalloc.stop()


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines().encode()))
    reported: list[int] = []
    assert len(list(read_file(tmp_path / "x.jsonl.gz", "x.jsonl.gz", on_bytes=reported.append))) == 2
    assert max(reported) == (tmp_path / "x.jsonl.gz").stat().st_size


def test_a_form_is_known_without_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet())
    assert sniff(tmp_path / "x.parquet", "x.parquet") == Form("parquet")
