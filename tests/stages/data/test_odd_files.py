"""Files as people have them: read as their owner meant them, or refused in one sentence with what to do."""

from __future__ import annotations

import decimal
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.prompt import render
from stages.data.readers import read_file

ROW = {"q": "Open?", "a": "At eight."}
LINE = b'{"q": "Open?", "a": "At eight."}\n'
GERMAN = b"\xef\xbb\xbfq;a\r\nWie viel?;1,80\r\n;\r\n"


def parquet(columns: dict[str, Any], features: Any = None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def zstandard(data: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(data, codec="zstd", asbytes=True)


def tar(data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        info = tarfile.TarInfo("x.jsonl")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def read(tmp_path: Path, name: str, data: bytes) -> list[tuple[int, Any]]:
    (tmp_path / name).write_bytes(data)
    return list(read_file(tmp_path / name, name))


READ: dict[str, tuple[str, bytes, list[Any]]] = {
    "German Excel": ("x.csv", GERMAN, [{"q": "Wie viel?", "a": "1,80"}]),
    "pandas' index": ("x.csv", b",q,a\n0,Open?,At eight.\n", [ROW]),
    "pandas' index of two levels": ("x.csv", b",,q,a\n0,b,Open?,At eight.\n", [ROW]),
    "trailing delimiters": ("x.csv", b"q,a,,\nOpen?,At eight.,,\n", [ROW]),
    "delimiters after the last field": ("x.csv", b"q,a\nOpen?,At eight.,\n", [ROW]),
    "spaces after delimiters": ("x.csv", b'q, a\n"Open?", "At eight."\n', [ROW]),
    "empty rows": ("x.csv", b"q,a\n,\nOpen?,At eight.\n,\n", [ROW]),
    "one column of texts with a comma each": ("x.csv", b"text\n" + b"One, two\n" * 6, [{"text": "One, two"}] * 6),
    "one column with commas": ("x.csv", b'text\nOne, two\n"Three, ""four"""\n',
                               [{"text": "One, two"}, {"text": 'Three, "four"'}]),
    "commas in a .tsv": ("x.tsv", b"q,a\nOpen?,At eight.\n", [ROW]),
    "tabs in a .csv": ("x.csv", b"q\ta\nOpen?\tAt eight.\n", [ROW]),
    "CR alone": ("x.csv", b"q,a\rOpen?,At eight.\r", [ROW]),
    "texts for missing values": ("x.csv", b"q,a\nNA,None\n", [{"q": "NA", "a": "None"}]),
    "two byte order marks": ("x.csv", b"\xef\xbb\xbf" * 2 + b"q,a\nOpen?,At eight.\n", [ROW]),
    "a text that is its only column's name": ("x.csv", b"text\ntext\n", [{"text": "text"}]),
    "files put together": ("x.jsonl", LINE + b"\xef\xbb\xbf" + LINE, [ROW, ROW]),
    "NaN": ("x.jsonl", b'{"q": NaN}\n', [{"q": None}]),
    "a line separator": ("x.jsonl", '{"q": "a\u2028b"}\n'.encode(), [{"q": "a\u2028b"}]),
    "a long line": ("x.jsonl", b'{"q": "' + b"x" * 200_000 + b'"}\n' + LINE, [{"q": "x" * 200_000}, ROW]),
    "JSON Lines in a .csv": ("x.csv", LINE, [ROW]),
    "gzip by another name": ("x.jsonl", gzip.compress(LINE), [ROW]),
    "gzip without an ending": ("x", gzip.compress(b"q,a\nOpen?,At eight.\n"), [ROW]),
    "gzip of two members": ("x.gz", gzip.compress(LINE) + gzip.compress(LINE), [ROW, ROW]),
    "zstd without an ending": ("x", zstandard(b"q;a\nOpen?;At eight.\n"), [ROW]),
    "zstd of lines called .json": ("x.json.zst", zstandard(LINE * 2), [ROW, ROW]),
    "splits by their usual names": ("x.json", b'{"Training": [{"q": 1}], "dev": [{"q": 2}]}', [{"q": 1}]),
    "a comma in a header of semicolons": ("x.csv", b"q, short;a\nOpen?;1,80\nNow?;no\n",
                                         [{"q, short": "Open?", "a": "1,80"}, {"q, short": "Now?", "a": "no"}]),
    "comments before the header": ("x.csv", b"# by a tool, 2024, v3\n#\nq,a\nOpen?,At eight.\n", [ROW]),
    "a header that begins with #": ("x.csv", b"#q,a\nOpen?,At eight.\n", [{"#q": "Open?", "a": "At eight."}]),
    "a quoted header after two byte order marks": ("x.csv", b"\xef\xbb\xbf" * 2 + b'"q","a"\nOpen?,At eight.\n', [ROW]),
    "a delimiter after the header alone": ("x.csv", b"q,a,\nOpen?,At eight.\n", [ROW]),
    "spaces around delimiters": ("x.csv", b"q | a\nOpen? | At eight.\n", [ROW]),
    "a name that ends unseen": ("x.csv", "q,a\u200b\nOpen?,At eight.\n".encode(), [ROW]),
    "Excel's hint with spaces": ("x.csv", b"sep = ;\nq;a\nOpen?;At eight.\n", [ROW]),
    "splits one object further in": ("x.json", b'{"data": {"train": [{"q": 1}], "test": [{"q": 2}]}}', [{"q": 1}]),
    "a split without rows next to another": ("x.json", b'{"train": [], "test": [{"q": 2}]}', []),
    "splits, packed": ("x.json.gz", gzip.compress(b'{"train": [{"q": 1}], "test": [{"q": 2}]}'), [{"q": 1}]),
    "one conversation": ("x.json", b'{"messages": [{"role": "user", "content": "a"}]}',
                         [{"messages": [{"role": "user", "content": "a"}]}]),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_an_odd_file_is_read_as_it_was_meant(tmp_path: Path, kind: str) -> None:
    name, data, rows = READ[kind]
    assert [row for _, row in read(tmp_path, name, data)] == rows


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "NUL bytes at its end": ("x.jsonl", LINE + b"\0" * 100, "has NUL bytes, the first in line 2"),
    "gzip in gzip": ("x.gz", gzip.compress(gzip.compress(LINE)), "is gzip inside another compression"),
    "a tar archive": ("x.tar.gz", tar(LINE), "is a tar archive"),
    "packed UTF-16": ("x.csv.gz", gzip.compress("q,a\n1,2\n".encode("utf-16")), r"x\.csv\.gz is UTF-16"),
    "columns of lists": ("x.json", b'{"q": ["a", "b"], "a": ["c", "d"]}', "holds columns"),
    "pandas' split": ("x.json", b'{"columns": ["q"], "index": [0, 1], "data": [["a"]]}', "holds columns"),
    "rows by id": ("x.json", b'{"r1": {"q": 1}, "r2": {"q": 2}}', "holds columns or named objects"),
    "one array of messages": ("x.json", b'[{"role": "user", "content": "a"}]', "is an array of messages"),
    "conversations as lines": ("x.jsonl", b'[{"from": "human", "value": "a"}]\n' * 2, "is an array of messages"),
    "a comma at the array's end": ("x.json", b'[{"q": 1},]', "is not JSON after row 1"),
    "a comma at the end of its last row": ("x.json", b'[{"q": 1,}]', "is not JSON: a comma before '}'"),
    "no comma between rows": ("x.json", b'[{"q": 1}\n{"q": 2}]', "has no comma after row 1, but '{'"),
    "an encoding of its script": ("x.csv", "问题,答案\n开门吗,八点开门\n".encode("gb18030"), "such as GB18030"),
    "an archive": ("x.7z", b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(99), "is a 7z archive"),
    "a pickle of an old protocol": ("x.pkl", b"\x80\x02}q\0.", "is a Python pickle"),
    "arrays": ("x.npy", b"\x93NUMPY\x01\0", "is an array of NumPy"),
    "lists of which none is the split": (
        "x.json",
        b'{"easy": [{"q": 1}], "hard": [{"q": 2}]}',
        "several lists of objects",
    ),
    "JSON within JSON": ("x.jsonl", json.dumps(LINE.decode()).encode(), "is not JSON: it starts with"),
    "lines above the header": (
        "x.csv",
        b"Report: tickets\n\nq;a\n" + b"Open?;No\n" * 5,
        "has 2 lines above its header",
    ),
    "a comment": ("x.jsonl", b"// mine\n" + LINE, "is not JSON: it starts with '// mine'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_odd_file_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    name, data, words = REFUSED[kind]
    with pytest.raises(RunnerError, match=words) as caught:
        read(tmp_path, name, data)
    assert "\n" not in caught.value.message
    assert caught.value.hint


BAD: dict[str, tuple[str, bytes, int, str, str]] = {
    "NUL": ("x.csv", b"q,a\n" + b"1,2\n" * 1000 + b"a\0,b\n", 1002, "holds a NUL byte", "UTF-8"),
    "a comma after each object": ("x.jsonl", b'{"q": 1},\n', 1, "after it comes ','", "one JSON object a line"),
    "two objects on a line": ("x.jsonl", b'{"q": 1}\n{"q": 1} {"q": 2}\n', 2, "after it comes '{\"q\": 2}'", "a line"),
    "Python's objects": ("x.jsonl", b"{'q': 1}\n", 1, "not JSON", "json.dumps"),
    "a header that lacks a name": ("x.csv", b'"q","a"\n"1","b","c"\n', 2, "has 3 fields, and the header has 2", "name"),
    "a title with the table's delimiters": (
        "x.csv",
        b"Report;;\nq;a;b\nOpen?;No;1\n",
        2,
        "has 3 fields, and the header names 1 of them",
        "above the header",
    ),
    "a column without a name between others": (
        "x.csv",
        b"q,,a\n1,,3\n1,2,3\n",
        3,
        "has 3 fields, and the header names 2 of them: 'q', 'a'",
        "name every",
    ),
    "tables put together": ("x.csv", b"q,a\n1,2\n\xef\xbb\xbfq,a\n3,4\n", 3, "repeats the header", "joined"),
    "a value nested without end": (
        "x.jsonl",
        b'{"a":' + b"[" * 99999 + b"]" * 99999 + b"}",
        1,
        "nested deeper",
        "value",
    ),
    "a number without end": ("x.jsonl", b'{"a": ' + b"9" * 5000 + b"}", 1, "more than 4,300 digits", "value"),
    "a rule under the header": ("x.csv", b"q,a\n-----,---\n1,2\n", 2, "a rule of dashes", "CSV"),
    "Markdown": ("x.csv", b"| q | a |\n|---|:--|\n| 1 | 2 |\n", 2, "a rule of dashes", "CSV"),
    "too few fields": ("x.csv", b"q,a\n1\n2,3\n", 2, "has 1 field, and the header has 2", "also for empty ones"),
    "more after a quote": ("x.csv", b'text\n"Hello," she said.\n', 2, "after a quote that closes a field", "twice"),
    "Python's words": ("x.jsonl", b'{"q": True}\n', 1, "not JSON", "json.dumps"),
    "a tab in a text": ("x.jsonl", b'{"q": "a\tb"}\n', 1, "which JSON writes as", "a line"),
    "lines that are texts": ("x.jsonl", b'"one"\n"two"\n', 1, "not a JSON object but text", '{"text": "..."}'),
    "an array of texts": ("x.json", b'["one", "two"]', 1, "not a JSON object but text", '{"text": "..."}'),
    "null at the beginning": ("x.jsonl", b"null\n" + LINE, 1, "not a JSON object but null", "Remove"),
    "conversations without a name": (
        "x.json",
        b'[[{"from": "human", "value": "a"}]]',
        1,
        "but a list",
        '{"messages": [...]}',
    ),
    "quotes behind a backslash": ("x.csv", b'q,a\n"a \\"x\\" y","b"\n', 2, "not CSV", "twice"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_row_that_cannot_be_read_has_its_line_and_what_to_do(tmp_path: Path, kind: str) -> None:
    name, data, number, why, fix = BAD[kind]
    bad = dict(read(tmp_path, name, data))[number]
    assert isinstance(bad, BadRowError)
    assert why in bad.why
    assert fix in bad.fix


def test_a_quote_that_is_not_closed_makes_a_bad_row_of_each_line_that_it_swallows(tmp_path: Path) -> None:
    found = read(tmp_path, "x.csv", b'q,a\n"a,b\nc,d\ne,f\n')
    assert [number for number, row in found if isinstance(row, BadRowError)] == [2, 3, 4]


def test_values_of_parquet_are_those_that_json_has(tmp_path: Path) -> None:
    import pyarrow as pa

    columns = {
        "nan": pa.array([float("nan"), 1.5]),
        "map": pa.array([[("k", "v")], []], pa.map_(pa.string(), pa.string())),
        "large": pa.array(["x", None], pa.large_string()),
        "word": pa.array(["x", "y"]).dictionary_encode(),
        "nested": pa.array([{"n": float("nan")}, None]),
        "single": pa.array([[0.1, None], None], pa.list_(pa.float32())),
        "half": pa.array([{"n": [0.3, 1]}, None], pa.struct({"n": pa.list_(pa.float16(), 2)})),
        "coded": pa.array([0.7, None], pa.float32()).dictionary_encode(),
    }
    assert [row for _, row in read(tmp_path, "x.parquet", parquet(columns))] == [
        {"nan": None, "map": {"k": "v"}, "large": "x", "word": "x", "nested": {"n": None}, "single": [0.1, None],
         "half": {"n": [0.3, 1.0]}, "coded": 0.7},
        {"nan": 1.5, "map": {}, "large": None, "word": "y", "nested": None, "single": None,
         "half": None, "coded": None},
    ]  # fmt: skip


def test_a_zip_of_rows_may_say_what_they_are_about(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x.jsonl", LINE)
        archive.writestr("README.md", "# About")
    assert [row for _, row in read_file(tmp_path / "x.zip", "x.zip")] == [ROW]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (["mimetype", "content.xml"], "is a spreadsheet or text of OpenDocument"),
        (["a/data.pkl", "a/version"], "is a file of PyTorch"),
        (["a.npy", "b.npy"], "is a file of NumPy's arrays"),
    ],
)
def test_a_zip_that_is_another_tools_file_is_refused_by_its_name(
    tmp_path: Path, members: list[str], words: str
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member in members:
            archive.writestr(member, "x")
    with pytest.raises(RunnerError, match=words):
        list(read_file(tmp_path / "x.zip", "x.zip"))


def test_what_python_has_no_value_for_is_an_error_where_it_is_used_alone(tmp_path: Path) -> None:
    import pyarrow as pa

    columns = {
        "time": pa.array([10**12, 0], pa.timestamp("s")),
        "day": pa.array([10**7, 0], pa.date32()),
        "text": pa.array([b"\xff", b"x"]).view(pa.string()),
        "map": pa.array([[("k", "v"), ("k", "w")], [("k", "v")]], pa.map_(pa.string(), pa.string())),
        "number": pa.array([decimal.Decimal("0.0000001"), None], pa.decimal128(20, 10)),
        "by number": pa.array([[(1, "x")], []], pa.map_(pa.int32(), pa.string())),
    }
    first, second = (row for _, row in read(tmp_path, "x.parquet", parquet(columns)))
    why = {name: value.why for name, value in first.items() if isinstance(value, BadRowError)}
    year = "is a time beyond the year 9999, or before the year 1"
    assert why == {"time": year, "day": year, "text": "is not UTF-8", "map": "has a key twice"}
    assert (str(first["number"]), first["by number"]) == ("0.0000001000", {"1": "x"})
    assert [second[name] for name in why] == ["1970-01-01T00:00:00", "1970-01-01", "x", {"k": "v"}]
    with pytest.raises(BadRowError, match="column 'text' is not UTF-8"):
        render("{text}", first)


LABEL = {"_type": "ClassLabel", "names": ["no", "yes"]}
LABELLED: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "alone": (LABEL, [1, -1], ["yes", None]),
    "in a list": ({"_type": "List", "feature": LABEL}, [[1, 0], []], [["yes", "no"], []]),
    "in an object": ({"x": LABEL, "y": {"_type": "Value"}}, [{"x": 0, "y": 1}], [{"x": "no", "y": 1}]),
    "in Python's list": ([{"x": LABEL}], [[{"x": 1}]], [[{"x": "yes"}]]),
    "of another form": ({"_type": "Value"}, [1], [1]),
}


@pytest.mark.parametrize("where", LABELLED)
def test_classes_have_their_names_wherever_they_are(tmp_path: Path, where: str) -> None:
    feature, values, named = LABELLED[where]
    data = parquet({"a": values}, {"a": feature})
    assert [row["a"] for _, row in read(tmp_path, "x.parquet", data)] == named


def test_a_class_that_the_file_does_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="a class label is 2, and the file names 2 classes: no, yes"):
        read(tmp_path, "x.parquet", parquet({"a": [0, 2]}, {"a": LABEL}))


def test_nulls_that_a_table_fills_in_are_left_out_of_tools_and_calls(tmp_path: Path) -> None:
    import pyarrow as pa

    talk = [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
        for name, arguments in (("stock", {"item": "rye"}), ("open", {"day": None}))
    ]
    tools = [{"name": "stock", "parameters": {"item": {"default": None, "type": "string"}}}, {"name": "open"}]
    table = pa.Table.from_pylist([{"m": talk, "tools": tools, "extra": {"n": None}}])
    (_, row), *_ = read(tmp_path, "x.parquet", parquet({name: table[name] for name in table.column_names}))
    calls = [each["tool_calls"][0]["function"] for each in row["m"]]
    assert calls == [{"name": "stock", "arguments": {"item": "rye"}}, {"name": "open", "arguments": {}}]
    assert row["m"][0]["content"] is None
    assert row["tools"] == [{"name": "stock", "parameters": {"item": {"type": "string"}}}, {"name": "open"}]
    assert row["extra"] == {"n": None}


def test_features_in_an_unknown_form_are_not_read_as_labels(tmp_path: Path) -> None:
    assert read(tmp_path, "x.parquet", parquet({"a": [1]}, [{"name": "a"}])) == [(1, {"a": 1})]


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), sink)
    with pytest.raises(RunnerError, match="has the column 'a' twice"):
        read(tmp_path, "x.parquet", sink.getvalue().to_pybytes())
